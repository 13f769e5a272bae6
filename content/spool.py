"""The spools in PostgreSQL: documents and records that other tiers do not have yet.

A document leaves its spool when ZeroDB has it and, where the backup is on, BigQuery has acknowledged every version with it.
Call what is here inside a scope.
"""

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import connection
from django.db.models import Exists, OuterRef, Q

from content.models import ContentVersion, SpooledDocument
from content.packing import compress
from content.stores.base import DocumentKey, NotAsked, StoreMisconfigured, StoreRejected
from content.stores.budget import BudgetSpent

LEASE = timedelta(minutes=1)
SEND_WITHIN = LEASE / 3
"""A carrier begins no call later than this after its claim: what it began is over before its lease is."""
SHORTEST_WAIT = timedelta(seconds=1)
LONGEST_WAIT = timedelta(seconds=20)
REFUSED_WAIT = timedelta(minutes=10)
PATIENT_ATTEMPTS = 20
LONGEST_ASKED_WAIT = timedelta(seconds=30)
LONGEST_BUDGET_WAIT = timedelta(minutes=5)
FULL_SHARE = 0.9
"""From this share of CONTENT_SPOOL_MAX_BYTES on, the spool counts as full."""
OWN_FAULTS = frozenset({400, 413, 422})

RESPOOL = """
INSERT INTO content_body_spool (
    content_id, version, tenant_id, sha256, document, attempts, next_attempt_at, last_error, created_at
)
SELECT version.content_id, min(version.version), version.tenant_id, version.sha256, %(document)s, 1, now(), '', now()
FROM content_versions AS version WHERE version.content_id = %(content_id)s AND version.sha256 = %(sha256)s
GROUP BY version.content_id, version.tenant_id, version.sha256
ON CONFLICT (content_id, version) DO UPDATE
SET document = excluded.document, uploaded_at = NULL, attempts = greatest(content_body_spool.attempts, 1),
    next_attempt_at = now(), last_error = ''"""
FORGET_ROW = """
WITH same AS MATERIALIZED (
    SELECT content_id, version FROM content_versions
    WHERE content_id = %(content_id)s AND sha256 = %(sha256)s ORDER BY version FOR UPDATE
)
UPDATE content_versions AS version SET zerodb_row_id = NULL FROM same
WHERE version.content_id = same.content_id AND version.version = same.version AND zerodb_row_id IS NOT NULL"""
# The rows are locked in order first: the backup marks versions at the same time, and two orders would deadlock.
POINT_VERSIONS = """
WITH stored (content_id, sha256, row_id) AS (SELECT * FROM unnest(%s::uuid[], %s::bytea[], %s::text[])),
same AS MATERIALIZED (
    SELECT version.content_id, version.version, stored.row_id FROM content_versions AS version
    JOIN stored USING (content_id, sha256) ORDER BY version.content_id, version.version FOR UPDATE OF version
)
UPDATE content_versions AS version SET zerodb_row_id = same.row_id FROM same
WHERE version.content_id = same.content_id AND version.version = same.version
  AND version.zerodb_row_id IS DISTINCT FROM same.row_id"""
KEPT_BYTES = (
    "SELECT coalesce(sum(octet_length(document)), 0)::bigint FROM content_body_spool WHERE uploaded_at IS NOT NULL"
)
SHRINK = """
WITH kept AS (
    SELECT content_id, version, sum(octet_length(document)) OVER oldest - octet_length(document) AS before_it
    FROM content_body_spool WHERE uploaded_at IS NOT NULL
    WINDOW oldest AS (ORDER BY uploaded_at, content_id, version)
), free AS (
    SELECT spooled.content_id, spooled.version FROM content_body_spool AS spooled JOIN kept USING (content_id, version)
    WHERE spooled.uploaded_at IS NOT NULL AND kept.before_it < %(surplus)s FOR UPDATE OF spooled SKIP LOCKED
)
DELETE FROM content_body_spool AS spooled USING free
WHERE spooled.content_id = free.content_id AND spooled.version = free.version"""
DOCUMENTS = """
SELECT count(*) FILTER (WHERE uploaded_at IS NULL),
       coalesce(sum(octet_length(document)) FILTER (WHERE uploaded_at IS NULL), 0)::bigint,
       coalesce(extract(epoch FROM now() - min(created_at) FILTER (WHERE uploaded_at IS NULL)), 0)::float,
       count(*) FILTER (WHERE uploaded_at IS NOT NULL),
       coalesce(sum(octet_length(document)) FILTER (WHERE uploaded_at IS NOT NULL), 0)::bigint
FROM content_body_spool"""
RECORDS = """
SELECT count(*), coalesce(extract(epoch FROM now() - min(created_at)), 0)::float FROM content_record_spool"""


@dataclass(frozen=True, slots=True)
class Backlog:
    """What the spools hold.

    Attributes:
        documents, document_bytes, document_age: not in ZeroDB yet; the age is the oldest's, in seconds.
        kept, kept_bytes: in ZeroDB, and kept because the backup lacks them.
        records, record_age: records and removals that ZeroDB is to be told of.
    """

    documents: int
    document_bytes: int
    document_age: float
    kept: int
    kept_bytes: int
    records: int
    record_age: float


def backlog() -> Backlog:
    """Return what the spools hold; one look at each table."""
    with connection.cursor() as cursor:
        cursor.execute(DOCUMENTS)
        documents = cursor.fetchone()
        cursor.execute(RECORDS)
        return Backlog(*documents, *cursor.fetchone())


