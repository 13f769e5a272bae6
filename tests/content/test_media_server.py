"""Media files through the real server, which must never hold one in memory."""

import hashlib
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest
import requests

from engarde.embedded.paths import PROJECT_ROOT
from engarde.embedded.up import web_command
from tests import people
from tests.content.media_files import END, MULTIPART, URL, everything, part, picture
from tests.people import Person

MIB = 1024**2
BLOCK = bytes(range(256)) * (MIB // 256)
HEAD = part('name="file"; filename="large.bin"', b"")[:-2]


class Server:
    """The platform's web server, with one process that serves."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.port = port
        self.process = subprocess.Popen(
            web_command(port, "1"), cwd=PROJECT_ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def wait(self) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                requests.get(f"{self.url}/health/live", timeout=5).raise_for_status()
            except requests.RequestException:
                time.sleep(0.1)
            else:
                return
        raise AssertionError("the server does not answer")

    def memory(self) -> int:
        """Return the bytes that all of its processes have in memory."""
        leader = psutil.Process(self.process.pid)
        return sum(process.memory_info().rss for process in [leader, *leader.children(recursive=True)])

    @contextmanager
    def watched(self) -> Iterator[list[int]]:
        """Measure its memory all the while."""
        peaks, ended = [self.memory()], threading.Event()

        def watch() -> None:
            while not ended.wait(0.02):
                peaks.append(self.memory())

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield peaks
        finally:
            ended.set()
            watcher.join()


@pytest.fixture(scope="module")
def server(django_db_setup: None) -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    running = Server(port)
    try:
        running.wait()
        yield running
    finally:
        running.process.terminate()
        running.process.wait(timeout=30)


class LargeBody:
    """A multipart body with a file of so many MiB, made while it is read."""

    def __init__(self, mebibytes: int) -> None:
        self._pieces = self._make(mebibytes)
        self._length = len(HEAD) + mebibytes * MIB + 2 + len(END)
        self.hash = hashlib.sha256()

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def _make(self, mebibytes: int) -> Iterator[bytes]:
        yield HEAD
        for number in range(mebibytes):
            piece = number.to_bytes(8, "big") + BLOCK[8:]
            self.hash.update(piece)
            yield piece
        yield b"\r\n" + END


def credentials(person: Person) -> dict[str, str]:
    return {"X-API-Key": person.credentials["HTTP_X_API_KEY"]}


def send(server: Server, person: Person, body: Any) -> requests.Response:
    headers = {**credentials(person), "Content-Type": MULTIPART, "Content-Length": str(len(body))}
    data = body if isinstance(body, bytes) else iter(body)
    request = requests.Request("POST", server.url + URL, data=data, headers=headers).prepare()
    request.headers.pop("Transfer-Encoding", None)  # requests would add it to a body that is an iterator
    request.headers["Content-Length"] = str(len(body))
    with requests.Session() as session:
        return session.send(request, timeout=600)


def fetch(server: Server, path: str, person: Person) -> tuple[int, str]:
    """Fetch a file piece by piece; return its length and SHA-256."""
    length, sha256 = 0, hashlib.sha256()
    with requests.get(server.url + path, headers=credentials(person), stream=True, timeout=600) as answer:
        answer.raise_for_status()
        for piece in answer.iter_content(MIB):
            length += len(piece)
            sha256.update(piece)
    return length, sha256.hexdigest()


def growth(server: Server, mebibytes: int) -> tuple[int, int]:
    """Send and fetch a file of so many MiB; return by how much the server's memory grew meanwhile, in MiB each."""
    person = people.new_owner(tier="professional")
    warm = send(server, person, LargeBody(1)).json()
    send(server, person, part('name="file"; filename="a.png"', picture()) + END)
    fetch(server, f"{URL}/{warm['id']}/download", person)

    before, body = server.memory(), LargeBody(mebibytes)
    with server.watched() as sending:
        answer = send(server, person, body)
    assert answer.status_code == 201, answer.text
    media = answer.json()
    assert (media["size_bytes"], media["sha256"]) == (mebibytes * MIB, body.hash.hexdigest())
    with server.watched() as fetching:
        assert fetch(server, f"{URL}/{media['id']}/download", person) == (mebibytes * MIB, body.hash.hexdigest())
    return (max(sending) - before) // MIB, (max(fetching) - before) // MIB


def test_a_file_of_64_mib_is_never_in_memory(server: Server) -> None:
    sending, fetching = growth(server, 64)

    assert max(sending, fetching) < 16


@pytest.mark.soak
def test_a_file_of_1_gib_makes_memory_grow_by_less_than_64_mib(server: Server) -> None:
    sending, fetching = growth(server, 1024)

    print(f"memory grew by {sending} MiB while sending 1 GiB and by {fetching} MiB while fetching it")  # noqa: T201
    assert max(sending, fetching) < 64


@pytest.mark.soak
def test_a_file_of_more_than_2_gib_is_refused_at_once(server: Server) -> None:
    person = people.new_owner(tier="professional")
    started = time.monotonic()

    answer = send(server, person, LargeBody(2049))

    assert answer.status_code == 413
    assert time.monotonic() - started < 10


def raw(server: Server, person: Person, body: bytes, *headers: str) -> bytes:
    """Send a request as it is, say that no more comes, and return the answer."""
    lines = [f"POST {URL} HTTP/1.1", "Host: localhost", f"Content-Type: {MULTIPART}", *headers]
    lines += [f"{name}: {value}" for name, value in credentials(person).items()]
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        connection.shutdown(socket.SHUT_WR)
        return connection.recv(65536)


def test_a_body_that_breaks_off_leaves_nothing(server: Server, alice: Person) -> None:
    before = everything(alice.tenant_id)
    whole = part('name="file"; filename="a"', b"x" * 100_000) + END

    for sent in (whole[:50_000], whole[:-6], whole[:200], b""):
        answer = raw(server, alice, sent, f"Content-Length: {len(whole)}")
        assert b" 400 " in answer.splitlines()[0] if answer else True
    deadline = time.monotonic() + 5
    while everything(alice.tenant_id) != before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert everything(alice.tenant_id) == before


def test_a_length_that_is_too_small_does_not_make_another_file(server: Server, alice: Person) -> None:
    before = everything(alice.tenant_id)
    whole = part('name="file"; filename="a"', b"x" * 1000) + END

    answer = raw(server, alice, whole, f"Content-Length: {len(whole) - 100}")

    assert b" 400 " in answer.splitlines()[0]
    assert everything(alice.tenant_id) == before


def test_a_file_in_chunks_must_say_its_length(server: Server, alice: Person) -> None:
    body = part('name="file"; filename="a"', b"x") + END

    answer = requests.post(
        server.url + URL, data=iter([body]), headers={**credentials(alice), "Content-Type": MULTIPART}, timeout=20
    )

    assert (answer.status_code, answer.json()["code"]) == (411, "length_required")


def test_a_file_that_does_not_fit_is_refused_with_an_answer_that_arrives(server: Server, database: None) -> None:
    tight = people.new_owner(storage_limit=MIB)

    answer = send(server, tight, LargeBody(32))

    assert (answer.status_code, answer.json()["code"]) == (403, "storage_quota_exceeded")


def test_head_and_ranges_pass_the_server(server: Server, alice: Person) -> None:
    media = send(server, alice, part('name="file"; filename="a"', b"0123456789") + END).json()
    address = f"{server.url}{media['url']}"

    head = requests.head(address, timeout=20)
    middle = requests.get(address, headers={"Range": "bytes=3-5"}, timeout=20)
    known = requests.get(address, headers={"If-None-Match": head.headers["ETag"]}, timeout=20)

    assert (head.status_code, head.headers["Content-Length"], head.content) == (200, "10", b"")
    assert (middle.status_code, middle.headers["Content-Range"], middle.content) == (206, "bytes 3-5/10", b"345")
    assert (known.status_code, known.content) == (304, b"")


def test_a_download_that_is_broken_off_frees_its_file(server: Server, database: None) -> None:
    person = people.new_owner(tier="professional")
    media = send(server, person, LargeBody(64)).json()
    processes = psutil.Process(server.process.pid).children(recursive=True)

    def open_files() -> int:
        return sum("media" in one.path for process in processes for one in process.open_files())

    for _ in range(3):
        with requests.get(server.url + media["url"], stream=True, timeout=20) as answer:
            next(answer.iter_content(1000))
    deadline = time.monotonic() + 10
    while open_files() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert open_files() == 0
