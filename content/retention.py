"""Retention: what was trashed or superseded longer ago than the plan says goes for good, batch by batch.

The rows go here. Triggers note the purge in the change log, for the backup, and the removal of documents and records, for the
uploader; media bytes go by the media sweep. Killed anywhere, the next run goes on.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from django.db import connection
from django.db.models import Count, Exists, OuterRef, QuerySet, Sum

from content.media import operations as media_operations
from content.models import Change, ContentItem, ContentVersion, Media, MediaUse
from content.webhooks import operations as webhook_operations
from content.writing import CARRIERS
from engarde.accounts import operations as account_operations
from engarde.common import idempotency, wake
from engarde.common.problems import NotFound
from engarde.common.scopes import system_scope, tenant_scope
from quotas import queries as quota_queries

log = structlog.get_logger(__name__)

ITEMS_A_BATCH = 100
VERSIONS_A_BATCH = 1000
ROWS_A_BATCH = 5000
OWNED = ("content_media_uses", "content_tags", "content_platforms", "content_search")
LOCK_TRASH = """
SELECT id FROM content_storage_metadata
WHERE tenant_id = %s AND deleted_at <= %s ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED"""
LOG_KEPT = timedelta(days=7)
# The version after one is not always the next number, and clocks differ: any later version supersedes an older one.
SUPERSEDED = """
FROM content_versions AS old
WHERE old.tenant_id = %s AND EXISTS (
    SELECT FROM content_versions AS later
    WHERE later.content_id = old.content_id AND later.version > old.version AND later.created_at <= %s
)"""
COUNT_SUPERSEDED = f"""
SELECT count(*), coalesce(sum(old.size_bytes), 0)::bigint {SUPERSEDED}
  AND NOT EXISTS (SELECT FROM content_storage_metadata WHERE id = old.content_id AND deleted_at <= %s)"""  # noqa: S608 -- our own text
# Locked in the order in which everybody locks versions: another order would deadlock.
DROP_SUPERSEDED = f"""
WITH gone AS MATERIALIZED (
    SELECT old.content_id, old.version {SUPERSEDED} ORDER BY old.content_id, old.version LIMIT %s FOR UPDATE OF old
)
DELETE FROM content_versions AS version USING gone
WHERE version.content_id = gone.content_id AND version.version = gone.version
RETURNING version.size_bytes"""  # noqa: S608 -- our own text
DROP_VERSIONS = """
WITH gone AS MATERIALIZED (
    SELECT content_id, version FROM content_versions WHERE content_id = ANY(%s) ORDER BY content_id, version FOR UPDATE
)
DELETE FROM content_versions AS version USING gone
WHERE version.content_id = gone.content_id AND version.version = gone.version
RETURNING version.size_bytes"""


@dataclass(slots=True)
class Purged:
    """What went, or in a dry run would go.

    Attributes:
        bytes: of the bodies of all these versions.
        failed_tenants: whose retention could not be applied; the log says why.
    """

    items: int = 0
    versions: int = 0
    media: int = 0
    bytes: int = 0
    idempotency_keys: int = 0
    log_lines: int = 0
    sessions: int = 0
    deliveries: int = 0
    failed_tenants: int = 0

    def add(self, other: "Purged") -> "Purged":
        """Return the sum of both."""
        return Purged(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))


def purge(*, now: datetime, dry_run: bool = False, progress: Callable[[int], object] = lambda rows: None) -> Purged:
    """Apply every tenant's retention, and trim what the platform keeps for a while only.

    Args:
        progress: called with the number of rows removed since the last call.
    """
    with system_scope("apply retention"):
        retentions = quota_queries.retentions(now=now)
    total = Purged()
    for tenant_id, days in retentions.items():
        if days is None:
            continue
        before = now - timedelta(days=days)
        try:
            total = total.add(
                _foresee(tenant_id, before) if dry_run else _purge_tenant(tenant_id, before, progress, now)
            )
        except Exception:
            log.exception("a tenant's retention was not applied; the next run tries again", tenant_id=str(tenant_id))
            total.failed_tenants += 1
    return total if dry_run else _trim(total, now, progress)


def _foresee(tenant_id: UUID, before: datetime) -> Purged:
    with tenant_scope(tenant_id):
        trashed = ContentItem.objects.filter(tenant_id=tenant_id, deleted_at__lte=before)
        theirs = ContentVersion.objects.filter(Exists(trashed.filter(id=OuterRef("content_id"))), tenant_id=tenant_id)
        sums = theirs.aggregate(count=Count("*"), size=Sum("size_bytes", default=0))
        media = _unused_media(tenant_id).filter(Exists(trashed.filter(id=OuterRef("content_id")))).count()
        items = trashed.count()
        with connection.cursor() as cursor:
            cursor.execute(COUNT_SUPERSEDED, [tenant_id, before, before])
            versions, size = cursor.fetchone()
    return Purged(items=items, versions=sums["count"] + versions, media=media, bytes=sums["size"] + size)


def _purge_tenant(tenant_id: UUID, before: datetime, progress: Callable[[int], object], now: datetime) -> Purged:
    total = Purged()
    for step in (_purge_trash, _purge_superseded):
        while (done := step(tenant_id, before)) != Purged():
            total = total.add(done)
            progress(done.items + done.versions)
    return total.add(_purge_media(tenant_id, now))


def _purge_superseded(tenant_id: UUID, before: datetime) -> Purged:
    """Remove a batch of old versions: each whose successor is older than the retention."""
    with tenant_scope(tenant_id), connection.cursor() as cursor:
        cursor.execute(DROP_SUPERSEDED, [tenant_id, before, VERSIONS_A_BATCH])
        sizes = [size for (size,) in cursor.fetchall()]
        _wake_carriers(len(sizes))
    return Purged(versions=len(sizes), bytes=sum(sizes))


def _purge_trash(tenant_id: UUID, before: datetime) -> Purged:
    """Remove a batch of trashed items with all that is theirs; items go first, so that one log line tells of each."""
    with tenant_scope(tenant_id), connection.cursor() as cursor:
        cursor.execute(LOCK_TRASH, [tenant_id, before, ITEMS_A_BATCH])
        ids = [one for (one,) in cursor.fetchall()]
        for table in OWNED:
            cursor.execute(f"DELETE FROM {table} WHERE content_id = ANY(%s)", [ids])  # noqa: S608 -- names of ours
        cursor.execute("DELETE FROM content_storage_metadata WHERE id = ANY(%s)", [ids])
        cursor.execute(DROP_VERSIONS, [ids])
        sizes = [size for (size,) in cursor.fetchall()]
        _wake_carriers(len(ids))
    return Purged(items=len(ids), versions=len(sizes), bytes=sum(sizes))


def _wake_carriers(rows: int) -> None:
    for task in CARRIERS if rows else ():
        wake.after_commit(task)


def _purge_media(tenant_id: UUID, now: datetime) -> Purged:
    """Delete media files that were uploaded for an item that is gone, unless another item uses them."""
    with tenant_scope(tenant_id):
        items = ContentItem.objects.filter(id=OuterRef("content_id"))
        ids = list(_unused_media(tenant_id).filter(~Exists(items)).values_list("id", flat=True))
    for media_id in ids:
        with suppress(media_operations.MediaInUse, NotFound):
            media_operations.delete_media(tenant_id=tenant_id, media_id=media_id, now=now)
    return Purged(media=len(ids))


def _unused_media(tenant_id: UUID) -> QuerySet[Media]:
    """Return the media files that were uploaded for an item and that no other item uses."""
    others = MediaUse.objects.filter(media_id=OuterRef("id")).exclude(content_id=OuterRef("content_id"))
    return Media.objects.filter(~Exists(others), tenant_id=tenant_id, content_id__isnull=False)


def _trim(total: Purged, now: datetime, progress: Callable[[int], object]) -> Purged:
    """Remove what is kept for a while only."""
    trims: dict[str, Callable[[], int]] = {
        "idempotency_keys": lambda: idempotency.forget_expired(now=now, limit=ROWS_A_BATCH),
        "log_lines": lambda: _forget_log_lines(now),
        "deliveries": lambda: webhook_operations.forget_old(now=now, limit=ROWS_A_BATCH),
    }
    for name, trim in trims.items():
        while count := trim():
            setattr(total, name, getattr(total, name) + count)
            progress(count)
    total.sessions = account_operations.drop_spent_sessions(now=now)
    return total


def _forget_log_lines(now: datetime) -> int:
    """Drop lines of the change log that the backup acknowledged a week ago."""
    with system_scope("trim the change log"):
        old = Change.objects.filter(acked_at__lte=now - LOG_KEPT).order_by("seq").values_list("seq", flat=True)
        return Change.objects.filter(seq__in=list(old[:ROWS_A_BATCH])).delete()[0]
