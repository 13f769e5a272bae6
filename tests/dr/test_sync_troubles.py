"""The backup's bulk path, rows that BigQuery takes not, and what a person has to mend before it goes on."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.conf import settings as platform_settings
from django.utils import timezone
from google.api_core.exceptions import BadRequest
from google.cloud import bigquery
from google.cloud.bigquery_storage_v1 import types
from pyarrow import parquet

from content import retention
from content.models import Change
from dr import archives, states, sync
from dr.archives import bigquery as adapter
from dr.archives import bigquery_errors
from dr.archives.base import ArchiveRecord, RecordsRejected
from dr.archives.bigquery import BigQueryArchive
from dr.archives.bigquery_errors import load_failed
from dr.models import Batch, Run, SyncState
from engarde.accounts.models import Brand
from engarde.common.scopes import system_scope
from tests import crash, tiers
from tests.dr import backup_house as house
from tests.faults.backup_storm import fault
from tests.people import Person

PACK = sync.PACK_FROM_BATCHES


@pytest.fixture(autouse=True)
def _well(back_up: Callable[[], int]) -> Iterator[None]:
    """Nothing waits before a test, whatever became of others."""
    house.make_well()
    make_due()
    back_up()
    yield
    fault()
    house.make_well()


@dataclass
class Sends:
    """What is sent to BigQuery, and what it takes not.

    Attributes:
        appended: rows of each request to append.
        loaded: rows of each load job, by its name.
        poison: ids of rows that it rejects.
    """

    appended: list[int] = field(default_factory=list)
    loaded: list[tuple[str, int]] = field(default_factory=list)
    poison: set[str] = field(default_factory=set)

    @property
    def jobs(self) -> list[str]:
        return [job for job, _ in self.loaded]

    def has_poison(self, records: Sequence[ArchiveRecord]) -> bool:
        return bool(self.poison & {str(record.entity_id) for record in records})


@pytest.fixture
def sends(alice: Person, back_up: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> Sends:
    """What is sent from now on, when nothing is left to back up of what a tenant begins with."""
    back_up()
    noted, append, load = Sends(), BigQueryArchive.append, BigQueryArchive.load

    def noted_append(self: BigQueryArchive, records: Sequence[ArchiveRecord], manifests: Any) -> None:
        noted.appended.append(len(records))
        if noted.has_poison(records):  # the service takes none of a request's rows then
            error = types.RowError(index=0, message="one value is too long for its column")
            adapter._require_appended(types.AppendRowsResponse(row_errors=[error]))
        append(self, records, manifests)

    def noted_load(self: BigQueryArchive, records: Sequence[ArchiveRecord], manifests: Any, *, job: str) -> None:
        noted.loaded.append((job, len(records)))
        if noted.has_poison(records):
            raise load_failed(BadRequest("one value is too long", errors=[{"reason": "invalid"}]))
        load(self, records, manifests, job=job)

    monkeypatch.setattr(BigQueryArchive, "append", noted_append)
    monkeypatch.setattr(BigQueryArchive, "load", noted_load)
    return noted


@pytest.fixture
def one_by_one(settings: Any) -> None:
    """Every change gets a batch of its own, so that few make a backlog."""
    settings.BIGQUERY_SYNC_BATCH_SIZE = 1


class Clock:
    """A clock that tests move ahead."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def now(self) -> datetime:
        return timezone.now() + self.ahead

    def advance(self, **time: float) -> None:
        self.ahead += timedelta(**time)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def new_brands(person: Person, count: int) -> list[str]:
    """Make brands in one transaction, and return their ids: rows that are cheap to make many of."""
    with system_scope("a test makes rows"):
        made = Brand.objects.bulk_create(
            Brand(tenant_id=person.tenant_id, name=f"Brand {number}") for number in range(count)
        )
    return [str(brand.id) for brand in made]


def arrived(ids: list[str]) -> Counter[str]:
    """Return how often each of some brands is there, in whatever batch."""
    listed = ", ".join(f"'{each}'" for each in ids)
    rows = tiers.bigquery(f"SELECT entity_id FROM {{table}} WHERE entity_id IN ({listed})")
    return Counter(row["entity_id"] for row in rows)


def make_due() -> None:
    """End the leases and waits of batches."""
    Batch.objects.filter(acked_at=None).update(next_try_at=timezone.now())
    SyncState.objects.update(next_probe_at=None)


