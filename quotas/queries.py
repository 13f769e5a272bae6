"""Reads of plans and usage; `quotas.reports` makes summaries of them."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import Count, Sum

from engarde.common.scopes import tenant_scope
from quotas import usage as values
from quotas.models import AlertDelivery, Plan, QuotaUsage, Reconciliation, Reservation, TypeUsage
from quotas.usage import Usage

USAGE = """
SELECT plan.tier, used_bytes, reserved_bytes, coalesce(storage_limit_override, storage_limit_bytes), content_items,
       media_files, usage.updated_at
FROM content_quota_usage AS usage JOIN quotas_plan AS plan ON plan.tier = usage.plan_id WHERE usage.tenant_id = %s"""
GRACE = timedelta(days=30)


def usage_of(*, tenant_id: UUID) -> Usage:
    """Return a tenant's usage."""
    with tenant_scope(tenant_id):
        return usage_in_scope(tenant_id=tenant_id)


def usage_in_scope(*, tenant_id: UUID) -> Usage:
    """Inside the tenant's scope, return its usage.

    Every answer tells it, so this is the most frequent query of all: plain SQL, which costs a third of the ORM's.
    """
    with connection.cursor() as cursor:
        cursor.execute(USAGE, [tenant_id])
        return Usage(*cursor.fetchone())


def plan_limits() -> dict[str, int | None]:
    """Return every plan's tier and storage limit in bytes, None without one."""
    return dict(Plan.objects.values_list("tier", "storage_limit_bytes"))


def by_type(*, tenant_id: UUID) -> dict[str, values.Count]:
    """Inside the tenant's scope, return its live items by type; types without any are left out."""
    rows = TypeUsage.objects.filter(tenant_id=tenant_id, items__gt=0).order_by("content_type")
    return {name: values.Count(items, size) for name, items, size in rows.values_list("content_type", "items", "bytes")}


def retentions(*, now: datetime) -> dict[UUID, int | None]:
    """Inside a system scope, return for how many days each tenant's removed content is kept; None is for ever.

    A shorter retention takes effect 30 days after the change to it.
    """
    rows = QuotaUsage.objects.select_related("plan").order_by("tenant_id")
    return {row.tenant_id: _retention(row, now) for row in rows}


def _retention(row: QuotaUsage, now: datetime) -> int | None:
    if row.retention_shortened_at and now < row.retention_shortened_at + GRACE:
        return row.earlier_retention_days
    return row.plan.retention_days if row.retention_days_override is None else row.retention_days_override


def suggest_upgrade(*, usage: Usage, needed_bytes: int, needed_items: int = 0) -> dict[str, Any] | None:
    """Return the smallest larger plan for so many bytes and generated items a month, or None when there is none."""
    plans = list(Plan.objects.order_by("rank"))
    rank = next(plan.rank for plan in plans if plan.tier == usage.plan_tier)
    for plan in plans:
        if plan.rank > rank and _holds(plan, needed_bytes, needed_items):
            price = plan.price_usd_month
            return {
                "tier": plan.tier,
                "storage_limit_bytes": plan.storage_limit_bytes,
                "price_usd_month": None if price is None else str(price),
            }
    return None


def _holds(plan: Plan, size: int, items: int) -> bool:
    bytes_fit = plan.storage_limit_bytes is None or plan.storage_limit_bytes >= size
    return bytes_fit and (plan.monthly_generation_limit is None or plan.monthly_generation_limit >= items)


@dataclass(frozen=True, slots=True)
class PlatformState:
    """How the quotas of all tenants are.

    Attributes:
        drift_bytes: what the last finished comparison of all tenants found in used bytes.
        reconciled_at: when it ended, in seconds since 1970; 0 for never.
    """

    reserved_bytes: int
    reservations: int
    deliveries_waiting: int
    drift_bytes: int
    drift_tenants: int
    reconciled_at: float


def platform_state() -> PlatformState:
    """Inside a system scope, return how the quotas of all tenants are."""
    held = Reservation.objects.aggregate(size=Sum("bytes", default=0), number=Count("*"))
    waiting = AlertDelivery.objects.filter(status__in=[AlertDelivery.Status.PENDING, AlertDelivery.Status.HELD])
    finished = Reconciliation.objects.filter(finished_at__isnull=False, of_all=True)
    last = finished.order_by("-started_at").first()
    return PlatformState(
        reserved_bytes=held["size"],
        reservations=held["number"],
        deliveries_waiting=waiting.count(),
        drift_bytes=last.drift_bytes if last else 0,
        drift_tenants=last.drifted if last else 0,
        reconciled_at=last.finished_at.timestamp() if last and last.finished_at else 0,
    )
