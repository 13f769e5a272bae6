"""Fetching old files: from public https addresses only, the ones that were checked, within bounds of size and time."""

import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from content.legacy import files
from content.legacy.files import AddressRefused, Fetcher, NotFetched, address_is_refused
from content.media.storages import MediaUnavailable
from content.media.uploads import Received
from engarde.common import addresses, calls
from tests.receivers import Authority, Receiver, known_names, raw_server, receiving, trickle

PUBLIC = "93.184.215.14"
MOST = 100_000
HEAD = b"HTTP/1.1 200 OK\r\n"
INSIDE = [
    *(
        "https://127.0.0.1/a.jpg",
        "https://127.1/a.jpg",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://0177.0.0.1/",
    ),
    *("https://10.0.0.8/a.jpg", "https://192.168.1.1:8443/", "https://169.254.169.254/latest/meta-data"),
    *("https://[::1]/a.jpg", "https://[::ffff:10.0.0.1]/", "https://[fe80::1]/", "https://224.0.0.1/", "https://0/"),
    *("https://localhost/a.jpg", "https://LOCALHOST./", "https://files.localhost/", "http://127.0.0.1/a.jpg"),
    *(
        "https://user:password@10.0.0.8/",
        "https://[::]/",
        "https://\uff11\uff12\uff17.0.0.1/",
        "https://%31%32%37.0.0.1/",
    ),
]
NOT_INSIDE = [
    *("https://files.legacy.example/a.jpg", "https://1.1.1.1/a.jpg", "http://files.legacy.example/", "not a URL", ""),
    *("https:///a.jpg", "https://[broken/", "https://localhost.example/", "https://10.example/"),
]


@pytest.fixture(autouse=True)
def incoming(tmp_path: Path, settings: Any) -> Path:
    """Where files come in."""
    settings.MEDIA_INCOMING_DIR = str(tmp_path / "incoming")
    return tmp_path / "incoming"


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    return known_names(monkeypatch)


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: dict[str, list[Any]]) -> Authority:
    """A certificate authority that is trusted; files.example is at 127.0.0.1, which counts as public here."""
    made = Authority(tmp_path)
    trusted = calls.trusted(made.file)
    monkeypatch.setattr(calls, "trusted", lambda _ca_file: trusted)
    monkeypatch.setattr(addresses, "is_public", lambda address: address == "127.0.0.1")
    names["files.example"] = ["127.0.0.1"]
    return made


Serve = Callable[..., Receiver]


@pytest.fixture
def serve(authority: Authority, names: dict[str, list[Any]]) -> Iterator[Serve]:
    """Starts an HTTPS server under a name and returns it, with its `url` by that name."""
    running = []

    def start(name: str = "files.example", **how: Any) -> Receiver:
        names[name] = ["127.0.0.1"]
        server = receiving(tls=authority.server(name), **how)
        running.append(server)
        receiver = server.__enter__()
        receiver.url = f"https://{name}:{receiver.port}"
        return receiver

    yield start
    for server in running:
        server.__exit__(None, None, None)


def fetch(url: str, most_bytes: int = MOST) -> Received:
    return Fetcher(most_bytes=most_bytes).fetch(url)


def not_fetched(url: str, most_bytes: int = MOST, fetcher: Fetcher | None = None) -> str:
    with pytest.raises(NotFetched) as raised:
        (fetcher or Fetcher(most_bytes=most_bytes)).fetch(url)
    return str(raised.value)


def answer(connection: socket.socket, what: bytes) -> None:
    """Send an answer once the request was read: what is left unread would break the connection."""
    got = b""
    while b"\r\n\r\n" not in got:
        got += connection.recv(65536)
    connection.sendall(what)


def is_empty(folder: Path) -> bool:
    return not folder.exists() or not list(folder.iterdir())


# What comes


