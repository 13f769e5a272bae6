"""Charges: exact under any concurrency because one conditional UPDATE decides, last in the transaction that stores."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.db import connection

from engarde.common.scopes import tenant_scope
from quotas import alerts, months, queries, refusals, reservations
from quotas.refusals import GenerationQuotaExceeded, StorageQuotaExceeded
from quotas.reservations import Held, lock_usage
from quotas.usage import Count, Sized, Usage, difference, total

__all__ = [
    "Count",
    "GenerationQuotaExceeded",
    "StorageQuotaExceeded",
    "charge",
    "lock_usage",
    "over_limit",
    "require_room",
]

CHARGE = """
UPDATE content_quota_usage AS usage
SET used_bytes = used_bytes + %(bytes)s, reserved_bytes = reserved_bytes - %(held)s,
    content_items = content_items + %(items)s, media_files = media_files + %(media_files)s,
    counted_on = %(today)s, updated_at = now()
FROM quotas_plan AS plan
WHERE usage.tenant_id = %(tenant)s AND plan.tier = usage.plan_id
  AND (%(bytes)s - %(held)s <= 0
       OR coalesce(storage_limit_override, storage_limit_bytes) IS NULL
       OR used_bytes + reserved_bytes + %(bytes)s - %(held)s <= coalesce(storage_limit_override, storage_limit_bytes))
RETURNING plan.tier, used_bytes, reserved_bytes, coalesce(storage_limit_override, storage_limit_bytes),
          content_items, media_files, usage.updated_at, disarmed_thresholds"""
# What shrinks is updated and what grows inserted or updated, apart: PostgreSQL checks that an inserted row has no
# negative numbers before it finds out that the row is there and is updated instead.
GROW = """
INSERT INTO content_quota_usage_by_type AS known (tenant_id, content_type, items, bytes)
SELECT %(tenant)s, change.* FROM unnest(%(grown)s::text[], %(grown_items)s::bigint[], %(grown_bytes)s::bigint[]) AS change, charged
ON CONFLICT (tenant_id, content_type)
DO UPDATE SET items = known.items + excluded.items, bytes = known.bytes + excluded.bytes"""
SHRINK = """
UPDATE content_quota_usage_by_type AS known
SET items = known.items + change.items, bytes = known.bytes + change.bytes
FROM unnest(%(shrunk)s::text[], %(shrunk_items)s::bigint[], %(shrunk_bytes)s::bigint[]) AS change (type, items, bytes), charged
WHERE known.tenant_id = %(tenant)s AND known.content_type = change.type"""


def charge(
    *,
    tenant_id: UUID,
    now: datetime,
    added: Iterable[Sized] = (),
    removed: Iterable[Sized] = (),
    media: Count = Count(),  # noqa: B008 -- it is immutable
    reservation_id: UUID | None = None,
    generated: int = 0,
) -> Usage:
    """Count what a transaction stores and removes, and return the usage after it.

    Call it last in the tenant's scope: the row lock is then held for microseconds. A charge that adds no bytes is never
    refused for them. Crossing a threshold is noted in the same transaction.

    Args:
        added: content type and size in bytes of each item that is live after it.
        removed: the same of each item as it was live before.
        media: media files that come, or below zero go.
        reservation_id: take from this reservation as much as it holds.
        generated: how many of the items the platform generated.

    Raises:
        StorageQuotaExceeded: used + reserved would be over the limit.
        GenerationQuotaExceeded: the month's generated items would be over the limit.
    """
    items = difference(added=added, removed=removed)
    stored, size = total(items.values()), total(items.values()).size_bytes + media.size_bytes
    held = _draw(tenant_id, reservation_id, size, generated, now) if reservation_id or generated else Held()
    values = {
        "tenant": tenant_id,
        "bytes": size,
        "held": held.bytes,
        "items": stored.number,
        "media_files": media.number,
        "today": now.astimezone(UTC).date(),
    }
    row = _update(values, items)
    if row is None and reservations.release_expired(tenant_id=tenant_id, now=now):
        row = _update(values, items)
    if row is None:
        raise refusals.storage(tenant_id=tenant_id, size_bytes=size)
    *counters, disarmed = row
    usage = Usage(*counters)
    alerts.note(tenant_id=tenant_id, usage=usage, disarmed=disarmed, now=now)
    return usage


def _update(values: Mapping[str, Any], items: Mapping[str, Count]) -> tuple[Any, ...] | None:
    """Charge, and with it what changes a type; of the statement's parts only those that are needed, as planning costs time."""
    shrunk = {name: change for name, change in items.items() if change.number < 0 or change.size_bytes < 0}
    grown = {name: change for name, change in items.items() if name not in shrunk}
    parts = [f"charged AS ({CHARGE})"]
    parts += [f"grown AS ({GROW})"] if grown else []
    parts += [f"shrunk AS ({SHRINK})"] if shrunk else []
    with connection.cursor() as cursor:
        every = {**values, **_columns("grown", grown), **_columns("shrunk", shrunk)}
        cursor.execute(f"WITH {', '.join(parts)} SELECT * FROM charged", every)  # noqa: S608 -- our own text
        row: tuple[Any, ...] | None = cursor.fetchone()
        return row


