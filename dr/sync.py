"""The second carrier: the change log to the archive.

First it seals: a short transaction gives at most 100 changes to a batch, which nothing joins any more. Then it ships
sealed batches, each under a lease. Killed anywhere, it leaves batches whose lease ends and that are shipped again with the
same rows; the archive's readers count a row that arrived twice once. Only a change whose document no tier can give is moved,
to a batch of its own, so that it holds up nothing else.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from django.conf import settings
from django.db import connection
from django.db.models import F
from uuid_utils.compat import uuid7

from content import changes, documents
from content.changes import LoggedChange
from dr import archives
from dr.archives.base import Archive, ArchiveRefused, ArchiveUnavailable, BatchManifest
from dr.models import Batch, SyncState
from dr.records import make_record
from engarde.common.scopes import system_scope

log = structlog.get_logger(__name__)

LEASE = timedelta(minutes=1)
SHORTEST_WAIT = timedelta(seconds=5)
LONGEST_WAIT = timedelta(minutes=5)
PROBE_EVERY = timedelta(minutes=1)
MAX_BATCHES_A_PASS = 50


@dataclass(frozen=True, slots=True)
class Pass:
    """What one pass did.

    Attributes:
        status: healthy, failing, disabled (by setting or because access is refused).
        backlog: changes that the archive has not acknowledged.
    """

    status: str
    reason: str = ""
    sealed: int = 0
    shipped: int = 0
    rows: int = 0
    backlog: int = 0


def run_pass(*, now: Callable[[], datetime]) -> Pass:
    """Seal what was committed and ship what is due; never raises for an archive that is away."""
    archive = archives.current()
    if archive is None:
        return Pass("disabled", "BIGQUERY_SYNC_ENABLED is off.")
    state = _state()
    if state.status == SyncState.Status.DISABLED and state.next_probe_at and state.next_probe_at > now():
        return Pass(state.status, state.reason, backlog=_backlog())
    sealed = _seal_all()
    done = replace(_ship_due(archive, state, now), sealed=sealed)
    return replace(done, backlog=_backlog())


def _seal_all() -> int:
    for sealed in range(MAX_BATCHES_A_PASS):
        if not _seal():
            return sealed
    return MAX_BATCHES_A_PASS


def _seal() -> bool:
    with system_scope("seal a batch of changes"):
        batch_id = uuid7()
        seqs = changes.claim(batch_id=batch_id, limit=settings.BIGQUERY_SYNC_BATCH_SIZE)
        if not seqs:
            return False
        Batch.objects.create(id=batch_id, rows=len(seqs), first_seq=seqs[0], last_seq=seqs[-1], horizon=_horizon())
    return True


def _horizon() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
        return int(cursor.fetchone()[0])


def _ship_due(archive: Archive, state: SyncState, now: Callable[[], datetime]) -> Pass:
    """Ship batches until none is due or the archive fails: the others would meet the same archive."""
    done = Pass(state.status, state.reason)
    while done.shipped < MAX_BATCHES_A_PASS and (batch := _lease(now())):
        try:
            _ship(archive, batch, state.epoch, now)
        except DocumentsMissing as error:
            done = replace(done, status=_failed(batch, error, now()), reason=str(error))
            continue
        except (ArchiveRefused, ArchiveUnavailable) as error:
            status = _failed(batch, error, now())
            return replace(done, status=status, reason=str(error))
        done = replace(done, status=SyncState.Status.HEALTHY, reason="", shipped=done.shipped + 1)
        done = replace(done, rows=done.rows + batch.rows)
    return _settle(done, now()) if done.shipped else done


def _settle(done: Pass, now: datetime) -> Pass:
    """Note that the archive takes batches; those that failed before need not wait any longer."""
    stuck = Batch.objects.filter(acked_at=None, attempts__gt=0).exclude(last_error="")
    waiting = stuck.exclude(last_error__startswith=DocumentsMissing.PREFIX)
    waiting.filter(next_try_at__gt=now).update(next_try_at=now)
    missing = stuck.filter(last_error__startswith=DocumentsMissing.PREFIX).first()
    if missing:
        done = replace(done, status=SyncState.Status.FAILING, reason=missing.last_error)
    SyncState.objects.filter(id=1).update(
        status=done.status, reason=done.reason, last_success_at=now, next_probe_at=None
    )
    return done


def _lease(now: datetime) -> Batch | None:
    with system_scope("lease a batch"):
        due = Batch.objects.select_for_update(skip_locked=True).filter(acked_at=None, next_try_at__lte=now)
        batch = due.order_by("next_try_at").first()
        if batch:
            Batch.objects.filter(id=batch.id).update(attempts=F("attempts") + 1, next_try_at=now + LEASE)
    return batch


class DocumentsMissing(Exception):
    """Documents of some changes are in no tier that can be reached now; those changes wait in a batch of their own."""

    PREFIX = "documents missing"


def _ship(archive: Archive, batch: Batch, epoch: int, now: Callable[[], datetime]) -> None:
    rows, texts = _read(batch)
    missing = [row for row in rows if row.has_document and _key(row) not in texts]
    if missing and len(missing) < len(rows):
        batch = _set_aside(batch, rows, missing, now())
        rows = [row for row in rows if row not in missing]
    elif missing:
        raise DocumentsMissing(f"{DocumentsMissing.PREFIX}: {len(missing)}, such as that of {missing[0].entity_id}")
    records = [make_record(row, document=texts.get(_key(row)), epoch=epoch, batch_id=batch.id) for row in rows]
    size = sum(len((record.document or "").encode()) + len(record.facts) for record in records)
    archive.append(records, _manifest(batch, size, epoch))
    with system_scope("acknowledge a batch"):
        Batch.objects.filter(id=batch.id, acked_at=None).update(acked_at=now(), bytes=size, last_error="")
        changes.acknowledge(batch_ids=[batch.id], now=now())


def _set_aside(batch: Batch, rows: list[LoggedChange], missing: list[LoggedChange], now: datetime) -> Batch:
    """Move changes whose documents cannot be read into a batch of their own, so that they hold up nothing else."""
    good = [row.seq for row in rows if row not in missing]
    seqs = [row.seq for row in missing]
    with system_scope("set changes aside"):
        aside = Batch.objects.create(
            id=uuid7(), rows=len(seqs), first_seq=seqs[0], last_seq=seqs[-1], horizon=batch.horizon, next_try_at=now
        )
        changes.move(seqs=seqs, batch_id=aside.id)
        Batch.objects.filter(id=batch.id).update(rows=len(good), first_seq=good[0], last_seq=good[-1])
    return Batch.objects.get(id=batch.id)


def _read(batch: Batch) -> tuple[list[LoggedChange], dict[tuple[UUID, bytes], str]]:
    """Return a batch's changes, and the documents that can be read now, tenant by tenant."""
    with system_scope("read a batch of changes"):
        rows = changes.of_batch(batch_id=batch.id)
    found: dict[tuple[UUID, bytes], str] = {}
    for tenant_id in {row.tenant_id for row in rows if row.has_document}:
        mine = [row for row in rows if row.has_document and row.tenant_id == tenant_id]
        keys = {documents.key_of(*_key(row)): _key(row) for row in mine}
        read = documents.read_many(tenant_id=tenant_id, keys=keys)
        found |= {keys[key]: document.text for key, document in read.items()}
    return rows, found


