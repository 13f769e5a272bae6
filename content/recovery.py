"""The way back: items, versions and documents from a copy of them, under the same ids, versions, checksums, times and authors.

Many at a time, of any tenants, inside a system scope in which `silence` was called. What is newer here is left alone, so a repeat
changes nothing. Documents go to ZeroDB through the spool, where the uploader looks for each before it stores it.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from django.db import connection
from django.db.models import Q
from django.utils.dateparse import parse_datetime

from content import documents, operations, queries, search, writing
from content.documents import FoundDocument
from content.facts import VersionFacts
from content.models import Change, ChangeType, ContentItem, ContentVersion, IndexedBrand, SpooledDocument
from content.operations import Written
from content.stores.base import MEDIA, DocumentKey, DocumentStore
from content.stores.base import VERSIONS as VERSIONS_COLLECTION
from content.writing import Draft
from engarde.accounts import queries as account_queries
from engarde.common import wake
from engarde.common.problems import Problem
from engarde.common.scopes import tenant_scope
from quotas import charging

UPLOADER = "content.upload_documents"
CARRIER = "content.carry_records"
DRAFTS_AT_ONCE = 100
TURNED_BACK = (
    "brand_id",
    "campaign_space_id",
    "title",
    "content_type",
    "status",
    "version",
    "size_bytes",
    "sha256",
    "scheduled_at",
    "updated_at",
    "deleted_at",
)
# What PostgreSQL knows of tables that fill just now is out of date, and it would read all of them for every piece that comes
# back. So it is kept from that, and statements look other rows up by subqueries, which it cannot turn into joins.
SILENCE = "SELECT set_config('engarde.restoring', %s, true), set_config('enable_seqscan', 'off', true)"
ITEMS = """
INSERT INTO content_storage_metadata AS item (
    id, tenant_id, brand_id, campaign_space_id, author_id, title, content_type, status, version, size_bytes, sha256,
    scheduled_at, created_at, updated_at, deleted_at)
SELECT * FROM unnest(
    %s::uuid[], %s::uuid[], %s::uuid[], %s::uuid[], %s::uuid[], %s::text[], %s::text[], %s::text[], %s::int[],
    %s::int[], %s::bytea[], %s::timestamptz[], %s::timestamptz[], %s::timestamptz[], %s::timestamptz[])
ON CONFLICT (id) DO UPDATE SET
    brand_id = excluded.brand_id, campaign_space_id = excluded.campaign_space_id, author_id = excluded.author_id,
    title = excluded.title, content_type = excluded.content_type, status = excluded.status, version = excluded.version,
    size_bytes = excluded.size_bytes, sha256 = excluded.sha256, scheduled_at = excluded.scheduled_at,
    updated_at = excluded.updated_at, deleted_at = excluded.deleted_at
WHERE item.version < excluded.version AND item.tenant_id = excluded.tenant_id
RETURNING id, xmax = 0"""
# A version takes over where ZeroDB has the document if another version of the item has the same.
VERSIONS = """
INSERT INTO content_versions AS version (
    tenant_id, content_id, version, size_bytes, sha256, change_type, changed_by, changed_fields, created_at,
    backed_up_at, zerodb_row_id)
SELECT copy.tenant_id, id, number, copy.size_bytes, copy.sha256, copy.change_type, copy.changed_by,
       ARRAY(SELECT jsonb_array_elements_text(fields)), copy.created_at, %(now)s,
       (SELECT same.zerodb_row_id FROM content_versions AS same
        WHERE same.content_id = id AND same.sha256 = copy.sha256 AND same.zerodb_row_id IS NOT NULL LIMIT 1)
FROM unnest(%(tenants)s::uuid[], %(ids)s::uuid[], %(versions)s::int[], %(sizes)s::int[], %(hashes)s::bytea[],
            %(kinds)s::text[], %(authors)s::uuid[], %(fields)s::jsonb[], %(times)s::timestamptz[])
     AS copy (tenant_id, id, number, size_bytes, sha256, change_type, changed_by, fields, created_at)
WHERE (SELECT item.version FROM content_storage_metadata AS item
       WHERE item.id = copy.id AND item.tenant_id = copy.tenant_id) >= copy.number
