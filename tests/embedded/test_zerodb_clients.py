"""Other people's ZeroDB clients against the emulator: it serves what is documented and refuses the rest plainly.

Requests of clients that are not on PyPI are replayed as their sources write them. ainative-python and ainative-agent, which
are, run as they are, in an environment of their own; that takes the package index, so those tests are marked `soak`.
docs/guides/zerodb.md has the outcome as a table.
"""

import json
import subprocess
import venv
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
import requests

from tests.zerodb_process import API_KEY, PROJECT_ID, ZeroDBProcess

PACKAGES = ["ainative-python==3.1.1", "ainative-agent==0.1.0"]
AGENT_402 = {"X-API-Key": API_KEY, "Content-Type": "application/json"}
OPENCLAW = {"Authorization": f"Bearer {API_KEY}", "Content-Type": "application/json"}

_numbers = count()


class Client:
    """Sends bytes as some client does."""

    def __init__(self, root: str, headers: dict[str, str]) -> None:
        self.root, self.headers = root, headers

    def send(self, method: str, path: str, body: bytes | None = None) -> requests.Response:
        return requests.request(method, self.root + path, data=body, headers=self.headers, timeout=10)

    def answer(self, method: str, path: str, body: bytes | None = None) -> Any:
        response = self.send(method, path, body)
        assert response.status_code == 200, response.text
        return response.json()


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZeroDBProcess]:
    process = ZeroDBProcess(tmp_path_factory.mktemp("zerodb"))
    process.start()
    yield process
    process.stop()


@pytest.fixture
def agent_402(emulator: ZeroDBProcess) -> Client:
    """Agent-402's client as it is since 2026-04-27, with `base_url` .../api/v1."""
    return Client(f"{emulator.url}/api/v1/projects/{PROJECT_ID}/database/tables", AGENT_402)


@pytest.fixture
def openclaw(emulator: ZeroDBProcess) -> Client:
    """openclaw-backend's client, with `api_url` the bare host."""
    return Client(f"{emulator.url}/v1/public/{PROJECT_ID}/database/tables", OPENCLAW)


@pytest.fixture
def table(agent_402: Client) -> str:
    name = f"table_{next(_numbers)}"
    agent_402.answer("POST", "", b'{"table_name":"%s"}' % name.encode())
    return name


# Requests as the clients' sources write them


def test_agent_402_works_its_tables(agent_402: Client) -> None:
    schema = b'{"columns":[{"name":"run_id","type":"string"}]}'
    made = agent_402.answer("POST", "", b'{"table_name":"runs","schema_definition":%s}' % schema)

    assert made["schema"] == json.loads(schema)
    assert made in agent_402.answer("GET", "")["data"]
    assert agent_402.answer("GET", f"/{made['table_id']}") == made
    agent_402.answer("DELETE", "/runs")
    assert agent_402.send("GET", "/runs").status_code == 404


def test_agent_402_works_its_rows(agent_402: Client, table: str) -> None:
    first = agent_402.answer("POST", f"/{table}/rows", b'{"row_data":{"run_id":"r1","status":"open"}}')
    second = agent_402.answer("POST", f"/{table}/rows", b'{"row_data":{"run_id":"r2","status":"open"}}')
    path = f"/{table}/rows/{first['row_id']}"

    assert agent_402.answer("GET", f"/{table}/rows?skip=0&limit=100")["data"] == [first, second]
    assert agent_402.answer("GET", path) == first
    open_ones = agent_402.answer("POST", f"/{table}/query", b'{"filter":{"status":"open"},"limit":100,"skip":1}')
    assert (open_ones["data"], open_ones["total"]) == ([second], 2)
    assert agent_402.answer("PUT", path, b'{"row_data":{"run_id":"r1"}}')["row_data"] == {"run_id": "r1"}
    assert first["row_id"] in agent_402.answer("DELETE", path)["message"]
    assert agent_402.send("GET", path).json() == {"detail": "Row not found"}


