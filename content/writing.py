"""Writing versions inside a transaction: for one item or for many, always in the same few statements.

The callers decide what the next version is, and charge the quota last.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import connection

from content import documents, search
from content.documents import FoundDocument
from content.items import Item
from content.models import ContentItem, ContentVersion, Media, MediaUse, Platform, SpooledDocument, Tag
from content.queries import make_item
from content.search import Entry
from engarde.common import wake
from engarde.common.problems import Invalid

CARRIERS = ("content.upload_documents", "content.carry_records", "content.send_webhooks", "dr.sync")
LABELS = ((Tag, "tags"), (Platform, "platforms"))
SEARCHED = frozenset({"title", "body", "brand_id"})
THIN = """
DELETE FROM content_versions AS version USING unnest(%s::uuid[], %s::int[]) AS item (id, oldest)
WHERE version.content_id = item.id AND version.version < item.oldest"""


@dataclass(frozen=True, slots=True)
class Draft:
    """A version that is about to be written.

    Attributes:
        row: the item's row as it shall be.
        document: the new one; None when the version keeps the document of the one before.
        language: what the brand's texts are indexed in.
        before: the version before; None for a new item.
        changed: names of the fields that differ from it.
    """

    row: ContentItem
    change_type: str
    before: Item | None = None
    document: FoundDocument | None = None
    language: str = search.PLAIN
    changed: Sequence[str] = ()

    @property
    def fields(self) -> dict[str, Any]:
        """The new document's fields, empty without one."""
        return self.document.fields if self.document else {}

    @property
    def zerodb_row_id(self) -> str | None:
        """Where ZeroDB has the document, when it is the one before's."""
        return self.before.in_zerodb if self.before and self.document is None else None

    def changes(self, name: str) -> bool:
        """Tell whether a list field is another than before."""
        return name in self.changed if self.before else bool(self.fields.get(name))


def write(
    *, tenant_id: UUID, author_id: UUID | None, drafts: Sequence[Draft], columns: Sequence[str], now: datetime
) -> list[Item]:
    """Inside the tenant's scope, with existing items' rows locked, write versions and return them as items.

    Args:
        columns: of the items' rows to update; none for new items.

    Raises:
        Invalid: a media file is not the tenant's.
    """
    if not drafts:
        return []
    _write_rows([draft.row for draft in drafts], columns)
    versions = ContentVersion.objects.bulk_create([_version(draft, author_id, now) for draft in drafts])
    _spool(drafts, now)
    _thin([draft.row for draft in drafts])
    for model, name in LABELS:
        _write_labels(model, name, drafts)
    _write_media_uses(tenant_id, [draft for draft in drafts if draft.changes("media")])
    search.put(
        tenant_id=tenant_id,
        entries=[_entry(draft) for draft in drafts if draft.document and SEARCHED & set(draft.changed)],
    )
    for task in CARRIERS:
        wake.after_commit(task)
    return [_item(draft, version) for draft, version in zip(drafts, versions, strict=True)]


def columns_of(fields: Mapping[str, Any], sha256: bytes) -> dict[str, Any]:
    """Return the columns of an item that repeat what is in its document."""
    return {
        "brand_id": fields["brand_id"],
        "campaign_space_id": fields["campaign_space_id"],
        "title": fields["title"],
        "content_type": fields["type"],
        "status": fields["status"],
        "size_bytes": len(fields["body"].encode()),
        "sha256": sha256,
        "scheduled_at": fields["scheduled_at"],
    }


def _write_rows(rows: Sequence[ContentItem], columns: Sequence[str]) -> None:
    if not columns:
        ContentItem.objects.bulk_create(rows)
    elif len(rows) == 1:
        ContentItem.objects.filter(id=rows[0].id).update(**{name: getattr(rows[0], name) for name in columns})
    else:
        ContentItem.objects.bulk_update(rows, columns)


def _version(draft: Draft, author_id: UUID | None, now: datetime) -> ContentVersion:
    row = draft.row
    return ContentVersion(
        tenant_id=row.tenant_id,
        content_id=row.id,
        version=row.version,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        change_type=draft.change_type,
        changed_by=author_id,
        changed_fields=list(draft.changed) if draft.before else [],
        created_at=now,
        zerodb_row_id=draft.zerodb_row_id,
    )


def _spool(drafts: Sequence[Draft], now: datetime) -> None:
    SpooledDocument.objects.bulk_create(
        [
            SpooledDocument(
                tenant_id=draft.row.tenant_id,
                content_id=draft.row.id,
                version=draft.row.version,
                sha256=draft.row.sha256,
                document=documents.compress(draft.document.text),
                next_attempt_at=now,
            )
            for draft in drafts
            if draft.document
        ]
    )


def _thin(rows: Sequence[ContentItem]) -> None:
    """Drop an item's oldest versions above CONTENT_MAX_VERSIONS; a trigger sees to their documents."""
    kept = settings.CONTENT_MAX_VERSIONS
    full = [row for row in rows if row.version > kept]
    if full:
        with connection.cursor() as cursor:
            cursor.execute(THIN, [[row.id for row in full], [row.version - kept + 1 for row in full]])


def _write_labels(model: Any, name: str, drafts: Sequence[Draft]) -> None:
    changed = [draft for draft in drafts if draft.changes(name)]
    known = [draft.row.id for draft in changed if draft.before]
    if known:
        model.objects.filter(content_id__in=known).delete()
    model.objects.bulk_create(
        [
            model(tenant_id=draft.row.tenant_id, name=label, content_id=draft.row.id)
            for draft in changed
            for label in dict.fromkeys(draft.fields[name])
        ]
    )


def _write_media_uses(tenant_id: UUID, drafts: Sequence[Draft]) -> None:
    if not drafts:
        return
    wanted = {draft.row.id: {UUID(str(one)) for one in draft.fields["media"]} for draft in drafts}
    require_media(tenant_id=tenant_id, media_ids=set().union(*wanted.values()))
    MediaUse.objects.filter(content_id__in=[draft.row.id for draft in drafts if draft.before]).delete()
    MediaUse.objects.bulk_create(
        [
            MediaUse(tenant_id=tenant_id, content_id=content_id, media_id=media_id)
            for content_id, media_ids in wanted.items()
            for media_id in media_ids
        ]
    )


def require_media(*, tenant_id: UUID, media_ids: set[UUID]) -> None:
    """Inside the tenant's scope, check that it has these media files.

    Raises:
        Invalid: it lacks one.
    """
    missing = media_ids - existing_media(tenant_id=tenant_id, media_ids=media_ids)
    if missing:
        raise Invalid("media", f"There is no media file {min(missing)}.", "unknown_media")


def existing_media(*, tenant_id: UUID, media_ids: set[UUID]) -> set[UUID]:
    """Inside the tenant's scope, return those of these media files that it has."""
    if not media_ids:
        return set()
    return set(Media.objects.filter(tenant_id=tenant_id, id__in=media_ids).values_list("id", flat=True))


def _entry(draft: Draft) -> Entry:
    return Entry(draft.row.id, draft.language, draft.fields["title"], draft.fields["body"])


def _item(draft: Draft, version: ContentVersion) -> Item:
    document = draft.document or (draft.before.document if draft.before else None)
    return make_item(draft.row, version.zerodb_row_id, None, document)
