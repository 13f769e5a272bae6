"""A Python client made from the OpenAPI schema by openapi-python-client, as the guide prints, and used without an edit by hand."""

import os
import sys
from pathlib import Path

import pytest

from tests.clients.conftest import Live, run

pytestmark = pytest.mark.soak

CALLS = Path(__file__).with_name("calls.py")


def test_a_generated_client_creates_lists_and_generates(live: Live, tmp_path: Path) -> None:
    run(tmp_path, *live.printed("Python"), environment=os.environ)
    [made] = tmp_path.iterdir()
    run(tmp_path, sys.executable, CALLS, live.url, live.key, environment={**os.environ, "PYTHONPATH": str(made)})
