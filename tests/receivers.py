"""Servers that the platform calls: real HTTP and HTTPS servers on loopback that answer as a test tells them to."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import orjson
import pytest
import trustme


@dataclass(frozen=True)
class Received:
    """A request that a receiver got."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        """The message's id."""
        return self.headers["webhook-id"]

    @property
    def json(self) -> Any:
        """What it says."""
        return orjson.loads(self.body)


@dataclass
class Receiver:
    """What a receiver got, and how it answers: with the next of `statuses`, the last one for ever."""

    url: str = ""
    statuses: list[int] = field(default_factory=lambda: [200])
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    delay: float = 0
    got: list[Received] = field(default_factory=list)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.url.rsplit(":", 1)[1])

    def next_status(self) -> int:
        """Return the status of the next answer."""
        return self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]


class _Handler(BaseHTTPRequestHandler):
    receiver: ClassVar[Receiver]
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        receiver = self.receiver
        receiver.got.append(Received(self.path, headers, body))
        time.sleep(receiver.delay)
        try:
            self.send_response(receiver.next_status())
            for name, value in receiver.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(receiver.body)))
            self.end_headers()
            self.wfile.write(receiver.body)
        except OSError:
            self.close_connection = True  # the sender has had enough

    def do_GET(self) -> None:
        self.do_POST()

    def log_message(self, *_: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        pass  # a sender that hangs up


@contextmanager
def receiving(*, tls: "ssl.SSLContext | None" = None, host: str = "127.0.0.1", **how: Any) -> Iterator[Receiver]:
    """Run a receiver."""
    receiver = Receiver(**how)
    handler = type("Handler", (_Handler,), {"receiver": receiver})
    with _Server((host, 0), handler) as server:
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        receiver.url = f"{'https' if tls else 'http'}://{host}:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield receiver
        finally:
            server.shutdown()


class Authority:
    """A certificate authority of the test's own."""

    def __init__(self, folder: Any) -> None:
        self._ca = trustme.CA()
        self.file = str(folder / "ca.pem")
        self._ca.cert_pem.write_to_path(self.file)

    def server(self, *names: str) -> ssl.SSLContext:
        """Return what a server with a certificate for these names needs."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert(*names).configure_cert(context)
        return context


def known_names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """Return what names lead to, to be filled by the test.

    A list's first is taken away at each look-up while there are more; other names under .example lead nowhere, and all
    others where they really do.
    """
    known: dict[str, list[Any]] = {}
    real = socket.getaddrinfo

    def stub(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else str(host)
        if name not in known:
            if name.endswith(".example"):
                raise socket.gaierror(socket.EAI_NONAME, "unknown")
            return real(host, port, *args, **kwargs)
        found = known[name].pop(0) if len(known[name]) > 1 else known[name][0]
        found = [found] if isinstance(found, str) else found
        return [
            (socket.AF_INET6 if ":" in one else socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in found
        ]

    monkeypatch.setattr(socket, "getaddrinfo", stub)
    return known


@contextmanager
def raw_server(answer: Callable[[socket.socket], None], *, tls: "ssl.SSLContext | None" = None) -> Iterator[str]:
    """Serve every connection with a function of the test's."""

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=handle, args=[connection], daemon=True).start()

    def handle(connection: socket.socket) -> None:
        try:
            with tls.wrap_socket(connection, server_side=True) if tls else connection as secured:
                answer(secured)
        except OSError:
            return  # the sender has hung up

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, daemon=True).start()
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.getsockname()[1]}/hook"


def trickle(connection: socket.socket, beginning: bytes) -> None:
    """Send something, and then one byte after the other."""
    connection.sendall(beginning)
    while True:
        connection.sendall(b"x")
        time.sleep(0.05)
