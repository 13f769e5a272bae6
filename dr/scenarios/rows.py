"""Fingerprints of rows as PostgreSQL has them: ids, versions, checksums, times, authors, people, keys and quotas."""

from collections.abc import Collection, Iterator
from datetime import datetime
from uuid import UUID

from django.db import connection

from content.models import ContentVersion
from dr.scenarios.book import Differences, chunks
from engarde.common.constraints import BackedUp, backed_up_tables
from engarde.common.scopes import system_scope, tenant_scope

Fingerprints = dict[tuple[str, str], bytes]
Versions = dict[tuple[UUID, int], bytes]

FETCH = 2000
# What carriers and counters change by themselves says nothing about what was written.
CONTENT = """
SELECT 'content', item.id::text, sha256(convert_to(concat(
    to_jsonb(item),
    (SELECT jsonb_agg(to_jsonb(one) - 'zerodb_row_id' - 'backed_up_at' ORDER BY one.version)
     FROM content_versions AS one WHERE one.content_id = item.id),
    (SELECT jsonb_agg(tag.name ORDER BY tag.name) FROM content_tags AS tag WHERE tag.content_id = item.id),
    (SELECT jsonb_agg(platform.name ORDER BY platform.name)
     FROM content_platforms AS platform WHERE platform.content_id = item.id),
    (SELECT jsonb_agg(used.media_id ORDER BY used.media_id)
     FROM content_media_uses AS used WHERE used.content_id = item.id)
), 'UTF8'))
FROM content_storage_metadata AS item WHERE %(tenant)s::uuid IS NULL OR item.tenant_id = %(tenant)s"""
VERSIONS = """
SELECT one.content_id, one.version, sha256(convert_to(
    encode(one.sha256, 'hex') || content_version_facts(one, item.author_id, item.created_at), 'UTF8'))
FROM content_versions AS one JOIN content_storage_metadata AS item ON item.id = one.content_id
WHERE one.tenant_id = %(tenant)s
  AND (%(backed_up)s::timestamptz IS NULL OR one.backed_up_at <= %(backed_up)s)"""
COUNTERS = """
SELECT 'usage', usage.tenant_id::text, sha256(convert_to(concat(
    usage.used_bytes, ' ', usage.reserved_bytes, ' ', usage.content_items, ' ', usage.media_files, ' ',
    (SELECT jsonb_agg(jsonb_build_array(part.content_type, part.items, part.bytes) ORDER BY part.content_type)
     FROM content_quota_usage_by_type AS part WHERE part.tenant_id = usage.tenant_id AND part.items > 0)
), 'UTF8'))
FROM content_quota_usage AS usage WHERE %(tenant)s::uuid IS NULL OR usage.tenant_id = %(tenant)s"""
ROWS = """
SELECT '{entity_type}', engarde_entity_id(kept, '{key}')::text, sha256(convert_to(kept::text, 'UTF8'))
FROM (SELECT to_jsonb(source) - string_to_array('{left_out}', ',') AS kept FROM {table} AS source) AS found
WHERE %(tenant)s::uuid IS NULL OR {tenant} = %(tenant)s"""


def fingerprints(*, tenant_id: UUID | None = None) -> Fingerprints:
    """Return a hash of every item with its versions, of every other row that is backed up, and of the counters.

    Args:
        tenant_id: of one tenant, without what belongs to the platform; None for all.
    """
    return {(kind, name): digest[:16] for kind, name, digest in _rows(tenant_id)}


def _rows(tenant_id: UUID | None) -> Iterator[tuple[str, str, bytes]]:
    with system_scope("take fingerprints"), connection.cursor() as cursor:
        cursor.execute("SET LOCAL timezone = 'UTC'")
        for statement in (CONTENT, COUNTERS, *_statements()):
            cursor.execute(statement, {"tenant": tenant_id})
            while rows := cursor.fetchmany(FETCH):
                yield from ((kind, name, bytes(digest)) for kind, name, digest in rows)


def _statements() -> Iterator[str]:
    for entity_type, (model, constraint) in backed_up_tables().items():
        yield ROWS.format(
            entity_type=entity_type,
            key=",".join(constraint.key),
            left_out=",".join(constraint.left_out),
            table=connection.ops.quote_name(model._meta.db_table),
            tenant=_tenant(constraint),
        )


def _tenant(constraint: BackedUp) -> str:
    return f"(kept ->> '{constraint.tenant}')::uuid" if constraint.tenant else "NULL"


def compare(*, before: Fingerprints, after: Fingerprints, into: Differences) -> None:
    """Note which rows are gone, changed or new."""
    for name, digest in before.items():
        if name not in after:
            into.lose(*name, "the row is gone")
        elif after[name] != digest:
            into.mismatch(*name, "the row differs")
    for name in after.keys() - before.keys():
        into.mismatch(*name, "the row was not there before")


def versions(*, tenant_id: UUID, backed_up: datetime | None = None) -> Versions:
    """Return a hash of the document's checksum and the facts of each version of a tenant's.

    Args:
        backed_up: only those that the backup had acknowledged by then.
    """
    found: Versions = {}
    with tenant_scope(tenant_id), connection.cursor() as cursor:
        cursor.execute(VERSIONS, {"tenant": tenant_id, "backed_up": backed_up})
        while rows := cursor.fetchmany(FETCH):
            found |= {(content_id, version): bytes(digest)[:16] for content_id, version, digest in rows}
    return found


def still_there(*, tenant_id: UUID, versions: Collection[tuple[UUID, int]]) -> set[tuple[UUID, int]]:
    """Return which of some versions of a tenant's are there."""
    found: set[tuple[UUID, int]] = set()
    for chunk in chunks(versions):
        with tenant_scope(tenant_id):
            known = ContentVersion.objects.filter(content_id__in={content_id for content_id, _ in chunk})
            found |= set(known.values_list("content_id", "version"))
    return found & set(versions)
