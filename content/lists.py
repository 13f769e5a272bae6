"""Lists of items: filters, sorts, pages and cursors, totals, and the beginning of each body or all of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any
from uuid import UUID

import orjson
from django.db.models import Exists, F, OuterRef, Q, QuerySet

from content import queries, search
from content.documents import FoundDocument
from content.items import Item
from content.models import ContentItem, Platform, Tag
from content.preview import READ_AHEAD
from engarde.accounts import queries as account_queries
from engarde.common import cursors
from engarde.common.paging import MAX_PAGE, Page
from engarde.common.scopes import tenant_scope
from quotas import queries as quota_queries
from quotas.usage import Usage

PIECE_BYTES = 8 * 1024**2
MAX_BODIES_BYTES = 16 * 1024**2
COUNTED = 10_000

RELEVANCE = "relevance"
SORTS: dict[str, tuple[str, type, bool]] = {
    "-created_at": ("created_at", datetime, True),
    "created_at": ("created_at", datetime, False),
    "-updated_at": ("updated_at", datetime, True),
    "updated_at": ("updated_at", datetime, False),
    "title": ("title", str, False),
}


@dataclass(frozen=True)
class Listing:
    """What a list is asked for.

    Attributes:
        page: from 1; None with a cursor.
        before: items made before this time, exclusive.
        count: "exact", "estimated", "none", or None for exact up to 10,000 and estimated beyond.
    """

    page: int | None = 1
    size: int = 20
    cursor: str | None = None
    sort: str = "-created_at"
    count: str | None = None
    with_body: bool = False
    content_type: str | None = None
    status: str | None = None
    brand_id: UUID | None = None
    campaign_space_id: UUID | None = None
    tags: tuple[str, ...] = ()
    platform: str | None = None
    search: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    before: datetime | None = None
    deleted: bool = False

    @cached_property
    def filters(self) -> dict[str, Any]:
        """What narrows the list, by name."""
        names = ("content_type", "status", "brand_id", "campaign_space_id", "tags", "platform", "search")
        times = ("since", "until", "before")
        given = {name: value for name in names + times if (value := getattr(self, name)) not in {None, ()}}
        return {**given, "deleted": True} if self.deleted else given

    @cached_property
    def digest(self) -> str:
        """What its cursors belong to."""
        return cursors.digest({**self.filters, "sort": self.sort})


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedPage(Page[Item]):
    """A page of items, with the tenant's usage, which every answer tells."""

    usage: Usage


def list_items(*, tenant_id: UUID, listing: Listing) -> ListedPage:
    """Return a page of items, each with the beginning of its body, or with all of it where that was asked for.

    The documents of a page are read in one call, or in several where they are large.

    Raises:
        Invalid: the cursor belongs to another list.
    """
    with tenant_scope(tenant_id):
        usage = quota_queries.usage_in_scope(tenant_id=tenant_id)
        matching, query = _matching(tenant_id, listing)
        rows = _rows(tenant_id, matching, listing, query)
        total, is_estimate = _total(tenant_id, matching, listing)
    items, more = rows[: listing.size], len(rows) > listing.size
    return ListedPage(
        rows=list(_read(tenant_id, items, with_body=listing.with_body)),
        number=listing.page,
        size=listing.size,
        total=total,
        is_estimate=is_estimate,
        has_next=more,
        next_cursor=_cursor_after(items, listing) if more else None,
        usage=usage,
    )


def _matching(tenant_id: UUID, listing: Listing) -> tuple[QuerySet[ContentItem], Any]:
    """Return the items that pass the filters, and the text query if there is one."""
    rows = ContentItem.objects.filter(tenant_id=tenant_id, deleted_at__isnull=not listing.deleted)
    for name in ("content_type", "status", "brand_id", "campaign_space_id"):
        if (value := getattr(listing, name)) is not None:
            rows = rows.filter(**{name: value})
    rows = _in_time(rows, listing)
    for tag in dict.fromkeys(listing.tags):
        rows = rows.filter(_labelled(Tag, tenant_id, tag))
    if listing.platform is not None:
        rows = rows.filter(_labelled(Platform, tenant_id, listing.platform))
    if listing.search is None:
        return rows, None
    query = search.query_for(listing.search, _languages(tenant_id, listing))
    found = search.matching(tenant_id=tenant_id, query=query)
    return rows.filter(Exists(found.filter(content_id=OuterRef("id")))), query


def _in_time(rows: QuerySet[ContentItem], listing: Listing) -> QuerySet[ContentItem]:
    bounds = {"created_at__gte": listing.since, "created_at__lte": listing.until, "created_at__lt": listing.before}
    return rows.filter(**{name: value for name, value in bounds.items() if value is not None})


