"""Lists of items: filters, sorts, pages and cursors, totals, and the beginning of each body or all of it."""

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any
from uuid import UUID

import orjson
from django.db.models import Exists, F, OuterRef, Q, QuerySet

from content import queries, search
from content.items import Item
from content.models import ContentItem, Platform, Tag
from content.preview import READ_AHEAD
from engarde.accounts import queries as account_queries
from engarde.common import cursors
from engarde.common.paging import Page
from engarde.common.scopes import tenant_scope
from quotas import queries as quota_queries
from quotas.usage import Usage

PIECE_BYTES = 8 * 1024**2
MAX_BODIES_BYTES = 16 * 1024**2
SHORT_BYTES = 4 * READ_AHEAD
COUNTED = 10_000

Place = list[Any]  # the sort values that a cursor is made of
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
        return cursors.digest({**self.filters, "tags": sorted(set(self.tags)), "sort": self.sort})


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedPage(Page[Item]):
    """A page of items, with the tenant's usage, which every answer tells.

    Attributes:
        omitted: items whose bodies were asked for and would have made the answer too large.
    """

    usage: Usage
    omitted: frozenset[UUID]


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
        total, is_estimate = _total(matching, listing, seen=len(rows), all_items=usage.content_items)
    items, more = [item for item, _ in rows[: listing.size]], len(rows) > listing.size
    omitted = _without_room(items) if listing.with_body else frozenset()
    whole = {item.id for item in items} - omitted if listing.with_body else set()
    return ListedPage(
        rows=list(_read(tenant_id, items, whole)),
        number=listing.page,
        size=listing.size,
        total=total,
        is_estimate=is_estimate,
        has_next=more,
        next_cursor=cursors.encode(rows[listing.size - 1][1], listing.digest) if more else None,
        usage=usage,
        omitted=omitted,
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


def _rows(tenant_id: UUID, matching: QuerySet[ContentItem], listing: Listing, query: Any) -> list[tuple[Item, Place]]:
    """Return the page's items and one more, if there is one, each with its place in the list."""
    if listing.sort == RELEVANCE:
        return _best(tenant_id, matching, listing, query)
    name, kind, is_descending = SORTS[listing.sort]
    order = [F(name).desc(), F("id").desc()] if is_descending else [F(name), F("id")]
    rows, start = matching.order_by(*order), 0
    if listing.cursor is None:
        start = _offset(listing)
    else:
        rows = rows.filter(_after(listing.cursor, listing.digest, name, kind, is_descending=is_descending))
    items = queries.as_items(rows[start : start + listing.size + 1])
    return [(item, [_plain(getattr(item, name)), item.id]) for item in items]


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def _best(tenant_id: UUID, matching: QuerySet[ContentItem], listing: Listing, query: Any) -> list[tuple[Item, Place]]:
    among: dict[str, Any] = {"tenant_id": tenant_id, "items": matching, "query": query, "count": listing.size + 1}
    if listing.cursor is None:
        ranking = search.best(**among, start=_offset(listing))
    else:
        *last, time, oldest_id = cursors.decode(listing.cursor, listing.digest, [float, datetime, UUID, datetime, UUID])
        ranking = search.best_after(**among, after=search.Match(*last), oldest=(time, oldest_id))
    ids, oldest = [match.id for match in ranking.matches], [_plain(value) for value in ranking.oldest]
    items = {item.id: item for item in queries.as_items(ContentItem.objects.filter(id__in=ids))} if ids else {}
    return [
        (items[match.id], [match.rank, _plain(match.created_at), match.id, *oldest])
        for match in ranking.matches
        if match.id in items
    ]


def _offset(listing: Listing) -> int:
    return ((listing.page or 1) - 1) * listing.size


def _after(cursor: str, digest: str, name: str, kind: type, *, is_descending: bool) -> Q:
    """Return the condition for what stands behind a cursor; its first half lets the index find the place."""
    value, last_id = cursors.decode(cursor, digest, [kind, UUID])
    beyond, within = ("lt", "lte") if is_descending else ("gt", "gte")
    return Q(**{f"{name}__{within}": value}) & (Q(**{f"{name}__{beyond}": value}) | Q(**{f"id__{beyond}": last_id}))


def _total(matching: QuerySet[ContentItem], listing: Listing, *, seen: int, all_items: int) -> tuple[int | None, bool]:
    """Return how many items there are in all, and whether to take that for an estimate.

    Args:
        seen: rows of this page and the one after it, of which an estimate must not know less.
        all_items: the tenant's counter of live items, which is exact.
    """
    if listing.count == "none":
        return None, False
    if not listing.filters:
        return all_items, listing.count is None and all_items > COUNTED
    if listing.count == "exact":
        return matching.count(), False
    counted = 0 if listing.count == "estimated" else matching.order_by()[: COUNTED + 1].count()
    if listing.count is None and counted <= COUNTED:
        return counted, False
    before = ((listing.page or 1) - 1) * listing.size if seen else 0
    return max(counted, before + seen, _estimate(matching)), True


def _estimate(matching: QuerySet[ContentItem]) -> int:
    [plan] = orjson.loads(matching.order_by().explain(format="json"))
    return int(plan["Plan"]["Plan Rows"])


def _without_room(items: Sequence[Item]) -> frozenset[UUID]:
    """Return the items whose bodies would take an answer over MAX_BODIES_BYTES."""
    omitted, room = set(), MAX_BODIES_BYTES
    for item in items:
        if item.size_bytes > room:
            omitted.add(item.id)
        else:
            room -= item.size_bytes
    return frozenset(omitted)


def _read(tenant_id: UUID, items: Sequence[Item], whole: Container[UUID]) -> Iterator[Item]:
    """Yield items with their documents; large ones with the beginning of their body only, but for `whole` ones."""
    for piece in pieces(items):
        for item in queries.with_documents(tenant_id=tenant_id, items=piece):
            if item.document is None or item.id in whole or item.size_bytes <= SHORT_BYTES:
                yield item
            else:
                yield replace(item, document=item.document.shortened(READ_AHEAD))


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
