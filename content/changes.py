"""The change log for its consumer, the backup: claim, read, acknowledge. Call these inside a system scope."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection

from content import spool
from content.facts import VersionFacts
from content.models import Change

CLAIM = """
UPDATE content_changes SET batch_id = %s
WHERE seq IN (
    SELECT seq FROM content_changes WHERE batch_id IS NULL ORDER BY seq LIMIT %s FOR UPDATE SKIP LOCKED
)
RETURNING seq"""
READ = """
SELECT change.seq, change.xid, change.tenant_id, change.entity_type, change.entity_id, change.version, change.op,
       change.sha256, change.changed_at,
       version.size_bytes, version.change_type, version.changed_by, version.created_at, item.author_id, item.created_at
FROM content_changes AS change
LEFT JOIN content_storage_metadata AS item ON item.id = change.entity_id
LEFT JOIN content_versions AS version ON version.content_id = change.entity_id AND version.version = change.version
WHERE change.batch_id = %s ORDER BY change.seq"""
# The rows are locked in order first: the uploader marks versions at the same time, and two orders would deadlock.
ACKNOWLEDGE = """
WITH acknowledged AS MATERIALIZED (
    SELECT version.content_id, version.version
    FROM content_versions AS version
    JOIN content_changes AS change ON version.content_id = change.entity_id AND version.version = change.version
    WHERE change.batch_id = %s ORDER BY version.content_id, version.version FOR UPDATE OF version
)
UPDATE content_versions AS version SET backed_up_at = %s FROM acknowledged
WHERE version.content_id = acknowledged.content_id AND version.version = acknowledged.version
RETURNING version.content_id"""


@dataclass(frozen=True, slots=True)
class LoggedChange:
    """A change with the facts of the version that it made; None once that is gone."""

    seq: int
    xid: int
    tenant_id: UUID
    entity_type: str
    entity_id: UUID
    version: int
    op: str
    sha256: bytes
    changed_at: datetime
    facts: VersionFacts | None = None

    @property
    def has_document(self) -> bool:
        """Whether the change made a new document; a delete keeps the one before, a version that is gone has none."""
        return self.op in {Change.Op.INSERT, Change.Op.UPDATE} and self.facts is not None


def claim(*, batch_id: UUID, limit: int) -> list[int]:
    """Give at most `limit` unclaimed changes to a batch, and return their sequence numbers in order."""
    with connection.cursor() as cursor:
        cursor.execute(CLAIM, [batch_id, limit])
        return sorted(seq for (seq,) in cursor.fetchall())


def of_batch(*, batch_id: UUID) -> list[LoggedChange]:
    """Return a batch's changes in order. Versions never change, so a repeat returns the same."""
    with connection.cursor() as cursor:
        cursor.execute(READ, [batch_id])
        rows: list[Any] = cursor.fetchall()
        return [_change(*row) for row in rows]


def _change(*columns: Any) -> LoggedChange:
    change = LoggedChange(*columns[:9])
    sha256 = bytes(change.sha256)
    facts = VersionFacts(change.entity_id, change.version, sha256, *columns[9:]) if columns[9] is not None else None
    return replace(change, sha256=sha256, facts=facts)


def move(*, seqs: Sequence[int], batch_id: UUID) -> None:
    """Give changes to another batch."""
    Change.objects.filter(seq__in=seqs).update(batch_id=batch_id)


def acknowledge(*, batch_ids: Sequence[UUID], now: datetime) -> None:
    """Note that the backup has these batches, and let finished documents leave the spool."""
    for batch_id in batch_ids:
        with connection.cursor() as cursor:
            cursor.execute(ACKNOWLEDGE, [batch_id, now])
            content_ids = [content_id for (content_id,) in cursor.fetchall()]
        Change.objects.filter(batch_id=batch_id, acked_at=None).update(acked_at=now)
        spool.drop_finished(content_ids=content_ids)


def backlog() -> int:
    """Return how many changes the backup has not acknowledged."""
    return Change.objects.filter(acked_at=None).count()
