"""Versions: each change takes the next number, what was can be read, compared and made the newest again."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from content import operations
from content.models import Blob, Change, ContentItem, Media, SpooledRecord
from engarde.common.scopes import system_scope, tenant_scope
from quotas.models import QuotaUsage
from tests import tiers
from tests.accounts.races import race
from tests.content.answers import bad_fields, ok, refused
from tests.people import Person
from tests.stored import stored_by


def versions(person: Person, item_id: str) -> list[dict[str, Any]]:
    answer = ok(person.api.get(f"/api/content/{item_id}/versions"))
    assert answer.keys() == {"data"}
    return list(answer["data"])


def kinds(person: Person, item_id: str) -> list[tuple[int, str]]:
    return [(row["version"], row["change_type"]) for row in versions(person, item_id)]


def change(person: Person, item_id: str, **fields: Any) -> dict[str, Any]:
    return ok(person.api.patch(f"/api/content/{item_id}", fields))


def test_each_change_takes_the_next_number_and_says_what_it_was(alice: Person) -> None:
    url = "/api/content/" + alice.writes()["id"]
    item_id = url.rpartition("/")[2]
    change(alice, item_id, body="second")
    change(alice, item_id, status="published")
    change(alice, item_id, status="archived")
    alice.api.delete(url)
    assert ok(alice.api.post(f"{url}/restore"))["version"] == 6
    assert ok(alice.api.post(f"{url}/versions/1/restore"))["version"] == 7

    assert kinds(alice, item_id) == [
        (7, "restore"),
        (6, "restore"),
        (5, "delete"),
        (4, "archive"),
        (3, "publish"),
        (2, "update"),
        (1, "create"),
    ]


@pytest.mark.parametrize(
    ("before", "fields", "kind"),
    [
        ({}, {"status": "published", "title": "Other"}, "publish"),
        ({"status": "published"}, {"title": "Other"}, "update"),
        ({"status": "published"}, {"status": "draft"}, "update"),
        ({"status": "published"}, {"status": "archived"}, "archive"),
        ({"status": "archived"}, {"status": "published"}, "publish"),
        ({"status": "archived"}, {"tags": ["a"]}, "update"),
        ({}, {"status": "scheduled", "scheduled_at": "2099-01-01T00:00:00Z"}, "update"),
    ],
)
def test_a_change_of_status_names_the_change(
    alice: Person, before: dict[str, Any], fields: dict[str, Any], kind: str
) -> None:
    item_id = alice.writes(**before)["id"]

    change(alice, item_id, **fields)

    assert kinds(alice, item_id) == [(2, kind), (1, "create")]


def test_the_list_of_versions_says_who_and_how_large(alice: Person, bob: Person) -> None:
    item_id = alice.writes(body="ä")["id"]
    change(bob, item_id, body="äää", title="Other")

    newest, oldest = versions(alice, item_id)

    names = {"version", "change_type", "changed_by", "size_bytes", "created_at"}
    assert newest.keys() >= names
    assert (newest["changed_by"], newest["size_bytes"], oldest["size_bytes"]) == (str(bob.user_id), 6, 2)
    assert newest["changed_fields"] == ["body", "title"]
    assert newest["created_at"] > oldest["created_at"]
    assert newest["created_at"].endswith("Z")
    [key, *_] = alice.api.get("/api/api-keys").json()["data"]
    assert oldest["changed_by"] == key["id"]


def test_the_list_of_versions_is_not_paged(alice: Person) -> None:
    item_id = alice.writes()["id"]
    for number in range(25):
        change(alice, item_id, body=f"body {number}")

    assert [row["version"] for row in versions(alice, item_id)] == list(range(26, 0, -1))
    assert bad_fields(alice.api.get(f"/api/content/{item_id}/versions?page=1")) == {"page"}


# Reading what was


def test_an_older_version_is_the_item_as_it_was(alice: Person) -> None:
    sent = {"title": "One", "body": "first", "tags": ["b", "a"], "metadata": {"n": 1}, "content_type": "story"}
    first = alice.writes(type="story", **sent)
    url = f"/api/content/{first['id']}"
    second = change(alice, first["id"], title="Two", body="second", tags=[], metadata={}, type="ad", status="published")
    change(alice, first["id"], body="third")

    for version, expected in ((1, first), (2, second)):
        for address in (f"{url}?version={version}", f"{url}/versions/{version}"):
            answer = alice.api.get(address)
            assert ok(answer) == expected
            assert f"-{version}-" in answer["ETag"]
    assert ok(alice.api.get(f"{url}?version=3")) == ok(alice.api.get(url))


def test_an_older_version_is_there_wherever_its_document_is(
    alice: Person, upload: Callable[[], int], back_up: Callable[[], int]
) -> None:
    item = alice.writes(body="first")
    change(alice, item["id"], body="second")
    upload()
    back_up()

    old = ok(alice.api.get(f"/api/content/{item['id']}?version=1"))

    assert (old["body"], old["version"], old["storage"]["tier"]) == ("first", 1, "zerodb")
    assert old["storage"]["bigquery_backed_up"] is True


@pytest.mark.parametrize("number", ["0", "2", "2147483648", "9" * 30, "-1", "x", "1.0", "٣"])
def test_a_version_that_is_not_there_is_not_found(alice: Person, number: str) -> None:
    url = f"/api/content/{alice.writes()['id']}/versions/{number}"

    for answer in (alice.api.get(url), alice.api.get(f"{url}/diff"), alice.api.post(f"{url}/restore")):
        refused(answer, 404, "not_found")


@pytest.mark.parametrize("number", ["0", "-1", "", "x", "1.0", "2147483648", "9" * 30, "1&version=1"])
def test_a_bad_version_parameter_is_refused(alice: Person, number: str) -> None:
    assert bad_fields(alice.api.get(f"/api/content/{alice.writes()['id']}?version={number}")) == {"version"}


def test_an_unknown_version_parameter_finds_nothing(alice: Person) -> None:
    refused(alice.api.get(f"/api/content/{alice.writes()['id']}?version=2"), 404, "not_found")


# Changes that change nothing


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"title": "A title", "body": "A body", "type": "post"},
        {"content_type": "post"},
        {"scheduled_at": "2099-01-01T02:00:00+02:00"},
        {"scheduled_at": "2098-12-31T19:00:00.000000-05:00"},
        {"metadata": {"b": {"d": 2, "c": 1}, "a": 1}},
        {"tags": ["x", "y"], "platforms": []},
        {"campaign_space_id": "01A204DC-5242-725B-8F16-7437BE78A210"},
    ],
)
def test_a_change_that_changes_nothing_keeps_the_version(alice: Person, fields: dict[str, Any]) -> None:
    item = alice.writes(
        scheduled_at="2099-01-01T00:00:00Z",
        tags=["x", "y"],
        metadata={"a": 1, "b": {"c": 1, "d": 2}},
        campaign_space_id="01a204dc-5242-725b-8f16-7437be78a210",
    )
    url = f"/api/content/{item['id']}"
    tag, before = alice.api.get(url)["ETag"], stored_by(alice.tenant_id)

    answer = alice.api.patch(url, fields)

    assert ok(answer) == item
    assert answer["ETag"] == tag
    assert stored_by(alice.tenant_id) == before


def test_another_order_of_a_list_is_a_change(alice: Person) -> None:
    item_id = alice.writes(tags=["x", "y"])["id"]

    assert change(alice, item_id, tags=["y", "x"])["version"] == 2


def test_naming_its_own_brand_changes_nothing(alice: Person) -> None:
    item_id = alice.writes()["id"]

    assert change(alice, item_id, brand_id=str(alice.brand_id).upper())["version"] == 1


# The trash


def test_a_trashed_item_is_nowhere_but_in_the_trash(alice: Person) -> None:
    kept, item_id = alice.writes()["id"], alice.writes(title="gone", tags=["a"])["id"]
    url = f"/api/content/{item_id}"
    change(alice, item_id, body="second")
    deleted = ok(alice.api.delete(url))

    assert deleted.keys() == {"message", "id", "deleted_at"}
    assert deleted["id"] == item_id
    for answer in (
        alice.api.get(url),
        alice.api.get(f"{url}?version=1"),
        alice.api.get(f"{url}/versions"),
        alice.api.get(f"{url}/versions/1"),
        alice.api.get(f"{url}/versions/2/diff"),
        alice.api.patch(url, {"body": "x"}),
        alice.api.delete(url),
        alice.api.post(f"{url}/versions/1/restore"),
    ):
        refused(answer, 404, "not_found")
    for query in ("", "?tags=a", "?search=gone", "?count=exact&status=draft"):
        assert item_id not in [row["id"] for row in alice.api.get(f"/api/content{query}").json()["data"]]
    [row] = alice.api.get("/api/content?deleted=true").json()["data"]
    assert (row["id"], row["deleted_at"], row["version"]) == (item_id, deleted["deleted_at"], 3)
    assert alice.api.get("/api/content").json()["pagination"]["total"] == 1
    assert kept in [row["id"] for row in alice.api.get("/api/content").json()["data"]]


def test_what_comes_out_of_the_trash_is_whole_and_found_again(alice: Person) -> None:
    item = alice.writes(title="Wanted", body="the body", tags=["a"], platforms=["p"])
    url = f"/api/content/{item['id']}"
    alice.api.delete(url)

    answer = alice.api.post(f"{url}/restore")

    restored = ok(answer)
    volatile = {"version", "updated_at"}
    assert {name: restored[name] for name in restored if name not in volatile} == {
        name: item[name] for name in item if name not in volatile
    }
    assert (restored["version"], restored["deleted_at"]) == (3, None)
    assert answer["ETag"] == alice.api.get(url)["ETag"]
    assert ok(alice.api.get(url)) == restored
    for query in ("tags=a", "platform=p", "search=wanted"):
        assert [row["id"] for row in alice.api.get(f"/api/content?{query}").json()["data"]] == [item["id"]]
    assert alice.api.get("/api/content?deleted=true").json()["data"] == []
    assert stored_by(alice.tenant_id).counters_are_true


def test_restoring_a_live_item_is_a_conflict(alice: Person) -> None:
    item_id = alice.writes()["id"]

    refused(alice.api.post(f"/api/content/{item_id}/restore"), 409, "not_deleted")
    refused(alice.api.post(f"/api/content/{uuid4()}/restore"), 404, "not_found")
    assert kinds(alice, item_id) == [(1, "create")]


def test_what_does_not_fit_any_more_stays_in_the_trash(alice: Person) -> None:
    item_id = alice.writes(body="x" * 100)["id"]
    alice.api.delete(f"/api/content/{item_id}")
    _limit(alice, 99)

    refused(alice.api.post(f"/api/content/{item_id}/restore"), 403, "storage_quota_exceeded")
    assert len(alice.api.get("/api/content?deleted=true").json()["data"]) == 1
    _limit(alice, 100)
    assert alice.api.post(f"/api/content/{item_id}/restore").status_code == 200


def _limit(person: Person, limit: int) -> None:
    with tenant_scope(person.tenant_id):
        QuotaUsage.objects.update(storage_limit_override=limit, override_reason="A test.")


def test_an_item_that_changes_while_it_is_undeleted_comes_back_with_its_newest_body(
    alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"/api/content/{alice.writes(body='first')['id']}"
    alice.api.delete(url)
    undelete = operations._undelete

    def undelete_after_others_wrote(*wanted: Any) -> Any:
        monkeypatch.undo()
        alice.api.post(f"{url}/restore")
        alice.api.patch(url, {"body": "second"})
        alice.api.delete(url)
        return undelete(*wanted)

    monkeypatch.setattr(operations, "_undelete", undelete_after_others_wrote)

    restored = ok(alice.api.post(f"{url}/restore"))

    assert (restored["body"], restored["version"]) == ("second", 6)
    assert ok(alice.api.get(url)) == restored


def test_of_two_who_undelete_at_once_one_does(alice: Person) -> None:
    item_id = alice.writes(body="first")["id"]
    url = f"/api/content/{item_id}"
    alice.api.delete(url)

    answers = race(
        [lambda: alice.api.post(f"{url}/restore"), lambda: alice.api.post(f"{url}/restore")],
        at=ContentItem.objects.filter(id=item_id),
    )

    assert sorted(answer.status_code for answer in answers) == [200, 409]
    assert ok(alice.api.get(url))["body"] == "first"
    assert stored_by(alice.tenant_id).counters_are_true


# Restoring a version


def test_a_restored_version_is_a_version_of_its_own(alice: Person) -> None:
    first = alice.writes(title="One", body="first", tags=["a"], metadata={"n": [1]}, type="story")
    item_id = first["id"]
    change(alice, item_id, title="Two", body="second", tags=["b"], metadata={}, type="ad", status="published")

    answer = alice.api.post(f"/api/content/{item_id}/versions/1/restore")

    restored = ok(answer)
    for name in ("title", "body", "tags", "metadata", "type", "content_type", "status", "created_at", "platforms"):
        assert restored[name] == first[name]
    assert restored["version"] == 3
    assert answer["ETag"] == alice.api.get(f"/api/content/{item_id}")["ETag"]
    assert kinds(alice, item_id) == [(3, "restore"), (2, "publish"), (1, "create")]
    assert [row["id"] for row in alice.api.get("/api/content?tags=a").json()["data"]] == [item_id]
    assert alice.api.get("/api/content?tags=b").json()["data"] == []
    assert ok(alice.api.get(f"/api/content/{item_id}?version=2"))["body"] == "second"
    assert stored_by(alice.tenant_id).counters_are_true


def test_a_restored_version_names_the_fields_that_it_changes(alice: Person) -> None:
    item_id = alice.writes(title="One", body="same", tags=["a"])["id"]
    change(alice, item_id, title="Two", tags=["b"])
    change(alice, item_id, title="Three")

    for number in (1, 2):
        assert alice.api.post(f"/api/content/{item_id}/versions/{number}/restore").status_code == 200

    assert [row["changed_fields"] for row in versions(alice, item_id)[:2]] == [["tags", "title"], ["tags", "title"]]


def test_restoring_the_newest_version_makes_a_version_too(alice: Person) -> None:
    item_id = alice.writes()["id"]

    assert ok(alice.api.post(f"/api/content/{item_id}/versions/1/restore"))["version"] == 2
    assert kinds(alice, item_id) == [(2, "restore"), (1, "create")]


def test_a_version_that_does_not_fit_is_not_restored(alice: Person) -> None:
    item_id = alice.writes(body="x" * 100)["id"]
    change(alice, item_id, body="x")
    _limit(alice, 99)

    refused(alice.api.post(f"/api/content/{item_id}/versions/1/restore"), 403, "storage_quota_exceeded")
    assert ok(alice.api.get(f"/api/content/{item_id}"))["version"] == 2


def test_a_brand_that_is_gone_does_not_come_back_with_a_version(alice: Person) -> None:
    other = alice.api.post("/api/brands", {"name": "Short-lived"}).json()["id"]
    item_id = alice.writes(body="first", brand_id=other)["id"]
    change(alice, item_id, body="second", brand_id=str(alice.brand_id))
    assert alice.api.delete(f"/api/brands/{other}").status_code == 204

    restored = ok(alice.api.post(f"/api/content/{item_id}/versions/1/restore"))

    assert (restored["body"], restored["brand_id"]) == ("first", str(alice.brand_id))
    assert ok(alice.api.get(f"/api/content/{item_id}?version=1"))["brand_id"] == other


def test_media_that_is_gone_does_not_come_back_with_a_version(alice: Person) -> None:
    kept, lost = _media(alice), _media(alice)
    item_id = alice.writes(body="first", media=[lost, kept])["id"]
    change(alice, item_id, body="second", media=[])
    with tenant_scope(alice.tenant_id):
        Media.objects.filter(id=lost).delete()

    restored = ok(alice.api.post(f"/api/content/{item_id}/versions/1/restore"))

    assert (restored["body"], restored["media"]) == ("first", [kept])


def _media(person: Person) -> str:
    with tenant_scope(person.tenant_id):
        blob = Blob.objects.create(
            tenant_id=person.tenant_id, sha256=uuid4().bytes * 2, size_bytes=0, storage_key=str(uuid4())
        )
        facts = {"file_name": "a", "file_type": "other", "mime_type": "a/b", "size_bytes": 0}
        media = Media.objects.create(tenant_id=person.tenant_id, blob=blob, created_at=timezone.now(), **facts)
    return str(media.id)


# Thinning


def test_the_oldest_versions_go_and_so_do_their_documents(alice: Person, settings: Any) -> None:
    settings.CONTENT_MAX_VERSIONS = 3
    item_id = alice.writes(body="shared")["id"]
    change(alice, item_id, body="lost")
    [_, lost] = tiers.versions(item_id)
    for body in ("third", "shared", "fifth"):
        change(alice, item_id, body=body)

    assert [row["version"] for row in versions(alice, item_id)] == [5, 4, 3]
    for number in (1, 2):
        refused(alice.api.get(f"/api/content/{item_id}/versions/{number}"), 404, "not_found")
        refused(alice.api.get(f"/api/content/{item_id}?version={number}"), 404, "not_found")
    assert ok(alice.api.get(f"/api/content/{item_id}?version=4"))["body"] == "shared"
    with system_scope("a test looks"):
        removals = SpooledRecord.objects.filter(tenant_id=alice.tenant_id, record__isnull=True)
        found = set(removals.values_list("collection", "key"))
        thinned = Change.objects.filter(entity_id=item_id, op=Change.Op.THIN).values_list("version", flat=True)
        assert sorted(thinned) == [1, 2]
    assert found == {
        ("content_items", f"{item_id}:{bytes(lost.sha256).hex()}"),
        ("content_versions", f"{item_id}:2"),
    }
    assert {row.version for row in tiers.spooled(item_id)} >= {3, 5}


def test_every_kind_of_change_counts_towards_the_most_versions_kept(alice: Person, settings: Any) -> None:
    settings.CONTENT_MAX_VERSIONS = 2
    url = f"/api/content/{alice.writes()['id']}"
    alice.api.patch(url, {"body": "second"})
    alice.api.delete(url)
    alice.api.post(f"{url}/restore")
    bulk = {"action": "publish", "ids": [url.rpartition("/")[2]]}
    alice.api.post("/api/content/bulk", bulk)

    assert kinds(alice, bulk["ids"][0]) == [(5, "publish"), (4, "restore")]
    refused(alice.api.post(f"{url}/versions/1/restore"), 404, "not_found")


def test_thinned_versions_stay_away_after_a_restore_from_the_backup(
    alice: Person, settings: Any, upload: Callable[[], int], back_up: Callable[[], int]
) -> None:
    item_id = alice.writes(body="first")["id"]
    change(alice, item_id, body="second")
    upload()
    back_up()
    settings.CONTENT_MAX_VERSIONS = 2
    change(alice, item_id, body="third")
    change(alice, item_id, body="fourth")
    upload()
    back_up()
    _verify(alice)
    tiers.lose_postgres_rows(item_id)

    call_command("restore_from_bigquery", "--tenant", str(alice.tenant_id), "--json", stdout=StringIO())

    assert [row["version"] for row in versions(alice, item_id)] == [4, 3]
    assert ok(alice.api.get(f"/api/content/{item_id}"))["body"] == "fourth"
    _verify(alice)


@pytest.mark.soak
def test_a_version_that_is_thinned_before_it_was_backed_up_stays_away_too(
    alice: Person, settings: Any, upload: Callable[[], int], back_up: Callable[[], int]
) -> None:
    settings.CONTENT_MAX_VERSIONS = 1
    item_id = alice.writes(body="first")["id"]
    change(alice, item_id, body="second")
    upload()
    back_up()
    _verify(alice)
    tiers.lose_postgres_rows(item_id)

    call_command("restore_from_bigquery", "--tenant", str(alice.tenant_id), "--json", stdout=StringIO())

    assert kinds(alice, item_id) == [(2, "update")]
    _verify(alice)


def _verify(person: Person) -> None:
    """Check that all tiers agree; the command fails when they do not."""
    call_command("verify_backup_integrity", "--tenant", str(person.tenant_id), "--json", stdout=StringIO())


# Many at once


def test_changes_of_different_fields_at_once_are_both_kept(alice: Person) -> None:
    item_id = alice.writes()["id"]

    answers = race(
        [
            lambda: alice.api.patch(f"/api/content/{item_id}", {"title": "New title"}),
            lambda: alice.api.patch(f"/api/content/{item_id}", {"body": "New body"}),
        ],
        at=ContentItem.objects.filter(id=item_id),
    )

    assert [answer.status_code for answer in answers] == [200, 200]
    item = ok(alice.api.get(f"/api/content/{item_id}"))
    assert (item["title"], item["body"], item["version"]) == ("New title", "New body", 3)


def test_of_a_hundred_changes_under_one_tag_one_wins(alice: Person) -> None:
    item_id = alice.writes()["id"]
    url = f"/api/content/{item_id}"

    tag = alice.api.get(url)["ETag"]

    with ThreadPoolExecutor(100) as pool:
        statuses = list(pool.map(lambda number: _patch(alice, url, f"by {number}", tag), range(100)))

    assert sorted(statuses) == [200] + [412] * 99
    assert kinds(alice, item_id) == [(2, "update"), (1, "create")]
    assert stored_by(alice.tenant_id).counters_are_true


def test_writers_who_read_again_after_each_refusal_all_get_their_turn(alice: Person) -> None:
    item_id = alice.writes()["id"]
    url = f"/api/content/{item_id}"

    def insist(number: int) -> None:
        while _patch(alice, url, f"by {number}", alice.api.get(url)["ETag"]) != 200:
            pass

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(insist, range(20)))

    assert [row["version"] for row in versions(alice, item_id)] == list(range(21, 0, -1))
    bodies = {ok(alice.api.get(f"{url}?version={number}"))["body"] for number in range(2, 22)}
    assert bodies == {f"by {number}" for number in range(20)}


def _patch(person: Person, url: str, body: str, tag: str) -> int:
    try:
        return int(person.api.patch(url, {"body": body}, HTTP_IF_MATCH=tag).status_code)
    finally:
        connection.close()
