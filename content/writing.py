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
from content.models import ContentItem, Media, MediaUse, Platform, Tag
from content.queries import make_item
from content.search import Entry
from engarde.common import wake
from engarde.common.problems import Invalid

CARRIERS = ("content.upload_documents", "content.carry_records", "content.send_webhooks", "dr.sync")
LABELS = ((Tag, "tags"), (Platform, "platforms"))
SEARCHED = frozenset({"title", "body", "brand_id"})
INSERT = f"""
WITH version AS (
    INSERT INTO content_versions (tenant_id, content_id, version, size_bytes, sha256, change_type, changed_by,
                                  changed_fields, created_at, zerodb_row_id)
    SELECT %(tenant)s, id, number, size_bytes, sha256, change_type, author, string_to_array(changed, ','), made_at, row_id
    FROM unnest(%(ids)s::uuid[], %(versions)s::int[], %(sizes)s::int[], %(hashes)s::bytea[], %(kinds)s::text[],
                %(authors)s::uuid[], %(changed)s::text[], %(times)s::timestamptz[], %(row_ids)s::text[])
         AS draft (id, number, size_bytes, sha256, change_type, author, changed, made_at, row_id)
), document AS (
    INSERT INTO content_body_spool (tenant_id, content_id, version, sha256, document, attempts, next_attempt_at, last_error)
    SELECT %(tenant)s, id, number, sha256, document, 0, %(now)s, ''
    FROM unnest(%(spooled_ids)s::uuid[], %(spooled_versions)s::int[], %(spooled_hashes)s::bytea[], %(documents)s::bytea[])
         AS draft (id, number, sha256, document)
), tag AS (
    INSERT INTO content_tags (tenant_id, name, content_id)
    SELECT %(tenant)s, name, id FROM unnest(%(tags)s::text[], %(tags_ids)s::uuid[]) AS label (name, id)
), platform AS (
    INSERT INTO content_platforms (tenant_id, name, content_id)
    SELECT %(tenant)s, name, id FROM unnest(%(platforms)s::text[], %(platforms_ids)s::uuid[]) AS label (name, id)
)
{search.PUT}"""  # noqa: S608 -- our own text
THIN = """
WITH surplus AS MATERIALIZED (
    SELECT version.content_id, version.version FROM content_versions AS version
    JOIN unnest(%s::uuid[], %s::int[]) AS item (id, oldest)
      ON version.content_id = item.id AND version.version < item.oldest
    ORDER BY version.content_id, version.version FOR UPDATE OF version
)
DELETE FROM content_versions AS version USING surplus
WHERE version.content_id = surplus.content_id AND version.version = surplus.version"""


@dataclass(frozen=True, slots=True)
class Draft:
    """A version that is about to be written.

    Attributes:
        row: the item's row as it shall be.
        document: the new one; None when the version keeps the document of the one before.
        language: what the brand's texts are indexed in.
        before: the version before; None for a new item.
        changed: names of the fields that differ from it.
        author_id: who made it, where that is not who writes: of what was made elsewhere.
    """

    row: ContentItem
    change_type: str
    before: Item | None = None
    document: FoundDocument | None = None
    language: str = search.PLAIN
    changed: Sequence[str] = ()
    author_id: UUID | None = None

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
    for model, name in LABELS:
        _drop_labels(model, name, drafts)
    _insert(tenant_id, author_id, drafts, now)
    _thin([draft.row for draft in drafts])
    _write_media_uses(tenant_id, [draft for draft in drafts if draft.changes("media")])
    for task in CARRIERS:
        wake.after_commit(task)
    return [_item(draft) for draft in drafts]


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


