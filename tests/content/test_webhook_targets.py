"""Where webhooks may lead: public addresses only, the one that was checked, within one time-out whatever is answered."""

import socket
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from engarde.common import addresses
from tests.content.webhooks import deliveries, forget_all, make_due, send, subscribe
from tests.people import Person
from tests.receivers import Authority, known_names, raw_server, receiving, trickle

PUBLIC = "93.184.215.14"


@pytest.fixture(autouse=True)
def nothing_left(database: None) -> Iterator[None]:
    """Each test begins and ends with nothing to send."""
    forget_all()
    yield
    forget_all()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    return known_names(monkeypatch)


def refusal(person: Person, url: str) -> str:
    """Return why a URL is refused."""
    answer = person.api.post("/api/webhooks", {"url": url})
    assert (answer.status_code, answer.json()["code"]) == (400, "validation_error"), answer.content
    [error] = answer.json()["errors"]
    assert (error["field"], error["code"]) == ("url", "address_refused")
    return str(error["message"])


NOT_PUBLIC = [
    *("127.0.0.1", "127.255.255.254", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
    *("169.254.169.254", "100.64.0.1", "100.127.255.255", "192.0.0.192", "192.0.2.1", "198.18.0.1", "198.51.100.1"),
    *("203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "192.88.99.1", "168.63.129.16"),
    *("::", "::1", "fe80::1", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1", "3fff::1", "100::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "::a00:1"),
    *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::", "2002:a00:1::1", "2001::1", "5f00::1"),
]


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    assert not addresses.is_public(address)


@pytest.mark.parametrize(
    "address",
    [PUBLIC, "1.1.1.1", "100.63.255.255", "100.128.0.1", "2606:4700::1111", "64:ff9b::101:101", "2002:101:101::"],
)
def test_a_public_address_is_not_refused(address: str) -> None:
    assert addresses.is_public(address)


@pytest.mark.parametrize("address", NOT_PUBLIC[::4])
def test_a_name_that_leads_to_one_is_refused(alice: Person, names: dict[str, list[Any]], address: str) -> None:
    names["target.example"] = [[PUBLIC, address]]

    assert refusal(alice, "https://target.example/hook") == "It leads to an address that is not public."


@pytest.mark.parametrize(
    "url",
    [
        *("https://127.0.0.1/", "https://127.1/", "https://2130706433/", "https://0x7f.1/", "https://0177.0.0.1/"),
        *("https://localhost/", "https://localhost./", "https://[::1]/", "https://[::ffff:127.0.0.1]/"),
        *("https://[fe80::1%25lo]/", "https://[fe80::1%lo]/", "https://0/", "https://[::]/"),
    ],
)
def test_no_spelling_of_loopback_gets_through(alice: Person, url: str) -> None:
    refusal(alice, url)


@pytest.mark.parametrize(
    "url",
    [
        *("http://target.example/", "ftp://target.example/", "//target.example/", "target.example", "https://"),
        *("https://user@target.example/", "https://user:password@target.example/", "https://target.example/#there"),
        *("https://target.example:22/", "https://target.example:25/", "https://target.example:0/"),
        *("https://target.example:65536/", "https://target.example:x/", "https:///path", "javascript:alert(1)"),
        *("https://target.example\\@127.0.0.1/", "https://target.example/\r\nHost: other", "file:///etc/passwd"),
    ],
)
def test_a_url_of_another_form_is_refused(alice: Person, names: dict[str, list[Any]], url: str) -> None:
    names["target.example"] = [PUBLIC]

    refusal(alice, url)


def test_a_public_name_is_taken_and_one_that_leads_nowhere_is_not(alice: Person, names: dict[str, list[Any]]) -> None:
    names["target.example"] = [PUBLIC]
    for port in ("", ":443", ":8443", ":80", ":1024", ":65535"):
        subscribe(alice, f"https://target.example{port}/hook")

    assert refusal(alice, "https://nowhere.example/") == "Its name cannot be resolved."


def test_a_change_of_the_url_is_checked_too(alice: Person, names: dict[str, list[Any]]) -> None:
    names["target.example"] = [PUBLIC]
    made = subscribe(alice, "https://target.example/hook")

    answer = alice.api.patch(f"/api/webhooks/{made['id']}", {"url": "https://127.0.0.1/"})

    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (400, "address_refused")


def test_a_name_that_leads_elsewhere_later_is_refused_when_it_is_called(
    alice: Person, names: dict[str, list[Any]], settings: Any
) -> None:
    settings.WEBHOOK_ALLOW_HTTP = True
    with receiving() as inside:
        names["target.example"] = [PUBLIC, "127.0.0.1"]
        made = subscribe(alice, f"http://target.example:{inside.port}/hook")
        alice.writes()

        send()

        assert inside.got == []
        [delivery] = deliveries(alice, made)
        assert delivery["status"] == "pending"
        assert delivery["last_error"] == "It leads to an address that is not public."


def test_what_is_called_is_what_was_checked(
    alice: Person, names: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    """The name leads to a good address when it is checked and would lead inside a moment later; it is not asked again."""
    settings.WEBHOOK_ALLOW_HTTP = True
    monkeypatch.setattr(addresses, "is_public", lambda address: address == "127.0.0.2")
    with receiving(host="127.0.0.2") as checked, receiving() as inside:
        names["target.example"] = ["127.0.0.2", "127.0.0.2", "127.0.0.1"]
        subscribe(alice, f"http://target.example:{checked.port}/hook")
        alice.writes()

        send()

        assert len(checked.got) == 1
        assert inside.got == []
        assert checked.got[0].headers["host"] == f"target.example:{checked.port}"
        assert names["target.example"] == ["127.0.0.1"], "asked once for the check and once for the call"


def test_a_redirect_is_a_failure_and_not_followed(alice: Person, settings: Any) -> None:
    settings.WEBHOOK_ALLOW_HTTP = settings.WEBHOOK_ALLOW_PRIVATE = True
    with receiving() as inside, receiving(statuses=[302], headers={"Location": f"{inside.url}/secret"}) as target:
        made = subscribe(alice, target.url)
        alice.writes()

        send()

        assert (len(target.got), len(inside.got)) == (1, 0)
        assert deliveries(alice, made)[0]["response_status"] == 302


def test_proxies_of_the_environment_are_ignored(alice: Person, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.WEBHOOK_ALLOW_HTTP = settings.WEBHOOK_ALLOW_PRIVATE = True
    with receiving() as target, receiving() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        subscribe(alice, target.url)
        alice.writes()

        send()

        assert (len(target.got), len(proxy.got)) == (1, 0)


# TLS


@pytest.fixture
def authority(tmp_path: Any, settings: Any) -> Authority:
    """A certificate authority that the sender trusts."""
    settings.WEBHOOK_ALLOW_PRIVATE = True
    made = Authority(tmp_path)
    settings.WEBHOOK_CA_FILE = made.file
    return made


def test_the_certificate_is_checked_against_the_name_and_not_the_address(
    alice: Person, names: dict[str, list[Any]], authority: Authority
) -> None:
    names["right.example"] = names["wrong.example"] = ["127.0.0.1"]
    with receiving(tls=authority.server("right.example")) as target:
        right = subscribe(alice, f"https://right.example:{target.port}/hook")
        wrong = subscribe(alice, f"https://wrong.example:{target.port}/hook")
        alice.writes()

        send()

        assert [one.headers["host"] for one in target.got] == [f"right.example:{target.port}"]
        assert deliveries(alice, right)[0]["status"] == "delivered"
        assert "certificate" in deliveries(alice, wrong)[0]["last_error"]


def test_the_server_is_told_the_name(alice: Person, names: dict[str, list[Any]], authority: Authority) -> None:
    names["bücher.example"] = names["xn--bcher-kva.example"] = ["127.0.0.1"]
    asked: list[str | None] = []
    context = authority.server("xn--bcher-kva.example")
    context.sni_callback = lambda _socket, name, _context: asked.append(name)
    with receiving(tls=context) as target:
        made = subscribe(alice, f"https://bücher.example:{target.port}/hook")
        alice.writes()

        send()

        assert asked == ["xn--bcher-kva.example"]
        assert deliveries(alice, made)[0]["status"] == "delivered"


def test_a_certificate_of_an_unknown_authority_is_refused(
    alice: Person, names: dict[str, list[Any]], authority: Authority, settings: Any
) -> None:
    settings.WEBHOOK_CA_FILE = ""
    names["right.example"] = ["127.0.0.1"]
    with receiving(tls=authority.server("right.example")) as target:
        made = subscribe(alice, f"https://right.example:{target.port}/hook")
        alice.writes()

        send()

        assert target.got == []
        assert "certificate" in deliveries(alice, made)[0]["last_error"]


def test_the_next_address_is_tried_when_one_cannot_be_reached(
    alice: Person, names: dict[str, list[Any]], settings: Any
) -> None:
    settings.WEBHOOK_ALLOW_HTTP = settings.WEBHOOK_ALLOW_PRIVATE = True
    with receiving() as target:
        names["target.example"] = [["::1", "127.0.0.3", "127.0.0.1"]]
        subscribe(alice, f"http://target.example:{target.port}/hook")
        alice.writes()

        send()

        assert len(target.got) == 1


# Targets that behave badly


def flood(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")


BAD = {
    "nothing at all": lambda one: time.sleep(30),
    "a status line that never ends": lambda one: trickle(one, b"HTTP/1.1 200 O"),
    "headers that never end": lambda one: trickle(one, b"HTTP/1.1 200 OK\r\nX-Long: "),
    "a body that never ends": lambda one: trickle(one, b"HTTP/1.1 500 No\r\nContent-Length: 99999999\r\n\r\n"),
    "a body without end": flood,
    "something that is no HTTP": lambda one: one.sendall(b"\x16\x03\x01 not HTTP \x00\xff\r\n\r\n"),
    "a hang-up": lambda one: None,
}


@pytest.mark.parametrize("what", BAD)
def test_a_target_that_behaves_badly_costs_one_time_out_and_is_tried_again(
    alice: Person, settings: Any, what: str
) -> None:
    settings.WEBHOOK_ALLOW_HTTP = settings.WEBHOOK_ALLOW_PRIVATE = True
    settings.WEBHOOK_TIMEOUT_SECONDS = 1
    with raw_server(BAD[what]) as url:
        made = subscribe(alice, url)
        alice.writes()
        began = time.monotonic()

        send()

        assert time.monotonic() - began < 4
        [delivery] = deliveries(alice, made)
        assert delivery["status"] == "pending"
        assert 0 < len(delivery["last_error"]) <= 500


def test_a_success_counts_as_soon_as_its_status_is_there(alice: Person, settings: Any) -> None:
    settings.WEBHOOK_ALLOW_HTTP = settings.WEBHOOK_ALLOW_PRIVATE = True
    with raw_server(lambda one: trickle(one, b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n")) as url:
        made = subscribe(alice, url)
        alice.writes()

        send()

        assert deliveries(alice, made)[0]["status"] == "delivered"


def test_a_huge_answer_is_not_read_to_its_end(alice: Person, settings: Any) -> None:
    settings.WEBHOOK_ALLOW_HTTP = settings.WEBHOOK_ALLOW_PRIVATE = True
    with receiving(statuses=[500], body=b"no" * 5_000_000) as target:
        made = subscribe(alice, target.url)
        alice.writes()

        send()

        assert len(deliveries(alice, made)[0]["last_error"]) == 500


def test_a_name_server_that_hangs_costs_one_time_out(
    alice: Person, names: dict[str, list[Any]], settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.WEBHOOK_TIMEOUT_SECONDS = 0.5
    names["target.example"] = [PUBLIC]
    made = subscribe(alice, "https://target.example/hook")
    alice.writes()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_kwargs: time.sleep(2))
    began = time.monotonic()

    send()

    assert time.monotonic() - began < 1.5
    assert "No answer" in deliveries(alice, made)[0]["last_error"]
    monkeypatch.setattr(addresses, "RESOLVE_SECONDS", 0.2)
    assert refusal(alice, "https://target.example/other") == "Its name cannot be resolved in time."


def test_what_was_refused_once_is_tried_again_later(alice: Person, names: dict[str, list[Any]], settings: Any) -> None:
    settings.WEBHOOK_ALLOW_HTTP = True
    with receiving() as target:
        names["target.example"] = [PUBLIC, "10.0.0.1", "127.0.0.1"]
        made = subscribe(alice, f"http://target.example:{target.port}/hook")
        alice.writes()
        send()
        settings.WEBHOOK_ALLOW_PRIVATE = True
        make_due(made)

        send(now=timezone.now() + timedelta(seconds=1))

        assert deliveries(alice, made)[0]["status"] == "delivered"
