"""Keeps programs running: each in its own session, tied to this process, started again when it dies."""

import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from engarde.embedded import processes
from engarde.embedded.errors import StartFailed

FIRST_DELAYS = (0.0, 0.3, 0.6, 1.2, 2.4, 4.0)
GOOD_RUN_SECONDS = 10
REPAIR_AFTER_DEATHS = 2
HOPELESS_DEATHS = 4
LOG_BYTES = 20 * 1024 * 1024
LOG_CHECK_SECONDS = 30
READY_POLL_SECONDS = 0.05

WAITING, PREPARING, STARTING, READY, GIVEN_UP = "waiting", "preparing", "starting", "ready", "given up"


def _nothing() -> None:
    return


@dataclass(frozen=True)
class Program:
    """What to run. The callables but `command` run in a thread; a `StartFailed` from `prepare` is shown and tried again."""

    name: str
    command: Callable[[], Sequence[str | Path]]
    environment: Callable[[], Mapping[str, str]]
    cwd: Path
    log: Path
    stop_signal: signal.Signals = signal.SIGTERM
    prepare: Callable[[], None] = _nothing
    ready: Callable[[], bool] = lambda: True
    repair: Callable[[], None] = _nothing
    move: Callable[[], None] = _nothing
    """Chooses other addresses, for a program that died before it was ever ready: nobody knows the ones it has."""
    clean_up: Callable[[], None] = _nothing
    witness: Path | None = None
    """A file made by `prepare`: when it goes, the program's data went with it, and the program starts anew."""
    gives_up: bool = False
    """Whether it is left alone after several deaths in a row without ever being ready: the others do without it."""


@dataclass
class Child:
    """A program and the process that runs it now, if any."""

    program: Program
    phase: str = WAITING
    process: "subprocess.Popen[bytes] | None" = None
    created: float = 0
    restarts: int = 0
    error: str = ""
    deaths: int = 0
    not_before: float = 0
    ready_at: float = 0
    evidence: str = ""
    work: "Future[bool] | None" = field(default=None, repr=False)

    @property
    def pid(self) -> int | None:
        """The process id, while it runs."""
        return self.process.pid if self.process else None


