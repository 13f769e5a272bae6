"""What every archive has to do, tried on BigQuery's adapter against the emulator."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.conf import settings

from content.changes import LoggedChange
from dr.archives import bigquery_sql
from dr.archives.base import ArchiveRecord, ArchiveRefused, BatchManifest, LoadFailed, RecordsRejected
from dr.archives.bigquery import BigQueryArchive
from dr.records import is_intact, lanes_of, make_record

START = datetime(2026, 5, 4, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def archive() -> BigQueryArchive:
    made = BigQueryArchive(**{**settings.DR_ARCHIVE_OPTIONS, "dataset": f"contract_{uuid4().hex[:8]}"})
    made.set_up()
    return made


@pytest.fixture
def tenant_id() -> UUID:
    return uuid4()


class Writer:
    """Makes changes of one tenant in the order in which it is asked to."""

    def __init__(self, tenant_id: UUID) -> None:
        self.tenant_id = tenant_id
        self.seq = uuid4().int % 10**9

    def change(
        self, entity_id: UUID, version: int, op: str = "I", *, at: int = 0, text: str = "", epoch: int = 1
    ) -> ArchiveRecord:
        """Return the record of a change; `at` is in minutes after the start."""
        self.seq += 1
        document = text or f'{{"body":"{entity_id} {version}"}}'
        gone = op in "PT"
        change = LoggedChange(
            batch_id=uuid4(),
            seq=self.seq,
            xid=self.seq,
            tenant_id=self.tenant_id,
            entity_type="content",
            entity_id=entity_id,
            version=version,
            op=op,
            sha256=hashlib.sha256(document.encode()).digest(),
            changed_at=START + timedelta(minutes=at),
            facts=None if gone else f'{{"size_bytes": 3, "version_created_at": "2026-05-0{4 + version % 3}T12:00:00"}}',
            size_bytes=3,
        )
        return make_record(change, document=None if gone else document, epoch=epoch, batch_id=change.batch_id)

    def row(self, entity_type: str, entity_id: UUID, facts: str, op: str = "I") -> ArchiveRecord:
        """Return the record of a row of another type."""
        self.seq += 1
        change = LoggedChange(
            uuid4(), self.seq, self.seq, self.tenant_id, entity_type, entity_id, 0, op,
            hashlib.sha256(facts.encode()).digest(), START, None if op == "P" else facts, 0,
        )  # fmt: skip
        return make_record(change, document=None, epoch=1, batch_id=change.batch_id)


def batch(*records: ArchiveRecord) -> tuple[list[ArchiveRecord], list[BatchManifest]]:
    batch_id = uuid4()
    mine = [replace(record, batch_id=batch_id) for record in records]
    seqs = [record.change_seq for record in mine]
    lanes = lanes_of(record.row_hash for record in mine)
    manifest = BatchManifest(batch_id, len(mine), 10, min(seqs), max(seqs), 1, 1, lanes, datetime.now(UTC))
    return mine, [manifest]


def found(archive: BigQueryArchive, tenant_id: UUID, **options: Any) -> dict[tuple[UUID, int], Any]:
    with archive.snapshot(tenant_id=tenant_id, **options) as snapshot:
        return {(one.record.entity_id, one.record.version): one for one in snapshot.records(entity_type="content")}


@pytest.fixture(params=["append", "load"])
def send(request: pytest.FixtureRequest, archive: BigQueryArchive) -> Callable[..., None]:
    def sent(*records: ArchiveRecord) -> None:
        if request.param == "append":
            archive.append(*batch(*records))
        else:
            archive.load(*batch(*records), job=f"dr-{uuid4().hex}-0")

    return sent


def test_what_goes_in_comes_back_byte_for_byte(
    archive: BigQueryArchive, tenant_id: UUID, send: Callable[..., None]
) -> None:
    writer, item = Writer(tenant_id), uuid4()
    text = '{"body":"ünïcode \\u0000 \\"quoted\\" 🙂","n":1e-7}'
    first, second = writer.change(item, 1, text=text), writer.change(item, 2, "U")
    send(first, second)

    there = found(archive, tenant_id)

    assert {key: (one.is_current, one.highest) for key, one in there.items()} == {
        (item, 1): (False, 2),
        (item, 2): (True, 2),
    }
    assert there[item, 1].record == replace(first, batch_id=there[item, 1].record.batch_id)
    assert all(is_intact(one.record) for one in there.values())


def test_a_batch_that_is_sent_twice_counts_once(archive: BigQueryArchive, tenant_id: UUID) -> None:
    writer = Writer(tenant_id)
    records, manifests = batch(*[writer.change(uuid4(), 1) for _ in range(3)])
    for _ in range(2):
        archive.append(records, manifests)
        archive.load(records, manifests, job=f"dr-{manifests[0].batch_id.hex}-0")

    with archive.snapshot(tenant_id=tenant_id) as snapshot:
        assert snapshot.count(entity_type="content") == 3
        assert snapshot.count(entity_type="content", is_current=False) == 0
    [total] = [
        one
        for one in archive.batch_sums(since=manifests[0].sealed_at - timedelta(seconds=1))
        if one.batch_id == manifests[0].batch_id
    ]
    assert (total.rows, total.lanes) == (total.manifest_rows, total.manifest_lanes) == (3, manifests[0].lanes)


def test_purged_and_thinned_versions_are_not_in_force(
    archive: BigQueryArchive, tenant_id: UUID, send: Callable[..., None]
) -> None:
    writer, purged, thinned, again = Writer(tenant_id), uuid4(), uuid4(), uuid4()
    send(
        writer.change(purged, 1), writer.change(purged, 2, "D"), writer.change(purged, 2, "P"),
        writer.change(thinned, 1), writer.change(thinned, 2, "U"), writer.change(thinned, 1, "T"),
        writer.change(again, 1), writer.change(again, 2, "U"), writer.change(again, 2, "P"), writer.change(again, 1),
    )  # fmt: skip

    there = found(archive, tenant_id)

    assert {key: one.highest for key, one in there.items()} == {(thinned, 2): 2, (again, 1): 2}


def test_a_snapshot_of_a_time_knows_later_versions_by_number_only(archive: BigQueryArchive, tenant_id: UUID) -> None:
    writer, kept, later, gone = Writer(tenant_id), uuid4(), uuid4(), uuid4()
    records = [
        writer.change(kept, 1), writer.change(gone, 1), writer.change(kept, 2, "U", at=10),
        writer.change(later, 1, at=11), writer.change(gone, 1, "P", at=12),
    ]  # fmt: skip
    archive.append(*batch(*records))

    there = found(archive, tenant_id, as_of=START + timedelta(minutes=5))

    assert {key: (one.is_current, one.highest) for key, one in there.items()} == {
        (kept, 1): (True, 2),
        (gone, 1): (True, 1),
    }


def test_a_higher_epoch_counts_more_than_a_higher_number(archive: BigQueryArchive, tenant_id: UUID) -> None:
    writer, item = Writer(tenant_id), uuid4()
    new = writer.change(item, 1, epoch=7, text='{"body":"new"}')
    old = writer.change(item, 1, text='{"body":"old"}')
    archive.append(*batch(new, old))

    assert found(archive, tenant_id)[item, 1].record.document == '{"body":"new"}'
    assert archive.highest_epoch() >= 7


def test_rows_of_media_and_of_the_platform_come_with_a_tenants_snapshot(
    archive: BigQueryArchive, tenant_id: UUID
) -> None:
    media, user, other = uuid4(), uuid4(), uuid4()
    archive.append(*batch(Writer(tenant_id).row("media", media, '{"file_name": "a"}')))
    archive.append(*batch(Writer(UUID(int=0)).row("user", user, '{"email": "a@b.c"}')))
    archive.append(*batch(Writer(uuid4()).row("brand", other, '{"name": "b"}')))

    with archive.snapshot(tenant_id=tenant_id) as snapshot:
        assert [one.record.entity_id for one in snapshot.records(entity_type="media")] == [media]
        assert user in [one.record.entity_id for one in snapshot.records(entity_type="user")]
        assert snapshot.count(entity_type="brand") == 0
    assert [one.rows for one in archive.sums(tenant_id=tenant_id, deep=True)] == [1]


def test_sums_are_not_bounded_by_64_bits(
    archive: BigQueryArchive, tenant_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, largest = Writer(tenant_id), 2**63 - 1
    archive.append(*batch(*[writer.row("job_item", uuid4(), "{}") for _ in range(3)]))
    monkeypatch.setattr(bigquery_sql, "lane", lambda _hashed, _number: f"CAST('{largest}' AS INT64)")

    [total] = archive.sums(tenant_id=tenant_id, deep=False)

    assert total.lanes == (3 * largest,) * 3


def test_sums_show_one_wrong_byte_and_groups_name_it(archive: BigQueryArchive, tenant_id: UUID) -> None:
    writer, items = Writer(tenant_id), [uuid4() for _ in range(3)]
    archive.append(*batch(*[writer.change(item, 1) for item in items]))
    before = {one.day: one for one in archive.sums(tenant_id=tenant_id, deep=False)}
    assert [one.damaged for one in before.values()] == [0]

    damage(archive, "document = CONCAT(document, ' ')", items[0])
    damage(archive, "facts = REPLACE(facts, '3', '4')", items[1])
    damage(archive, "op = 'U'", items[2])

    [shallow] = archive.sums(tenant_id=tenant_id, deep=False)
    [deep] = archive.sums(tenant_id=tenant_id, deep=True)
    assert (shallow.damaged, deep.damaged) == (2, 3)
    assert shallow.lanes != before[shallow.day].lanes
    records = archive.group(tenant_id=tenant_id, entity_type="content", day=shallow.day)
    assert [is_intact(record) for record in records] == [False] * 3


def damage(archive: BigQueryArchive, change: str, entity_id: UUID) -> None:
    sql = f"UPDATE `{archive.dataset}.content_storage_dr` SET {change} WHERE entity_id = '{entity_id}'"
    list(archive._rest().query(sql).result())


def test_a_batch_that_lost_a_row_does_not_equal_its_manifest(archive: BigQueryArchive, tenant_id: UUID) -> None:
    writer, item = Writer(tenant_id), uuid4()
    records, manifests = batch(writer.change(item, 1), writer.change(uuid4(), 1))
    archive.append(records, manifests)
    list(
        archive._rest().query(f"DELETE FROM `{archive.dataset}.content_storage_dr` WHERE entity_id = '{item}'").result()
    )

    [total] = [one for one in archive.batch_sums(since=START) if one.batch_id == manifests[0].batch_id]

    assert (total.rows, total.manifest_rows) == (1, 2)
    assert total.lanes != total.manifest_lanes


def test_what_purges_made_needless_goes_and_the_manifests_still_hold(archive: BigQueryArchive, tenant_id: UUID) -> None:
    writer, purged, thinned, live = Writer(tenant_id), uuid4(), uuid4(), uuid4()
    records, manifests = batch(
        writer.change(purged, 1), writer.change(purged, 2, "D"), writer.change(purged, 2, "P", at=5),
        writer.change(thinned, 1), writer.change(thinned, 2, "U"), writer.change(thinned, 1, "T", at=5),
        writer.change(live, 1),
    )  # fmt: skip
    archive.append(records, manifests)
    assert archive.remove_purged(before=START + timedelta(minutes=1)).rows == 0

    removed = archive.remove_purged(before=datetime.now(UTC))

    assert removed.rows >= 3  # other tests purge too
    assert found(archive, tenant_id).keys() == {(thinned, 2), (live, 1)}
    [total] = [one for one in archive.batch_sums(since=START) if one.batch_id == manifests[0].batch_id]
    assert (total.rows, total.lanes) == (total.manifest_rows, total.manifest_lanes)
    assert total.rows == 4
    assert archive.remove_purged(before=datetime.now(UTC)).rows == 0


def test_a_removal_that_was_stopped_between_its_entry_and_its_end_is_carried_through(
    archive: BigQueryArchive, tenant_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, manifests = batch(*[Writer(tenant_id).change(uuid4(), 1) for _ in range(2)])
    archive.append(records, manifests)
    with monkeypatch.context() as patch:
        patch.setattr(BigQueryArchive, "_delete", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            archive.erase(tenant_id=tenant_id)

    archive.erase(tenant_id=tenant_id)

    assert found(archive, tenant_id) == {}
    [total] = [one for one in archive.batch_sums(since=START) if one.batch_id == manifests[0].batch_id]
    assert (total.rows, total.manifest_rows, total.manifest_lanes) == (0, 0, (0, 0, 0))


def test_erasing_an_item_or_a_tenant_leaves_others_alone(archive: BigQueryArchive, tenant_id: UUID) -> None:
    writer, one, other, stranger = Writer(tenant_id), uuid4(), uuid4(), uuid4()
    archive.append(*batch(writer.change(one, 1), writer.change(other, 1), writer.row("media", uuid4(), '{"a": 1}')))
    archive.append(*batch(Writer(stranger).change(uuid4(), 1)))

    assert archive.erase(tenant_id=tenant_id, entity_id=one).rows == 1
    assert found(archive, tenant_id).keys() == {(other, 1)}
    assert archive.erase(tenant_id=tenant_id).rows == 2
    assert list(archive.sums(tenant_id=tenant_id, deep=False)) == []
    assert len(found(archive, stranger)) == 1


def test_documents_are_given_only_when_they_are_intact(archive: BigQueryArchive, tenant_id: UUID) -> None:
    writer, good, bad = Writer(tenant_id), uuid4(), uuid4()
    records, manifests = batch(writer.change(good, 1), writer.change(bad, 1))
    archive.append(records, manifests)
    damage(archive, "document = CONCAT(document, ' ')", bad)

    keys = [(record.entity_id, record.sha256) for record in records]
    assert archive.documents(tenant_id=tenant_id, keys=keys, timeout=30) == {keys[0]: records[0].document}
    assert archive.documents(tenant_id=uuid4(), keys=keys, timeout=30) == {}


def test_the_history_of_one_item_is_told_as_of_a_time(archive: BigQueryArchive, tenant_id: UUID) -> None:
    writer, item = Writer(tenant_id), uuid4()
    archive.append(*batch(writer.change(item, 1), writer.change(item, 2, "U", at=10)))

    told = archive.history(tenant_id=tenant_id, entity_id=item)
    then = archive.history(tenant_id=tenant_id, entity_id=item, as_of=START + timedelta(minutes=5))

    assert [(one.record.version, one.is_current) for one in told] == [(1, False), (2, True)]
    assert [(one.record.version, one.is_current, one.highest) for one in then] == [(1, True, 2)]


def test_a_load_job_that_failed_needs_another_name(
    archive: BigQueryArchive, tenant_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, manifests = batch(Writer(tenant_id).change(uuid4(), 1))
    name = f"dr-{uuid4().hex}"
    with monkeypatch.context() as patch:
        patch.setattr("dr.archives.bigquery.parquet.write_table", lambda table, file, **_: file.write(b"no parquet"))
        with pytest.raises((LoadFailed, RecordsRejected)):
            archive.load(records, manifests, job=f"{name}-0")

    archive.load(records, manifests, job=f"{name}-1")

    assert len(found(archive, tenant_id)) == 1


def test_setting_up_again_changes_nothing_and_adds_columns_that_are_missing(archive: BigQueryArchive) -> None:
    assert archive.set_up() == []
    other = BigQueryArchive(**{**settings.DR_ARCHIVE_OPTIONS, "dataset": f"contract_{uuid4().hex[:8]}"})
    other.set_up()
    list(other._rest().query(f"ALTER TABLE `{other.dataset}.content_sync_log` DROP COLUMN s3").result())

    assert other.set_up() == []

    table = other._rest().get_table(f"{other.project}.{other.dataset}.content_sync_log")
    assert "s3" in {field.name for field in table.schema}


def test_a_process_that_may_only_read_is_refused_every_change(archive: BigQueryArchive, tenant_id: UUID) -> None:
    options = {**settings.DR_ARCHIVE_OPTIONS, "dataset": archive.dataset, "read_only": True}
    reader = BigQueryArchive(**options)
    records, manifests = batch(Writer(tenant_id).change(uuid4(), 1))

    for change in (
        reader.set_up,
        lambda: reader.append(records, manifests),
        lambda: reader.load(records, manifests, job="dr-x-0"),
        lambda: reader.erase(tenant_id=tenant_id),
        lambda: reader.remove_purged(before=START),
    ):
        with pytest.raises(ArchiveRefused, match="BIGQUERY_READ_ONLY"):
            change()
    assert found(reader, tenant_id) == {}
