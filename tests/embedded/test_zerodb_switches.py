"""Each switch of the ZeroDB emulator does what its name says, against the real process over HTTP."""

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from engarde.embedded import session
from engarde.embedded.zerodb.app import create_app
from engarde.embedded.zerodb.faults import FAULTS
from tests.embedded.conftest import eventually, service_state
from tests.switches import all_off, requests_seen, switch_off, switch_on, switched_on, switches_on
from tests.zerodb_process import API_KEY, ZeroDBProcess

KEY = {"X-API-Key": API_KEY}
BEARER = {"Authorization": f"Bearer {API_KEY}"}

_numbers = count()


class Table:
    """One table of the emulator; every call returns the response as it came."""

    def __init__(self, process: ZeroDBProcess, name: str) -> None:
        self.process, self.name = process, name

    def send(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] = KEY, seconds: float = 10
    ) -> requests.Response:
        url = f"{self.process.tables_url}{path.replace('{t}', self.name)}"
        return requests.request(method, url, json=body, headers=headers, timeout=seconds)

    def insert(self, seconds: float = 10, **data: Any) -> requests.Response:
        return self.send("POST", "/{t}/rows", {"row_data": data}, seconds=seconds)

    def query(self, **body: Any) -> requests.Response:
        return self.send("POST", "/{t}/query", body)

    def rows(self, **body: Any) -> list[dict[str, Any]]:
        return [row["row_data"] for row in self.query(**body).json()["data"]]


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZeroDBProcess]:
    process = ZeroDBProcess(tmp_path_factory.mktemp("zerodb"))
    process.start()
    yield process
    process.stop()


@pytest.fixture
def url(process: ZeroDBProcess) -> Iterator[str]:
    yield process.url
    all_off(process.url)


@pytest.fixture
def table(process: ZeroDBProcess, url: str) -> Table:
    table = Table(process, f"table_{next(_numbers)}")
    assert table.send("POST", "", {"name": table.name}).status_code == 200
    return table


def seconds_of(call: Any) -> float:
    started = time.monotonic()
    call()
    return time.monotonic() - started


# The switches, one by one


def test_latency_delays_the_answer(url: str, table: Table) -> None:
    with switched_on(url, "latency", milliseconds=300):
        assert seconds_of(lambda: table.insert(n=1)) >= 0.3
    assert table.rows() == [{"n": 1}]


def test_rate_limit_lets_so_many_pass_in_a_span(url: str, table: Table) -> None:
    switch_on(url, "rate_limit", requests=2)
    answers = [table.query() for _ in range(4)]

    assert [answer.status_code for answer in answers] == [200, 200, 429, 429]
    assert "Retry-After" not in answers[-1].headers
    assert switches_on(url)[0]["seconds"] == 3600


def test_rate_limit_lets_requests_pass_again_when_the_span_is_over(url: str, table: Table) -> None:
    switch_on(url, "rate_limit", requests=1, seconds=0.3)

    assert [table.query().status_code for _ in range(2)] == [200, 429]
    time.sleep(0.35)
    assert table.query().status_code == 200


def test_stall_keeps_silent_and_then_closes_the_connection(url: str, table: Table) -> None:
    with switched_on(url, "stall", seconds=0.5), pytest.raises(requests.ConnectionError, match="closed connection"):
        table.insert(n=1)
    with switched_on(url, "stall", seconds=1), pytest.raises(requests.ReadTimeout):
        table.insert(seconds=0.2, n=2)

    assert table.rows() == []


def test_stall_can_carry_the_request_out_first(url: str, table: Table) -> None:
    with switched_on(url, "stall", seconds=1, commit=True), pytest.raises(requests.ReadTimeout):
        table.insert(seconds=0.3, n=1)

    assert table.rows() == [{"n": 1}]


def test_stalled_requests_end_when_the_switch_goes_off(url: str, table: Table) -> None:
    switch_on(url, "stall", seconds=60)
    with ThreadPoolExecutor(1) as thread:
        stalled = thread.submit(table.insert, seconds=20, n=1)
        eventually(lambda: switches_on(url)[0]["hits"])
        all_off(url)
        with pytest.raises(requests.ConnectionError):
            stalled.result(5)


