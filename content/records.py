"""The carrier of records: what triggers spooled for ZeroDB's other collections, and removals from any of them.

A row says what one key shall be there: a record, or nothing. It is claimed under a lease, carried out outside any transaction,
and leaves the spool only if it still says the same: a put that became a removal meanwhile is followed by the removal, and a
removal that became a put by the put, which then looks for what is there. The end of the lease tells whether the row is still
this worker's. A removal is dropped when what it shall remove is there again in PostgreSQL.

Wake it with `wake.after_commit("content.carry_records")`; beat sweeps.
"""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any
from uuid import UUID

import structlog
from django.conf import settings
from django.db import connection

from content import metrics, spool
from content.models import ContentVersion, Media, SpooledDocument, SpooledRecord
from content.stores.base import (
    DOCUMENTS,
    KEYS_PER_CALL,
    VERSIONS,
    DocumentKey,
    DocumentStore,
    StoreRejected,
    StoreUnavailable,
)
from engarde.common import request_ids
from engarde.common.scopes import system_scope

log = structlog.get_logger(__name__)

LOCK_DUE = """
SELECT collection, key, record IS NULL FROM content_record_spool
WHERE next_attempt_at <= %s ORDER BY next_attempt_at LIMIT %s FOR UPDATE SKIP LOCKED"""
LEASE_ROWS = """
UPDATE content_record_spool AS spooled SET attempts = attempts + 1, next_attempt_at = %s
FROM unnest(%s::text[], %s::text[]) AS due (collection, key)
WHERE spooled.collection = due.collection AND spooled.key = due.key
RETURNING spooled.collection, spooled.key, spooled.tenant_id, spooled.record::text, spooled.attempts, spooled.next_attempt_at"""
# Rows that others have locked are passed over, in whatever this carrier does: it holds many rows at once, and so may they.
# Such a row is being changed, and due again when its lease ends.
LOCK_MINE = """
SELECT spooled.collection, spooled.key FROM content_record_spool AS spooled
JOIN unnest(%s::text[], %s::text[], %s::timestamptz[]) AS mine (collection, key, lease_end)
  ON spooled.collection = mine.collection AND spooled.key = mine.key AND spooled.next_attempt_at = mine.lease_end
FOR UPDATE OF spooled SKIP LOCKED"""
DONE = """
DELETE FROM content_record_spool
WHERE collection = %s AND key = %s AND record IS NOT DISTINCT FROM %s::jsonb AND attempts = %s"""
DUE_AT_ONCE = "UPDATE content_record_spool SET next_attempt_at = now() WHERE collection = %s AND key = %s"
LATER = """
UPDATE content_record_spool
SET next_attempt_at = %s, last_error = %s, attempts = CASE WHEN attempts = %s THEN %s ELSE attempts END
WHERE collection = %s AND key = %s"""


@dataclass(frozen=True, slots=True)
class Claimed:
    """What one key shall be; this worker sees to it until the lease ends.

    Attributes:
        record: None for a removal.
        attempts: this one included.
        lease_end: also tells whether the row is still this worker's.
    """

    collection: str
    key: str
    tenant_id: UUID
    record: dict[str, Any] | None
    attempts: int
    lease_end: datetime


@dataclass(frozen=True, slots=True)
class Pass:
    """What one pass did.

    Attributes:
        dropped: removals that were not needed any more.
        untried: rows that were put back because ZeroDB is left alone, the budget is spent or time ran out.
    """

    put: int = 0
    removed: int = 0
    dropped: int = 0
    failed: int = 0
    untried: int = 0

    @property
    def is_idle(self) -> bool:
        """Whether there was nothing to do."""
        return not (self.got_on or self.failed or self.untried)

    @property
    def got_on(self) -> bool:
        """Whether another pass is worth while: some failed, perhaps, but not all."""
        return bool(self.put or self.removed or self.dropped)


