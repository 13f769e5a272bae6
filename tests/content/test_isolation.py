"""Who may do what: owner, colleague, program, outsider, stranger, at every content endpoint."""

import json
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import pytest

from engarde.accounts.roles import Role, Scope
from tests import people
from tests.people import JSONClient, Person
from tests.stored import stored_by

VALID = {"title": "A title", "type": "post"}
ITEM = "/api/content/{id}"
BULK, EXPORT, UNDELETE, RESTORE = (
    "/api/content/bulk",
    "/api/content/export",
    f"{ITEM}/restore",
    f"{ITEM}/versions/1/restore",
)
READS_OF_ONE = [
    ("get", ITEM),
    ("get", f"{ITEM}?version=1"),
    ("get", f"{ITEM}/versions"),
    ("get", f"{ITEM}/versions/1"),
    ("get", f"{ITEM}/versions/1/diff?against=1"),
]
WRITES_OF_ONE = [("patch", ITEM), ("delete", ITEM), ("post", UNDELETE), ("post", RESTORE)]
READS = [("get", "/api/content"), ("get", EXPORT), *READS_OF_ONE]
WRITES = [("post", "/api/content"), ("post", BULK), *WRITES_OF_ONE]
OK = {("post", "/api/content"): 201, ("post", UNDELETE): 409}  # a live item is not undeleted; the others answer 200


def ok(method: str, path: str) -> int:
    return OK.get((method, path), 200)


def call(credentials: Mapping[str, str], method: str, path: str, content_id: Any, **headers: str) -> Any:
    client = JSONClient()
    all_headers: dict[str, Any] = {**credentials, **headers}
    client.credentials(**all_headers)
    bodies: dict[tuple[str, str], Any] = {
        ("post", "/api/content"): VALID,
        ("post", BULK): {"action": "publish", "ids": [str(content_id or uuid4())]},
        ("patch", ITEM): {"title": "Another title"},
    }
    return getattr(client, method)(path.format(id=content_id), bodies.get((method, path)))


