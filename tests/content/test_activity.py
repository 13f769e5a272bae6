"""The activity feed: who did what, newest first, by cursor."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from content.models import ContentVersion
from engarde.accounts.models import Membership, User
from engarde.accounts.roles import Role
from engarde.common.scopes import system_scope
from tests import people
from tests.people import Person


def feed(person: Person, **query: Any) -> list[dict[str, Any]]:
    """Return a page of the feed."""
    answer = person.api.get("/api/activity", query)
    assert answer.status_code == 200, answer.content
    return answer.json()["data"]


def whole_feed(person: Person, **query: Any) -> list[dict[str, Any]]:
    """Return all pages of the feed."""
    acts: list[dict[str, Any]] = []
    while True:
        page = person.api.get("/api/activity", query).json()
        acts += page["data"]
        assert page["pagination"]["hasNext"] == (page["pagination"]["nextCursor"] is not None)
        if not page["pagination"]["hasNext"]:
            return acts
        query["cursor"] = page["pagination"]["nextCursor"]


def rename(person: Person, first: str, last: str) -> None:
    User.objects.filter(id=person.user_id).update(first_name=first, last_name=last)


def test_it_tells_who_did_what_newest_first(alice: Person, bob: Person) -> None:
    rename(bob, "Bob", "Builder")
    item = bob.writes(title="First title", type="ad")
    alice.api.patch(f"/api/content/{item['id']}", {"title": "Second title"})
    alice.api.delete(f"/api/content/{item['id']}")

    deleted, updated, created = feed(alice)

    assert [one["action"] for one in (deleted, updated, created)] == ["delete", "update", "create"]
    assert [one["version"] for one in (deleted, updated, created)] == [3, 2, 1]
    assert created["actor"] == {"id": str(bob.user_id), "type": "user", "name": "Bob Builder"}
    assert updated["actor"]["type"] == "api_key"
    assert updated["actor"]["name"]
    assert updated["changed_fields"] == ["title"]
    assert created["at"] == item["created_at"]
    for one in (deleted, updated, created):
        assert one["content_id"] == item["id"]
        assert (one["title"], one["content_type"]) == ("Second title", "ad")


def test_what_the_platform_did_has_no_id(alice: Person) -> None:
    item_id = alice.writes()["id"]
    with system_scope("a test"):
        ContentVersion.objects.filter(content_id=UUID(item_id)).update(changed_by=None)

    [act] = feed(alice)

    assert act["actor"] == {"id": None, "type": "platform", "name": None}


def test_somebody_without_a_name_is_called_by_address_and_somebody_who_left_by_none(alice: Person, bob: Person) -> None:
    bob.writes()
    assert feed(alice)[0]["actor"]["name"] == bob.email

    with system_scope("a test removes a member"):
        Membership.objects.filter(tenant_id=alice.tenant_id, user_id=bob.user_id).delete()

    assert feed(alice)[0]["actor"] == {"id": str(bob.user_id), "type": "user", "name": None}


def test_a_key_keeps_its_name_when_it_is_revoked(alice: Person) -> None:
    made = alice.api.post("/api/api-keys", {"name": "Night shift", "scopes": ["content:write"]}).json()
    program = Person("", uuid4(), alice.tenant_id, alice.brand_id, {"HTTP_X_API_KEY": made["key"]})
    program.writes()
    alice.api.delete(f"/api/api-keys/{made['id']}")

    assert feed(alice)[0]["actor"] == {"id": made["id"], "type": "api_key", "name": "Night shift"}


def test_it_is_read_by_cursor_without_holes_or_repeats(alice: Person) -> None:
    ids = [alice.writes()["id"] for _ in range(7)]
    for item_id in ids[:3]:
        alice.api.patch(f"/api/content/{item_id}", {"title": "Another"})

    for size in (1, 3, 10, 100):
        acts = whole_feed(alice, pageSize=size)
        assert [(one["content_id"], one["version"]) for one in acts] == [
            *((item_id, 2) for item_id in ids[2::-1]),
            *((item_id, 1) for item_id in ids[::-1]),
        ]


def test_acts_of_the_same_moment_are_each_there_once(alice: Person) -> None:
    ids = [alice.writes()["id"] for _ in range(5)]
    for item_id in ids:
        alice.api.patch(f"/api/content/{item_id}", {"title": "Another"})
    with system_scope("a test"):
        moment = ContentVersion.objects.filter(content_id=UUID(ids[0])).latest("created_at").created_at
        ContentVersion.objects.filter(tenant_id=alice.tenant_id).update(created_at=moment)

    acts = whole_feed(alice, pageSize=3)

    assert len({(one["content_id"], one["version"]) for one in acts}) == len(acts) == 10


def test_what_comes_while_it_is_read_does_not_move_the_rest(alice: Person) -> None:
    ids = [alice.writes()["id"] for _ in range(4)]
    first = alice.api.get("/api/activity", {"pageSize": 2}).json()
    alice.writes()

    second = alice.api.get("/api/activity", {"pageSize": 2, "cursor": first["pagination"]["nextCursor"]}).json()

    assert [one["content_id"] for one in first["data"] + second["data"]] == ids[::-1]


def test_it_can_be_narrowed_down(alice: Person, bob: Person) -> None:
    hers, his = alice.writes()["id"], bob.writes()["id"]
    bob.api.patch(f"/api/content/{hers}", {"status": "published"})

    assert [one["action"] for one in feed(alice, content_id=hers)] == ["publish", "create"]
    assert [one["content_id"] for one in feed(alice, actor_id=str(bob.user_id))] == [hers, his]
    assert [one["content_id"] for one in feed(alice, action="publish")] == [hers]
    assert [one["content_id"] for one in feed(alice, action="create", actor_id=str(bob.user_id))] == [his]
    assert feed(alice, content_id=str(uuid4())) == []


def test_a_cursor_belongs_to_its_filters(alice: Person) -> None:
    for _ in range(3):
        alice.writes()
    asked: dict[str, Any] = {"pageSize": 1, "action": "create"}
    cursor = alice.api.get("/api/activity", asked).json()["pagination"]["nextCursor"]

    assert len(feed(alice, **asked, cursor=cursor)) == 1
    others: list[dict[str, Any]] = [{}, {"action": "update"}, {"action": "create", "actor_id": str(uuid4())}]
    for query in others:
        answer = alice.api.get("/api/activity", {**query, "cursor": cursor})
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "cursor")


@pytest.mark.parametrize(
    "query",
    [
        *({"cursor": "nonsense"}, {"cursor": ""}, {"cursor": "é"}, {"cursor": "bnVsbA"}, {"cursor": "x" * 3000}),
        *({"pageSize": 0}, {"pageSize": 101}, {"pageSize": "x"}, {"page": 2}, {"action": "look"}),
        *({"content_id": "x"}, {"actor_id": "platform"}, {"sort": "at"}),
    ],
)
def test_a_bad_query_is_refused(alice: Person, query: dict[str, Any]) -> None:
    answer = alice.api.get("/api/activity", query)

    assert (answer.status_code, answer.json()["code"]) == (400, "validation_error")
    assert [error["field"] for error in answer.json()["errors"]] == list(query)


def test_nobody_sees_what_others_do(alice: Person, charlie: Person) -> None:
    item_id = alice.writes()["id"]

    assert feed(charlie) == []
    assert feed(charlie, content_id=item_id) == []
    assert feed(charlie, actor_id=str(alice.user_id)) == []


def test_viewers_may_read_it_and_strangers_may_not(alice: Person) -> None:
    viewer = people.new_colleague(alice, Role.VIEWER)
    alice.writes()

    assert len(feed(viewer)) == 1
    assert people.JSONClient().get("/api/activity").status_code == 401


def test_the_number_of_statements_does_not_grow_with_rows_or_people(alice: Person) -> None:
    def statements() -> int:
        feed(alice)
        with CaptureQueriesContext(connection) as queries:
            feed(alice, pageSize=100)
        return len(queries)

    alice.writes()
    few = statements()
    for number in range(5):
        colleague = people.new_colleague(alice, name=f"colleague{number}")
        for _ in range(4):
            colleague.writes()

    assert statements() == few
