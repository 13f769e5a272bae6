"""The first carrier: spooled documents to ZeroDB.

It claims rows under a lease, sends them outside any transaction, then marks them. Killed between two of these steps, it
leaves rows whose lease ends and that are sent again: the document is immutable, so a second copy does no harm.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from django.conf import settings
from django.db.models import F

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
        row_id: where ZeroDB has the document already.
    """

    document: Document
    attempts: int
    row_id: str | None = None


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
    claimed = [_claimed(row) for row in rows]
    return [replace(one, row_id=stored.get(one.document.key)) for one in claimed]


def _stored_before(content_ids: list[UUID]) -> dict[DocumentKey, str]:
    """Return the rows of documents that an earlier version put into ZeroDB: those need not be sent again."""
    versions = ContentVersion.objects.filter(content_id__in=content_ids).exclude(zerodb_row_id=None)
    found = versions.values_list("content_id", "sha256", "zerodb_row_id")
    return {documents.key_of(content_id, sha256): row_id for content_id, sha256, row_id in found if row_id}


def _claimed(row: SpooledDocument) -> Claimed:
    document = Document(
        tenant_id=row.tenant_id,
        key=documents.key_of(row.content_id, row.sha256),
        version=row.version,
        text=documents.decompress(bytes(row.document)),
    )
    return Claimed(document, row.attempts + 1)


def _send(store: DocumentStore, claimed: Claimed) -> str | Exception:
    """Return the row id in the store, or why it could not be had."""
    if claimed.row_id:
        return claimed.row_id
    try:
        return store.put(claimed.document, maybe_stored=claimed.attempts > 1)
    except (StoreUnavailable, StoreRejected) as error:
        return error


def _mark_sent(sent: list[tuple[Claimed, str]], now: datetime) -> None:
    if not sent:
        return
    with system_scope("mark uploaded documents"):
        # In the order in which the backup marks versions too: two orders would deadlock.
        for claimed, row_id in sorted(
            sent, key=lambda pair: (pair[0].document.key.content_id, pair[0].document.version)
        ):
            key = claimed.document.key
            same = {"content_id": key.content_id, "sha256": bytes.fromhex(key.sha256)}
            ContentVersion.objects.filter(**same, zerodb_row_id=None).update(zerodb_row_id=row_id)
            SpooledDocument.objects.filter(**same, uploaded_at=None).update(uploaded_at=now, last_error="")
        spool.drop_finished(content_ids=[claimed.document.key.content_id for claimed, _ in sent])


def _put_off(failed: list[tuple[Claimed, Exception]], now: datetime) -> None:
    if not failed:
        return
    log.warning("documents not uploaded; they stay in the spool", count=len(failed), error=str(failed[0][1]))
    with system_scope("put off spooled documents"):
        for claimed, error in failed:
            document = claimed.document
            SpooledDocument.objects.filter(pk=(document.key.content_id, document.version)).update(
                next_attempt_at=now + _wait(claimed.attempts, error), last_error=str(error)[:500]
            )


def _wait(attempts: int, error: Exception) -> timedelta:
    asked: float = getattr(error, "retry_after", None) or 0
    backoff: timedelta = min(LONGEST_WAIT, SHORTEST_WAIT * 2 ** min(attempts, 16))
    return max(timedelta(seconds=asked), backoff)