def refused(answer: Any, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer["Content-Type"] == "application/problem+json"


def key_with(owner: Person, *scopes: Scope) -> dict[str, str]:
    """Make an API key and return its header."""
    answer = owner.api.post("/api/api-keys", {"name": "a program", "scopes": list(scopes)})
    assert answer.status_code == 201, answer.content
    return {"HTTP_X_API_KEY": answer.json()["key"]}


# Members of the tenant


@pytest.mark.parametrize(("method", "path"), READS + WRITES)
@pytest.mark.parametrize("role", [Role.OWNER, Role.ADMIN, Role.EDITOR])
def test_those_who_write_may_do_everything_with_an_item(alice: Person, role: Role, method: str, path: str) -> None:
    member = people.new_colleague(alice, role)
    item_id = alice.writes()["id"]

    assert call(member.credentials, method, path, item_id).status_code == ok(method, path)


@pytest.mark.parametrize(("method", "path"), READS)
def test_a_viewer_may_read(alice: Person, method: str, path: str) -> None:
    viewer = people.new_colleague(alice, Role.VIEWER)

    assert call(viewer.credentials, method, path, alice.writes()["id"]).status_code == 200


@pytest.mark.parametrize(("method", "path"), WRITES)
def test_a_viewer_may_not_write(alice: Person, method: str, path: str) -> None:
    viewer = people.new_colleague(alice, Role.VIEWER)
    item_id = alice.writes()["id"]
    before = stored_by(alice.tenant_id)

    refused(call(viewer.credentials, method, path, item_id), 403, "permission_denied")
    refused(call(viewer.credentials, method, path, uuid4()), 403, "permission_denied")
    assert stored_by(alice.tenant_id) == before


def test_colleagues_see_the_same_items(alice: Person, bob: Person) -> None:
    hers, his = alice.writes()["id"], bob.writes()["id"]

    for person in (alice, bob):
        assert [item["id"] for item in person.api.get("/api/content").json()["data"]] == [his, hers]


# Programs


@pytest.mark.parametrize(("method", "path"), READS + WRITES)
def test_a_key_with_just_the_scope_that_is_needed_is_enough(alice: Person, method: str, path: str) -> None:
    needed = Scope.CONTENT_READ if method == "get" else Scope.CONTENT_WRITE

    assert call(key_with(alice, needed), method, path, alice.writes()["id"]).status_code == ok(method, path)


@pytest.mark.parametrize(("method", "path"), READS + WRITES)
def test_a_key_with_every_scope_but_the_one_that_is_needed_is_refused(alice: Person, method: str, path: str) -> None:
    needed = Scope.CONTENT_READ if method == "get" else Scope.CONTENT_WRITE
    others = [scope for scope in Scope if scope != needed]
    item_id = alice.writes()["id"]
    key = key_with(alice, *others)
    before = stored_by(alice.tenant_id)

    answer = call(key, method, path, item_id)

    refused(answer, 403, "permission_denied")
    assert needed in answer.json()["detail"]
    assert stored_by(alice.tenant_id) == before


def test_a_key_is_taken_in_either_header(alice: Person) -> None:
    key = alice.credentials["HTTP_X_API_KEY"]

    for credentials in ({"HTTP_X_API_KEY": key}, {"HTTP_AUTHORIZATION": f"Bearer {key}"}):
        assert call(credentials, "get", "/api/content", None).status_code == 200


# Outsiders


@pytest.mark.parametrize(("method", "path"), READS_OF_ONE + WRITES_OF_ONE)
def test_an_outsider_cannot_tell_an_item_from_none(alice: Person, charlie: Person, method: str, path: str) -> None:
    item_id = alice.writes()["id"]
    before, item = stored_by(alice.tenant_id), alice.api.get(f"/api/content/{item_id}").json()

    theirs = call(charlie.credentials, method, path, item_id, HTTP_X_REQUEST_ID="same")
    none = call(charlie.credentials, method, path, uuid4(), HTTP_X_REQUEST_ID="same")

    refused(theirs, 404, "not_found")
    assert theirs.content == none.content
    assert theirs.headers == none.headers
    assert stored_by(alice.tenant_id) == before
    assert alice.api.get(f"/api/content/{item_id}").json() == item


def test_an_outsiders_list_has_nothing_of_others_in_it(alice: Person, charlie: Person) -> None:
    alice.writes()
    theirs = charlie.writes()["id"]

    page = charlie.api.get("/api/content").json()

    assert [item["id"] for item in page["data"]] == [theirs]
    assert page["pagination"]["total"] == 1


def test_an_outsider_cannot_undelete(alice: Person, charlie: Person) -> None:
    item_id = alice.writes()["id"]
    alice.api.delete(f"/api/content/{item_id}")
    before = stored_by(alice.tenant_id)

    refused(call(charlie.credentials, "post", UNDELETE, item_id), 404, "not_found")
    assert stored_by(alice.tenant_id) == before
    assert charlie.api.get("/api/content?deleted=true").json()["data"] == []


@pytest.mark.parametrize("action", ["delete", "restore", "publish", "archive", "tag"])
def test_an_outsider_cannot_tell_items_from_none_in_bulk(alice: Person, charlie: Person, action: str) -> None:
    item_id, nothing = alice.writes()["id"], str(uuid4())
    before, item = stored_by(alice.tenant_id), alice.api.get(f"/api/content/{item_id}").json()
    tags = {"tags": ["a"]} if action == "tag" else {}

    answer = charlie.api.post(BULK, {"action": action, "ids": [item_id, nothing], **tags})

    theirs, none = answer.json()["results"]
    assert (theirs.pop("id"), none.pop("id")) == (item_id, nothing)
    assert theirs == none == {"ok": False, "status": 404, "code": "not_found"}
    assert stored_by(alice.tenant_id) == before
    assert alice.api.get(f"/api/content/{item_id}").json() == item


def test_an_outsiders_export_and_search_have_nothing_of_others_in_them(alice: Person, charlie: Person) -> None:
    alice.writes(title="Secret", tags=["secret"], platforms=["secret"])
    item_id = charlie.writes(title="Mine")["id"]

    answer: Any = charlie.api.get(EXPORT)
    assert [json.loads(line)["id"] for line in answer.streaming_content] == [item_id]
    for query in ("search=secret", "tags=secret", "platform=secret", f"brand_id={alice.brand_id}", "search=s"):
        page = charlie.api.get(f"/api/content?{query}&count=exact").json()
        assert (page["data"], page["pagination"]["total"]) == ([], 0)


@pytest.mark.parametrize("query", ["sort=-created_at", "sort=title", "search=title"])
def test_anothers_cursor_shows_ones_own_items_only(alice: Person, charlie: Person, query: str) -> None:
    mine = {charlie.writes()["id"] for _ in range(2)}
    hers = {alice.writes()["id"] for _ in range(3)}
    cursor = alice.api.get(f"/api/content?{query}&pageSize=1").json()["pagination"]["nextCursor"]

    page = charlie.api.get(f"/api/content?{query}&cursor={cursor}").json()

    met = {item["id"] for item in page["data"]}
    assert met <= mine
    assert not met & hers
    assert page["pagination"]["total"] == 2


def test_an_outsider_gets_no_answer_that_is_kept_for_another(alice: Person, charlie: Person) -> None:
    hers = alice.api.post("/api/content", VALID, HTTP_IDEMPOTENCY_KEY="same")
    his = charlie.api.post("/api/content", VALID, HTTP_IDEMPOTENCY_KEY="same")

    assert (his.status_code, "Idempotency-Replayed" in his) == (201, False)
    assert his.json()["id"] != hers.json()["id"]


def test_an_outsider_learns_nothing_by_preconditions(alice: Person, charlie: Person) -> None:
    item_id = alice.writes()["id"]
    tag = alice.api.get(f"/api/content/{item_id}")["ETag"]

    for known in (tag, "*", '"x"'):
        for method, path in READS_OF_ONE:
            refused(call(charlie.credentials, method, path, item_id, HTTP_IF_NONE_MATCH=known), 404, "not_found")
        for method, path in WRITES_OF_ONE:
            refused(call(charlie.credentials, method, path, item_id, HTTP_IF_MATCH=known), 404, "not_found")


def test_an_outsider_cannot_write_into_anothers_brand(alice: Person, charlie: Person) -> None:
    mine = charlie.writes()["id"]
    before = stored_by(charlie.tenant_id)

    for brand_id in (str(alice.brand_id), str(uuid4())):
        created = charlie.api.post("/api/content", {**VALID, "brand_id": brand_id})
        moved = charlie.api.patch(f"/api/content/{mine}", {"brand_id": brand_id})
        assert [answer.status_code for answer in (created, moved)] == [400, 400]
        assert created.json()["errors"] == moved.json()["errors"]
        assert created.json()["errors"][0]["code"] == "unknown_brand"
    assert stored_by(charlie.tenant_id) == before
    assert stored_by(alice.tenant_id).items == 0


def test_nobody_gets_in_by_naming_anothers_tenant(alice: Person, charlie: Person) -> None:
    item_id = alice.writes()["id"]
    before = stored_by(alice.tenant_id)

    for outsider in (charlie, people.logged_in(charlie)):
        for tenant_id in (alice.tenant_id, uuid4(), "nothing"):
            for method, path in READS + WRITES:
                answer = call(outsider.credentials, method, path, item_id, HTTP_X_TENANT_ID=str(tenant_id))
                assert answer.status_code == 403, (method, path)
    assert stored_by(alice.tenant_id) == before


# Strangers


@pytest.mark.parametrize(
    "credentials",
    [
        {},
        {"HTTP_X_API_KEY": "eg_live_nonsense"},
        {"HTTP_X_API_KEY": "nonsense"},
        {"HTTP_AUTHORIZATION": "Bearer nonsense"},
        {"HTTP_AUTHORIZATION": "Bearer"},
        {"HTTP_AUTHORIZATION": "Basic YTpi"},
        {"HTTP_AUTHORIZATION": "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0."},
    ],
)
def test_a_stranger_is_asked_for_credentials(alice: Person, credentials: dict[str, str]) -> None:
    item_id = alice.writes()["id"]

    for method, path in READS + WRITES:
        answer = call(credentials, method, path, item_id)
        assert answer.status_code == 401, (method, path)
        assert answer["WWW-Authenticate"].startswith("Bearer")
        assert answer["Content-Type"] == "application/problem+json"
        assert "X-Quota-Used" not in answer
    assert alice.api.get(f"/api/content/{item_id}").json()["version"] == 1


@pytest.mark.parametrize(("method", "path"), [one for one in READS_OF_ONE + WRITES_OF_ONE if one[1] != UNDELETE])
def test_what_is_in_the_trash_is_not_there(alice: Person, method: str, path: str) -> None:
    item_id = alice.writes()["id"]
    alice.api.delete(f"/api/content/{item_id}")

    refused(call(alice.credentials, method, path, item_id), 404, "not_found")
