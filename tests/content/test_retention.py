"""What is trashed or superseded goes for good when the plan's time is over, from every tier, and nothing else does."""

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from io import StringIO
from typing import Any
from uuid import UUID

import pytest
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from content import documents, records, retention
from content.models import Change, ContentItem, ContentVersion, SpooledDocument, SpooledRecord
from engarde.common.models import IdempotencyKey
from engarde.common.scopes import system_scope, tenant_scope
from quotas import queries as quota_queries
from quotas.models import Plan, QuotaUsage
from tests import tiers
from tests.people import Person
from tests.stored import stored_by

A_MONTH = timedelta(days=30)


@pytest.fixture(autouse=True)
def _only_this_tests_tenants(alice: Person, charlie: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave other tests' tenants alone: there are hundreds, and this is about two."""
    of_all = quota_queries.retentions

    def of_these(*, now: datetime) -> dict[UUID, int | None]:
        return {one: days for one, days in of_all(now=now).items() if one in {alice.tenant_id, charlie.tenant_id}}

    monkeypatch.setattr(quota_queries, "retentions", of_these)


def in_days(days: float) -> datetime:
    return timezone.now() + timedelta(days=days)


def purge(days: float) -> retention.Purged:
    """Apply retention as it will be in so many days."""
    return retention.purge(now=in_days(days))


def put_on(person: Person, tier: str) -> None:
    """Change a tenant's plan, as the admin does."""
    with system_scope("a test changes a plan"):
        QuotaUsage.objects.filter(tenant_id=person.tenant_id).update(plan_id=tier)


def retention_of(person: Person, now: datetime) -> int | None:
    with system_scope("a test looks"):
        return quota_queries.retentions(now=now)[person.tenant_id]


def trash(person: Person, **fields: Any) -> str:
    item_id: str = person.writes(**fields)["id"]
    assert person.api.delete(f"/api/content/{item_id}").status_code == 200
    return item_id


def exists(item_id: str) -> bool:
    with system_scope("a test looks"):
        return ContentItem.objects.filter(id=item_id).exists()


def versions(item_id: str) -> list[int]:
    with system_scope("a test looks"):
        rows = ContentVersion.objects.filter(content_id=UUID(item_id)).order_by("version")
        return list(rows.values_list("version", flat=True))


# Trash


def test_trash_stays_as_long_as_the_plan_says(alice: Person) -> None:
    item_id = trash(alice)

    purge(29.9)
    assert exists(item_id)
    assert alice.api.get("/api/content?deleted=true").json()["pagination"]["total"] == 1


def test_trash_goes_after_that_with_all_its_rows(alice: Person) -> None:
    item_id = trash(alice, tags=["a"], platforms=["b"])

    purge(30.1)

    assert alice.api.get("/api/content?deleted=true").json()["data"] == []
    assert alice.api.post(f"/api/content/{item_id}/restore").status_code == 404
    with system_scope("a test looks"), connection.cursor() as cursor:
        for table in ("content_tags", "content_platforms", "content_search", "content_versions", "content_body_spool"):
            cursor.execute(f"SELECT count(*) FROM {table} WHERE content_id = %s", [item_id])
            assert cursor.fetchone() == (0,), table


def test_live_content_stays_for_ever(alice: Person) -> None:
    item_id = alice.writes()["id"]
    purge(10_000)
    assert alice.api.get(f"/api/content/{item_id}").status_code == 200


def test_an_item_that_came_back_from_the_trash_stays(alice: Person) -> None:
    item_id = trash(alice)
    alice.api.post(f"/api/content/{item_id}/restore")
    purge(31)
    assert alice.api.get(f"/api/content/{item_id}").status_code == 200


def test_a_tenant_without_a_limit_keeps_everything(alice: Person) -> None:
    put_on(alice, "enterprise")
    item_id = trash(alice)
    purge(10_000)
    assert exists(item_id)


def test_the_purge_is_in_the_change_log_once_an_item(alice: Person) -> None:
    item_id = trash(alice)
    purge(31)
    with system_scope("a test looks"):
        ops = list(Change.objects.filter(entity_id=item_id).order_by("seq").values_list("op", flat=True))
    assert ops == ["I", "D", "P"]


def test_it_takes_no_room_in_the_quota_and_counters_stay_true(alice: Person) -> None:
    alice.writes(body="stays")
    trash(alice, body="goes")
    purge(31)
    assert stored_by(alice.tenant_id).counters_are_true


def test_it_goes_batch_by_batch_until_all_is_gone(alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "ITEMS_A_BATCH", 2)
    ids = [trash(alice) for _ in range(5)]
    assert purge(31).items >= 5
    assert not any(exists(item_id) for item_id in ids)


# Old versions


def test_superseded_versions_go_and_the_current_one_stays(alice: Person) -> None:
    item_id = alice.writes(body="one")["id"]
    for body in ("two", "three"):
        alice.api.patch(f"/api/content/{item_id}", {"body": body})

    purge(29.9)
    assert versions(item_id) == [1, 2, 3]
    purge(30.1)

    assert versions(item_id) == [3]
    assert alice.api.get(f"/api/content/{item_id}").json()["body"] == "three"
    assert alice.api.get(f"/api/content/{item_id}/versions/1").status_code == 404


def test_the_change_log_tells_of_each_old_version(alice: Person) -> None:
    item_id = alice.writes(body="one")["id"]
    alice.api.patch(f"/api/content/{item_id}", {"body": "two"})
    purge(31)
    with system_scope("a test looks"):
        told = list(Change.objects.filter(entity_id=item_id).order_by("seq").values_list("op", "version"))
    assert told == [("I", 1), ("U", 2), ("T", 1)]


def test_a_document_that_a_later_version_shares_stays(alice: Person, upload: Callable[[], int]) -> None:
    item_id = alice.writes(body="one")["id"]
    alice.api.patch(f"/api/content/{item_id}", {"body": "two"})
    alice.api.patch(f"/api/content/{item_id}", {"body": "one"})
    upload()

    purge(31)
    carry()

    assert versions(item_id) == [3]
    bodies = {json.loads(row["row_data"]["document"])["body"] for row in tiers.zerodb_rows(item_id)}
    assert bodies == {"one"}


def carry() -> None:
    """Run the carrier of records until nothing is due."""
    store = documents.document_store()
    assert store is not None
    while not (done := records.run_pass(store=store, now=timezone.now)).is_idle:
        assert not done.failed


def test_documents_and_records_leave_zerodb_too(alice: Person, upload: Callable[[], int]) -> None:
    item_id = trash(alice)
    upload()
    carry()
    assert len(tiers.zerodb_rows(item_id)) == 1

    purge(31)
    carry()

    assert tiers.zerodb_rows(item_id) == []
    with system_scope("a test looks"):
        assert not SpooledRecord.objects.filter(key__startswith=item_id).exists()
        assert not SpooledDocument.objects.filter(content_id=UUID(item_id)).exists()


def test_the_backup_does_not_bring_back_what_was_purged(
    alice: Person, upload: Callable[[], int], back_up: Callable[[], int]
) -> None:
    gone, kept = trash(alice), alice.writes(body="one")["id"]
    alice.api.patch(f"/api/content/{kept}", {"body": "two"})
    upload()
    back_up()
    purge(31)
    carry()
    back_up()

    out = StringIO()
    call_command("verify_backup_integrity", "--tenant", str(alice.tenant_id), "--json", stdout=out)
    assert json.loads(out.getvalue())["extra"] == 0
    call_command("restore_from_bigquery", "--tenant", str(alice.tenant_id), "--json", stdout=StringIO())

    assert not exists(gone)
    assert versions(kept) == [2]


# Media


def test_media_of_a_purged_item_go_with_it_unless_another_item_uses_them(alice: Person) -> None:
    from django.core.files.uploadedfile import SimpleUploadedFile

    item_id = alice.writes()["id"]

    def upload_for(text: str) -> str:
        file = SimpleUploadedFile("a.txt", text.encode())
        answer = alice.api.post("/api/content/media", {"file": file, "content_id": item_id}, format="multipart")
        assert answer.status_code == 201, answer.content
        media_id: str = answer.json()["id"]
        return media_id

    lonely, shared = upload_for("lonely"), upload_for("shared")
    alice.writes(media=[shared])
    alice.api.delete(f"/api/content/{item_id}")

    purge(31)

    assert alice.api.get(f"/api/content/media/{lonely}").status_code == 404
    assert alice.api.get(f"/api/content/media/{shared}").status_code == 200


# A shorter retention


def test_a_downgrade_shortens_the_retention_after_thirty_days(alice: Person) -> None:
    put_on(alice, "professional")
    put_on(alice, "free")

    assert retention_of(alice, in_days(29)) == 365
    assert retention_of(alice, in_days(31)) == 30


def test_an_upgrade_lengthens_it_at_once(alice: Person) -> None:
    put_on(alice, "starter")
    assert retention_of(alice, timezone.now()) == 90


def test_two_downgrades_in_a_row_keep_the_longest_time(alice: Person) -> None:
    put_on(alice, "enterprise")
    put_on(alice, "professional")
    put_on(alice, "free")
    assert retention_of(alice, in_days(29)) is None
    assert retention_of(alice, in_days(31)) == 30


@pytest.fixture
def short_plan(alice: Person) -> Iterator[Plan]:
    """A plan of alice's own."""
    plan = Plan.objects.create(tier="short", rank=77, retention_days=50)
    put_on(alice, plan.tier)
    yield plan
    put_on(alice, "free")
    plan.delete()


def test_a_plan_that_is_shortened_spares_its_tenants_for_thirty_days(alice: Person, short_plan: Plan) -> None:
    with system_scope("a test edits a plan"):
        Plan.objects.filter(tier=short_plan.tier).update(retention_days=5)

    assert retention_of(alice, in_days(29)) == 50
    assert retention_of(alice, in_days(31)) == 5


# The command


def test_a_dry_run_tells_what_would_go_and_removes_nothing(alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    item_id = trash(alice, body="12345")
    before = stored_by(alice.tenant_id)
    monkeypatch.setattr("quotas.queries.retentions", lambda now: {alice.tenant_id: -1})
    out = StringIO()

    call_command("purge_expired", "--dry-run", "--json", stdout=out)

    report = json.loads(out.getvalue())
    assert (report["dry_run"], report["items"], report["versions"], report["bytes"]) == (True, 1, 2, 10)
    assert exists(item_id)
    assert stored_by(alice.tenant_id) == before


def test_the_command_removes_and_reports(alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    item_id = trash(alice)
    monkeypatch.setattr("quotas.queries.retentions", lambda now: {alice.tenant_id: -1})
    out = StringIO()

    call_command("purge_expired", "--json", stdout=out)

    assert json.loads(out.getvalue())["items"] == 1
    assert not exists(item_id)


# What is kept for a while only


def test_it_forgets_idempotency_keys_after_a_day(alice: Person) -> None:
    alice.api.post("/api/content", {"title": "t", "type": "post"}, HTTP_IDEMPOTENCY_KEY="once")
    for days, left in ((0.9, 1), (1.1, 0)):
        purge(days)
        with tenant_scope(alice.tenant_id):
            assert IdempotencyKey.objects.count() == left


def test_it_trims_the_change_log_where_the_backup_has_it(alice: Person, upload: Any, back_up: Any) -> None:
    told = UUID(alice.writes()["id"])
    upload()
    back_up()
    untold = UUID(alice.writes()["id"])

    purge(8)

    with system_scope("a test looks"):
        left = set(Change.objects.filter(tenant_id=alice.tenant_id).values_list("entity_id", flat=True))
    assert told not in left
    assert untold in left


def test_a_dry_run_foresees_what_the_real_run_removes(alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    trash(alice, body="123")
    edited = alice.writes(body="1234")["id"]
    alice.api.patch(f"/api/content/{edited}", {"body": "x"})
    monkeypatch.setattr("quotas.queries.retentions", lambda now: {alice.tenant_id: -1})

    foreseen, done = (retention.purge(now=timezone.now(), dry_run=dry_run) for dry_run in (True, False))

    names = ("items", "versions", "media", "bytes")
    assert [getattr(foreseen, name) for name in names] == [getattr(done, name) for name in names] == [1, 3, 0, 10]


def test_one_tenants_trouble_leaves_the_others_retention_alone(
    alice: Person, charlie: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    item_id, purge_trash = trash(charlie), retention._purge_trash

    def fail_for_alice(tenant_id: UUID, before: datetime) -> retention.Purged:
        if tenant_id == alice.tenant_id:
            raise RuntimeError("a test's trouble")
        return purge_trash(tenant_id, before)

    monkeypatch.setattr(retention, "_purge_trash", fail_for_alice)
    done = purge(31)

    assert done.failed_tenants == 1
    assert not exists(item_id)


def test_a_version_below_a_gap_goes_too(alice: Person) -> None:
    item_id = alice.writes(body="one")["id"]
    for body in ("two", "three"):
        alice.api.patch(f"/api/content/{item_id}", {"body": body})
    with system_scope("a test makes a gap"):
        ContentVersion.objects.filter(content_id=UUID(item_id), version=2).delete()

    purge(31)

    assert versions(item_id) == [3]


def test_a_plan_that_is_shortened_by_somebody_without_a_scope_spares_its_tenants_too(
    alice: Person, short_plan: Plan
) -> None:
    Plan.objects.filter(tier=short_plan.tier).update(retention_days=5)
    assert retention_of(alice, in_days(29)) == 50


def test_a_plan_that_is_shortened_while_a_longer_one_still_holds_keeps_that(alice: Person, short_plan: Plan) -> None:
    put_on(alice, "professional")
    put_on(alice, short_plan.tier)
    Plan.objects.filter(tier=short_plan.tier).update(retention_days=5)
    assert retention_of(alice, in_days(29)) == 365


def test_a_purge_that_the_backup_has_not_heard_of_is_not_undone_by_a_restore(
    alice: Person, upload: Callable[[], int], back_up: Callable[[], int]
) -> None:
    item_id = trash(alice)
    upload()
    back_up()
    purge(31)

    call_command("restore_from_bigquery", "--tenant", str(alice.tenant_id), "--json", stdout=StringIO())

    assert not exists(item_id)
