"""What the content room has of a tenant or of one item, removed for good: rows, files, documents, copies and log lines.

Rows go unnoticed by the change log, so nothing of the erasure itself reaches the backup. What ZeroDB shall not have any more
the triggers note in the spool of records, with the ends of leases under which a document may just be on its way up: that is
what an erasure waits for, whoever goes on with it.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from django.db import IntegrityError, connection
from django.db.models import Exists, OuterRef, Q, QuerySet, Sum

from content import cache, documents
from content.media import storages
from content.models import (
    Blob,
    Change,
    ContentItem,
    ContentVersion,
    Delivery,
    IndexedBrand,
    LegacyProblem,
    Media,
    MediaUse,
    Platform,
    SearchEntry,
    SpooledDocument,
    SpooledRecord,
    Tag,
    Upload,
    Webhook,
)
from content.operations import sized
from content.stores.base import COLLECTIONS, DOCUMENTS, MEDIA, VERSIONS, DocumentKey, DocumentStore
from engarde.common import redis as redis_client
from engarde.common.erasing import erase_rows, erasing_scope, forget_names
from engarde.common.models import IdempotencyKey
from engarde.common.scopes import tenant_scope
from quotas import charging
from quotas.usage import Count

ITEMS_A_BATCH = 100
FILES_A_BATCH = 100
KEYS_A_CALL = 500
TRIES = 3
ROWS_BESIDE = (MediaUse, Tag, Platform, SearchEntry)
ROWS = (*ROWS_BESIDE, ContentVersion, SpooledDocument, Media, IndexedBrand, Delivery, Webhook)
DROP_VERSIONS = """
WITH gone AS MATERIALIZED (
    SELECT content_id, version FROM content_versions WHERE content_id = ANY(%s) ORDER BY content_id, version FOR UPDATE
)
DELETE FROM content_versions AS version USING gone
WHERE version.content_id = gone.content_id AND version.version = gone.version
RETURNING version.content_id, version.sha256"""
# A row that is renamed is no longer the upload's that made it: should that still be under way, it fails.
FORGET_COUNTS = """
UPDATE content_legacy_runs SET counts = counts #- ARRAY['tenants', %(tenant)s], updated_at = now()
WHERE counts->'tenants' ? %(tenant)s"""
CLAIM_FILES = """
UPDATE content_media_uploads SET id = gen_random_uuid(), started_at = now()
WHERE id = ANY(ARRAY(SELECT id FROM content_media_uploads WHERE tenant_id = %s LIMIT %s FOR UPDATE))
RETURNING id, storage_key"""


@dataclass(frozen=True, slots=True)
class Subject:
    """What of the change log, and so of the backup, is meant.

    Attributes:
        entity_ids: None for all that is the tenant's.
    """

    tenant_id: UUID
    entity_ids: tuple[UUID, ...] | None = None

    def lines(self) -> QuerySet[Change]:
        """Return the lines of the log; read them in the tenant's scope."""
        wanted = Q() if self.entity_ids is None else Q(entity_id__in=self.entity_ids)
        return Change.objects.filter(wanted, tenant_id=self.tenant_id)


@dataclass(frozen=True, slots=True)
class ItemParts:
    """What goes with an item: media files that were uploaded for it and that no other item uses, and their bytes here.

    Attributes:
        files: keys in the media storage.
    """

    exists: bool
    media: tuple[UUID, ...] = ()
    blobs: tuple[UUID, ...] = ()
    files: tuple[str, ...] = field(default=())


# A whole tenant


def size_of(*, tenant_id: UUID) -> dict[str, int]:
    """Return the bytes of a tenant's documents' bodies, all versions, and of its media files, equal ones once."""
    with tenant_scope(tenant_id):
        versions, blobs = ContentVersion.objects.filter(tenant_id=tenant_id), Blob.objects.filter(tenant_id=tenant_id)
        return {
            "body_bytes": versions.aggregate(size=Sum("size_bytes", default=0))["size"],
            "media_bytes": blobs.aggregate(size=Sum("size_bytes", default=0))["size"],
        }


def erase_tenant(*, tenant_id: UUID, limit: int) -> dict[str, int]:
    """Remove at most `limit` rows, but an item with all that is its own, in one transaction.

    Files in the media storage go here too. What ZeroDB and the backup are to forget stays noted: see
    `empty_store` and `drop_lines`.

    Returns:
        Rows by table, files as "files", copies in Redis as "cached_documents"; empty once nothing is left.

    Raises:
        MediaUnavailable: the media storage does not delete a file now.
    """
    return (
        _erase_items(tenant_id, min(limit, ITEMS_A_BATCH))
        or erase_rows(ROWS, tenant_id=tenant_id, limit=limit)
        or _erase_blobs(tenant_id, min(limit, FILES_A_BATCH))
        or _erase_files(tenant_id, min(limit, FILES_A_BATCH))
        or _erase_reports(tenant_id, limit)
    )


