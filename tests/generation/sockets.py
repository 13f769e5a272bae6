"""The platform's real web server and those who watch jobs through it, and a worker whose every step a test decides."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import requests
from asgiref.testing import ApplicationCommunicator
from channels.layers import get_channel_layer
from django.utils import timezone
from websockets.asyncio.client import connect as async_connect
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from engarde.asgi import application
from engarde.embedded.paths import PROJECT_ROOT
from engarde.embedded.remembered import HOST, free_port
from generation import claims, endings, progress, queries, runner
from generation.answers import Text
from generation.claims import Outcome, Step
from generation.models import Job
from tests.people import Person

SUBPROTOCOL = "engarde.v1"
Message = dict[str, Any]


# The server


@dataclass(frozen=True)
class Server:
    """A web server that runs."""

    port: int
    process: "subprocess.Popen[bytes]"

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def address(self, job_id: Any, query: str = "") -> str:
        """Return where a job's progress is told."""
        return f"ws://{HOST}:{self.port}/ws/generation-jobs/{job_id}{query and '?' + query}"


@contextmanager
def serving(workers: int = 1, **variables: str) -> Iterator[Server]:
    """Serve the platform, by so many processes."""
    port = free_port()
    how = ["--interface", "asginl", "--host", HOST, "--port", str(port), "--workers", str(workers)]
    process = subprocess.Popen(
        [sys.executable, "-m", "granian", *how, "engarde.asgi:application"],
        cwd=PROJECT_ROOT,
        env={**os.environ, **variables},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    server = Server(port, process)
    try:
        _wait(server)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(server: Server) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert server.process.poll() is None, "the server ended"
        with suppress(requests.RequestException):
            requests.get(f"{server.url}/health/live", timeout=5).raise_for_status()
            return
        time.sleep(0.1)
    raise AssertionError("the server does not answer")


# Watchers


def headers_of(person: Person) -> dict[str, str]:
    """Return a person's credentials as a client that is no browser sends them."""
    names = {"HTTP_X_API_KEY": "X-API-Key", "HTTP_AUTHORIZATION": "Authorization"}
    return {names[name]: value for name, value in person.credentials.items()}


class Watcher:
    """Somebody who watches a job, and notes down when they were told what."""

    def __init__(
        self, address: str, headers: Mapping[str, str] | None = None, subprotocols: Sequence[str] | None = None
    ) -> None:
        self.told: list[Message] = []
        self.times: list[float] = []
        self.code: int | None = None
        self.reason = ""
        self._news = threading.Condition()
        self._open = connect(
            address,
            additional_headers=headers,
            subprotocols=[Subprotocol(one) for one in subprotocols] if subprotocols else None,
            proxy=None,
            max_size=None,
            open_timeout=10,
            close_timeout=2,
        )
        self.socket: ClientConnection = self._open.__enter__()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def __enter__(self) -> "Watcher":
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def of(self, kind: str) -> list[Message]:
        """Return the messages of one type."""
        return [message for message in self.told if message["type"] == kind]

    @property
    def kinds(self) -> list[str]:
        return [message["type"] for message in self.told]

    @property
    def seqs(self) -> list[int]:
        """The items that it was told of, in order."""
        return [message["seq"] for message in self.of("item")]

    def wait_for(self, is_there: Callable[[list[Message]], object], seconds: float = 10) -> None:
        """Wait until it has been told something."""
        with self._news:
            there = self._news.wait_for(lambda: is_there(self.told) or self.code is not None, seconds)
            assert there, f"not told within {seconds} s; so far: {self.kinds}"
            assert is_there(self.told), f"closed with {self.code} ({self.reason}) after {self.kinds}"

    def wait_for_snapshot(self) -> None:
        """Wait until it was told of the job."""
        self.wait_for(lambda told: told)
        assert self.told[0]["type"] == "snapshot"

    def wait_for_seq(self, seq: int, seconds: float = 10) -> None:
        """Wait until it knows of an item."""
        self.wait_for(lambda told: any(message["seq"] >= seq for message in told), seconds)

    def wait_for_end(self, seconds: float = 20) -> int:
        """Wait until the server closes, and return the code."""
        with self._news:
            assert self._news.wait_for(lambda: self.code is not None, seconds), f"still open after {self.kinds}"
        assert self.code is not None
        return self.code

    def leave(self) -> None:
        """Close."""
        self._open.__exit__(None, None, None)
        self._thread.join(10)

    def vanish(self) -> None:
        """Be gone, without any goodbye."""
        with suppress(OSError):
            self.socket.socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)

    def _listen(self) -> None:
        try:
            while True:
                text = self.socket.recv()
                self._note(json.loads(text))
        except ConnectionClosed:
            self._end(self.socket.close_code or 0, self.socket.close_reason or "")
        except OSError:
            self._end(0, "vanished")

    def _note(self, message: Message) -> None:
        with self._news:
            self.told.append(message)
            self.times.append(time.monotonic())
            self._news.notify_all()

    def _end(self, code: int, reason: str) -> None:
        with self._news:
            self.code, self.reason = code, reason
            self._news.notify_all()


