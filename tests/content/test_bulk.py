"""Bulk actions: a result for each id in its place, as that item alone would have had it; one never sinks the rest."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection

from engarde.common.scopes import tenant_scope
from quotas.models import QuotaUsage
from tests import people, tiers
from tests.content.answers import bad_fields, ok, refused
from tests.people import Person
from tests.stored import stored_by

ACTIONS = ["delete", "restore", "publish", "archive", "tag"]


def bulk(person: Person, action: str, ids: list[str], **fields: Any) -> list[dict[str, Any]]:
    if action == "tag":
        fields = {"tags": ["new"], **fields}
    answer = ok(person.api.post("/api/content/bulk", {"action": action, "ids": ids, **fields}))
    assert answer.keys() == {"results"}
    for result in answer["results"]:
        assert result["ok"] is (result["status"] == 200)
        assert result.keys() == {"id", "ok", "status"} | (set() if result["ok"] else {"code"})
    assert [result["id"] for result in answer["results"]] == ids
    assert stored_by(person.tenant_id).counters_are_true
    return list(answer["results"])


def statuses(person: Person, action: str, ids: list[str], **fields: Any) -> list[tuple[int, str | None]]:
    return [(result["status"], result.get("code")) for result in bulk(person, action, ids, **fields)]


def item(person: Person, item_id: str) -> dict[str, Any]:
    return ok(person.api.get(f"/api/content/{item_id}"))


def kinds(person: Person, item_id: str) -> list[str]:
    return [row["change_type"] for row in ok(person.api.get(f"/api/content/{item_id}/versions"))["data"]]


OK = (200, None)
NOT_FOUND = (404, "not_found")


# Each action


@pytest.mark.parametrize(
    ("action", "status", "kind"), [("publish", "published", "publish"), ("archive", "archived", "archive")]
)
def test_it_publishes_and_archives(alice: Person, bob: Person, action: str, status: str, kind: str) -> None:
    made = [alice.writes(body=f"body {number}", tags=["kept"]) for number in range(3)]
    ids = [one["id"] for one in made]

    assert statuses(bob, action, ids) == [OK] * 3

    for before in made:
        after = item(alice, before["id"])
        assert after | {"status": "draft"} == before | {"version": 2, "updated_at": after["updated_at"]}
        assert after["status"] == status
        [newest, _] = ok(alice.api.get(f"/api/content/{before['id']}/versions"))["data"]
        assert (newest["change_type"], newest["changed_by"]) == (kind, str(bob.user_id))
        assert newest["changed_fields"] == ["status"]
    assert [row["id"] for row in alice.api.get(f"/api/content?status={status}&sort=created_at").json()["data"]] == ids


def test_it_deletes_and_restores(alice: Person) -> None:
    ids = [alice.writes(body="x" * size, tags=["a"])["id"] for size in (0, 10, 100)]

    assert statuses(alice, "delete", ids) == [OK] * 3
    assert stored_by(alice.tenant_id).counted_bytes == 0
    assert alice.api.get("/api/content").json()["pagination"]["total"] == 0
    assert alice.api.get("/api/content?deleted=true").json()["pagination"]["total"] == 3

    assert statuses(alice, "restore", ids) == [OK] * 3
    assert stored_by(alice.tenant_id).counted_bytes == 110
    assert alice.api.get("/api/content?tags=a").json()["pagination"]["total"] == 3
    for item_id in ids:
        assert kinds(alice, item_id) == ["restore", "delete", "create"]
        assert item(alice, item_id)["version"] == 3


def test_it_adds_tags(alice: Person) -> None:
    plain, tagged, full = (alice.writes(tags=tags)["id"] for tags in ([], ["b", "a", "b"], ["new", "other"]))

    assert statuses(alice, "tag", [plain, tagged, full], tags=["new", "other", "new"]) == [OK] * 3

    assert item(alice, plain)["tags"] == ["new", "other"]
    assert item(alice, tagged)["tags"] == ["b", "a", "b", "new", "other"]
    assert (item(alice, full)["tags"], item(alice, full)["version"]) == (["new", "other"], 1)
    assert kinds(alice, tagged) == ["update", "create"]
    assert alice.api.get("/api/content?tags=new&tags=other").json()["pagination"]["total"] == 3


def test_tags_that_are_there_already_change_nothing(alice: Person) -> None:
    item_id = alice.writes(tags=["b", "a", "b"])["id"]

    assert statuses(alice, "tag", [item_id], tags=["a", "b"]) == [OK]
    assert (item(alice, item_id)["version"], item(alice, item_id)["tags"]) == (1, ["b", "a", "b"])


def test_an_item_holds_a_hundred_tags(alice: Person) -> None:
    room, full = (
        alice.writes(tags=[f"t{n}" for n in range(99)])["id"],
        alice.writes(tags=[f"t{n}" for n in range(100)])["id"],
    )

    assert statuses(alice, "tag", [full, room], tags=["new"]) == [(400, "validation_error"), OK]
    assert statuses(alice, "tag", [full, room], tags=["t1"]) == [OK, OK]
    assert (len(item(alice, room)["tags"]), item(alice, full)["version"]) == (100, 1)


@pytest.mark.parametrize("action", ["publish", "archive"])
def test_what_is_in_that_state_already_stays_as_it_is(alice: Person, action: str) -> None:
    status = {"publish": "published", "archive": "archived"}[action]
    item_id = alice.writes(status=status)["id"]

    assert statuses(alice, action, [item_id]) == [OK]
    assert item(alice, item_id)["version"] == 1


def test_a_scheduled_item_can_be_published_now(alice: Person) -> None:
    item_id = alice.writes(status="scheduled", scheduled_at="2099-01-01T00:00:00Z")["id"]

    assert statuses(alice, "publish", [item_id]) == [OK]
    assert (item(alice, item_id)["status"], kinds(alice, item_id)) == ("published", ["publish", "create"])


# Good and bad ones together


def outcome(person: Person, action: str, item_id: str) -> tuple[int, str | None]:
    """Return what a call for one item alone answers."""
    url = f"/api/content/{item_id}"
    change = {"publish": {"status": "published"}, "archive": {"status": "archived"}, "tag": {"tags": ["new"]}}
    if action == "delete":
        answer = person.api.delete(url)
    elif action == "restore":
        answer = person.api.post(f"{url}/restore")
    else:
        answer = person.api.patch(url, change[action])
    return answer.status_code, answer.json().get("code")


@pytest.mark.parametrize("action", ACTIONS)
def test_each_result_is_what_the_item_alone_would_have_had(alice: Person, charlie: Person, action: str) -> None:
    def different_ids() -> list[str]:
        trashed = alice.writes()["id"]
        alice.api.delete(f"/api/content/{trashed}")
        return [
            alice.writes()["id"],
            trashed,
            str(uuid4()),
            charlie.writes()["id"],
            alice.writes(status="published")["id"],
        ]

    alone = [outcome(alice, action, item_id) for item_id in different_ids()]

    assert statuses(alice, action, different_ids()) == alone
    assert {status for status, _ in alone} == ({200, 409, 404} if action == "restore" else {200, 404})


@pytest.mark.parametrize("action", ACTIONS)
def test_another_tenants_items_are_not_there(alice: Person, charlie: Person, action: str) -> None:
    live, trashed = (charlie.writes()["id"] for _ in range(2))
    charlie.api.delete(f"/api/content/{trashed}")
    before, mine = stored_by(charlie.tenant_id), alice.writes()["id"]

    results = statuses(alice, action, [live, mine, trashed])

    assert (results[0], results[2]) == (NOT_FOUND, NOT_FOUND)
    assert stored_by(charlie.tenant_id) == before
    assert item(charlie, live)["version"] == 1


def test_results_stand_in_the_order_of_the_ids_and_repeats_count_once(alice: Person) -> None:
    first, second, nothing = alice.writes()["id"], alice.writes()["id"], str(uuid4())
    ids = [second, nothing, first, second, nothing, first, second]

    for action, version in (("tag", 2), ("publish", 3), ("archive", 4), ("delete", 5), ("restore", 6)):
        results = statuses(alice, action, ids)
        assert results == [OK, NOT_FOUND, OK, OK, NOT_FOUND, OK, OK]
        if action != "delete":
            assert {item(alice, first)["version"], item(alice, second)["version"]} == {version}


@pytest.mark.parametrize("action", ACTIONS)
def test_what_is_no_id_is_not_found(alice: Person, action: str) -> None:
    trashed = alice.writes()["id"]
    if action == "restore":
        alice.api.delete(f"/api/content/{trashed}")
    others = [
        "nothing",
        trashed[:-1],
        trashed.replace("-", ""),
        f"{{{trashed}}}",
        "\u0663" * 32,
        "5",
        "' OR 1=1 --",
        " ",
    ]

    assert statuses(alice, action, [others[0], trashed, *others[1:]]) == [NOT_FOUND, OK] + [NOT_FOUND] * 7


def test_ids_in_capitals_are_the_same_ids(alice: Person) -> None:
    item_id = alice.writes()["id"]

    answer = ok(alice.api.post("/api/content/bulk", {"action": "publish", "ids": [item_id.upper(), item_id]}))

    assert [result["id"] for result in answer["results"]] == [item_id, item_id]
    assert item(alice, item_id)["version"] == 2


def test_five_hundred_go_at_once_and_no_more(alice: Person) -> None:
    ids = [alice.writes()["id"] for _ in range(25)] + [str(uuid4()) for _ in range(475)]

    assert statuses(alice, "publish", ids) == [OK] * 25 + [NOT_FOUND] * 475
    assert bad_fields(alice.api.post("/api/content/bulk", {"action": "publish", "ids": [*ids, str(uuid4())]})) == {
        "ids"
    }


# The quota


@pytest.fixture
def dora(database: None) -> Person:
    """Owner of a tenant that may store 100 bytes."""
    return people.new_owner("dora", storage_limit=100)


def test_as_much_is_restored_as_fits(dora: Person) -> None:
    ids = []
    for size in (40, 50, 30, 20, 10, 0):
        ids.append(dora.writes(body="x" * size)["id"])
        dora.api.delete(f"/api/content/{ids[-1]}")
    over = (403, "storage_quota_exceeded")

    assert statuses(dora, "restore", ids) == [OK, OK, over, over, OK, OK]

    assert stored_by(dora.tenant_id).counted_bytes == 100
    assert dora.api.get("/api/content?deleted=true").json()["pagination"]["total"] == 2
    for item_id in ids[2:4]:
        refused(dora.api.post(f"/api/content/{item_id}/restore"), *over)


def test_an_empty_item_is_restored_where_nothing_fits_any_more(dora: Person) -> None:
    ids = [dora.writes(body="")["id"], dora.writes(body="x")["id"]]
    statuses(dora, "delete", ids)
    dora.writes(body="x" * 100)
    with tenant_scope(dora.tenant_id):
        QuotaUsage.objects.update(storage_limit_override=50, override_reason="A test.")

    assert statuses(dora, "restore", ids) == [OK, (403, "storage_quota_exceeded")]


def test_restores_at_once_never_go_over_the_limit(dora: Person) -> None:
    ids = []
    for _ in range(10):
        ids.append(dora.writes(body="x" * 30)["id"])
        dora.api.delete(f"/api/content/{ids[-1]}")

    def restore(start: int) -> list[tuple[int, str | None]]:
        try:
            body = {"action": "restore", "ids": ids[start:] + ids[:start]}
            results = ok(dora.api.post("/api/content/bulk", body))["results"]
            return [(result["status"], result.get("code")) for result in results]
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        results = [result for one in pool.map(restore, range(4)) for result in one]

    assert results.count(OK) == 3
    stored = stored_by(dora.tenant_id)
    assert (stored.counters_are_true, stored.counted_bytes, stored.live_items) == (True, 90, 3)


def test_the_answer_tells_the_usage_after_it(dora: Person) -> None:
    item_id = dora.writes(body="x" * 70)["id"]

    for action, used in (("delete", "0"), ("restore", "70"), ("publish", "70")):
        answer = dora.api.post("/api/content/bulk", {"action": action, "ids": [item_id]})
        assert (answer["X-Quota-Used"], answer["X-Quota-Remaining"]) == (used, str(100 - int(used)))


# Where documents are


def test_an_item_whose_document_is_out_of_reach_is_left_for_later(
    alice: Person, upload: Callable[[], int], back_up: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    away = alice.writes()["id"]
    upload()
    back_up()
    fresh = alice.writes()["id"]

    with tiers.zerodb_away(monkeypatch), tiers.bigquery_away(monkeypatch):
        tiers.forget_copies()
        for action in ("publish", "archive", "tag"):
            assert statuses(alice, action, [away, fresh]) == [(503, "document_unavailable"), OK]
        assert statuses(alice, "delete", [away, fresh]) == [OK, OK]
        assert statuses(alice, "restore", [away, fresh]) == [OK, OK]
    tiers.forget_copies()

    assert (item(alice, away)["status"], item(alice, away)["body"]) == ("draft", "A body")
    assert (item(alice, fresh)["status"], item(alice, fresh)["tags"]) == ("archived", ["new"])


def test_edits_in_bulk_and_one_by_one_at_once_are_all_kept(alice: Person) -> None:
    ids = [alice.writes()["id"] for _ in range(5)]

    def act(number: int) -> int:
        try:
            if number % 2:
                body = {"action": "tag", "ids": ids[number % 5 :] + ids[: number % 5], "tags": [f"t{number}"]}
                results = ok(alice.api.post("/api/content/bulk", body))["results"]
                return int(all(result["ok"] for result in results)) * 200
            return int(alice.api.patch(f"/api/content/{ids[number % 5]}", {"title": f"title {number}"}).status_code)
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(act, range(8))) == {200}

    for item_id in ids:
        after = item(alice, item_id)
        assert set(after["tags"]) == {"t1", "t3", "t5", "t7"}
        numbers = [row["version"] for row in ok(alice.api.get(f"/api/content/{item_id}/versions"))["data"]]
        assert numbers == list(range(after["version"], 0, -1))


# Bad input

ID = str(uuid4())


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, {"action", "ids"}),
        ({"action": "publish"}, {"ids"}),
        ({"ids": [ID]}, {"action"}),
        ({"action": "purge", "ids": [ID]}, {"action"}),
        ({"action": "Delete", "ids": [ID]}, {"action"}),
        ({"action": None, "ids": [ID]}, {"action"}),
        ({"action": ["delete"], "ids": [ID]}, {"action"}),
        ({"action": "delete", "ids": []}, {"ids"}),
        ({"action": "delete", "ids": ID}, {"ids"}),
        ({"action": "delete", "ids": None}, {"ids"}),
        ({"action": "delete", "ids": [5]}, {"ids"}),
        ({"action": "delete", "ids": [ID, ""]}, {"ids"}),
        ({"action": "delete", "ids": [ID, "x" * 101]}, {"ids"}),
        ({"action": "delete", "ids": [ID, "a\0"]}, {"ids"}),
        ({"action": "delete", "ids": [[ID]]}, {"ids"}),
        ({"action": "delete", "ids": [ID] * 501}, {"ids"}),
        ({"action": "tag", "ids": [ID]}, {"tags"}),
        ({"action": "tag", "ids": [ID], "tags": []}, {"tags"}),
        ({"action": "tag", "ids": [ID], "tags": [""]}, {"tags"}),
        ({"action": "tag", "ids": [ID], "tags": ["x" * 101]}, {"tags"}),
        ({"action": "tag", "ids": [ID], "tags": ["a\0"]}, {"tags"}),
        ({"action": "tag", "ids": [ID], "tags": ["a"] * 101}, {"tags"}),
        ({"action": "tag", "ids": [ID], "tags": "a"}, {"tags"}),
        ({"action": "publish", "ids": [ID], "tags": ["a"]}, {"tags"}),
        ({"action": "publish", "ids": [ID], "unknown": 1}, {"unknown"}),
        ([], {"non_field_errors"}),
    ],
)
def test_bad_input_is_refused_as_a_whole(alice: Person, body: Any, fields: set[str]) -> None:
    item_id = alice.writes()["id"]
    if isinstance(body, dict) and body.get("ids") == [ID]:
        body = {**body, "ids": [item_id]}

    assert bad_fields(alice.api.post("/api/content/bulk", body)) == fields
    assert item(alice, item_id)["version"] == 1


def test_only_post_is_taken(alice: Person) -> None:
    for method in ("get", "put", "patch", "delete"):
        answer = getattr(alice.api, method)("/api/content/bulk")
        refused(answer, 405, "method_not_allowed")
        assert "POST" in answer["Allow"]
