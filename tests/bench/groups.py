"""The groups of rows, in the order of the table."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from django.utils import timezone

from quotas import operations as quota_operations
from quotas.operations import NewTenant
from tests.bench import (
    backup_apart,
    backup_items,
    backup_load,
    backup_rows,
    generation_rows,
    growth,
    http_rows,
    legacy_rows,
    quota_rows,
    scale_rows,
)
from tests.bench.growth import Curve
from tests.bench.measure import Row
from tests.bench.server import carriers, serving
from tests.providers import Provider as Stranger

Group = Callable[[], Iterable[Row]]
ONCE = ("backup-memory", "backup-scenarios", "large")  # tens of minutes each; what they tell are sizes and losses


def all_groups(items: int, backed_up: int = 20_000, *, full: bool = False) -> dict[str, Group]:
    """Return every group by name.

    Args:
        items: of the large tenant.
        backed_up: items that are migrated, backed up, restored and drilled with.
        full: measure memory at the size that is promised, too.
    """
    return {
        "http": http,
        "quota": quota,
        "generation": generation,
        "migration": partial(migration, backed_up),
        "backup": partial(backup, backed_up),
        "backup-memory": partial(backup_memory, backed_up, full=full),
        "backup-load": backup_load_rows,
        "backup-scenarios": partial(backup_apart.scenarios, backed_up),
        "large": partial(large, items),
    }


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


def quota() -> Iterator[Row]:
    """Measure what the quota costs, with the carriers paused."""
    yield from quota_rows.statements(new_tenant().api_key)
    with serving() as stranger:
        client = stranger.with_key(new_tenant().api_key)
        our_id = client.call("POST", "/api/content", http_rows.item(1))["id"]
        yield from quota_rows.check(client, our_id)
        keys = [new_tenant().api_key for _ in range(quota_rows.CLIENTS)]
        yield from quota_rows.one_tenant_or_many(stranger, keys)


def generation() -> Iterator[Row]:
    """Measure jobs by two workers, at a provider of our own that takes its time."""
    with Stranger() as stranger, generation_rows.reaching(stranger.url), generation_rows.workers(stranger.url):
        tenant = new_tenant()
        yield from generation_rows.batches(stranger, tenant)
        yield from generation_rows.limited(stranger, tenant)


def migration(items: int) -> Iterator[Row]:
    """Measure bringing old items over."""
    yield from legacy_rows.migration(items)
    yield from legacy_rows.memory(items)


def backup(items: int) -> Iterator[Row]:
    """Measure backup and restore of a tenant against bare loops."""
    new = new_tenant()
    backup_items.write(new, items)
    yield from backup_rows.backup(new, items)
    yield from backup_rows.restores(new, items)
    backup_items.take_away(new.tenant.id)
    backup_items.forget_backup(new.tenant.id, wait=False)


def backup_memory(items: int, *, full: bool) -> Iterator[Row]:
    """Measure the memory of restores, of which the last has twice as many items, or as many as is promised."""
    yield from backup_apart.memory(new_tenant, (items // 2, backup_apart.LARGE if full else items))


def backup_load_rows() -> Iterator[Row]:
    """Measure writes through the server while a worker backs them up, or cannot."""
    carry()
    with serving() as stranger:
        yield from backup_load.rows(stranger, new_tenant(), new_tenant())


def growth_curves() -> list[Curve]:
    """Measure how requests fare with more items, tenants and clients."""
    with serving() as stranger:
        return growth.curves(stranger, new_tenant)


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
