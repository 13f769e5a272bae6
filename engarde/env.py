"""Settings from the environment: `NAME`, or for secrets `NAME_FILE` naming a file that holds the value."""

import os
from pathlib import Path

import environ
from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent


FROM_FILES = (
    "SECRET_KEY",
    "DATABASE_URL",
    "REDIS_URL",
    "ZERODB_API_KEY",
    "ZERODB_PROJECT_ID",
    "BIGQUERY_PROJECT_ID",
    "BIGQUERY_CREDENTIALS_JSON",
    "EMAIL_URL",
)


def load() -> environ.Env:
    """Return the reader, after taking in `.env` and the files that `NAME_FILE` variables name.

    Raises:
        ImproperlyConfigured: a `NAME_FILE` names a file that cannot be read.
    """
    environ.Env.read_env(BASE_DIR / ".env")
    for name in FROM_FILES:
        if path := os.environ.get(f"{name}_FILE"):
            os.environ.setdefault(name, _read(f"{name}_FILE", path))
    return environ.Env()


def _read(name: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ImproperlyConfigured(f"{name} names {path}, which cannot be read: {error}") from error