def _labelled(model: type[Tag | Platform], tenant_id: UUID, name: str) -> Exists:
    return Exists(model.objects.filter(tenant_id=tenant_id, name=name, content_id=OuterRef("id")))


def _languages(tenant_id: UUID, listing: Listing) -> set[str]:
    tags = account_queries.brand_languages(tenant_id=tenant_id)
    wanted = [tags[listing.brand_id]] if listing.brand_id in tags else tags.values()
    return {search.language_of(tag) for tag in wanted}


def _rows(tenant_id: UUID, matching: QuerySet[ContentItem], listing: Listing, query: Any) -> list[Item]:
    """Return the page's items and one more, if there is one."""
    if listing.sort == RELEVANCE:
        start = _offset(listing)
        ids = search.ranked_ids(
            tenant_id=tenant_id, items=matching, query=query, start=start, stop=start + listing.size + 1
        )
        found = {item.id: item for item in queries.as_items(ContentItem.objects.filter(id__in=ids))} if ids else {}
        return [found[one] for one in ids]
    name, kind, is_descending = SORTS[listing.sort]
    order = [F(name).desc(), F("id").desc()] if is_descending else [F(name), F("id")]
    rows, start = matching.order_by(*order), 0
    if listing.cursor is None:
        start = _offset(listing)
    else:
        rows = rows.filter(_after(listing.cursor, listing.digest, name, kind, is_descending=is_descending))
    return queries.as_items(rows[start : start + listing.size + 1])


def _offset(listing: Listing) -> int:
    if listing.cursor is not None:
        [offset] = cursors.decode(listing.cursor, listing.digest, [int])
        return min(max(0, int(offset)), MAX_PAGE)
    return ((listing.page or 1) - 1) * listing.size


def _after(cursor: str, digest: str, name: str, kind: type, *, is_descending: bool) -> Q:
    """Return the condition for what stands behind a cursor; its first half lets the index find the place."""
    value, last_id = cursors.decode(cursor, digest, [kind, UUID])
    beyond, within = ("lt", "lte") if is_descending else ("gt", "gte")
    return Q(**{f"{name}__{within}": value}) & (Q(**{f"{name}__{beyond}": value}) | Q(**{f"id__{beyond}": last_id}))


def _cursor_after(items: Sequence[Item], listing: Listing) -> str:
    if listing.sort == RELEVANCE:
        return cursors.encode([_offset(listing) + listing.size], listing.digest)
    value = getattr(items[-1], SORTS[listing.sort][0])
    return cursors.encode([value.isoformat() if isinstance(value, datetime) else value, items[-1].id], listing.digest)


def _total(tenant_id: UUID, matching: QuerySet[ContentItem], listing: Listing) -> tuple[int | None, bool]:
    """Return how many items there are in all, and whether that is the planner's estimate."""
    if listing.count == "none":
        return None, False
    if not listing.filters:
        return quota_queries.content_items(tenant_id=tenant_id), False
    if listing.count == "exact":
        return matching.count(), False
    counted = 0 if listing.count == "estimated" else matching.order_by()[: COUNTED + 1].count()
    if listing.count is None and counted <= COUNTED:
        return counted, False
    return max(counted, _estimate(matching)), True


def _estimate(matching: QuerySet[ContentItem]) -> int:
    [plan] = orjson.loads(matching.order_by().explain(format="json"))
    return int(plan["Plan"]["Plan Rows"])


def _read(tenant_id: UUID, items: Sequence[Item], *, with_body: bool) -> Iterator[Item]:
    """Yield items with their documents, shortened unless their bodies are wanted."""
    room = MAX_BODIES_BYTES if with_body else 0
    for piece in pieces(items):
        for item in queries.with_documents(tenant_id=tenant_id, items=piece):
            fits = item.size_bytes <= room
            room -= item.size_bytes if fits else 0
            yield item if fits or item.document is None else _shortened(item, item.document)


def _shortened(item: Item, document: FoundDocument) -> Item:
    return replace(item, document=document.shortened(READ_AHEAD))


def pieces(items: Sequence[Item]) -> Iterator[list[Item]]:
    """Yield runs whose bodies fit into memory comfortably, whatever a page asks for."""
    piece: list[Item] = []
    size = 0
    for item in items:
        if piece and size + item.size_bytes > PIECE_BYTES:
            yield piece
            piece, size = [], 0
        piece.append(item)
        size += item.size_bytes
    if piece:
        yield piece
