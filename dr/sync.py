"""The second carrier: the change log to the archive.

First it seals: a short transaction gives at most 100 changes to a batch, which nothing joins any more. Then it ships sealed
batches, each under a lease: soon after each other through the archive's low-latency path, or, when many wait, packed into one
bulk load. Killed anywhere, it leaves batches whose lease ends and that are shipped again with the same rows; the archive's
readers count a row that arrived twice once.

What cannot be shipped (its document is in no tier that can be reached, or the archive takes it not for what is in it) is moved to
a batch of its own, so that it holds up nothing else; after some tries it is set aside: reported, and tried once a day.
"""

import hashlib
import random
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from django.conf import settings
from django.db import connection, transaction
from django.db.models import F, QuerySet
from uuid_utils.compat import uuid7

from content import changes, documents, packing
from content.changes import LoggedChange
from content.models import SpooledDocument
from content.stores.base import StoreRejected, StoreUnavailable
from dr import archives, epochs, figures, states
from dr.archives.base import (
    Archive,
    ArchiveRecord,
    ArchiveRefused,
    ArchiveUnavailable,
    BatchManifest,
    LoadFailed,
    RecordsRejected,
)
from dr.models import Batch, Run, SyncState
from dr.records import lanes_of, make_record
from engarde.common.scopes import system_scope

log = structlog.get_logger(__name__)

LEASE = timedelta(minutes=2)
LOAD_LEASE = timedelta(minutes=10)
SHORTEST_WAIT = timedelta(seconds=5)
LONGEST_WAIT = timedelta(minutes=5)
SET_ASIDE_WAIT = timedelta(days=1)
PROBE_EVERY = timedelta(minutes=1)
SET_ASIDE_AFTER = 8
AS_IT_IS = "cannot be backed up as it is: "
MAX_SEALS_A_PASS = 200
SEALED_AT_ONCE = 20
MAX_SENDS_A_PASS = 50
PACK_FROM_BATCHES = 20
PACK_BATCHES = 100
PACK_BYTES = 32 * 1024**2
APPEND_BATCHES = 10
APPEND_BYTES = 8 * 1024**2
LARGEST_APPENDED = 7 * 1024**2
# How many bytes a batch will be, about: what is shipped together is in memory together.
WEIGH = """
UPDATE dr_batches AS batch SET bytes = sums.bytes FROM (
    SELECT change.batch_id, sum(1000 + coalesce(octet_length(change.facts), 0) + coalesce(version.size_bytes, 0)) AS bytes
    FROM content_changes AS change
    LEFT JOIN content_versions AS version
      ON version.content_id = change.entity_id AND version.version = change.version AND change.entity_type = 'content'
    WHERE change.batch_id = ANY(%s) GROUP BY change.batch_id
) AS sums
WHERE batch.id = sums.batch_id AND batch.id = ANY(%s)"""
# One statement for all: a pack has a hundred batches.
ACKNOWLEDGE = """
UPDATE dr_batches AS batch
SET acked_at = %s, bytes = sent.bytes, lanes = ARRAY[s1, s2, s3], last_error = '', set_aside_at = NULL
FROM unnest(%s::uuid[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[]) AS sent (id, bytes, s1, s2, s3)
WHERE batch.id = sent.id AND acked_at IS NULL"""


@dataclass(slots=True)
class Pass:
    """What one pass did.

    Attributes:
        status: healthy, failing, disabled (by setting or because access is refused) or paused.
        sealed, shipped: batches.
        loads: load jobs among what shipped them.
        retries: batches that had been tried before.
        backlog: changes that the archive has not acknowledged.
    """

    status: str
    reason: str = ""
    sealed: int = 0
    shipped: int = 0
    loads: int = 0
    rows: int = 0
    bytes: int = 0
    retries: int = 0
    failures: int = 0
    backlog: int = 0
    ages: list[float] = field(default_factory=list)

    def fail(self, status: str, reason: str) -> None:
        """Note a failure."""
        self.status, self.reason, self.failures = status, reason, self.failures + 1


class DocumentsMissing(Exception):
    """Documents of some changes are in no tier that can be reached now.

    Attributes:
        seqs: the changes whose documents are missing.
    """

    def __init__(self, rows: Sequence[LoggedChange]) -> None:
        super().__init__(f"documents missing: {len(rows)}, such as that of {rows[0].entity_id}")
        self.seqs = frozenset(row.seq for row in rows)


