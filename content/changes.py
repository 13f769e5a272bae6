"""The change log for its consumer, the backup: claim, read, acknowledge. Call these inside a system scope."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import Min

from content import spool
from content.models import Change

# Many batches in one statement: of a backlog's time, half would go into claiming one after the other.
CLAIM = """
WITH free AS MATERIALIZED (
    SELECT seq FROM content_changes WHERE batch_id IS NULL ORDER BY seq LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), placed AS (
    SELECT seq, (%(ids)s::uuid[])[1 + (row_number() OVER (ORDER BY seq) - 1) / %(size)s] AS batch_id FROM free
), claimed AS (
    UPDATE content_changes AS change SET batch_id = placed.batch_id FROM placed WHERE change.seq = placed.seq
    RETURNING change.seq, change.changed_at, change.batch_id
)
SELECT batch_id, count(*), min(seq), max(seq), min(changed_at) FROM claimed GROUP BY batch_id ORDER BY min(seq)"""
READ = """
SELECT change.batch_id, change.seq, change.xid, change.tenant_id, change.entity_type, change.entity_id, change.version,
       change.op, change.sha256, change.changed_at,
       CASE WHEN change.op IN ('P', 'T') THEN NULL
            WHEN change.entity_type != 'content' THEN change.facts
            WHEN made.content_id IS NOT NULL THEN content_version_facts(made, item.author_id, item.created_at) END,
       coalesce(made.size_bytes, 0)
FROM content_changes AS change
LEFT JOIN content_storage_metadata AS item ON item.id = change.entity_id AND change.entity_type = 'content'
LEFT JOIN content_versions AS made
  ON made.content_id = change.entity_id AND made.version = change.version AND change.entity_type = 'content'
WHERE change.batch_id = ANY(%s) ORDER BY change.seq"""
# The rows are locked in order first: the uploader marks versions at the same time, and two orders would deadlock.
ACKNOWLEDGE = """
WITH acknowledged AS MATERIALIZED (
    SELECT version.content_id, version.version
    FROM content_versions AS version
    JOIN content_changes AS change ON version.content_id = change.entity_id AND version.version = change.version
    WHERE change.batch_id = ANY(%s) AND change.entity_type = 'content'
    ORDER BY version.content_id, version.version FOR UPDATE OF version
)
UPDATE content_versions AS version SET backed_up_at = %s FROM acknowledged
WHERE version.content_id = acknowledged.content_id AND version.version = acknowledged.version
RETURNING version.content_id"""


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a batch got: how many changes, the first and last of their numbers, and when the oldest was made."""

    batch_id: UUID
    rows: int
    first_seq: int
    last_seq: int
    oldest_at: datetime


@dataclass(frozen=True, slots=True)
class LoggedChange:
    """A change that belongs to a batch.

    Attributes:
        facts: JSON of the row, or of what PostgreSQL knows of the version beside its document; None once that is gone.
        size_bytes: of the version's body.
    """

    batch_id: UUID
    seq: int
    xid: int
    tenant_id: UUID
    entity_type: str
    entity_id: UUID
    version: int
    op: str
    sha256: bytes
    changed_at: datetime
    facts: str | None
    size_bytes: int

    @property
    def has_document(self) -> bool:
        """Whether a document belongs to it: to every version of content, the one of a delete too, that is still there."""
        return self.entity_type == Change.CONTENT and self.facts is not None


def claim(*, batch_ids: Sequence[UUID], size: int) -> list[Claimed]:
    """Give unclaimed changes to batches, at most `size` to each, and return those that got any, in the changes' order."""
    with connection.cursor() as cursor:
        cursor.execute(CLAIM, {"limit": size * len(batch_ids), "size": size, "ids": list(batch_ids)})
        return [Claimed(*row) for row in cursor.fetchall()]


def of_batches(*, batch_ids: Sequence[UUID]) -> list[LoggedChange]:
    """Return batches' changes in order. Versions never change, so a repeat returns the same, or lacks what is gone."""
    with connection.cursor() as cursor:
        cursor.execute(READ, [list(batch_ids)])
        rows: list[Any] = cursor.fetchall()
        return [LoggedChange(*row) for row in rows]


def move(*, seqs: Sequence[int], batch_id: UUID) -> None:
    """Give changes to another batch."""
    Change.objects.filter(seq__in=seqs).update(batch_id=batch_id)


def acknowledge(*, batch_ids: Sequence[UUID], now: datetime) -> None:
    """Note that the backup has these batches, and let finished documents leave the spool."""
    with connection.cursor() as cursor:
        cursor.execute(ACKNOWLEDGE, [list(batch_ids), now])
        content_ids = [content_id for (content_id,) in cursor.fetchall()]
    Change.objects.filter(batch_id__in=batch_ids, acked_at=None).update(acked_at=now)
    spool.drop_finished(content_ids=content_ids)


def oldest(*, seqs: Sequence[int]) -> datetime | None:
    """Return when the oldest of some changes was made."""
    found: datetime | None = Change.objects.filter(seq__in=seqs).aggregate(oldest=Min("changed_at"))["oldest"]
    return found


def backlog(*, tenant_id: UUID | None = None) -> int:
    """Return how many changes, of a tenant or of all, the backup has not acknowledged."""
    waiting = Change.objects.filter(acked_at=None)
    return (waiting.filter(tenant_id=tenant_id) if tenant_id else waiting).count()


def seqs_of(*, batch_id: UUID) -> list[int]:
    """Return the numbers of a batch's changes, in order."""
    return list(Change.objects.filter(batch_id=batch_id).order_by("seq").values_list("seq", flat=True))
