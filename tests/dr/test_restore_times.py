"""Back in time: the state of then returns as new versions, what was made later goes to the trash, numbers are used once."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connections
from django.utils import timezone

from content import recovery
from content.models import ContentItem
from dr import door
from dr.models import SyncState
from engarde.common.scopes import system_scope
from quotas import queries as quota_queries
from tests import stored, tiers
from tests.dr.test_restore import restore
from tests.people import Person


def moment() -> str:
    """Return the time by PostgreSQL's clock, which is what changes are stamped with."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        return str(cursor.fetchone()[0].isoformat())


@pytest.fixture
def past(alice: Person, upload: Callable[[], int], back_up: Callable[[], int]) -> dict[str, Any]:
    """Items of alice's as they were, and when: edited, trashed, untrashed, purged and made after that."""
    names = ("same", "edited", "trashed", "untrashed", "purged")
    ids = {name: alice.writes(title=name, body=f"body of {name}", tags=[name])["id"] for name in names}
    alice.api.delete(f"/api/content/{ids['untrashed']}")
    upload()
    back_up()
    as_of = moment()
    alice.api.patch(f"/api/content/{ids['edited']}", {"body": "spoiled", "title": "wrong", "tags": ["other"]})
    alice.api.delete(f"/api/content/{ids['trashed']}")
    alice.api.post(f"/api/content/{ids['untrashed']}/restore")
    alice.api.delete(f"/api/content/{ids['purged']}")
    with system_scope("a test purges"):
        ContentItem.objects.filter(id=ids["purged"]).delete()
    ids["later"] = alice.writes(title="later")["id"]
    upload()
    back_up()
    return {**ids, "as_of": as_of}


def verify(person: Person) -> tuple[bool, dict[str, Any]]:
    """Return whether all tiers agree, and the report."""
    out = StringIO()
    try:
        call_command("verify_backup_integrity", "--tenant", str(person.tenant_id), "--json", stdout=out)
    except SystemExit as stop:
        return stop.code == 0, json.loads(out.getvalue())
    return True, json.loads(out.getvalue())


def shown(person: Person, item_id: str) -> dict[str, Any]:
    return dict(person.api.get(f"/api/content/{item_id}").json())


def test_going_back_makes_everything_what_it_was(alice: Person, past: dict[str, Any]) -> None:
    report = restore(alice, "--as-of", past["as_of"])

    assert report["errors"] == []
    assert (report["turned_back"], report["trashed"]) == (4, 1)
    edited = shown(alice, past["edited"])
    assert (edited["title"], edited["body"], edited["tags"], edited["version"]) == (
        "edited",
        "body of edited",
        ["edited"],
        3,
    )
    assert shown(alice, past["same"])["version"] == 1
    assert shown(alice, past["trashed"])["body"] == "body of trashed"
    assert shown(alice, past["purged"])["body"] == "body of purged"
    trash = {item["id"] for item in alice.api.get("/api/content?deleted=true").json()["data"]}
    assert trash == {past["untrashed"], past["later"]}
    found = alice.api.get("/api/content?search=edited").json()["data"]
    assert [item["id"] for item in found] == [past["edited"]]
    assert stored.stored_by(alice.tenant_id).counters_are_true


@pytest.mark.soak
def test_versions_made_after_that_time_stay_as_history(alice: Person, past: dict[str, Any]) -> None:
    restore(alice, "--as-of", past["as_of"])

    versions = alice.api.get(f"/api/content/{past['edited']}/versions").json()["data"]
    assert [(one["version"], one["change_type"]) for one in versions] == [(3, "restore"), (2, "update"), (1, "create")]
    assert alice.api.get(f"/api/content/{past['edited']}/versions/2").json()["body"] == "spoiled"


@pytest.mark.soak
def test_a_second_run_changes_nothing_and_all_tiers_agree(
    alice: Person, past: dict[str, Any], upload: Callable[[], int], back_up: Callable[[], int]
) -> None:
    restore(alice, "--as-of", past["as_of"])

    again = restore(alice, "--as-of", past["as_of"])
    upload()
    back_up()

    assert (again["changed"], again["turned_back"], again["trashed"]) == (0, 0, 0)
    passed, report = verify(alice)
    assert passed, report["findings"]
    assert restore(alice)["changed"] == 0


def test_a_dry_run_says_what_would_change_and_changes_nothing(alice: Person, past: dict[str, Any]) -> None:
    before = stored.stored_by(alice.tenant_id)

    report = restore(alice, "--as-of", past["as_of"], "--dry-run")

    assert (report["changed"], report["trashed"], report["turned_back"]) == (0, 1, 3)
    assert report["would_change"] >= 4
    assert stored.stored_by(alice.tenant_id) == before
    assert shown(alice, past["edited"])["body"] == "spoiled"