@dataclass(frozen=True, slots=True)
class Parcel:
    """Sealed batches that are shipped together.

    Attributes:
        job: the name of the load job that takes them; None when they are appended.
    """

    batches: Sequence[Batch]
    job: str | None = None

    @property
    def ids(self) -> list[UUID]:
        """The batches' ids."""
        return [batch.id for batch in self.batches]


def run_pass(*, now: Callable[[], datetime], is_probe: bool = False) -> Pass:
    """Seal what was committed and ship what is due; never raises for an archive that is away.

    Args:
        is_probe: try although access was refused just now.
    """
    archive = archives.current()
    if archive is None:
        return Pass("disabled", "BIGQUERY_SYNC_ENABLED is off.")
    state = states.row()
    if state.paused_at:
        return Pass("paused", "Paused by staff.", backlog=_backlog())
    waits = state.next_probe_at is not None and state.next_probe_at > now() and not is_probe
    if state.status == SyncState.Status.DISABLED and waits:
        return Pass(state.status, state.reason, backlog=_backlog())
    started, clock = now(), time.monotonic()
    done = Pass(str(state.status), state.reason)
    done.sealed = _seal_all()
    _ship_due(archive, done, now)
    done.backlog = _backlog()
    _record(done, started, now(), time.monotonic() - clock)
    return done


def _record(done: Pass, started: datetime, now: datetime, seconds: float) -> None:
    """Keep the pass in the log of runs and in the day's figures; an idle one leaves no trace."""
    if not (done.shipped or done.failures):
        return
    figures.note(
        now=now,
        rows=done.rows,
        bytes=done.bytes,
        batches=done.shipped,
        loads=done.loads,
        retries=done.retries,
        failures=done.failures,
        seconds=seconds,
        ages=done.ages,
    )
    with system_scope("record a run of the backup"):
        oldest = states.oldest_waiting_at()
    Run.objects.create(
        started_at=started,
        finished_at=now,
        status=done.status,
        reason=done.reason,
        sealed=done.sealed,
        batches=done.shipped,
        loads=done.loads,
        rows=done.rows,
        bytes=done.bytes,
        retries=done.retries,
        failures=done.failures,
        backlog=done.backlog,
        lag_seconds=(now - oldest).total_seconds() if oldest else 0.0,
    )


# Sealing


def _seal_all() -> int:
    total = 0
    while total < MAX_SEALS_A_PASS and (sealed := _seal()):
        total += sealed
    return total


def _seal() -> int:
    """Seal some batches in one transaction, and return how many."""
    with system_scope("seal batches of changes"):
        ids = [uuid7() for _ in range(SEALED_AT_ONCE)]
        batches = changes.claim(batch_ids=ids, size=settings.BIGQUERY_SYNC_BATCH_SIZE)
        if batches:
            horizon = _horizon()
            Batch.objects.bulk_create(
                Batch(
                    id=one.batch_id,
                    rows=one.rows,
                    first_seq=one.first_seq,
                    last_seq=one.last_seq,
                    oldest_at=one.oldest_at,
                    horizon=horizon,
                )
                for one in batches
            )
            ids = [one.batch_id for one in batches]
            with connection.cursor() as cursor:
                cursor.execute(WEIGH, [ids, ids])
    return len(batches)


def _horizon() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
        return int(cursor.fetchone()[0])


# Shipping


def _ship_due(archive: Archive, done: Pass, now: Callable[[], datetime]) -> None:
    """Ship until nothing is due or the archive fails: the others would meet the same archive."""
    for _ in range(MAX_SENDS_A_PASS):
        parcel = _lease(now())
        if parcel is None or not _try(archive, parcel, done, now):
            break
    if done.shipped and not done.failures:
        done.status, done.reason = str(SyncState.Status.HEALTHY), ""


