"""Settings from the environment: `NAME`, or for secrets `NAME_FILE` naming a file that holds the value."""

import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import environ
from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent


FROM_FILES = (
    "SECRET_KEY",
    "ENCRYPTION_KEYS",
    "DATABASE_URL",
    "REDIS_URL",
    "ZERODB_API_KEY",
    "ZERODB_PROJECT_ID",
    "BIGQUERY_PROJECT_ID",
    "BIGQUERY_CREDENTIALS_JSON",
    "EMAIL_URL",
    "OPENAI_API_KEY",
    "ANTHROPIC_API_KEY",
    "GOOGLE_API_KEY",
    "DEEPSEEK_API_KEY",
    "QWEN_API_KEY",
    "META_LLAMA_API_KEY",
    "LOCAL_LLM_API_KEY",
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


def json_object(env: environ.Env, name: str) -> dict[str, Any]:
    """Return a setting that is a JSON object; empty when it is not given.

    Raises:
        ImproperlyConfigured: it is something else.
    """
    try:
        found = json.loads(env.str(name, "") or "{}")
    except ValueError as error:
        raise ImproperlyConfigured(f"{name} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ImproperlyConfigured(f"{name} has to be a JSON object.")
    return found


CLIENTS = {"s3": ("boto3", "boto3"), "gcs": ("google.cloud.storage", "google-cloud-storage")}


def require_client(media_storage: str, setting: str = "MEDIA_STORAGE") -> None:
    """Make sure that a media storage's client, which is not installed by itself, is there.

    Raises:
        ImproperlyConfigured: it is not.
    """
    module, package = CLIENTS.get(media_storage, ("", ""))
    if module and find_spec(module) is None:
        raise ImproperlyConfigured(f"{setting}={media_storage} needs {package}: pip install {package}")
