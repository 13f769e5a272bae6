"""Runs the real ZeroDB emulator as a process of its own."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import requests

API_KEY = "sk_test_0123456789"
PROJECT_ID = "0197b3c2-0000-7000-8000-000000000001"
REPOSITORY = Path(__file__).resolve().parent.parent

_LONGEST_START = 20.0


class ZeroDBProcess:
    """One emulator on a port of its own; its data and its port outlive a stop, so it can be started again."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def tables_url(self) -> str:
        return f"{self.url}/api/v1/projects/{PROJECT_ID}/database/tables"

    def start(self) -> None:
        options = ["--interface", "asgi", "--host", "127.0.0.1", "--workers", "1", "--no-ws", "--log-level", "error"]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "granian", *options, "--port", str(self.port), "engarde.embedded.zerodb.app:app"],
            cwd=REPOSITORY,
            env=os.environ
            | {
                "ZERODB_EMULATOR_DATA": str(self.data),
                "ZERODB_EMULATOR_API_KEY": API_KEY,
                "ZERODB_EMULATOR_PROJECT_ID": PROJECT_ID,
            },
            # granian serves from a child process; one group lets kill() reach both.
            start_new_session=True,
        )
        self._wait_until_it_answers(self._process)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut would: no process of it gets to do anything more."""
        self._end(signal.SIGKILL)

    def wait_for_end(self, seconds: float = 10) -> None:
        """Wait until it has ended by itself, so that it can be started again."""
        if self._process is not None:
            self._process.wait(timeout=seconds)
            self._process = None

    def sqlite(self) -> "closing[sqlite3.Connection]":
        """Open the emulator's data file, behind its back."""
        return closing(sqlite3.connect(self.data / "zerodb.sqlite3", 10, isolation_level=None))

    def _end(self, number: int) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, number)
            self._process.wait(timeout=15)
            self._process = None

    def _wait_until_it_answers(self, process: "subprocess.Popen[bytes]") -> None:
        deadline = time.monotonic() + _LONGEST_START
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise RuntimeError(f"The emulator ended with status {process.returncode}.")
            try:
                if requests.get(f"{self.url}/health", timeout=1).ok:
                    return
            except requests.ConnectionError:
                time.sleep(0.02)
        raise TimeoutError("The emulator did not answer in time.")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