def _try(archive: Archive, parcel: Parcel, done: Pass, now: Callable[[], datetime]) -> bool:
    """Ship a parcel, or put it off; tell whether it is worth while to go on with others."""
    try:
        _ship(archive, parcel, done, now)
    except (DocumentsMissing, RecordsRejected) as error:
        counts = isinstance(error, RecordsRejected) or _store_answers()
        _part(parcel, error, now(), counts=counts)
        done.fail(str(SyncState.Status.FAILING), str(error))
        states.note_failure(status="failing", reason=str(error), now=now(), probe_at=None)
        return True
    except ArchiveRefused as error:
        _put_off(parcel, error, now(), wait=PROBE_EVERY)
        done.fail(str(SyncState.Status.DISABLED), str(error))
        states.note_failure(status="disabled", reason=str(error), now=now(), probe_at=now() + PROBE_EVERY)
        return False
    except ArchiveUnavailable as error:
        _put_off(parcel, error, now(), new_job=isinstance(error, LoadFailed))
        done.fail(str(SyncState.Status.FAILING), str(error))
        states.note_failure(status="failing", reason=str(error), now=now(), probe_at=None)
        return False
    _note_success(now())
    return True


def _lease(now: datetime) -> Parcel | None:
    """Take what is due for this worker: some batches to append, or a pack of many to load."""
    with system_scope("lease batches"):
        due = Batch.objects.select_for_update(skip_locked=True).filter(acked_at=None, next_try_at__lte=now)
        first = due.order_by("next_try_at").first()
        if first is None:
            return None
        if first.pack_id is None and _waiting(now) >= PACK_FROM_BATCHES:
            batches = list(due.filter(pack_id=None, attempts=0).order_by("next_try_at")[:PACK_BATCHES])
            if len(batches) >= PACK_FROM_BATCHES:
                batches = _within(batches, PACK_BYTES)
                Batch.objects.filter(id__in=[batch.id for batch in batches]).update(pack_id=batches[0].id)
                first = Batch.objects.get(id=batches[0].id)
        batches = _companions(due, first)
        if not batches:
            return None
        lease = LOAD_LEASE if first.pack_id else LEASE
        ids = [batch.id for batch in batches]
        Batch.objects.filter(id__in=ids).update(attempts=F("attempts") + 1, next_try_at=now + lease, last_error="")
    job = f"dr-{first.pack_id.hex}-{first.pack_attempt}" if first.pack_id else None
    return Parcel(batches, job)


def _waiting(now: datetime) -> int:
    """Return how many batches are due, counting no further than matters."""
    due = Batch.objects.filter(acked_at=None, next_try_at__lte=now, pack_id=None, attempts=0)
    return due.order_by("next_try_at")[:PACK_FROM_BATCHES].count()


def _companions(due: QuerySet[Batch], first: Batch) -> list[Batch]:
    """Return the batches to ship with one, by id: its pack, whole or not at all; or some never tried; or it alone, once it failed."""
    if first.pack_id:
        pack = Batch.objects.filter(acked_at=None, pack_id=first.pack_id)
        locked = list(pack.select_for_update(skip_locked=True).order_by("id"))
        return locked if len(locked) == pack.count() else []  # another worker has it in hand
    if first.attempts:
        return [first]
    batches = due.filter(pack_id=None, attempts=0).order_by("next_try_at")[:APPEND_BATCHES]
    return sorted(_within(batches, APPEND_BYTES), key=lambda batch: batch.id)


def _within(batches: Iterable[Batch], most: int) -> list[Batch]:
    """Return the first batches that are at most so many bytes together, at least one: all of a parcel is in memory at once."""
    chosen: list[Batch] = []
    total = 0
    for batch in batches:
        total += batch.bytes or 0
        if chosen and total > most:
            break
        chosen.append(batch)
    return chosen


def _store_answers() -> bool:
    """Tell whether ZeroDB can be asked at all: what is missing while it is away is no fault of a change."""
    store = documents.document_store()
    try:
        if store is not None:
            store.ping()
    except (StoreUnavailable, StoreRejected):
        return False
    return True


def _locked(batches: QuerySet[Batch], *, skip_locked: bool = False) -> QuerySet[Batch]:
    """Inside a transaction, lock batches in the order of their ids: workers that took them in two orders would deadlock."""
    in_order = batches.select_for_update(skip_locked=skip_locked).order_by("id")
    return Batch.objects.filter(id__in=list(in_order.values_list("id", flat=True)))