def drop_finished(*, content_ids: Collection[UUID]) -> int:
    """Drop the finished documents of these items, and those of no version any more; return how many there were."""
    rows = SpooledDocument.objects.filter(_is_finished(), content_id__any=set(content_ids))
    return rows.delete()[0]


def _is_finished() -> Q:
    versions = ContentVersion.objects.filter(content_id=OuterRef("content_id"), sha256=OuterRef("sha256"))
    lacking = Q(zerodb_row_id=None)
    if settings.BIGQUERY_SYNC_ENABLED:
        lacking |= Q(backed_up_at=None)
    return ~Q(Exists(versions)) | Q(~Exists(versions.filter(lacking)), uploaded_at__isnull=False)


def sweep_finished(*, limit: int) -> int:
    """Drop finished documents that nothing else dropped, such as after the backup was switched off."""
    rows = SpooledDocument.objects.filter(_is_finished()).values_list("content_id", "version")[:limit]
    found = list(rows)
    return SpooledDocument.objects.filter(_is_finished(), pk__in=found).delete()[0] if found else 0


def shrink() -> int:
    """Drop the oldest documents that only the backup lacks, above CONTENT_SPOOL_MAX_BYTES; return how many.

    ZeroDB has them, and the backup reads them there.
    """
    with connection.cursor() as cursor:
        surplus = kept_bytes() - settings.CONTENT_SPOOL_MAX_BYTES
        if surplus <= 0:
            return 0
        cursor.execute(SHRINK, {"surplus": surplus})
        return int(cursor.rowcount)


def kept_bytes() -> int:
    """Return the bytes of documents that are kept only because the backup lacks them; 0 without looking if few."""
    with connection.cursor() as cursor:
        # The table's size costs nothing to ask and is never smaller than what is in it.
        cursor.execute("SELECT pg_total_relation_size('content_body_spool')")
        if cursor.fetchone()[0] < settings.CONTENT_SPOOL_MAX_BYTES * FULL_SHARE:
            return 0
        cursor.execute(KEPT_BYTES)
        return int(cursor.fetchone()[0])


def is_full() -> bool:
    """Tell whether the backup is so far behind that documents leave the spool without it, or soon will."""
    return kept_bytes() >= int(settings.CONTENT_SPOOL_MAX_BYTES * FULL_SHARE)


def point_versions(*, rows: Sequence[tuple[DocumentKey, str]]) -> None:
    """Note in every version with one of these documents the id of its row in ZeroDB."""
    columns: list[list[Any]] = [
        [key.content_id for key, _ in rows],
        [bytes.fromhex(key.sha256) for key, _ in rows],
        [row_id for _, row_id in rows],
    ]
    with connection.cursor() as cursor:
        cursor.execute(POINT_VERSIONS, columns)


def respool(*, texts: Mapping[DocumentKey, str]) -> None:
    """Have the uploader store documents anew: ZeroDB lacks them, though PostgreSQL says that it has them."""
    with connection.cursor() as cursor:
        for key in sorted(texts, key=str):
            names: dict[str, Any] = {"content_id": key.content_id, "sha256": bytes.fromhex(key.sha256)}
            cursor.execute(FORGET_ROW, names)
            cursor.execute(RESPOOL, {**names, "document": compress(texts[key])})


def mend(*, texts: Mapping[DocumentKey, str]) -> None:
    """Put the right documents in place of damaged ones in the spool."""
    for key, text in texts.items():
        rows = SpooledDocument.objects.filter(content_id=key.content_id, sha256=bytes.fromhex(key.sha256))
        rows.update(document=compress(text), last_error="")


def wait_after(*, attempts: int, error: Exception) -> timedelta:
    """Return how long to wait before the next attempt: doubling, with jitter, or what the service asks for.

    A service that is away, or asks for a long pause, is tried at least every 30 s, so that the backlog is gone within a
    minute of its recovery; it is the circuit breaker that keeps the calls few. What the service refuses for its content
    waits longer after many attempts.
    """
    refused = is_own_fault(error) and attempts > PATIENT_ATTEMPTS
    backoff = min(REFUSED_WAIT if refused else LONGEST_WAIT, SHORTEST_WAIT * 2 ** min(attempts, 16))
    asked = timedelta(seconds=getattr(error, "retry_after", None) or 0)
    jittered: timedelta = backoff * random.uniform(0.75, 1.25)  # noqa: S311 -- no secret
    longest = LONGEST_BUDGET_WAIT if isinstance(error, BudgetSpent) else LONGEST_ASKED_WAIT
    return max(jittered, min(asked, longest))


def is_own_fault(error: Exception) -> bool:
    """Tell whether the service refuses this one row for what is in it."""
    if isinstance(error, StoreMisconfigured) or not isinstance(error, StoreRejected):
        return False
    return error.status in OWN_FAULTS


class LeaseOver(NotAsked):
    """The row was claimed too long ago to begin a call for it."""

    def __init__(self) -> None:
        super().__init__("The lease is nearly over; the next pass takes it.")


def split(outcomes: Sequence[str | Exception]) -> tuple[list[int], list[int], list[int]]:
    """Return the places of what was stored, of what failed, and of what was not even tried."""
    stored: list[int] = []
    failed: list[int] = []
    untried: list[int] = []
    for place, outcome in enumerate(outcomes):
        kind = stored if isinstance(outcome, str) else untried if isinstance(outcome, NotAsked) else failed
        kind.append(place)
    return stored, failed, untried


def next_attempt(*, now: datetime, attempts: int, error: Exception) -> datetime:
    """Return when to try again."""
    return now + wait_after(attempts=attempts, error=error)