def test_openclaw_works_its_cache(openclaw: Client, table: str) -> None:
    for key in (b"a", b"b"):
        body = b'{"row_data":{"key":"%s","value":"old","expires_at":1234567890}}' % key
        assert openclaw.answer("POST", f"/{table}/rows", body)["row_data"]["key"] == key.decode()
    openclaw.answer("POST", f"/{table}/rows", b'{"row_data":{"key":"c","value":"old","expires_at":null}}')

    update = b'{"filter":{"key":{"$eq":"a"}},"update":{"$set":{"value":"new","expires_at":1234567999}}}'
    assert openclaw.answer("PUT", f"/{table}/rows/bulk", update)["modified_count"] == 1
    query = b'{"filter":{"expires_at":{"$gt":1234567890}},"limit":100,"skip":0}'
    found = openclaw.answer("POST", f"/{table}/query", query)["data"]
    assert [row["row_data"]["value"] for row in found] == ["new"]
    expired = b'{"filter":{"expires_at":{"$lt":1234567999,"$ne":null}}}'
    assert openclaw.answer("DELETE", f"/{table}/rows/bulk", expired)["deleted_count"] == 1
    left = openclaw.answer("POST", f"/{table}/query", b'{"filter":{"key":{"$ne":null}},"limit":100,"skip":0}')
    assert [row["row_data"]["key"] for row in left["data"]] == ["a", "c"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "says"),
    [
        ("POST", "/{t}/rows", b'{"rows":[{"key":"a"},{"key":"b"}]}', 422, "rows"),
        ("POST", "/{t}/upsert", b'{"rows":[{"key":"a"}],"unique_key":"key"}', 404, "Not Found"),
        ("POST", "/{t}/query", b'{"filter":{"$or":[{"key":"a"}]},"limit":100,"skip":0}', 400, "$or"),
    ],
)
def test_openclaw_is_refused_where_it_leaves_the_documents(
    openclaw: Client, table: str, method: str, path: str, body: bytes, status: int, says: str
) -> None:
    answer = openclaw.send(method, path.replace("{t}", table), body)

    assert answer.status_code == status
    assert says in answer.text


def test_it_takes_three_harmless_liberties_of_ainative_python(agent_402: Client, table: str) -> None:
    agent_402.answer("POST", f"/{table}/rows", b'{"row_data":{"n":1}}')

    assert agent_402.answer("GET", "?limit=100&offset=0")["skip"] == 0
    assert len(agent_402.answer("POST", f"/{table}/query", b'{"limit":100,"offset":0}')["data"]) == 1
    counted = agent_402.answer("POST", f"/{table}/query", b'{"limit":0,"offset":0,"filter":{"n":1}}')
    assert (counted["total"], counted["data"], counted["has_more"]) == (1, [], True)
    assert agent_402.send("DELETE", f"/{table}", b'{"confirm":false}').status_code == 400
    agent_402.answer("DELETE", f"/{table}", b'{"confirm":true}')


@pytest.mark.parametrize(
    ("method", "path", "body", "key"),
    [
        ("GET", "?limit=100&offset=100", None, ["query", "offset"]),
        ("POST", "/{t}/query", b'{"limit":100,"offset":100}', ["body", "offset"]),
        ("POST", "/{t}/query", b'{"limit":100,"offset":0,"projection":{"n":1}}', ["body", "projection"]),
        ("POST", "/{t}/rows", b'{"rows":[{"n":1}],"return_ids":true}', ["body", "rows"]),
        ("DELETE", "/{t}", b'{"force":true}', ["body", "force"]),
    ],
)
def test_it_names_the_key_it_does_not_know(
    agent_402: Client, table: str, method: str, path: str, body: bytes | None, key: list[str]
) -> None:
    answer = agent_402.send(method, path.replace("{t}", table), body)

    assert answer.status_code == 422
    assert key in [problem["loc"] for problem in answer.json()["detail"]]


@pytest.mark.parametrize(
    ("client", "method", "path", "body"),
    [
        ("ainative-agent", "GET", "/api/v1/public/tables/", None),
        ("ainative-python without /api/v1/", "GET", f"/api/projects/{PROJECT_ID}/database/tables", None),
        ("zerodb-mcp", "POST", "/api/v1/public/zerodb/mcp/execute", b'{"operation":"list_tables","params":{}}'),
        ("zerodb-rq, zerodb-apscheduler", "POST", f"/api/v1/public/tables/{PROJECT_ID}", b'{"name":"rq_jobs"}'),
        ("zerodb-supabase", "POST", "/api/v1/public/tables/query", b'{"table":"t","operation":"select","filters":[]}'),
        ("zerodb-celery", "POST", "/api/v1/zerodb/tables", b'{"name":"t","columns":{}}'),
        ("openclaw create_table", "POST", f"/projects/{PROJECT_ID}/tables", b'{"table_name":"t"}'),
    ],
)
def test_addresses_that_no_page_documents_get_the_routers_404(
    emulator: ZeroDBProcess, client: str, method: str, path: str, body: bytes | None
) -> None:
    answer = Client(emulator.url, AGENT_402).send(method, path, body)

    assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"}), client


# The packages themselves

