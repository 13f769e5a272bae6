"""The first carrier: spooled documents to ZeroDB.

It claims rows under a lease, sends them outside any transaction, then marks them. Killed between two of these steps, it
leaves rows whose lease ends and that are sent again, after looking for them: the document is immutable.

One row goes for all with the same document, the one of the lowest version, so that two workers never send the same. A
document whose removal from ZeroDB is pending (its last version went, and then it came back) waits for that.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog
from django.conf import settings
from django.db import connection

from content import documents, metrics, spool
from content.models import ContentItem, ContentVersion, SpooledDocument
from content.packing import DamagedDocument
from content.stores.base import Document, DocumentKey, DocumentStore, StoreRejected, StoreUnavailable
from engarde.common import request_ids
from engarde.common.scopes import system_scope

log = structlog.get_logger(__name__)

LOOKED_FOR_TOGETHER = 5
# OFFSET 0 keeps the two questions lookups by index for one row after the other. As joins, planned while the statistics still told
# of an empty spool, they compared everything that waits with everything that waits: for minutes, at 30,000 documents.
CLAIM = """
WITH claimed AS MATERIALIZED (
    SELECT due.content_id, due.version FROM content_body_spool AS due
    WHERE due.uploaded_at IS NULL AND due.next_attempt_at <= %(now)s
      AND NOT EXISTS (
          SELECT FROM content_body_spool AS same
          WHERE same.content_id = due.content_id AND same.sha256 = due.sha256 AND same.uploaded_at IS NULL
            AND same.version < due.version OFFSET 0)
      AND NOT EXISTS (
          SELECT FROM content_record_spool AS removal
          WHERE removal.collection = 'content_items' AND removal.record IS NULL
            AND removal.key = due.content_id || ':' || encode(due.sha256, 'hex') OFFSET 0)
    ORDER BY due.next_attempt_at LIMIT %(limit)s FOR UPDATE OF due SKIP LOCKED
)
UPDATE content_body_spool AS spooled SET attempts = spooled.attempts + 1, next_attempt_at = %(lease_end)s
FROM claimed
WHERE spooled.content_id = claimed.content_id AND spooled.version = claimed.version
RETURNING spooled.tenant_id, spooled.content_id, spooled.version, spooled.sha256, spooled.document, spooled.attempts,
          spooled.next_attempt_at"""
MARK_SPOOL = """
UPDATE content_body_spool AS spooled SET uploaded_at = now(), last_error = ''
FROM unnest(%s::uuid[], %s::bytea[]) AS sent (content_id, sha256)
WHERE spooled.content_id = sent.content_id AND spooled.sha256 = sent.sha256 AND spooled.uploaded_at IS NULL"""
REMOVE_UNWANTED = """
SELECT content_spool_removal('content_items', sent.content_id || ':' || encode(sent.sha256, 'hex'), sent.tenant_id)
FROM unnest(%s::uuid[], %s::bytea[], %s::uuid[]) AS sent (content_id, sha256, tenant_id)
WHERE NOT EXISTS (
    SELECT FROM content_versions AS version
    WHERE version.content_id = sent.content_id AND version.sha256 = sent.sha256)"""
# A delete takes the row id over from the version before it: until it commits, its version is not there to be pointed at.
LOCK_ITEMS = "SELECT id FROM content_storage_metadata WHERE id = ANY(%s) ORDER BY id FOR KEY SHARE"


@dataclass(frozen=True, slots=True)
class Claimed:
    """A spooled document that this worker may send until its lease ends.

    Attributes:
        attempts: this one included.
        lease_end: also tells whether the row is still this worker's.
        maybe_stored: an earlier attempt, or a version with the same document, may have put it into ZeroDB.
        is_superseded: the item has another document by now; it waits when requests are scarce.
    """

    tenant_id: UUID
    version: int
    key: DocumentKey
    document: bytes
    attempts: int
    lease_end: datetime
    maybe_stored: bool
    is_superseded: bool


@dataclass(frozen=True, slots=True)
class Pass:
    """What one pass did.

    Attributes:
        untried: documents that were put back because ZeroDB is left alone, the budget is spent or time ran out.
    """

    uploaded: int = 0
    failed: int = 0
    untried: int = 0

    @property
    def is_idle(self) -> bool:
        """Whether there was nothing to do."""
        return self.uploaded == self.failed == self.untried == 0

    @property
    def got_on(self) -> bool:
        """Whether another pass is worth while: some failed, perhaps, but not all."""
        return self.uploaded > 0


def run_pass(*, store: DocumentStore, now: Callable[[], datetime]) -> Pass:
    """Send one batch of spooled documents that are due."""
    claimed = _claim(now())
    if not claimed:
        return Pass()
    send_until = time.monotonic() + spool.SEND_WITHIN.total_seconds()
    found = _look_for(store, [one.key for one in claimed if one.maybe_stored])
    with request_ids.threads(settings.CONTENT_UPLOAD_THREADS) as pool:
        outcomes = list(pool.map(lambda one: _send(store, one, found, send_until), claimed))
    stored, failed, untried = spool.split(outcomes)
    _mark_sent([(claimed[place], str(outcomes[place])) for place in stored])
    _put_off([(claimed[place], outcomes[place]) for place in failed], now(), tried=True)
    _put_off([(claimed[place], outcomes[place]) for place in untried], now(), tried=False)
    metrics.count_carried("document", sent=len(stored), failed=len(failed), put_off=len(untried))
    return Pass(uploaded=len(stored), failed=len(failed), untried=len(untried))


def _claim(now: datetime) -> list[Claimed]:
    bounds: dict[str, Any] = {
        "now": now,
        "lease_end": now + spool.LEASE,
        "limit": settings.CONTENT_UPLOAD_BATCH,
    }
    with system_scope("claim spooled documents"), connection.cursor() as cursor:
        cursor.execute(CLAIM, bounds)
        rows = cursor.fetchall()
        content_ids = [row[1] for row in rows]
        stored, current = (_stored_before(content_ids), _current(content_ids)) if rows else (set(), set())
    return [_claimed(row, stored, current) for row in rows]


def _stored_before(content_ids: list[UUID]) -> set[DocumentKey]:
    """Return the documents that an earlier version put into ZeroDB: whether they are still there is asked, not trusted."""
    versions = ContentVersion.objects.filter(content_id__in=content_ids).exclude(zerodb_row_id=None)
    return {documents.key_of(*row) for row in versions.values_list("content_id", "sha256")}


def _current(content_ids: list[UUID]) -> set[DocumentKey]:
    items = ContentItem.objects.filter(id__in=content_ids)
    return {documents.key_of(*row) for row in items.values_list("id", "sha256")}


def _claimed(row: tuple[Any, ...], stored: set[DocumentKey], current: set[DocumentKey]) -> Claimed:
    tenant_id, content_id, version, sha256, document, attempts, lease_end = row
    key = documents.key_of(content_id, sha256)
    return Claimed(
        tenant_id=tenant_id,
        version=version,
        key=key,
        document=bytes(document),
        attempts=attempts,
        lease_end=lease_end,
        maybe_stored=attempts > 1 or key in stored,
        is_superseded=key not in current,
    )


def _look_for(store: DocumentStore, keys: Sequence[DocumentKey]) -> dict[DocumentKey, str | None]:
    """Return where the store has documents that may be there, None where it has them not.

    One call for many: after a restore all of them may be there. What is not in the answer was not looked for, as it is only a
    few or the store failed; it is looked for by itself before it is stored.
    """
    if len(keys) < LOOKED_FOR_TOGETHER:
        return {}
    try:
        found = store.find_row_ids(keys)
    except (StoreUnavailable, StoreRejected):
        return {}
    return {key: found.get(key) for key in keys}


def _send(
    store: DocumentStore, claimed: Claimed, found: Mapping[DocumentKey, str | None], send_until: float
) -> str | Exception:
    """Return the row id in the store, or why it could not be had; one bad document never holds up the others."""
    if row_id := found.get(claimed.key):
        return row_id
    if time.monotonic() > send_until:
        return spool.LeaseOver()
    try:
        text = documents.decompress(claimed.document)
        document = Document(tenant_id=claimed.tenant_id, key=claimed.key, version=claimed.version, text=text)
        maybe_stored = claimed.maybe_stored and claimed.key not in found
        return store.put(document, maybe_stored=maybe_stored, can_wait=claimed.is_superseded)
    except (StoreUnavailable, StoreRejected, DamagedDocument) as error:
        return error


def _mark_sent(sent: Sequence[tuple[Claimed, str]]) -> None:
    """Note where the documents are; what was removed from PostgreSQL meanwhile is removed from ZeroDB too."""
    if not sent:
        return
    content_ids = [claimed.key.content_id for claimed, _ in sent]
    hashes = [bytes.fromhex(claimed.key.sha256) for claimed, _ in sent]
    with system_scope("mark uploaded documents"), connection.cursor() as cursor:
        cursor.execute(LOCK_ITEMS, [content_ids])
        spool.point_versions(rows=[(claimed.key, row_id) for claimed, row_id in sent])
        cursor.execute(MARK_SPOOL, [content_ids, hashes])
        cursor.execute(REMOVE_UNWANTED, [content_ids, hashes, [claimed.tenant_id for claimed, _ in sent]])
        spool.drop_finished(content_ids=content_ids)


def _put_off(failed: Sequence[tuple[Claimed, Any]], now: datetime, *, tried: bool) -> None:
    """Set when to try again; what was not even tried has not used up an attempt."""
    if not failed:
        return
    if tried:
        log.warning("documents not uploaded; they stay in the spool", count=len(failed), error=str(failed[0][1]))
    with system_scope("put off spooled documents"):
        mine = _lock([claimed for claimed, _ in failed])
        for claimed, error in failed:
            if (claimed.key.content_id, claimed.version) in mine:
                _set_next_attempt(claimed, error, now, tried=tried)


def _lock(claimed: Sequence[Claimed]) -> set[tuple[UUID, int]]:
    """Lock rows but for those that others have locked: waiting for these while holding more could be a deadlock."""
    names = [(one.key.content_id, one.version) for one in claimed]
    free = SpooledDocument.objects.select_for_update(skip_locked=True).filter(pk__in=names)
    return set(free.values_list("content_id", "version"))


def _set_next_attempt(claimed: Claimed, error: Exception, now: datetime, *, tried: bool) -> None:
    row = SpooledDocument.objects.filter(content_id=claimed.key.content_id, version=claimed.version, uploaded_at=None)
    row.filter(next_attempt_at=claimed.lease_end).update(
        attempts=claimed.attempts if tried else claimed.attempts - 1,
        next_attempt_at=spool.next_attempt(now=now, attempts=claimed.attempts if tried else 0, error=error),
        last_error=str(error)[:500],
    )