def _erase_items(tenant_id: UUID, limit: int) -> dict[str, int]:
    with erasing_scope(tenant_id):
        locked = ContentItem.objects.select_for_update().filter(tenant_id=tenant_id).order_by("id")
        ids = list(locked.values_list("id", flat=True)[:limit])
        if not ids:
            return {}
        removed, keys = _drop_items(tenant_id, ids)
    return removed | _forget_copies(keys)


def _drop_items(tenant_id: UUID, ids: Sequence[UUID]) -> tuple[dict[str, int], list[DocumentKey]]:
    """Inside an erasing scope remove items, and then their versions: so no line tells that a version went.

    The tenant is named although the scope keeps to it: the table of search entries has no row security.
    """
    removed = {
        model._meta.db_table: model._default_manager.filter(tenant_id=tenant_id, content_id__in=ids).delete()[0]
        for model in ROWS_BESIDE
    }
    spooled = SpooledDocument.objects.filter(content_id__in=ids).count()
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM content_storage_metadata WHERE id = ANY(%s)", [list(ids)])
        removed["content_storage_metadata"] = cursor.rowcount
        cursor.execute(DROP_VERSIONS, [list(ids)])
        versions = cursor.fetchall()
    removed |= {"content_versions": len(versions), "content_body_spool": spooled}
    keys = {documents.key_of(*version) for version in versions}
    return _without_zeros(removed), list(keys)


