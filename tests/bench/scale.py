"""Tenants of any size: rows as the platform makes them, by SQL, since a million requests would take an hour."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.db import connection
from django.utils import timezone

from content import documents
from content.models import ContentItem, SpooledDocument
from content.operations import EMPTY_FIELDS
from engarde.common.scopes import system_scope, tenant_scope

BATCH = 50_000
# Ids are ordered by time, as UUIDv7 are; one tag in a hundred is rare, words repeat as words do.
ITEMS = """
WITH item AS (
    INSERT INTO content_storage_metadata (id, tenant_id, brand_id, author_id, title, content_type, status, version,
                                          size_bytes, sha256, created_at, updated_at)
    SELECT (lpad(to_hex((extract(epoch FROM made) * 1000)::bigint), 12, '0') || '7' || substr(md5(n::text), 1, 3)
            || '8' || substr(md5(n::text || 'x'), 1, 15))::uuid,
           %(tenant)s, %(brand)s, %(brand)s, 'Summer campaign ' || n, 'post',
           (ARRAY['draft', 'published', 'archived'])[1 + n %% 3], 1, %(size)s, %(sha256)s, made, made
    FROM generate_series(%(first)s, %(last)s) AS n, LATERAL (SELECT now() - n * interval '1 second' AS made) AS time
    RETURNING id, created_at, title
), version AS (
    INSERT INTO content_versions (tenant_id, content_id, version, size_bytes, sha256, change_type, changed_fields, created_at)
    SELECT %(tenant)s, id, 1, %(size)s, %(sha256)s, 'create', '{}', created_at FROM item
), tag AS (
    INSERT INTO content_tags (tenant_id, name, content_id)
    SELECT %(tenant)s, 'week-' || (hashtext(id::text) & 127), id FROM item WHERE %(labels)s
)
INSERT INTO content_search (content_id, tenant_id, language, words)
SELECT id, %(tenant)s, 'english',
       content_words('english', title, 'Running shoes, word' || (hashtext(id::text) & 1023) || ' for the summer')
FROM item WHERE %(labels)s"""
TRIGGERED = ("content_storage_metadata", "content_versions")


def fill(
    tenant_id: UUID, brand_id: UUID, *, items: int, labels: bool = False, progress: Callable[[int], object] = bool
) -> None:
    """Give a tenant so many items, with tags and search entries if wanted; no line in the change log tells of them."""
    text, sha256 = documents.encode(
        {**EMPTY_FIELDS, "brand_id": brand_id, "title": "Summer campaign", "body": "x" * 500}
    )
    values: dict[str, Any] = {"tenant": tenant_id, "brand": brand_id, "size": 500, "sha256": sha256, "labels": labels}
    for first in range(1, items + 1, BATCH):
        last = min(first + BATCH - 1, items)
        with system_scope("fill a table"), connection.cursor() as cursor:
            _switch_triggers(cursor, "DISABLE")
            cursor.execute(ITEMS, {**values, "first": first, "last": last})
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            _switch_triggers(cursor, "ENABLE")
        progress(last - first + 1)
    with tenant_scope(tenant_id), connection.cursor() as cursor:
        cursor.execute(
            "UPDATE content_quota_usage SET content_items = content_items + %s, used_bytes = used_bytes + %s "
            "WHERE tenant_id = %s",
            [items, items * 500, tenant_id],
        )
    _spool_pages(tenant_id, text, sha256, items)


def _switch_triggers(cursor: object, how: str) -> None:
    for table in TRIGGERED:
        cursor.execute(f"ALTER TABLE {table} {how} TRIGGER USER")  # type: ignore[attr-defined]


def _spool_pages(tenant_id: UUID, text: str, sha256: bytes, items: int) -> None:
    """Spool the documents of the first page and of one in the middle, which are going to be read."""
    with tenant_scope(tenant_id):
        newest = ContentItem.objects.filter(tenant_id=tenant_id).order_by("-created_at", "-id")
        ids = [*newest.values_list("id", flat=True)[:40]]
        ids += [*newest.values_list("id", flat=True)[items // 2 : items // 2 + 60]]
        SpooledDocument.objects.bulk_create(
            [
                SpooledDocument(
                    tenant_id=tenant_id,
                    content_id=one,
                    version=1,
                    sha256=sha256,
                    document=documents.compress(text),
                    next_attempt_at=timezone.now(),
                )
                for one in dict.fromkeys(ids)
            ],
            ignore_conflicts=True,
        )


def analyze() -> None:
    """Have the planner know the tables, and VACUUM set what index scans go by."""
    with connection.cursor() as cursor:
        for table in ("content_storage_metadata", "content_versions", "content_tags", "content_search"):
            cursor.execute(f"VACUUM (ANALYZE) {table}")
