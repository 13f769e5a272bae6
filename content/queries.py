"""Reads of items: one by one with its document, the rows that a write locks, and what the quota can free."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import Count, F, FilteredRelation, Q, QuerySet, Sum
from django.utils.dateparse import parse_datetime

from content import documents
from content.documents import FoundDocument
from content.etags import ANY, Match
from content.items import Item
from content.models import ChangeType, ContentItem, ContentVersion, Media
from engarde.common.problems import NotFound, Problem
from engarde.common.scopes import tenant_scope
from quotas import queries as quota_queries
from quotas import usage as quota_usage
from quotas.usage import Sums, Usage

ITEM_COLUMNS = (
    "id",
    "tenant_id",
    "version",
    "title",
    "content_type",
    "status",
    "brand_id",
    "campaign_space_id",
    "size_bytes",
    "sha256",
    "scheduled_at",
    "created_at",
    "updated_at",
    "deleted_at",
)
# Plain SQL for the most frequent read: putting the ORM's together takes longer than running it.
FIND = f"""
SELECT {", ".join(f"item.{column}" for column in ITEM_COLUMNS)}, version.zerodb_row_id, version.backed_up_at
FROM content_storage_metadata AS item
JOIN content_versions AS version ON version.content_id = item.id AND version.version = item.version
WHERE item.tenant_id = %s AND item.id = %s"""  # noqa: S608 -- our own columns
# A document counts once, however many versions have it, and not at all while the item itself has it.
OLD_BYTES = """
SELECT coalesce(sum(size_bytes), 0)::bigint FROM (
    SELECT DISTINCT version.content_id, version.sha256, version.size_bytes
    FROM content_versions AS version JOIN content_storage_metadata AS item ON item.id = version.content_id
    WHERE version.tenant_id = %s AND version.sha256 <> item.sha256
) AS old"""
SHA256 = ITEM_COLUMNS.index("sha256")


class DocumentUnavailable(Problem):
    """The item is there, but its document is in no tier that can be reached now."""

    status, code, title = 503, "document_unavailable", "Document unavailable"

    def __init__(self) -> None:
        super().__init__("The document cannot be read right now; try again soon.", headers={"Retry-After": "10"})


class NotModified(Exception):
    """The reader has this version already.

    Attributes:
        etag: of the version.
    """

    def __init__(self, etag: str) -> None:
        super().__init__(etag)
        self.etag = etag


@dataclass(frozen=True, slots=True)
class Read:
    """An item for its reader, with the tenant's usage, which every answer tells."""

    item: Item
    usage: Usage


def get_item(*, tenant_id: UUID, content_id: UUID, version: int | None = None, trashed: bool | None = False) -> Item:
    """Return an item with its document.

    Args:
        version: an older one; None for the current one.
        trashed: whether it has to be in the trash; None when either will do.

    Raises:
        NotFound: the tenant has no such item or version.
        DocumentUnavailable: no tier can give the document now.
    """
    with tenant_scope(tenant_id):
        item = _find(tenant_id, content_id, version, trashed=trashed)
        found = _nearby(item)
    return _with_document(item, found)


def find_item(*, tenant_id: UUID, content_id: UUID) -> Item:
    """Return a live item, with its document if any tier can give it now.

    Raises:
        NotFound: the tenant has no such item.
    """
    with tenant_scope(tenant_id):
        item = _find(tenant_id, content_id, None, trashed=False)
    return with_documents(tenant_id=tenant_id, items=[item])[0]


def read_item(*, tenant_id: UUID, content_id: UUID, version: int | None = None, known: Match = ANY) -> Read:
    """Return a live item with its document, for its reader.

    Args:
        version: an older one; None for the current one.
        known: the caller's If-None-Match.

    Raises:
        NotModified: the caller has this version.
        NotFound, DocumentUnavailable: as for `get_item`.
    """
    with tenant_scope(tenant_id):
        item = _find(tenant_id, content_id, version, trashed=False)
        if known.knows(item.etag):
            raise NotModified(item.etag)
        found = _nearby(item)
        usage = quota_queries.usage_in_scope(tenant_id=tenant_id)
    return Read(_with_document(item, found), usage)


def _find(tenant_id: UUID, content_id: UUID, version: int | None, *, trashed: bool | None) -> Item:
    with connection.cursor() as cursor:
        cursor.execute(FIND, [tenant_id, content_id])
        row = cursor.fetchone()
    item = _item(*row) if row else None
    if item is None or (trashed is not None and trashed != (item.deleted_at is not None)):
        raise NotFound("content item")
    return item if version is None or version == item.version else _older(item, version)


def _older(item: Item, version: int) -> Item:
    """Return an item as an older version's row has it; the document adds the rest."""
    row = ContentVersion.objects.filter(content_id=item.id, version=version).first()
    if row is None:
        raise NotFound(f"version {version} of the content item")
    return replace(
        item,
        version=row.version,
        size_bytes=row.size_bytes,
        sha256=bytes(row.sha256),
        updated_at=row.created_at,
        deleted_at=row.created_at if row.change_type == ChangeType.DELETE else None,
        in_zerodb=row.zerodb_row_id,
        backed_up_at=row.backed_up_at,
    )


def _nearby(item: Item) -> dict[Any, FoundDocument]:
    """Inside a scope, look for a document where that needs no other service."""
    return documents.remembered(keys=[item.key]) or documents.spooled(keys=[item.key])


