"""Housekeeping: batches that lost rows are shipped again, purged content leaves the archive, all can be shipped anew."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings
from django.core.management import call_command
from django.utils import timezone

from content.models import Change, ContentItem
from dr import archives, epochs, keeping, states, sync
from dr.archives.bigquery import BigQueryArchive
from dr.models import Batch, Run
from engarde.common.scopes import system_scope
from tests import tiers
from tests.dr.test_restore_times import verify
from tests.people import Person


def in_archive(person: Person) -> set[UUID]:
    """Return the items of a person's that are in force in the archive."""
    archive = archives.current()
    assert archive is not None
    with archive.snapshot(tenant_id=person.tenant_id) as snapshot:
        return {one.record.entity_id for one in snapshot.records(entity_type="content")}


def test_a_batch_of_which_the_archive_lost_rows_is_shipped_again(
    alice: Person, upload: Callable[[], int], back_up: Callable[[], int]
) -> None:
    item_id = alice.writes()["id"]
    upload()
    back_up()
    with system_scope("a test looks"):
        [batch_id] = Change.objects.filter(entity_id=item_id).values_list("batch_id", flat=True)
    tiers.bigquery(f"DELETE FROM {{table}} WHERE entity_id = '{item_id}'")
    assert str(batch_id) not in keeping.look_after(now=timezone.now())  # its rows may still be on their way

    again = keeping.look_after(now=timezone.now() + keeping.SETTLED + timedelta(seconds=5))
    back_up()

    assert str(batch_id) in again
    assert in_archive(alice) == {UUID(item_id)}
    assert verify(alice)[0]


@pytest.mark.soak
def test_batches_that_are_whole_are_left_alone(alice: Person, back_up: Callable[[], int]) -> None:
    item_id = alice.writes()["id"]
    back_up()
    with system_scope("a test looks"):
        [batch_id] = Change.objects.filter(entity_id=item_id).values_list("batch_id", flat=True)

    again = keeping.look_after(now=timezone.now() + keeping.SETTLED + timedelta(seconds=5))

    assert str(batch_id) not in again
    assert batch_id is not None
    assert Batch.objects.get(id=batch_id).acked_at


@pytest.mark.soak
def test_an_archive_that_is_away_is_looked_at_another_time(database: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dr.archives.bigquery.CALL_SECONDS", 0.5)
    with tiers.bigquery_away(monkeypatch):
        assert keeping.look_after(now=timezone.now()) == []
        assert keeping.remove_purged(before=timezone.now()).rows == 0


@pytest.mark.soak
def test_old_records_of_the_work_go(database: None) -> None:
    old, new = timezone.now() - keeping.KEPT - timedelta(days=1), timezone.now() - timedelta(days=1)
    runs = [str(Run.objects.create(started_at=at, status="healthy").id) for at in (old, new)]

    keeping.look_after(now=timezone.now())

    assert [str(one) for one in Run.objects.filter(id__in=runs).values_list("id", flat=True)] == [runs[1]]


def test_what_was_purged_leaves_the_archive_and_what_is_live_stays(
    alice: Person, upload: Callable[[], int], back_up: Callable[[], int]
) -> None:
    gone, kept = (alice.writes()["id"] for _ in range(2))
    upload()
    back_up()
    alice.api.delete(f"/api/content/{gone}")
    with system_scope("a test purges"):
        ContentItem.objects.filter(id=gone).delete()
    back_up()

    keeping.remove_purged(before=timezone.now() + timedelta(minutes=1))

    left = tiers.bigquery(f"SELECT op FROM {{table}} WHERE entity_id = '{gone}'")
    assert {row["op"] for row in left} <= {"P", "T"}  # tombstones stay
    assert in_archive(alice) == {UUID(kept)}
    assert verify(alice)[0]


def test_a_dataset_that_was_lost_is_made_anew_and_filled_from_postgresql(
    alice: Person, upload: Callable[[], int], monkeypatch: pytest.MonkeyPatch, back_up: Callable[[], int]
) -> None:
    item = alice.writes(title="first")
    alice.api.patch(f"/api/content/{item['id']}", {"title": "second"})
    trashed = alice.writes()["id"]
    alice.api.delete(f"/api/content/{trashed}")
    upload()
    back_up()
    other = BigQueryArchive(**{**settings.DR_ARCHIVE_OPTIONS, "dataset": f"anew_{alice.tenant_id.hex[:8]}"})
    monkeypatch.setattr(archives, "current", lambda: other)
    monkeypatch.setattr("engarde.accounts.queries.tenant_ids", lambda: [alice.tenant_id])
    call_command("setup_bigquery", stdout=_nowhere())

    call_command("sync_to_bigquery", "--reseed", "--until-empty", "--json", stdout=_nowhere())

    assert in_archive(alice) == {UUID(item["id"]), UUID(trashed)}
    passed, report = verify(alice)
    assert passed, report["findings"]
    assert report["versions"] == 4
    assert sync.run_pass(now=timezone.now).backlog == 0


def _nowhere() -> Any:
    from io import StringIO

    return StringIO()


@pytest.mark.soak
def test_a_database_that_came_back_from_a_snapshot_of_its_own_begins_an_epoch_and_waits_for_a_restore(
    alice: Person, back_up: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    item_id = UUID(alice.writes()["id"])
    back_up()
    before = states.row().epoch
    assert before is not None

    with monkeypatch.context() as patch:
        patch.setattr(BigQueryArchive, "latest_number", lambda _archive, *, epoch: 2**40 + epoch)
        keeping.look_after(now=timezone.now())

    try:
        assert states.row().epoch == before + 1
        assert states.row().awaits_restore
        with system_scope("a test looks"):
            assert Change.objects.get(entity_id=item_id).acked_at is None
        back_up()
        assert in_archive(alice) == {item_id}
    finally:
        epochs.is_restored()


def test_a_database_whose_numbers_the_archive_knows_is_left_alone(alice: Person, back_up: Callable[[], int]) -> None:
    alice.writes()
    back_up()
    before = states.row().epoch

    keeping.look_after(now=timezone.now())

    assert (states.row().epoch, states.row().awaits_restore) == (before, False)
