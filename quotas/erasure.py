"""What the quotas have of a tenant, removed for good: counters, history, reservations, alerts and where they went."""

from uuid import UUID

from engarde.common.erasing import erase_rows
from quotas.models import (
    Alert,
    AlertDelivery,
    AlertTarget,
    DailyUsage,
    Drift,
    MonthlyGeneration,
    QuotaUsage,
    Reservation,
    TypeUsage,
)

ROWS = (
    AlertDelivery,
    Alert,
    AlertTarget,
    Drift,
    Reservation,
    MonthlyGeneration,
    TypeUsage,
    DailyUsage,
    QuotaUsage,
)


def erase_tenant(*, tenant_id: UUID, limit: int) -> dict[str, int]:
    """Remove at most `limit` rows in one transaction; return how many by table, nothing once there are none."""
    return erase_rows(ROWS, tenant_id=tenant_id, limit=limit)
