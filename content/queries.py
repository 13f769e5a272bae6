"""Reads: one item, pages of items, and what the carriers and the backup ask for."""

from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

from django.db.models import Exists, F, OuterRef, QuerySet, Sum

from content import documents
from content.documents import FoundDocument
from content.items import Item
from content.models import ContentItem, ContentVersion
from content.preview import READ_AHEAD
from content.stores.base import DocumentKey
from engarde.common.paging import Page
from engarde.common.problems import NotFound, Problem
from engarde.common.scopes import tenant_scope

PIECE_BYTES = 8 * 1024**2


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
        version = _live(tenant_id).filter(content_id=content_id).first()
        if version is None:
            raise NotFound("content item")
        found = documents.spooled(keys=[_key(version)])
    found = found or documents.fetch(tenant_id=tenant_id, keys=[_key(version)])
    if not found:
        raise DocumentUnavailable
    return make_item(version.content, version, found[_key(version)])


def list_items(*, tenant_id: UUID, page: int, size: int) -> Page[Item]:
    """Return a page of live items, newest first, each with the beginning of its body.

    The documents of a page are read in one call, or in several where they are large.
    """
    start = (page - 1) * size
    with tenant_scope(tenant_id):
        newest = _live(tenant_id).order_by("-content__created_at", "-content__id")
        versions = list(newest[start : start + size])
        total = ContentItem.objects.filter(tenant_id=tenant_id, deleted_at=None).count()
    items = [item for piece in _pieces(versions) for item in _summaries(tenant_id, piece)]
    return Page(rows=items, number=page, size=size, total=total)


def _pieces(versions: Sequence[ContentVersion]) -> Iterator[list[ContentVersion]]:
    """Yield runs whose bodies fit into memory comfortably, whatever a page asks for."""
    piece: list[ContentVersion] = []
    for version in versions:
        if piece and sum(one.size_bytes for one in piece) + version.size_bytes > PIECE_BYTES:
            yield piece
            piece = []
        piece.append(version)
    if piece:
        yield piece


def _summaries(tenant_id: UUID, versions: Sequence[ContentVersion]) -> list[Item]:
    found = documents.read_many(tenant_id=tenant_id, keys=[_key(version) for version in versions])
    short = {key: document.shortened(READ_AHEAD) for key, document in found.items()}
    return [make_item(version.content, version, short.get(_key(version))) for version in versions]


def _live(tenant_id: UUID) -> QuerySet[ContentVersion]:
    """Return the current versions of a tenant's live items, each with its item."""
    live = ContentVersion.objects.filter(content__tenant_id=tenant_id, content__deleted_at=None)
    return live.filter(version=F("content__version")).select_related("content")


def _key(version: ContentVersion) -> DocumentKey:
    return documents.key_of(version.content_id, version.sha256)


def version_of(row: ContentItem) -> ContentVersion:
    """Inside a scope, return an item's current version."""
    return ContentVersion.objects.get(content_id=row.id, version=row.version)


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
