"""Copies of media files' bytes in a second storage (DR_MEDIA_STORAGE), one row of `MediaCopy` each.

A pass finds blobs that have no row, leases rows that are due and copies their bytes under the blob's own key, so that the
copies can be found again even without these rows. A copy counts once it was read back with the blob's checksum. Killed
anywhere, a pass leaves a lease that ends and bytes that the next try looks at first. Thumbnails are not copied: they are
made anew.
"""

import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from django.conf import settings
from django.db import connection
from django.db.models import Count, Exists, F, Max, Min, OuterRef, Q
from django.db.models.functions import Now

from content.models import Blob
from dr import media_files
from dr.media_files import FIRST, SECOND, Expected, FileMissing, Interrupted, StorageAway, StoredFile, WrongBytes
from dr.models import MediaCopy
from engarde.common.scopes import system_scope, tenant_scope

log = structlog.get_logger(__name__)

Clock = Callable[[], datetime]
Progress = Callable[[int], object]

LEASE = timedelta(minutes=5)
RENEW_EVERY = timedelta(minutes=1)
SHORTEST_WAIT = timedelta(seconds=10)
LONGEST_WAIT_AWAY = timedelta(minutes=5)
LONGEST_WAIT_BROKEN = timedelta(hours=6)
CHECK_EVERY = timedelta(days=30)
RECENT = timedelta(hours=1)
ERASING = timedelta(hours=1)
PASS_SECONDS = 45.0
MAX_FOUND = 10_000
MAX_FILES = 100
MAX_AWAY_IN_A_ROW = 3
OFF = "DR_MEDIA_STORAGE is not set."
LOWEST, HIGHEST = UUID(int=0), UUID(int=2**128 - 1)

FIND = """
INSERT INTO dr_media_copies (blob_id, tenant_id, storage_key, sha256, size_bytes, next_try_at)
SELECT id, tenant_id, storage_key, sha256, size_bytes, %(now)s FROM content_media_blobs AS blob
WHERE id BETWEEN %(first)s AND %(last)s AND NOT EXISTS (SELECT FROM dr_media_copies WHERE blob_id = blob.id)
ORDER BY id LIMIT %(limit)s
ON CONFLICT (blob_id) DO NOTHING"""
GONE = """
UPDATE dr_media_copies SET unneeded_since = %(now)s WHERE blob_id = ANY(
    SELECT blob_id FROM dr_media_copies AS copy
    WHERE unneeded_since IS NULL AND NOT EXISTS (SELECT FROM content_media_blobs WHERE id = copy.blob_id)
    LIMIT %(limit)s FOR UPDATE SKIP LOCKED)"""
BACK = """
UPDATE dr_media_copies AS copy SET unneeded_since = NULL
WHERE unneeded_since IS NOT NULL AND EXISTS (SELECT FROM content_media_blobs WHERE id = copy.blob_id)"""
MOVED = """
UPDATE dr_media_copies SET copied_at = NULL, attempts = 0, next_try_at = %(now)s WHERE blob_id = ANY(
    SELECT copy.blob_id FROM dr_media_copies AS copy JOIN content_media_blobs AS blob ON blob.id = copy.blob_id
    WHERE copy.copied_at IS NOT NULL AND copy.storage_key <> blob.storage_key
    LIMIT %(limit)s FOR UPDATE OF copy SKIP LOCKED)"""


