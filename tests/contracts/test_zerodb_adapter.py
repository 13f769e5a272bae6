"""How ZeroDBStore takes answers that the emulator does not give: other dialects, lost answers, broken gateways."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

import pytest
import requests

from content.stores.base import Document, DocumentKey, StoreRejected, StoreUnavailable
from content.stores.breaker import CircuitBreaker, CircuitOpen
from content.stores.zerodb import ZeroDBStore
from tests.zerodb_process import API_KEY, PROJECT_ID, ZeroDBProcess

TEXT = '{"title":"A day at sea"}'

Answer = tuple[int, dict[str, str], bytes]
LOST: Answer = (0, {}, b"")
"""The connection ends without an answer."""


class Request:
    def __init__(self, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        self.method, self.path, self.headers, self.body = method, path, headers, body


class ScriptedService:
    """Gives the answers it was told, in turn; after the last one `otherwise` answers."""

    def __init__(self) -> None:
        self.script: list[Answer | Callable[[Request], Answer]] = []
        self.otherwise: Callable[[Request], Answer] = lambda _request: LOST
        self.requests: list[Request] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                request = Request(self.command, self.path, dict(self.headers), body)
                service.requests.append(request)
                step = service.script.pop(0) if service.script else service.otherwise
                status, headers, content = step(request) if callable(step) else step
                if status == 0:
                    self.close_connection = True
                    return
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = answer

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def paths(self) -> list[str]:
        """The last part of each request's path."""
        return [request.path.rpartition("/")[2] for request in self.requests]


@pytest.fixture
def service() -> Iterator[ScriptedService]:
    service = ScriptedService()
    yield service
    service.stop()


@pytest.fixture
def store(service: ScriptedService) -> ZeroDBStore:
    return make_store(service)


@pytest.fixture
def document() -> Document:
    return Document(uuid4(), DocumentKey.of(uuid4(), TEXT), 1, TEXT)


def make_store(service: ScriptedService, **options: Any) -> ZeroDBStore:
    return ZeroDBStore(service.url, API_KEY, PROJECT_ID, **options)


def reply(content: object, status: int = 200, **headers: str) -> Answer:
    return status, {"Content-Type": "application/json", **headers}, json.dumps(content).encode()


def html(status: int) -> Answer:
    return status, {"Content-Type": "text/html"}, b"<html>Bad gateway</html>"


def row_of(document: Document, **id_: str) -> dict[str, Any]:
    return {**id_, "row_data": {"key": str(document.key), "document": document.text}}


def passed_on_to(zerodb: ZeroDBProcess) -> Callable[[Request], Answer]:
    def pass_on(request: Request) -> Answer:
        headers = {
            name: value for name, value in request.headers.items() if name.lower() in ("x-api-key", "content-type")
        }
        answer = requests.request(
            request.method, zerodb.url + request.path, data=request.body, headers=headers, timeout=10
        )
        return answer.status_code, {"Content-Type": "application/json"}, answer.content

    return pass_on


@pytest.mark.parametrize("instead", [LOST, html(502), reply({"detail": "boom"}, 500)], ids=["lost", "502", "500"])
def test_it_looks_for_the_row_when_the_answer_to_an_insert_got_lost(
    service: ScriptedService, zerodb: ZeroDBProcess, document: Document, instead: Answer
) -> None:
    store = make_store(service, collection_prefix=f"lost_{uuid4().hex}_")
    forward = passed_on_to(zerodb)
    service.otherwise = forward
    store.set_up()
    service.requests.clear()

    def commit_and_lose_the_answer(request: Request) -> Answer:
        assert forward(request)[0] == 200
        return instead

    service.script = [commit_and_lose_the_answer]
    row_id = store.put(document)

    assert service.paths() == ["rows", "query"]
    assert store.find_row_ids([document.key]) == {document.key: row_id}
    assert stored_rows(zerodb, document) == 1


def test_it_inserts_again_when_the_row_is_not_there(
    service: ScriptedService, zerodb: ZeroDBProcess, document: Document
) -> None:
    store = make_store(service, collection_prefix=f"again_{uuid4().hex}_")
    service.otherwise = passed_on_to(zerodb)
    store.set_up()
    service.requests.clear()
    service.script = [LOST]

    store.put(document)

    assert service.paths() == ["rows", "query", "rows"]
    assert stored_rows(zerodb, document) == 1


@pytest.mark.parametrize("status", [200, 201])
@pytest.mark.parametrize("answer", [{"row_id": "r1"}, {"id": "r1"}, {"success": True, "data": {"row_id": "r1"}}])
def test_it_reads_every_spelling_of_a_row_id(
    service: ScriptedService, store: ZeroDBStore, document: Document, status: int, answer: dict[str, Any]
) -> None:
    service.script = [reply(answer, status)]

    assert store.put(document) == "r1"


