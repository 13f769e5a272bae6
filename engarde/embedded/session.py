"""The door to the embedded services: which are needed, and having them as long as a `with` block lasts."""

import contextlib
import os
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engarde.embedded import daemon, files, processes
from engarde.embedded.errors import StartFailed
from engarde.embedded.files import Lock
from engarde.embedded.paths import PROJECT_ROOT, DataDir
from engarde.embedded.remembered import Remembered
from engarde.embedded.services.postgres import Postgres, binaries

__all__ = ["StartFailed", "data_dir", "for_command", "join", "needed", "running_model", "why_no_model"]

# What names a service of one's own, instead of the embedded one.
OWN_SERVICE = {
    "postgres": "DATABASE_URL",
    "redis": "REDIS_URL",
    "zerodb": "ZERODB_API_KEY",
    "bigquery": "BIGQUERY_PROJECT_ID",
}
FALSE = ("false", "0", "no", "off", "n", "f")
JOINED = "ENGARDE_EMBEDDED"
# Commands that need fewer services than the settings name.
ONLY_POSTGRES = ("check", "migrate", "makemigrations", "dbshell")
WITHOUT_SERVICES = (
    "",
    "help",
    "version",
    "check",
    "collectstatic",
    "compilemessages",
    "diffsettings",
    "makemessages",
    "makemigrations",
    "sendtestemail",
    "spectacular",
    "startapp",
    "startproject",
)
HELP_FLAGS = ("-h", "--help", "--version")
# Settings must be readable without services; nothing listens there.
PLACEHOLDERS = {"DATABASE_URL": "postgres://engarde@/engarde?host=%2Fnonexistent", "REDIS_URL": "redis://127.0.0.1:1/0"}
DOTENV_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*$")
POLL_SECONDS = 0.03
WATCH_SECONDS = 1.0
LEAVE_SECONDS = 15.0


def needed(environ: Mapping[str, str]) -> frozenset[str]:
    """Return the services that the environment does not name, and so are embedded: none in production."""
    if environ.get("ENGARDE_ENV") == "production":
        return frozenset()
    missing = {name for name, variable in OWN_SERVICE.items() if not _given(environ, variable)}
    if not backup_is_on(environ):
        missing.discard("bigquery")
    return frozenset(missing)


def backup_is_on(environ: Mapping[str, str]) -> bool:
    """Tell whether the environment leaves the backup switched on."""
    return _value(environ, "BIGQUERY_SYNC_ENABLED").lower() not in FALSE


def why_no_model(environ: Mapping[str, str]) -> str:
    """Return in words why `make up` runs no language model of its own in an environment; nothing where it does."""
    if environ.get("ENGARDE_ENV") == "production":
        return "ENGARDE_ENV=production"
    if _given(environ, "LOCAL_LLM_BASE_URL"):
        return "LOCAL_LLM_BASE_URL names another"
    switch = _value(environ, "EMBEDDED_LLM")
    return f"EMBEDDED_LLM={switch}" if switch.lower() in FALSE else ""


def _given(environ: Mapping[str, str], variable: str) -> bool:
    return bool(environ.get(variable) or environ.get(f"{variable}_FILE"))


def _value(environ: Mapping[str, str], variable: str) -> str:
    if environ.get(variable) or not environ.get(f"{variable}_FILE"):
        return environ.get(variable, "").strip()
    with contextlib.suppress(OSError):
        return Path(environ[f"{variable}_FILE"]).read_text().strip()
    return ""


def environment() -> dict[str, str]:
    """Return the process's environment with what the checkout's `.env` adds to it, as the settings will see it."""
    return {**_dotenv(PROJECT_ROOT / ".env"), **os.environ}