def _with_document(item: Item, found: dict[Any, FoundDocument]) -> Item:
    found = found or documents.fetch(tenant_id=item.tenant_id, keys=[item.key])
    if not found:
        raise DocumentUnavailable
    return as_written(item, found[item.key])


def as_written(item: Item, document: FoundDocument) -> Item:
    """Return an item with its document, and what columns repeat of that as the document has it."""
    fields = document.fields
    scheduled_at = fields["scheduled_at"]
    return replace(
        item,
        document=document,
        title=fields["title"],
        content_type=fields["type"],
        status=fields["status"],
        brand_id=UUID(fields["brand_id"]),
        campaign_space_id=UUID(fields["campaign_space_id"]) if fields["campaign_space_id"] else None,
        scheduled_at=parse_datetime(scheduled_at) if scheduled_at else None,
    )


def as_items(rows: QuerySet[ContentItem]) -> list[Item]:
    """Inside a scope, return rows as items without documents, each with where its current version is."""
    current = rows.annotate(current=FilteredRelation("versions", condition=Q(versions__version=F("version"))))
    values = current.values_list(*ITEM_COLUMNS, "current__zerodb_row_id", "current__backed_up_at")
    return [_item(*row) for row in values]


def _item(*columns: Any) -> Item:
    values = list(columns)
    values[SHA256] = bytes(values[SHA256])
    return Item(*values)


def make_item(
    row: ContentItem, zerodb_row_id: str | None, backed_up_at: datetime | None, document: FoundDocument | None
) -> Item:
    """Return an item from its row and document."""
    columns = {name: getattr(row, name) for name in ITEM_COLUMNS}
    return Item(**columns, in_zerodb=zerodb_row_id, backed_up_at=backed_up_at, document=document)


def lock(*, tenant_id: UUID, content_ids: Sequence[UUID]) -> dict[UUID, Item]:
    """Inside the tenant's scope, lock items, in the trash too, and return them without documents."""
    rows = ContentItem.objects.filter(tenant_id=tenant_id, id__in=content_ids)
    found = list(rows.select_for_update().order_by("id").values_list("id", flat=True))
    return {item.id: item for item in as_items(rows.filter(id__in=found))} if found else {}


def lock_live(*, tenant_id: UUID, content_ids: Sequence[UUID]) -> dict[UUID, int]:
    """Inside the tenant's scope, lock live items and return their versions."""
    rows = ContentItem.objects.filter(tenant_id=tenant_id, id__in=content_ids, deleted_at=None)
    return dict(rows.select_for_update().order_by("id").values_list("id", "version"))


def lock_versions(*, tenant_id: UUID, content_ids: Sequence[UUID]) -> dict[UUID, int]:
    """Inside the tenant's scope, lock items, in the trash too, and return their versions."""
    rows = ContentItem.objects.filter(tenant_id=tenant_id, id__in=content_ids)
    return dict(rows.select_for_update().order_by("id").values_list("id", "version"))


def changed_since(*, content_id: UUID, version: int) -> list[str]:
    """Inside a scope, return the names of the fields that versions after this one changed."""
    later = ContentVersion.objects.filter(content_id=content_id, version__gt=version)
    return sorted({name for names in later.values_list("changed_fields", flat=True) for name in names})


def versions_of(*, tenant_id: UUID, content_id: UUID) -> tuple[list[ContentVersion], Usage]:
    """Return a live item's versions, newest first, and the tenant's usage.

    Raises:
        NotFound: the tenant has no such item, or it is in the trash.
    """
    with tenant_scope(tenant_id):
        if not ContentItem.objects.filter(tenant_id=tenant_id, id=content_id, deleted_at=None).exists():
            raise NotFound("content item")
        rows = ContentVersion.objects.filter(tenant_id=tenant_id, content_id=content_id)
        return list(rows.order_by("-version")), quota_queries.usage_in_scope(tenant_id=tenant_id)


def with_documents(*, tenant_id: UUID, items: Collection[Item]) -> list[Item]:
    """Return items with the documents that any tier can give; without one, an item stays as it is.

    Call it outside a scope: it talks to other services.
    """
    found = documents.read_many(tenant_id=tenant_id, keys=[item.key for item in items])
    return [replace(item, document=found.get(item.key)) for item in items]


def stored_sums(*, tenant_id: UUID) -> Sums:
    """Inside a scope, sum up what the quota counts: live items by type, and media files."""
    live = ContentItem.objects.filter(tenant_id=tenant_id, deleted_at=None).order_by()
    by_type = live.values_list("content_type").annotate(number=Count("*"), size=Sum("size_bytes"))
    media = Media.objects.filter(tenant_id=tenant_id).aggregate(number=Count("*"), size=Sum("size_bytes", default=0))
    return Sums(
        by_type={name: quota_usage.Count(number, size) for name, number, size in by_type},
        media=quota_usage.Count(media["number"], int(media["size"])),
    )


def freeable_bytes(*, tenant_id: UUID) -> dict[str, int]:
    """Inside the tenant's scope, return what the trash and superseded versions hold, in bytes."""
    trash = ContentItem.objects.filter(tenant_id=tenant_id).exclude(deleted_at=None)
    with connection.cursor() as cursor:
        cursor.execute(OLD_BYTES, [tenant_id])
        [old] = cursor.fetchone()
    return {"trash_bytes": int(trash.aggregate(total=Sum("size_bytes", default=0))["total"]), "old_version_bytes": old}