@dataclass(frozen=True, slots=True)
class Pass:
    """What a pass did.

    Attributes:
        status: healthy, failing (something cannot be copied; it is tried again), off (by setting).
        reason: of the last failure.
        bytes: of the files that were copied.
        away: how many of those that failed did so as a storage did not answer.
        removed: copies that nothing needed any longer.
        waiting: files that are not copied yet.
    """

    status: str = "healthy"
    reason: str = ""
    copied: int = 0
    bytes: int = 0
    failed: int = 0
    away: int = 0
    removed: int = 0
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check of old copies found.

    Attributes:
        checked: copies that were read.
        mended: of which were not intact and were copied anew.
        broken: of which were not intact and could not be mended now.
        reason: of the last failure.
    """

    checked: int = 0
    mended: int = 0
    broken: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class State:
    """How the copies stand, for gauges.

    Attributes:
        waiting: files that are known and not copied yet; a new one is known within a minute.
        failed: of which the last try failed.
        oldest_at: since when the oldest of them waits.
        unneeded: copies that are kept for a while although their files are gone.
        problem: why one of them failed; empty when none did.
    """

    waiting: int
    failed: int
    oldest_at: datetime | None
    unneeded: int
    problem: str


@dataclass(frozen=True, slots=True)
class _Lease:
    """A copy that this process makes or checks: nobody else does while `attempts` is the row's.

    Attributes:
        key: of the blob in the first storage, and of its copy to be; empty when the blob is gone.
        old_key: of the copy that the row tells of.
    """

    blob_id: UUID
    tenant_id: UUID
    key: str
    old_key: str
    expected: Expected
    attempts: int


class LeaseLost(Interrupted):
    """Somebody else has the copy in hand by now, or it is being erased."""


def run_pass(*, now: Clock, thorough: bool = True, progress: Progress = lambda _files: None) -> Pass:
    """Copy what is due; never raises for a storage that is away.

    Args:
        thorough: look at all blobs, not only at those of the last hour, and remove copies that nothing needs any longer.
        progress: called with the number of files after each.
    """
    if not media_files.has_second():
        return Pass("off", OFF)
    _find(now(), thorough=thorough)
    done = _copy_due(now, progress)
    if thorough:
        done = replace(done, removed=_remove_unneeded(now))
    stands = state()
    if done.failed or stands.failed:
        done = replace(done, status="failing", reason=done.reason or stands.problem)
    return replace(done, waiting=stands.waiting)


def check_pass(*, now: Clock, limit: int = 20, progress: Progress = lambda _files: None) -> Checked:
    """Read the copies that were checked longest ago, each once in 30 days, and mend those that are not intact.

    Args:
        limit: how many copies at most.
        progress: called with the number of files after each.
    """
    done, deadline = Checked(), time.monotonic() + PASS_SECONDS
    while media_files.has_second() and done.checked < limit and time.monotonic() < deadline:
        lease = _lease(now(), _to_check(now()), "checked_at")
        if lease is None:
            break
        try:
            done = _check(lease, done, now)
        except (StorageAway, LeaseLost) as error:
            return replace(done, reason=str(error))
        progress(1)
    return done


def copy_blob(*, blob_id: UUID, now: Clock) -> bool:
    """Make or mend one blob's copy, whoever has it in hand, and tell whether it is intact now."""
    if not media_files.has_second():
        return False
    with system_scope("mend a copy of a media file"):
        MediaCopy.objects.filter(blob_id=blob_id).update(copied_at=None, next_try_at=now())
        _execute(FIND, now=now(), first=blob_id, last=blob_id)
    lease = _lease(now(), Q(blob_id=blob_id, copied_at=None))
    return bool(lease and _try(lease, Pass(), now).copied)


def erase_tenant(*, tenant_id: UUID) -> int:
    """Remove all copies of a tenant's files and return how many files went; repeated, it goes on where it stopped.

    Whatever lies under the tenant's keys goes, known or not: call it once the tenant's blobs are gone, else they are copied
    again. The bytes go before the rows.

    Raises:
        StorageAway: the second storage does not do it, or is switched off while copies are there.
    """
    return _erase(tenant_id, Q(), lambda: media_files.keys_below(alias=SECOND, folder=str(tenant_id)))


def erase_blobs(*, tenant_id: UUID, blob_ids: list[UUID]) -> int:
    """Remove the copies of some of a tenant's files, whose blobs are gone, and return how many; see `erase_tenant`.

    Raises:
        StorageAway: the second storage does not do it, or is switched off while copies are there.
    """
    wanted = Q(blob_id__in=blob_ids)
    with tenant_scope(tenant_id):
        keys = list(MediaCopy.objects.filter(wanted, tenant_id=tenant_id).values_list("storage_key", flat=True))
    return _erase(tenant_id, wanted, lambda: keys)


def state() -> State:
    """Return how the copies stand."""
    waits = Q(copied_at=None, unneeded_since=None)
    rows = MediaCopy.objects.filter(Q(copied_at=None) | Q(unneeded_since__isnull=False))
    with system_scope("look at copies of media files"):
        found = rows.aggregate(
            waiting=Count("blob_id", filter=waits),
            failed=Count("blob_id", filter=waits & ~Q(last_error="")),
            oldest_at=Min("created_at", filter=waits),
            unneeded=Count("blob_id", filter=Q(unneeded_since__isnull=False)),
            problem=Max("last_error", filter=waits),
        )
    return State(**{**found, "problem": found["problem"] or ""})


# Finding