def run_pass(*, store: DocumentStore, now: Callable[[], datetime]) -> Pass:
    """Carry out one batch of what is due: puts one by one, removals up to a hundred a call."""
    claimed, dropped = _claim(now())
    removals = [one for one in claimed if one.record is None]
    puts = [one for one in claimed if one.record is not None]
    send_until = time.monotonic() + spool.SEND_WITHIN.total_seconds()
    outcomes = _remove_all(store, removals, send_until) + _put_all(store, puts, send_until)
    stored, failed, untried = spool.split([outcome for _, outcome in outcomes])
    _finish([outcomes[place][0] for place in stored])
    _put_off([outcomes[place] for place in failed], now(), tried=True)
    _put_off([outcomes[place] for place in untried], now(), tried=False)
    put = sum(outcomes[place][0].record is not None for place in stored)
    removed = len(stored) - put
    metrics.count_carried(
        "record", sent=put, removed=removed, dropped=dropped, failed=len(failed), put_off=len(untried)
    )
    return Pass(put, removed, dropped, len(failed), len(untried))


def _claim(now: datetime) -> tuple[list[Claimed], int]:
    """Lease rows that are due, and drop removals of what is there again."""
    with system_scope("claim spooled records"), connection.cursor() as cursor:
        cursor.execute(LOCK_DUE, [now, KEYS_PER_CALL])
        due: list[Any] = cursor.fetchall()
        back = _existing([(collection, key) for collection, key, is_removal in due if is_removal])
        _drop_removals(back)
        kept = [(collection, key) for collection, key, _ in due if (collection, key) not in back]
        if not kept:
            return [], len(back)
        cursor.execute(LEASE_ROWS, [now + spool.LEASE, *map(list, zip(*kept, strict=True))])
        rows = cursor.fetchall()
    return [_claimed(*row) for row in rows], len(back)


def _claimed(
    collection: str, key: str, tenant_id: UUID, record: str | None, attempts: int, lease_end: datetime
) -> Claimed:
    return Claimed(collection, key, tenant_id, json.loads(record) if record else None, attempts, lease_end)


