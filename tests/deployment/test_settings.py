"""A setting that cannot be meant ends the start with a message that says what to set."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from engarde.embedded.paths import PROJECT_ROOT
from engarde.variables import read_by_the_code

PRODUCTION = {
    "ENGARDE_ENV": "production",
    "SECRET_KEY": "a-key-that-only-this-test-uses-0123456789",
    "DATABASE_URL": "postgres://engarde:pw@db/engarde",
    "REDIS_URL": "redis://cache:6379/0",
}
READ = (
    "import environ; environ.Env.read_env = lambda *_, **__: None; import engarde.settings as s; print(s.ENGARDE_ENV)"
)


def read(script: str = READ, /, **variables: str) -> "subprocess.CompletedProcess[str]":
    environment = {"PATH": os.defpath, **variables}
    command = [sys.executable, "-W", "ignore", "-c", script]
    return subprocess.run(command, env=environment, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)


def told(expression: str, **variables: str) -> Any:
    """Return what an expression over the settings module `s` comes to."""
    done = read(READ.replace("print(s.ENGARDE_ENV)", f"import json; print(json.dumps({expression}))"), **variables)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def complaint(**variables: str) -> str:
    done = read(**variables)
    assert done.returncode == 1, done.stdout
    assert "ImproperlyConfigured: " in done.stderr
    return done.stderr.rpartition("ImproperlyConfigured: ")[2]


def test_nothing_is_needed_for_development_and_three_things_for_production() -> None:
    assert read().stdout == "development\n"
    assert read(**PRODUCTION).stdout == "production\n"


def test_every_fault_is_told_at_once_and_no_secret_with_it() -> None:
    found = complaint(
        **PRODUCTION,
        DEBUG="true",
        WEB_THREADS="0",
        GENERATION_LEASE_SECONDS="0",
        PUBLIC_URL="content.example.com",
        OPENAI_BASE_URL="api.openai.com",
        PASSWORD_RESET_URL="https://studio.example.com/reset",
        THROTTLE_LOGIN="20 per minute",
        ENCRYPTION_KEYS=f"{Fernet.generate_key().decode()},not-a-key-sk-123",
        ZERODB_API_KEY="sk-zerodb-secret",
        ZERODB_FILTER_KEY="where",
        BIGQUERY_SYNC_ENABLED="true",
        BIGQUERY_EMULATOR_HOST="http://127.0.0.1:9050",
        BIGQUERY_DATASET="with-dash",
        MEDIA_STORAGE="s3",
        LLM_PRICES='{"qwen-plus": 3}',
    )
    for text in (
        "DEBUG=true shows settings",
        "WEB_THREADS is 0; set 1 or more.",
        "GENERATION_LEASE_SECONDS is 0.0; set 1 or more.",
        "PUBLIC_URL is 'content.example.com'; set an address such as",
        "OPENAI_BASE_URL is 'api.openai.com'; set an address",
        "PASSWORD_RESET_URL lacks {token}",
        "THROTTLE_LOGIN is '20 per minute'; set a rate such as 20/min",
        "ENCRYPTION_KEYS: number 2 is no key.",
        "ZERODB_API_KEY is set but ZERODB_PROJECT_ID is not",
        "ZERODB_FILTER_KEY is 'where'; it can be: filter, filters.",
        "BIGQUERY_SYNC_ENABLED is on but BIGQUERY_PROJECT_ID is not set",
        "BIGQUERY_EMULATOR_HOST is set but BIGQUERY_EMULATOR_GRPC_HOST is not",
        "BIGQUERY_DATASET is 'with-dash'",
        "MEDIA_STORAGE=s3 needs MEDIA_S3_BUCKET",
        'LLM_PRICES: write "provider/model"',
    ):
        assert text in found
    assert "secret" not in found
    assert "sk-" not in found


@pytest.mark.parametrize(
    ("variables", "begins"),
    [
        ({"ENGARDE_ENV": "prod"}, "ENGARDE_ENV is 'prod'; it can be: development, production."),
        ({"WEB_THREADS": "many"}, "WEB_THREADS is 'many'; set a whole number, such as 16."),
        ({"WEB_THREADS": "-1"}, "WEB_THREADS is '-1'; set a whole number, such as 16."),
        ({"WEB_THREADS": "4"}, "GENERATE_CONCURRENCY (6) has to be less than WEB_THREADS (4)"),
        ({"REDIS_TIMEOUT_SECONDS": "50ms"}, "REDIS_TIMEOUT_SECONDS is '50ms'; set a number, such as 0.05."),
        ({"REDIS_TIMEOUT_SECONDS": "nan"}, "REDIS_TIMEOUT_SECONDS is 'nan'; set a number, such as 0.05."),
        ({"LOG_JSON": "maybe"}, "LOG_JSON is 'maybe'; set true or false."),
        ({"LOG_LEVEL": "LOUD"}, "LOG_LEVEL is 'LOUD'; it can be: DEBUG, INFO, WARNING, ERROR, CRITICAL."),
        ({"DATABASE_URL": "mysql://u:pw@h/d"}, "DATABASE_URL has to be postgres://user:password@host:5432/database"),
        ({"DATABASE_URL": "no address pw"}, "DATABASE_URL "),
        ({"REDIS_URL": "cache:6379"}, "REDIS_URL cannot be read as an address; write it as redis://"),
        ({"EMAIL_URL": "mailto:pw"}, "EMAIL_URL cannot be read as an address; write it as smtp+tls://"),
        ({"ZERODB_PROJECT_ID": "p"}, "ZERODB_PROJECT_ID is set but ZERODB_API_KEY is not: set the key, or neither."),
        ({"LLM_PRICES": "[]"}, "LLM_PRICES has to be a JSON object."),
        ({"CONTENT_MAX_VERSIONS": "1"}, "CONTENT_MAX_VERSIONS has to be 2 or more"),
        ({"MEDIA_STORAGE": "ftp"}, "MEDIA_STORAGE is 'ftp'; it can be: file, s3, gcs."),
        ({"SECRET_KEY_FILE": "/nowhere/key"}, "SECRET_KEY_FILE names /nowhere/key, which cannot be read"),
        ({**PRODUCTION, "SECRET_KEY": ""}, "ENGARDE_ENV=production needs SECRET_KEY"),
        ({**PRODUCTION, "DATABASE_URL": ""}, "ENGARDE_ENV=production needs DATABASE_URL"),
        ({**PRODUCTION, "REDIS_URL": ""}, "ENGARDE_ENV=production needs REDIS_URL"),
    ],
)
def test_a_setting_that_cannot_be_meant(variables: dict[str, str], begins: str) -> None:
    found = complaint(**variables)
    assert found.startswith(begins)
    assert "pw" not in found


MAY_BE_EMPTY = {"CONTENT_READ_FALLBACK", "DR_MEDIA_STORAGE"}
ALL = "{name: str(value) for name, value in vars(s).items() if name.isupper() and name != 'UNFOLD'}"


@pytest.mark.parametrize("environment", [{}, PRODUCTION])
@pytest.mark.parametrize("blank", ["", " "])
def test_an_empty_variable_counts_as_not_given(environment: dict[str, str], blank: str) -> None:
    empty = dict.fromkeys(read_by_the_code().keys() - MAY_BE_EMPTY, blank)
    assert told(ALL, **{**empty, **environment}) == told(ALL, **environment)


def test_an_empty_variable_can_mean_none_where_that_says_something() -> None:
    named = f"{{name: getattr(s, name) for name in {sorted(MAY_BE_EMPTY)}}}"
    assert set(told(named).values()) == {"dr.fallback.BackupReader", "file"}
    assert set(told(named, **dict.fromkeys(MAY_BE_EMPTY, "")).values()) == {""}


def test_text_is_taken_as_it_is() -> None:
    """No `$` of a secret is a reference to another variable."""
    secret = "$HOME-is-not-meant#0123456789-0123456789-0123456789"
    assert told("[s.SECRET_KEY, s.METRICS_TOKEN]", SECRET_KEY=secret, METRICS_TOKEN="$PATH") == [secret, "$PATH"]


def test_secrets_can_be_files(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("a-key-from-a-file-0123456789\n")
    (tmp_path / "empty").write_text("\n")
    without = {name: value for name, value in PRODUCTION.items() if name != "SECRET_KEY"}
    for given in ({}, {"SECRET_KEY": ""}):
        environment = {**without, **given, "SECRET_KEY_FILE": str(tmp_path / "key")}
        assert told("s.SECRET_KEY", **environment) == "a-key-from-a-file-0123456789"
    assert told("s.SECRET_KEY", **PRODUCTION, SECRET_KEY_FILE="/nowhere/key") == PRODUCTION["SECRET_KEY"]
    assert "needs SECRET_KEY" in complaint(**without, SECRET_KEY_FILE=str(tmp_path / "empty"))


def test_a_child_that_is_to_have_no_secret_does_not_find_its_file(tmp_path: Path) -> None:
    """As a drill has it, which must not reach the platform's ZeroDB."""
    (tmp_path / "key").write_text("a-key-from-a-file")
    script = f"""{READ}
import os, subprocess, sys
environment = {{**os.environ, "ZERODB_API_KEY": "", "ZERODB_PROJECT_ID": ""}}
child = {READ.replace("s.ENGARDE_ENV", "[s.ZERODB_API_KEY, s.ZERODB_PROJECT_ID]")!r}
print(s.ZERODB_API_KEY, flush=True)
subprocess.run([sys.executable, "-W", "ignore", "-c", child], env=environment, check=True)"""
    done = read(script, ZERODB_API_KEY_FILE=str(tmp_path / "key"), ZERODB_PROJECT_ID_FILE=str(tmp_path / "key"))
    assert done.stdout.splitlines() == ["development", "a-key-from-a-file", "['', '']"], done.stderr


