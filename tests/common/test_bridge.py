"""HTTP through the real server: what clients send and how they leave must neither be lost nor hold a thread."""

import json
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import requests

from tests.generation.sockets import Server, headers_of, serving
from tests.people import Person
from tests.stored import stored_by

THREADS = 4
SOON = 5.0
MANY = 3 * THREADS
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: a close throws away what was not sent, and says so


@pytest.fixture(scope="module")
def server(django_db_setup: None) -> Iterator[Server]:
    with serving(WEB_THREADS=str(THREADS), GENERATE_CONCURRENCY="2") as running:
        yield running


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=10)


def head(person: Person, line: bytes, *headers: str) -> bytes:
    """Return a request's head with a person's credentials."""
    known = [f"{name}: {value}" for name, value in headers_of(person).items()]
    return b"\r\n".join(
        [line + b" HTTP/1.1", *(one.encode() for one in ("Host: localhost", *known, *headers)), b"", b""]
    )


def raw(server: Server, request: bytes) -> tuple[int, bytes]:
    """Send a request as it is and return the status and the body of the answer."""
    with connect(server) as connection:
        connection.sendall(request)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    first, _, rest = answer.partition(b"\r\n")
    return int(first.split()[1]), rest.partition(b"\r\n\r\n")[2]


def get(server: Server, person: Person, path: str, method: str = "GET", **more: Any) -> requests.Response:
    return requests.request(method, server.url + path, headers=headers_of(person), timeout=SOON, **more)


def all_threads_are_free(server: Server, person: Person) -> bool:
    """Tell whether as many requests as there are threads are answered soon, side by side."""
    request = head(person, b"GET /api/content", "Connection: close")
    begun = time.monotonic()
    connections = [connect(server) for _ in range(MANY)]
    for connection in connections:
        connection.sendall(request)
    answers = [connection.recv(65536) for connection in connections]
    for connection in connections:
        connection.close()
    return all(b" 200 " in answer for answer in answers) and time.monotonic() - begun < SOON


# What is sent


@pytest.mark.parametrize("query", [b"search=caf\xc3\xa9", b"search=caf%C3%A9", b"search=caf%c3%a9&tags=\xc3\xa9%C3%A9"])
def test_letters_beyond_ascii_in_a_query_arrive(server: Server, alice: Person, query: bytes) -> None:
    found = alice.writes(title="A café", tags=["éé"])["id"]
    alice.writes(title="A bar")

    status, body = raw(server, head(alice, b"GET /api/content?" + query, "Connection: close"))

    assert status == 200
    assert found.encode() in body
    assert body.count(b"preview") == 1


@pytest.mark.parametrize("query", [b"search=\xff\xfe", b"tags=\xe9", b"\xff=\xff", b"search=%ff"])
def test_bytes_that_are_no_letters_break_nothing(server: Server, alice: Person, query: bytes) -> None:
    status, body = raw(server, head(alice, b"GET /api/content?" + query, "Connection: close"))

    assert status in {200, 400}
    assert not body or b'"request_id"' in body or b'"data"' in body
    assert get(server, alice, "/api/content").status_code == 200


def test_a_body_in_chunks_arrives_whole(server: Server, alice: Person) -> None:
    body = "é" * 100_000
    sent = json.dumps({"title": "In chunks", "type": "post", "body": body}).encode()
    pieces = (sent[start : start + 7001] for start in range(0, len(sent), 7001))

    answer = get(server, alice, "/api/content", "POST", data=pieces, json=None)
    assert answer.status_code == 415

    headers = {**headers_of(alice), "Content-Type": "application/json"}
    pieces = (sent[start : start + 7001] for start in range(0, len(sent), 7001))
    answer = requests.post(f"{server.url}/api/content", data=pieces, headers=headers, timeout=SOON)
    assert (answer.status_code, answer.json()["body"]) == (201, body)


def test_a_body_in_chunks_that_is_too_large_is_refused(server: Server, alice: Person) -> None:
    headers = {**headers_of(alice), "Content-Type": "application/json"}

    answer = requests.post(
        f"{server.url}/api/content", data=(b" " * 1_000_000 for _ in range(9)), headers=headers, timeout=SOON
    )

    assert answer.status_code == 413
    assert answer.headers["Content-Type"] == "application/problem+json"