@pytest.mark.soak
def test_numbers_that_the_future_used_are_not_used_again(
    alice: Person, past: dict[str, Any], back_up: Callable[[], int]
) -> None:
    for text in ("four", "five"):
        alice.api.patch(f"/api/content/{past['edited']}", {"body": text})
    back_up()
    tiers.lose_postgres_rows(past["edited"])

    restore(alice, "--as-of", past["as_of"])

    item = shown(alice, past["edited"])
    assert (item["body"], item["version"]) == ("body of edited", 5)
    back_up()
    assert restore(alice)["changed"] == 0


def test_another_tenant_is_left_exactly_as_it_is(
    alice: Person, charlie: Person, past: dict[str, Any], upload: Callable[[], int], back_up: Callable[[], int]
) -> None:
    charlie.writes(title="made after that time")
    upload()
    back_up()
    before = stored.stored_by(charlie.tenant_id), charlie.api.get("/api/content?include=body").json()

    restore(alice, "--as-of", past["as_of"])

    assert (stored.stored_by(charlie.tenant_id), charlie.api.get("/api/content?include=body").json()) == before


def test_changes_that_the_backup_cannot_have_stand_in_the_way_unless_forced(
    alice: Person, past: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    alice.api.patch(f"/api/content/{past['same']}", {"body": "not backed up"})
    with monkeypatch.context() as patch:
        patch.setattr("dr.sync._ship_due", lambda *_: None)
        patch.setattr("dr.restore.BACK_UP_FIRST_SECONDS", 0.5)
        with pytest.raises(CommandError, match="--force"):
            restore(alice, "--as-of", past["as_of"])
        assert shown(alice, past["same"])["body"] == "not backed up"

        restore(alice, "--as-of", past["as_of"], "--force")

    assert shown(alice, past["same"])["body"] == "body of same"
    assert alice.api.get(f"/api/content/{past['same']}/versions/2").json()["body"] == "not backed up"


@pytest.mark.soak
def test_a_brand_that_was_deleted_since_comes_back_with_its_content(
    alice: Person, upload: Callable[[], int], back_up: Callable[[], int]
) -> None:
    brand = alice.api.post("/api/brands", {"name": "Spring"}).json()["id"]
    item_id = alice.writes(brand_id=brand)["id"]
    upload()
    back_up()
    as_of = moment()
    alice.api.delete(f"/api/content/{item_id}")
    with system_scope("a test purges"):
        ContentItem.objects.filter(id=item_id).delete()
    assert alice.api.delete(f"/api/brands/{brand}").status_code == 204
    back_up()

    report = restore(alice, "--as-of", as_of)

    assert report["rows"] == {"brand": 1}
    assert alice.api.get(f"/api/brands/{brand}").json()["name"] == "Spring"
    assert shown(alice, item_id)["brand_id"] == brand
    back_up()
    assert verify(alice)[0]


def test_a_time_in_the_future_or_none_at_all_is_an_error(alice: Person) -> None:
    with pytest.raises(CommandError, match="future"):
        restore(alice, "--as-of", (timezone.now() + timedelta(days=1)).isoformat())
    with pytest.raises(CommandError, match="as-of"):
        restore(alice, "--as-of", "yesterday")


@pytest.mark.soak
def test_what_is_restored_counts_more_than_what_was_shipped_before(alice: Person, past: dict[str, Any]) -> None:
    before = SyncState.objects.get(id=1).epoch

    restore(alice, "--as-of", past["as_of"])

    after = SyncState.objects.get(id=1).epoch
    assert before is not None
    assert after is not None
    assert after > before


def test_nobody_writes_what_is_being_restored_and_everybody_may_read_it(alice: Person, charlie: Person) -> None:
    item = alice.writes()
    with door.closed(tenant_id=alice.tenant_id):
        refused = alice.api.patch(f"/api/content/{item['id']}", {"body": "no"})
        assert (refused.status_code, refused.json()["code"]) == (503, "restore_running")
        assert refused["Retry-After"]
        assert alice.api.post("/api/content", {"title": "no", "type": "post"}).status_code == 503
        assert alice.api.delete(f"/api/content/{item['id']}").status_code == 503
        assert shown(alice, item["id"])["version"] == 1
        charlie.writes()
    assert alice.api.patch(f"/api/content/{item['id']}", {"body": "yes"}).status_code == 200


@pytest.mark.soak
def test_two_restores_of_a_tenant_do_not_run_beside_each_other(alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "WAIT_SECONDS", 1)
    with door.closed(tenant_id=alice.tenant_id):
        with pytest.raises(door.DoorBusy), door.closed(tenant_id=alice.tenant_id):
            pass
        with pytest.raises(door.DoorBusy), door.closed(tenant_id=None):
            pass


# One item, by its tenant's admins


def test_an_admin_brings_one_item_back_as_it_was(alice: Person, past: dict[str, Any]) -> None:
    answer = alice.api.post(f"/api/content/{past['edited']}/restore-from-backup", {"as_of": past["as_of"]})

    assert answer.status_code == 200, answer.json()
    assert (answer.json()["body"], answer.json()["version"], answer.json()["tags"]) == ("body of edited", 3, ["edited"])
    assert "X-Quota-Used" in answer
    assert shown(alice, past["edited"])["body"] == "body of edited"
    assert stored.stored_by(alice.tenant_id).counters_are_true


@pytest.mark.soak
def test_an_item_that_was_removed_for_good_or_trashed_comes_back(
    alice: Person, past: dict[str, Any], back_up: Callable[[], int]
) -> None:
    for name in ("purged", "trashed"):
        answer = alice.api.post(f"/api/content/{past[name]}/restore-from-backup", {"as_of": past["as_of"]})
        assert answer.status_code == 200, answer.json()
        assert shown(alice, past[name])["body"] == f"body of {name}"
    assert shown(alice, past["purged"])["version"] == 3
    assert stored.stored_by(alice.tenant_id).counters_are_true
    back_up()
    assert verify(alice)[0]


def test_two_who_bring_the_same_item_back_at_once_bring_it_back_once(
    alice: Person, past: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    met, turned_back = threading.Barrier(2), recovery._turned_back

    def met_and_turned_back(*given: Any) -> Any:
        if given[0] is None:  # both have seen that there is no row
            met.wait(20)
        return turned_back(*given)

    monkeypatch.setattr(recovery, "_turned_back", met_and_turned_back)
    url, body = f"/api/content/{past['purged']}/restore-from-backup", {"as_of": past["as_of"]}

    def ask() -> Any:
        try:
            return alice.api.post(url, body)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(2) as pool:
        answers = [asked.result() for asked in [pool.submit(ask), pool.submit(ask)]]

    assert [answer.status_code for answer in answers] == [200, 200], [answer.json() for answer in answers]
    assert {answer.json()["version"] for answer in answers} == {3}
    assert stored.stored_by(alice.tenant_id).counters_are_true


@pytest.mark.soak
def test_one_version_can_be_asked_for(alice: Person, past: dict[str, Any]) -> None:
    answer = alice.api.post(f"/api/content/{past['edited']}/restore-from-backup", {"version": 1})

    assert (answer.json()["body"], answer.json()["version"]) == ("body of edited", 3)


@pytest.mark.soak
def test_what_is_as_it_was_keeps_its_version(alice: Person, past: dict[str, Any]) -> None:
    answer = alice.api.post(f"/api/content/{past['same']}/restore-from-backup", {"as_of": past["as_of"]})

    assert (answer.status_code, answer.json()["version"]) == (200, 1)


def test_it_is_refused_to_others_and_to_who_is_no_admin(
    alice: Person, bob: Person, charlie: Person, past: dict[str, Any]
) -> None:
    url, body = f"/api/content/{past['edited']}/restore-from-backup", {"as_of": past["as_of"]}

    assert charlie.api.post(url, body).status_code == 404
    assert bob.api.post(url, body).status_code == 403
    assert shown(alice, past["edited"])["body"] == "spoiled"


@pytest.mark.soak
@pytest.mark.parametrize(
    "body",
    [{}, {"as_of": "yesterday"}, {"version": 0}, {"as_of": "2999-01-01T00:00:00Z"}, {"as_of": "2026-01-01", "x": 1}],
)
def test_bad_wishes_are_named(alice: Person, past: dict[str, Any], body: dict[str, Any]) -> None:
    answer = alice.api.post(f"/api/content/{past['same']}/restore-from-backup", body)

    assert (answer.status_code, answer.json()["code"]) == (400, "validation_error")


@pytest.mark.soak
def test_what_was_not_there_then_is_not_found(alice: Person, past: dict[str, Any]) -> None:
    for name, body in (
        ("later", {"as_of": past["as_of"]}),
        ("untrashed", {"as_of": past["as_of"]}),
        ("same", {"version": 7}),
    ):
        assert alice.api.post(f"/api/content/{past[name]}/restore-from-backup", body).status_code == 404


@pytest.mark.soak
def test_it_is_charged_like_any_write(alice: Person, past: dict[str, Any]) -> None:
    from quotas.models import QuotaUsage

    used = quota_queries.usage_of(tenant_id=alice.tenant_id).used_bytes
    with system_scope("a test fills a house"):
        QuotaUsage.objects.filter(tenant_id=alice.tenant_id).update(
            storage_limit_override=used, override_reason="a test"
        )

    answer = alice.api.post(f"/api/content/{past['purged']}/restore-from-backup", {"as_of": past["as_of"]})

    assert (answer.status_code, answer.json()["code"]) == (403, "storage_quota_exceeded")
    with system_scope("a test looks"):
        assert not ContentItem.objects.filter(id=past["purged"]).exists()


@pytest.mark.soak
def test_a_backup_that_is_off_or_away_says_so(
    alice: Person, past: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"/api/content/{past['edited']}/restore-from-backup"
    monkeypatch.setattr("dr.archives.bigquery.CALL_SECONDS", 0.5)
    with tiers.bigquery_away(monkeypatch):
        assert alice.api.post(url, {"as_of": past["as_of"]}).json()["code"] == "backup_unavailable"
    monkeypatch.setattr("dr.archives.current", lambda: None)
    assert alice.api.post(url, {"version": 1}).status_code == 503
