"""A Python client made from the OpenAPI schema by openapi-python-client, and used without an edit by hand."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.conftest import Live

pytestmark = pytest.mark.soak

CALLS = Path(__file__).with_name("calls.py")


def test_a_generated_client_creates_lists_and_generates(live: Live, tmp_path: Path) -> None:
    made, site = tmp_path / "made", tmp_path / "site"
    tools = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}  # it formats with ruff
    generator = [Path(sys.executable).with_name("openapi-python-client"), "generate", "--meta", "setup"]
    _run(*generator, "--path", live.schema, "--output-path", made, environment=tools)
    alone = ["--no-index", "--no-deps", "--no-build-isolation", "--quiet", "--disable-pip-version-check"]
    _run(sys.executable, "-m", "pip", "install", *alone, "--target", site, made, environment=tools)
    _run(sys.executable, CALLS, live.url, live.key, environment={**tools, "PYTHONPATH": str(site)})


def _run(*command: object, environment: dict[str, str]) -> None:
    done = subprocess.run([str(part) for part in command], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
