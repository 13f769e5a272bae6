"""The processes that docker-compose.yml and the Procfile name, started here in production mode beside a database of their own."""

import os
import re
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import psycopg
import requests
import yaml
from cryptography.fernet import Fernet

from engarde.embedded import session
from engarde.embedded.paths import PROJECT_ROOT

HOST = "content.test"
STOP_SECONDS = 30
VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?(?::\?[^}]*)?\}")


def compose() -> dict[str, Any]:
    """Return docker-compose.yml."""
    return dict(yaml.safe_load((PROJECT_ROOT / "docker-compose.yml").read_text()))


def procfile() -> dict[str, str]:
    """Return the Procfile's commands by name."""
    lines = (PROJECT_ROOT / "Procfile").read_text().splitlines()
    return dict(line.split(": ", 1) for line in lines)


def filled(text: str, variables: Mapping[str, str]) -> str:
    """Put variables into a text as Compose and a shell do."""
    return VARIABLE.sub(lambda match: variables.get(match[1]) or match[2] or "", text)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@dataclass
class Process:
    """A process under way."""

    name: str
    popen: "subprocess.Popen[bytes]"
    log: Path
    port: int = 0
    environment: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def said(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]

    def serves(self) -> bool:
        """Tell whether it answers at /health/live."""
        assert self.popen.poll() is None, self.said()
        try:
            return requests.get(f"{self.url}/health/live", headers={"Host": HOST}, timeout=5).ok
        except requests.RequestException:
            return False

    def terminate(self) -> None:
        self.popen.send_signal(signal.SIGTERM)

    def end(self, within: float = STOP_SECONDS) -> int:
        """Return its exit code, which it has to give in time; or tell what each of its threads is at."""
        try:
            return self.popen.wait(within)
        except subprocess.TimeoutExpired:
            self.popen.send_signal(signal.SIGABRT)
            self.popen.wait(10)
            raise AssertionError(f"{self.name} did not end within {within} s:\n{self.said()}") from None


class House:
    """Starts processes in one environment, and ends what is left of them."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.environment = dict(environment)
        self._started: list[Process] = []

    def start(self, name: str, command: str, **variables: str) -> Process:
        """Start a command, on a port of its own and with a folder of ours in place of the container's."""
        port = free_port()
        environment = {**self.environment, **variables}
        words = filled(command, {**environment, "PORT": str(port)})
        words = re.sub(r"--host \S+ --port \d+", f"--host 127.0.0.1 --port {port}", words)
        words = words.replace("/data/beat", str(self.folder / "beat"))
        log = self.folder / f"{name}-{len(self._started)}.log"
        with log.open("wb") as output:
            popen = subprocess.Popen(
                shlex.split(words),
                env=environment,
                cwd=PROJECT_ROOT,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        process = Process(name, popen, log, port, environment)
        self._started.append(process)
        return process

    def service(self, name: str, **variables: str) -> Process:
        """Start a service of docker-compose.yml."""
        described = compose()["services"][name]
        named = {"WORKER_NAME": described.get("environment", {}).get("WORKER_NAME", "")}
        return self.start(name, described["command"], **named, **variables)

    def manage(self, *arguments: str) -> str:
        """Run a management command and return what it printed."""
        done = subprocess.run(
            ["python", "manage.py", *arguments],
            env=self.environment,
            cwd=PROJECT_ROOT,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def close(self) -> None:
        """End what still runs."""
        for process in self._started:
            if process.popen.poll() is None:
                os.killpg(process.popen.pid, signal.SIGKILL)
                process.popen.wait()


@contextmanager
def house(folder: Path, **variables: str) -> Iterator[House]:
    """A database, a dataset, collections and a Redis database of their own on the services of the test run."""
    place = f"deployment_{uuid4().hex[:8]}"
    with ExitStack() as stack:
        database = stack.enter_context(_database(os.environ["DATABASE_URL"], place))
        (folder / "beat").mkdir(parents=True)
        environment = {
            **os.environ,
            "PATH": f"{PROJECT_ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "ENGARDE_ENV": "production",
            "SECRET_KEY": uuid4().hex * 2,
            "ENCRYPTION_KEYS": Fernet.generate_key().decode(),
            "ALLOWED_HOSTS": HOST,
            "PUBLIC_URL": f"https://{HOST}",
            "SECURE_SSL_REDIRECT": "false",
            "DATABASE_URL": database,
            "REDIS_URL": os.environ["REDIS_URL"].removesuffix("/0") + "/7",
            "BIGQUERY_DATASET": place,
            "ZERODB_COLLECTION_PREFIX": f"{place}_",
            "DATA_DIR": str(folder),
            "LOG_LEVEL": "INFO",
            "PYTHONFAULTHANDLER": "1",  # SIGABRT writes all stacks
            session.JOINED: "joined",
            **variables,
        }
        running = House(folder, environment)
        stack.callback(running.close)
        yield running


@contextmanager
def _database(server: str, name: str) -> Iterator[str]:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        try:
            parts = urlsplit(server)
            yield urlunsplit(parts._replace(path=f"/{name}"))
        finally:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def eventually(ask: Any, seconds: float) -> Any:
    """Return the first answer that is true."""
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.1)
    return answer
