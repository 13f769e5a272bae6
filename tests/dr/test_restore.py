"""The way back: what was lost returns as it was; what is newer stays; a second run changes nothing."""

import json
from collections.abc import Callable
from io import StringIO
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command

from content.models import ContentItem
from engarde.common.scopes import system_scope
from quotas import queries as quota_queries
from tests import tiers
from tests.people import Person


@pytest.fixture
def everywhere(alice: Person, upload: Callable[[], int], back_up: Callable[[], int]) -> dict[str, dict[str, Any]]:
    """Items of alice's that all tiers have: one plain, one with three versions, one in the trash."""
    plain, changed, trashed = (alice.writes(title=name, body=name * 3) for name in ("plain", "changed", "trashed"))
    for body in ("second", "third"):
        alice.api.patch(f"/api/content/{changed['id']}", {"body": body})
    alice.api.delete(f"/api/content/{trashed['id']}")
    upload()
    back_up()
    return {"plain": plain, "changed": changed, "trashed": trashed}


def restore(person: Person, *options: str) -> dict[str, Any]:
    out = StringIO()
    call_command("restore_from_bigquery", "--tenant", str(person.tenant_id), "--json", *options, stdout=out)
    return dict(json.loads(out.getvalue()))


def read(person: Person) -> list[Any]:
    return sorted(
        (item["id"], item["version"], item["preview"]) for item in person.api.get("/api/content").json()["data"]
    )


def test_documents_return_to_zerodb(alice: Person, everywhere: dict[str, Any]) -> None:
    before = read(alice)
    tiers.forget_copies()
    assert tiers.lose_zerodb_rows(alice.tenant_id) == 5
    item = alice.api.get(f"/api/content/{everywhere['changed']['id']}").json()
    assert (item["body"], item["storage"]["tier"]) == ("third", "backup")

    report = restore(alice)

    assert (report["changed"], report["errors"]) == (3, [])
    item = alice.api.get(f"/api/content/{everywhere['changed']['id']}").json()
    assert (item["body"], item["storage"]["tier"]) == ("third", "zerodb")
    assert read(alice) == before
    assert len(tiers.zerodb_rows(everywhere["changed"]["id"])) == 3


def test_items_return_to_postgresql_as_they_were(
    alice: Person, everywhere: dict[str, Any], back_up: Callable[[], int]
) -> None:
    ids = [item["id"] for item in everywhere.values()]
    url = f"/api/content/{everywhere['changed']['id']}"
    before, facts = alice.api.get(url).json(), {id_: _facts(id_) for id_ in ids}
    usage = quota_queries.usage_of(tenant_id=alice.tenant_id)
    tiers.lose_postgres_rows(*ids)
    _set_usage(alice, 0, 0)
    assert alice.api.get(url).status_code == 404

    report = restore(alice)

    assert (report["changed"], report["errors"]) == (3, [])
    after = alice.api.get(url).json()
    before["storage"].pop("bigquery_last_sync_at"), after["storage"].pop("bigquery_last_sync_at")
    assert after == before
    assert {id_: _facts(id_) for id_ in ids} == facts
    assert alice.api.get(f"/api/content/{everywhere['trashed']['id']}").status_code == 404
    assert quota_queries.usage_of(tenant_id=alice.tenant_id) == usage
    assert back_up() == 0


@pytest.mark.soak
def test_versions_that_postgresql_lost_return_and_newer_ones_stay(
    alice: Person, everywhere: dict[str, Any], upload: Callable[[], int]
) -> None:
    plain = everywhere["plain"]["id"]
    alice.api.patch(f"/api/content/{plain}", {"body": "newer than the backup"})

    assert restore(alice)["changed"] == 0

    assert alice.api.get(f"/api/content/{plain}").json()["body"] == "newer than the backup"


def test_over_equal_data_and_in_a_dry_run_it_changes_nothing(alice: Person, everywhere: dict[str, Any]) -> None:
    assert (restore(alice)["changed"], restore(alice)["would_change"]) == (0, 0)

    tiers.lose_zerodb_rows(alice.tenant_id)
    report = restore(alice, "--dry-run")

    assert (report["changed"], report["would_change"], report["dry_run"]) == (0, 3, True)
    assert tiers.zerodb_rows(everywhere["plain"]["id"]) == []


