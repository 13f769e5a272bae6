"""The groups of rows, in the order of the table."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from django.utils import timezone

from quotas import operations as quota_operations
from quotas.operations import NewTenant
from tests.bench import http_rows, scale_rows
from tests.bench.measure import Row
from tests.bench.server import carriers, serving

Group = Callable[[], Iterable[Row]]


def all_groups(items: int) -> dict[str, Group]:
    """Return every group by name; `items` is the size of the large tenant."""
    return {"http": http, "large": partial(large, items)}


def large(items: int) -> Iterator[Row]:
    """Measure pages of a large tenant, and what an item costs in PostgreSQL."""
    small, big = scale_rows.filled(items, new_tenant)
    with serving() as stranger:
        yield from scale_rows.pages(stranger, small, big, items)
    yield from scale_rows.bytes_per_item()


def http() -> Iterator[Row]:
    """Measure HTTP with the carriers paused, on items that they carried before."""
    with serving() as stranger:
        client = stranger.with_key(new_tenant().api_key)
        our_id, their_id = http_rows.load(client)
        carry()
        rows = [*http_rows.reads(client, our_id, their_id), http_rows.creates(client)]
        at_once = http_rows.creates_at_once(client)
        with carriers():
            yield from http_rows.beside_carriers(client, our_id, rows)
        yield at_once


def new_tenant() -> NewTenant:
    """Make a tenant without a limit."""
    return quota_operations.create_tenant(
        name="bench",
        tier="enterprise",
        email=f"bench-{timezone.now().timestamp()}@example.com",
        password="a-password-for-benchmarks",
        brand_name="bench",
        storage_limit=None,
        now=timezone.now(),
    )


def carry() -> None:
    """Run both carriers until nothing is left."""
    from content import documents, uploader
    from dr import sync

    store = documents.document_store()
    while store and not uploader.run_pass(store=store, now=timezone.now).is_idle:
        pass
    while sync.run_pass(now=timezone.now).shipped:
        pass