@pytest.mark.parametrize(("when", "kept"), [("before", []), ("after", [{"n": 1}])])
def test_crash_kills_the_whole_process(tmp_path: Path, when: str, kept: list[dict[str, Any]]) -> None:
    process = ZeroDBProcess(tmp_path)
    process.start()
    table = Table(process, "crashed")
    table.send("POST", "", {"name": "crashed"})
    try:
        with switched_on(process.url, "crash", when=when), pytest.raises(requests.ConnectionError):
            table.insert(n=1)
        process.wait_for_end()
        process.start()

        assert switches_on(process.url) == []
        assert table.rows() == kept
    finally:
        process.stop()


def test_crash_of_the_embedded_service_is_noticed_and_mended(place: Path) -> None:
    with session.join(place, ["zerodb"]) as settings:
        address = f"{settings['ZERODB_BASE_URL']}/v1/projects/{settings['ZERODB_PROJECT_ID']}/database/tables"
        first = service_state(place, "zerodb")["pid"]
        switch_on(settings["ZERODB_BASE_URL"], "crash")
        with pytest.raises(requests.ConnectionError):
            requests.get(address, headers={"X-API-Key": settings["ZERODB_API_KEY"]}, timeout=10)

        eventually(lambda: service_state(place, "zerodb").get("pid") not in (None, first), seconds=20)
        assert not psutil.pid_exists(first)
        assert requests.get(address, headers={"X-API-Key": settings["ZERODB_API_KEY"]}, timeout=10).ok


def test_too_many_requests_tells_when_to_come_back_or_not(url: str, table: Table) -> None:
    switch_on(url, "too_many_requests", retry_after=2, left=1)
    switch_on(url, "too_many_requests", retry_at=60, left=1)
    switch_on(url, "too_many_requests", left=1)
    seconds, date, nothing = (table.query() for _ in range(3))

    assert {answer.status_code for answer in (seconds, date, nothing)} == {429}
    assert seconds.headers["Retry-After"] == "2"
    ahead = parsedate_to_datetime(date.headers["Retry-After"]) - datetime.now(UTC)
    assert 50 < ahead.total_seconds() <= 60
    assert "Retry-After" not in nothing.headers


@pytest.mark.parametrize("status", [500, 503])
def test_server_error_answers_it(url: str, table: Table, status: int) -> None:
    with switched_on(url, "server_error", status=status):
        answer = table.insert(n=1)

    assert (answer.status_code, answer.json()) == (status, {"detail": "Internal server error"})
    assert table.rows() == []


def test_bad_gateway_answers_html(url: str, table: Table) -> None:
    switch_on(url, "bad_gateway")
    answer = table.query()

    assert answer.status_code == 502
    assert answer.headers["Content-Type"].startswith("text/html")
    assert answer.text.startswith("<html>")


def test_router_404_speaks_as_the_router(url: str, table: Table) -> None:
    switch_on(url, "router_404")
    answer = table.query()

    assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})


def test_lost_answer_drops_the_connection_after_the_commit(url: str, table: Table) -> None:
    with switched_on(url, "lost_answer"), pytest.raises(requests.ConnectionError, match="without response"):
        table.insert(n=1)

    assert table.rows() == [{"n": 1}]


def test_lost_answer_can_say_error_or_nothing_instead(url: str, table: Table) -> None:
    switch_on(url, "lost_answer", instead="error", left=1)
    switch_on(url, "lost_answer", instead="empty", left=1)
    error, empty = table.insert(n=1), table.insert(n=2)

    assert error.status_code == 500
    assert (empty.status_code, empty.content) == (200, b"")
    assert table.rows() == [{"n": 1}, {"n": 2}]


def test_lost_answer_leaves_reads_and_refusals_alone(url: str, table: Table) -> None:
    switch_on(url, "lost_answer")

    assert table.query().status_code == 200
    assert table.send("POST", "/{t}/rows", {"data": {}}).status_code == 422