def newest() -> Batch:
    return Batch.objects.order_by("-sealed_at", "-id")[0]


def name_of(pack: Batch, attempt: int) -> str:
    """Return the name that the load job of a pack has at an attempt."""
    assert pack.pack_id
    return f"dr-{pack.pack_id.hex}-{attempt}"


def broken_batches(*, of: list[str]) -> list[Any]:
    """Return the batches with some entities that hold something else than their manifests say."""
    wanted = {UUID(batch_id) for each in of for _, batch_id in records_of(each)}
    assert wanted
    sums = BigQueryArchive(**_options()).batch_sums(since=timezone.now() - timedelta(minutes=10))
    broken = [one for one in sums if (one.rows, one.lanes) != (one.manifest_rows, one.manifest_lanes)]
    return [one for one in broken if one.batch_id in wanted]


def _options() -> dict[str, Any]:
    return dict(platform_settings.DR_ARCHIVE_OPTIONS)


# Bulk


@pytest.mark.usefixtures("one_by_one")
def test_a_backlog_goes_by_one_load_job_that_its_pack_names(alice: Person, sends: Sends) -> None:
    ids = new_brands(alice, PACK)

    done = sync.run_pass(now=timezone.now)

    assert (done.status, done.shipped, done.rows, done.loads) == ("healthy", done.rows, done.rows, 1)
    assert (done.rows >= PACK, done.backlog, sends.appended) == (True, 0, [])
    pack = newest()
    assert sends.loaded == [(name_of(pack, 0), done.rows)]
    assert Batch.objects.filter(pack_id=pack.pack_id, acked_at__isnull=False).count() == done.rows
    assert Run.objects.latest("id").loads == 1
    assert arrived(ids) == Counter(ids)


SYNC_ONE_BY_ONE = """
from django.conf import settings
from dr import tasks

settings.BIGQUERY_SYNC_BATCH_SIZE = 1
tasks.sync()
"""


@pytest.mark.soak
@pytest.mark.usefixtures("one_by_one")
def test_less_than_a_backlog_is_appended(alice: Person, sends: Sends) -> None:
    ids = new_brands(alice, PACK - 1)

    done = sync.run_pass(now=timezone.now)

    assert (done.rows, done.loads, sends.jobs) == (PACK - 1, 0, [])
    assert arrived(ids) == Counter(ids)