SCRIPT = """
import asyncio, json, sys

url, key, project = sys.argv[1:]


def outcome(call):
    try:
        return {"value": call()}
    except Exception as error:
        return {
            "error": type(error).__name__,
            "status": getattr(error, "status_code", None),
            "body": getattr(error, "response_body", None),
        }


def ainative_python():
    from ainative import AINativeClient

    tables = AINativeClient(api_key=key, base_url=url + "/api/v1/").zerodb.tables
    yield "create", lambda: tables.create_table(project, "people", {"fields": {"n": "number"}}, "People")
    yield "create_again", lambda: tables.create_table(project, "people", {})
    yield "list", lambda: tables.list_tables(project)
    yield "list_page_two", lambda: tables.list_tables(project, limit=10, offset=10)
    yield "get", lambda: tables.get_table(project, "people")
    yield "exists", lambda: [tables.table_exists(project, name) for name in ("people", "nobody")]
    yield "insert", lambda: tables.insert_rows(project, "people", [{"n": 1}])
    for n in range(5):  # it has no other way to send what is documented
        path = f"/projects/{project}/database/tables/people/rows"
        tables.client.post(path, data={"row_data": {"n": n}})
    yield "query", lambda: tables.query_rows(project, "people", {"n": {"$gte": 1}}, {"n": -1}, limit=2)
    yield "query_page_two", lambda: tables.query_rows(project, "people", limit=2, offset=2)
    yield "query_projection", lambda: tables.query_rows(project, "people", projection={"n": 1})
    yield "count", lambda: tables.count_rows(project, "people", {"n": {"$lt": 3}})
    yield "update", lambda: tables.update_rows(project, "people", {"n": 1}, {"$set": {"n": 9}})
    yield "delete_rows", lambda: tables.delete_rows(project, "people", {"n": 1})
    yield "delete", lambda: tables.delete_table(project, "people", confirm=True)
    yield "exists_after", lambda: tables.table_exists(project, "people")
    stranger = AINativeClient(api_key="wrong", base_url=url + "/api/v1/").zerodb.tables
    yield "wrong_key", lambda: stranger.list_tables(project)
    misled = AINativeClient(api_key=key, base_url=url).zerodb.tables
    yield "bare_host", lambda: misled.list_tables(project)


def ainative_agent():
    from ainative_agent import AINativeClient

    async def list_tables():
        return await AINativeClient(api_key=key, base_url=url).tables.list()

    yield "agent_list", lambda: asyncio.run(list_tables())


print(json.dumps({name: outcome(call) for run in (ainative_python, ainative_agent) for name, call in run()}))
"""


@pytest.fixture(scope="module")
def outcomes(emulator: ZeroDBProcess, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each call of the script returned or raised."""
    place = tmp_path_factory.mktemp("clients")
    python = place / "bin" / "python"
    venv.create(place, with_pip=True)
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    command = [str(python), "-I", "-c", SCRIPT, emulator.url, API_KEY, PROJECT_ID]
    ran = subprocess.run(command, cwd=place, capture_output=True, text=True, check=True, timeout=120)
    answers: dict[str, Any] = json.loads(ran.stdout)
    return answers


@pytest.mark.soak
def test_ainative_python_works_where_it_keeps_to_the_documents(outcomes: dict[str, Any]) -> None:
    value = {name: outcome.get("value") for name, outcome in outcomes.items()}

    assert value["create"]["table_name"] == value["get"]["table_name"] == "people"
    assert value["create"]["table_id"] in [each["table_id"] for each in value["list"]["data"]]
    assert value["exists"] == [True, False]
    assert [row["row_data"]["n"] for row in value["query"]["data"]] == [4, 3]
    assert (value["query"]["total"], value["query"]["has_more"]) == (4, True)
    assert value["count"] == 3
    assert "people" in value["delete"]["message"]
    assert value["exists_after"] is False


@pytest.mark.soak
@pytest.mark.parametrize(
    ("call", "status", "says"),
    [
        ("create_again", 409, "already exists"),
        ("insert", 422, "row_data"),
        ("list_page_two", 422, "offset"),
        ("query_page_two", 422, "offset"),
        ("query_projection", 422, "projection"),
        ("update", 405, "Method Not Allowed"),
        ("delete_rows", 405, "Method Not Allowed"),
        ("bare_host", 404, "Not Found"),
    ],
)
def test_ainative_python_is_refused_plainly_where_it_does_not(
    outcomes: dict[str, Any], call: str, status: int, says: str
) -> None:
    assert outcomes[call]["error"] == "APIError"
    assert outcomes[call]["status"] == status
    assert says in outcomes[call]["body"]


@pytest.mark.soak
def test_ainative_python_knows_a_refused_key(outcomes: dict[str, Any]) -> None:
    assert outcomes["wrong_key"]["error"] == "AuthenticationError"


@pytest.mark.soak
def test_ainative_agent_uses_addresses_that_are_not_there(outcomes: dict[str, Any]) -> None:
    assert outcomes["agent_list"] == {"error": "NotFoundError", "status": 404, "body": None}