def _find(now: datetime, *, thorough: bool) -> None:
    """Make rows for blobs that have none; a thorough look also sees which blobs are gone, back, or elsewhere."""
    with system_scope("find media files to copy"):
        _execute(FIND, now=now, first=LOWEST if thorough else _first_id(now - RECENT), last=HIGHEST)
        for statement in (GONE, BACK, MOVED) if thorough else ():
            _execute(statement, now=now)


def _execute(statement: str, **values: datetime | UUID) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, dict[str, datetime | UUID | int](values, limit=MAX_FOUND))


def _first_id(moment: datetime) -> UUID:
    """Return the lowest id that a blob has which was made then: they begin with the time in milliseconds."""
    return UUID(int=int(moment.timestamp() * 1000) << 80)


# Leases


def _due(now: datetime) -> Q:
    blob = Blob.objects.filter(id=OuterRef("blob_id"))
    return Q(Exists(blob), copied_at=None, unneeded_since=None, next_try_at__lte=now)


def _to_check(now: datetime) -> Q:
    return Q(copied_at__isnull=False, checked_at__lte=now - CHECK_EVERY, next_try_at__lte=now)


def _unneeded(now: datetime) -> Q:
    kept = timedelta(days=settings.DR_MEDIA_KEEP_DAYS)
    blob = Blob.objects.filter(id=OuterRef("blob_id"))
    return Q(~Exists(blob), unneeded_since__lte=now - kept, next_try_at__lte=now)


def _lease(now: datetime, wanted: Q, first: str = "next_try_at") -> _Lease | None:
    with system_scope("lease a copy of a media file"):
        rows = MediaCopy.objects.select_for_update(skip_locked=True).filter(wanted)
        row = rows.order_by(first).first()
        if row is None:
            return None
        MediaCopy.objects.filter(blob_id=row.blob_id).update(attempts=F("attempts") + 1, next_try_at=now + LEASE)
        blob = Blob.objects.filter(id=row.blob_id).first()
    return _Lease(
        blob_id=row.blob_id,
        tenant_id=row.tenant_id,
        key=blob.storage_key if blob else "",
        old_key=row.storage_key,
        expected=Expected(row.size_bytes, bytes(row.sha256)),
        attempts=row.attempts + 1,
    )


def _update(lease: _Lease, **values: str | int | datetime | None) -> None:
    """Change a row that is still ours.

    Raises:
        LeaseLost: it is not.
    """
    with system_scope("note how a copy of a media file stands"):
        ours = MediaCopy.objects.filter(blob_id=lease.blob_id, attempts=lease.attempts)
        if not ours.update(**values):
            raise LeaseLost(f"the copy of {lease.old_key} is in other hands")


def _beat(lease: _Lease, now: Clock) -> media_files.Beat:
    """Return what renews a lease while bytes move."""
    renewed_at = now()

    def beat() -> None:
        nonlocal renewed_at
        if now() - renewed_at >= RENEW_EVERY:
            renewed_at = now()
            _update(lease, next_try_at=renewed_at + LEASE)

    return beat


# Copying


def _copy_due(now: Clock, progress: Progress) -> Pass:
    """Copy until nothing is due, or a storage did not answer several times on end: the others would meet the same one."""
    done, in_a_row, deadline = Pass(), 0, time.monotonic() + PASS_SECONDS
    for _ in range(MAX_FILES):
        late = time.monotonic() > deadline
        lease = None if late or in_a_row == MAX_AWAY_IN_A_ROW else _lease(now(), _due(now()))
        if lease is None:
            break
        before = done.away
        done = _try(lease, done, now)
        in_a_row = in_a_row + 1 if done.away > before else 0
        progress(1)
    return done


def _try(lease: _Lease, done: Pass, now: Clock) -> Pass:
    try:
        _copy(lease, now)
    except LeaseLost as error:
        log.info("a copy of a media file was left to others", reason=str(error))
        return done
    except (FileMissing, WrongBytes, StorageAway) as error:
        _failed(lease, error, now())
        away = done.away + isinstance(error, StorageAway)
        return replace(done, failed=done.failed + 1, away=away, reason=str(error))
    return replace(done, copied=done.copied + 1, bytes=done.bytes + lease.expected.size)


