"""Indexing items anew: those of a brand whose language changed, and those that came back from a backup."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import structlog
from django.db.models import F, OuterRef, Q, Subquery

from content import queries, search, writing
from content.items import Item
from content.models import ContentItem, IndexedBrand, MediaUse, SearchEntry
from content.search import Entry
from engarde.accounts import queries as account_queries
from engarde.common.scopes import system_scope, tenant_scope

log = structlog.get_logger(__name__)

BATCH = 100


def index_changed_brands() -> int:
    """Index the items of brands whose language is another one than their items are indexed in; return how many items."""
    done, last = 0, UUID(int=0)
    while brands := _changed_brands(last):
        done += sum(_index_brand(*brand) for brand in brands)
        last = brands[-1][1]
    return done


def _changed_brands(last: UUID) -> list[tuple[UUID, UUID, str]]:
    indexed = IndexedBrand.objects.filter(brand_id=OuterRef("id")).values("language")
    with system_scope("find brands to index anew"):
        brands = account_queries.brands_of_all_tenants().filter(id__gt=last).annotate(indexed=Subquery(indexed))
        changed = brands.filter(Q(indexed=None) | ~Q(indexed=F("language"))).order_by("id")
        return list(changed.values_list("tenant_id", "id", "language")[:BATCH])


def _index_brand(tenant_id: UUID, brand_id: UUID, tag: str) -> int:
    language, last, done = search.language_of(tag), UUID(int=0), 0
    while items := _items_in_other_languages(tenant_id, brand_id, language, last):
        found = queries.with_documents(tenant_id=tenant_id, items=items)
        entries = [_entry(item, language) for item in found if item.document]
        with tenant_scope(tenant_id):
            search.put(tenant_id=tenant_id, entries=entries)
        if len(entries) < len(items):
            log.warning("some items are not indexed yet: their documents cannot be read", brand_id=str(brand_id))
            return done
        done, last = done + len(items), items[-1].id
    with tenant_scope(tenant_id):
        if account_queries.brand_languages(tenant_id=tenant_id).get(brand_id) == tag:
            IndexedBrand.objects.update_or_create(brand_id=brand_id, defaults={"tenant_id": tenant_id, "language": tag})
    return done


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