ON CONFLICT (content_id, version) DO NOTHING
RETURNING content_id, version.version"""
SPOOL = """
INSERT INTO content_body_spool (content_id, version, tenant_id, sha256, document, attempts, next_attempt_at, last_error)
SELECT copy.id, copy.number, made.tenant_id, made.sha256, copy.document, 1, now(), ''
FROM unnest(%s::uuid[], %s::int[], %s::bytea[]) AS copy (id, number, document)
CROSS JOIN LATERAL (
    SELECT tenant_id, sha256, zerodb_row_id FROM content_versions
    WHERE content_id = copy.id AND version = copy.number LIMIT 1) AS made
WHERE made.zerodb_row_id IS NULL AND 0 = (
    SELECT count(*) FROM content_body_spool AS same WHERE same.content_id = copy.id AND same.sha256 = made.sha256)
ON CONFLICT (content_id, version) DO NOTHING"""
LABELS = """
INSERT INTO {table} (tenant_id, name, content_id) SELECT * FROM unnest(%s::uuid[], %s::text[], %s::uuid[])
ON CONFLICT DO NOTHING"""
MEDIA_USES = """
INSERT INTO content_media_uses (tenant_id, content_id, media_id)
SELECT used.tenant_id, used.content_id, used.media_id
FROM unnest(%s::uuid[], %s::uuid[], %s::uuid[]) AS used (tenant_id, content_id, media_id)
JOIN content_media AS media ON media.id = used.media_id AND media.tenant_id = used.tenant_id
ON CONFLICT DO NOTHING"""
LOG = """
INSERT INTO content_changes (xid, tenant_id, entity_type, entity_id, version, op, sha256, changed_at)
SELECT pg_current_xact_id()::text::bigint, made.tenant_id, 'content', made.content_id, made.version,
       CASE WHEN made.change_type = 'delete' THEN 'D' WHEN made.version = 1 THEN 'I' ELSE 'U' END, made.sha256, now()
FROM content_versions AS made JOIN unnest(%s::uuid[], %s::int[]) AS copy (id, number)
  ON made.content_id = copy.id AND made.version = copy.number"""
LOST = """
WITH lost (content_id, sha256, document) AS (SELECT * FROM unnest(%s::uuid[], %s::bytea[], %s::bytea[])),
same AS MATERIALIZED (
    SELECT version.content_id, version.version, version.tenant_id, version.sha256, lost.document
    FROM content_versions AS version JOIN lost USING (content_id, sha256)
    ORDER BY version.content_id, version.version FOR UPDATE OF version
), forgotten AS (
    UPDATE content_versions AS version SET zerodb_row_id = NULL FROM same
    WHERE version.content_id = same.content_id AND version.version = same.version AND zerodb_row_id IS NOT NULL
)
INSERT INTO content_body_spool (content_id, version, tenant_id, sha256, document, attempts, next_attempt_at, last_error)
SELECT DISTINCT ON (content_id, sha256) content_id, version, tenant_id, sha256, document, 1, now(), '' FROM same
ORDER BY content_id, sha256, version
ON CONFLICT (content_id, version) DO UPDATE
SET document = excluded.document, uploaded_at = NULL, attempts = greatest(content_body_spool.attempts, 1),
    next_attempt_at = now(), last_error = ''"""
# What ZeroDB is told of versions and media files, as far as it lacks it, between two keys of a scan.
RECORDS = {
    VERSIONS_COLLECTION: """
INSERT INTO content_record_spool (collection, key, tenant_id, record, attempts)
SELECT 'content_versions', name.key, tenant_id, content_version_record(made), 1
FROM content_versions AS made, LATERAL (SELECT (content_id || ':' || version) COLLATE "C") AS name (key)
WHERE tenant_id = %(tenant)s AND version > 1
  AND content_id BETWEEN %(first)s AND %(last)s AND name.key > %(after)s AND name.key <= %(upto)s
  AND name.key != ALL(%(there)s)
ON CONFLICT (collection, key) DO NOTHING""",
    MEDIA: """
INSERT INTO content_record_spool (collection, key, tenant_id, record, attempts)
SELECT 'content_media_files', media.id::text, media.tenant_id, content_media_record(media), 1
FROM content_media AS media
WHERE media.tenant_id = %(tenant)s AND media.id BETWEEN %(first)s AND %(last)s
  AND media.id::text COLLATE "C" > %(after)s AND media.id::text COLLATE "C" <= %(upto)s
  AND media.id::text != ALL(%(there)s)
