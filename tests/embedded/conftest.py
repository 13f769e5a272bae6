"""A data directory per test, people who use it, and the certainty that nothing is left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from engarde.embedded import daemon, session
from engarde.embedded.paths import PROJECT_ROOT, DataDir

MODULE = [sys.executable, "-m", "engarde.embedded"]
NAMED_SERVICES = (
    "DATABASE_URL",
    "REDIS_URL",
    "ZERODB_API_KEY",
    "ZERODB_PROJECT_ID",
    "BIGQUERY_PROJECT_ID",
    "LOCAL_LLM_BASE_URL",
    "EMBEDDED_LLM",
    "ENGARDE_EMBEDDED",
    "DATA_DIR",
)
T = TypeVar("T")


def eventually(ask: Callable[[], T], seconds: float = 10) -> T:
    """Return the first answer that is true."""
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)
    return answer


def processes_of(path: Path) -> list[psutil.Process]:
    """Return the living processes that name a data directory or stand in it."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if str(path) in " ".join(process.cmdline()) or process.cwd().startswith(str(path)):
                found.append(process)
    return found


def service_state(path: Path, name: str) -> dict[str, Any]:
    """Return what the daemon says of a service, while that is ready."""
    service = session.running_state(DataDir.at(path)).get("services", {}).get(name, {})
    return service if service.get("phase") == "ready" else {}


def plain_environment(**variables: str) -> dict[str, str]:
    """Return an environment in which every service is an embedded one."""
    return {**{name: value for name, value in os.environ.items() if name not in NAMED_SERVICES}, **variables}


def hear_ctrl_c() -> None:
    """Take SIGINT, which a shell has its background jobs ignore, and they theirs."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A data directory whose services are stopped and gone after the test."""
    path = tmp_path / "data"
    yield path
    if path.exists():
        daemon.stop(DataDir.at(path))
        eventually(lambda: not processes_of(path), seconds=15)


@pytest.fixture
def run_user(place: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Start `run -- COMMAND` as a process of its own."""
    started: list[subprocess.Popen[str]] = []

    def run(*command: str, services: Sequence[str] = ("redis",)) -> "subprocess.Popen[str]":
        named = {"postgres": "DATABASE_URL", "redis": "REDIS_URL", "zerodb": "ZERODB_API_KEY"}
        others = {variable: "none" for name, variable in named.items() if name not in services}
        process = subprocess.Popen(
            [*MODULE, "run", "--data-dir", str(place), "--", *command],
            env=plain_environment(BIGQUERY_SYNC_ENABLED="false", **others),
            cwd=PROJECT_ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=hear_ctrl_c,  # noqa: PLW1509 -- no threads here that hold locks it needs
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()
