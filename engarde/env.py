"""Settings from the environment: `NAME`, or for secrets `NAME_FILE` naming a file that holds the value.

A value that cannot be meant ends the start with a message that says what to set. What is read is remembered, so that the list of
variables in docs/guides/deployment.md is made from the code (`engarde.variables`).
"""

import builtins
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import environ
from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent

TRUE = ("true", "on", "ok", "y", "yes", "1")
FALSE = ("false", "off", "no", "n", "f", "0")

# What can be a file: secrets, and the two names that come along with them.
FROM_FILES = (
    "SECRET_KEY",
    "ENCRYPTION_KEYS",
    "METRICS_TOKEN",
    "DATABASE_URL",
    "DR_DRILL_DATABASE_URL",
    "LEGACY_DATABASE_URL",
    "REDIS_URL",
    "ZERODB_API_KEY",
    "ZERODB_PROJECT_ID",
    "BIGQUERY_PROJECT_ID",
    "BIGQUERY_CREDENTIALS_JSON",
    "EMAIL_URL",
    "SENTRY_DSN",
    "OPENAI_API_KEY",
    "ANTHROPIC_API_KEY",
    "GOOGLE_API_KEY",
    "DEEPSEEK_API_KEY",
    "QWEN_API_KEY",
    "META_LLAMA_API_KEY",
    "LOCAL_LLM_API_KEY",
)


@dataclass(frozen=True, slots=True)
class Variable:
    """One that was read.

    Attributes:
        kind: text, whole number, number, true or false, list, address.
        default: as it would be written in the environment.
    """

    name: str
    kind: str
    default: str


class Reader:
    """Reads variables; an empty one counts as not given.

    Every method raises ImproperlyConfigured for a value that it cannot take, naming the variable.
    """

    def __init__(self) -> None:
        self.variables: dict[str, Variable] = {}

    def str(
        self, name: builtins.str, default: builtins.str = "", *, may_be_empty: builtins.bool = False
    ) -> builtins.str:
        """Return text as it is.

        Args:
            may_be_empty: an empty text says something of its own, and does not stand for the default.
        """
        self._note(name, "text", default)
        return os.environ.get(name, default) if may_be_empty else _given(name) or default

    def choice(self, name: builtins.str, default: builtins.str, among: Sequence[builtins.str]) -> builtins.str:
        """Return one of some words."""
        if (found := self.str(name, default)) not in among:
            raise ImproperlyConfigured(f"{name} is {found!r}; it can be: {', '.join(among)}.")
        return found

    def int(self, name: builtins.str, default: builtins.int) -> builtins.int:
        """Return a whole number, which is never negative."""
        self._note(name, "whole number", default)
        text = _given(name).strip()
        if not text:
            return default
        try:
            found = int(text)
        except ValueError:
            found = -1
        if found < 0:
            raise ImproperlyConfigured(f"{name} is {text!r}; set a whole number, such as {default}.")
        return found

    def float(self, name: builtins.str, default: builtins.float) -> builtins.float:
        """Return a number, which is never negative."""
        self._note(name, "number", f"{default:g}")
        text = _given(name).strip()
        if not text:
            return default
        try:
            found = float(text)
        except ValueError:
            found = math.nan
        if not 0 <= found < math.inf:
            raise ImproperlyConfigured(f"{name} is {text!r}; set a number, such as {default:g}.")
        return found

    def bool(self, name: builtins.str, default: builtins.bool) -> builtins.bool:
        """Return a switch."""
        self._note(name, "true or false", str(default).lower())
        text = _given(name).strip().lower()
        if text and text not in TRUE + FALSE:
            raise ImproperlyConfigured(f"{name} is {text!r}; set true or false.")
        return text in TRUE if text else default

    def list(self, name: builtins.str, default: Sequence[builtins.str] = ()) -> builtins.list[builtins.str]:
        """Return texts that stand between commas."""
        self._note(name, "list", ",".join(default))
        given = _given(name)
        return [text.strip() for text in given.split(",") if text.strip()] if given else [*default]

    def db_url(self, name: builtins.str, default: builtins.str) -> dict[builtins.str, Any]:
        """Return how to reach a database."""
        self._note(name, "address", default)
        found: dict[builtins.str, Any] = self._address(
            name, "postgres://user:password@host:5432/database", environ.Env.db_url_config, default
        )
        if "postgresql" not in str(found.get("ENGINE")):
            raise ImproperlyConfigured(
                f"{name} has to be postgres://user:password@host:5432/database: only PostgreSQL will do."
            )
        return found

    def email_url(self, name: builtins.str, default: builtins.str) -> dict[builtins.str, Any]:
        """Return how to send mail."""
        self._note(name, "address", default)
        return self._address(name, "smtp+tls://user:password@host:587", environ.Env.email_url_config, default)

    @staticmethod
    def _address(name: builtins.str, form: builtins.str, read: Any, default: builtins.str) -> dict[builtins.str, Any]:
        """Read an address without telling what it is: it holds a password."""
        try:
            return dict(read(_given(name).strip() or default))
        except (ImproperlyConfigured, KeyError, ValueError) as error:
            raise ImproperlyConfigured(f"{name} cannot be read as an address; write it as {form}.") from error

    def _note(self, name: builtins.str, kind: builtins.str, default: object) -> None:
        self.variables[name] = Variable(name, kind, str(default).replace(str(BASE_DIR) + "/", ""))


def load() -> Reader:
    """Return the reader, after taking in `.env` and the files that `NAME_FILE` variables name, and making folders that are named.

    Raises:
        ImproperlyConfigured: a `NAME_FILE` names a file that cannot be read, or a folder cannot be written to.
    """
    environ.Env.read_env(BASE_DIR / ".env")
    for name in FROM_FILES:
        _take_file(name)
    if not _given("PROMETHEUS_MULTIPROC_DIR"):
        os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)  # prometheus_client takes an empty one for a folder's name
    for name in ("PROMETHEUS_MULTIPROC_DIR", "TMPDIR"):
        if folder := _given(name):
            _make(name, folder)
    return Reader()


def _given(name: str) -> str:
    """Return a variable's text; nothing where it is blank, which is how Compose and others hand on what nobody set."""
    text = os.environ.get(name, "")
    return text if text.strip() else ""


def _take_file(name: str) -> None:
    """Take a variable from the file that `NAME_FILE` names, unless it is given itself."""
    path = _given(f"{name}_FILE")
    if not path:
        return
    if not _given(name):
        os.environ[name] = _read(f"{name}_FILE", path)
    os.environ[f"{name}_FILE"] = ""  # so a process that is started from here without the secret does not read it again


def _make(name: str, folder: str) -> None:
    try:
        Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ImproperlyConfigured(
            f"{name} is {folder}, which cannot be made ({error}): name another, or none."
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ImproperlyConfigured(f"{name} is {folder}, which this user cannot write to: name another, or none.")


def _read(name: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ImproperlyConfigured(f"{name} names {path}, which cannot be read: {error}") from error


def json_object(env: Reader, name: str) -> dict[str, Any]:
    """Return a setting that is a JSON object; empty when it is not given.

    Raises:
        ImproperlyConfigured: it is something else.
    """
    try:
        found = json.loads(env.str(name) or "{}")
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