ON CONFLICT (collection, key) DO NOTHING""",
}
BEHIND_ALL = "g"  # behind every key, which begins with a hexadecimal digit
LOWEST, HIGHEST = UUID(int=0), UUID(int=2**128 - 1)


@dataclass(frozen=True, slots=True)
class Copy:
    """A version as a copy has it.

    Attributes:
        text: the document's canonical text, whose checksum holds.
        is_current: whether it is the item's latest in the copy.
        highest: the highest version of the item that was ever known.
    """

    tenant_id: UUID
    facts: VersionFacts
    text: str
    is_current: bool
    highest: int

    @property
    def id(self) -> UUID:
        """The item's id."""
        return self.facts.content_id

    @property
    def is_trashed(self) -> bool:
        """Whether the item was in the trash with this version."""
        return self.facts.change_type == ChangeType.DELETE

    @property
    def fields(self) -> dict[str, Any]:
        """The document's fields."""
        found: dict[str, Any] = orjson.loads(self.text)
        return found


class BrandGone(Problem):
    """The brand of an item that is to come back is not there any more."""

    status, code, title = 409, "brand_gone", "Brand gone"


@dataclass(slots=True)
class Recovered:
    """What a recovery changed, or would change.

    Attributes:
        items: ids of the items that came back or got on.
        versions: (item, version) that came back.
        newer: items that are newer here than in the copy, and were left alone.
        failures: why an item could not be brought back, by its id.
    """

    items: set[UUID] = field(default_factory=set)
    versions: list[tuple[UUID, int]] = field(default_factory=list)
    newer: set[UUID] = field(default_factory=set)
    failures: dict[UUID, str] = field(default_factory=dict)


def silence(*, aloud: bool = False) -> None:
    """Inside a scope, let the transaction through the door that a restore closes for others.

    Args:
        aloud: have the change log told all the same: what comes back from an earlier time is news to the backup.
    """
    with connection.cursor() as cursor:
        cursor.execute(SILENCE, ["aloud" if aloud else "on"])


def recover_items(
    *,
    copies: Sequence[Copy],
    brands: Collection[UUID],
    since: datetime,
    now: datetime,
    aloud: bool,
    dry_run: bool,
) -> Recovered:
    """Bring back items that PostgreSQL lacks, and those that are older here, each with its current version.

    Args:
        brands: those that are there, of all the tenants of these copies.
        since: what was removed for good after that, or is not known to the backup, stays away.
    """
    done = Recovered()
    here = _rows_of([copy.id for copy in copies])
    removed = set() if aloud else gone(entity_ids=[copy.id for copy in copies], since=since)
    wanted: list[tuple[Copy, dict[str, Any]]] = []
    for copy in sorted(copies, key=lambda copy: copy.id):
        row = here.get(copy.id)
        if (copy.id, 0) in removed:
            continue
        if row is not None and (aloud or row.version >= copy.facts.version):
            if row.version > copy.facts.version:
                done.newer.add(copy.id)
            continue
        fields = copy.fields
        if problem := _obstacle(copy, fields, brands):
            done.failures[copy.id] = problem
            continue
        wanted.append((copy, fields))
    done.items = {copy.id for copy, _ in wanted}
    if dry_run or not wanted:
        return done
    _put_items(wanted, known=here.keys())
    _put_versions([copy for copy, _ in wanted], now)
    done.versions = [(copy.id, copy.facts.version) for copy, _ in wanted]
    return done


def _rows_of(content_ids: Sequence[UUID]) -> dict[UUID, ContentItem]:
    locked = ContentItem.objects.select_for_update().filter(id__in=content_ids).order_by("id")
    return {row.id: row for row in locked.only("id", "tenant_id", "version", "sha256", "deleted_at")}