def test_it_asks_for_the_row_id_when_the_insert_did_not_say(
    service: ScriptedService, store: ZeroDBStore, document: Document
) -> None:
    service.script = [reply({"ok": True}), reply({"data": [row_of(document, row_id="r1")]})]

    assert store.put(document) == "r1"


@pytest.mark.parametrize("place", ["bare", "data", "rows", "items"])
@pytest.mark.parametrize("id_key", ["row_id", "id"])
def test_it_reads_every_list_shape(
    service: ScriptedService, store: ZeroDBStore, document: Document, place: str, id_key: str
) -> None:
    rows = [row_of(document, **{id_key: "r1"})]
    answer = rows if place == "bare" else {place: rows}
    service.script = [reply(answer), reply(answer)]

    assert store.get_many([document.key]) == {document.key: TEXT}
    assert store.find_row_ids([document.key]) == {document.key: "r1"}


@pytest.mark.parametrize("answer", [{"success": True}, {"data": {"a": 1}}, "text", None])
def test_it_rejects_an_answer_without_a_list(
    service: ScriptedService, store: ZeroDBStore, document: Document, answer: object
) -> None:
    service.script = [reply(answer)]

    with pytest.raises(StoreRejected, match="dialect"):
        store.get_many([document.key])


@pytest.mark.parametrize(
    "row",
    [
        {"row_id": "r2", "row_data": {"key": "other", "document": "{}"}},
        {"row_id": "r2", "row_data": {"title": "no key"}},
        {"row_id": "r2", "key": "flat"},
        "text",
    ],
)
def test_it_rejects_rows_that_it_did_not_ask_for(
    service: ScriptedService, store: ZeroDBStore, document: Document, row: object
) -> None:
    service.script = [reply({"data": [row_of(document, row_id="r1"), row], "has_more": True})]

    with pytest.raises(StoreRejected, match="not asked for"):
        store.get_many([document.key, DocumentKey.of(uuid4(), TEXT)])
    assert len(service.requests) == 1


@pytest.mark.parametrize("first", [LOST, html(502), html(200), reply({"detail": "busy"}, 503), reply({}, 429)])
def test_it_repeats_a_read_that_failed_in_passing(
    service: ScriptedService, store: ZeroDBStore, document: Document, first: Answer
) -> None:
    service.script = [first, reply({"data": [row_of(document, row_id="r1")]})]

    assert store.get_many([document.key]) == {document.key: TEXT}


def test_it_gives_up_after_the_last_attempt(service: ScriptedService, document: Document) -> None:
    store = make_store(service, attempts=2)

    with pytest.raises(StoreUnavailable):
        store.get_many([document.key])
    assert len(service.requests) == 2


def test_it_waits_as_long_as_it_is_asked_to(service: ScriptedService, store: ZeroDBStore, document: Document) -> None:
    service.script = [reply({}, 429, **{"Retry-After": "1"}), reply([])]
    started = time.monotonic()

    store.get_many([document.key])

    assert time.monotonic() - started >= 1


@pytest.mark.parametrize("spelling", ["seconds", "fraction", "date"])
def test_it_hands_a_long_wait_to_the_caller(
    service: ScriptedService, store: ZeroDBStore, document: Document, spelling: str
) -> None:
    in_two_minutes = format_datetime(datetime.now(UTC) + timedelta(seconds=120), usegmt=True)
    value = {"seconds": "120", "fraction": "119.5", "date": in_two_minutes}[spelling]
    service.script = [reply({}, 429, **{"Retry-After": value})]
    started = time.monotonic()

    with pytest.raises(StoreUnavailable) as failure:
        store.get_many([document.key])

    assert failure.value.retry_after == pytest.approx(120, abs=3)
    assert time.monotonic() - started < 1
    assert len(service.requests) == 1


@pytest.mark.parametrize("value", ["soon", "nan", "inf", "", "Wed, 99 Nov 2026 10:00:00 GMT"])
def test_it_overlooks_a_retry_after_that_means_nothing(
    service: ScriptedService, store: ZeroDBStore, document: Document, value: str
) -> None:
    service.script = [reply({}, 503, **{"Retry-After": value}), reply([])]

    assert store.get_many([document.key]) == {}