def _copy(lease: _Lease, now: Clock) -> None:
    """Store a blob's bytes, unless they are there already, and note it; a copy under an older key goes in between."""
    if not lease.key:
        raise LeaseLost(f"the file of the copy of {lease.old_key} is gone")
    target, beat = StoredFile(SECOND, lease.key), _beat(lease, now)
    if not target.is_intact(lease.expected, beat=beat):
        _update(lease, next_try_at=now() + LEASE)
        media_files.copy(source=StoredFile(FIRST, lease.key), target=target, expected=lease.expected, beat=beat)
    if lease.old_key != lease.key:
        StoredFile(SECOND, lease.old_key).delete()
    _finish(lease, target, now())


def _finish(lease: _Lease, target: StoredFile, now: datetime) -> None:
    times = {"copied_at": now, "checked_at": now, "next_try_at": now}
    try:
        _update(lease, storage_key=lease.key, attempts=0, last_error="", **times)
    except LeaseLost:
        with system_scope("look whether a copy was erased"):
            is_wanted = MediaCopy.objects.filter(blob_id=lease.blob_id).exists()
        if not is_wanted:
            target.delete()
        raise


def _failed(lease: _Lease, error: Exception, now: datetime) -> None:
    longest = LONGEST_WAIT_AWAY if isinstance(error, StorageAway) else LONGEST_WAIT_BROKEN
    wait = min(longest, SHORTEST_WAIT * 2 ** min(lease.attempts - 1, 12))
    later = now + wait * random.uniform(0.75, 1.25)  # noqa: S311 -- no secret
    log.warning(
        "a media file is not copied; it is tried again", key=lease.key, error=str(error), attempt=lease.attempts
    )
    try:
        _update(lease, next_try_at=later, last_error=str(error)[:1000])
    except LeaseLost:
        log.info("a copy of a media file was left to others", key=lease.key)


# Checking


def _check(lease: _Lease, done: Checked, now: Clock) -> Checked:
    """Read a copy; one that is not intact is a copy no longer, and made anew."""
    done = replace(done, checked=done.checked + 1)
    is_intact = StoredFile(SECOND, lease.old_key).is_intact(lease.expected, beat=_beat(lease, now))
    if is_intact:
        _update(lease, checked_at=now(), next_try_at=now(), attempts=0)
        return done
    problem = f"{StoredFile(SECOND, lease.old_key)} is missing or has other bytes than those that were copied"
    log.error("a copy of a media file is not intact", key=lease.old_key)
    _update(lease, copied_at=None, last_error=problem)
    tried = _try(lease, Pass(), now)
    if tried.copied:
        return replace(done, mended=done.mended + 1)
    return replace(done, broken=done.broken + 1, reason=tried.reason or problem)


# Removing


def _remove_unneeded(now: Clock) -> int:
    removed = 0
    for _ in range(MAX_FILES):
        lease = _lease(now(), _unneeded(now()), "unneeded_since")
        if lease is None:
            break
        try:
            removed += _remove(lease, now())
        except (StorageAway, LeaseLost) as error:
            log.warning("a copy that nothing needs stays for now", key=lease.old_key, error=str(error))
            break
    return removed


def _remove(lease: _Lease, now: datetime) -> bool:
    """Delete a copy's bytes, then its row; should its blob be back meanwhile, it is copied anew."""
    with system_scope("look whether a copy is needed again"):
        if Blob.objects.filter(Q(id=lease.blob_id) | Q(storage_key=lease.old_key), tenant_id=lease.tenant_id).exists():
            return False
    StoredFile(SECOND, lease.old_key).delete()
    with system_scope("forget a copy of a media file"):
        row = MediaCopy.objects.filter(blob_id=lease.blob_id, attempts=lease.attempts)
        gone, _ = row.filter(~Exists(Blob.objects.filter(id=OuterRef("blob_id")))).delete()
        if not gone:
            row.update(copied_at=None, unneeded_since=None, next_try_at=now)
    return bool(gone)


def _erase(tenant_id: UUID, wanted: Q, keys: Callable[[], Iterable[str]]) -> int:
    """Take the rows out of everybody's hands, delete the bytes, then the rows."""
    rows = MediaCopy.objects.filter(wanted, tenant_id=tenant_id)
    with tenant_scope(tenant_id):
        known = rows.update(attempts=F("attempts") + 1, copied_at=None, next_try_at=Now() + ERASING)
    if known and not media_files.has_second():
        raise StorageAway(f"{OFF} Set it to where the {known} copies are, so that they can be erased.")
    erased = 0
    for key in keys() if media_files.has_second() else ():
        StoredFile(SECOND, key).delete()
        erased += 1
    with tenant_scope(tenant_id):
        rows.delete()
    return erased