def _dotenv(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    found = (DOTENV_LINE.match(line) for line in lines)
    return {match[1]: match[2].strip("'\"") for match in found if match}


def data_dir(environ: Mapping[str, str]) -> Path:
    """Return `DATA_DIR`, by default `.data` in the checkout; a relative one is relative to the checkout."""
    return PROJECT_ROOT / (environ.get("DATA_DIR") or ".data")


@contextmanager
def join(
    data_dir: Path,
    services: Iterable[str],
    *,
    optional: Iterable[str] = (),
    timeout: float = 60,
    wait_for_end: bool = False,
) -> Iterator[dict[str, str]]:
    """Use services of a data directory, which are started if need be and stop after their last user.

    Yields the environment variables that lead to them. Should their supervisor die, another one is started, on the same
    ports. `optional` ones are started too, but neither waited for nor yielded, and they may fail. `timeout` is in seconds.
    With `wait_for_end` the block ends only when the services have, if nobody else uses them.

    Raises:
        StartFailed: a service cannot be started.
    """
    required, wanted = frozenset(services), frozenset((*services, *optional))
    if not wanted:
        yield {}
        return
    membership = _Membership(DataDir.at(data_dir), required, wanted)
    try:
        settings = membership.enter(timeout)
        with membership.watched():
            yield settings
    finally:
        membership.leave(wait_for_end=wait_for_end)


class _Membership:
    """One user's part in a data directory."""

    def __init__(self, data: DataDir, required: frozenset[str], wanted: frozenset[str]) -> None:
        self._data = data
        self._required = required
        self._wanted = wanted
        self._users = Lock(data.users_lock)
        self._left = threading.Event()

    def enter(self, timeout: float) -> dict[str, str]:
        deadline = time.monotonic() + timeout
        while not self._users.try_shared():
            self._pause_until(deadline, "an earlier supervisor to stop")
        daemon.want(self._data, self._wanted)
        while True:
            daemon.start(self._data)
            settings = self._settings_when_ready()
            if settings is not None:
                return settings
            self._pause_until(deadline, ", ".join(sorted(self._required)))

    def _pause_until(self, deadline: float, what: str) -> None:
        if time.monotonic() > deadline:
            raise StartFailed(f"Waited too long for {what}; the logs are in {self._data.root / 'logs'}.")
        time.sleep(POLL_SECONDS)

    def _settings_when_ready(self) -> dict[str, str] | None:
        state = running_state(self._data)
        services: dict[str, Any] = {name: state.get("services", {}).get(name, {}) for name in sorted(self._required)}
        for service in services.values():
            if service.get("error"):
                raise StartFailed(service["error"])
        if not all(service.get("phase") == "ready" for service in services.values()):
            return None
        return {name: value for service in services.values() for name, value in service["settings"].items()}

    @contextmanager
    def watched(self) -> Iterator[None]:
        watcher = threading.Thread(target=self._watch, name="embedded-services", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            self._left.set()
            watcher.join()

    def _watch(self) -> None:
        while not self._left.wait(WATCH_SECONDS):
            # A full disk or a deleted directory must not end the watch: the next round may succeed.
            with contextlib.suppress(OSError, StartFailed):
                self._keep_alive()

    def _keep_alive(self) -> None:
        if self._users.is_gone:
            self._data = DataDir.at(self._data.root)
            self._users.release()
            self._users = Lock(self._data.users_lock)
            if not self._users.try_shared():
                return
        if not daemon.is_running(self._data):
            daemon.want(self._data, self._wanted)
            daemon.start(self._data)

    def leave(self, *, wait_for_end: bool) -> None:
        state = running_state(self._data) if wait_for_end else {}
        self._users.release()
        if state and self._is_stopping_soon():
            processes.wait_until_dead(state["pid"], state["created"], LEAVE_SECONDS)

    def _is_stopping_soon(self) -> bool:
        """Wait until the daemon stops, or until it is clear that somebody else keeps it."""
        deadline = time.monotonic() + daemon.LINGER_SECONDS + 1
        while time.monotonic() < deadline:
            state = files.read_json(self._data.state)
            if not state or state["stopping"]:
                return True
            time.sleep(POLL_SECONDS)
        return False


def running_state(data: DataDir) -> dict[str, Any]:
    """Return what the running daemon says of itself; nothing if none runs, whatever a dead one left."""
    state = files.read_json(data.state)
    return state if state and daemon.is_running(data) and daemon.is_author(state) else {}


def service_state(data: DataDir, name: str) -> dict[str, Any]:
    """Return what the running daemon says of a service; nothing where it does not run that."""
    state: dict[str, Any] = running_state(data).get("services", {}).get(name, {})
    return state


def running_model(data_dir: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that lead to the language model which `make up` runs meanwhile in the same data directory.

    Nothing where it runs none, or the environment wants none.
    """
    state = {} if why_no_model(environ) else service_state(DataDir.at(data_dir), "llm")
    return state["settings"] if state.get("phase") == "ready" else {}


def client_environment(data_dir: Path, services: Iterable[str]) -> dict[str, str]:
    """Return the variables with which `psql` and `pg_dump`, found on `PATH`, reach the embedded database."""
    if "postgres" not in services:
        return {}
    data = DataDir.at(data_dir)
    found = Postgres(data, Remembered(data.remembered)).client_environment()
    return {**found, "PATH": f"{binaries()}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}


@contextmanager
def for_command(argv: Sequence[str], environ: Mapping[str, str]) -> Iterator[None]:
    """Give a management command the services that it needs, through `os.environ`.

    Commands that need none, and requests for help, start nothing and get placeholders, so that the settings can be read.
    Where `ENGARDE_EMBEDDED=joined` tells that the parent process has joined already, nothing is done.

    Raises:
        SystemExit: a service cannot be started; the message says why.
    """
    environ = {**_dotenv(PROJECT_ROOT / ".env"), **environ}
    services = frozenset() if environ.get(JOINED) == "joined" else needed(environ)
    if not services:
        yield
    elif not _uses_services(argv):
        with _updated(_placeholders(services)):
            yield
    else:
        with contextlib.ExitStack() as stack:
            wanted = services & {"postgres"} if argv[1] in ONLY_POSTGRES else services
            try:
                settings = stack.enter_context(join(data_dir(environ), wanted))
                extra = client_environment(data_dir(environ), services) | running_model(data_dir(environ), environ)
            except StartFailed as error:
                raise SystemExit(str(error)) from error
            stack.enter_context(_updated({**_placeholders(services - wanted), **extra, **settings, JOINED: "joined"}))
            yield


def _uses_services(argv: Sequence[str]) -> bool:
    command = argv[1] if len(argv) > 1 else ""
    if "--database" in argv and command == "check":
        return True
    return command not in WITHOUT_SERVICES and not any(flag in argv for flag in HELP_FLAGS)


def _placeholders(services: Iterable[str]) -> dict[str, str]:
    missing = {OWN_SERVICE[name] for name in services}
    return {name: value for name, value in PLACEHOLDERS.items() if name in missing}


@contextmanager
def _updated(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
