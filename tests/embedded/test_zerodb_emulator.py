"""The ZeroDB emulator over HTTP, as a process of its own."""

import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.zerodb_process import API_KEY, PROJECT_ID, ZeroDBProcess

PREFIXES = [
    f"/api/v1/projects/{PROJECT_ID}",
    f"/v1/projects/{PROJECT_ID}",
    f"/v1/public/{PROJECT_ID}",
    f"/v1/public/zerodb/{PROJECT_ID}",
]
KEY_HEADER = {"X-API-Key": API_KEY}

_numbers = count()


class Tables:
    """A client that hides nothing: paths in, responses out."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.session = requests.Session()
        self.session.headers.update(KEY_HEADER)

    def send(self, method: str, path: str = "", body: Any = None, **options: Any) -> requests.Response:
        return self.session.request(method, self.url + path, json=body, timeout=10, **options)

    def query(self, table: str, **body: Any) -> list[dict[str, Any]]:
        answer = self.send("POST", f"/{table}/query", body)
        assert answer.status_code == 200, answer.text
        return [row["row_data"] for row in answer.json()["data"]]


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZeroDBProcess]:
    process = ZeroDBProcess(tmp_path_factory.mktemp("zerodb") / "made" / "when" / "missing")
    process.start()
    yield process
    process.stop()


@pytest.fixture(scope="module")
def tables(emulator: ZeroDBProcess) -> Tables:
    return Tables(emulator.tables_url)


@pytest.fixture
def table(tables: Tables) -> str:
    name = f"table_{next(_numbers)}"
    assert tables.send("POST", "", {"name": name}).status_code == 200
    return name


@pytest.fixture
def row_id(tables: Tables, table: str) -> str:
    answer = tables.send("POST", f"/{table}/rows", {"row_data": {"name": "alice", "age": 30}})
    return str(answer.json()["row_id"])


def test_it_serves_one_store_under_all_four_prefixes(emulator: ZeroDBProcess, table: str) -> None:
    for prefix in PREFIXES:
        mount = Tables(f"{emulator.url}{prefix}/database/tables")
        assert mount.send("POST", f"/{table}/rows", {"row_data": {"prefix": prefix}}).status_code == 200

    rows = Tables(f"{emulator.url}{PREFIXES[0]}/database/tables").query(table)
    assert [row["prefix"] for row in rows] == PREFIXES


@pytest.mark.parametrize("path", ["", "/"])
def test_it_takes_a_trailing_slash_or_none(tables: Tables, path: str) -> None:
    assert tables.send("GET", path).status_code == 200


def test_it_answers_health_without_a_key(emulator: ZeroDBProcess) -> None:
    assert requests.get(f"{emulator.url}/health", timeout=10).status_code == 200


@pytest.mark.parametrize(
    "headers", [{}, {"X-API-Key": "wrong"}, {"Authorization": f"Basic {API_KEY}"}, {"X-API-Key": "é"}]
)
def test_it_answers_401_without_the_key(emulator: ZeroDBProcess, headers: dict[str, str]) -> None:
    encoded = {name: value.encode() for name, value in headers.items()}
    answer = requests.get(emulator.tables_url, headers=encoded, timeout=10)

    assert answer.status_code == 401
    assert answer.json() == {"detail": "Invalid or missing API key"}


def test_it_takes_the_key_as_a_bearer_token(emulator: ZeroDBProcess) -> None:
    answer = requests.get(emulator.tables_url, headers={"Authorization": f"Bearer {API_KEY}"}, timeout=10)

    assert answer.status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        f"/api/v1/public/projects/{PROJECT_ID}/database/tables",
        f"/v1/public/projects/{PROJECT_ID}/database/tables",
        f"/api/v1/projects/{PROJECT_ID}/tables",
        f"/api/v1/public/tables/{PROJECT_ID}",
        "/v1/public/zerodb/tables",
        "/",
    ],
)
def test_it_answers_unknown_routes_with_the_bare_404(emulator: ZeroDBProcess, path: str) -> None:
    answer = requests.get(emulator.url + path, headers=KEY_HEADER, timeout=10)

    assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})


def test_it_names_what_is_missing_in_its_own_404(emulator: ZeroDBProcess, tables: Tables, table: str) -> None:
    elsewhere = Tables(emulator.tables_url.replace(PROJECT_ID, str(uuid.uuid4())))

    assert elsewhere.send("GET").json() == {"detail": "Project not found"}
    assert tables.send("POST", "/nowhere/rows", {"row_data": {}}).json() == {"detail": "Table not found"}
    missing_row = tables.send("GET", f"/{table}/rows/{uuid.uuid4()}")
    assert (missing_row.status_code, missing_row.json()) == (404, {"detail": "Row not found"})


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PATCH", "/{t}/rows/{r}"),
        ("PUT", "/{t}/rows"),
        ("DELETE", "/{t}/rows"),
        ("POST", "/{t}/upsert"),
        ("GET", "/{t}/query"),
    ],
)
def test_it_has_no_undocumented_calls(tables: Tables, table: str, row_id: str, method: str, path: str) -> None:
    answer = tables.send(method, path.format(t=table, r=row_id), {})

    assert answer.status_code in (404, 405)


def test_it_creates_lists_shows_and_deletes_tables(tables: Tables) -> None:
    made = tables.send("POST", "", {"name": "pets", "table_name": "pets", "schema": {"fields": {"a": "string"}}}).json()
    listed = tables.send("GET", "?skip=0&limit=1000").json()

    assert str(uuid.UUID(made["table_id"])) == made["table_id"]
    assert made == tables.send("GET", f"/{made['table_id']}").json() == tables.send("GET", "/pets").json()
    assert made in listed["data"]
    assert listed["total"] == len(listed["data"])

    assert tables.send("POST", "/pets/rows", {"row_data": {"name": "rex"}}).status_code == 200
    assert tables.send("DELETE", "/pets").status_code == 200
    assert tables.send("GET", "/pets").status_code == 404


def test_it_answers_409_to_a_name_that_is_taken(tables: Tables, table: str) -> None:
    answer = tables.send("POST", "", {"table_name": table})

    assert answer.status_code == 409
    assert "already exists" in answer.json()["detail"]


@pytest.mark.parametrize(
    "body", [{}, {"name": "a", "table_name": "b"}, {"name": "a b"}, {"name": 1}, {"name": "a", "columns": {}}]
)
def test_it_refuses_a_table_without_one_good_name(tables: Tables, body: dict[str, Any]) -> None:
    assert tables.send("POST", "", body).status_code == 422


def test_it_makes_row_ids_itself_and_answers_the_whole_row(tables: Tables, table: str) -> None:
    data = {"id": "mine", "text": "naïve 😀", "nested": {"a": [1, 2.5, None, True]}}

    row = tables.send("POST", f"/{table}/rows", {"row_data": data}).json()

    assert str(uuid.UUID(row["row_id"])) == row["row_id"]
    assert row["row_data"] == data
    assert (row["project_id"], row["table_name"]) == (PROJECT_ID, table)
    assert row["created_at"].endswith("Z")
    assert row == tables.send("GET", f"/{table}/rows/{row['row_id']}").json()


@pytest.mark.parametrize(
    "body", [{"data": {}}, {"rows": [{}]}, {"row_data": [{}]}, {"row_data": {}, "id": "x"}, [], "x"]
)
def test_it_refuses_a_misshapen_insert_in_fastapis_words(tables: Tables, table: str, body: Any) -> None:
    answer = tables.send("POST", f"/{table}/rows", body)

    assert answer.status_code == 422
    for problem in answer.json()["detail"]:
        assert {"loc", "msg", "type"} <= problem.keys()
        assert problem["loc"][0] == "body"


def test_it_refuses_a_body_that_is_not_json(tables: Tables, table: str) -> None:
    assert tables.session.post(f"{tables.url}/{table}/rows", data=b"{row_data", timeout=10).status_code == 422


def test_it_replaces_the_whole_row_on_put(tables: Tables, table: str, row_id: str) -> None:
    answer = tables.send("PUT", f"/{table}/rows/{row_id}", {"row_data": {"name": "bob"}})

    assert answer.status_code == 200
    assert tables.send("GET", f"/{table}/rows/{row_id}").json()["row_data"] == {"name": "bob"}


def test_it_deletes_a_row_once(tables: Tables, table: str, row_id: str) -> None:
    assert tables.send("DELETE", f"/{table}/rows/{row_id}").status_code == 200
    assert tables.send("DELETE", f"/{table}/rows/{row_id}").status_code == 404


def test_it_finds_no_row_of_one_table_through_another(tables: Tables, table: str, row_id: str) -> None:
    tables.send("POST", "", {"name": f"{table}_other"})

    assert tables.send("GET", f"/{table}_other/rows/{row_id}").status_code == 404


def test_it_queries_with_filter_sort_skip_and_limit(tables: Tables, table: str) -> None:
    fill(tables, table, 7)

    answer = tables.send(
        "POST", f"/{table}/query", {"filter": {"n": {"$gte": 1, "$ne": 3}}, "sort": {"n": -1}, "skip": 1, "limit": 3}
    ).json()

    assert [row["row_data"]["n"] for row in answer["data"]] == [5, 4, 2]
    assert (answer["total"], answer["skip"], answer["limit"], answer["has_more"]) == (5, 1, 3, True)
    assert {"filter_summary", "execution_time_ms"} <= answer.keys()


def test_it_finds_rows_by_their_keys(tables: Tables, table: str) -> None:
    fill(tables, table, 5)

    assert [row["n"] for row in tables.query(table, filter={"key": {"$in": ["key-1", "key-3", "no"]}})] == [1, 3]
    assert [row["n"] for row in tables.query(table, filter={"key": {"$gt": "key-2"}}, sort={"key": 1})] == [3, 4]
    assert [row["n"] for row in tables.query(table, filter={"key": 3})] == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"filters": {"n": 1}}, 422),
        ({"filter": {"n": 1}, "offset": 5}, 422),
        ({"projection": ["n"]}, 422),
        ({"filter": [1]}, 422),
        ({"limit": 1001}, 422),
        ({"limit": -1}, 422),
        ({"skip": -1}, 422),
        ({"limit": "10"}, 422),
        ({"filter": {"$or": [{"n": 1}]}}, 400),
        ({"filter": {"n": {"$exists": True}}}, 400),
        ({"filter": {"a-b": 1}}, 400),
        ({"filter": {"n": {"$regex": "(a+)+"}}}, 400),
        ({"sort": {"n": "asc"}}, 400),
    ],
)
def test_it_refuses_undocumented_queries(tables: Tables, table: str, body: dict[str, Any], status: int) -> None:
    assert tables.send("POST", f"/{table}/query", body).status_code == status


@pytest.mark.parametrize("query", ["limit=1001", "limit=x", "skip=-1", "offset=3", "filter={}"])
def test_it_refuses_undocumented_query_strings(tables: Tables, table: str, query: str) -> None:
    answer = tables.send("GET", f"/{table}/rows?{query}")

    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"][0] == "query"


def test_it_pages_through_rows_in_the_order_of_insertion(tables: Tables, table: str) -> None:
    fill(tables, table, 5)

    page = tables.send("GET", f"/{table}/rows?skip=3&limit=2").json()

    assert [row["row_data"]["n"] for row in page["data"]] == [3, 4]
    assert (page["total"], page["has_more"]) == (5, False)


def test_it_updates_in_bulk_with_the_five_operators(tables: Tables, table: str) -> None:
    tables.send("POST", f"/{table}/rows", {"row_data": {"n": 1, "tags": ["a", "b"], "old": True}})
    update = {
        "$set": {"deep.er": "x"},
        "$inc": {"n": 2, "made": 1},
        "$push": {"tags": "c"},
        "$pull": {"tags": "a"},
        "$unset": {"old": ""},
    }

    answer = tables.send("PUT", f"/{table}/rows/bulk", {"filter": {"n": 1}, "update": update}).json()

    assert (answer["matched_count"], answer["modified_count"]) == (1, 1)
    assert {"filter_used", "update_operators", "execution_time_ms", "warnings"} <= answer.keys()
    assert tables.query(table) == [{"n": 3, "tags": ["b", "c"], "deep": {"er": "x"}, "made": 1}]


def test_it_updates_all_rows_or_none(tables: Tables, table: str) -> None:
    for value in (1, 2, "text"):
        tables.send("POST", f"/{table}/rows", {"row_data": {"value": value, "kind": "x"}})

    answer = tables.send("PUT", f"/{table}/rows/bulk", {"filter": {"kind": "x"}, "update": {"$inc": {"value": 1}}})

    assert answer.status_code == 400
    assert [row["value"] for row in tables.query(table)] == [1, 2, "text"]


def test_it_counts_rows_that_an_update_leaves_as_they_were(tables: Tables, table: str) -> None:
    fill(tables, table, 2)

    answer = tables.send(
        "PUT", f"/{table}/rows/bulk", {"filter": {"n": {"$gte": 0}}, "update": {"$set": {"n": 1}}}
    ).json()

    assert (answer["matched_count"], answer["modified_count"]) == (2, 1)


@pytest.mark.parametrize(
    ("method", "body", "status"),
    [
        ("DELETE", {"filter": {}}, 400),
        ("DELETE", {}, 422),
        ("DELETE", {"filter": {"key": {"$contains": "k"}}}, 400),
        ("DELETE", {"filter": {"key": "x"}, "limit": 5}, 422),
        ("PUT", {"filter": {}, "update": {"$set": {"n": 1}}}, 400),
        ("PUT", {"filter": {"n": 1}}, 422),
        ("PUT", {"filter": {"n": 1}, "update": {}}, 400),
        ("PUT", {"filter": {"n": 1}, "update": {"n": 2}}, 400),
        ("PUT", {"filter": {"n": 1}, "update": {"$rename": {"n": "m"}}}, 400),
        ("PUT", {"filter": {"n": 1}, "update": {"$set": {"n": 2}}, "upsert": True}, 422),
    ],
)
def test_it_refuses_undocumented_bulk_calls(
    tables: Tables, table: str, method: str, body: dict[str, Any], status: int
) -> None:
    assert tables.send(method, f"/{table}/rows/bulk", body).status_code == status


def test_it_wants_a_confirmation_for_more_than_a_hundred_rows(tables: Tables, table: str) -> None:
    fill(tables, table, 101)
    everything: dict[str, Any] = {"filter": {"n": {"$gte": 0}}}

    assert tables.send("DELETE", f"/{table}/rows/bulk", everything).status_code == 400
    assert tables.send("DELETE", f"/{table}/rows/bulk", {"filter": {"n": {"$gt": 0}}}).json()["deleted_count"] == 100
    fill(tables, table, 100)
    confirmed = tables.send("DELETE", f"/{table}/rows/bulk", everything | {"confirm_large_operation": True})
    assert confirmed.json()["deleted_count"] == 101


def test_it_keeps_every_answered_insert_through_a_kill(tmp_path: Path) -> None:
    process = ZeroDBProcess(tmp_path)
    process.start()
    tables = Tables(process.tables_url)
    tables.send("POST", "", {"name": "kept"})
    answered: list[int] = []
    enough = threading.Event()

    def insert_until_it_dies(worker: int) -> None:
        client = Tables(process.tables_url)
        for number in count(worker, 4):
            try:
                client.send("POST", "/kept/rows", {"row_data": {"n": number}}).raise_for_status()
            except requests.ConnectionError:
                return
            answered.append(number)
            if len(answered) >= 200:
                enough.set()

    try:
        with ThreadPoolExecutor(4) as threads:
            inserting = [threads.submit(insert_until_it_dies, worker) for worker in range(4)]
            try:
                assert enough.wait(15)
            finally:
                process.kill()
        for thread in inserting:
            thread.result()
        process.start()
        found = {row["n"] for row in tables.query("kept", limit=1000)}
    finally:
        process.stop()

    assert set(answered) <= found


def fill(tables: Tables, table: str, rows: int) -> None:
    for number in range(rows):
        body = {"row_data": {"key": f"key-{number}", "n": number}}
        assert tables.send("POST", f"/{table}/rows", body).status_code == 200