def watch(server: Server, person: Person, job_id: Any, query: str = "") -> Watcher:
    """Watch a job with a person's credentials in the headers."""
    return Watcher(server.address(job_id, query), headers_of(person))


# A worker


@dataclass
class Hand:
    """A worker that has items of a job done when a test says so, and well or badly as it says."""

    person: Person
    job_id: UUID
    job: Job = field(init=False)
    lease: UUID = field(default_factory=uuid4)

    def __post_init__(self) -> None:
        job = queries.job_to_run(tenant_id=self.person.tenant_id, job_id=self.job_id)
        assert job
        self.job = job

    def finish(self, count: int = 1, *, error: str = "", look: bool = True) -> Step:
        """Finish items, as many as the job's concurrency allows at once, and tell those who watch to look."""
        claimed = self._step([], want=count).claimed
        assert len(claimed) == count, f"{len(claimed)} of {count} items were there to be claimed"
        text = None if error else Text("A title", "A body", ())
        step = self._step([Outcome(index, text=text, error_code=error) for index in claimed], want=0)
        if look:
            tell(self.job_id)
        return step

    def pause(self) -> None:
        """Pause the job."""
        runner.stop(self.job, partial(endings.pause, code="llm_no_credit", message="No credit."))
        tell(self.job_id)

    def fail(self) -> None:
        """Let the job fail, with all that is left of it."""
        runner.stop(self.job, partial(endings.fail, code="llm_key_invalid", message="Refused."), with_items=True)
        tell(self.job_id)

    def _step(self, outcomes: Sequence[Outcome], *, want: int) -> Step:
        return claims.step(job=self.job, lease=self.lease, outcomes=outcomes, want=want, crowd=9, now=timezone.now())


def tell(job_id: UUID) -> None:
    """Tell those who watch a job to look."""

    async def send() -> None:
        await get_channel_layer().group_send(progress.group_of(job_id), {"type": progress.LOOK})

    asyncio.run(send())


# Crowds

Watching = Callable[[list[Message]], Awaitable[int]]


def over_the_network(server: Server, person: Person, job_id: Any, query: str = "") -> Watching:
    """Return how one of a crowd watches a job through the server."""

    async def watching(told: list[Message]) -> int:
        address, headers = server.address(job_id, query), headers_of(person)
        async with async_connect(address, additional_headers=headers, proxy=None, open_timeout=30) as socket:
            with suppress(ConnectionClosed):
                while True:
                    told.append(json.loads(await socket.recv()))
        return socket.close_code or 0

    return watching


def in_this_process(person: Person, job_id: Any, query: str = "") -> Watching:
    """Return how one of a crowd watches a job where a test can count and patch: in its own process, by ASGI alone."""

    async def watching(told: list[Message]) -> int:
        headers = [(name.lower().encode(), value.encode()) for name, value in headers_of(person).items()]
        path = f"/ws/generation-jobs/{job_id}"
        scope = {"type": "websocket", "path": path, "query_string": query.encode(), "headers": headers}
        serve = application.application_mapping["websocket"]
        talk = ApplicationCommunicator(serve, {**scope, "subprotocols": []})
        await talk.send_input({"type": "websocket.connect"})
        assert (await talk.receive_output(10))["type"] == "websocket.accept"
        while (message := await talk.receive_output(30))["type"] == "websocket.send":
            told.append(json.loads(message["text"]))
        await talk.wait(10)
        return int(message.get("code") or 1000)

    return watching


class Crowd:
    """Many who watch at once.

    Args:
        is_told: whether they are let in, so that each is told of the job first.
    """

    def __init__(self, *watching: Watching, is_told: bool = True) -> None:
        self.told: list[list[Message]] = [[] for _ in watching]
        self.codes: list[int] = []
        self._watching = watching
        self._is_told = is_told
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Crowd":
        """Begin, and go on once each has been told of the job."""
        self._thread.start()
        deadline = time.monotonic() + 30
        while self._is_told and not all(self.told):
            assert self._thread.is_alive(), repr(self._failure)
            assert time.monotonic() < deadline, f"{sum(map(bool, self.told))} of {len(self.told)} were told of the job"
            time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        self.wait_for_end()

    def wait_for_end(self, seconds: float = 60) -> None:
        """Wait until all are closed."""
        self._thread.join(seconds)
        assert not self._thread.is_alive(), "somebody still watches"
        if self._failure:
            raise self._failure

    def _run(self) -> None:
        try:
            self.codes = asyncio.run(self._watch())
        except BaseException as failure:  # noqa: BLE001 -- told to the test by `wait_for_end`
            self._failure = failure

    async def _watch(self) -> list[int]:
        pairs = zip(self._watching, self.told, strict=True)
        return list(await asyncio.gather(*(watching(told) for watching, told in pairs)))