def _insert(tenant_id: UUID, author_id: UUID | None, drafts: Sequence[Draft], now: datetime) -> None:
    """Insert versions with their documents, labels and search entries, in one statement: it is in every write's way."""
    rows, spooled = [draft.row for draft in drafts], [draft for draft in drafts if draft.document]
    entries = [_entry(draft) for draft in spooled if SEARCHED & set(draft.changed)]
    values: dict[str, Any] = {
        "tenant": tenant_id,
        "authors": [draft.author_id or author_id for draft in drafts],
        "times": [row.updated_at for row in rows],
        "now": now,
        "ids": [row.id for row in rows],
        "versions": [row.version for row in rows],
        "sizes": [row.size_bytes for row in rows],
        "hashes": [row.sha256 for row in rows],
        "kinds": [str(draft.change_type) for draft in drafts],
        "changed": [",".join(draft.changed) if draft.before else "" for draft in drafts],
        "row_ids": [draft.zerodb_row_id for draft in drafts],
        "spooled_ids": [draft.row.id for draft in spooled],
        "spooled_versions": [draft.row.version for draft in spooled],
        "spooled_hashes": [draft.row.sha256 for draft in spooled],
        "documents": [documents.compress(draft.document.text) for draft in spooled if draft.document],
        **search.columns(entries),
    }
    for _, name in LABELS:
        pairs = [(draft.row.id, label) for draft in drafts if draft.changes(name) for label in _distinct(draft, name)]
        values |= {f"{name}_ids": [one for one, _ in pairs], name: [label for _, label in pairs]}
    with connection.cursor() as cursor:
        cursor.execute(INSERT, values)


def _distinct(draft: Draft, name: str) -> list[str]:
    return list(dict.fromkeys(draft.fields[name]))


def _thin(rows: Sequence[ContentItem]) -> None:
    """Drop an item's oldest versions above CONTENT_MAX_VERSIONS; a trigger sees to their documents."""
    kept = settings.CONTENT_MAX_VERSIONS
    full = [row for row in rows if row.version > kept]
    if full:
        with connection.cursor() as cursor:
            cursor.execute(THIN, [[row.id for row in full], [row.version - kept + 1 for row in full]])


def _drop_labels(model: type[Tag | Platform], name: str, drafts: Sequence[Draft]) -> None:
    known = [draft.row.id for draft in drafts if draft.before and draft.changes(name)]
    if known:
        model.objects.filter(content_id__in=known).delete()


def insert_labels(model: type[Tag | Platform], *, tenant_id: UUID, labels: Mapping[UUID, Sequence[str]]) -> None:
    """Inside the tenant's scope, insert the labels of items, each once."""
    rows: Any = [
        model(tenant_id=tenant_id, name=label, content_id=content_id)
        for content_id, names in labels.items()
        for label in dict.fromkeys(names)
    ]
    model.objects.bulk_create(rows)


def _write_media_uses(tenant_id: UUID, drafts: Sequence[Draft]) -> None:
    if not drafts:
        return
    wanted = {draft.row.id: {UUID(one) for one in draft.fields["media"]} for draft in drafts}
    there = existing_media(tenant_id=tenant_id, media_ids=set().union(*wanted.values()))
    for draft in drafts:
        # What an item had before may have been deleted while it was in the trash; that must not stand in its way.
        had = {UUID(one) for one in draft.before.fields.get("media", [])} if draft.before else set()
        if missing := wanted[draft.row.id] - there - had:
            raise Invalid("media", f"There is no media file {min(missing)}.", "unknown_media")
    MediaUse.objects.filter(content_id__in=[draft.row.id for draft in drafts if draft.before]).delete()
    MediaUse.objects.bulk_create(
        [
            MediaUse(tenant_id=tenant_id, content_id=content_id, media_id=media_id)
            for content_id, media_ids in wanted.items()
            for media_id in media_ids & there
        ]
    )


def existing_media(*, tenant_id: UUID, media_ids: set[UUID]) -> set[UUID]:
    """Inside the tenant's scope, return those of these media files that it has."""
    if not media_ids:
        return set()
    return set(Media.objects.filter(tenant_id=tenant_id, id__in=media_ids).values_list("id", flat=True))


def _entry(draft: Draft) -> Entry:
    return Entry(draft.row.id, draft.language, draft.fields["title"], draft.fields["body"])


def _item(draft: Draft) -> Item:
    document = draft.document or (draft.before.document if draft.before else None)
    return make_item(draft.row, draft.zerodb_row_id, None, document)
