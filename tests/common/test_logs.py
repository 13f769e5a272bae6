"""Logs: one JSON object a line, with no secret in it however it got there."""

import json
import logging
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import structlog

from engarde.accounts import api_keys
from engarde.common import logs
from engarde.common.logs import REDACTED, redact
from engarde.embedded.paths import PROJECT_ROOT
from engarde.embedded.remembered import free_port
from engarde.embedded.up import web_command, worker_command

API_KEY = api_keys.make().text
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
SECRETS = {
    "API key": API_KEY,
    "JWT": JWT,
    "OpenAI key": "sk-proj-abcdefghijklmnop",
    "Anthropic key": "sk-ant-api03-abcdefghijklmnop",
    "Google key": "AIzaSyA1234567890abcdefghijklmnopqrs",
    "bearer": "Bearer abc.def",
    "bearer in small letters": "bearer abcdef",
    "basic": "Basic dXNlcjpwYXNz",
    "password in an address": "postgres://user:hunter22@db/engarde",
    "password without a user": "redis://:hunter22@cache:6379/0",
    "password in a query": "password=hunter22",
    "reset token in a query": "https://studio.example/reset?token=hunter22&x=1",
}
LEAKS = (API_KEY[-20:], JWT[-20:], "abcdefghijklmnop", "abc.def", "abcdef", "dXNlcjpwYXNz", "hunter22")


def clean(**event: Any) -> dict[str, Any]:
    return dict(redact(None, "info", event))


def leaks(value: Any) -> list[str]:
    return [leak for leak in LEAKS if leak in json.dumps(value, default=str)]


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
@pytest.mark.parametrize(
    "wrap",
    [
        lambda secret: secret,
        lambda secret: f"before {secret} after",
        lambda secret: {"inner": {"deep": [secret]}},
        lambda secret: [[{"a": (secret,)}]],
        lambda secret: {secret: 1},
        KeyError,
        lambda secret: secret.encode(),
        lambda secret: {secret},
    ],
    ids=["plain", "in a sentence", "in objects", "in lists", "as a key", "in an exception", "as bytes", "in a set"],
)
def test_it_finds_what_looks_like_a_secret_anywhere(secret: str, wrap: Any) -> None:
    cleaned = clean(event=wrap(secret), other=wrap(secret))

    assert leaks(cleaned) == []
    assert REDACTED in json.dumps(cleaned)


@pytest.mark.parametrize(
    "name",
    ["password", "new_password", "PASSWD", "secret", "client_secret", "api_key", "apikey", "X-API-Key", "token",
     "access_token", "Authorization", "Proxy-Authorization", "Cookie", "Set-Cookie", "credentials", "Sec-WebSocket-Protocol"],
)  # fmt: skip
@pytest.mark.parametrize("value", ["plain words", 12345, ["plain words"], {"a": "plain words"}, b"plain words"])
def test_it_hides_whatever_stands_under_a_telling_name(name: str, value: Any) -> None:
    for event in ({name: value}, {"headers": {name: value}}, {"headers": [(name, value)]}):
        assert "plain words" not in json.dumps(clean(**event), default=str)
        assert "12345" not in json.dumps(clean(**event), default=str)
    assert clean(headers=[(name.encode(), b"plain words")]) == {"headers": [[name, REDACTED]]}


def test_it_leaves_the_rest_as_it_is() -> None:
    event = {
        "event": "stored 5 items",
        "input_tokens": 12,
        "output_tokens": 3,
        "ms": 1.5,
        "ok": True,
        "none": None,
        "url": "https://studio.example/path?x=1",
        "items": [{"id": "01a204dc-5242-725b-8f16-7437be78a214"}],
    }

    assert clean(**event) == event
    assert clean(token=None) == {"token": None}


def test_it_cuts_off_what_is_nested_without_end() -> None:
    endless: dict[str, Any] = {}
    endless["again"] = endless

    assert json.dumps(clean(event=endless))


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a logger set up as in production writes, as objects."""
    configured: dict[str, Any] = {}
    monkeypatch.setattr("logging.config.dictConfig", configured.update)
    monkeypatch.setattr(structlog, "configure", lambda **_: None)
    logs.logging_config(level="INFO", as_json=True)
    setup = dict(configured["formatters"]["structured"])
    formatter = setup.pop("()")(**setup)
    written: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(formatter.format(record))

    logger = logging.getLogger("tests.logs")
    handler = Keep()
    logger.addHandler(handler)
    monkeypatch.setattr(logger, "propagate", False)
    monkeypatch.setattr(logger, "level", logging.INFO)
    yield lambda: [json.loads(line) for line in written]
    logger.removeHandler(handler)


def test_it_redacts_what_libraries_log_and_what_they_raise(lines: Any) -> None:
    logger = logging.getLogger("tests.logs")

    logger.warning(
        "cannot reach %s", "postgres://user:hunter22@db/engarde", extra={"headers": {"X-API-Key": "hunter22"}}
    )
    try:
        raise ConnectionError("redis://:hunter22@cache refused")
    except ConnectionError:
        logger.exception("no luck with %(password)s", {"password": "hunter22"})

    first, second = lines()
    assert leaks(first) == []
    assert first["event"].startswith("cannot reach postgres://")
    assert (first["level"], first["logger"]) == ("warning", "tests.logs")
    assert "ConnectionError" in second["exception"]
    assert "hunter22" not in second["exception"]


def test_it_adds_the_request_id_and_the_time(lines: Any) -> None:
    with structlog.contextvars.bound_contextvars(request_id="mine"):
        logging.getLogger("tests.logs").info("hello")

    [line] = lines()
    assert (line["request_id"], line["event"]) == ("mine", "hello")
    assert line["timestamp"].endswith("Z")


WRITERS = {
    "web": lambda port: web_command(port, "1"),
    "worker": lambda _: worker_command(),
}


@pytest.mark.parametrize("name", WRITERS)
def test_each_process_writes_json_and_nothing_else(name: str, database: None, tmp_path: Path) -> None:
    written, port = tmp_path / "log", free_port()
    environ = {**os.environ, "LOG_LEVEL": "INFO", "LOG_JSON": "true"}
    with written.open("wb") as file:
        process = subprocess.Popen(WRITERS[name](port), cwd=PROJECT_ROOT, env=environ, stdout=file, stderr=file)
        try:
            ready = {"web": "Started worker-1", "worker": "ready."}[name]
            deadline = time.monotonic() + 60
            while ready not in written.read_text() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.2)
            lines = [json.loads(line) for line in written.read_text().splitlines()]
        finally:
            process.terminate()  # Celery says in its own way that it stops
            process.wait(30)

    assert any(ready in line["event"] for line in lines)
    assert all({"event", "level", "logger", "timestamp"} <= line.keys() for line in lines)