def test_truncated_json_is_cut(url: str, table: Table) -> None:
    switch_on(url, "truncated_json")
    answer = table.insert(n=1)

    assert answer.status_code == 200
    assert answer.text.startswith('{"row_id"')
    with pytest.raises(requests.JSONDecodeError):
        answer.json()


def test_truncated_json_can_break_off_before_its_announced_length(url: str, table: Table) -> None:
    with switched_on(url, "truncated_json", announced=True), pytest.raises(requests.exceptions.ChunkedEncodingError):
        table.insert(n=1)

    assert table.rows() == [{"n": 1}]


@pytest.mark.parametrize(
    ("switch", "refused", "taken"), [("refuse_bearer", BEARER, KEY), ("refuse_key_header", KEY, BEARER)]
)
def test_the_key_is_refused_in_one_header(
    url: str, table: Table, switch: str, refused: dict[str, str], taken: dict[str, str]
) -> None:
    switch_on(url, switch)

    assert table.send("GET", "/{t}", headers=refused).status_code == 401
    assert table.send("GET", "/{t}", headers=taken).status_code == 200


def test_statuses_201_204_say_created_and_no_content(url: str, table: Table) -> None:
    switch_on(url, "statuses_201_204")
    inserted = table.insert(n=1)
    deleted = table.send("DELETE", f"/{{t}}/rows/{inserted.json()['row_id']}")

    assert inserted.status_code == 201
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert table.rows() == []


def test_bare_lists_have_no_envelope(url: str, table: Table) -> None:
    table.insert(n=1)
    switch_on(url, "bare_lists")

    for answer in (table.query(), table.send("GET", "/{t}/rows")):
        assert [row["row_data"] for row in answer.json()] == [{"n": 1}]
    assert table.name in [each["table_name"] for each in table.send("GET", "").json()]


def test_wrong_bodies_are_those_of_other_rows(url: str, table: Table) -> None:
    ids = [table.insert(n=n, text=f"text {n}").json()["row_id"] for n in range(3)]
    with switched_on(url, "wrong_bodies"):
        assert [row["row_data"]["n"] for row in table.query().json()["data"]] == [2, 0, 1]
        assert [row["row_id"] for row in table.query().json()["data"]] == ids
        assert table.send("GET", f"/{{t}}/rows/{ids[0]}").json()["row_data"]["n"] == 1
        assert table.rows(filter={"n": 2}) == [{"n": 0, "text": "text 0"}]
    with switched_on(url, "wrong_bodies", field="text"):
        assert table.rows(filter={"n": 2}) == [{"n": 2, "text": "text 0"}]

    assert [row["n"] for row in table.rows()] == [0, 1, 2]


def test_wrong_bodies_can_be_altered(url: str, table: Table) -> None:
    table.insert(n=1, text="a text")
    with switched_on(url, "wrong_bodies"):  # there is no other row
        assert table.rows() == [{"n": [1], "text": "a text~"}]
    with switched_on(url, "wrong_bodies", how="altered", field="text"):
        assert table.rows() == [{"n": 1, "text": "a text~"}]


def test_filters_spelling_ignores_the_other_one(url: str, table: Table) -> None:
    for n in range(3):
        table.insert(n=n)
    switch_on(url, "filters_spelling")

    assert table.rows(filters={"n": 1}) == [{"n": 1}]
    assert len(table.rows(filter={"n": 1})) == 3


def test_filters_spelling_can_refuse_the_other_one(url: str, table: Table) -> None:
    switch_on(url, "filters_spelling", other="refused")
    refused = table.query(filter={"n": 1})

    assert refused.status_code == 422
    assert refused.json()["detail"][0]["loc"] == ["body", "filter"]
    assert table.query(filters={"n": 1}).status_code == 200
    assert table.send("POST", "/{t}/query", [1]).status_code == 422


def test_duplicate_table_400_answers_it_instead_of_409(url: str, table: Table) -> None:
    switch_on(url, "duplicate_table_400")
    answer = table.send("POST", "", {"name": table.name})

    assert answer.status_code == 400
    assert "already exists" in answer.json()["detail"]
    assert table.send("POST", "", {}).status_code == 422


