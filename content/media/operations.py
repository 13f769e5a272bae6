"""Writes: storing a file that came in, and deleting one. Bytes move outside transactions, facts change inside one.

Locks are taken in the order blob, items by id, the tenant's usage, media: an item's transaction, which charges the
usage last, has its foreign keys to media checked after that, when it commits.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from django.db import IntegrityError
from uuid_utils.compat import uuid7

from content import operations as content_operations
from content.items import Item
from content.media import images, kinds, storages, sweep
from content.media.images import Picture
from content.media.items import MediaFile
from content.media.storages import MediaUnavailable
from content.media.uploads import Received
from content.models import Blob, ContentItem, Media, MediaUse, Upload
from engarde.common import wake
from engarde.common.problems import Invalid, NotFound, Problem
from engarde.common.scopes import tenant_scope
from quotas import charging
from quotas.usage import Count, Usage

TRIES = 3
MAX_MEDIA_OF_ITEM = 100
CARRIERS = ("content.carry_records", "dr.sync", "dr.copy_media")


class MediaInUse(Problem):
    """Live content uses the file."""

    status, code, title = 409, "media_in_use", "Media in use"


class UploadLost(Problem):
    """The sweep took the upload for a dead one, or equal files came and went too fast."""

    status, code, title = 503, "upload_lost", "Upload lost"

    def __init__(self) -> None:
        super().__init__("The upload took too long; send the file again.", headers={"Retry-After": "1"})


class _BlobGone(Exception):
    """The blob that was to be shared was swept away meanwhile."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A media file that was stored, and the tenant's usage after it."""

    media: MediaFile
    usage: Usage | None


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a file's bytes are.

    Attributes:
        shared: the blob that has them already.
        lost_key: where a blob says that they are, but they, or their thumbnail, are not.
        uploads: the rows that tell of bytes that were stored just now.
    """

    shared: UUID | None = None
    key: str = ""
    thumbnail_key: str = ""
    lost_key: str = ""
    uploads: Sequence[UUID] = ()


def store_media(
    *,
    tenant_id: UUID,
    author_id: UUID | None,
    received: Received,
    now: datetime,
    last: Callable[[MediaFile], None] | None = None,
    media_id: UUID | None = None,
) -> Stored:
    """Store a file that came in, and append it to the item that it is meant for.

    Args:
        author_id: the user or API key; None for an import.
        last: called inside the transaction once all is written, before the quota is charged.
        media_id: the id that it gets, of an import; nothing else may have it.

    Raises:
        InvalidImage, ImageTooLarge: it is an image that cannot be decoded here.
        Invalid: the item is not the tenant's, is not live, or has as many media files as it may.
        StorageQuotaExceeded: it does not fit; nothing is stored.
        MediaUnavailable: the storage does not take it.
        UploadLost: try again.
    """
    mime_type = kinds.mime_type_of(received.path)
    picture = images.decode(path=received.path, mime_type=mime_type) if mime_type in images.DECODED else None
    charging.require_room(tenant_id=tenant_id, size_bytes=received.size_bytes, now=now)
    if received.content_id:
        _require_item(tenant_id, received.content_id)
    row = Media(
        id=media_id or uuid7(),
        tenant_id=tenant_id,
        content_id=received.content_id,
        file_name=received.file_name,
        file_type=kinds.file_type_of(mime_type),
        mime_type=mime_type,
        size_bytes=received.size_bytes,
        width=picture.width if picture else None,
        height=picture.height if picture else None,
        uploaded_by=author_id,
        created_at=now,
    )
    return _store(row, received, picture, last)


def _require_item(tenant_id: UUID, content_id: UUID) -> None:
    with tenant_scope(tenant_id):
        if not ContentItem.objects.filter(tenant_id=tenant_id, id=content_id, deleted_at=None).exists():
            raise _unknown_item()


def _unknown_item() -> Invalid:
    return Invalid("content_id", "There is no such content item.", "unknown_content")


def _store(row: Media, received: Received, picture: Picture | None, last: Callable[[MediaFile], None] | None) -> Stored:
    place, kept_key = _place(row, received, picture), ""
    try:
        for _ in range(TRIES):
            try:
                stored = _write(row, received, place, last)
            except _BlobGone:
                place = place if place.uploads else _place(row, received, picture)
            else:
                kept_key = stored.media.storage_key
                return stored
        raise UploadLost
    finally:
        # Also after an error at the commit: had it gone through, the rows named here would be gone, and nothing is deleted.
        if place.uploads and kept_key != place.key:
            sweep.discard(tenant_id=row.tenant_id, upload_ids=place.uploads, now=row.created_at)


# Bytes


def _place(row: Media, received: Received, picture: Picture | None) -> _Place:
    """Find equal bytes of the tenant's, or store these."""
    with tenant_scope(row.tenant_id):
        blob = Blob.objects.filter(tenant_id=row.tenant_id, sha256=received.sha256).first()
    if blob and _has_bytes(blob):
        return _Place(shared=blob.id)
    key = storages.new_key(row.tenant_id)
    place = _Place(
        key=key,
        thumbnail_key=f"{key}.webp" if picture else "",
        lost_key=blob.storage_key if blob else "",
    )
    uploads = [Upload(tenant_id=row.tenant_id, storage_key=one) for one in (place.key, place.thumbnail_key) if one]
    with tenant_scope(row.tenant_id):
        Upload.objects.bulk_create(uploads)
    place = replace(place, uploads=[upload.id for upload in uploads])
    try:
        _save(place, received, picture)
    except MediaUnavailable:
        sweep.discard(tenant_id=row.tenant_id, upload_ids=place.uploads, now=row.created_at)
        raise
    return place


