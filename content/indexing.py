"""Indexing items anew: those of a brand whose language changed, and those that came back from a backup."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from django.db.models import Exists, OuterRef, Q, Subquery

from content import queries, search, writing
from content.items import Item
from content.models import ContentItem, IndexedBrand, MediaUse, SearchEntry
from content.search import Entry
from engarde.accounts import queries as account_queries
from engarde.common.scopes import system_scope, tenant_scope

log = structlog.get_logger(__name__)

BATCH = 100
LONGEST_WRITE = timedelta(minutes=1)


def index_changed_brands(*, now: datetime, tenant_id: UUID | None = None) -> int:
    """Index the items of brands whose language is another one than their items are indexed in; return how many items.

    Args:
        tenant_id: whose brands; None for everybody's.
    """
    done, last = 0, UUID(int=0)
    while brands := _changed_brands(last, now, tenant_id):
        done += sum(_index_brand(*brand, now) for brand in brands)
        last = brands[-1][1]
    return done


def _changed_brands(last: UUID, now: datetime, owner: UUID | None) -> list[tuple[UUID, UUID, str]]:
    """Return brands that are not indexed in their language, or were lately: a write of then may have come after that."""
    indexed = IndexedBrand.objects.filter(brand_id=OuterRef("id"), language=OuterRef("language"))
    settled = indexed.filter(Q(is_settled=True) | Q(indexed_at__gt=now - LONGEST_WRITE))
    with system_scope("find brands to index anew"):
        changed = account_queries.brands_of_all_tenants().filter(~Exists(settled), id__gt=last).order_by("id")
        changed = changed.filter(tenant_id=owner) if owner else changed
        return list(changed.values_list("tenant_id", "id", "language")[:BATCH])


def _index_brand(tenant_id: UUID, brand_id: UUID, tag: str, now: datetime) -> int:
    language, last, done, is_complete = search.language_of(tag), UUID(int=0), 0, True
    while items := _items_in_other_languages(tenant_id, brand_id, language, last):
        readable = [item for item in queries.with_documents(tenant_id=tenant_id, items=items) if item.document]
        is_complete &= len(readable) == len(items)
        done += _put(tenant_id, readable, language)
        last = items[-1].id
    if is_complete:
        _note(tenant_id, brand_id, tag, now)
    else:
        log.warning("some items are not indexed yet: their documents cannot be read", brand_id=str(brand_id))
    return done


def _put(tenant_id: UUID, items: Sequence[Item], language: str) -> int:
    """Index those items that are still what was read: a later write has indexed its own words."""
    with tenant_scope(tenant_id):
        versions = queries.lock_versions(tenant_id=tenant_id, content_ids=[item.id for item in items])
        same = [item for item in items if versions.get(item.id) == item.version]
        search.put(tenant_id=tenant_id, entries=[_entry(item, language) for item in same])
    return len(same)


def _note(tenant_id: UUID, brand_id: UUID, tag: str, now: datetime) -> None:
    """Note that a brand is indexed; the second time in a row, that it needs no more looks."""
    with tenant_scope(tenant_id):
        if account_queries.brand_languages(tenant_id=tenant_id).get(brand_id) != tag:
            return
        noted = IndexedBrand.objects.filter(brand_id=brand_id, language=tag).exists()
        values = {"tenant_id": tenant_id, "language": tag, "indexed_at": now, "is_settled": noted}
        IndexedBrand.objects.update_or_create(brand_id=brand_id, defaults=values)


def _items_in_other_languages(tenant_id: UUID, brand_id: UUID, language: str, last: UUID) -> list[Item]:
    indexed = SearchEntry.objects.filter(content_id=OuterRef("id")).values("language")
    rows = ContentItem.objects.filter(tenant_id=tenant_id, brand_id=brand_id, id__gt=last)
    others = rows.annotate(indexed=Subquery(indexed)).filter(Q(indexed=None) | ~Q(indexed=language))
    with tenant_scope(tenant_id):
        return queries.as_items(others.order_by("id")[:BATCH])


def _entry(item: Item, language: str) -> Entry:
    return Entry(item.id, language, item.fields["title"], item.fields["body"])


def index_recovered(*, tenant_id: UUID, content_id: UUID, fields: Mapping[str, Any], language: str) -> None:
    """Inside the tenant's scope, make what lists and searches need of an item that came back from a backup.

    Media files that are gone are left out.
    """
    for model, name in writing.LABELS:
        model.objects.filter(content_id=content_id).delete()
        writing.insert_labels(model, tenant_id=tenant_id, labels={content_id: fields[name]})
    media = writing.existing_media(tenant_id=tenant_id, media_ids={UUID(one) for one in fields["media"]})
    MediaUse.objects.filter(content_id=content_id).delete()
    MediaUse.objects.bulk_create(
        [MediaUse(tenant_id=tenant_id, content_id=content_id, media_id=media_id) for media_id in media]
    )
    search.put(tenant_id=tenant_id, entries=[Entry(content_id, language, fields["title"], fields["body"])])
