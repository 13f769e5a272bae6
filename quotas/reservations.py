"""Reservations: bytes and generated items that are held for work under way, and given back when it ends or dies.

Locks are taken in the order usage, reservation, month. A reservation that has expired is swept every minute, and before
anything is refused because of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import structlog
from django.db import DatabaseError, connection
from django.db.models import F, Sum
from django.db.models.functions import Now

from engarde.common.problems import Problem
from engarde.common.scopes import system_scope, tenant_scope
from quotas import months, refusals
from quotas.models import QuotaUsage, Reservation

log = structlog.get_logger(__name__)

LONGEST = timedelta(days=7)
HOLD = """
UPDATE content_quota_usage AS usage
SET reserved_bytes = reserved_bytes + %(bytes)s, counted_on = %(today)s, updated_at = now()
FROM quotas_plan AS plan
WHERE usage.tenant_id = %(tenant)s AND plan.tier = usage.plan_id
  AND (%(bytes)s <= 0
       OR coalesce(storage_limit_override, storage_limit_bytes) IS NULL
       OR used_bytes + reserved_bytes + %(bytes)s <= coalesce(storage_limit_override, storage_limit_bytes))"""


class AlreadyReserved(Problem):
    """The holder has a reservation already."""

    status, code, title = 409, "already_reserved", "Already reserved"


@dataclass(frozen=True, slots=True)
class Held:
    """What a reservation gave for something that is stored.

    Attributes:
        month: the month that the items were reserved in; None without a reservation.
    """

    bytes: int = 0
    items: int = 0
    month: date | None = None


def lock_usage(*, tenant_id: UUID) -> None:
    """Inside the tenant's scope, keep its counters as they are until the transaction ends."""
    QuotaUsage.objects.select_for_update().get(tenant_id=tenant_id)


def reserve(
    *, tenant_id: UUID, reservation_id: UUID, size_bytes: int = 0, items: int = 0, expires_at: datetime, now: datetime
) -> Reservation:
    """Inside the tenant's scope, hold bytes and generated items until they are settled, released or expire.

    Args:
        reservation_id: the holder's own id, which also finds the reservation again.
        size_bytes: 0 or more.
        items: generated items of the tenant's month, 0 or more.
        expires_at: at most a week from now; `extend` it while the work goes on.

    Raises:
        StorageQuotaExceeded, GenerationQuotaExceeded: it does not fit; nothing is held.
        AlreadyReserved: the holder has a reservation.
        ValueError: a negative amount, or an expiry that is over or too far away.
    """
    if size_bytes < 0 or items < 0 or not now < expires_at <= now + LONGEST:
        raise ValueError("a reservation holds 0 or more, for at most a week")
    if not _hold(tenant_id, size_bytes, now) and not (
        release_expired(tenant_id=tenant_id, now=now) and _hold(tenant_id, size_bytes, now)
    ):
        raise refusals.storage(tenant_id=tenant_id, size_bytes=size_bytes)
    if items and not count_items(tenant_id=tenant_id, reserved=items, now=now):
        raise refusals.generation(tenant_id=tenant_id, items=items, size_bytes=size_bytes, now=now)
    row, is_new = Reservation.objects.get_or_create(
        id=reservation_id,
        defaults={
            "tenant_id": tenant_id,
            "bytes": size_bytes,
            "items": items,
            "month": months.current(tenant_id=tenant_id, now=now),
            "created_at": now,
            "expires_at": expires_at,
        },
    )
    if not is_new:
        raise AlreadyReserved("There is a reservation under this id; release it first.")
    return row


def _hold(tenant_id: UUID, size_bytes: int, now: datetime) -> bool:
    """Count bytes as reserved if they fit; locks the usage then."""
    with connection.cursor() as cursor:
        values: Mapping[str, Any] = {"tenant": tenant_id, "bytes": size_bytes, "today": now.astimezone(UTC).date()}
        cursor.execute(HOLD, values)
        return bool(cursor.rowcount)