def test_a_load_job_that_was_accepted_before_its_worker_died_is_waited_for_and_not_sent_twice(
    alice: Person, sends: Sends, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = new_brands(alice, PACK)
    crash.kill_at("google.cloud.bigquery.Client.load_table_from_file", "after", SYNC_ONE_BY_ONE)
    assert Batch.objects.filter(acked_at=None, pack_id__isnull=False).count() == PACK
    asked: list[str] = []
    get_job = bigquery.Client.get_job

    def noted(self: Any, job_id: str, **options: Any) -> Any:
        asked.append(job_id)
        return get_job(self, job_id, **options)

    monkeypatch.setattr(bigquery.Client, "get_job", noted)

    make_due()
    done = sync.run_pass(now=timezone.now)

    assert (done.status, done.rows, done.retries, done.backlog) == ("healthy", PACK, PACK, 0)
    assert sends.jobs == [name_of(newest(), 0)]
    assert asked == [f"{sends.jobs[0]}-{adapter.CONTENT_TABLE}"]
    assert arrived(ids) == Counter(ids)
    assert broken_batches(of=ids) == []


@pytest.mark.soak
@pytest.mark.usefixtures("one_by_one")
def test_a_load_job_that_failed_is_tried_again_under_another_name(
    alice: Person, sends: Sends, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = new_brands(alice, PACK)

    with monkeypatch.context() as patch:
        spoil_files(patch)
        patch.setattr(bigquery_errors, "BAD_ROWS", "not what the emulator says of such a file")
        done = sync.run_pass(now=timezone.now)
    assert (done.status, done.backlog) == ("failing", PACK)
    assert "load job failed" in done.reason
    pack = newest()
    assert sync.run_pass(now=timezone.now).shipped == 0, "it has to wait"
    make_due()
    done = sync.run_pass(now=timezone.now)

    assert (done.status, done.backlog) == ("healthy", 0)
    assert sends.jobs == [name_of(pack, 0), name_of(pack, 1)]
    assert arrived(ids) == Counter(ids)


@pytest.mark.soak
@pytest.mark.usefixtures("one_by_one")
def test_what_a_load_job_takes_not_for_what_is_in_it_is_appended_instead(
    alice: Person, sends: Sends, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = new_brands(alice, PACK)
    spoil_files(monkeypatch)

    done = sync.run_pass(now=timezone.now)

    assert (done.shipped, done.backlog, sends.appended) == (PACK, 0, [1] * PACK)
    assert len(sends.jobs) == 1
    assert arrived(ids) == Counter(ids)


def spoil_files(patch: pytest.MonkeyPatch) -> None:
    """Have load jobs get files that they cannot read."""
    patch.setattr(parquet, "write_table", lambda _table, file, **_: file.write(b"no Parquet"))


@pytest.mark.soak
@pytest.mark.usefixtures("one_by_one")
@pytest.mark.parametrize(
    ("trouble", "status"),
    [
        ({"code": 403, "reason": "accessDenied"}, "disabled"),
        ({"code": 403, "reason": "quotaExceeded"}, "failing"),
        ({"code": 403, "reason": "rateLimitExceeded"}, "failing"),
        ({"code": 429, "reason": "rateLimitExceeded"}, "failing"),
        ({"code": 500}, "failing"),
        ({"code": 503}, "failing"),
        ({"delay": 1.5}, "failing"),
    ],
)
def test_a_refused_load_says_why_and_the_backlog_drains_when_it_is_over(
    alice: Person, sends: Sends, monkeypatch: pytest.MonkeyPatch, trouble: dict[str, Any], status: str
) -> None:
    ids = new_brands(alice, PACK)
    fault(**trouble, left=1, match="/upload/")
    with monkeypatch.context() as patch:
        if "delay" in trouble:
            patch.setattr(adapter, "CALL_SECONDS", 0.5)
        done = sync.run_pass(now=timezone.now)

    health = states.current(now=timezone.now())
    assert (done.status, health.status, done.backlog) == (status, status, PACK)
    assert health.reason
    assert (house.row().next_probe_at is not None) == (status == "disabled")
    fault()
    later = timezone.now() + timedelta(minutes=15)
    done = sync.run_pass(now=lambda: later)

    assert (done.status, done.backlog) == ("healthy", 0)
    assert len(set(sends.jobs)) == 1, "the name of a job that was never made is not spent"
    assert arrived(ids) == Counter(ids)


@pytest.mark.soak
@pytest.mark.usefixtures("sends")
def test_an_item_that_is_purged_before_its_batch_is_sent_again_stays_gone(
    alice: Person, back_up: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    item_id = sent_but_not_acknowledged(alice, monkeypatch)
    alice.api.delete(f"/api/content/{item_id}")
    retention._purge_tenant(alice.tenant_id, timezone.now() + timedelta(days=1), lambda _rows: None, timezone.now())
    make_due()
    back_up()

    assert {op for op, _ in records_of(item_id)} >= {"I", "P"}
    archive = BigQueryArchive(**_options())
    assert archive.history(tenant_id=alice.tenant_id, entity_id=UUID(item_id)) == []


@pytest.mark.soak
@pytest.mark.usefixtures("sends")
def test_a_batch_of_which_something_was_purged_before_it_was_sent_again_is_whole(
    alice: Person, back_up: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    item_id = sent_but_not_acknowledged(alice, monkeypatch)
    alice.api.delete(f"/api/content/{item_id}")
    retention._purge_tenant(alice.tenant_id, timezone.now() + timedelta(days=1), lambda _rows: None, timezone.now())
    make_due()
    back_up()

    assert broken_batches(of=[item_id]) == []


def sent_but_not_acknowledged(person: Person, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write an item that BigQuery takes; whoever sent it dies before it can say so."""
    item_id = str(person.writes()["id"])
    with monkeypatch.context() as patch:
        patch.setattr(sync, "_acknowledge", die)
        with pytest.raises(Death):
            sync.run_pass(now=timezone.now)
    assert [op for op, _ in records_of(item_id)] == ["I"]
    return item_id


class Death(BaseException):
    """A worker's end."""


def die(*_: object) -> None:
    raise Death


def records_of(item_id: str) -> list[tuple[str, str]]:
    """Return (op, batch) of what BigQuery has of an item."""
    rows = tiers.bigquery(f"SELECT op, batch_id FROM {{table}} WHERE entity_id = '{item_id}' ORDER BY change_seq")
    return [(row["op"], row["batch_id"]) for row in rows]


# Poison


@pytest.mark.usefixtures("one_by_one")
def test_a_pack_with_one_row_that_is_rejected_is_dissolved_and_only_that_row_waits(
    alice: Person, sends: Sends, clock: Clock
) -> None:
    ids = new_brands(alice, PACK)
    sends.poison.add(ids[3])

    done = sync.run_pass(now=clock.now)

    assert (done.status, done.backlog, done.shipped) == ("failing", 1, PACK - 1)
    assert len(sends.jobs) == 1
    assert arrived(ids) == Counter(each for each in ids if each != ids[3])
    [waiting] = Batch.objects.filter(acked_at=None)
    assert (waiting.rows, waiting.pack_id) == (1, None)
    sends.poison.clear()
    clock.advance(minutes=15)
    assert sync.run_pass(now=clock.now).status == "healthy"
    assert arrived(ids) == Counter(ids)
    assert broken_batches(of=ids) == []


@pytest.mark.soak
def test_one_row_that_is_rejected_is_isolated_by_halving_and_set_aside_and_tried_again_a_day_later(
    alice: Person, sends: Sends, clock: Clock
) -> None:
    ids = new_brands(alice, 16)
    sends.poison.add(ids[5])

    done = sync.run_pass(now=clock.now)

    assert (done.status, done.backlog) == ("failing", 1)
    assert len(sends.appended) <= 1 + 2 * 4, "16 rows are halved four times"
    assert arrived(ids) == Counter(each for each in ids if each != ids[5])
    assert wait_until_set_aside(sends, clock) < sync.SET_ASIDE_AFTER
    another = new_brands(alice, 1)
    assert (sync.run_pass(now=clock.now).shipped, arrived(another)) == (1, Counter(another))
    health = states.current(now=clock.now())
    assert (health.status, health.set_aside, health.backlog, house.row().status) == ("failing", 1, 1, "healthy")
    assert "set aside" in health.reason
    assert "too long for its column" in health.reason
    sent = len(sends.appended)
    clock.advance(hours=20)
    assert (sync.run_pass(now=clock.now).shipped, len(sends.appended)) == (0, sent)

    clock.advance(hours=5)
    assert (sync.run_pass(now=clock.now).shipped, len(sends.appended)) == (0, sent + 1)
    assert states.current(now=clock.now()).set_aside == 1
    sends.poison.clear()
    clock.advance(hours=25)
    assert sync.run_pass(now=clock.now).shipped == 1

    health = states.current(now=clock.now())
    assert (health.status, health.set_aside, health.backlog) == ("healthy", 0, 0)
    assert arrived(ids) == Counter(ids)
    assert broken_batches(of=ids) == []


def wait_until_set_aside(sends: Sends, clock: Clock) -> int:
    """Let time pass until the batch is given up for the day, and return how often it was tried meanwhile."""
    sent = len(sends.appended)
    for _ in range(2 * sync.SET_ASIDE_AFTER):
        if Batch.objects.filter(acked_at=None, set_aside_at__isnull=False).exists():
            return len(sends.appended) - sent
        clock.advance(minutes=8)
        sync.run_pass(now=clock.now)
    raise AssertionError("it is tried for ever")


@pytest.mark.soak
def test_rows_that_are_all_rejected_end_up_alone_within_bounded_tries(
    alice: Person, sends: Sends, clock: Clock
) -> None:
    ids = new_brands(alice, 8)
    sends.poison |= set(ids)

    done = sync.run_pass(now=clock.now)

    assert done.backlog == 8
    assert len(sends.appended) == 15, "a tree of halves"
    assert sorted(Batch.objects.filter(acked_at=None).values_list("rows", flat=True)) == [1] * 8
    sends.poison.clear()
    clock.advance(minutes=15)
    assert sync.run_pass(now=clock.now).backlog == 0
    assert arrived(ids) == Counter(ids)


@pytest.mark.soak
def test_a_rejected_row_is_told_from_a_job_that_failed() -> None:
    rejected = types.AppendRowsResponse(row_errors=[types.RowError(index=3, message="bad")])

    with pytest.raises(RecordsRejected, match="1 rows: bad"):
        adapter._require_appended(rejected)
    assert isinstance(load_failed(BadRequest("bad", errors=[{"reason": "invalid"}])), RecordsRejected)
    assert not isinstance(load_failed(BadRequest("slow", errors=[{"reason": "backendError"}])), RecordsRejected)


# Pause, and what a person has to mend


def test_paused_nothing_is_shipped_until_it_is_resumed(alice: Person, sends: Sends) -> None:
    ids = new_brands(alice, 3)
    assert states.pause(by=None, now=timezone.now())

    done = [sync.run_pass(now=timezone.now), sync.run_pass(now=timezone.now, is_probe=True)]

    assert [(one.status, one.shipped, one.backlog) for one in done] == [("paused", 0, 3)] * 2
    assert states.current(now=timezone.now()).status == "paused"
    assert (sends.appended, sends.jobs) == ([], [])
    assert states.resume(now=timezone.now())
    then = sync.run_pass(now=timezone.now)
    assert (then.status, then.rows, then.backlog) == ("healthy", 3, 0)
    assert arrived(ids) == Counter(ids)


@contextmanager
def other_archive(monkeypatch: pytest.MonkeyPatch, **options: Any) -> Iterator[BigQueryArchive]:
    """Back up elsewhere for a while; what was changed meanwhile is backed up anew afterwards."""
    archive, last = BigQueryArchive(**{**_options(), **options}), _last_seq()
    try:
        with monkeypatch.context() as patch:
            patch.setattr(archives, "current", lambda: archive)
            yield archive
    finally:
        with system_scope("a test tidies up"):
            mine = Change.objects.filter(seq__gt=last)
            Batch.objects.filter(id__in=mine.values("batch_id")).delete()
            mine.update(batch_id=None, acked_at=None)
        house.make_well()


def _last_seq() -> int:
    with system_scope("a test looks"):
        return Change.objects.latest("seq").seq


def test_a_dataset_that_is_missing_disables_the_backup_until_it_is_made_again(
    alice: Person, back_up: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    back_up()
    dataset = f"gone_{uuid4().hex[:12]}"
    with other_archive(monkeypatch, dataset=dataset, scratch_dataset=dataset) as archive:
        archive.set_up()
        archive._rest().delete_dataset(dataset, delete_contents=True)
        ids = new_brands(alice, 2)

        done = sync.run_pass(now=timezone.now)

        health = states.current(now=timezone.now())
        assert (done.status, health.status, health.backlog) == ("disabled", "disabled", 2)
        assert dataset in health.reason
        assert (house.row().next_probe_at or timezone.now()) > timezone.now()
        archive.set_up()
        assert sync.run_pass(now=timezone.now).status == "disabled", "nobody asks before the probe is due"
        later = timezone.now() + timedelta(minutes=2)
        done = sync.run_pass(now=lambda: later)

        assert (done.status, done.rows, done.backlog) == ("healthy", 2, 0)
        rows = archive._rest().query(f"SELECT entity_id FROM `{dataset}.{adapter.CONTENT_TABLE}`").result()
        assert sorted(row["entity_id"] for row in rows) == sorted(ids)
        archive._rest().delete_dataset(dataset, delete_contents=True)
    assert back_up() == 2


@pytest.mark.soak
@pytest.mark.parametrize("key", ['{"private_key": "hush-hush"}', '{"private_key": "hush-hush"'])
def test_credentials_that_cannot_be_used_disable_the_backup_and_are_not_told(
    alice: Person, back_up: Callable[[], int], monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    back_up()
    nowhere = {"emulator_host": "", "emulator_grpc_host": ""}
    with other_archive(monkeypatch, credentials_json=key, **nowhere):
        ids = new_brands(alice, 1)

        done = sync.run_pass(now=timezone.now)

        health = states.current(now=timezone.now())
        assert (done.status, health.status, health.backlog) == ("disabled", "disabled", 1)
        assert "credentials" in health.reason
        assert "hush" not in health.reason
        assert house.row().next_probe_at
    assert back_up() == 1
    assert arrived(ids) == Counter(ids)
