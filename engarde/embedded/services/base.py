"""What the supervisor asks of a service."""

import http.client
import os
import signal
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from engarde.embedded import processes
from engarde.embedded.errors import StartFailed
from engarde.embedded.paths import DataDir
from engarde.embedded.remembered import HOST, Remembered
from engarde.embedded.supervisor import Program, evidence

# Services get a clean environment: a GRANIAN_… or PG… variable of the shell is meant for something else.
KEPT_VARIABLES = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "SSL_CERT_FILE")
STOP_SECONDS = 8.0
WITNESS = "in-use"


@dataclass(frozen=True)
class Service(ABC):
    """One embedded service of one data directory."""

    name: ClassVar[str]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    data: DataDir
    remembered: Remembered

    @property
    def folder(self) -> Path:
        """Where its data is."""
        return self.data.folder(self.name)

    @property
    def witness(self) -> Path:
        """A file of ours in the folder, different in each new one; when it goes, somebody deleted the data."""
        return self.folder / WITNESS

    @property
    @abstractmethod
    def executable(self) -> Path:
        """The program file that its processes run."""

    @abstractmethod
    def command(self) -> Sequence[str | Path]:
        """Return the command that runs it in the foreground."""

    @abstractmethod
    def ready(self) -> bool:
        """Tell whether it answers."""

    @abstractmethod
    def settings(self) -> dict[str, str]:
        """Return the environment variables that lead the platform to it."""

    def make_data(self) -> None:
        """Make what the program needs in the folder, which may be missing, empty or complete.

        Raises:
            StartFailed: it cannot be made.
        """
        self.folder.mkdir(mode=0o700, exist_ok=True)

    def settle_ports(self) -> None:  # noqa: B027 -- most have something to do here, none has to
        """Choose other ports where strangers took ours."""

    def environment(self) -> dict[str, str]:
        """Return the environment that the program runs in."""
        kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
        return {**kept, "LANG": "C.UTF-8", "TZ": "UTC", "PYTHONUNBUFFERED": "1"}

    def move(self) -> None:  # noqa: B027
        """Choose other ports, whoever has these: the service died before it was ever ready."""

    def repair(self) -> None:  # noqa: B027
        """Do what can be done after it died several times in a row."""

    def tidy(self) -> None:  # noqa: B027
        """Remove what a stopped service leaves outside its data directory."""

    def prepare(self) -> None:
        """Make ready for a start: nothing of an earlier run is left, the data is there, the ports are free.

        Raises:
            StartFailed: it cannot run.
        """
        self.end_strays()
        try:
            self.make_data()
            if not evidence(self.witness):
                self.witness.write_text(str(uuid.uuid4()))
        except OSError as error:
            raise StartFailed(f"{self.name}: {error}") from error
        self.settle_ports()

    def end_strays(self) -> None:
        """End processes that an earlier supervisor left behind."""
        processes.end(processes.strays(self.executable, self.folder), self.stop_signal, STOP_SECONDS)

    def kill_strays(self) -> None:
        """Kill what a dead main process left behind."""
        processes.end(processes.strays(self.executable, self.folder), signal.SIGKILL, STOP_SECONDS)

    def program(self) -> Program:
        """Return it as the supervisor runs it."""
        return Program(
            name=self.name,
            command=self.command,
            environment=self.environment,
            cwd=self.folder,
            log=self.data.log(self.name),
            stop_signal=self.stop_signal,
            prepare=self.prepare,
            ready=self.ready,
            repair=self.repair,
            move=self.move,
            clean_up=self.kill_strays,
            witness=self.witness,
        )


def answers(port: int, path: str, headers: Mapping[str, str] | None = None) -> bool:
    """Tell whether `GET path` on a port of this machine gives 200."""
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", path, headers=dict(headers or {}))
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def set_aside(folder: Path) -> Path:
    """Rename a folder whose content is of no use, so that a new one can take its place; nothing is deleted."""
    aside = folder.with_name(f"{folder.name}.broken-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}")
    return folder.rename(aside)
