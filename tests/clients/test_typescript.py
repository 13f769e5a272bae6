"""A TypeScript client: types made from the OpenAPI schema by openapi-typescript, as the guide prints, calls by openapi-fetch, checked by
tsc, run by node.
"""

import os
import shutil
from pathlib import Path

import pytest

from tests.clients.conftest import SECONDS, Live, run

PROJECT = Path(__file__).with_name("typescript")

pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(SECONDS),
    pytest.mark.skipif(
        not (shutil.which("npm") and shutil.which("node")),
        reason="npm or node is not on this machine: install Node.js 20 or newer",
    ),
]


def test_a_generated_client_type_checks_creates_lists_and_generates(live: Live, tmp_path: Path) -> None:
    place = tmp_path / "client"
    shutil.copytree(PROJECT, place)
    for command in (
        ["npm", "install", "--no-audit", "--no-fund", "--loglevel=error"],
        live.printed("TypeScript"),
        ["npx", "tsc"],
        ["node", "made/calls.js", live.url, live.key],
    ):
        run(place, *command, environment=os.environ)