def _key(change: LoggedChange) -> tuple[UUID, bytes]:
    return change.entity_id, change.sha256


def _manifest(batch: Batch, size: int, epoch: int) -> BatchManifest:
    return BatchManifest(
        batch_id=batch.id,
        rows=batch.rows,
        bytes=size,
        first_seq=batch.first_seq,
        last_seq=batch.last_seq,
        horizon=batch.horizon,
        epoch=epoch,
        sealed_at=batch.sealed_at,
    )


def _failed(batch: Batch, error: Exception, now: datetime) -> str:
    """Put the batch off and note the state; a refusal disables the backup until a probe gets through."""
    refused = isinstance(error, ArchiveRefused)
    status = SyncState.Status.DISABLED if refused else SyncState.Status.FAILING
    wait = PROBE_EVERY if refused else min(LONGEST_WAIT, SHORTEST_WAIT * 2 ** min(batch.attempts, 12))
    Batch.objects.filter(id=batch.id).update(next_try_at=now + wait, last_error=str(error)[:1000])
    SyncState.objects.filter(id=1).update(
        status=status, reason=str(error)[:1000], next_probe_at=now + PROBE_EVERY if refused else None
    )
    log.warning("backup failed; nothing is lost, the batch is tried again", status=status, error=str(error))
    return status


def _state() -> SyncState:
    return SyncState.objects.get_or_create(id=1)[0]


def _backlog() -> int:
    with system_scope("count the backlog"):
        return changes.backlog()
