"""Who may do what with generation: stranger, outsider, viewer, program, at every endpoint; and what PostgreSQL lets pass."""

from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import IntegrityError, ProgrammingError, connection

from engarde.accounts.roles import Role, Scope
from engarde.common.scopes import tenant_scope
from generation.models import Job, JobEvent, JobItem, LLMKey, LLMKeyEvent
from tests import people
from tests.generation import house
from tests.generation.sockets import Hand
from tests.people import JSONClient, Person
from tests.providers import Provider

KEYS, EVENTS, KEY = "/api/llm-keys", "/api/llm-keys/events", "/api/llm-keys/openai"
VERIFY, GENERATE, BATCH = f"{KEY}/verify", "/api/content/generate", "/api/content/generate-batch"
JOBS = "/api/content/generation-jobs"
JOB = f"{JOBS}/{{id}}"
ITEMS, RESUME, RETRY = f"{JOB}/items", f"{JOB}/resume", f"{JOB}/retry"
BODIES: dict[tuple[str, str], Any] = {
    ("post", KEYS): {"provider": "openai", "api_key": "sk-another-0123456789"},
    ("post", GENERATE): {"prompt": "Write.", "content_type": "post"},
    ("post", BATCH): {
        "content_type": "post",
        "target_count": 1,
        "generation_params": {"prompt_template": "Write.", "topics": []},
    },
}
NEEDED: dict[tuple[str, str], set[Scope]] = {
    ("get", KEYS): {Scope.GENERATE, Scope.ADMIN},
    ("post", KEYS): {Scope.ADMIN},
    ("get", EVENTS): {Scope.ADMIN},
    ("delete", KEY): {Scope.ADMIN},
    ("post", VERIFY): {Scope.ADMIN},
    ("post", GENERATE): {Scope.GENERATE},
    ("post", BATCH): {Scope.GENERATE},
    ("get", JOBS): {Scope.CONTENT_READ, Scope.GENERATE},
    ("get", JOB): {Scope.CONTENT_READ, Scope.GENERATE},
    ("get", ITEMS): {Scope.CONTENT_READ, Scope.GENERATE},
    ("delete", JOB): {Scope.GENERATE},
    ("post", RESUME): {Scope.GENERATE},
    ("post", RETRY): {Scope.GENERATE},
}
ALL = list(NEEDED)
OF_ONE_JOB = [(method, path) for method, path in ALL if path.startswith(JOB)]
TABLES = {model._meta.db_table for model in (LLMKey, LLMKeyEvent, Job, JobItem, JobEvent)}


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with Provider() as running, house.reaching(running):
        yield running


@pytest.fixture
def alice(database: None, provider: Provider) -> Person:
    """Owner of a tenant with a provider key."""
    return house.new_studio("alice")


@pytest.fixture
def job_id(alice: Person) -> UUID:
    """A job of alice's with a finished, a failed and a pending item."""
    hand = Hand(alice, house.start(alice, 3))
    hand.finish(look=False)
    hand.finish(error="llm_refused", look=False)
    return hand.job_id


def call(credentials: Mapping[str, str], method: str, path: str, job_id: Any, **headers: str) -> Any:
    client = JSONClient()
    given: dict[str, Any] = {**credentials, **headers}
    client.credentials(**given)
    return getattr(client, method)(path.format(id=job_id), BODIES.get((method, path)))


