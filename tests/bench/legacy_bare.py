"""The baselines of the migration: a bare loop that writes the same rows in batches of 100 with executemany, and a plain copy.

The loop reads pages by id, makes the same documents, and writes metadata, version, spool, search, labels and quota; the log is
written by triggers for both. It validates nothing, maps nothing, looks for nothing that is there, compares nothing, keeps no place
to go on from, and breaks off at the first error.
"""

from typing import Any
from uuid import UUID

import orjson
import psycopg
import zstandard
from django.db import connection
from django.utils import timezone

from content import documents
from content.legacy import source
from content.operations import EMPTY_FIELDS
from engarde.common.scopes import system_scope

BATCH = 100
PAGE = """
SELECT id, tenant_id, brand_id, user_id, title, content_body, content_type, status, content_metadata, created_at, updated_at
FROM {schema}.content_items WHERE id > %s ORDER BY id LIMIT %s"""
ITEM = """
INSERT INTO content_storage_metadata (id, tenant_id, brand_id, author_id, title, content_type, status, version, size_bytes,
                                      sha256, created_at, updated_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, 1, %s, %s, %s, %s)"""
VERSION = """
INSERT INTO content_versions (tenant_id, content_id, version, size_bytes, sha256, change_type, changed_by, changed_fields,
                              created_at)
VALUES (%s, %s, 1, %s, %s, 'create', %s, '{}', %s)"""
SPOOL = """
INSERT INTO content_body_spool (tenant_id, content_id, version, sha256, document, attempts, next_attempt_at, last_error)
VALUES (%s, %s, 1, %s, %s, 0, now(), '')"""
SEARCH = """
INSERT INTO content_search (content_id, tenant_id, language, words)
VALUES (%s, %s, 'english', content_words('english', %s, %s))"""
LABEL = "INSERT INTO {table} (tenant_id, name, content_id) VALUES (%s, %s, %s)"
QUOTA = """
UPDATE content_quota_usage SET used_bytes = used_bytes + %s, content_items = content_items + 1, updated_at = now()
WHERE tenant_id = %s"""
BY_TYPE = """
INSERT INTO content_quota_usage_by_type AS known (tenant_id, content_type, items, bytes) VALUES (%s, %s, 1, %s)
ON CONFLICT (tenant_id, content_type) DO UPDATE SET items = known.items + 1, bytes = known.bytes + excluded.bytes"""


def migrate(schema: str) -> int:
    """Write all old items and return how many there were."""
    total, after = 0, ""
    with psycopg.connect(source.own_url(), autocommit=True) as reader:
        while rows := reader.execute(PAGE.format(schema=schema), [after, BATCH]).fetchall():
            _write([_prepared(row) for row in rows])
            total, after = total + len(rows), rows[-1][0]
    return total


def _prepared(row: Any) -> dict[str, Any]:
    old_id, tenant, brand, user, title, body, kind, status, metadata, created_at, updated_at = row
    known = orjson.loads(metadata)
    lists = {name: known.pop(name, []) for name in ("platforms", "tags", "hashtags", "mentions")}
    fields = {
        **EMPTY_FIELDS,
        **lists,
        "title": title,
        "body": body,
        "type": kind,
        "status": status,
        "brand_id": brand,
        "metadata": {**known, "imported_from": "content_items", "legacy_id": old_id},
    }
    text, sha256 = documents.encode(fields)
    return {
        "id": UUID(old_id),
        "tenant": UUID(tenant),
        "brand": UUID(brand),
        "author": UUID(user),
        "title": title,
        "kind": kind,
        "status": status,
        "body": body,
        "size": len(body.encode()),
        "sha256": sha256,
        "kept": zstandard.compress(text.encode(), level=3),
        "created_at": created_at.replace(tzinfo=timezone.get_default_timezone()),
        "updated_at": updated_at.replace(tzinfo=timezone.get_default_timezone()),
        **lists,
    }


def _write(rows: list[dict[str, Any]]) -> None:
    def columns(*names: str) -> list[tuple[Any, ...]]:
        return [tuple(row[name] for name in names) for row in rows]

    with system_scope("bare loop"), connection.cursor() as cursor:
        item = (
            "id",
            "tenant",
            "brand",
            "author",
            "title",
            "kind",
            "status",
            "size",
            "sha256",
            "created_at",
            "updated_at",
        )
        cursor.executemany(ITEM, columns(*item))
        cursor.executemany(VERSION, columns("tenant", "id", "size", "sha256", "author", "updated_at"))
        cursor.executemany(SPOOL, columns("tenant", "id", "sha256", "kept"))
        cursor.executemany(SEARCH, columns("id", "tenant", "title", "body"))
        for table, name in (("content_tags", "tags"), ("content_platforms", "platforms")):
            labels = [(row["tenant"], label, row["id"]) for row in rows for label in dict.fromkeys(row[name])]
            cursor.executemany(LABEL.format(table=table), labels)
        cursor.executemany(QUOTA, columns("size", "tenant"))
        cursor.executemany(BY_TYPE, columns("tenant", "kind", "size"))


def copy(schema: str) -> None:
    """Copy the old table into another one."""
    with connection.cursor() as cursor:
        cursor.execute(f"DROP TABLE IF EXISTS {schema}.copied")
        cursor.execute(f"CREATE TABLE {schema}.copied (LIKE {schema}.content_items INCLUDING ALL)")
        cursor.execute(f"INSERT INTO {schema}.copied SELECT * FROM {schema}.content_items")
