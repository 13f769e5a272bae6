"""`make up`: the whole platform in the foreground, on embedded services where none are named."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

from engarde.embedded import files, processes, remembered, session
from engarde.embedded.errors import StartFailed
from engarde.embedded.files import Lock
from engarde.embedded.model import Model
from engarde.embedded.paths import PROJECT_ROOT, DataDir
from engarde.embedded.services.base import WITNESS, answers
from engarde.embedded.supervisor import READY, Program, Supervisor, evidence

DEFAULT_PORT = 8000
TICK_SECONDS = 0.1
STOP_SECONDS = 8.0
START_SECONDS = 60.0
LEFTOVER_SECONDS = 8.0
WEB_LOGS = PROJECT_ROOT / "engarde" / "granian-logs.json"


def web_command(port: int, workers: str) -> list[str]:
    """Return the command that serves HTTP and WebSockets."""
    where = ["--host", remembered.HOST, "--port", str(port)]
    how = ["--workers", workers, "--respawn-failed-workers", "--log-config", str(WEB_LOGS)]
    return [sys.executable, "-m", "granian", "--interface", "asginl", *where, *how, "engarde.asgi:application"]


def worker_command() -> list[str]:
    """Return the command that carries tasks."""
    return _celery_worker("worker", "default,documents,dr")


def generation_worker_command() -> list[str]:
    """Return the command that carries generation's tasks, which wait for language models, and maintenance, which takes minutes."""
    return _celery_worker("generation", "generation,maintenance")


def beat_command(schedule: Path) -> list[str]:
    """Return the command that sends the timed tasks."""
    return [*_celery("beat"), "-s", str(schedule)]


def _celery_worker(name: str, queues: str) -> list[str]:
    # Under names of their own: two of one name on a host would answer for each other.
    how = ["--concurrency", "2", "--prefetch-multiplier", "1"]
    return [*_celery("worker"), "-n", f"{name}@%h", "-Q", queues, *how]


def _celery(part: str) -> list[str]:
    return [sys.executable, "-m", "celery", "--quiet", "-A", "engarde", part, "--loglevel", "INFO"]


