"""Reads: one item, pages of items, and what the carriers and the backup ask for."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.db.models import Exists, OuterRef, Q, Sum

from content import documents
from content.documents import FoundDocument
from content.items import Item
from content.models import ContentItem, ContentVersion
from engarde.common.paging import Page
from engarde.common.problems import NotFound, Problem
from engarde.common.scopes import tenant_scope


class DocumentUnavailable(Problem):
    """The item is there, but its document is in no tier that can be reached now."""

    status, code, title = 503, "document_unavailable", "Document unavailable"

    def __init__(self) -> None:
        super().__init__("The document cannot be read right now; try again soon.", headers={"Retry-After": "10"})


def get_item(*, tenant_id: UUID, content_id: UUID) -> Item:
    """Return a live item with its document.

    Raises:
        NotFound: the tenant has no such item, or it is in the trash.
        DocumentUnavailable: no tier can give the document now.
    """
    with tenant_scope(tenant_id):
        row = ContentItem.objects.filter(tenant_id=tenant_id, id=content_id, deleted_at=None).first()
        if row is None:
            raise NotFound("content item")
        [version] = versions_of([row])
    [item] = with_documents(tenant_id=tenant_id, rows=[row], versions=[version])
    if item.document is None:
        raise DocumentUnavailable
    return item


def list_items(*, tenant_id: UUID, page: int, size: int) -> Page[Item]:
    """Return a page of live items, newest first, with at most one call to the document store."""
    start = (page - 1) * size
    with tenant_scope(tenant_id):
        live = ContentItem.objects.filter(tenant_id=tenant_id, deleted_at=None)
        rows = list(live.order_by("-created_at", "-id")[start : start + size])
        total = live.count()
        versions = versions_of(rows)
    items = with_documents(tenant_id=tenant_id, rows=rows, versions=versions)
    return Page(rows=items, number=page, size=size, total=total)


def versions_of(rows: Sequence[ContentItem]) -> list[ContentVersion]:
    """Inside a scope, return the current version of each item, in the items' order."""
    current = Q()
    for row in rows:
        current |= Q(content_id=row.id, version=row.version)
    found = {version.content_id: version for version in ContentVersion.objects.filter(current)} if rows else {}
    return [found[row.id] for row in rows]


def with_documents(*, tenant_id: UUID, rows: Sequence[ContentItem], versions: Sequence[ContentVersion]) -> list[Item]:
    """Return the items with their documents; call it outside a scope."""
    keys = [documents.key_of(row.id, row.sha256) for row in rows]
    found = documents.read_many(tenant_id=tenant_id, keys=keys) if keys else {}
    return [make_item(row, version, found.get(key)) for row, version, key in zip(rows, versions, keys, strict=True)]


def make_item(row: ContentItem, version: ContentVersion, document: FoundDocument | None) -> Item:
    """Return an item from its rows and document."""
    return Item(
        id=row.id,
        tenant_id=row.tenant_id,
        version=row.version,
        title=row.title,
        content_type=row.content_type,
        status=row.status,
        brand_id=row.brand_id,
        campaign_space_id=row.campaign_space_id,
        size_bytes=row.size_bytes,
        scheduled_at=row.scheduled_at,
        created_at=row.created_at,
        updated_at=row.updated_at,
        deleted_at=row.deleted_at,
        in_zerodb=version.zerodb_row_id,
        backed_up_at=version.backed_up_at,
        document=document,
    )


def freeable_bytes(*, tenant_id: UUID) -> dict[str, int]:
    """Inside the tenant's scope, return what the trash and superseded versions hold, in bytes."""
    trash = ContentItem.objects.filter(tenant_id=tenant_id).exclude(deleted_at=None)
    newer = ContentVersion.objects.filter(content_id=OuterRef("content_id"), version__gt=OuterRef("version"))
    old = ContentVersion.objects.filter(Exists(newer), tenant_id=tenant_id)
    return {"trash_bytes": _sum(trash), "old_version_bytes": _sum(old)}


def _sum(rows: Any) -> int:
    return int(rows.aggregate(total=Sum("size_bytes"))["total"] or 0)
