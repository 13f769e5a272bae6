"""The backup while everything around it fails: nothing that was committed is missing in it, and no request waits for it."""

import os
import secrets
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.utils import timezone

from content import changes
from content.models import Change, ContentVersion
from dr import archives, sync
from dr.archives import bigquery_sql
from dr.archives.base import CONTENT, ArchiveRecord
from dr.archives.bigquery import BigQueryArchive, _as_of, _record
from dr.models import Batch, SyncState
from dr.records import is_intact, make_record
from dr.verification import postgres
from engarde.common.scopes import system_scope
from tests import people, tiers
from tests.content import media_files
from tests.dr import backup_house as house
from tests.faults.backup_storm import Storm, fault, stalled
from tests.people import Person

WRITERS = 6


@pytest.fixture(autouse=True)
def _well(back_up: Callable[[], int]) -> Iterator[None]:
    """What other tests left to back up is done before, and nothing of a storm is left behind."""
    house.make_well()
    back_up()
    yield
    fault()
    house.make_well()


def archive() -> BigQueryArchive:
    found = archives.current()
    assert isinstance(found, BigQueryArchive)
    return found


@pytest.mark.parametrize(
    ("seconds", "patience"), [(6, 100), pytest.param(200, 240, marks=[pytest.mark.soak, pytest.mark.timeout(600)])]
)
def test_every_committed_change_is_there_once_in_effect_and_none_that_was_rolled_back(
    monkeypatch: pytest.MonkeyPatch, seconds: int, patience: int
) -> None:
    seed = int(os.environ.get("STORM_SEED") or secrets.randbelow(2**32))
    sys.stdout.write(f"STORM_SEED={seed}\n")  # shown when it fails
    began = timezone.now()
    owners = [people.new_owner(name, tier="enterprise") for name in ("alice", "charlie")]
    tenants = {owner.tenant_id for owner in owners}
    assert [owner.writes()["version"] for owner in owners] == [1, 1]  # Django's modules are imported by one thread
    storm = Storm(owners, seed, monkeypatch)

    storm.rage(seconds=seconds, writers=WRITERS, drained=lambda: not waiting(tenants), patience=patience)

    sys.stdout.write(f"{storm.worker}, {len(storm.memory.kept)} kept, {len(storm.memory.taken_back)} taken back\n")
    assert storm.memory.errors == []
    assert storm.worker.get("ended by an error", 0) == 0
    there = records_of(tenants)
    check_log(tenants, there)
    check_memory(storm, there)
    check_state(tenants)
    check_batches(began)
    assert min(storm.worker.get("killed by the clock", 0), storm.worker.get("died at a step", 0)) > 0
    assert storm.worker["started"] > 5
    assert len(storm.memory.kept) > 20 < len(there)
    assert len(storm.memory.taken_back) > 2


def waiting(tenants: set[UUID]) -> int:
    """Return how many changes of some tenants the backup has not acknowledged."""
    with system_scope("a test looks"):
        return Change.objects.filter(tenant_id__in=tenants, acked_at=None).count()


def records_of(tenants: set[UUID]) -> list[ArchiveRecord]:
    """Return every row that BigQuery has of some tenants, also those that arrived more than once."""
    mine = ", ".join(f"'{tenant_id}'" for tenant_id in tenants)
    statement = bigquery_sql.known(archive()._record_tables(), bigquery_sql.COLUMNS, f"tenant_id IN ({mine})")
    return [_record(row) for row in archive()._query(statement, _as_of(None))]


def check_log(tenants: set[UUID], there: list[ArchiveRecord]) -> None:
    """Check that BigQuery has the lines of the change log, all of them and no others, each in one form."""
    with system_scope("a test looks"):
        mine = Change.objects.filter(tenant_id__in=tenants)
        assert not mine.filter(acked_at=None).exists()
        batch_ids = [one for one in mine.values_list("batch_id", flat=True).distinct() if one]
        lines = [line for line in changes.of_batches(batch_ids=batch_ids) if line.tenant_id in tenants]
        assert len(lines) == mine.count()
    epoch = SyncState.objects.get(id=1).epoch
    assert epoch
    wanted = {line.seq: make_record(line, document=None, epoch=epoch, batch_id=line.batch_id) for line in lines}
    assert {record.change_seq: record.row_hash for record in there} == {
        seq: record.row_hash for seq, record in wanted.items()
    }
    assert len({(record.change_seq, record.row_hash) for record in there}) == len(wanted)
    assert {record.change_seq: record.batch_id for record in there} == {
        seq: record.batch_id for seq, record in wanted.items()
    }
    assert all(is_intact(record) for record in there)
    mine_there = ", ".join(f"'{tenant_id}'" for tenant_id in tenants)
    once = bigquery_sql.once(archive()._record_tables(), f"tenant_id IN ({mine_there})")
    assert len(list(archive()._query(once, _as_of(None)))) == len(wanted)