def gone(*, entity_ids: Sequence[UUID], since: datetime) -> set[tuple[UUID, int]]:
    """Inside a scope, return what was removed for good and may not be known to a snapshot: (entity, version), version 0 for all of it.

    Args:
        since: when the snapshot was made, or before.
    """
    lines = Change.objects.filter(entity_id__in=entity_ids, op__in=(Change.Op.PURGE, Change.Op.THIN))
    unknown = lines.filter(Q(acked_at=None) | Q(acked_at__gte=since)).values_list("entity_id", "version", "op")
    return {(entity_id, version if op == Change.Op.THIN else 0) for entity_id, version, op in unknown}


def _obstacle(copy: Copy, fields: Mapping[str, Any], brands: Collection[UUID]) -> str:
    return "" if UUID(fields["brand_id"]) in brands else f"its brand {fields['brand_id']} is gone"


def _put_items(wanted: Sequence[tuple[Copy, dict[str, Any]]], known: Collection[UUID]) -> None:
    rows = [_row(copy, fields) for copy, fields in wanted]
    again = [copy.id for copy, _ in wanted if copy.id in known]
    with connection.cursor() as cursor:
        cursor.execute(ITEMS, list(map(list, zip(*rows, strict=True))))
        for table, name in (("content_tags", "tags"), ("content_platforms", "platforms")):
            if again:
                cursor.execute(f"DELETE FROM {table} WHERE content_id = ANY(%s)", [again])  # noqa: S608 -- our own names
            labels = [(copy.tenant_id, label, copy.id) for copy, fields in wanted for label in fields.get(name, ())]
            if labels:
                cursor.execute(LABELS.format(table=table), list(map(list, zip(*labels, strict=True))))
        if again:
            cursor.execute("DELETE FROM content_media_uses WHERE content_id = ANY(%s)", [again])
            cursor.execute("DELETE FROM content_search WHERE content_id = ANY(%s)", [again])
        uses = [
            (copy.tenant_id, copy.id, media_id)
            for copy, fields in wanted
            if not copy.is_trashed
            for media_id in fields.get("media", ())
        ]
        if uses:
            cursor.execute(MEDIA_USES, list(map(list, zip(*uses, strict=True))))


def _row(copy: Copy, fields: Mapping[str, Any]) -> tuple[Any, ...]:
    facts, scheduled_at = copy.facts, fields.get("scheduled_at")
    return (
        copy.id,
        copy.tenant_id,
        fields["brand_id"],
        fields.get("campaign_space_id"),
        facts.author_id,
        fields["title"],
        fields["type"],
        fields["status"],
        facts.version,
        facts.size_bytes,
        facts.sha256,
        parse_datetime(scheduled_at) if scheduled_at else None,
        facts.item_created_at,
        facts.created_at,
        facts.created_at if copy.is_trashed else None,
    )


def recover_versions(
    *, copies: Sequence[Copy], since: datetime, now: datetime, aloud: bool, dry_run: bool
) -> Recovered:
    """Bring back versions that items lack which are there, and are not older than the version; see `recover_items`."""
    done = Recovered()
    removed = set() if aloud else gone(entity_ids=list({copy.id for copy in copies}), since=since)
    missing = [copy for copy in _missing_versions(copies) if (copy.id, copy.facts.version) not in removed]
    done.items = {copy.id for copy in missing}
    if dry_run or not missing:
        return done
    done.versions = _put_versions(missing, now)
    if aloud and done.versions:
        with connection.cursor() as cursor:
            cursor.execute(LOG, list(map(list, zip(*done.versions, strict=True))))
    return done


def _missing_versions(copies: Sequence[Copy]) -> list[Copy]:
    ids = list({copy.id for copy in copies})
    items = dict(ContentItem.objects.filter(id__in=ids).values_list("id", "version"))
    there = set(ContentVersion.objects.filter(content_id__in=ids).values_list("content_id", "version"))
    return [
        copy
        for copy in copies
        if items.get(copy.id, 0) >= copy.facts.version and (copy.id, copy.facts.version) not in there
    ]


