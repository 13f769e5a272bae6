"""The server under measurement and its client: as many processes as `make up` runs, on embedded services of its own."""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from engarde.celery import app as celery
from engarde.embedded import remembered, up

WORKERS = "2"


@contextmanager
def serving(**variables: str) -> Iterator["Client"]:
    """Serve the platform and the baseline, throttles off, and yield a client without credentials."""
    port = remembered.free_port()
    where = ["--host", remembered.HOST, "--port", str(port)]
    how = ["--workers", WORKERS, "--log-level", "error"]
    command = [sys.executable, "-m", "granian", "--interface", "asginl", *where, *how, "tests.bench.asgi:application"]
    environ = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.bench.settings", "LOG_LEVEL": "ERROR", **variables}
    process = subprocess.Popen(command, env=environ, start_new_session=True)
    try:
        client = Client(port)
        client.wait()
        yield client
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=20)


@contextmanager
def carriers() -> Iterator[None]:
    """Run a worker, as `make up` does, which carries documents to ZeroDB and changes to the backup."""
    environ = {**os.environ, "LOG_LEVEL": "ERROR"}
    process = subprocess.Popen(
        up.worker_command(), env=environ, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 30
        while not celery.control.ping(timeout=0.5, limit=1):
            if time.monotonic() > deadline:
                raise TimeoutError("The worker did not answer.")
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


@dataclass
class Client:
    """One keep-alive connection."""

    port: int
    key: str = ""
    _connection: http.client.HTTPConnection | None = field(default=None, repr=False)

    def with_key(self, key: str) -> "Client":
        return Client(self.port, key)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Return the parsed answer; anything but 2xx ends the benchmark."""
        status, raw = self.raw(method, path, None if body is None else json.dumps(body).encode())
        if not 200 <= status < 300:
            raise RuntimeError(f"{method} {path}: {status} {raw[:500]!r}")
        return json.loads(raw) if raw else None

    def raw(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        if self._connection is None:
            self._connection = http.client.HTTPConnection(remembered.HOST, self.port, timeout=60)
        headers = {"X-API-Key": self.key, "Content-Type": "application/json"}
        self._connection.request(method, path, body, headers)
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def wait(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                if self.raw("GET", "/health/live")[0] == 200:
                    return
            except OSError:
                self._connection = None
                time.sleep(0.1)
        raise TimeoutError("The server did not answer.")
