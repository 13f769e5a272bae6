"""What PostgreSQL knows of a version beside its document, for the backup and its verification."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import F

from content.models import ContentItem, ContentVersion
from engarde.common.scopes import tenant_scope

CHUNK = 200
COLUMNS = (
    "content_id",
    "version",
    "sha256",
    "size_bytes",
    "change_type",
    "changed_by",
    "created_at",
    "author_id",
    "item_created_at",
    "zerodb_row_id",
    "backed_up_at",
)


@dataclass(frozen=True, slots=True)
class VersionFacts:
    """One version of an item.

    Attributes:
        created_at: of the version; `item_created_at` is of the item.
        zerodb_row_id: null while ZeroDB has not confirmed the document.
        backed_up_at: null while the backup has not acknowledged the version.
    """

    content_id: UUID
    version: int
    sha256: bytes
    size_bytes: int
    change_type: str
    changed_by: UUID | None
    created_at: datetime
    author_id: UUID | None
    item_created_at: datetime
    zerodb_row_id: str | None = None
    backed_up_at: datetime | None = None


def iterate(*, tenant_id: UUID) -> Iterator[dict[UUID, list[VersionFacts]]]:
    """Yield all of a tenant's items in chunks, by id, each with its versions, oldest first.

    No scope is open between two chunks.
    """
    last: UUID | None = None
    while ids := _ids_after(tenant_id, last):
        with tenant_scope(tenant_id):
            chunk = of_items(content_ids=ids)
        yield chunk
        last = ids[-1]


def of_items(*, content_ids: list[UUID]) -> dict[UUID, list[VersionFacts]]:
    """Inside a scope, return the versions of some items, oldest first."""
    found: dict[UUID, list[VersionFacts]] = {}
    for facts in _read(ContentVersion.objects.filter(content_id__in=content_ids)):
        found.setdefault(facts.content_id, []).append(facts)
    return found


def _ids_after(tenant_id: UUID, last: UUID | None) -> list[UUID]:
    items = ContentItem.objects.filter(tenant_id=tenant_id)
    with tenant_scope(tenant_id):
        rows = items.filter(id__gt=last) if last else items
        return list(rows.order_by("id").values_list("id", flat=True)[:CHUNK])


def _read(rows: Any) -> list[VersionFacts]:
    named = rows.annotate(author_id=F("content__author_id"), item_created_at=F("content__created_at"))
    values = named.order_by("content_id", "version").values_list(*COLUMNS)
    return [_facts(*row) for row in values]


def _facts(*columns: Any) -> VersionFacts:
    facts = VersionFacts(*columns)
    return replace(facts, sha256=bytes(facts.sha256))