def check_memory(storm: Storm, there: list[ArchiveRecord]) -> None:
    """Check with the writers' memory: what they committed can be read in BigQuery, what they took back cannot."""
    text = "\n".join(record.facts + (record.document or "") for record in there)
    assert [mark for mark in storm.memory.kept if mark not in text] == []
    assert [mark for mark in storm.memory.taken_back if mark in text] == []


def check_state(tenants: set[UUID]) -> None:
    """Check that what is in force in BigQuery is what PostgreSQL has: by sums, and version by version."""
    for tenant_id in tenants:
        theirs = {
            sums_key(group): (group.rows, group.lanes) for group in archive().sums(tenant_id=tenant_id, deep=True)
        }
        ours = {
            sums_key(group): (group.rows, group.lanes) for group in postgres.sums(tenant_id=tenant_id) if group.rows
        }
        assert theirs == ours
        with archive().snapshot(tenant_id=tenant_id) as snapshot:
            current = list(snapshot.records(entity_type=CONTENT))
        with system_scope("a test looks"):
            rows = ContentVersion.objects.filter(tenant_id=tenant_id).values_list("content_id", "version", "sha256")
            versions = {(content_id, version): bytes(sha256).hex() for content_id, version, sha256 in rows}
        assert Counter((one.record.entity_id, one.record.version) for one in current) == Counter(versions.keys())
        assert {(one.record.entity_id, one.record.version): one.record.sha256 for one in current} == versions


def sums_key(group: Any) -> tuple[str, object]:
    return group.entity_type, group.day


def check_batches(since: Any) -> None:
    """Check that every batch holds what its manifest says, and that both ways into BigQuery were taken."""
    sums = list(archive().batch_sums(since=since))
    assert [one for one in sums if (one.rows, one.lanes) != (one.manifest_rows, one.manifest_lanes)] == []
    sealed = Batch.objects.filter(sealed_at__gte=since, acked_at__isnull=False)
    assert {one.batch_id for one in sums} >= set(sealed.values_list("id", flat=True))
    assert sealed.filter(pack_id__isnull=False).exists()
    assert sealed.filter(pack_id=None).exists()
    assert sealed.filter(attempts__gt=1).exists()


# Requests


class Asked(AssertionError):
    """A request asked the archive."""


@pytest.fixture
def untouchable(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Whatever the test's own thread, in which its requests run, asks of the archive is an error; what it asked is noted."""
    asked: list[str] = []
    names = [name for name, value in vars(BigQueryArchive).items() if callable(value) and not name.startswith("__")]

    def guarded(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def guard(*args: Any, **kwargs: Any) -> Any:
            if threading.current_thread() is threading.main_thread():
                asked.append(name)
                raise Asked(name)
            return call(*args, **kwargs)

        return guard

    for name in names:
        monkeypatch.setattr(BigQueryArchive, name, guarded(name, getattr(BigQueryArchive, name)))
    return asked


def test_requests_are_answered_while_bigquery_stands_still_and_none_asks_it(
    alice: Person, untouchable: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sends = threading.Event()
    append = BigQueryArchive._append_chunk

    def noted(*args: Any) -> None:
        sends.set()
        append(*args)

    monkeypatch.setattr(BigQueryArchive, "_append_chunk", noted)
    first = alice.writes()["id"]
    done: list[sync.Pass] = []
    backup = threading.Thread(target=run_backup, args=[done])

    with stalled():
        backup.start()
        assert sends.wait(60)
        written = write_everything(alice)
        health = alice.api.get("/health")
        assert backup.is_alive()
    backup.join(60)

    assert (health.status_code, health.json()["checks"]["postgres"]) == (200, "ok")
    assert untouchable == []
    assert [one.status for one in done] == ["healthy"]
    assert tiers.versions(first)[0].backed_up_at
    assert not any(version.backed_up_at for version in tiers.versions(written)[-1:])


def write_everything(person: Person) -> str:
    """Make requests of every kind that writes, and read; return the id of an item."""
    item_id = str(person.writes(body="written while BigQuery stood still")["id"])
    address = f"/api/content/{item_id}"
    media = media_files.uploaded(person, b"some bytes", "file.txt")
    answers = [
        person.api.patch(address, {"body": "changed"}),
        person.api.delete(address),
        person.api.post(f"{address}/restore"),
        person.api.post("/api/content/bulk", {"action": "tag", "ids": [item_id], "tags": ["tagged"]}),
        person.api.post("/api/brands", {"name": "Another brand"}),
        person.api.post("/api/api-keys", {"name": "Another key", "scopes": ["content:read"]}),
        person.api.get(address),
        person.api.get("/api/content", {"include": "body"}),
        person.api.delete(f"/api/content/media/{media['id']}"),
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 200, 201, 201, 200, 200, 204]
    return item_id


def run_backup(done: list[sync.Pass]) -> None:
    try:
        done.append(sync.run_pass(now=timezone.now))
    finally:
        connection.close()
