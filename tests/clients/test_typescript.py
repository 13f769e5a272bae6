"""A TypeScript client: types made from the OpenAPI schema by openapi-typescript, calls by openapi-fetch, checked by tsc, run by node."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.clients.conftest import Live

PROJECT = Path(__file__).with_name("typescript")
SECONDS = 600

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
    _run(place, "npm", "install", "--no-audit", "--no-fund", "--loglevel=error")
    _run(place, "npx", "openapi-typescript", f"{live.url}/api/schema", "--output", "engarde.d.ts")
    _run(place, "npx", "tsc")
    _run(place, "node", "made/calls.js", live.url, live.key)


def _run(place: Path, *command: str) -> None:
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False, timeout=SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