def _without_zeros(counts: dict[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}


def _forget_copies(keys: Sequence[DocumentKey]) -> dict[str, int]:
    """Remove documents from Redis and return how many it had; where it does not answer, their time to live does it."""
    cache.memory.cache_clear()
    removed = 0
    for start in range(0, len(keys), KEYS_A_CALL):
        names = [f"{cache.KEY_PREFIX}{key}" for key in keys[start : start + KEYS_A_CALL]]
        removed += redis_client.attempt(lambda client, names=names: int(client.delete(*names)), 0)  # type: ignore[misc]
    return _without_zeros({"cached_documents": removed})


def _erase_reports(tenant_id: UUID, limit: int) -> dict[str, int]:
    """Remove what migrations of old content say of a tenant."""
    with erasing_scope(tenant_id):
        found = LegacyProblem.objects.filter(of_tenant=tenant_id).values_list("id", flat=True)
        problems = LegacyProblem.objects.filter(id__in=list(found[:limit])).delete()[0]
        with connection.cursor() as cursor:
            cursor.execute(FORGET_COUNTS, {"tenant": str(tenant_id)})
            runs = cursor.rowcount
    return _without_zeros({"content_legacy_problems": problems, "content_legacy_runs": runs})


def _erase_blobs(tenant_id: UUID, limit: int) -> dict[str, int]:
    """Turn blobs into notes of files that are to be deleted, which outlive this process."""
    with erasing_scope(tenant_id):
        blobs = list(Blob.objects.select_for_update().filter(tenant_id=tenant_id).order_by("id")[:limit])
        _note_files(blobs)
        return _without_zeros({"content_media_blobs": _drop_blobs(blobs)})


def _note_files(blobs: Iterable[Blob]) -> None:
    notes = [Upload(id=uuid4(), tenant_id=blob.tenant_id, storage_key=key) for blob in blobs for key in _keys_of(blob)]
    Upload.objects.bulk_create(notes)


def _keys_of(blob: Blob) -> list[str]:
    return [key for key in (blob.storage_key, blob.thumbnail_key) if key]


def _drop_blobs(blobs: Sequence[Blob]) -> int:
    return Blob.objects.filter(id__in=[blob.id for blob in blobs]).delete()[0]


def _erase_files(tenant_id: UUID, limit: int) -> dict[str, int]:
    with erasing_scope(tenant_id), connection.cursor() as cursor:
        cursor.execute(CLAIM_FILES, [tenant_id, limit])
        claimed: list[tuple[UUID, str]] = cursor.fetchall()
    for _, key in claimed:
        storages.delete(key=key)
    with erasing_scope(tenant_id):
        Upload.objects.filter(id__in=[upload_id for upload_id, _ in claimed]).delete()
    return _without_zeros({"files": len(claimed), "content_media_uploads": len(claimed)})


# One item


def parts_of(*, tenant_id: UUID, content_id: UUID) -> ItemParts:
    """Return what goes with an item, to be noted before it goes."""
    with tenant_scope(tenant_id):
        exists = ContentItem.objects.filter(tenant_id=tenant_id, id=content_id).exists()
        media = list(_own_media(tenant_id, content_id))
        blobs = list(_own_blobs(media))
    keys = [key for blob in blobs for key in _keys_of(blob)]
    return ItemParts(exists, tuple(one.id for one in media), tuple(blob.id for blob in blobs), tuple(keys))


def _own_media(tenant_id: UUID, content_id: UUID) -> QuerySet[Media]:
    others = MediaUse.objects.filter(media_id=OuterRef("id")).exclude(content_id=content_id)
    return Media.objects.filter(~Exists(others), tenant_id=tenant_id, content_id=content_id).order_by("id")


def _own_blobs(media: Sequence[Media]) -> QuerySet[Blob]:
    others = Media.objects.filter(blob_id=OuterRef("id")).exclude(id__in=[one.id for one in media])
    return Blob.objects.filter(~Exists(others), id__in={one.blob_id for one in media if one.blob_id}).order_by("id")


def count_rows_of(*, tenant_id: UUID, content_id: UUID) -> dict[str, int]:
    """Return how many rows an item has, by table; what job items and jobs' events say of it is an id only."""
    models = (*ROWS_BESIDE, ContentVersion, SpooledDocument, Delivery)
    with tenant_scope(tenant_id, one_moment=True):
        of_item = Q(tenant_id=tenant_id, content_id=content_id)
        counts = {one._meta.db_table: one._default_manager.filter(of_item).count() for one in models}
        counts["content_storage_metadata"] = ContentItem.objects.filter(tenant_id=tenant_id, id=content_id).count()
        counts["content_media"] = _own_media(tenant_id, content_id).count()
        counts["idempotency_keys"] = _kept_answers(tenant_id, content_id).count()
        counts["content_changes"] = Subject(tenant_id, (content_id,)).lines().count()
    return _without_zeros(counts)


def _kept_answers(tenant_id: UUID, content_id: UUID) -> QuerySet[IdempotencyKey]:
    """Return the answers that are kept for repeats of the request that made the item."""
    return IdempotencyKey.objects.filter(tenant_id=tenant_id, headers__Location__endswith=str(content_id))


def erase_content(*, tenant_id: UUID, content_id: UUID) -> dict[str, int]:
    """Remove an item with all that is its own, and take it out of the quota; nothing if it is not there.

    A job that generated it keeps its id, without which the job's counts would be wrong.

    Returns:
        Rows by table. The files of its media are left to `erase_files`.
    """
    for left in reversed(range(TRIES)):
        try:
            with erasing_scope(tenant_id):
                removed, keys = _erase_item(tenant_id, content_id)
        except IntegrityError as error:  # another item took a media file up meanwhile
            if not left or "media_use_of_tenants_media" not in str(error):
                raise
        else:
            return removed | _forget_copies(keys)
    raise AssertionError("the last try returns or raises")


def _erase_item(tenant_id: UUID, content_id: UUID) -> tuple[dict[str, int], list[DocumentKey]]:
    """Locks are taken in everybody's order: blobs, item, usage, media."""
    candidates = Media.objects.filter(tenant_id=tenant_id, content_id=content_id).values("blob_id")
    list(Blob.objects.select_for_update().filter(id__in=candidates).order_by("id"))
    item = ContentItem.objects.select_for_update().filter(tenant_id=tenant_id, id=content_id).first()
    charging.lock_usage(tenant_id=tenant_id)
    media = list(_own_media(tenant_id, content_id))
    blobs = list(_own_blobs(media))
    removed, keys = _drop_items(tenant_id, [content_id])
    removed["content_media"] = Media.objects.filter(id__in=[one.id for one in media]).delete()[0]
    _note_files(blobs)
    removed["content_media_blobs"] = _drop_blobs(blobs)
    deliveries = Delivery.objects.filter(tenant_id=tenant_id, content_id=content_id)
    forget_names(Delivery, list(deliveries.values_list("id", flat=True)))
    removed["content_webhook_deliveries"] = deliveries.delete()[0]
    removed["idempotency_keys"] = _kept_answers(tenant_id, content_id).delete()[0]
    _give_back(tenant_id, item, media)
    return _without_zeros(removed), keys


def _give_back(tenant_id: UUID, item: ContentItem | None, media: Sequence[Media]) -> None:
    """Take out of the tenant's counters what is no longer stored."""
    is_live = item is not None and item.deleted_at is None
    if item is None and not media:
        return
    with connection.cursor() as cursor:
        cursor.execute("SELECT now()")
        now = cursor.fetchone()[0]
    charging.charge(
        tenant_id=tenant_id,
        now=now,
        removed=[sized(item)] if item and is_live else [],
        media=-Count(len(media), sum(one.size_bytes for one in media)),
    )


def erase_files(*, tenant_id: UUID, parts: ItemParts) -> dict[str, int]:
    """Delete the files of an item's media that were noted before it went; repeated, it does no harm.

    Raises:
        MediaUnavailable: the media storage does not delete a file now.
    """
    with tenant_scope(tenant_id):
        kept = set(Blob.objects.filter(storage_key__in=parts.files).values_list("storage_key", flat=True))
        kept |= set(Blob.objects.filter(thumbnail_key__in=parts.files).values_list("thumbnail_key", flat=True))
    gone = [key for key in parts.files if key not in kept]
    for key in gone:
        storages.delete(key=key)
    with erasing_scope(tenant_id):
        Upload.objects.filter(tenant_id=tenant_id, storage_key__in=gone).delete()
    return _without_zeros({"files": len(gone)})


def erased_entities(*, tenant_id: UUID, content_id: UUID, parts: ItemParts) -> tuple[UUID, ...]:
    """Return what of an item and its parts is gone: a media file that another item took up meanwhile is not."""
    with tenant_scope(tenant_id):
        there = set(Media.objects.filter(id__in=parts.media).values_list("id", flat=True))
        there |= set(Blob.objects.filter(id__in=parts.blobs).values_list("id", flat=True))
    return tuple(one for one in (content_id, *parts.media, *parts.blobs) if one not in there)


# ZeroDB


def empty_store(*, store: DocumentStore, tenant_id: UUID) -> dict[str, int]:
    """Remove all rows of a tenant from ZeroDB; return how many there were by collection.

    Raises:
        StoreUnavailable, StoreRejected: some are still there; call it again.
    """
    return _without_zeros({name: store.delete_tenant(name, tenant_id) for name in COLLECTIONS})


def remove_from_store(*, store: DocumentStore, tenant_id: UUID, entity_ids: Collection[UUID]) -> dict[str, int]:
    """Remove what ZeroDB is to forget of these items and media files; return how many rows there were.

    Raises:
        StoreUnavailable, StoreRejected: some are still there; call it again.
    """
    with tenant_scope(tenant_id):
        rows = list(_removals(tenant_id, entity_ids).values_list("collection", "key"))
    keys = {name: [key for collection, key in rows if collection == name] for name in COLLECTIONS}
    return _without_zeros({name: store.delete_rows(name, keys[name]) for name in (DOCUMENTS, VERSIONS, MEDIA)})


def settle_removals(
    *, tenant_id: UUID, entity_ids: Collection[UUID] | None, before: datetime, longest: timedelta
) -> datetime | None:
    """Forget what ZeroDB was to be told, as far as nobody can be about to tell it something else.

    Args:
        entity_ids: None for all of the tenant.
        before: what was due by then has been carried out.
        longest: no lease lasts longer; what is put off for longer is not under one.

    Returns:
        When to carry it out once more, as a lease ends then; None when nothing is left.
    """
    with erasing_scope(tenant_id):
        rows = _removals(tenant_id, entity_ids)
        rows.filter(Q(next_attempt_at__lte=before) | Q(next_attempt_at__gt=before + longest)).delete()
        return rows.order_by("next_attempt_at").values_list("next_attempt_at", flat=True).last()


def _removals(tenant_id: UUID, entity_ids: Collection[UUID] | None) -> QuerySet[SpooledRecord]:
    rows = SpooledRecord.objects.filter(tenant_id=tenant_id)
    if entity_ids is None:
        return rows
    named = Q()
    for entity_id in entity_ids:
        named |= Q(key__startswith=str(entity_id))
    return rows.filter(named) if entity_ids else rows.none()


# The change log


def drop_unclaimed_lines(*, subject: Subject, limit: int) -> int:
    """Remove lines that the backup has not taken yet, at most `limit`, so that it never hears of them."""
    return _drop_lines(subject, Q(batch_id=None), limit)


def drop_lines(*, subject: Subject, limit: int) -> int:
    """Remove lines that are not on their way to the backup, at most `limit`; call it until it returns 0."""
    return _drop_lines(subject, Q(batch_id=None) | Q(acked_at__isnull=False), limit)


def forget_lines(*, subject: Subject, limit: int) -> int:
    """Remove lines, whatever their state, at most `limit`: where there is no backup."""
    return _drop_lines(subject, Q(), limit)


def _drop_lines(subject: Subject, state: Q, limit: int) -> int:
    with erasing_scope(subject.tenant_id):
        rows = subject.lines().filter(state).select_for_update().values_list("seq", flat=True)
        return Change.objects.filter(seq__in=list(rows[:limit])).delete()[0]


def batches_under_way(*, subject: Subject) -> list[UUID]:
    """Return the batches with which lines are on their way to the backup."""
    with tenant_scope(subject.tenant_id):
        lines = subject.lines().filter(acked_at=None, batch_id__isnull=False)
        return [batch_id for (batch_id,) in lines.values_list("batch_id").distinct() if batch_id]
