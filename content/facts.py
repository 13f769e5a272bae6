"""What PostgreSQL knows of a version beside its document, for the backup and its verification."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import F

from content.models import ContentVersion

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
    "changed_fields",
)
COPIED = """
SELECT made.content_id AS entity_id, made.version, encode(made.sha256, 'hex') AS sha256,
       content_version_facts(made, item.author_id, item.created_at) AS facts,
       (made.created_at AT TIME ZONE 'UTC')::date AS day, true AS is_comparable
FROM content_versions AS made
JOIN content_storage_metadata AS item ON item.id = made.content_id AND item.tenant_id = made.tenant_id
WHERE made.tenant_id = %(tenant)s"""
"""A tenant's versions (parameter `tenant`), as the backup keeps them."""
COPIED_ON_DAY = f"""{COPIED}
  AND made.created_at >= %(day)s::date::timestamp AT TIME ZONE 'UTC'
  AND made.created_at < (%(day)s::date + 1)::timestamp AT TIME ZONE 'UTC'"""
"""Those made on a day (UTC; parameter `day`)."""


@dataclass(frozen=True, slots=True)
class VersionFacts:
    """One version of an item.

    Attributes:
        created_at: of the version; `item_created_at` is of the item.
        zerodb_row_id: null while ZeroDB has not confirmed the document.
        backed_up_at: null while the backup has not acknowledged the version.
        changed_fields: against the version before it.
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
    changed_fields: tuple[str, ...] = ()


def of_items(*, content_ids: list[UUID]) -> dict[UUID, list[VersionFacts]]:
    """Inside a scope, return the versions of some items, oldest first."""
    found: dict[UUID, list[VersionFacts]] = {}
    for facts in _read(ContentVersion.objects.filter(content_id__in=content_ids)):
        found.setdefault(facts.content_id, []).append(facts)
    return found


def _read(rows: Any) -> list[VersionFacts]:
    named = rows.annotate(author_id=F("content__author_id"), item_created_at=F("content__created_at"))
    values = named.order_by("content_id", "version").values_list(*COLUMNS)
    return [_facts(*row) for row in values]


def _facts(*columns: Any) -> VersionFacts:
    facts = VersionFacts(*columns)
    return replace(facts, sha256=bytes(facts.sha256), changed_fields=tuple(facts.changed_fields))