def _ship(archive: Archive, parcel: Parcel, done: Pass, now: Callable[[], datetime]) -> None:
    rows, texts = _read(parcel)
    missing = [row for row in rows if row.has_document and _key(row) not in texts]
    if missing:
        raise DocumentsMissing(missing)
    epoch = epochs.current(archive=archive)
    records = [make_record(row, document=texts.get(_key(row)), epoch=epoch, batch_id=row.batch_id) for row in rows]
    manifests = _manifests(parcel, records, epoch)
    if parcel.job or any(len(record.document or "") > LARGEST_APPENDED for record in records):
        job = parcel.job or f"dr-{parcel.batches[0].id.hex}-{parcel.batches[0].attempts}"
        archive.load(records, manifests, job=job)
        done.loads += 1
    else:
        archive.append(records, manifests)
    _acknowledge(manifests, now())
    done.shipped += len(parcel.batches)
    done.rows += len(records)
    done.bytes += sum(manifest.bytes for manifest in manifests)
    done.retries += sum(batch.attempts > 0 for batch in parcel.batches)
    done.ages += [max(0.0, (now() - record.changed_at).total_seconds()) for record in records if record.xid]


def _acknowledge(manifests: Sequence[BatchManifest], now: datetime) -> None:
    columns = zip(*((one.batch_id, one.bytes, *one.lanes) for one in manifests), strict=True)
    batch_ids = [manifest.batch_id for manifest in manifests]
    with system_scope("acknowledge batches"):
        _locked(Batch.objects.filter(id__in=batch_ids))
        with connection.cursor() as cursor:
            cursor.execute(ACKNOWLEDGE, [now, *map(list, columns)])
        changes.acknowledge(batch_ids=batch_ids, now=now)


def _read(parcel: Parcel) -> tuple[list[LoggedChange], dict[tuple[UUID, bytes], str]]:
    """Return a parcel's changes, and the documents that can be read now: from the spool, else tenant by tenant."""
    with system_scope("read batches of changes"):
        rows = changes.of_batches(batch_ids=parcel.ids)
        wanted = {_key(row): row.tenant_id for row in rows if row.has_document}
        found = _spooled(wanted)
    for tenant_id in {wanted[key] for key in wanted.keys() - found.keys()}:
        mine = [key for key, owner in wanted.items() if owner == tenant_id and key not in found]
        keys = {documents.key_of(*key): key for key in mine}
        read = documents.read_many(tenant_id=tenant_id, keys=keys)
        found |= {keys[key]: document.text for key, document in read.items()}
    return rows, found


def _spooled(wanted: Collection[tuple[UUID, bytes]]) -> dict[tuple[UUID, bytes], str]:
    """Inside a scope, return the documents that are in the spool and intact.

    They are not remembered, as those that people read are: a backlog would drive these out of memory.
    """
    found: dict[tuple[UUID, bytes], str] = {}
    kept = SpooledDocument.objects.filter(content_id__any={content_id for content_id, _ in wanted})
    for content_id, sha256, document in kept.values_list(*documents.KEPT):
        key = content_id, bytes(sha256)
        with suppress(packing.DamagedDocument):
            text = packing.decompress(bytes(document)) if key in wanted else ""
            if hashlib.sha256(text.encode()).digest() == key[1]:
                found[key] = text
    return found


def _key(change: LoggedChange) -> tuple[UUID, bytes]:
    return change.entity_id, change.sha256


def _manifests(parcel: Parcel, records: Sequence[ArchiveRecord], epoch: int) -> list[BatchManifest]:
    by_batch: dict[UUID, list[ArchiveRecord]] = {}
    for record in records:
        by_batch.setdefault(record.batch_id, []).append(record)
    return [_manifest(batch, by_batch.get(batch.id, []), epoch) for batch in parcel.batches]


def _manifest(batch: Batch, records: Sequence[ArchiveRecord], epoch: int) -> BatchManifest:
    return BatchManifest(
        batch_id=batch.id,
        rows=len(records),
        bytes=sum(len((record.document or "").encode()) + len(record.facts) for record in records),
        first_seq=batch.first_seq,
        last_seq=batch.last_seq,
        horizon=batch.horizon,
        epoch=epoch,
        lanes=lanes_of(record.row_hash for record in records),
        sealed_at=batch.sealed_at,
    )


# What cannot be shipped