def _put_versions(copies: Sequence[Copy], now: datetime) -> list[tuple[UUID, int]]:
    """Insert versions and spool their documents; return those that were not there."""
    ordered = sorted(copies, key=lambda copy: (copy.id, copy.facts.version))
    values: dict[str, Any] = {
        "now": now,
        "tenants": [copy.tenant_id for copy in ordered],
        "ids": [copy.id for copy in ordered],
        "versions": [copy.facts.version for copy in ordered],
        "sizes": [copy.facts.size_bytes for copy in ordered],
        "hashes": [copy.facts.sha256 for copy in ordered],
        "kinds": [copy.facts.change_type for copy in ordered],
        "authors": [copy.facts.changed_by for copy in ordered],
        "fields": [orjson.dumps(list(copy.facts.changed_fields)).decode() for copy in ordered],
        "times": [copy.facts.created_at for copy in ordered],
    }
    with connection.cursor() as cursor:
        cursor.execute(VERSIONS, values)
        made: set[tuple[UUID, int]] = set(cursor.fetchall())
        new = _each_document_once([copy for copy in ordered if (copy.id, copy.facts.version) in made])
        if new:
            ids, numbers = [copy.id for copy in new], [copy.facts.version for copy in new]
            cursor.execute(SPOOL, [ids, numbers, [documents.compress(copy.text) for copy in new]])
    return sorted(made)


def _each_document_once(copies: Sequence[Copy]) -> list[Copy]:
    return list({(copy.id, copy.facts.sha256): copy for copy in reversed(copies)}.values())


# Documents


def stored_keys(*, copies: Sequence[Copy]) -> dict[DocumentKey, str]:
    """Inside a scope, return where ZeroDB is said to have the documents of these copies' versions that are here.

    What the spool still has to send is left out.
    """
    ids = list({copy.id for copy in copies})
    waiting = SpooledDocument.objects.filter(content_id__in=ids, uploaded_at=None)
    pending = {documents.key_of(*row) for row in waiting.values_list("content_id", "sha256")}
    rows = ContentVersion.objects.filter(content_id__in=ids).values_list("content_id", "sha256", "zerodb_row_id")
    known = {documents.key_of(content_id, sha256): row_id or "" for content_id, sha256, row_id in rows}
    wanted = {documents.key_of(copy.id, copy.facts.sha256) for copy in copies}
    return {key: known[key] for key in wanted & known.keys() - pending}


def recover_documents(*, texts: Mapping[DocumentKey, str]) -> None:
    """Have documents that ZeroDB lost stored there anew."""
    columns: list[list[Any]] = [
        [key.content_id for key in texts],
        [bytes.fromhex(key.sha256) for key in texts],
        [documents.compress(text) for text in texts.values()],
    ]
    with connection.cursor() as cursor:
        cursor.execute(LOST, columns)
    wake.after_commit(UPLOADER)


def recover_records(*, store: DocumentStore, tenant_id: UUID) -> int:
    """Have ZeroDB told anew of a tenant's versions and media files of which it has no record; return how many.

    Call it outside a scope: it reads ZeroDB's collections, page by page.

    Raises:
        StoreUnavailable, StoreRejected: ZeroDB does not say what it has.
    """
    told = 0
    for collection, statement in RECORDS.items():
        after: str | None = ""
        while after is not None:
            page = store.scan(collection, after=after, tenant_id=tenant_id)
            names: dict[str, Any] = {"after": after, "upto": page.next_after or BEHIND_ALL, "tenant": tenant_id}
            bounds = {"first": _id_of(after) or LOWEST, "last": _id_of(page.next_after) or HIGHEST}
            with tenant_scope(tenant_id), connection.cursor() as cursor:
                cursor.execute(statement, {**names, **bounds, "there": [row.key for row in page.rows if row.intact]})
                told += cursor.rowcount
            after = page.next_after
    if told:
        wake.after_commit(CARRIER)
    return told


def _id_of(key: str | None) -> UUID | None:
    try:
        return UUID((key or "").partition(":")[0])
    except ValueError:
        return None


def forget_indexed(*, tenant_ids: Collection[UUID]) -> None:
    """Have the items of these tenants that no search finds indexed by the next sweep."""
    IndexedBrand.objects.filter(tenant_id__in=tenant_ids).delete()


# Back in time