def _has_bytes(blob: Blob) -> bool:
    has_thumbnail = not blob.thumbnail_key or storages.has(key=blob.thumbnail_key)
    return has_thumbnail and storages.has(key=blob.storage_key, size=blob.size_bytes)


def _save(place: _Place, received: Received, picture: Picture | None) -> None:
    if picture:
        storages.save_bytes(key=place.thumbnail_key, content=picture.thumbnail)
    storages.save_file(key=place.key, path=received.path)


# Rows


def _write(row: Media, received: Received, place: _Place, last: Callable[[MediaFile], None] | None) -> Stored:
    """Write the rows in one transaction.

    Raises:
        _BlobGone: the blob that was to be shared is gone.
        UploadLost: the sweep took the bytes away.
    """

    def insert() -> None:
        row.blob = _blob(row, received, place)
        row.save(force_insert=True)
        for task in CARRIERS:
            wake.after_commit(task)

    def finish() -> Usage:
        if last:
            last(MediaFile.of(row))
        return charging.charge(tenant_id=row.tenant_id, now=row.created_at, media=Count(1, row.size_bytes))

    item_id = row.content_id
    usage = _append(row, item_id, insert, finish) if item_id else _insert_alone(row, insert, finish)
    return Stored(MediaFile.of(row), usage)


def _insert_alone(row: Media, insert: Callable[[], None], finish: Callable[[], Usage]) -> Usage:
    with tenant_scope(row.tenant_id):
        insert()
        return finish()


def _append(row: Media, content_id: UUID, insert: Callable[[], None], finish: Callable[[], Usage]) -> Usage | None:
    def charge(_item: Item) -> None:
        finish()

    try:
        written = content_operations.update_content(
            tenant_id=row.tenant_id,
            author_id=row.uploaded_by,
            content_id=content_id,
            changes=lambda fields: {"media": _with_one_more(fields.get("media", []), str(row.id))},
            now=row.created_at,
            first=insert,
            last=charge,
        )
    except NotFound as error:
        raise _unknown_item() from error
    return written.usage


def _with_one_more(media: list[str], media_id: str) -> list[str]:
    if len(media) >= MAX_MEDIA_OF_ITEM:
        raise Invalid("content_id", f"The item has {len(media)} media files, as many as it may.", "max_length")
    return [*media, media_id]


def _blob(row: Media, received: Received, place: _Place) -> Blob:
    """Inside the scope, return the blob that has the bytes, locked and in use from now on."""
    blob = _locked(id=place.shared) if place.shared else _inserted(row, received, place)
    if blob is None:
        raise _BlobGone
    is_ours = blob.storage_key == place.key
    if place.lost_key and blob.storage_key == place.lost_key:
        # Perhaps the storage only did not answer: what may still be there is left to the sweep.
        old = [
            Upload(tenant_id=row.tenant_id, storage_key=key) for key in (blob.storage_key, blob.thumbnail_key) if key
        ]
        Upload.objects.bulk_create(old)
        blob.storage_key, blob.thumbnail_key, is_ours = place.key, place.thumbnail_key, True
    if is_ours and Upload.objects.filter(id__in=place.uploads).delete()[0] < len(place.uploads):
        raise UploadLost
    blob.unused_since = None
    blob.save(update_fields=["storage_key", "thumbnail_key", "unused_since"])
    return blob


def _inserted(row: Media, received: Received, place: _Place) -> Blob | None:
    """Insert a blob and lock it; where somebody was faster, theirs."""
    new = Blob(
        tenant_id=row.tenant_id,
        sha256=received.sha256,
        size_bytes=received.size_bytes,
        storage_key=place.key,
        thumbnail_key=place.thumbnail_key,
    )
    Blob.objects.bulk_create([new], ignore_conflicts=True)
    return _locked(tenant_id=row.tenant_id, sha256=received.sha256)


def _locked(**wanted: object) -> Blob | None:
    return Blob.objects.select_for_update().filter(**wanted).first()


# Deleting


def delete_media(*, tenant_id: UUID, media_id: UUID, now: datetime) -> Usage:
    """Delete a media file; its bytes, if it has any here, stay for a day, should an equal file come.

    Raises:
        NotFound: the tenant has no such file.
        MediaInUse: live content uses it.
    """
    try:
        with tenant_scope(tenant_id):
            return _delete(tenant_id, media_id, now)
    except IntegrityError as error:
        if "media_use_of_tenants_media" in str(error):  # an item that took it up while it was being deleted
            raise _in_use([]) from error
        raise


def _delete(tenant_id: UUID, media_id: UUID, now: datetime) -> Usage:
    row = Media.objects.filter(tenant_id=tenant_id, id=media_id).first()
    if row is None:
        raise NotFound("media file")
    if row.blob_id:
        _locked(id=row.blob_id)
    uses = MediaUse.objects.filter(tenant_id=tenant_id, media_id=media_id)
    list(ContentItem.objects.select_for_update().filter(id__in=uses.values("content_id")).order_by("id"))
    charging.lock_usage(tenant_id=tenant_id)
    live = list(uses.filter(content__deleted_at=None).values_list("content_id", flat=True)[:10])
    if live:
        raise _in_use(live)
    uses.delete()
    if not Media.objects.filter(id=media_id).delete()[0]:
        raise NotFound("media file")
    if row.blob_id and not Media.objects.filter(blob_id=row.blob_id).exists():
        Blob.objects.filter(id=row.blob_id).update(unused_since=now)
    for task in CARRIERS:
        wake.after_commit(task)
    return charging.charge(tenant_id=tenant_id, now=now, media=Count(-1, -row.size_bytes))


def _in_use(content_ids: Sequence[UUID]) -> MediaInUse:
    detail = "Content uses this file; take it out of its media first."
    return MediaInUse(detail, content_ids=[str(content_id) for content_id in content_ids])
