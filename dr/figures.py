"""What the backup did, day by day (UTC): counters, and how old changes were when the archive had them (the observed RPO)."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise, zip_longest
from typing import Any

from django.db import connection, transaction

from dr.models import DailyFigures

RPO_BOUNDS: tuple[float, ...] = (
    *(0.5, 1, 2, 3, 5, 8, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300),
    *(600, 900, 1800, 3600, 7200, 14400, 86400),
)
"""Upper bounds of the buckets in seconds; one more bucket takes what is above."""
COUNTERS = ("rows", "bytes", "batches", "loads", "retries", "failures", "seconds")
KEPT = timedelta(days=400)
BEFORE = date(1970, 1, 1)
"""The day under which all days are summed up that are no longer kept one by one, so that totals never shrink."""

ADD = """
INSERT INTO dr_daily_figures AS kept
    (date, "rows", bytes, batches, loads, retries, failures, seconds, rpo_counts, rpo_max_seconds)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s::bigint[], %s)
ON CONFLICT (date) DO UPDATE SET
    "rows" = kept."rows" + excluded."rows", bytes = kept.bytes + excluded.bytes,
    batches = kept.batches + excluded.batches, loads = kept.loads + excluded.loads,
    retries = kept.retries + excluded.retries, failures = kept.failures + excluded.failures,
    seconds = kept.seconds + excluded.seconds,
    rpo_counts = (
        SELECT array_agg(coalesce(old, 0) + coalesce(new, 0) ORDER BY place)
        FROM unnest(kept.rpo_counts, excluded.rpo_counts) WITH ORDINALITY AS pair (old, new, place)
    ),
    rpo_max_seconds = greatest(kept.rpo_max_seconds, excluded.rpo_max_seconds)
RETURNING xmax = 0"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What the backup did in some time.

    Attributes:
        loads: load jobs.
        retries: batches that had been tried before.
        seconds: spent shipping, by all workers together.
        rpo_p50_seconds: half of the rows were in the archive so soon after their change; None without rows.
    """

    rows: int = 0
    bytes: int = 0
    batches: int = 0
    loads: int = 0
    retries: int = 0
    failures: int = 0
    seconds: float = 0.0
    rpo_p50_seconds: float | None = None
    rpo_p99_seconds: float | None = None
    rpo_max_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Day(Figures):
    """What it did on a day (UTC)."""

    date: date


@dataclass(frozen=True, slots=True)
class Summary:
    """What it did since it began, and on each of the last days, oldest first, those without work too."""

    since: date | None
    total: Figures
    days: tuple[Day, ...]


def note(
    *,
    now: datetime,
    rows: int = 0,
    bytes: int = 0,
    batches: int = 0,
    loads: int = 0,
    retries: int = 0,
    failures: int = 0,
    seconds: float = 0.0,
    ages: Sequence[float] = (),
) -> None:
    """Add to the figures of the day.

    In a transaction that is open the day's row stays locked until its end, so note last.

    Args:
        ages: of each row that was acknowledged, seconds since its change.
    """
    day = now.astimezone(UTC).date()
    most = max((0.0, *ages))
    values = (rows, bytes, batches, loads, retries, failures, seconds)
    if _add(day, *values, _counts(ages), most):
        _sum_up(day - KEPT)


def _add(day: date, *values: Any) -> bool:
    """Add to a day's row and tell whether it is new."""
    with connection.cursor() as cursor:
        cursor.execute(ADD, [day, *values])
        return bool(cursor.fetchone()[0])


def _counts(ages: Iterable[float]) -> list[int]:
    counts = [0] * (len(RPO_BOUNDS) + 1)
    for age in ages:
        counts[bisect_left(RPO_BOUNDS, age)] += 1
    return counts


def _sum_up(before: date) -> None:
    """Add days before one to the row that stands for them all."""
    with transaction.atomic():
        old = list(DailyFigures.objects.select_for_update().filter(date__lt=before, date__gt=BEFORE).order_by("date"))
        for row in old:
            _add(BEFORE, *(getattr(row, name) for name in COUNTERS), row.rpo_counts, row.rpo_max_seconds)
        DailyFigures.objects.filter(date__in=[row.date for row in old]).delete()


def percentile(counts: Sequence[int], share: float) -> float:
    """Return below how many seconds a share (0 to 1) of the counted lies, linear inside a bucket; 0 without any.

    The bucket without an upper bound answers with its lower one.
    """
    wanted, below = share * sum(counts), 0
    for (low, high), count in zip(pairwise((0.0, *RPO_BOUNDS)), counts, strict=False):
        if count and below + count >= wanted:
            return low + (high - low) * (wanted - below) / count
        below += count
    return RPO_BOUNDS[-1] if below < wanted else 0.0


def summary(*, now: datetime, days: int = 30) -> Summary:
    """Return what the backup did since it began, and on each of the last `days` days (UTC), today's so far."""
    rows = {row.date: row for row in DailyFigures.objects.order_by("date")}
    today = now.astimezone(UTC).date()
    dates = [today - timedelta(days=back) for back in reversed(range(days))]
    return Summary(
        since=next((day for day in rows if day > BEFORE), None),
        total=Figures(**_sums(rows.values())),
        days=tuple(Day(date=day, **_sums([rows[day]] if day in rows else [])) for day in dates),
    )


def _sums(rows: Iterable[DailyFigures]) -> dict[str, Any]:
    rows = list(rows)
    counts = [0] * (len(RPO_BOUNDS) + 1)
    for row in rows:
        counts = [one + other for one, other in zip_longest(counts, row.rpo_counts, fillvalue=0)]
    found = {name: sum(getattr(row, name) for row in rows) for name in COUNTERS}
    return found | _rpo(counts, max((row.rpo_max_seconds for row in rows), default=0.0))


def p99_of(*, day: date) -> float | None:
    """Return how soon 99 of 100 rows of a day were in the archive, in seconds; None without rows."""
    row = DailyFigures.objects.filter(date=day).first()
    return Figures(**_sums([row])).rpo_p99_seconds if row else None


def _rpo(counts: Sequence[int], most: float) -> dict[str, float]:
    """Return percentiles, none above the highest that was seen: a bucket knows its bounds only."""
    if not any(counts):
        return {}
    return {
        "rpo_p50_seconds": round(min(most, percentile(counts, 0.5)), 3),
        "rpo_p99_seconds": round(min(most, percentile(counts, 0.99)), 3),
        "rpo_max_seconds": round(most, 3),
    }


def began_on() -> date | None:
    """Return the first day on which the backup took rows; None when it never did."""
    return DailyFigures.objects.filter(rows__gt=0).order_by("date").values_list("date", flat=True).first()