def refused(answer: Any, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer["Content-Type"] == "application/problem+json"


def stored(person: Person) -> list[Any]:
    """Return all that a tenant has of generation, behind the platform's back."""
    with tenant_scope(person.tenant_id), connection.cursor() as cursor:
        found = []
        for table in sorted(TABLES):
            cursor.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3")
            found.append(cursor.fetchall())
    return found


# Strangers


@pytest.mark.parametrize(("method", "path"), ALL)
@pytest.mark.parametrize("credentials", [{}, {"HTTP_AUTHORIZATION": "Bearer x.y.z"}, {"HTTP_X_API_KEY": "eg_live_0_0"}])
def test_a_stranger_is_asked_who_they_are(
    alice: Person, job_id: UUID, credentials: dict[str, str], method: str, path: str
) -> None:
    before = stored(alice)

    answer = call(credentials, method, path, job_id)

    assert answer.status_code == 401
    assert answer["WWW-Authenticate"].startswith("Bearer")
    assert answer["Content-Type"] == "application/problem+json"
    assert "X-Quota-Used" not in answer
    assert stored(alice) == before


# Outsiders


@pytest.mark.parametrize(("method", "path"), OF_ONE_JOB)
def test_an_outsider_cannot_tell_a_job_from_none(
    alice: Person, charlie: Person, job_id: UUID, method: str, path: str
) -> None:
    before = stored(alice)

    theirs = call(charlie.credentials, method, path, job_id, HTTP_X_REQUEST_ID="same")
    none = call(charlie.credentials, method, path, uuid4(), HTTP_X_REQUEST_ID="same")

    refused(theirs, 404, "not_found")
    assert (theirs.content, theirs.headers) == (none.content, none.headers)
    assert stored(alice) == before


@pytest.mark.parametrize(("method", "path"), OF_ONE_JOB)
@pytest.mark.parametrize("job_id", ["nothing", "1", str(uuid4())[:-1], "%00"])
def test_a_malformed_id_is_not_found(alice: Person, job_id: str, method: str, path: str) -> None:
    refused(call(alice.credentials, method, path, job_id), 404, "not_found")


@pytest.mark.parametrize(("method", "path"), [("delete", KEY), ("post", VERIFY)])
def test_an_outsider_does_not_reach_anothers_key(alice: Person, charlie: Person, method: str, path: str) -> None:
    before = stored(alice)

    refused(call(charlie.credentials, method, path, None), 404, "not_found")
    assert stored(alice) == before


def test_an_outsider_does_not_write_with_anothers_key(alice: Person, charlie: Person) -> None:
    for path in (GENERATE, BATCH):
        body = {**BODIES["post", path], "provider": "openai"}
        refused(charlie.api.post(path, body), 409, "llm_key_missing")


def test_an_outsider_does_not_write_for_anothers_brand(alice: Person, charlie: Person) -> None:
    house.with_key(charlie)

    for path in (GENERATE, BATCH):
        body = BODIES["post", path]
        theirs = charlie.api.post(path, {**body, "brand_id": str(alice.brand_id)})
        none = charlie.api.post(path, {**body, "brand_id": str(uuid4())})
        assert (theirs.status_code, theirs.json()["errors"]) == (400, none.json()["errors"])


def test_an_outsiders_lists_have_nothing_of_others_in_them(alice: Person, charlie: Person, job_id: UUID) -> None:
    assert charlie.api.get(KEYS).json() == {"providers": []}
    for path in (EVENTS, JOBS):
        page = charlie.api.get(path).json()
        assert (page["data"], page["pagination"]["total"]) == ([], 0)


def test_anothers_cursor_shows_ones_own_jobs_only(alice: Person, charlie: Person) -> None:
    hers = {str(house.start(alice, 1)) for _ in range(3)}
    house.with_key(charlie)
    theirs = {str(house.start(charlie, 1)) for _ in range(2)}
    cursors = [alice.api.get(f"{JOBS}?pageSize={size}").json()["pagination"]["nextCursor"] for size in (1, 2)]

    for cursor in cursors:
        answer = charlie.api.get(f"{JOBS}?cursor={cursor}")
        met = {job["job_id"] for job in answer.json()["data"]}
        assert met <= theirs
        assert not met & hers
        assert answer.json()["pagination"]["total"] == 2


def test_a_cursor_of_anothers_items_is_refused(alice: Person, charlie: Person, job_id: UUID) -> None:
    cursor = alice.api.get(f"{ITEMS.format(id=job_id)}?pageSize=1").json()["pagination"]["nextCursor"]
    house.with_key(charlie)
    theirs = house.start(charlie, 3)

    refused(charlie.api.get(f"{ITEMS.format(id=theirs)}?cursor={cursor}"), 400, "validation_error")
    refused(charlie.api.get(f"{ITEMS.format(id=job_id)}?cursor={cursor}"), 404, "not_found")


def test_an_outsider_gets_no_answer_that_is_kept_for_another(alice: Person, charlie: Person) -> None:
    house.with_key(charlie)

    hers, his = (
        person.api.post(BATCH, BODIES["post", BATCH], HTTP_IDEMPOTENCY_KEY="same") for person in (alice, charlie)
    )

    assert (hers.status_code, his.status_code, "Idempotency-Replayed" in his) == (202, 202, False)
    assert hers.json()["job_id"] != his.json()["job_id"]


@pytest.mark.parametrize(("method", "path"), ALL)
def test_nobody_gets_in_by_naming_anothers_tenant(
    alice: Person, charlie: Person, job_id: UUID, method: str, path: str
) -> None:
    before = stored(alice)

    for outsider in (charlie, people.logged_in(charlie)):
        answer = call(outsider.credentials, method, path, job_id, HTTP_X_TENANT_ID=str(alice.tenant_id))
        assert answer.status_code == 403
    assert stored(alice) == before


# Members and programs


@pytest.mark.parametrize(("method", "path"), ALL)
def test_a_viewer_reads_jobs_and_does_nothing_else(alice: Person, job_id: UUID, method: str, path: str) -> None:
    viewer = people.new_colleague(alice, Role.VIEWER)
    before = stored(alice)

    answer = call(viewer.credentials, method, path, job_id)

    if Scope.CONTENT_READ in NEEDED[method, path]:
        assert answer.status_code == 200
    else:
        refused(answer, 403, "permission_denied")
    assert stored(alice) == before


@pytest.mark.parametrize(("method", "path"), [one for one in ALL if NEEDED[one] == {Scope.ADMIN}])
def test_an_editor_does_not_manage_keys(alice: Person, method: str, path: str) -> None:
    editor = people.new_colleague(alice, Role.EDITOR)
    before = stored(alice)

    refused(call(editor.credentials, method, path, None), 403, "permission_denied")
    assert stored(alice) == before


@pytest.mark.parametrize(("method", "path"), ALL)
def test_a_key_without_any_of_the_scopes_is_refused(alice: Person, job_id: UUID, method: str, path: str) -> None:
    others = [scope for scope in Scope if scope not in NEEDED[method, path]]
    key = alice.api.post("/api/api-keys", {"name": "a program", "scopes": others}).json()["key"]
    before = stored(alice)

    for known in (job_id, uuid4()):
        refused(call({"HTTP_X_API_KEY": key}, method, path, known), 403, "permission_denied")
    assert stored(alice) == before


@pytest.mark.parametrize(("method", "path", "scope"), [(*one, scope) for one in ALL for scope in sorted(NEEDED[one])])
def test_a_key_with_one_of_the_scopes_is_enough(
    alice: Person, job_id: UUID, method: str, path: str, scope: Scope
) -> None:
    key = alice.api.post("/api/api-keys", {"name": "a program", "scopes": [scope]}).json()["key"]

    answer = call({"HTTP_X_API_KEY": key}, method, path, job_id)

    assert answer.status_code in ({409} if path in {RESUME, RETRY} else {200, 202, 204}), answer.content


@pytest.mark.parametrize("table", sorted(TABLES))
def test_no_answer_has_the_key_in_it(alice: Person, job_id: UUID, table: str) -> None:
    with tenant_scope(alice.tenant_id), connection.cursor() as cursor:
        cursor.execute(f"SELECT {table}::text FROM {table}")
        assert not any(house.KEY in row for (row,) in cursor.fetchall())
    for method, path in ALL:
        if method == "get":
            assert house.KEY.encode() not in call(alice.credentials, method, path, job_id).content


# Behind the platform's back


@pytest.mark.parametrize("table", sorted(TABLES))
def test_a_tenants_scope_has_no_row_of_anothers(alice: Person, charlie: Person, job_id: UUID, table: str) -> None:
    def rows(person: Person) -> int:
        with tenant_scope(person.tenant_id), connection.cursor() as cursor:
            cursor.execute(f"SELECT count(*) FROM {table}")
            return int(cursor.fetchone()[0])

    assert rows(alice) > 0
    assert rows(charlie) == 0


@pytest.mark.parametrize("table", sorted(TABLES))
def test_a_tenants_scope_changes_and_removes_no_row_of_anothers(
    alice: Person, charlie: Person, job_id: UUID, table: str
) -> None:
    before = stored(alice)

    with tenant_scope(charlie.tenant_id), connection.cursor() as cursor:
        cursor.execute(f"UPDATE {table} SET tenant_id = %s", [charlie.tenant_id])
        assert cursor.rowcount == 0
        cursor.execute(f"DELETE FROM {table}")
        assert cursor.rowcount == 0

    assert stored(alice) == before


@pytest.mark.parametrize("table", sorted(TABLES))
def test_without_a_scope_there_are_no_rows(alice: Person, job_id: UUID, table: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {table}")
        assert cursor.fetchone() == (0,)


ITEM = "INSERT INTO content_generation_items (tenant_id, job_id, index) VALUES (%s, %s, 100)"
EVENT = (
    "INSERT INTO content_generation_events (tenant_id, job_id, seq, index, status) VALUES (%s, %s, 100, 100, 'failed')"
)


@pytest.mark.parametrize("insert", [ITEM, EVENT])
def test_nothing_can_be_put_into_anothers_job(alice: Person, charlie: Person, job_id: UUID, insert: str) -> None:
    before = stored(alice)

    with pytest.raises(ProgrammingError, match="row-level security"):
        _execute(charlie, insert, [alice.tenant_id, job_id])
    with pytest.raises(IntegrityError):
        _execute(charlie, insert, [charlie.tenant_id, job_id])

    assert stored(alice) == before
    assert not any(stored(charlie))


def _execute(person: Person, sql: str, values: list[Any]) -> None:
    with tenant_scope(person.tenant_id), connection.cursor() as cursor:
        cursor.execute(sql, values)