def breaking(person: Person) -> Sequence[bytes]:
    """Return requests that end before their body does."""
    body = json.dumps({"title": "Broken off", "type": "post", "body": "x" * 200_000}).encode()
    line, kind = b"POST /api/content", "Content-Type: application/json"
    counted = head(person, line, kind, f"Content-Length: {len(body)}")
    chunked = head(person, line, kind, "Transfer-Encoding: chunked")
    return (
        counted + body[: len(body) // 2],
        counted + body[:-1],
        counted,
        chunked + f"{len(body):x}\r\n".encode() + body[:-1],
        chunked + f"{len(body):x}\r\n".encode() + body + b"\r\n",
        head(
            person, b"POST /api/content/media", "Content-Type: multipart/form-data; boundary=x", "Content-Length: 90000"
        )
        + b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\nabc',
    )


def test_uploads_that_break_off_store_nothing_and_hold_no_thread(server: Server, alice: Person) -> None:
    before = stored_by(alice.tenant_id)

    for _ in range(THREADS):
        for sent in breaking(alice):
            with connect(server) as connection:
                connection.sendall(sent)
                time.sleep(0.02)

    assert all_threads_are_free(server, alice)
    assert stored_by(alice.tenant_id) == before


def test_uploads_that_are_reset_hold_no_thread(server: Server, alice: Person) -> None:
    before = stored_by(alice.tenant_id)

    for _ in range(THREADS):
        for sent in breaking(alice):
            connection = connect(server)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            connection.sendall(sent)
            time.sleep(0.02)
            connection.close()

    assert all_threads_are_free(server, alice)
    assert stored_by(alice.tenant_id) == before


# What is answered


@pytest.fixture
def large(alice: Person) -> Person:
    """Somebody whose export is larger than what lies in sockets on the way."""
    for number in range(24):
        alice.writes(title=f"Large {number}", body=f"{number:>8}" * 110_000)
    return alice


def test_a_large_answer_streams_and_arrives_whole(server: Server, large: Person) -> None:
    with get(server, large, "/api/content/export", stream=True) as answer:
        assert answer.headers["Transfer-Encoding"] == "chunked"
        assert "Content-Length" not in answer.headers
        rows = [json.loads(line) for line in answer.iter_lines(1_000_000)]

    assert [row["title"] for row in rows] == [f"Large {number}" for number in range(24)]
    assert all(row["storage"]["size_bytes"] == len(row["body"]) for row in rows)


def test_downloads_that_break_off_hold_no_thread(server: Server, large: Person) -> None:
    for reset in (False, True):
        for _ in range(MANY // THREADS):
            connections = [connect(server) for _ in range(THREADS)]
            for connection in connections:
                if reset:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                connection.sendall(head(large, b"GET /api/content/export"))
            for connection in connections:
                assert connection.recv(1000).startswith(b"HTTP/1.1 200")
                connection.close()
        assert all_threads_are_free(server, large)


def test_head_has_the_headers_of_get_and_no_body(server: Server, alice: Person) -> None:
    path = f"/api/content/{alice.writes()['id']}"

    full, bare = get(server, alice, path), get(server, alice, path, "HEAD")

    assert (full.status_code, bare.status_code, bare.content) == (200, 200, b"")
    for name in ("Content-Type", "Content-Length", "ETag", "X-Quota-Used"):
        assert bare.headers[name] == full.headers[name]


def test_a_head_leaves_the_connection_usable(server: Server, alice: Person) -> None:
    with requests.Session() as session:
        session.headers.update(headers_of(alice))
        for _ in range(3):
            assert session.head(f"{server.url}/api/content", timeout=SOON).status_code == 200
            assert session.get(f"{server.url}/api/content", timeout=SOON).json()["data"] == []


@pytest.mark.parametrize(
    "path", ["/api/nothing", "/api/content/nothing", "/nothing", "/api/content%00", "/%ff", "/ws/x"]
)
def test_an_address_of_nothing_is_a_problem(server: Server, alice: Person, path: str) -> None:
    answer = get(server, alice, path)

    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert (answer.json()["status"], answer.json()["code"]) == (404, "not_found")
    assert answer.json()["request_id"] == answer.headers["X-Request-ID"]


@pytest.mark.parametrize(
    ("method", "path"), [("PUT", "/api/content"), ("PATCH", "/api/content"), ("GET", "/api/content/bulk")]
)
def test_a_wrong_method_names_the_right_ones(server: Server, alice: Person, method: str, path: str) -> None:
    answer = get(server, alice, path, method)

    assert answer.status_code == 405
    assert "POST" in answer.headers["Allow"]
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert (answer.json()["status"], answer.json()["code"]) == (405, "method_not_allowed")


def test_an_answer_without_a_body_has_none(server: Server, alice: Person) -> None:
    key = alice.api.post("/api/api-keys", {"name": "short", "scopes": ["content:read"]}).json()

    answer = get(server, alice, f"/api/api-keys/{key['id']}", "DELETE")

    assert (answer.status_code, answer.content) == (204, b"")