def test_folders_that_are_named_are_made(tmp_path: Path) -> None:
    named = {name: str(tmp_path / name / "folder") for name in ("PROMETHEUS_MULTIPROC_DIR", "TMPDIR")}
    assert told("__import__('tempfile').gettempdir()", **named) == named["TMPDIR"]
    assert Path(named["PROMETHEUS_MULTIPROC_DIR"]).is_dir()

    (tmp_path / "file").touch()
    found = complaint(PROMETHEUS_MULTIPROC_DIR=str(tmp_path / "file" / "folder"))
    assert found.startswith(f"PROMETHEUS_MULTIPROC_DIR is {tmp_path}/file/folder, which cannot be made")


def test_an_empty_folder_for_metrics_is_none() -> None:
    """The library would take it for the folder that the process is in."""
    counting = "import os; from engarde.common import metrics; metrics.REQUESTS.labels('GET', 'none', 200).observe(1)"
    script = f"{READ}; {counting}; print('PROMETHEUS_MULTIPROC_DIR' in os.environ)"
    assert read(script, PROMETHEUS_MULTIPROC_DIR="").stdout == "development\nFalse\n"
    assert not list(PROJECT_ROOT.glob("*.db"))


def test_what_is_allowed_in_production_and_should_not_be_left_so() -> None:
    environment = {"PATH": os.defpath, **PRODUCTION, "ALLOWED_HOSTS": "content.example.com"}
    command = [sys.executable, "-W", "ignore", "manage.py", "check", "--deploy", "--fail-level", "WARNING"]
    done = subprocess.run(command, env=environment, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "(engarde.W001)" in done.stderr
    assert "(engarde.W002)" in done.stderr
    assert "(engarde.W003)" in done.stderr
