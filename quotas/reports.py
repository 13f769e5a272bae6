"""What a tenant is told of its quota: the summary, the history without holes, and whether something would fit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from engarde.common.scopes import tenant_scope
from quotas import forecast, months, queries, reservations
from quotas.models import DailyUsage, QuotaUsage
from quotas.months import Month
from quotas.usage import Count, Level, Usage, hundredths_of, level_of

FORECAST_DAYS = 30


@dataclass(frozen=True, slots=True)
class Day:
    """A tenant's counters at the end of a day (UTC); today's are those of now."""

    date: date
    total_items: int
    total_bytes: int
    generated: int


@dataclass(frozen=True, slots=True)
class Summary:
    """All that a tenant is told of its quota.

    Attributes:
        retention_days: None is for ever.
        full_on: when storage is full by the trend of the last 30 days.
    """

    usage: Usage
    by_type: Mapping[str, Count]
    month: Month
    retention_days: int | None
    upgrade: Mapping[str, Any] | None
    full_on: date | None

    @property
    def is_blocked(self) -> bool:
        """Whether not a single byte can be added."""
        return self.usage.remaining_bytes == 0

    @property
    def content(self) -> Count:
        """Live items and their bodies."""
        return Count(self.usage.content_items, sum(count.size_bytes for count in self.by_type.values()))


@dataclass(frozen=True, slots=True)
class Check:
    """Whether something would fit.

    Attributes:
        reason: the code of the refusal it would get, if any.
        detail: the same in words.
    """

    usage: Usage
    projected_bytes: int
    reason: str | None
    detail: str | None
    upgrade: Mapping[str, Any] | None

    @property
    def percent_hundredths(self) -> int | None:
        """Projected per limit in hundredths of a percent, rounded down; None when unlimited."""
        limit = self.usage.limit_bytes
        return None if limit is None else hundredths_of(self.projected_bytes, limit)

    @property
    def level(self) -> Level:
        """The level that it would bring usage to."""
        return level_of(self.percent_hundredths)


def summary(*, tenant_id: UUID, now: datetime) -> Summary:
    """Return a tenant's summary."""
    with tenant_scope(tenant_id):
        return summary_in_scope(tenant_id=tenant_id, now=now)


def summary_in_scope(*, tenant_id: UUID, now: datetime) -> Summary:
    """Inside a scope, return a tenant's summary."""
    usage = queries.usage_in_scope(tenant_id=tenant_id)
    row = QuotaUsage.objects.select_related("plan").get(tenant_id=tenant_id)
    needed = usage.used_bytes + usage.reserved_bytes + 1
    return Summary(
        usage=usage,
        by_type=queries.by_type(tenant_id=tenant_id),
        month=months.this_month(tenant_id=tenant_id, now=now),
        retention_days=row.plan.retention_days if row.retention_days_override is None else row.retention_days_override,
        upgrade=None if usage.level == Level.NORMAL else queries.suggest_upgrade(usage=usage, needed_bytes=needed),
        full_on=_forecast(row, usage, now),
    )


def _forecast(row: QuotaUsage, usage: Usage, now: datetime) -> date | None:
    today = now.astimezone(UTC).date()
    first = DailyUsage.objects.filter(tenant_id=row.tenant_id, total_bytes__isnull=False).order_by("date").first()
    known_days = (today - (first.date if first else row.counted_on)).days + 1
    days = _days(row, min(FORECAST_DAYS, max(1, known_days)), today)
    return forecast.full_on(sizes=[day.total_bytes for day in days], limit_bytes=usage.limit_bytes, today=today)


def history(*, tenant_id: UUID, days: int, now: datetime) -> list[Day]:
    """Return a row a day, oldest first and today last; days before the tenant's first are zeros."""
    with tenant_scope(tenant_id):
        return history_in_scope(tenant_id=tenant_id, days=days, now=now)


def history_in_scope(*, tenant_id: UUID, days: int, now: datetime) -> list[Day]:
    """Inside a scope, return a row a day, oldest first and today last."""
    return _days(QuotaUsage.objects.get(tenant_id=tenant_id), days, now.astimezone(UTC).date())


def _days(row: QuotaUsage, days: int, today: date) -> list[Day]:
    """Fill the days on which nothing changed with the counters of the day before."""
    first = today - timedelta(days=days - 1)
    known = {daily.date: daily for daily in _known(row.tenant_id, first, today)}
    items, size = _before(row.tenant_id, first)
    found = []
    for offset in range(days):
        day = first + timedelta(days=offset)
        daily = known.get(day)
        if day >= row.counted_on or day == today:
            items, size = row.content_items, row.used_bytes
        elif daily and daily.total_items is not None and daily.total_bytes is not None:
            items, size = daily.total_items, daily.total_bytes
        found.append(Day(day, items, size, daily.generated if daily else 0))
    return found


def _known(tenant_id: UUID, first: date, last: date) -> Sequence[DailyUsage]:
    return list(DailyUsage.objects.filter(tenant_id=tenant_id, date__range=(first, last)))


def _before(tenant_id: UUID, day: date) -> tuple[int, int]:
    rows = DailyUsage.objects.filter(tenant_id=tenant_id, date__lt=day, total_bytes__isnull=False)
    last = rows.order_by("-date").first()
    return (last.total_items or 0, last.total_bytes or 0) if last else (0, 0)


def check(*, tenant_id: UUID, size_bytes: int, items: int, now: datetime) -> Check:
    """Tell whether so many bytes could be stored, and so many items generated, now."""
    with tenant_scope(tenant_id):
        usage, month = _state(tenant_id, now)
        reason, detail = _obstacle(usage, month, size_bytes, items)
        if reason and reservations.release_expired(tenant_id=tenant_id, now=now):
            usage, month = _state(tenant_id, now)
            reason, detail = _obstacle(usage, month, size_bytes, items)
        wanted = {
            "needed_bytes": usage.used_bytes + usage.reserved_bytes + size_bytes,
            "needed_items": month.generated + month.reserved + items,
        }
        upgrade = queries.suggest_upgrade(usage=usage, **wanted) if reason else None
    return Check(usage, usage.used_bytes + size_bytes, reason, detail, upgrade)


def _state(tenant_id: UUID, now: datetime) -> tuple[Usage, Month]:
    return queries.usage_in_scope(tenant_id=tenant_id), months.this_month(tenant_id=tenant_id, now=now)


def _obstacle(usage: Usage, month: Month, size_bytes: int, items: int) -> tuple[str, str] | tuple[None, None]:
    bytes_left, items_left = usage.remaining_bytes, month.remaining
    if bytes_left is not None and size_bytes > bytes_left:
        return "storage_quota_exceeded", f"{size_bytes} bytes do not fit: {bytes_left} are left."
    if items_left is not None and items > items_left:
        until = f"{month.resets_at:%Y-%m-%d}"
        return "generation_quota_exceeded", f"{items} items are too many: {items_left} are left until {until}."
    return None, None