class Platform:
    """Web, workers and beat of one data directory."""

    def __init__(self, data: DataDir, port: int, say: Callable[[str], None]) -> None:
        self._data = data
        self._port = port
        self._say = say
        self._environ = session.environment()
        self._recorded: dict[str, Any] = {}
        self._announced = False
        self._supervisor = Supervisor(report=self._report)
        self._login: Mapping[str, str] = {}
        self._model = Model(data, self._environ, say)

    def run(self) -> int:
        """Start everything, stay until Ctrl-C or SIGTERM, stop everything; return the exit code.

        Raises:
            StartFailed: something needed is missing, or the port is taken.
        """
        if self._environ.get("ENGARDE_ENV") == "production":
            raise StartFailed(
                "make up is for development. In production run web, worker and beat by themselves: docs/guides/operations.md."
            )
        lock = Lock(self._data.platform_lock)
        if not lock.try_exclusive():
            raise StartFailed(f"The platform of {self._data.root} runs already.")
        self._end_leftovers()
        if not remembered.is_free(self._port):
            raise StartFailed(f"Port {self._port} is in use. Choose another one: PORT=8001 make up")
        with _signals_as_interrupt(), contextlib.suppress(KeyboardInterrupt):
            self._run_on_services()
        lock.release()
        self._say("Stopped.")
        return 0

    def _run_on_services(self) -> None:
        services = session.needed(self._environ)
        started = services | self._model.services
        self._say(f"Starting {', '.join(sorted(started))} ..." if started else "Using the services that are named ...")
        with session.join(self._data.root, services, optional=self._model.services, wait_for_end=True) as settings:
            try:
                model = self._model.settings()
                self._serve({**self._environ, **settings, **model, session.JOINED: "joined"}, services)
            finally:
                _ignore_signals()
                self._say("Stopping ...")
                self._supervisor.stop(STOP_SECONDS)
                self._data.platform.unlink(missing_ok=True)

    def _serve(self, environ: Mapping[str, str], services: frozenset[str]) -> None:
        environ = {**environ, "PORT": str(self._port), "DATA_DIR": str(self._data.root)}
        witnesses = self._witnesses(services)
        self._set_up(environ)
        for program in self._programs(environ):
            self._supervisor.add(program)
        started = time.monotonic()
        while True:
            self._supervisor.tick()
            self._record()
            self._announce_when_ready(started)
            self._model.watch()
            if self._announced and "" not in (now := self._witnesses(services)) and now != witnesses:
                self._say("A service's data was lost; setting it up anew ...")
                witnesses = now
                self._set_up_after_loss(environ)
            time.sleep(TICK_SECONDS)

    def _set_up_after_loss(self, environ: Mapping[str, str]) -> None:
        try:
            self._set_up(environ)
        except StartFailed as error:
            self._say(str(error))

    def _witnesses(self, services: frozenset[str]) -> list[str]:
        """Return what changes when a service had to begin with an empty folder."""
        return [evidence(self._data.folder(name) / WITNESS) for name in sorted(services)]

    def _set_up(self, environ: Mapping[str, str]) -> None:
        self._say("Migrating ...")
        report = json.loads(self._manage(environ, "release", "--json", "--wait", "0"))
        for part, state in report.items():
            if state.startswith("failed"):
                # The platform runs without ZeroDB and BigQuery; the carriers catch up once they are there.
                self._say(f"Setting up {part} {state}\nGoing on without.")
        self._login = json.loads(self._manage(environ, "ensure_staff", "--json"))

    def _manage(self, environ: Mapping[str, str], *arguments: str) -> str:
        """Run a management command and return what it printed."""
        process = subprocess.Popen(
            [sys.executable, str(PROJECT_ROOT / "manage.py"), *arguments],
            env=dict(environ),
            cwd=PROJECT_ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            printed, complaints = process.communicate()
        except BaseException:
            process.terminate()
            process.wait()
            raise
        if process.returncode:
            raise StartFailed(f"manage.py {' '.join(arguments)} failed:\n{complaints[-3000:]}")
        return printed

    def _programs(self, environ: Mapping[str, str]) -> Iterator[Program]:
        shutil.rmtree(self._data.metrics, ignore_errors=True)
        self._data.metrics.mkdir(mode=0o700)
        environ = {**environ, "PROMETHEUS_MULTIPROC_DIR": str(self._data.metrics)}
        web = web_command(self._port, environ.get("WEB_WORKERS", "2"))
        commands = {
            "web": web,
            "worker": worker_command(),
            "generation": generation_worker_command(),
            "beat": beat_command(self._data.root / "celerybeat-schedule"),
        }
        for name, command in commands.items():
            yield Program(
                name=name,
                command=lambda command=command: command,  # type: ignore[misc]
                environment=lambda: environ,
                cwd=PROJECT_ROOT,
                log=self._data.log(name),
                ready=self._web_answers if name == "web" else lambda: True,
            )

    def _web_answers(self) -> bool:
        return answers(self._port, "/health/live")

    def _report(self, name: str, event: str) -> None:
        if self._announced:
            self._say(f"{name} {event}" if event == "ready" else f"{name} {event}; starting it again")

    def _announce_when_ready(self, started: float) -> None:
        if self._announced:
            return
        children = self._supervisor.children
        problem = next((child.error for child in children.values() if child.error), "")
        if not problem and time.monotonic() - started > START_SECONDS:
            problem = f"The platform does not answer on port {self._port}; see {self._data.root / 'logs'}."
        if problem:
            raise StartFailed(problem)
        if all(child.phase == READY for child in children.values()):
            self._announced = True
            self._say(self._welcome())

    def _welcome(self) -> str:
        url = f"http://{remembered.HOST}:{self._port}"
        return (
            "\n"
            f"  En Garde content storage runs on {url}\n"
            f"  Admin    {url}/admin/   {self._login.get('email', '')}   {self._login.get('password') or '(the password that you gave it)'}\n"
            f"  API docs {url}/api/docs\n"
            f"  Model    {self._model.welcome()}\n"
            f"  Logs     {self._data.root / 'logs'}\n"
            "  Stop     Ctrl-C; the data stays\n"
        )

    def _record(self) -> None:
        """Note who runs, for the next `up` in case this one is killed."""
        running = {name: [child.pid, child.created] for name, child in self._supervisor.children.items() if child.pid}
        if running != self._recorded:
            files.write_json(self._data.platform, running)
            self._recorded = running

    def _end_leftovers(self) -> None:
        """End what an earlier `up` left when it was killed: it is stopping by itself, but may take its time."""
        recorded = files.read_json(self._data.platform).values()
        leftovers = [member for pid, created in recorded for member in _group_members(pid, created)]
        processes.end(leftovers, signal.SIGTERM, LEFTOVER_SECONDS)


def _group_members(leader: int, created: float) -> list[psutil.Process]:
    interpreter = os.path.realpath(sys.executable)
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            ours = os.getpgid(process.pid) == leader and process.create_time() >= created - 1
            if ours and process.exe() == interpreter and process.cwd() == str(PROJECT_ROOT):
                found.append(process)
    return found


@contextmanager
def _signals_as_interrupt() -> Iterator[None]:
    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, interrupt)
    yield


def _ignore_signals() -> None:
    """Let nothing interrupt the stopping, which is bounded in time."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