def test_stale_reads_miss_young_rows(url: str, table: Table) -> None:
    old = table.insert(n=1).json()["row_id"]
    time.sleep(0.6)
    young = table.insert(n=2).json()["row_id"]
    switch_on(url, "stale_reads", milliseconds=500)

    assert table.rows(sort={"n": -1}, limit=1) == [{"n": 1}]
    listed = table.send("GET", "/{t}/rows").json()
    assert ([row["row_id"] for row in listed["data"]], listed["total"]) == ([old], 1)
    missing = table.send("GET", f"/{{t}}/rows/{young}")
    assert (missing.status_code, missing.json()) == (404, {"detail": "Row not found"})
    time.sleep(0.5)
    assert len(table.rows()) == 2


def test_put_merges_keeps_unnamed_fields(url: str, table: Table) -> None:
    row = table.insert(a=1, b=2).json()["row_id"]
    switch_on(url, "put_merges")
    answer = table.send("PUT", f"/{{t}}/rows/{row}", {"row_data": {"b": 3, "c": 4}})

    assert answer.json()["row_data"] == {"a": 1, "b": 3, "c": 4}
    assert table.rows() == [{"a": 1, "b": 3, "c": 4}]


def test_duplicate_inserts_make_two_rows(url: str, table: Table) -> None:
    switch_on(url, "duplicate_inserts", left=1)
    answered = table.insert(n=1).json()["row_id"]

    found = [row["row_id"] for row in table.query().json()["data"]]
    assert len(set(found)) == 2
    assert answered == found[0]
    table.insert(n=2)
    assert len(table.rows()) == 3


# Scope


def test_left_counts_down_to_nothing(url: str, table: Table) -> None:
    switch_on(url, "server_error", left=2)

    assert [table.query().status_code for _ in range(4)] == [500, 500, 200, 200]
    assert [(each["left"], each["hits"]) for each in switches_on(url)] == [(0, 2)]


def test_left_counts_only_calls_that_the_switch_concerns(url: str, table: Table) -> None:
    switch_on(url, "duplicate_inserts", left=1)
    table.query()

    assert switches_on(url)[0]["left"] == 1


def test_two_of_one_name_act_on_one_request_each(url: str, table: Table) -> None:
    switch_on(url, "duplicate_inserts", left=1)
    switch_on(url, "duplicate_inserts", left=1)
    table.insert(n=1)

    assert len(table.rows()) == 2
    assert [each["left"] for each in switches_on(url)] == [0, 1]


def test_a_seed_repeats_the_same_requests(url: str, table: Table) -> None:
    def statuses(seed: int) -> list[int]:
        with switched_on(url, "server_error", rate=0.5, seed=seed):
            return [table.query().status_code for _ in range(30)]

    first = statuses(7)
    assert set(first) == {200, 500}
    assert statuses(7) == first
    assert statuses(8) != first


def test_a_switch_can_be_for_some_methods_and_paths(url: str, table: Table) -> None:
    switch_on(url, "server_error", methods=["POST"], path="*/rows")

    assert table.insert(n=1).status_code == 500
    assert table.send("GET", "/{t}/rows").status_code == 200
    assert table.query().status_code == 200


def test_switches_combine(url: str, table: Table) -> None:
    switch_on(url, "lost_answer")
    switch_on(url, "duplicate_inserts")
    switch_on(url, "latency", milliseconds=200)
    with pytest.raises(requests.ConnectionError):
        table.insert(n=1)

    assert table.rows() == [{"n": 1}, {"n": 1}]
    switch_on(url, "bare_lists")
    switch_on(url, "filters_spelling")
    switch_on(url, "refuse_bearer")
    answer = table.query(filters={"n": 2})
    assert (answer.json(), answer.elapsed.total_seconds() >= 0.2) == ([], True)


# The control endpoint