def count_items(*, tenant_id: UUID, now: datetime, generated: int = 0, reserved: int = 0) -> bool:
    """Inside the tenant's scope, with the usage locked, count items in this month; False when that would be too many.

    What expired reservations hold does not stand in the way.
    """
    month = months.current(tenant_id=tenant_id, now=now)
    count = partial(months.count, tenant_id=tenant_id, month=month, generated=generated, reserved=reserved)
    return count() or (release_expired(tenant_id=tenant_id, now=now) > 0 and count())


def extend(*, tenant_id: UUID, reservation_id: UUID, expires_at: datetime) -> bool:
    """Inside the tenant's scope, hold for longer; False when the reservation is gone."""
    lock_usage(tenant_id=tenant_id)
    return bool(Reservation.objects.filter(tenant_id=tenant_id, id=reservation_id).update(expires_at=expires_at))


def draw(*, tenant_id: UUID, reservation_id: UUID, size_bytes: int, items: int, now: datetime) -> Held:
    """Inside the tenant's scope, with the usage locked, take from a reservation what it still has, at most so much.

    The caller counts it in `used` and takes it off `reserved`. One that expired gives nothing.
    """
    rows = Reservation.objects.select_for_update().filter(tenant_id=tenant_id, id=reservation_id, expires_at__gt=now)
    row = rows.first()
    if row is None:
        return Held()
    held = Held(min(row.bytes, max(0, size_bytes)), min(row.items, items), row.month)
    row.bytes -= held.bytes
    row.items -= held.items
    row.save(update_fields=["bytes", "items"])
    return held


def release(*, tenant_id: UUID, reservation_id: UUID) -> bool:
    """Inside the tenant's scope, give back what a reservation still holds; False when it is gone already."""
    lock_usage(tenant_id=tenant_id)
    return bool(_give_back(tenant_id, Reservation.objects.filter(id=reservation_id).values_list("id", flat=True)))


def release_expired(*, tenant_id: UUID, now: datetime) -> int:
    """Inside the tenant's scope, give back what expired reservations hold, and return how many there were."""
    expired = Reservation.objects.filter(tenant_id=tenant_id, expires_at__lte=now)
    if not expired.exists():
        return 0
    lock_usage(tenant_id=tenant_id)
    return _give_back(tenant_id, expired.values_list("id", flat=True))


def _give_back(tenant_id: UUID, ids: Any) -> int:
    rows = list(Reservation.objects.select_for_update().filter(tenant_id=tenant_id, id__in=list(ids)).order_by("id"))
    if not rows:
        return 0
    Reservation.objects.filter(id__in=[row.id for row in rows]).delete()
    freed = sum(row.bytes for row in rows)
    QuotaUsage.objects.filter(tenant_id=tenant_id).update(reserved_bytes=F("reserved_bytes") - freed, updated_at=Now())
    for row in rows:
        if row.items:
            months.count(tenant_id=tenant_id, month=row.month, reserved=-row.items)
    return len(rows)


def sweep(*, now: datetime) -> int:
    """Give back what expired reservations of all tenants hold, and return how many there were."""
    with system_scope("find expired reservations"):
        tenants = list(
            Reservation.objects.filter(expires_at__lte=now)
            .order_by("tenant_id")
            .values_list("tenant_id", flat=True)
            .distinct()
        )
    count = 0
    for tenant_id in tenants:
        try:
            with tenant_scope(tenant_id):
                count += release_expired(tenant_id=tenant_id, now=now)
        except DatabaseError:
            log.exception("a tenant's expired reservations were not given back", tenant_id=str(tenant_id))
    if count:
        log.warning("reservations expired: whoever held them died or took too long", count=count)
    return count


def held_by_tenant(*, tenant_id: UUID) -> tuple[int, dict[date, int]]:
    """Inside the tenant's scope, return the bytes that its reservations hold, and their items by month."""
    rows = Reservation.objects.filter(tenant_id=tenant_id)
    size: int = rows.aggregate(total=Sum("bytes", default=0))["total"]
    return size, dict(rows.filter(items__gt=0).order_by().values_list("month").annotate(total=Sum("items")))
