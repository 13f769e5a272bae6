"""The rows about size: pages of a large tenant against a small one's, and what an item costs in PostgreSQL."""

from collections.abc import Iterator
from typing import Any

from django.db import connection

from content.models import ContentItem
from engarde.common.scopes import system_scope, tenant_scope
from quotas.operations import NewTenant
from tests.bench import scale
from tests.bench.measure import Row, side_by_side
from tests.bench.server import Client

SMALL = 1_000
GOAL_BYTES = 100
# PostgreSQL's page layout: a tuple's header of 23 bytes is aligned to 24, a line pointer has 4.
HEADER = 24
LINE_POINTER = 4
COLUMNS = tuple(field.column for field in ContentItem._meta.local_concrete_fields)
WIDTHS = ", ".join(f"round(avg(pg_column_size({column})), 1)" for column in COLUMNS)


def pages(stranger: Client, small: NewTenant, large: NewTenant, items: int) -> Iterator[Row]:
    """Compare pages of a tenant with `items` items to those of one with a thousand."""
    sides = [stranger.with_key(tenant.api_key) for tenant in (large, small)]
    middles = [_cursor_in_the_middle(tenant, size) for tenant, size in ((large, items), (small, SMALL))]
    for name, paths in (
        ("first page", ["/api/content"] * 2),
        ("page in the middle, by cursor", [f"/api/content?cursor={cursor}" for cursor in middles]),
    ):
        calls = [_getter(client, path) for client, path in zip(sides, paths, strict=True)]
        many, few = side_by_side(calls[0], calls[1])
        yield Row(
            f"{name}: {items:,} items vs {SMALL:,}",
            f"{many * 1000:.2f} ms",
            f"{few * 1000:.2f} ms",
            few / many,
            "≥ 0.67 (at most 1.5 times as long)",
        )


def _getter(client: Client, path: str) -> Any:
    return lambda: client.call("GET", path)


def _cursor_in_the_middle(tenant: NewTenant, items: int) -> str:
    from content.lists import Listing
    from engarde.common import cursors

    with tenant_scope(tenant.tenant.id):
        newest = ContentItem.objects.filter(tenant_id=tenant.tenant.id).order_by("-created_at", "-id")
        created_at, one = newest.values_list("created_at", "id")[items // 2]
    return cursors.encode([created_at.isoformat(), one], Listing().digest)


def bytes_per_item() -> Iterator[Row]:
    """Measure the heap of the items' table, which no body is in, and say what each byte is for."""
    with system_scope("measure a table"), connection.cursor() as cursor:
        cursor.execute("SELECT pg_relation_size('content_storage_metadata'), count(*) FROM content_storage_metadata")
        size, count = cursor.fetchone()
        cursor.execute(f"SELECT {WIDTHS} FROM content_storage_metadata TABLESAMPLE SYSTEM (1)")
        widths = {name: width for name, width in zip(COLUMNS, cursor.fetchone(), strict=True) if width}
    columns = float(sum(widths.values()))
    each = size / count
    rest = each - HEADER - LINE_POINTER - columns
    parts = ", ".join(f"{name} {width}" for name, width in widths.items())
    yield Row(
        f"PostgreSQL heap bytes an item ({count:,})",
        f"{each:.0f} B",
        f"{GOAL_BYTES} B",
        GOAL_BYTES / each,
        "≤ 250 B (goal 100)",
        f"header {HEADER}, line pointer {LINE_POINTER}, columns {columns:.0f} ({parts}), alignment and page ends {rest:.0f}",
    )


def filled(items: int, make: Any) -> tuple[NewTenant, NewTenant]:
    """Return a small and a large tenant."""
    small, large = make(), make()
    for tenant, size in ((small, SMALL), (large, items)):
        scale.fill(tenant.tenant.id, tenant.brand.id, items=size)
    scale.analyze()
    return small, large
