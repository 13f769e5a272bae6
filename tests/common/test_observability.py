"""Sentry and OpenTelemetry against a receiver here: what goes wrong arrives, under its request id, and no secret does."""

import gzip
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from typing import Any, ClassVar

import pytest
from django.conf import LazySettings
from django.core.exceptions import ImproperlyConfigured

from engarde.common import observability
from tests.people import new_owner

SECRETS = ("sk-proj-abcdefghijklmnop", "hunter22", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dBjftJeZ4CVPmB92K27uhb")
FAILING = f"""
import django; django.setup()
import os, structlog
from rest_framework.test import APIClient
from content import lists
from engarde.common.scopes import system_scope
def fail(**_): raise ConnectionError("postgres://user:hunter22@db refused, key {SECRETS[0]}")
lists.list_items = fail
client = APIClient(raise_request_exception=False)
client.credentials(HTTP_X_API_KEY=os.environ["KEY"], HTTP_X_REQUEST_ID="look-for-me", HTTP_COOKIE="session=hunter22")
assert client.get("/api/content?page=1").status_code == 500
client.get("/api/content/{SECRETS[2]}?token={SECRETS[2]}")
try: fail()
except ConnectionError: structlog.get_logger("engarde").exception("a carrier stumbled", password="hunter22", row=7)
import requests
try: requests.get("http://user:hunter22@127.0.0.1:9/?token={SECRETS[2]}")
except requests.ConnectionError: pass
"""
FLUSH = {
    "SENTRY_DSN": "import sentry_sdk; sentry_sdk.flush(10)",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "from opentelemetry import trace; trace.get_tracer_provider().force_flush()",
}


class Receiver(BaseHTTPRequestHandler):
    """Keeps what it is sent."""

    got: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
        self.got.append(body.decode("utf-8", "replace"))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def receiver() -> Iterator[ThreadingHTTPServer]:
    Receiver.got.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def run(name: str, value: str, **more: str) -> None:
    """Have a process of its own fail in several ways, with one of the two switched on."""
    key = new_owner("traced").credentials["HTTP_X_API_KEY"]
    environ = {**os.environ, name: value, "KEY": key, "DJANGO_SETTINGS_MODULE": "engarde.settings", **more}
    done = subprocess.run(  # noqa: PLW1510 -- what it complains of is shown
        [sys.executable, "-c", f"{FAILING}\n{FLUSH[name]}"], env=environ, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(find_spec("sentry_sdk") is None, reason="needs requirements-observability.txt")
def test_sentry_is_told_what_went_wrong_and_no_secret(database: None, receiver: ThreadingHTTPServer) -> None:
    run("SENTRY_DSN", f"http://public@127.0.0.1:{receiver.server_port}/1", SENTRY_TRACES_SAMPLE_RATE="1")

    told = "\n".join(Receiver.got)
    assert "ConnectionError" in told
    assert "look-for-me" in told
    assert "a carrier stumbled" in told
    assert '"row":7' in told.replace(" ", "")
    assert "fail" in told, "a stack"
    assert [secret for secret in SECRETS if secret in told] == []


@pytest.mark.skipif(find_spec("opentelemetry.sdk") is None, reason="needs requirements-observability.txt")
def test_a_collector_is_told_of_requests_and_calls_and_no_secret(database: None, receiver: ThreadingHTTPServer) -> None:
    run("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{receiver.server_port}")

    told = "\n".join(Receiver.got)
    assert "GET api/content" in told
    assert "look-for-me" in told
    assert "engarde" in told
    assert "127.0.0.1:9" in told, "a call to another service"
    assert [secret for secret in SECRETS if secret in told] == []


@pytest.mark.parametrize("name", observability.NEEDED)
def test_it_says_what_to_install(settings: LazySettings, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    setattr(settings, name, "http://127.0.0.1:9")
    monkeypatch.setattr(observability, "_is_there", lambda _module: False)

    with pytest.raises(ImproperlyConfigured, match=f"{name} is set, but .* requirements-observability.txt"):
        observability.start()


def test_nothing_is_imported_by_those_who_want_neither(database: None) -> None:
    code = "import django; django.setup(); import sys; print('sentry_sdk' in sys.modules, 'opentelemetry.sdk.trace' in sys.modules)"
    environ = {**os.environ, "DJANGO_SETTINGS_MODULE": "engarde.settings"}
    environ.pop("SENTRY_DSN", None)
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)

    assert done.stdout.split()[0] == "False"
    assert done.stdout.split()[1] == "False"