def test_it_takes_a_retry_after_in_the_past_as_now(
    service: ScriptedService, store: ZeroDBStore, document: Document
) -> None:
    service.script = [reply({}, 503, **{"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}), reply([])]

    assert store.get_many([document.key]) == {}


def test_it_does_not_wait_for_ever_for_an_answer(service: ScriptedService, document: Document) -> None:
    hold = threading.Event()
    store = make_store(service, read_timeout=0.2, attempts=1)

    def stall(_request: Request) -> Answer:
        hold.wait(10)
        return LOST

    service.script = [stall]
    started = time.monotonic()
    try:
        with pytest.raises(StoreUnavailable):
            store.get_many([document.key])
        assert time.monotonic() - started < 2
    finally:
        hold.set()


def test_it_does_not_wait_for_the_breaker_to_close(service: ScriptedService, document: Document) -> None:
    store = make_store(service, breaker=CircuitBreaker(threshold=1, open_seconds=2))
    started = time.monotonic()

    with pytest.raises(CircuitOpen):
        store.get_many([document.key])

    assert time.monotonic() - started < 1
    assert len(service.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        reply({"detail": "Not Found"}, 404),
        html(404),
        (307, {"Location": "http://127.0.0.1:9/elsewhere"}, b""),
        (301, {"Location": "/elsewhere"}, b""),
    ],
    ids=["router", "gateway", "other host", "moved"],
)
def test_it_takes_an_unknown_address_for_a_wrong_setting(
    service: ScriptedService, store: ZeroDBStore, document: Document, answer: Answer
) -> None:
    service.script = [answer]

    with pytest.raises(StoreRejected, match="base path"):
        store.get_many([document.key])
    assert len(service.requests) == 1


@pytest.mark.parametrize("status", [400, 403, 413, 422])
def test_it_does_not_repeat_what_was_rejected(
    service: ScriptedService, store: ZeroDBStore, document: Document, status: int
) -> None:
    service.script = [reply({"detail": [{"loc": ["body"], "msg": "too bad"}]}, status)]

    with pytest.raises(StoreRejected, match="too bad") as rejection:
        store.put(document)
    assert rejection.value.status == status
    assert len(service.requests) == 1


@pytest.mark.parametrize("status", [401, 400, 500])
def test_it_never_repeats_the_key_in_a_message(service: ScriptedService, status: int) -> None:
    service.script = [reply({"detail": f"bad key {API_KEY}"}, status)]

    with pytest.raises((StoreRejected, StoreUnavailable), match=r"bad key \*\*\*"):
        make_store(service).ping()


@pytest.mark.parametrize("api_key", ["", "sk_with\nnewline", "sk_é", " sk_spaced"])
def test_it_refuses_a_key_that_no_header_can_carry_without_showing_it(api_key: str) -> None:
    with pytest.raises(ValueError, match="API key") as refusal:
        ZeroDBStore("http://127.0.0.1:9", api_key, PROJECT_ID)
    assert not api_key or api_key not in str(refusal.value)


def test_it_refuses_an_address_without_a_scheme() -> None:
    with pytest.raises(ValueError, match="http"):
        ZeroDBStore("api.example.com", API_KEY, PROJECT_ID)


@pytest.mark.parametrize(
    ("auth_header", "name", "value"),
    [("X-API-Key", "X-API-Key", API_KEY), ("Authorization", "Authorization", f"Bearer {API_KEY}")],
)
def test_it_sends_the_key_in_one_header_only(service: ScriptedService, auth_header: str, name: str, value: str) -> None:
    service.script = [reply([])]
    make_store(service, auth_header=auth_header).ping()

    sent = service.requests[0].headers
    assert {key: sent[key] for key in sent if key in ("X-API-Key", "Authorization")} == {name: value}


@pytest.mark.parametrize(
    "answer",
    [reply({"detail": "x"}, 409), reply({"detail": "Table already exists"}, 400), reply({"message": "exists"}, 400)],
)
def test_it_takes_a_collection_that_exists_for_made_before(
    service: ScriptedService, store: ZeroDBStore, answer: Answer
) -> None:
    service.script = [reply({"tables": [{"name": "content_items"}]}), answer, reply({"id": "t"}, 201)]

    assert store.set_up() == ["content_media_files"]


def test_it_does_not_take_another_400_for_made_before(service: ScriptedService, store: ZeroDBStore) -> None:
    service.script = [reply([]), reply({"detail": "Project does not exist"}, 400)]

    with pytest.raises(StoreRejected):
        store.set_up()


def stored_rows(zerodb: ZeroDBProcess, document: Document) -> int:
    with zerodb.sqlite() as connection:
        found = connection.execute("SELECT count(*) FROM data_row WHERE text_of_key = ?", (str(document.key),))
        return int(found.fetchone()[0])