def turn_back(
    *, tenant_id: UUID, copies: Sequence[Copy], languages: Mapping[UUID, str], now: datetime, dry_run: bool
) -> set[UUID]:
    """Inside a tenant's scope, make a new version of every item that is not what its copy says; return their ids.

    The new version is above the highest that was ever known, so that no number is used twice.

    Args:
        languages: what brands' texts are indexed in, by brand.
    """
    here = _rows_of([copy.id for copy in copies])
    drafts = []
    for copy in sorted(copies, key=lambda copy: copy.id):
        row = here.get(copy.id)
        if row is not None and differs(row, copy):
            language = languages.get(UUID(copy.fields["brand_id"]), search.PLAIN)
            drafts.append(_turned_back(row, copy, language, now))
    for chunk in range(0, len(drafts) if not dry_run else 0, DRAFTS_AT_ONCE):
        writing.write(
            tenant_id=tenant_id,
            author_id=None,
            drafts=drafts[chunk : chunk + DRAFTS_AT_ONCE],
            columns=TURNED_BACK,
            now=now,
        )
    return {draft.row.id for draft in drafts}


def differs(row: ContentItem, copy: Copy) -> bool:
    """Tell whether an item is not what a copy says, or goes by a number that the future has used."""
    is_other = bytes(row.sha256) != copy.facts.sha256 or bool(row.deleted_at) != copy.is_trashed
    return is_other or copy.highest > row.version


def _turned_back(row: ContentItem | None, copy: Copy, language: str, now: datetime) -> Draft:
    fields = copy.fields
    scheduled_at = fields.get("scheduled_at")
    new = ContentItem(
        id=copy.id,
        tenant_id=copy.tenant_id,
        brand_id=UUID(fields["brand_id"]),
        campaign_space_id=fields.get("campaign_space_id"),
        author_id=copy.facts.author_id,
        title=fields["title"],
        content_type=fields["type"],
        status=fields["status"],
        version=max(row.version if row else 0, copy.highest) + 1,
        size_bytes=copy.facts.size_bytes,
        sha256=copy.facts.sha256,
        scheduled_at=parse_datetime(scheduled_at) if scheduled_at else None,
        created_at=copy.facts.item_created_at,
        updated_at=now,
        deleted_at=now if copy.is_trashed else None,
    )
    document = FoundDocument(copy.text, "backup")
    # Media files that are gone are left out, as they would be if the item had had them all the time.
    before = queries.make_item(new, None, None, document)
    kind = ChangeType.DELETE if copy.is_trashed else ChangeType.RESTORE
    return Draft(new, kind, before, document, language, changed=tuple(fields))


def bring_back(*, copy: Copy, author_id: UUID | None, now: datetime) -> Written:
    """Make one item, live, trashed or purged, what a copy says, as a new version; it is charged like any write.

    Raises:
        BrandGone: its brand is not there any more.
        ContentExists: it was purged, and somebody else brought it back in this moment.
        StorageQuotaExceeded: it does not fit.
    """
    with operations.named_conflicts(), tenant_scope(copy.tenant_id):
        row = ContentItem.objects.select_for_update().filter(id=copy.id).first()
        languages = account_queries.brand_languages(tenant_id=copy.tenant_id)
        brand_id = UUID(copy.fields["brand_id"])
        if brand_id not in languages:
            raise BrandGone(
                f"Its brand {brand_id} is not there any more; make an item with its text under another one."
            )
        if row is not None and not differs(row, copy):
            item = queries.make_item(row, None, None, FoundDocument(copy.text, "backup"))
            return Written(item, charging.charge(tenant_id=copy.tenant_id, now=now))
        draft = _turned_back(row, copy, search.language_of(languages[brand_id]), now)
        columns = TURNED_BACK if row else ()
        [item] = writing.write(tenant_id=copy.tenant_id, author_id=author_id, drafts=[draft], columns=columns, now=now)
        before = [operations.sized(row)] if row and not row.deleted_at else []
        after = [operations.sized(item)] if not item.deleted_at else []
        usage = charging.charge(tenant_id=copy.tenant_id, now=now, added=after, removed=before)
    return Written(item, usage)


def trash(*, tenant_id: UUID, content_ids: Sequence[UUID], now: datetime) -> int:
    """Inside a tenant's scope, move live items to the trash; return how many."""
    locked = queries.lock(tenant_id=tenant_id, content_ids=list(content_ids))
    drafts = [operations.trash_draft(item, now=now, deleted_at=now) for item in locked.values() if not item.deleted_at]
    writing.write(tenant_id=tenant_id, author_id=None, drafts=drafts, columns=operations.TRASHED, now=now)
    return len(drafts)
