"""The backup filled anew from PostgreSQL: for a dataset that was lost, or one that never had it all.

Lines are added to the change log for all that is there; the sync ships them, packed into load jobs. They carry no transaction, so
that nobody takes them for changes that have waited since long ago, and the times of what they tell of, so that restores to
an earlier time find it. What is told twice counts once. Rows are locked while they are told, so that a change that is not committed
yet gets the later number.
"""

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from django.db import connection

from dr import rows
from engarde.accounts import queries as account_queries
from engarde.common import wake
from engarde.common.scopes import system_scope, tenant_scope

LINES_AT_ONCE = 5000
VERSIONS = """
INSERT INTO content_changes (xid, tenant_id, entity_type, entity_id, version, op, sha256, changed_at)
SELECT 0, tenant_id, 'content', content_id, version,
       CASE WHEN change_type = 'delete' THEN 'D' WHEN version = 1 THEN 'I' ELSE 'U' END, sha256, created_at
FROM content_versions WHERE tenant_id = %s AND (content_id, version) > (%s, %s)
ORDER BY content_id, version LIMIT %s FOR SHARE
RETURNING entity_id, version"""
ROWS = """
INSERT INTO content_changes (xid, tenant_id, entity_type, entity_id, version, op, sha256, facts, changed_at)
SELECT 0, {tenant}, '{entity_type}', {entity}, 0, 'I', sha256(convert_to(facts, 'UTF8')), facts, %(now)s
FROM {table} AS kept, LATERAL (SELECT (to_jsonb(kept) - %(left_out)s::text[])::text) AS made (facts)
WHERE {comparable} FOR SHARE OF kept"""
PLATFORM = "'00000000-0000-0000-0000-000000000000'::uuid"


def reseed(*, now: datetime, progress: Callable[[int], object]) -> int:
    """Have all that PostgreSQL has shipped again, and return how many lines were added to the change log.

    Args:
        progress: called with the number of lines since the last call.
    """
    told = 0
    for table in rows.tables().values():
        with system_scope("have rows backed up anew"):
            told += _count(_tell_rows(table, now), progress)
    for tenant_id in account_queries.tenant_ids():
        told += _tell_versions(tenant_id, progress)
    wake.after_commit("dr.sync")
    return told


def _tell_rows(table: rows.Table, now: datetime) -> int:
    rule = table.rule
    statement = ROWS.format(
        tenant=f'kept."{rule.tenant}"' if rule.tenant else PLATFORM,
        entity_type=rule.entity_type,
        entity=table.entity("kept"),
        table=table.name,
        comparable=rule.comparable or "true",
    )
    with connection.cursor() as cursor:
        cursor.execute(statement, {"now": now, "left_out": list(rule.left_out)})
        return int(cursor.rowcount)


def _tell_versions(tenant_id: UUID, progress: Callable[[int], object]) -> int:
    told, last = 0, (UUID(int=0), 0)
    while True:
        with tenant_scope(tenant_id), connection.cursor() as cursor:
            cursor.execute(VERSIONS, [tenant_id, *last, LINES_AT_ONCE])
            lines = cursor.fetchall()
        told += _count(len(lines), progress)
        if len(lines) < LINES_AT_ONCE:
            return told
        last = max(lines)


def _count(count: int, progress: Callable[[int], object]) -> int:
    progress(count)
    return count