def _existing(names: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return those of these collections' keys that PostgreSQL has something for."""
    known = {DOCUMENTS: documents_known, VERSIONS: versions_known}
    return {
        (collection, key)
        for collection, group in groupby(sorted(names), key=lambda name: name[0])
        for key in known.get(collection, media_known)([key for _, key in group])
    }


def documents_known(keys: Iterable[str]) -> set[str]:
    """Inside a scope, return the keys of documents that some version has."""
    wanted = {key: DocumentKey.parse(key) for key in keys}
    rows = ContentVersion.objects.filter(content_id__in={key.content_id for key in wanted.values()})
    rows = rows.filter(sha256__in={bytes.fromhex(key.sha256) for key in wanted.values()})
    found = {f"{content_id}:{bytes(sha256).hex()}" for content_id, sha256 in rows.values_list("content_id", "sha256")}
    return wanted.keys() & found


def versions_known(keys: Iterable[str]) -> set[str]:
    """Inside a scope, return the keys of change records whose version is there."""
    wanted = set(keys)
    rows = ContentVersion.objects.filter(content_id__in={UUID(key.partition(":")[0]) for key in wanted})
    return wanted & {f"{content_id}:{version}" for content_id, version in rows.values_list("content_id", "version")}


def media_known(keys: Iterable[str]) -> set[str]:
    """Inside a scope, return the keys of media records whose file is there."""
    return {str(media_id) for media_id in Media.objects.filter(id__in=set(keys)).values_list("id", flat=True)}


def _drop_removals(names: Iterable[tuple[str, str]]) -> None:
    for collection, key in names:
        SpooledRecord.objects.filter(collection=collection, key=key, record__isnull=True).delete()
        if collection == DOCUMENTS:
            _have_looked_for(DocumentKey.parse(key))


def _have_looked_for(key: DocumentKey) -> None:
    """Have the uploader look for a document before it stores it: its removal may or may not have happened.

    Rows that others have locked are left alone, as waiting for them could be a deadlock: they are being removed.
    """
    rows = SpooledDocument.objects.select_for_update(skip_locked=True).filter(
        content_id=key.content_id, sha256=bytes.fromhex(key.sha256), attempts=0
    )
    SpooledDocument.objects.filter(pk__in=[row.pk for row in rows]).update(attempts=1)


def _remove_all(
    store: DocumentStore, removals: Sequence[Claimed], send_until: float
) -> list[tuple[Claimed, str | Exception]]:
    outcomes: list[tuple[Claimed, str | Exception]] = []
    by_collection = sorted(removals, key=lambda one: one.collection)
    for collection, group in groupby(by_collection, key=lambda one: one.collection):
        same = list(group)
        outcome = _remove(store, collection, [one.key for one in same], send_until)
        outcomes += [(one, outcome) for one in same]
    return outcomes


def _remove(store: DocumentStore, collection: str, keys: Sequence[str], send_until: float) -> str | Exception:
    if time.monotonic() > send_until:
        return spool.LeaseOver()
    try:
        store.delete_rows(collection, keys)
    except (StoreUnavailable, StoreRejected) as error:
        return error
    return "removed"


def _put_all(store: DocumentStore, puts: Sequence[Claimed], send_until: float) -> list[tuple[Claimed, str | Exception]]:
    if not puts:
        return []
    with request_ids.threads(settings.CONTENT_UPLOAD_THREADS) as pool:
        return list(zip(puts, pool.map(lambda one: _put(store, one, send_until), puts), strict=True))


def _put(store: DocumentStore, claimed: Claimed, send_until: float) -> str | Exception:
    if time.monotonic() > send_until:
        return spool.LeaseOver()
    try:
        return store.put_record(
            claimed.collection,
            claimed.key,
            tenant_id=claimed.tenant_id,
            record=claimed.record or {},
            maybe_stored=claimed.attempts > 1,
        )
    except (StoreUnavailable, StoreRejected) as error:
        return error


def _finish(done: Sequence[Claimed]) -> None:
    """Let rows go that still say what was carried out; the others are due at once."""
    if not done:
        return
    with system_scope("finish spooled records"), connection.cursor() as cursor:
        for one in _lock(done):
            record = None if one.record is None else json.dumps(one.record)
            cursor.execute(DONE, [one.collection, one.key, record, one.attempts])
            if not cursor.rowcount:
                cursor.execute(DUE_AT_ONCE, [one.collection, one.key])


def _put_off(failed: Sequence[tuple[Claimed, Any]], now: datetime, *, tried: bool) -> None:
    """Set when to try again; what was not even tried has not used up an attempt."""
    if not failed:
        return
    if tried:
        log.warning("records not carried to ZeroDB yet", count=len(failed), error=str(failed[0][1]))
    errors = {(one.collection, one.key): error for one, error in failed}
    with system_scope("put off spooled records"), connection.cursor() as cursor:
        for one in _lock([one for one, _ in failed]):
            error, used = errors[one.collection, one.key], one.attempts if tried else one.attempts - 1
            later = spool.next_attempt(now=now, attempts=one.attempts if tried else 0, error=error)
            cursor.execute(LATER, [later, str(error)[:500], one.attempts, used, one.collection, one.key])


def _lock(claimed: Sequence[Claimed]) -> list[Claimed]:
    """Lock the rows that are still under this worker's lease and that nobody else is changing."""
    with connection.cursor() as cursor:
        columns = [(one.collection, one.key, one.lease_end) for one in claimed]
        cursor.execute(LOCK_MINE, list(map(list, zip(*columns, strict=True))))
        mine = set(cursor.fetchall())
    return [one for one in claimed if (one.collection, one.key) in mine]
