"""The backup: every committed change arrives, none counts twice, and an archive that is away harms nobody."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.utils import timezone
from google.api_core.exceptions import Forbidden

from content.models import SpooledDocument
from dr import sync
from dr.archives.bigquery import BigQueryArchive
from dr.models import Batch, SyncState
from engarde.common.scopes import system_scope
from tests import crash, tiers
from tests.people import Person


def rows_of(item_id: str) -> list[tuple[int, str]]:
    """Return (version, op) of an item's rows in BigQuery."""
    rows = tiers.bigquery(f"SELECT version, op FROM {{table}} WHERE entity_id = '{item_id}' ORDER BY version")
    return [(row["version"], row["op"]) for row in rows]


def make_due() -> None:
    """End the leases and waits of batches."""
    Batch.objects.filter(acked_at=None).update(next_try_at=timezone.now())
    SyncState.objects.update(next_probe_at=None)


def test_it_backs_up_creates_changes_and_deletes(alice: Person, back_up: Callable[[], int]) -> None:
    item_id = alice.writes()["id"]
    alice.api.patch(f"/api/content/{item_id}", {"title": "Other"})
    alice.api.delete(f"/api/content/{item_id}")

    back_up()

    assert rows_of(item_id) == [(1, "I"), (2, "U"), (3, "D")]
    assert all(version.backed_up_at for version in tiers.versions(item_id))
    assert sync.run_pass(now=timezone.now).backlog == 0


def test_it_seals_batches_of_bounded_size_with_a_manifest(
    alice: Person, back_up: Callable[[], int], settings: object
) -> None:
    back_up()
    settings.BIGQUERY_SYNC_BATCH_SIZE = 2  # type: ignore[attr-defined]
    before = Batch.objects.count()
    for _ in range(5):
        alice.writes()

    assert back_up() == 5

    batches = list(Batch.objects.order_by("-sealed_at")[: Batch.objects.count() - before])
    assert sorted(batch.rows for batch in batches) == [1, 2, 2]
    assert all(batch.acked_at and batch.bytes and batch.first_seq <= batch.last_seq for batch in batches)
    manifests = tiers.bigquery(f"SELECT `rows` FROM `engarde_dr.content_sync_log` WHERE batch_id = '{batches[0].id}'")
    assert [row["rows"] for row in manifests] == [batches[0].rows]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_backup_killed_around_its_send_counts_every_change_once(
    alice: Person, back_up: Callable[[], int], moment: str
) -> None:
    back_up()
    item_id = alice.writes()["id"]

    crash.kill_at("dr.archives.bigquery.BigQueryArchive.append", moment, "from dr import tasks; tasks.sync()")
    assert tiers.versions(item_id)[0].backed_up_at is None
    make_due()
    back_up()

    assert set(rows_of(item_id)) == {(1, "I")}
    archive = BigQueryArchive(**_options())
    found = archive.history(tenant_id=alice.tenant_id, entity_id=UUID(item_id))
    assert [one.record.version for one in found] == [1]


def test_a_backup_killed_between_seal_and_ship_loses_nothing(alice: Person, back_up: Callable[[], int]) -> None:
    back_up()
    item_id = alice.writes()["id"]

    crash.kill_at("dr.sync._ship_due", "before", "from dr import tasks; tasks.sync()")
    back_up()

    assert rows_of(item_id) == [(1, "I")]


def test_a_refused_access_disables_the_backup_visibly_and_it_drains_when_access_is_back(
    alice: Person, back_up: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    back_up()
    item_id = alice.writes()["id"]

    def refuse(*_: object) -> None:
        raise Forbidden("no", errors=[{"reason": "accessDenied"}])

    with monkeypatch.context() as patch:
        patch.setattr(BigQueryArchive, "_append", refuse)
        done = sync.run_pass(now=timezone.now)
        assert (done.status, done.backlog) == ("disabled", 1)
        assert "refuses" in done.reason
        alice.writes(title="still writing")
        assert sync.run_pass(now=timezone.now).status == "disabled"

    later = timezone.now() + timedelta(minutes=2)
    done = sync.run_pass(now=lambda: later)

    assert (done.status, done.backlog) == ("healthy", 0)
    assert rows_of(item_id) == [(1, "I")]


def test_a_rate_limit_is_no_refusal(alice: Person, back_up: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> None:
    back_up()
    alice.writes()

    def refuse(*_: object) -> None:
        raise Forbidden("slow down", errors=[{"reason": "rateLimitExceeded"}])

    with monkeypatch.context() as patch:
        patch.setattr(BigQueryArchive, "_append", refuse)
        assert sync.run_pass(now=timezone.now).status == "failing"
    make_due()
    assert back_up() == 1


def test_an_archive_that_is_away_is_tried_again_later_and_writes_go_on(
    alice: Person, back_up: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    back_up()
    item_id = alice.writes()["id"]
    monkeypatch.setattr("dr.archives.bigquery.CALL_SECONDS", 0.5)

    with tiers.bigquery_away(monkeypatch):
        assert sync.run_pass(now=timezone.now).status == "failing"
        assert alice.api.patch(f"/api/content/{item_id}", {"body": "more"}).status_code == 200
    [waiting] = Batch.objects.filter(acked_at=None)
    assert waiting.next_try_at > timezone.now()
    assert waiting.last_error

    make_due()
    back_up()

    assert rows_of(item_id) == [(1, "I"), (2, "U")]


def _options() -> dict[str, Any]:
    from django.conf import settings

    return dict(settings.DR_ARCHIVE_OPTIONS)


def test_a_document_that_cannot_be_read_holds_up_no_other_change(
    alice: Person, upload: Callable[[], int], back_up: Callable[[], int]
) -> None:
    back_up()
    lost, *others = (alice.writes()["id"] for _ in range(3))
    with system_scope("a test loses a document"):
        SpooledDocument.objects.filter(content_id=lost).delete()

    done = sync.run_pass(now=timezone.now)

    assert (done.status, done.backlog) == ("failing", 1)
    assert lost in done.reason
    assert [rows_of(item_id) for item_id in others] == [[(1, "I")], [(1, "I")]]
    assert rows_of(lost) == []
    tiers.give_up(lost)
    Batch.objects.filter(acked_at=None).update(acked_at=timezone.now())
    SyncState.objects.update(status="healthy", reason="")
