"""Generated items a month. The month begins at midnight in the tenant's time zone.

Every month has a row of its own, so nothing is ever set back: a clock that jumps over a month's end and back finds the
numbers as they were. All writes happen under the lock on the tenant's usage.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from django.db import connection

READ = """
SELECT tenant.time_zone, coalesce(generation_limit_override, monthly_generation_limit)
FROM content_quota_usage AS usage JOIN quotas_plan AS plan ON plan.tier = usage.plan_id
JOIN accounts_tenant AS tenant ON tenant.id = usage.tenant_id
WHERE usage.tenant_id = %s"""
COUNTS = "SELECT generated, reserved FROM content_quota_generation WHERE tenant_id = %s AND month = %s"
BEGIN = """
INSERT INTO content_quota_generation (tenant_id, month, generated, reserved)
VALUES (%s, %s, 0, 0) ON CONFLICT DO NOTHING"""
COUNT = """
UPDATE content_quota_generation AS month
SET generated = generated + %(generated)s, reserved = reserved + %(reserved)s
FROM content_quota_usage AS usage JOIN quotas_plan AS plan ON plan.tier = usage.plan_id
WHERE month.tenant_id = %(tenant)s AND month.month = %(month)s AND usage.tenant_id = month.tenant_id
  AND (%(generated)s + %(reserved)s <= 0
       OR coalesce(generation_limit_override, monthly_generation_limit) IS NULL
       OR generated + reserved + %(generated)s + %(reserved)s
          <= coalesce(generation_limit_override, monthly_generation_limit))"""
COUNT_DAY = """
INSERT INTO content_quota_daily AS daily (tenant_id, date, generated) VALUES (%s, %s, %s)
ON CONFLICT (tenant_id, date) DO UPDATE SET generated = daily.generated + excluded.generated"""


@dataclass(frozen=True, slots=True)
class Month:
    """A tenant's generated items in one month.

    Attributes:
        first: the month's first day.
        resets_at: when the next month begins, in UTC.
        limit: None when unlimited.
    """

    first: date
    resets_at: datetime
    generated: int
    reserved: int
    limit: int | None

    @property
    def remaining(self) -> int | None:
        """What can still be generated; never below 0; None when unlimited."""
        return None if self.limit is None else max(0, self.limit - self.generated - self.reserved)


def this_month(*, tenant_id: UUID, now: datetime) -> Month:
    """Inside the tenant's scope, return its month."""
    with connection.cursor() as cursor:
        cursor.execute(READ, [tenant_id])
        zone, limit = cursor.fetchone()
        first = month_of(now, zone)
        cursor.execute(COUNTS, [tenant_id, first])
        generated, reserved = cursor.fetchone() or (0, 0)
    return Month(first, _next_month(first, zone), generated, reserved, limit)


def month_of(now: datetime, time_zone: str) -> date:
    """Return the first day of the month that it is in a time zone."""
    return now.astimezone(ZoneInfo(time_zone)).date().replace(day=1)


def _next_month(first: date, time_zone: str) -> datetime:
    year, month = (first.year + 1, 1) if first.month == 12 else (first.year, first.month + 1)
    return datetime(year, month, 1, tzinfo=ZoneInfo(time_zone)).astimezone(UTC)


def current(*, tenant_id: UUID, now: datetime) -> date:
    """Inside the tenant's scope, return the first day of the tenant's month."""
    return this_month(tenant_id=tenant_id, now=now).first


def count(*, tenant_id: UUID, month: date, generated: int = 0, reserved: int = 0) -> bool:
    """Inside the tenant's scope, with the usage locked, count items in a month; False when that would be too many."""
    with connection.cursor() as cursor:
        cursor.execute(BEGIN, [tenant_id, month])
        values: Mapping[str, Any] = {"tenant": tenant_id, "month": month, "generated": generated, "reserved": reserved}
        cursor.execute(COUNT, values)
        return bool(cursor.rowcount)


def count_day(*, tenant_id: UUID, generated: int, now: datetime) -> None:
    """Inside the tenant's scope, with the usage locked, count generated items in the day's history."""
    with connection.cursor() as cursor:
        cursor.execute(COUNT_DAY, [tenant_id, now.astimezone(UTC).date(), generated])
