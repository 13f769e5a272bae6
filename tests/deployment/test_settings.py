"""A setting that cannot be meant ends the start with a message that says what to set."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from engarde.embedded.paths import PROJECT_ROOT

PRODUCTION = {
    "ENGARDE_ENV": "production",
    "SECRET_KEY": "a-key-that-only-this-test-uses-0123456789",
    "DATABASE_URL": "postgres://engarde:pw@db/engarde",
    "REDIS_URL": "redis://cache:6379/0",
}
READ = (
    "import environ; environ.Env.read_env = lambda *_, **__: None; import engarde.settings as s; print(s.ENGARDE_ENV)"
)


def read(**variables: str) -> "subprocess.CompletedProcess[str]":
    environment = {"PATH": os.defpath, **variables}
    command = [sys.executable, "-W", "ignore", "-c", READ]
    return subprocess.run(command, env=environment, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)


def complaint(**variables: str) -> str:
    done = read(**variables)
    assert done.returncode == 1, done.stdout
    assert "ImproperlyConfigured: " in done.stderr
    return done.stderr.rpartition("ImproperlyConfigured: ")[2]


def test_nothing_is_needed_for_development_and_three_things_for_production() -> None:
    assert read().stdout == "development\n"
    assert read(**PRODUCTION).stdout == "production\n"


def test_every_fault_is_told_at_once_and_no_secret_with_it() -> None:
    told = complaint(
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
        assert text in told
    assert "secret" not in told
    assert "sk-" not in told


@pytest.mark.parametrize(
    ("variables", "told"),
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
def test_a_setting_that_cannot_be_meant(variables: dict[str, str], told: str) -> None:
    found = complaint(**variables)
    assert found.startswith(told)
    assert "pw" not in found


def test_an_empty_variable_counts_as_not_given() -> None:
    assert (
        read(ENGARDE_ENV="", LOG_LEVEL="", WEB_THREADS="", REDIS_TIMEOUT_SECONDS="", BIGQUERY_SYNC_ENABLED="").stdout
        == "development\n"
    )


def test_secrets_can_be_files(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("a-key-from-a-file-0123456789\n")
    assert read(**{**PRODUCTION, "SECRET_KEY": ""} | {"SECRET_KEY_FILE": str(tmp_path / "key")}).returncode == 1
    without = {name: value for name, value in PRODUCTION.items() if name != "SECRET_KEY"}
    assert read(**without, SECRET_KEY_FILE=str(tmp_path / "key")).stdout == "production\n"


def test_what_is_allowed_in_production_and_should_not_be_left_so() -> None:
    environment = {"PATH": os.defpath, **PRODUCTION, "ALLOWED_HOSTS": "content.example.com"}
    command = [sys.executable, "-W", "ignore", "manage.py", "check", "--deploy", "--fail-level", "WARNING"]
    done = subprocess.run(command, env=environment, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "(engarde.W001)" in done.stderr
    assert "(engarde.W002)" in done.stderr
