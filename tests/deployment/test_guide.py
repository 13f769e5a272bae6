"""What docs/guides/deployment.md prints and no page's run reaches, done as printed: the `.env` writer, a release without containers."""

import os
import shutil
import stat
import subprocess
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from engarde.embedded.paths import PROJECT_ROOT
from tests.deployment.house import VARIABLE, house
from tests.deployment.test_settings import PRODUCTION, read
from tests.docs import pages

PAGE = "docs/guides/deployment.md"
WRITTEN = {"ALLOWED_HOSTS", "PUBLIC_URL", "SECRET_KEY", "ENCRYPTION_KEYS", "METRICS_TOKEN", "POSTGRES_PASSWORD"}


def run(commands: str, folder: Path, environment: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["bash", "-ec", commands], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_the_env_file_holds_what_is_needed_for_its_owner_alone_and_is_written_once(tmp_path: Path) -> None:
    writer, path = pages.holding(PAGE, "> .env"), tmp_path / ".env"
    assert run(writer, tmp_path, os.environ).returncode == 0
    text = path.read_text()
    variables = dict(line.split("=", 1) for line in text.splitlines())

    assert variables.keys() >= WRITTEN
    assert all(variables.values())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert min(len(variables[name]) for name in ("SECRET_KEY", "METRICS_TOKEN", "POSTGRES_PASSWORD")) >= 32
    assert variables["POSTGRES_PASSWORD"].isalnum()  # it goes into an address as it is
    Fernet(variables["ENCRYPTION_KEYS"])
    assert read(**{**PRODUCTION, **variables}).stdout == "production\n"
    assert run(writer, tmp_path, os.environ).returncode != 0
    assert path.read_text() == text


def test_the_env_file_holds_what_compose_refuses_to_do_without() -> None:
    compose = (PROJECT_ROOT / "docker-compose.yml").read_text()
    assert {found[1] for found in VARIABLE.finditer(compose) if ":?" in found[0]} <= WRITTEN


@pytest.mark.soak
def test_a_release_without_containers_migrates_and_collects_static_files(tmp_path: Path) -> None:
    """In a copy of the code, as STATIC_ROOT is a folder beside it."""
    checkout = tmp_path / "checkout"
    packages = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["root_packages"]
    for name in packages:
        shutil.copytree(PROJECT_ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT_ROOT / "manage.py", checkout)
    (checkout / ".venv").symlink_to(PROJECT_ROOT / ".venv")

    with house(tmp_path / "house") as place:
        done = run(pages.holding(PAGE, "collectstatic"), checkout, place.environment)

    assert done.returncode == 0, done.stderr
    assert "migrated" in done.stdout
    assert "static files copied" in done.stdout
    for name in (
        "admin/css/base.css",
        "unfold/css/styles.css",
        "drf_spectacular_sidecar/swagger-ui-dist/swagger-ui.css",
    ):
        assert (checkout / "staticfiles" / name).stat().st_size