class Supervisor:
    """Runs programs until `stop`. Call `tick` often, from one long-lived thread: children are tied to the thread that starts them."""

    def __init__(self, report: Callable[[str, str], None] = lambda name, event: None) -> None:
        self._children: dict[str, Child] = {}
        self._threads = ThreadPoolExecutor(max_workers=8, thread_name_prefix="supervisor")
        self._report = report
        self._logs_checked_at = time.monotonic()

    @property
    def children(self) -> Mapping[str, Child]:
        """The programs by name."""
        return self._children

    def add(self, program: Program) -> None:
        """Run one more program; one of that name that runs already is left alone."""
        if program.name not in self._children:
            shorten(program.log)
            self._children[program.name] = Child(program)

    def tick(self) -> None:
        """Move every program on by what can be done without waiting."""
        for child in self._children.values():
            self._step(child)
        if time.monotonic() - self._logs_checked_at > LOG_CHECK_SECONDS:
            self._logs_checked_at = time.monotonic()
            for child in self._children.values():
                shorten(child.program.log)

    def stop(self, seconds: float) -> None:
        """Stop everything; what still runs after `seconds` is killed."""
        deadline = time.monotonic() + seconds
        for child in reversed(self._children.values()):
            if child.process is not None and child.process.poll() is None:
                child.process.send_signal(child.program.stop_signal)
        for child in reversed(self._children.values()):
            self._wait(child, deadline)
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._children.clear()

    def _wait(self, child: Child, deadline: float) -> None:
        if child.process is None:
            return
        try:
            child.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()
        self._sweep(child)

    def _step(self, child: Child) -> None:
        if child.phase == GIVEN_UP:
            return
        if child.phase == WAITING:
            if time.monotonic() >= child.not_before:
                child.phase = PREPARING
                child.work = self._threads.submit(self._prepare, child)
        elif child.phase == PREPARING:
            self._start_when_prepared(child)
        elif child.process is not None and child.process.poll() is not None:
            self._bury(child, f"ended with {describe(child.process.returncode)}")
        elif self._lost_its_data(child):
            self._report(child.program.name, "its data is gone")
            self._kill(child)
        elif child.phase == STARTING:
            self._notice_ready(child)

    def _prepare(self, child: Child) -> bool:
        if child.deaths >= REPAIR_AFTER_DEATHS:
            child.program.repair()
            if not child.ready_at:
                child.program.move()
        child.program.prepare()
        return True

    def _start_when_prepared(self, child: Child) -> None:
        if child.work is None or not child.work.done():
            return
        problem = child.work.exception()
        if problem is None:
            self._start(child)
        else:
            child.error = str(problem) if isinstance(problem, StartFailed) else f"{child.program.name}: {problem!r}"
            self._report(child.program.name, child.error)
            self._try_again(child)

    def _start(self, child: Child) -> None:
        child.work = None
        try:
            child.process = self._spawn(child.program)
        except OSError as error:
            child.error = f"{child.program.name} cannot be started: {error}"
            self._report(child.program.name, child.error)
            self._try_again(child)
            return
        child.phase = STARTING
        child.created = psutil.Process(child.process.pid).create_time()
        child.evidence = evidence(child.program.witness)

    @staticmethod
    def _spawn(program: Program) -> "subprocess.Popen[bytes]":
        with program.log.open("ab") as log:
            return subprocess.Popen(
                processes.tie_to_parent(program.command(), program.stop_signal),
                env=dict(program.environment()),
                cwd=program.cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _notice_ready(self, child: Child) -> None:
        if child.work is None:
            child.work = self._threads.submit(self._ask_if_ready, child)
        elif child.work.done():
            ready = child.work.exception() is None and child.work.result()
            child.work = None
            if ready:
                child.phase, child.ready_at, child.error = READY, time.monotonic(), ""
                self._report(child.program.name, "ready")

    def _ask_if_ready(self, child: Child) -> bool:
        time.sleep(READY_POLL_SECONDS)
        return child.program.ready()

    @staticmethod
    def _lost_its_data(child: Child) -> bool:
        witness = child.program.witness
        return witness is not None and evidence(witness) != child.evidence

    def _kill(self, child: Child) -> None:
        if child.process is not None:
            child.process.kill()
            child.process.wait()
            self._bury(child, "was killed because its data is gone")

    def _bury(self, child: Child, how: str) -> None:
        self._report(child.program.name, how)
        self._sweep(child)
        was_ready_for = time.monotonic() - child.ready_at if child.phase == READY else 0
        child.deaths = 0 if was_ready_for > GOOD_RUN_SECONDS else child.deaths + 1
        is_hopeless = child.phase != READY and child.deaths >= HOPELESS_DEATHS
        if is_hopeless:
            child.error = f"{child.program.name} {how} again and again; the end of {child.program.log}:\n{tail(child.program.log)}"
        child.process, child.work = None, None
        if is_hopeless and child.program.gives_up:
            child.phase = GIVEN_UP
            return
        child.restarts += 1
        self._try_again(child, died=True)

    def _try_again(self, child: Child, *, died: bool = False) -> None:
        if not died:
            child.deaths += 1
        delay = FIRST_DELAYS[min(child.deaths - 1, len(FIRST_DELAYS) - 1)] if child.deaths else 0.0
        child.phase, child.not_before = WAITING, time.monotonic() + delay

    def _sweep(self, child: Child) -> None:
        if child.process is not None:
            processes.kill_group(child.process.pid)
        child.program.clean_up()


def evidence(witness: Path | None) -> str:
    """Return what is written in a witness; nothing if it is gone. An inode would not do: the next file may get it."""
    try:
        return witness.read_text() if witness else ""
    except OSError:
        return ""


def describe(returncode: int) -> str:
    """Return an exit code in words: `exit code 1`, `signal SIGKILL`."""
    return f"exit code {returncode}" if returncode >= 0 else f"signal {signal.Signals(-returncode).name}"


def tail(path: Path, lines: int = 15) -> str:
    """Return the last lines of a log."""
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"


def shorten(path: Path) -> None:
    """Move a log that grew big aside. Its writers append, so they go on at the start of the emptied file."""
    try:
        if path.stat().st_size > LOG_BYTES:
            shutil.copyfile(path, path.with_suffix(".log.1"))
            with path.open("r+") as log:
                log.truncate(0)
    except OSError:
        return
