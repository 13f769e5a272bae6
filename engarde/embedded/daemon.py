"""The process that supervises the services of one data directory, as long as somebody uses them.

Every user holds `run/users.lock` shared. The daemon takes it alone as soon as it can, which is when the last user has
gone, however that user ended; it keeps it until everything is stopped, so a newcomer waits and then starts another daemon.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from types import FrameType
from typing import Any

import psutil

from engarde.embedded import files, processes
from engarde.embedded.errors import StartFailed
from engarde.embedded.files import Lock
from engarde.embedded.paths import PROJECT_ROOT, DataDir
from engarde.embedded.remembered import Remembered
from engarde.embedded.services import SERVICES, Service
from engarde.embedded.services.base import STOP_SECONDS
from engarde.embedded.supervisor import READY, STARTING, Child, Supervisor, shorten

TICK_SECONDS = 0.05
CHECK_SECONDS = 0.25
SPAWN_SECONDS = 10.0
LINGER_SECONDS = 1.0
"""How long the services outlive their last user, so that commands in a row share them."""


class Daemon:
    """Runs what is wanted in a data directory until nobody uses it."""

    def __init__(self, data: DataDir) -> None:
        self._data = data
        self._users = Lock(data.users_lock)
        self._alone_since: float | None = None
        self._stopping = False
        self._created = psutil.Process().create_time()
        self._published: dict[str, Any] = {}
        self._services: dict[str, Service] = {}
        self._remembered = Remembered(data.remembered)
        self._supervisor = Supervisor(report=say)

    def run(self) -> None:
        """Serve until nobody needs it; at once where another daemon does."""
        own = Lock(self._data.daemon_lock)
        if not self._take(own):
            return
        say("daemon", f"process {os.getpid()} starts")
        self._take_signals()
        processes.adopt_orphans()
        next_check = 0.0
        while not self._stopping:
            if time.monotonic() >= next_check:
                next_check = time.monotonic() + CHECK_SECONDS
                self._add_wanted()
                self._bury_orphans()
                self._stop_if_unused(own)
            self._supervisor.tick()
            self._publish()
            time.sleep(TICK_SECONDS)
        self._stop(own)

    def _stop_if_unused(self, own: Lock) -> None:
        if own.is_gone or self._is_unused():
            self._stopping = True

    @staticmethod
    def _take(own: Lock) -> bool:
        """Take the daemon's lock; whoever only looks whether it is taken is in the way for a moment."""
        deadline = time.monotonic() + 1
        while not own.try_exclusive():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def _take_signals(self) -> None:
        def stop(_number: int, _frame: FrameType | None) -> None:
            self._stopping = True

        signal.signal(signal.SIGTERM, stop)
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)

    def _add_wanted(self) -> None:
        for name in wanted(self._data):
            if name in SERVICES and name not in self._services:
                self._services[name] = SERVICES[name](self._data, self._remembered)
                self._supervisor.add(self._services[name].program())

    def _bury_orphans(self) -> None:
        own = {child.pid for child in self._supervisor.children.values() if child.pid}
        processes.bury_orphans(own)

    def _is_unused(self) -> bool:
        """Tell whether nobody has used the services for a while; from then on nobody can until we are done."""
        if not self._users.try_exclusive():
            self._alone_since = None
            return False
        if self._alone_since is None:
            self._alone_since = time.monotonic()
        if time.monotonic() - self._alone_since >= LINGER_SECONDS:
            return True
        self._users.release()
        return False

    def _publish(self) -> None:
        services = {name: self._describe(name, child) for name, child in self._supervisor.children.items()}
        state = {"pid": os.getpid(), "created": self._created, "stopping": self._stopping, "services": services}
        if state != self._published:
            files.write_json(self._data.state, state)
            self._published = state

    def _describe(self, name: str, child: Child) -> dict[str, Any]:
        settings = self._services[name].settings() if child.phase in (STARTING, READY) else {}
        return {
            "pid": child.pid,
            "phase": child.phase,
            "restarts": child.restarts,
            "error": child.error,
            "settings": settings,
        }

    def _stop(self, own: Lock) -> None:
        say("daemon", "stops")
        if not own.is_gone:
            self._publish()
        self._supervisor.stop(STOP_SECONDS)
        for service in self._services.values():
            service.kill_strays()
            service.tidy()
        if not own.is_gone:
            forget_wanted(self._data)
            self._data.state.unlink(missing_ok=True)
        say("daemon", "has stopped")
        own.release()
        self._users.release()


def say(name: str, event: str) -> None:
    """Write a line to the daemon's log."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    sys.stdout.write(f"{now} {name}: {event}\n")
    sys.stdout.flush()


def want(data: DataDir, services: Iterable[str]) -> None:
    """Ask for services; the daemon sees it within a moment. Hold the users' lock first."""
    data.wanted.mkdir(mode=0o700, exist_ok=True)
    for name in services:
        (data.wanted / name).touch()


def wanted(data: DataDir) -> list[str]:
    """Return the services that were asked for, in the order in which they are started."""
    return [name for name in SERVICES if (data.wanted / name).exists()]


def forget_wanted(data: DataDir) -> None:
    """Start over with nothing asked for."""
    for name in wanted(data):
        (data.wanted / name).unlink(missing_ok=True)


def is_running(data: DataDir) -> bool:
    """Tell whether a daemon supervises this data directory."""
    return files.is_locked(data.daemon_lock)


def is_author(state: dict[str, Any]) -> bool:
    """Tell whether the process that wrote a state still lives."""
    return processes.is_same(int(state.get("pid", 0)), float(state.get("created", 0)))


def start(data: DataDir) -> None:
    """Start a daemon unless one runs; callers at the same moment start one between them.

    Raises:
        StartFailed: it ended at once.
    """
    lock = Lock(data.start_lock)
    if is_running(data) or not lock.try_exclusive():
        return
    try:
        if not is_running(data):
            _spawn(data)
    finally:
        lock.release()


def _spawn(data: DataDir) -> None:
    shorten(data.log("daemon"))
    with data.log("daemon").open("ab") as log:
        # It forks once more by itself, so that it is nobody's child and leaves no zombie to us.
        subprocess.run(
            [sys.executable, "-m", "engarde.embedded", "daemon", "--data-dir", str(data.root)],
            cwd=PROJECT_ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            check=False,
        )
    deadline = time.monotonic() + SPAWN_SECONDS
    while not is_running(data):
        if time.monotonic() > deadline:
            raise StartFailed(f"The supervisor of the embedded services did not start; see {data.log('daemon')}.")
        time.sleep(0.02)


def stop(data: DataDir, seconds: float = STOP_SECONDS + 4) -> bool:
    """Stop the daemon of a data directory, and say whether one ran; whoever still uses it will start another.

    Raises:
        StartFailed: it did not stop in time.
    """
    state = files.read_json(data.state)
    if not is_running(data) or not state:
        return False
    os.kill(state["pid"], signal.SIGTERM)
    if not processes.wait_until_dead(state["pid"], state["created"], seconds):
        raise StartFailed(f"The supervisor, process {state['pid']}, does not stop.")
    return True
