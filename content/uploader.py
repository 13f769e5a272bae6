"""The first carrier: spooled documents to ZeroDB.

It claims rows under a lease, sends them outside any transaction, then marks them. Killed between two of these steps, it
leaves rows whose lease ends and that are sent again: the document is immutable, so a second copy does no harm.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from django.conf import settings
from django.db.models import F, Q

from content import documents, spool
from content.models import ContentVersion, SpooledDocument
from content.stores.base import Document, DocumentKey, DocumentStore, StoreRejected, StoreUnavailable
from engarde.common.scopes import system_scope

log = structlog.get_logger(__name__)

LEASE = timedelta(minutes=1)
SHORTEST_WAIT = timedelta(seconds=1)
LONGEST_WAIT = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Claimed:
    """A spooled document that this worker may send until its lease ends.

    Attributes:
        attempts: this one included.
        maybe_stored: an earlier attempt, or a version with the same document, may have put it into ZeroDB.
    """

    row: SpooledDocument
    key: DocumentKey
    attempts: int
    maybe_stored: bool


@dataclass(frozen=True, slots=True)
class Pass:
    """What one pass did."""

    uploaded: int = 0
    failed: int = 0

    @property
    def is_idle(self) -> bool:
        """Whether there was nothing to do."""
        return self.uploaded == self.failed == 0


def run_pass(*, store: DocumentStore, now: Callable[[], datetime]) -> Pass:
    """Send one batch of spooled documents that are due."""
    claimed = _claim(now())
    if not claimed:
        return Pass()
    with ThreadPoolExecutor(settings.CONTENT_UPLOAD_THREADS) as pool:
        outcomes = list(pool.map(lambda one: _send(store, one), claimed))
    sent = [(one, outcome) for one, outcome in zip(claimed, outcomes, strict=True) if isinstance(outcome, str)]
    failed = [(one, outcome) for one, outcome in zip(claimed, outcomes, strict=True) if isinstance(outcome, Exception)]
    _mark_sent(sent, now())
    _put_off(failed, now())
    return Pass(uploaded=len(sent), failed=len(failed))


def _claim(now: datetime) -> list[Claimed]:
    with system_scope("claim spooled documents"):
        due = SpooledDocument.objects.select_for_update(skip_locked=True).filter(uploaded_at=None)
        rows = list(due.filter(next_attempt_at__lte=now).order_by("next_attempt_at")[: settings.CONTENT_UPLOAD_BATCH])
        SpooledDocument.objects.filter(pk__in=[row.pk for row in rows]).update(
            attempts=F("attempts") + 1, next_attempt_at=now + LEASE
        )
        stored = _stored_before([row.content_id for row in rows])
    return [_claimed(row, stored) for row in rows]


def _stored_before(content_ids: list[UUID]) -> set[DocumentKey]:
    """Return the documents that an earlier version put into ZeroDB: whether they are still there is asked, not trusted."""
    versions = ContentVersion.objects.filter(content_id__in=content_ids).exclude(zerodb_row_id=None)
    return {documents.key_of(*row) for row in versions.values_list("content_id", "sha256")}


def _claimed(row: SpooledDocument, stored: set[DocumentKey]) -> Claimed:
    key = documents.key_of(row.content_id, row.sha256)
    attempts = row.attempts + 1
    return Claimed(row=row, key=key, attempts=attempts, maybe_stored=attempts > 1 or key in stored)


def _send(store: DocumentStore, claimed: Claimed) -> str | Exception:
    """Return the row id in the store, or why it could not be had; one bad document never holds up the others."""
    row = claimed.row
    try:
        text = documents.decompress(bytes(row.document))
        document = Document(tenant_id=row.tenant_id, key=claimed.key, version=row.version, text=text)
        return store.put(document, maybe_stored=claimed.maybe_stored)
    except (StoreUnavailable, StoreRejected, documents.DamagedDocument) as error:
        return error


def _mark_sent(sent: list[tuple[Claimed, str]], now: datetime) -> None:
    if not sent:
        return
    # In the order in which the backup marks versions too: two orders would deadlock.
    sent = sorted(sent, key=lambda pair: (pair[0].row.content_id, pair[0].row.version))
    with system_scope("mark uploaded documents"):
        for claimed, row_id in sent:
            same = {"content_id": claimed.row.content_id, "sha256": claimed.row.sha256}
            stale = Q(zerodb_row_id=None) | ~Q(zerodb_row_id=row_id)
            ContentVersion.objects.filter(stale, **same).update(zerodb_row_id=row_id)
            SpooledDocument.objects.filter(**same, uploaded_at=None).update(uploaded_at=now, last_error="")
        spool.drop_finished(content_ids=[claimed.row.content_id for claimed, _ in sent])


def _put_off(failed: list[tuple[Claimed, Exception]], now: datetime) -> None:
    if not failed:
        return
    log.warning("documents not uploaded; they stay in the spool", count=len(failed), error=str(failed[0][1]))
    with system_scope("put off spooled documents"):
        for claimed, error in failed:
            SpooledDocument.objects.filter(pk=claimed.row.pk).update(
                next_attempt_at=now + _wait(claimed.attempts, error), last_error=str(error)[:500]
            )


def _wait(attempts: int, error: Exception) -> timedelta:
    asked: float = getattr(error, "retry_after", None) or 0
    backoff: timedelta = min(LONGEST_WAIT, SHORTEST_WAIT * 2 ** min(attempts, 16))
    return max(timedelta(seconds=asked), backoff)