def test_a_restore_that_was_stopped_goes_on(alice: Person, everywhere: dict[str, Any]) -> None:
    tiers.lose_zerodb_rows(alice.tenant_id)
    from tests import crash

    crash.kill_at(
        "content.stores.zerodb.ZeroDBStore.put",
        "after",
        f"from django.core.management import call_command\n"
        f"call_command('restore_from_bigquery', '--tenant', '{alice.tenant_id}', '--json')",
    )
    for item in everywhere.values():
        tiers.make_due(item["id"])
    restore(alice)

    assert {len(tiers.zerodb_rows(item["id"])) for item in everywhere.values()} == {1, 3}
    assert restore(alice)["changed"] == 0


@pytest.mark.soak
def test_another_tenants_content_is_left_alone(
    alice: Person, charlie: Person, everywhere: dict[str, Any], upload: Callable[[], int], back_up: Callable[[], int]
) -> None:
    other = charlie.writes()["id"]
    upload()
    back_up()
    tiers.lose_zerodb_rows(charlie.tenant_id)

    assert restore(alice)["changed"] == 0

    assert tiers.zerodb_rows(other) == []


def test_an_unknown_tenant_and_a_switched_off_backup_are_errors(
    database: None, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CommandError, match="no tenant"):
        call_command("restore_from_bigquery", "--tenant", str(uuid4()))
    monkeypatch.setattr("dr.archives.current", lambda: None)
    with pytest.raises(CommandError, match="off"):
        restore(alice)


def _facts(content_id: str) -> list[tuple[Any, ...]]:
    return [
        (row.version, bytes(row.sha256), row.size_bytes, row.change_type, row.changed_by, row.created_at)
        for row in tiers.versions(content_id)
    ]


def _set_usage(person: Person, size_bytes: int, items: int) -> None:
    from engarde.common.scopes import system_scope
    from quotas.models import QuotaUsage

    with system_scope("a test loses counters"):
        QuotaUsage.objects.filter(tenant_id=person.tenant_id).update(used_bytes=size_bytes, content_items=items)


@pytest.mark.soak
def test_counters_are_the_sums_of_what_is_there_however_often_it_was_lost(
    alice: Person, everywhere: dict[str, Any]
) -> None:
    usage = quota_queries.usage_of(tenant_id=alice.tenant_id)

    for _ in range(2):
        tiers.lose_postgres_rows(*[item["id"] for item in everywhere.values()])
        restore(alice)

    assert quota_queries.usage_of(tenant_id=alice.tenant_id) == usage


@pytest.mark.soak
def test_postgresql_alone_comes_back_whole(alice: Person, everywhere: dict[str, Any]) -> None:
    tiers.lose_postgres_rows(*[item["id"] for item in everywhere.values()])

    restore(alice, "--tier", "postgres")

    out = StringIO()
    call_command("verify_backup_integrity", "--tenant", str(alice.tenant_id), "--json", stdout=out)
    assert json.loads(out.getvalue())["missing"] == 0


@pytest.mark.soak
def test_an_item_whose_latest_record_is_damaged_is_reported_and_left(alice: Person, everywhere: dict[str, Any]) -> None:
    trashed = everywhere["trashed"]["id"]
    tiers.bigquery(f"UPDATE {{table}} SET row_hash = 'x' WHERE entity_id = '{trashed}' AND op = 'D'")
    tiers.lose_postgres_rows(trashed)
    out = StringIO()

    with pytest.raises(SystemExit):
        call_command("restore_from_bigquery", "--tenant", str(alice.tenant_id), "--json", stdout=out)

    [error] = json.loads(out.getvalue())["errors"]
    assert (error["id"], error["code"]) == (trashed, "damaged_record")
    assert tiers.versions(trashed) == []


def test_what_was_purged_stays_away_and_may_be_made_again(
    alice: Person, everywhere: dict[str, Any], upload: Callable[[], int], back_up: Callable[[], int]
) -> None:
    from uuid import UUID

    from django.utils import timezone

    from content import operations

    gone = everywhere["changed"]["id"]
    with system_scope("a test purges"):
        ContentItem.objects.filter(id=gone).delete()
    back_up()
    assert (restore(alice)["changed"], tiers.versions(gone)) == (0, [])

    operations.create_content(
        tenant_id=alice.tenant_id,
        author_id=None,
        fields={"title": "again", "body": "anew"},
        now=timezone.now(),
        content_id=UUID(gone),
    )
    upload()
    back_up()
    tiers.lose_postgres_rows(gone)
    restore(alice)

    assert [version.version for version in tiers.versions(gone)] == [1]
    assert alice.api.get(f"/api/content/{gone}").json()["body"] == "anew"
