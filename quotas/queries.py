"""Reads of plans and usage."""

from typing import Any
from uuid import UUID

from django.db.models.functions import Coalesce

from engarde.common.scopes import tenant_scope
from quotas.models import Plan, QuotaUsage
from quotas.usage import Usage


def usage_of(*, tenant_id: UUID) -> Usage:
    """Return a tenant's usage."""
    with tenant_scope(tenant_id):
        return usage_in_scope(tenant_id=tenant_id)


def usage_in_scope(*, tenant_id: UUID) -> Usage:
    """Inside the tenant's scope, return its usage."""
    rows = QuotaUsage.objects.filter(tenant_id=tenant_id).annotate(
        limit_bytes=Coalesce("storage_limit_override", "plan__storage_limit_bytes")
    )
    return Usage(*rows.values_list("plan_id", "used_bytes", "reserved_bytes", "limit_bytes").get())


def content_items(*, tenant_id: UUID) -> int:
    """Inside the tenant's scope, return how many live items it has; the counter is exact."""
    return QuotaUsage.objects.values_list("content_items", flat=True).get(tenant_id=tenant_id)


def suggest_upgrade(*, usage: Usage, needed_bytes: int) -> dict[str, Any] | None:
    """Return the smallest larger plan that holds `needed_bytes`, or None when there is none."""
    plans = list(Plan.objects.order_by("rank"))
    rank = next(plan.rank for plan in plans if plan.tier == usage.plan_tier)
    for plan in plans:
        limit = plan.storage_limit_bytes
        if plan.rank > rank and (limit is None or limit >= needed_bytes):
            price = plan.price_usd_month
            return {
                "tier": plan.tier,
                "storage_limit_bytes": limit,
                "price_usd_month": None if price is None else str(price),
            }
    return None
