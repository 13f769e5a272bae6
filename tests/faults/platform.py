"""The whole platform, as `make up` runs it, in a data directory of its own, for tests that kill parts of it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psutil
import requests

from engarde.embedded.paths import PROJECT_ROOT
from tests.embedded.conftest import plain_environment

T = TypeVar("T")


def eventually(ask: Callable[[], T], seconds: float) -> T:
    """Return the first answer that is true."""
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.1)
    return answer


@dataclass
class Platform:
    """A running `up` and how to reach it."""

    data: Path
    port: int
    process: "subprocess.Popen[bytes] | None" = field(default=None)
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        throttles = {"THROTTLE_TENANT": "off", "THROTTLE_LOGIN": "off"}
        return plain_environment(DATA_DIR=str(self.data), **throttles, **self.variables)

    def start(self) -> None:
        """Start it and wait until it serves."""
        self.data.mkdir(exist_ok=True)
        with (self.data / "up.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "engarde.embedded", "up", "--port", str(self.port)],
                env=self.environment,
                cwd=PROJECT_ROOT,
                stdout=log,
                stderr=log,
            )
        eventually(self.is_ready, 60)

    def is_ready(self) -> bool:
        """Tell whether every part answers."""
        assert self.process is None or self.process.poll() is None, (self.data / "up.log").read_text()
        try:
            answer = requests.get(f"{self.url}/health", timeout=10)
        except requests.RequestException:
            return False
        return bool(answer.ok and answer.json()["status"] == "ok")

    def stop(self) -> None:
        """Stop it as Ctrl-C does."""
        if self.process:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(timeout=60)

    def manage(self, *arguments: str, check: bool = True) -> dict[str, Any]:
        """Run a management command against it and return its JSON report."""
        done = self.command(*arguments).communicate(timeout=300)
        assert done[0], done[1].decode()
        return dict(json.loads(done[0]))

    def command(self, *arguments: str) -> "subprocess.Popen[bytes]":
        """Start a management command against it."""
        return subprocess.Popen(
            [sys.executable, str(PROJECT_ROOT / "manage.py"), *arguments, "--json"],
            env=self.environment,
            cwd=PROJECT_ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def pids(self, part: str) -> Sequence[int]:
        """Return the leading process of web, worker, generation, beat, or an embedded service."""
        if part in {"web", "worker", "generation", "beat"}:
            return [json.loads((self.data / "run" / "platform.json").read_text())[part][0]]
        return [self.service(part)["pid"]]

    def service(self, name: str) -> dict[str, Any]:
        """Return what `status` tells of an embedded service: its process, its settings."""
        done = subprocess.run(
            [sys.executable, "-m", "engarde.embedded", "status", "--json"],
            env=self.environment,
            cwd=PROJECT_ROOT,
            capture_output=True,
            check=True,
        )
        return dict(json.loads(done.stdout)["services"][name])

    def kill(self, part: str) -> None:
        """Kill a part by SIGKILL, its leader first and then what that started."""
        for pid in self.pids(part):
            children = psutil.Process(pid).children(recursive=True)
            os.kill(pid, signal.SIGKILL)
            for child in children:
                child.kill() if child.is_running() else None