def _columns(name: str, changes: Mapping[str, Count]) -> dict[str, Any]:
    return {
        name: list(changes),
        f"{name}_items": [change.number for change in changes.values()],
        f"{name}_bytes": [change.size_bytes for change in changes.values()],
    }


def _draw(tenant_id: UUID, reservation_id: UUID | None, size: int, generated: int, now: datetime) -> Held:
    """Take from a reservation, and count generated items: those it held in its month, the others in this one."""
    lock_usage(tenant_id=tenant_id)
    held = Held()
    if reservation_id:
        held = reservations.draw(
            tenant_id=tenant_id, reservation_id=reservation_id, size_bytes=size, items=generated, now=now
        )
    if held.items and held.month:
        months.count(tenant_id=tenant_id, month=held.month, generated=held.items, reserved=-held.items)
    beyond = generated - held.items
    if beyond and not reservations.count_items(tenant_id=tenant_id, generated=beyond, now=now):
        raise refusals.generation(tenant_id=tenant_id, items=generated, size_bytes=size, now=now)
    if generated:
        months.count_day(tenant_id=tenant_id, generated=generated, now=now)
    return held


def over_limit(*, tenant_id: UUID, sizes: Sequence[int], now: datetime) -> set[int]:
    """Inside the tenant's scope, lock its usage and tell which of several writes would not fit, by their position.

    They are taken in order, and one that does not fit leaves its room to those after it.
    """
    lock_usage(tenant_id=tenant_id)
    left = _room(tenant_id, sum(sizes), now)
    refused: set[int] = set()
    for position, size in enumerate(sizes):
        if left is not None and size > left:
            refused.add(position)
        elif left is not None:
            left -= size
    return refused


def require_room(*, tenant_id: UUID, size_bytes: int, now: datetime) -> None:
    """Refuse early what does not fit now; whether it really fits, `charge` decides.

    Raises:
        StorageQuotaExceeded: used + reserved + size_bytes would be over the limit.
    """
    with tenant_scope(tenant_id):
        left = _room(tenant_id, size_bytes, now)
        if left is not None and size_bytes > left:
            raise refusals.storage(tenant_id=tenant_id, size_bytes=size_bytes)


def _room(tenant_id: UUID, wanted: int, now: datetime) -> int | None:
    """Return the bytes that are left, without those that expired reservations hold; None is unlimited."""
    left = queries.usage_in_scope(tenant_id=tenant_id).remaining_bytes
    if left is None or wanted <= left or not reservations.release_expired(tenant_id=tenant_id, now=now):
        return left
    return queries.usage_in_scope(tenant_id=tenant_id).remaining_bytes
