"""Deleting bytes that nothing needs, in an order in which no death and no race can lose bytes that somebody needs.

A blob's row goes first, in a transaction that notes its keys as Upload rows; then the bytes go, then the notes. Who
uploads equal bytes meanwhile finds no blob any more and stores its own. An Upload row is renamed before its bytes go,
so that an upload which is still under way finds its row gone and fails, in place of committing without bytes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import structlog
from django.db import DatabaseError, InterfaceError, connection
from django.db.models import Exists, OuterRef

from content.media import storages
from content.media.storages import MediaUnavailable
from content.models import Blob, Media, Upload
from engarde.common.scopes import system_scope, tenant_scope

log = structlog.get_logger(__name__)

KEPT = timedelta(hours=24)
BATCH = 100
CLAIM = """
UPDATE content_media_uploads SET id = gen_random_uuid(), started_at = %s
WHERE id = ANY(SELECT id FROM content_media_uploads WHERE {where} FOR UPDATE SKIP LOCKED)
RETURNING id, storage_key"""
DEAD = CLAIM.format(where="started_at <= %s ORDER BY started_at LIMIT %s")
NAMED = CLAIM.format(where="id = ANY(%s)")


@dataclass(frozen=True, slots=True)
class Swept:
    """What a pass removed: unused blobs, and files of uploads that were never finished."""

    blobs: int
    dead_files: int

    @property
    def is_idle(self) -> bool:
        """Whether nothing was due."""
        return not self.blobs and not self.dead_files


def run_pass(*, now: datetime) -> Swept:
    """Remove a batch of blobs that are unused for 24 hours, and a batch of what uploads left that old."""
    blobs, keys = _take_unused(now)
    dead = _claim(DEAD, now, now - KEPT, BATCH)
    _remove(keys)
    _remove(dead)
    return Swept(blobs, len(dead))


def discard(*, tenant_id: UUID, upload_ids: Sequence[UUID], now: datetime) -> None:
    """Delete the bytes of an upload that came to nothing; what cannot be deleted now is left to the sweep."""
    try:
        with tenant_scope(tenant_id), connection.cursor() as cursor:
            cursor.execute(NAMED, [now, list(upload_ids)])
            claimed = cursor.fetchall()
        _remove(claimed)
    except (DatabaseError, InterfaceError):
        log.warning("an upload that came to nothing is left to the sweep", exc_info=True)


def _take_unused(now: datetime) -> tuple[int, list[tuple[UUID, str]]]:
    """Take the rows of unused blobs away, looking again under their locks, and note their keys."""
    used = Media.objects.filter(blob_id=OuterRef("id"))
    due = Blob.objects.filter(unused_since__lte=now - KEPT).order_by("unused_since")
    with system_scope("sweep media"):
        locked = [blob.id for blob in due.select_for_update(skip_locked=True)[:BATCH]]
        blobs = list(Blob.objects.filter(~Exists(used), id__in=locked))
        notes = [
            Upload(id=uuid4(), tenant_id=blob.tenant_id, storage_key=key, started_at=now)
            for blob in blobs
            for key in (blob.storage_key, blob.thumbnail_key)
            if key
        ]
        Upload.objects.bulk_create(notes)
        Blob.objects.filter(id__in=[blob.id for blob in blobs]).delete()
        Blob.objects.filter(Exists(used), id__in=locked).update(unused_since=None)
    return len(blobs), [(note.id, note.storage_key) for note in notes]


def _claim(statement: str, *parameters: datetime | int) -> list[tuple[UUID, str]]:
    with system_scope("sweep media"), connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return list(cursor.fetchall())


def _remove(claimed: Iterable[tuple[UUID, str]]) -> None:
    """Delete bytes, and then the rows that told of them; what fails is tried again a day later."""
    gone = [upload_id for upload_id, key in claimed if _delete(key)]
    if gone:
        with system_scope("sweep media"):
            Upload.objects.filter(id__in=gone).delete()


def _delete(key: str) -> bool:
    try:
        storages.delete(key=key)
    except MediaUnavailable:
        log.warning("bytes stay until the next sweep", key=key)
        return False
    return True
