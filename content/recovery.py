"""The way back: items and documents from a copy of them, under the same ids, versions, checksums, times and authors."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from django.db import connection
from django.utils.dateparse import parse_datetime

from content import documents, facts, indexing, search
from content.facts import VersionFacts
from content.models import Change, ChangeType, ContentItem, ContentVersion, SpooledDocument
from content.stores.base import DocumentKey
from engarde.accounts import queries as account_queries


@dataclass(frozen=True, slots=True)
class ItemCopy:
    """An item as a copy has it.

    Attributes:
        versions: every version the copy has, oldest first.
        texts: documents by checksum.
    """

    id: UUID
    versions: Sequence[VersionFacts]
    texts: Mapping[bytes, str]

    @property
    def latest(self) -> VersionFacts:
        """The newest version."""
        return self.versions[-1]

    @property
    def is_deleted(self) -> bool:
        """Whether the item is in the trash."""
        return self.latest.change_type == ChangeType.DELETE

    def keys(self) -> set[DocumentKey]:
        """Return the keys of all its documents."""
        return {documents.key_of(self.id, sha256) for sha256 in self.texts}


@dataclass(slots=True)
class Recovered:
    """What a recovery changed, or would change.

    Attributes:
        items: ids of the items that differed in any way.
        failures: why an item could not be brought back, by its id.
    """

    items: set[UUID] = field(default_factory=set)
    failures: dict[UUID, str] = field(default_factory=dict)


def recover_facts(*, tenant_id: UUID, copies: Sequence[ItemCopy], now: datetime, dry_run: bool) -> Recovered:
    """Inside a tenant's scope, bring back items and versions that PostgreSQL lacks; newer ones here are left alone."""
    done = Recovered()
    locked = ContentItem.objects.select_for_update().order_by("id")
    here = {row.id: row for row in locked.filter(id__in=[copy.id for copy in copies])}
    purged = _purged([copy.id for copy in copies])
    brands = account_queries.brand_languages(tenant_id=tenant_id)
    for copy in sorted(copies, key=lambda copy: copy.id):
        row = here.get(copy.id)
        if copy.id in purged or (row is not None and row.version >= copy.latest.version):
            continue
        problem = _obstacle(copy, brands)
        if problem:
            done.failures[copy.id] = problem
            continue
        done.items.add(copy.id)
        if not dry_run:
            _recover_item(tenant_id, copy, row, now, brands)
    return done


def _purged(content_ids: Sequence[UUID]) -> set[UUID]:
    """Return the items that were removed for good and of which the backup has not heard yet."""
    lines = Change.objects.filter(entity_id__in=content_ids, op=Change.Op.PURGE, acked_at=None)
    return set(lines.values_list("entity_id", flat=True))


def _obstacle(copy: ItemCopy, brands: Collection[UUID]) -> str:
    if copy.latest.sha256 not in copy.texts:
        return "the copy lacks the document of the latest version"
    brand_id = UUID(orjson.loads(copy.texts[copy.latest.sha256])["brand_id"])
    return "" if brand_id in brands else f"its brand {brand_id} is gone"


def _recover_item(
    tenant_id: UUID, copy: ItemCopy, row: ContentItem | None, now: datetime, brands: Mapping[UUID, str]
) -> None:
    columns = _columns(copy)
    if row is None:
        ContentItem.objects.create(id=copy.id, tenant_id=tenant_id, **columns)
    else:
        ContentItem.objects.filter(id=copy.id).update(**columns)
    _insert_versions(tenant_id, copy, now)
    fields = orjson.loads(copy.texts[copy.latest.sha256])
    language = search.language_of(brands[UUID(fields["brand_id"])])
    indexing.index_recovered(tenant_id=tenant_id, content_id=copy.id, fields=fields, language=language)
    _silence_log(copy, now)


def _silence_log(copy: ItemCopy, now: datetime) -> None:
    """Mark the change log's line of the recovery as told: the backup knows, unless it is still to hear of a purge."""
    lines = Change.objects.filter(entity_id=copy.id)
    if not lines.filter(op=Change.Op.PURGE, acked_at=None).exists():
        lines.filter(version=copy.latest.version, batch_id=None).update(batch_id=copy.id, acked_at=now)


def lock_recovery(*, tenant_id: UUID) -> None:
    """Inside a scope, have one recovery of a tenant at a time until the transaction ends."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"recovery of {tenant_id}"])


def _columns(copy: ItemCopy) -> dict[str, Any]:
    latest, fields = copy.latest, orjson.loads(copy.texts[copy.latest.sha256])
    scheduled_at = fields["scheduled_at"]
    return {
        "author_id": latest.author_id,
        "brand_id": fields["brand_id"],
        "campaign_space_id": fields["campaign_space_id"],
        "title": fields["title"],
        "content_type": fields["type"],
        "status": fields["status"],
        "scheduled_at": parse_datetime(scheduled_at) if scheduled_at else None,
        "version": latest.version,
        "size_bytes": latest.size_bytes,
        "sha256": latest.sha256,
        "created_at": latest.item_created_at,
        "updated_at": latest.created_at,
        "deleted_at": latest.created_at if copy.is_deleted else None,
    }


def _insert_versions(tenant_id: UUID, copy: ItemCopy, now: datetime) -> None:
    ContentVersion.objects.bulk_create(
        [
            ContentVersion(
                tenant_id=tenant_id,
                content_id=copy.id,
                version=version.version,
                size_bytes=version.size_bytes,
                sha256=version.sha256,
                change_type=version.change_type,
                changed_by=version.changed_by,
                created_at=version.created_at,
                backed_up_at=now,
            )
            for version in copy.versions
        ],
        ignore_conflicts=True,
    )


def recover_documents(
    *,
    tenant_id: UUID,
    copies: Sequence[ItemCopy],
    in_store: Mapping[DocumentKey, str],
    now: datetime,
    dry_run: bool,
) -> Recovered:
    """Inside a tenant's scope, spool every document that ZeroDB lacks, and point versions at the rows that it has."""
    done = Recovered()
    here = facts.of_items(content_ids=[copy.id for copy in copies])
    pending = _pending([copy.id for copy in copies])
    for copy in sorted(copies, key=lambda copy: copy.id):
        for version in here.get(copy.id, []):
            key = documents.key_of(copy.id, version.sha256)
            if version.sha256 not in copy.texts or version.zerodb_row_id == in_store.get(key, ""):
                continue
            if key not in in_store and key in pending:
                continue
            done.items.add(copy.id)
            if not dry_run:
                _recover_document(tenant_id, copy, version, in_store.get(key), now)
                pending.add(key)
    return done


def _pending(content_ids: list[UUID]) -> set[DocumentKey]:
    rows = SpooledDocument.objects.filter(content_id__in=content_ids, uploaded_at=None)
    return {documents.key_of(*row) for row in rows.values_list("content_id", "sha256")}


def _recover_document(
    tenant_id: UUID, copy: ItemCopy, version: VersionFacts, row_id: str | None, now: datetime
) -> None:
    same = {"content_id": copy.id, "sha256": version.sha256}
    ContentVersion.objects.filter(**same).update(zerodb_row_id=row_id)
    if row_id is not None:
        return
    SpooledDocument.objects.filter(**same).delete()
    SpooledDocument.objects.create(
        tenant_id=tenant_id,
        content_id=copy.id,
        version=version.version,
        sha256=version.sha256,
        document=documents.compress(copy.texts[version.sha256]),
        next_attempt_at=now,
    )