def test_every_switch_can_be_on_at_once(url: str) -> None:
    needed: dict[str, dict[str, Any]] = {
        "latency": {"milliseconds": 1},
        "rate_limit": {"requests": 1},
        "stall": {"seconds": 1},
        "stale_reads": {"milliseconds": 1},
    }
    for name in FAULTS:
        switch_on(url, name, **needed.get(name, {}))

    assert [each["name"] for each in switches_on(url)] == list(FAULTS)
    assert requests.get(f"{url}/health", timeout=10).status_code == 200


@pytest.mark.parametrize(
    ("name", "body", "status"),
    [
        ("no_such_switch", {}, 404),
        ("latency", {}, 422),
        ("latency", {"milliseconds": 0}, 422),
        ("latency", {"milliseconds": "1"}, 422),
        ("latency", {"milliseconds": 10**9}, 422),
        ("latency", {"seconds": 1}, 422),
        ("stall", {"seconds": 301}, 422),
        ("crash", {"when": "now"}, 422),
        ("lost_answer", {"instead": "html"}, 422),
        ("server_error", {"status": 404}, 422),
        ("bad_gateway", {"left": 0}, 422),
        ("bad_gateway", {"left": True}, 422),
        ("bad_gateway", {"rate": 1.5}, 422),
        ("bad_gateway", {"rate": None}, 422),
        ("bad_gateway", {"methods": ["get"]}, 422),
        ("bad_gateway", {"methods": [{}]}, 422),
        ("bad_gateway", {"path": 1}, 422),
        ("bad_gateway", [], 422),
    ],
)
def test_bad_input_is_refused(url: str, name: str, body: Any, status: int) -> None:
    assert requests.post(f"{url}/__switches/{name}", json=body, timeout=10).status_code == status
    assert switches_on(url) == []


def test_what_is_no_json_is_refused(url: str) -> None:
    assert requests.post(f"{url}/__switches/bad_gateway", data="left=1", timeout=10).status_code == 422


def test_switches_go_off_by_id_by_name_or_all(url: str) -> None:
    first = switch_on(url, "bad_gateway")["id"]
    for name in ("bad_gateway", "bad_gateway", "router_404", "put_merges"):
        switch_on(url, name)

    assert switch_off(url, first) == 1
    assert switch_off(url, "bad_gateway") == 2
    assert switch_off(url, "bad_gateway") == 0
    assert [each["name"] for each in switches_on(url)] == ["router_404", "put_merges"]
    assert requests.delete(f"{url}/__switches/{first}", timeout=10).status_code == 404
    all_off(url)
    assert switches_on(url) == []


def test_off_is_strict_again(url: str, table: Table) -> None:
    with switched_on(url, "filters_spelling"), switched_on(url, "duplicate_table_400"):
        assert table.query(filters={}).status_code == 200

    assert table.query(filters={}).status_code == 422
    assert table.send("POST", "", {"name": table.name}).status_code == 409


def test_requests_are_counted_by_method_and_route(url: str, table: Table) -> None:
    before = requests_seen(url)
    row = table.insert(n=1).json()["row_id"]
    with switched_on(url, "server_error"):
        table.query()
    table.query()
    table.send("GET", f"/{{t}}/rows/{row}")

    assert requests_seen(url) - before == {
        "POST /{table}/rows": 1,
        "POST /{table}/query": 2,
        "GET /{table}/rows/{row_id}": 1,
    }


@pytest.mark.parametrize(
    ("client", "headers", "status"),
    [
        (("127.0.0.1", "40000"), [], 200),
        (("::1", "40000"), [], 200),
        (("192.0.2.7", "40000"), [], 404),
        (("192.0.2.7", "40000"), [(b"x-forwarded-for", b"127.0.0.1")], 404),
        (None, [], 404),
        (("127.0.0.1", "40000"), [(b"origin", b"https://example.com")], 404),
    ],
)
def test_only_programs_on_this_machine_reach_it(client: Any, headers: list[tuple[bytes, bytes]], status: int) -> None:
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/__switches",
        "query_string": b"",
        "headers": headers,
        "client": client,
    }
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(create_app()(scope, receive, send))

    assert sent[0]["status"] == status
    if status == 404:
        assert sent[1]["body"] == b'{"detail":"Not Found"}'