def test_a_file_comes_whole_with_its_name_size_and_hash(serve: Serve, incoming: Path) -> None:
    body = bytes(range(256)) * 300
    server = serve(body=body)

    received = fetch(f"{server.url}/old/the%20picture.jpg?size=large#top")

    assert received.path.read_bytes() == body
    assert received.path.parent == incoming
    assert (received.file_name, received.size_bytes, received.content_id) == ("the picture.jpg", len(body), None)
    assert received.sha256 == hashlib.sha256(body).digest()
    assert [one.path for one in server.got] == ["/old/the%20picture.jpg?size=large"]
    assert server.got[0].headers["host"] == server.url.removeprefix("https://")
    received.discard()
    assert is_empty(incoming)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/", "file"),
        ("", "file"),
        ("/a/..", "file"),
        ("/a%2F..%2Fb.png", "b.png"),
        ("/a%5Cb.png", "b.png"),
        ("/b%C3%BCcher.png", "bücher.png"),
        ("/a%00%0D%0Ab.png", "ab.png"),
        (f"/{'x' * 300}.png", f"{'x' * 251}.png"),
    ],
)
def test_the_name_comes_from_the_path_and_is_cleaned(serve: Serve, path: str, name: str) -> None:
    assert fetch(serve(body=b"x").url + path).file_name == name


def test_an_answer_in_chunks_comes_whole(authority: Authority) -> None:
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nHello\r\n1\r\n!\r\n0\r\n\r\n"
    with raw_server(lambda one: answer(one, chunked), tls=authority.server("files.example")) as url:
        assert fetch(url.replace("127.0.0.1", "files.example")).path.read_bytes() == b"Hello!"


def test_as_many_bytes_as_it_may_have_are_taken_and_one_more_is_not(serve: Serve, incoming: Path) -> None:
    url = serve(body=b"x" * 1000).url

    assert fetch(url, 1000).size_bytes == 1000
    before = list(incoming.iterdir())
    assert "999 bytes" in not_fetched(url, 999)
    assert list(incoming.iterdir()) == before


def test_no_file_is_larger_than_media_may_be(serve: Serve, settings: Any) -> None:
    settings.MEDIA_MAX_BYTES = 500

    assert "500 bytes" in not_fetched(serve(body=b"x" * 501).url, 10_000)


def test_a_body_without_a_length_is_cut_off_when_it_is_too_long(authority: Authority, incoming: Path) -> None:
    sent = 0

    def flood(connection: socket.socket) -> None:
        nonlocal sent
        connection.sendall(HEAD + b"Connection: close\r\n\r\n")
        while True:
            connection.sendall(b"x" * 10_000)
            sent += 10_000

    with raw_server(flood, tls=authority.server("files.example")) as url:
        assert "100000 bytes" in not_fetched(url.replace("127.0.0.1", "files.example"))
    assert is_empty(incoming)
    assert sent < 50_000_000


@pytest.mark.parametrize("status", [201, 204, 206, 304, 401, 404, 410, 500, 503])
def test_any_status_but_200_is_none(serve: Serve, incoming: Path, status: int) -> None:
    body = b"" if status in {204, 304} else b"an error page"

    assert not_fetched(serve(statuses=[status], body=body).url) == f"It answered {status}."
    assert is_empty(incoming)


def test_a_packed_body_is_not_unpacked(serve: Serve) -> None:
    server = serve(headers={"Content-Encoding": "gzip"}, body=b"\x1f\x8b")

    assert "packed" in not_fetched(server.url)
    assert server.got[0].headers["accept-encoding"] == "identity"


def test_a_disk_that_does_not_take_it_is_not_the_files_fault(serve: Serve, incoming: Path) -> None:
    fetcher = Fetcher(most_bytes=MOST)
    incoming.write_bytes(b"a file where a folder should be")

    with pytest.raises(MediaUnavailable):
        fetcher.fetch(serve(body=b"x").url)


# What breaks off, or takes too long