def _put_off(
    parcel: Parcel, error: Exception, now: datetime, *, wait: timedelta | None = None, new_job: bool = False
) -> None:
    """Set when to try again: doubling, with jitter. A load job that failed needs another name."""
    attempts = max(batch.attempts for batch in parcel.batches)
    later = now + (wait or _backoff(attempts))
    with transaction.atomic():
        batches = _locked(Batch.objects.filter(id__in=parcel.ids))
        batches.update(next_try_at=later, last_error=str(error)[:1000])
        if new_job:
            batches.filter(pack_id__isnull=False).update(pack_attempt=F("pack_attempt") + 1)
    log.warning("backup failed; nothing is lost, it is tried again", batches=len(parcel.ids), error=str(error))


def _backoff(attempts: int) -> timedelta:
    doubled: timedelta = min(LONGEST_WAIT, SHORTEST_WAIT * 2 ** min(attempts, 12))
    return doubled * random.uniform(0.5, 1.5)  # noqa: S311 -- no secret


def _part(parcel: Parcel, error: DocumentsMissing | RecordsRejected, now: datetime, *, counts: bool) -> None:
    """Divide what cannot be shipped, so that in the end only what is at fault waits.

    Args:
        counts: whether the try counts towards being set aside.
    """
    log.error("some changes cannot be backed up as they are", batches=len(parcel.ids), error=str(error))
    at_fault = error.seqs if isinstance(error, DocumentsMissing) else None
    with system_scope("part batches"):
        if at_fault is None and len(parcel.batches) > 1:  # which of them is at fault shows when they are sent alone
            _locked(Batch.objects.filter(id__in=parcel.ids)).update(pack_id=None, next_try_at=now)
            return
        for batch in parcel.batches:
            seqs = changes.seqs_of(batch_id=batch.id)
            bad = frozenset(seqs[len(seqs) // 2 :]) if at_fault is None else at_fault & set(seqs)
            _divide(batch, [seq for seq in seqs if seq not in bad], sorted(bad), error, now, counts=counts)


def _divide(
    batch: Batch, good: Sequence[int], bad: Sequence[int], error: Exception, now: datetime, *, counts: bool
) -> None:
    """Leave in a batch what is good, and give the rest one of its own; what is all bad waits."""
    if not bad:
        Batch.objects.filter(id=batch.id).update(next_try_at=now)
    elif not good:
        _wait(batch, error, now, counts=counts)
    else:
        Batch.objects.filter(id=batch.id).update(**_span(good), next_try_at=now)
        other = Batch.objects.create(
            id=uuid7(), **_span(bad), horizon=batch.horizon, sealed_at=batch.sealed_at, next_try_at=now, attempts=1
        )
        changes.move(seqs=bad, batch_id=other.id)


def _span(seqs: Sequence[int]) -> dict[str, Any]:
    oldest_at = changes.oldest(seqs=seqs)
    return {"rows": len(seqs), "first_seq": seqs[0], "last_seq": seqs[-1], "oldest_at": oldest_at}


def _wait(batch: Batch, error: Exception, now: datetime, *, counts: bool) -> None:
    """Let a batch wait; after some tries it is set aside for a person to look at, and tried once a day."""
    is_hopeless = counts and batch.attempts + 1 >= SET_ASIDE_AFTER
    Batch.objects.filter(id=batch.id).update(
        attempts=batch.attempts + 1 if counts else min(batch.attempts, SET_ASIDE_AFTER - 2),
        next_try_at=now + (SET_ASIDE_WAIT if is_hopeless else _backoff(batch.attempts)),
        set_aside_at=(batch.set_aside_at or now) if is_hopeless else None,
        last_error=f"{AS_IT_IS}{error}"[:1000],
        pack_id=None,
    )


def _note_success(now: datetime) -> None:
    """Note that the archive takes batches; those that failed because it did not need not wait any longer."""
    states.note_success(now=now)
    waiting = Batch.objects.filter(acked_at=None, next_try_at__gt=now).exclude(last_error="")
    with transaction.atomic():
        _locked(waiting.exclude(last_error__startswith=AS_IT_IS), skip_locked=True).update(next_try_at=now)


def _backlog() -> int:
    with system_scope("count the backlog"):
        return changes.backlog()
