"""What PostgreSQL has, in the form in which the archive keeps it: rows and their sums, by tenant, entity type and day."""

from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import Q

from content import facts
from content.models import Change, ContentItem
from dr.archives.base import CONTENT, GroupSum
from dr.verification.faults import PLATFORM
from engarde.common.constraints import BackedUp, backed_up_tables
from engarde.common.scopes import system_scope, tenant_scope

PAGE_ROWS = 2000
NO_ID = UUID(int=0)

ROWS = """
SELECT engarde_entity_id(kept, '{key}') AS entity_id, 0 AS version,
       encode(sha256(convert_to(kept::text, 'UTF8')), 'hex') AS sha256, kept::text AS facts,
       NULL::date AS day, is_comparable
FROM (
    SELECT to_jsonb(source) - string_to_array('{left_out}', ',') AS kept, ({comparable}) AS is_comparable
    FROM {table} AS source WHERE {condition}
) AS kept_rows"""
# The lanes as `dr.records.mark_of` and `lanes_of` have them.
SUMS = """
SELECT day, count(*), sum(lane1), sum(lane2), sum(lane3)
FROM (
    SELECT day, ('x' || substr(mark, 1, 10))::bit(40)::bigint AS lane1,
           ('x' || substr(mark, 11, 10))::bit(40)::bigint AS lane2,
           ('x' || substr(mark, 21, 10))::bit(40)::bigint AS lane3
    FROM (
        SELECT day, encode(sha256(convert_to(
            concat_ws('|', %(tenant)s::text, %(entity_type)s::text, entity_id, version, sha256, facts), 'UTF8')), 'hex') AS mark
        FROM ({source}) AS copied WHERE is_comparable
    ) AS marked
) AS lanes
GROUP BY day ORDER BY day"""
PAGE = """
SELECT entity_id, version, sha256, facts, is_comparable FROM ({source}) AS copied
WHERE (entity_id, version) > (%(id)s, %(version)s) ORDER BY entity_id, version LIMIT %(limit)s"""
OF_KEYS = """
SELECT entity_id, version, sha256, facts, is_comparable FROM ({source}) AS copied
WHERE (entity_id, version) IN (SELECT * FROM unnest(%(ids)s::uuid[], %(versions)s::int[]))"""


@dataclass(frozen=True, slots=True)
class Row:
    """A version of an item, or a row of another type.

    Attributes:
        is_comparable: false while its copy need not equal it, such as of a job that runs.
    """

    entity_id: UUID
    version: int
    sha256: str
    facts: str
    is_comparable: bool

    @property
    def key(self) -> tuple[UUID, int]:
        """What it is ordered by."""
        return self.entity_id, self.version


def entity_types(tenant_id: UUID) -> list[str]:
    """Return the types of what a tenant, or the platform, has."""
    is_platform = tenant_id == PLATFORM
    types = [name for name, (_, kept) in backed_up_tables().items() if (not kept.tenant) == is_platform]
    return types if is_platform else [CONTENT, *types]


def scope_of(tenant_id: UUID) -> AbstractContextManager[None]:
    """Return the scope in which the rows of a tenant, or of the platform, are seen as they are at one moment."""
    if tenant_id == PLATFORM:
        return system_scope("verify the backup of the platform's own rows")
    return tenant_scope(tenant_id, one_moment=True)


def source_of(entity_type: str, *, day: date | None = None) -> str:
    """Return the query for a tenant's rows of a type (parameter `tenant`), of content those of a day (`day`) if one is given.

    Raises:
        LookupError: no table has rows of this type.
    """
    if entity_type == CONTENT:
        return facts.COPIED_ON_DAY if day else facts.COPIED
    found = backed_up_tables().get(entity_type)
    if found is None:
        raise LookupError(f"no table is backed up as {entity_type!r}")
    model, kept = found
    return ROWS.format(
        key=",".join(kept.key),
        left_out=",".join(kept.left_out),
        comparable=kept.comparable or "true",
        table=connection.ops.quote_name(model._meta.db_table),
        condition=_condition(kept),
    )


def _condition(kept: BackedUp) -> str:
    if not kept.tenant:
        return "true"
    return f"source.{connection.ops.quote_name(kept.tenant)} = %(tenant)s"


def sums(*, tenant_id: UUID) -> list[GroupSum]:
    """Return the sums of what a tenant, or the platform, has."""
    with scope_of(tenant_id):
        return [group for entity_type in entity_types(tenant_id) for group in _sums(tenant_id, entity_type)]


def _sums(tenant_id: UUID, entity_type: str) -> list[GroupSum]:
    statement = SUMS.format(source=source_of(entity_type))
    with connection.cursor() as cursor:
        cursor.execute(statement, {"tenant": tenant_id, "entity_type": entity_type})
        return [
            GroupSum(tenant_id, entity_type, day, rows, (int(one), int(two), int(three)), 0)
            for day, rows, one, two, three in cursor.fetchall()
        ]


def rows_of(*, tenant_id: UUID, entity_type: str, day: date | None) -> Iterator[Row]:
    """Yield the rows of a type, of content those of a day, by entity and version; no scope is open between two of them."""
    if entity_type not in entity_types(tenant_id) or (entity_type == CONTENT and day is None):
        return
    place: tuple[UUID, int] | None = NO_ID, -1
    while place is not None:
        page = _page(tenant_id, entity_type, day, place)
        yield from page
        place = page[-1].key if len(page) == PAGE_ROWS else None


def _page(tenant_id: UUID, entity_type: str, day: date | None, after: tuple[UUID, int]) -> list[Row]:
    values = {"tenant": tenant_id, "day": day, "id": after[0], "version": after[1], "limit": PAGE_ROWS}
    with scope_of(tenant_id):
        return _fetch(PAGE.format(source=source_of(entity_type, day=day)), values)


def rows_by_key(
    *, tenant_id: UUID, entity_type: str, keys: Collection[tuple[UUID, int]]
) -> dict[tuple[UUID, int], Row]:
    """Inside a scope, return those of some rows that are there, whatever their day."""
    if entity_type not in entity_types(tenant_id) or not keys:
        return {}
    values = {
        "tenant": tenant_id,
        "ids": [entity_id for entity_id, _ in keys],
        "versions": [version for _, version in keys],
    }
    return {row.key: row for row in _fetch(OF_KEYS.format(source=source_of(entity_type)), values)}


def _fetch(statement: str, values: dict[str, Any]) -> list[Row]:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return [Row(*columns) for columns in cursor.fetchall()]


def items_there(*, tenant_id: UUID, content_ids: Collection[UUID]) -> set[UUID]:
    """Inside a scope, return those of some items that are there."""
    rows = ContentItem.objects.filter(tenant_id=tenant_id, id__in=content_ids)
    return set(rows.values_list("id", flat=True))


def count_items(*, tenant_id: UUID) -> int:
    """Return how many items a tenant has."""
    with scope_of(tenant_id):
        return ContentItem.objects.filter(tenant_id=tenant_id).count()


def on_their_way(*, tenant_id: UUID, entity_type: str, entity_ids: Collection[UUID], since: datetime) -> set[UUID]:
    """Inside a scope, return the entities of which a change is not backed up, or was not yet at a time."""
    lines = Change.objects.filter(Q(acked_at=None) | Q(acked_at__gte=since), tenant_id=tenant_id)
    lines = lines.filter(entity_type=entity_type, entity_id__in=entity_ids)
    return set(lines.values_list("entity_id", flat=True))