BROKEN = {
    "a body that breaks off": HEAD + b"Content-Length: 50\r\n\r\nonly this",
    "chunks that break off": HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nHello\r\n",
    "a hang-up": b"",
    "something that is no HTTP": b"\x16\x03\x01 not HTTP \x00\xff\r\n\r\n",
    "a length that is none": HEAD + b"Content-Length: x\r\n\r\n",
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_breaks_off_is_not_kept(authority: Authority, incoming: Path, what: str) -> None:
    with raw_server(lambda one: answer(one, BROKEN[what]), tls=authority.server("files.example")) as url:
        assert not_fetched(url.replace("127.0.0.1", "files.example"))
    assert is_empty(incoming)


@pytest.mark.parametrize(
    "beginning", [b"", b"HTTP/1.1 200 O", HEAD + b"X-Long: ", HEAD + b"Content-Length: 9999\r\n\r\n"]
)
def test_one_deadline_holds_for_all_of_it(
    authority: Authority, settings: Any, incoming: Path, beginning: bytes
) -> None:
    settings.LEGACY_FETCH_SECONDS = 0.5
    with raw_server(lambda one: trickle(one, beginning), tls=authority.server("files.example")) as url:
        began = time.monotonic()
        not_fetched(url.replace("127.0.0.1", "files.example"))
    assert time.monotonic() - began < 1.5
    assert is_empty(incoming)


def wait_for(event: threading.Event) -> None:
    event.wait(10)


def test_a_host_that_never_answers_costs_one_deadline(authority: Authority, settings: Any) -> None:
    settings.LEGACY_FETCH_SECONDS = 0.3
    over = threading.Event()
    with raw_server(lambda _one: wait_for(over), tls=authority.server("files.example")) as url:
        fetcher, began = Fetcher(most_bytes=MOST), time.monotonic()
        for number in range(50):
            not_fetched(f"{url.replace('127.0.0.1', 'files.example')}/{number}", fetcher=fetcher)
        over.set()
    assert time.monotonic() - began < 2


# Hosts that are away


def test_a_name_that_leads_nowhere_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def unknown(host: str, *_: Any, **__: Any) -> Any:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    fetcher = Fetcher(most_bytes=MOST)

    reasons = {not_fetched(f"https://files.legacy.example/{number}.jpg", fetcher=fetcher) for number in range(100)}

    assert reasons == {"Its name cannot be resolved."}
    assert asked == ["files.legacy.example"]
    not_fetched("https://other.legacy.example/a.jpg", fetcher=fetcher)
    assert len(asked) == 2


def test_a_host_that_cannot_be_reached_is_tried_again_after_a_while(
    serve: Serve, names: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(body=b"x")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, and nobody listens
        dead = f"https://files.example:{unused.getsockname()[1]}/"
        fetcher = Fetcher(most_bytes=MOST)
        assert "connection failed" in not_fetched(dead, fetcher=fetcher)
        assert fetcher.fetch(server.url).size_bytes == 1, "another port is another server"
        names["files.example"] = [PUBLIC]
        assert "connection failed" in not_fetched(dead, fetcher=fetcher), "as remembered"

        monkeypatch.setattr(time, "monotonic", lambda real=time.monotonic: real() + files.AWAY_SECONDS)
        with pytest.raises(AddressRefused):
            fetcher.fetch(dead)


def test_a_file_that_is_not_there_says_nothing_about_its_host(serve: Serve) -> None:
    server = serve(statuses=[404, 200], body=b"x")
    fetcher = Fetcher(most_bytes=MOST)

    not_fetched(server.url, fetcher=fetcher)

    assert fetcher.fetch(server.url).size_bytes == 1


# Where nothing is fetched from


@pytest.mark.parametrize("url", INSIDE)
def test_no_spelling_of_an_address_inside_gets_through(url: str) -> None:
    assert address_is_refused(url)
    with pytest.raises(AddressRefused):
        fetch(url)


@pytest.mark.parametrize("url", NOT_INSIDE)
def test_others_are_not_refused_as_such(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_kwargs: pytest.fail("DNS was asked"))

    assert not address_is_refused(url)


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.8", "169.254.169.254", "::1", "fd00::1", "224.0.0.1"])
def test_a_name_that_leads_inside_is_refused(names: dict[str, list[Any]], address: str) -> None:
    names["inside.example"] = [[PUBLIC, address]]

    with pytest.raises(AddressRefused, match="not public"):
        fetch("https://inside.example/a.jpg")


def test_settings_for_webhooks_change_nothing(names: dict[str, list[Any]], settings: Any) -> None:
    settings.WEBHOOK_ALLOW_HTTP = settings.WEBHOOK_ALLOW_PRIVATE = True
    names["inside.example"] = ["127.0.0.1"]
    with receiving() as inside:
        for url in (f"https://inside.example:{inside.port}/", f"https://127.0.0.1:{inside.port}/", inside.url):
            with pytest.raises(AddressRefused):
                fetch(url)
        assert "https" in not_fetched(f"http://inside.example:{inside.port}/")
        assert inside.got == []


@pytest.mark.parametrize("port", [0, 22, 25, 1023])
def test_ports_that_are_not_the_webs_are_not_called(names: dict[str, list[Any]], port: int) -> None:
    names["files.example"] = [PUBLIC]

    with pytest.raises(NotFetched, match="ports"):
        fetch(f"https://files.example:{port}/a.jpg")


@pytest.mark.parametrize(
    "url",
    [
        *("http://files.example/a.jpg", "ftp://files.example/a", "file:///etc/passwd", "the picture from Tuesday", ""),
        *("https://", "https:///a", "//files.example/a", "https://user:password@files.example/", "https://[broken/"),
        *("https://a b.example/", "https://files.example/\r\nHost: other", "https://..example/", "https://\udcff/"),
    ],
)
def test_what_is_no_https_address_is_not_fetched(names: dict[str, list[Any]], url: str) -> None:
    assert not_fetched(url)


def test_what_is_called_is_what_was_checked(serve: Serve, names: dict[str, list[Any]]) -> None:
    server = serve(body=b"x")
    names["files.example"] = ["127.0.0.1", "10.0.0.8"]

    assert fetch(server.url).size_bytes == 1
    assert names["files.example"] == ["10.0.0.8"], "asked once"


def test_the_certificate_is_checked_against_the_name(serve: Serve, names: dict[str, list[Any]]) -> None:
    server = serve()
    names["other.example"] = ["127.0.0.1"]

    assert "certificate" in not_fetched(f"https://other.example:{server.port}/")
    assert server.got == []


def test_proxies_of_the_environment_are_ignored(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(body=b"x")
    with receiving() as proxy:
        for name in ("https_proxy", "HTTPS_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        assert fetch(server.url).size_bytes == 1
        assert proxy.got == []


# Redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_followed(serve: Serve, status: int) -> None:
    target = serve("elsewhere.example", body=b"here it is")
    first = serve(statuses=[status], headers={"Location": f"{target.url}/new-name.png"})

    received = fetch(f"{first.url}/old-name.png")

    assert received.path.read_bytes() == b"here it is"
    assert received.file_name == "old-name.png"


def test_a_redirect_may_be_relative(serve: Serve) -> None:
    server = serve(statuses=[302, 200], headers={"Location": "../b.png"}, body=b"x")

    assert fetch(f"{server.url}/old/files/a.png").size_bytes == 1
    assert [one.path for one in server.got] == ["/old/files/a.png", "/old/b.png"]


def test_three_redirects_are_followed_and_four_are_not(serve: Serve) -> None:
    server = serve(statuses=[302, 302, 302, 200, 302], headers={"Location": "/on"}, body=b"x")

    assert fetch(server.url).size_bytes == 1
    assert "redirected more than 3" in not_fetched(server.url)
    assert len(server.got) == 8


@pytest.mark.parametrize(
    "location",
    [
        *("https://10.0.0.8/a.jpg", "https://169.254.169.254/latest/meta-data", "https://[::1]/", "https://localhost/"),
        *("http://10.0.0.8/", "//10.0.0.8/", "https://inside.example/"),
    ],
)
def test_a_redirect_inside_is_refused(serve: Serve, names: dict[str, list[Any]], location: str) -> None:
    names["inside.example"] = ["10.0.0.8"]
    server = serve(statuses=[302], headers={"Location": location})

    with pytest.raises(AddressRefused):
        fetch(server.url)
    assert len(server.got) == 1


@pytest.mark.parametrize("location", ["http://files.example/", "ftp://files.example/", "https://[broken/", "data:,x"])
def test_a_redirect_to_what_is_no_https_address_is_not_followed(serve: Serve, location: str) -> None:
    server = serve(statuses=[302], headers={"Location": location})

    assert not_fetched(server.url)
    assert len(server.got) == 1
