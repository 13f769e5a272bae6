"""Reads for staff and monitors: lists of what the backup did, and how all of it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from django.db.models import Max, Model, Q, QuerySet, Sum

from dr import figures, states
from dr.models import Batch, DailyFigures, Drill, Finding, Restore, Run, Verification
from dr.states import BackupHealth
from engarde.common import cursors
from engarde.common.paging import Page
from engarde.common.scopes import system_scope

Row = TypeVar("Row", bound=Model)

COUNTED = 10_000
"""A list that is longer says how long it is at least."""


def list_runs(*, page: int | None, size: int, cursor: str | None) -> Page[Run]:
    """Return a page of the log of runs, newest first.

    Raises:
        Invalid: the cursor was not made here.
    """
    return _list(Run.objects.all(), "started_at", page=page, size=size, cursor=cursor)


def list_findings(*, page: int | None, size: int, cursor: str | None, is_open: bool | None = None) -> Page[Finding]:
    """Return a page of what verifications found, newest first: all, or what is open, or what is not any more.

    Raises:
        Invalid: the cursor was not made here, or for another filter.
    """
    rows = Finding.objects.all()
    rows = rows if is_open is None else rows.filter(repaired_at__isnull=is_open)
    return _list(rows, "found_at", page=page, size=size, cursor=cursor, filters={"open": is_open})


def list_verifications(*, page: int | None, size: int, cursor: str | None) -> Page[Verification]:
    """Return a page of verifications, newest first.

    Raises:
        Invalid: the cursor was not made here.
    """
    return _list(Verification.objects.all(), "started_at", page=page, size=size, cursor=cursor)


def list_drills(*, page: int | None, size: int, cursor: str | None) -> Page[Drill]:
    """Return a page of drills, newest first, without their reports.

    Raises:
        Invalid: the cursor was not made here.
    """
    return _list(Drill.objects.defer("report"), "started_at", page=page, size=size, cursor=cursor)


def list_restores(*, page: int | None, size: int, cursor: str | None) -> Page[Restore]:
    """Return a page of restores, newest first.

    Raises:
        Invalid: the cursor was not made here.
    """
    return _list(Restore.objects.all(), "started_at", page=page, size=size, cursor=cursor)


def _list(
    rows: QuerySet[Row],
    when: str,
    *,
    page: int | None,
    size: int,
    cursor: str | None,
    filters: Mapping[str, Any] | None = None,
) -> Page[Row]:
    digest = cursors.digest({"list": rows.model._meta.db_table, **(filters or {})})
    with system_scope("staff look at the backup"):
        total = rows.order_by()[: COUNTED + 1].count()
        rows = rows.order_by(f"-{when}", "-id")
        if cursor:
            at, last = cursors.decode(cursor, digest, [datetime, UUID])
            rows = rows.filter(Q(**{f"{when}__lt": at}) | Q(**{when: at, "id__lt": last}))
        start = 0 if page is None else (page - 1) * size
        found = list(rows[start : start + size + 1])
    more, found = bool(found[size:]), found[:size]
    after = cursors.encode([getattr(found[-1], when), found[-1].pk], digest) if more else None
    return Page(
        rows=found,
        number=None if cursor else page,
        size=size,
        total=max(total, start + len(found) + more),
        is_estimate=total > COUNTED,
        has_next=more,
        next_cursor=after,
    )


@dataclass(frozen=True, slots=True)
class PlatformState:
    """How the backup is and what it did, in numbers for a monitor.

    Attributes:
        batches_waiting: sealed, and not acknowledged.
        totals: since the backup began, by the names of `dr.figures.COUNTERS`.
        rpo_p99_seconds: of today (UTC); 0 when nothing was shipped yet.
        findings_open: what verifications found and nobody mended.
        verified_at: when the last verification of all tenants ended; None for never.
        drill: the last scheduled one that ended well.
    """

    health: BackupHealth
    batches_waiting: int
    totals: Mapping[str, float]
    rpo_p99_seconds: float
    findings_open: int
    verified_at: datetime | None
    drill: Drill | None


def platform_state(*, now: datetime) -> PlatformState:
    """Inside a system scope, return how the backup is and what it did."""
    verified = Verification.objects.filter(tenant_id=None, finished_at__isnull=False, error="")
    totals = DailyFigures.objects.aggregate(**{f"all_{name}": Sum(name, default=0) for name in figures.COUNTERS})
    return PlatformState(
        health=states.current_in_scope(now=now),
        batches_waiting=Batch.objects.filter(acked_at=None).count(),
        totals={name: totals[f"all_{name}"] for name in figures.COUNTERS},
        rpo_p99_seconds=figures.p99_of(day=now.astimezone(UTC).date()) or 0.0,
        findings_open=open_findings().count(),
        verified_at=verified.aggregate(at=Max("finished_at"))["at"],
        drill=last_good_drill(),
    )


def open_findings() -> QuerySet[Finding]:
    """Inside a system scope, return what verifications found and nobody mended."""
    return Finding.objects.filter(repaired_at=None)


def last_good_drill() -> Drill | None:
    """Inside a system scope, return the last scheduled drill that ended well; None without one."""
    good = Drill.objects.defer("report").filter(scheduled=True, ok=True, finished_at__isnull=False)
    return good.order_by("-finished_at").first()


def lag_of(*, now: datetime, step: timedelta, steps: int) -> list[float]:
    """Inside a system scope, return the largest lag in seconds in each of the last steps of time, oldest first.

    A run tells how old the oldest change was that it left. Where no run told, because none came, what still waits does.
    """
    began = now - step * steps
    lags = [0.0] * steps
    runs = Run.objects.filter(started_at__gte=began).order_by("started_at").values_list("started_at", "lag_seconds")
    for at, lag in runs.iterator(chunk_size=1000):
        place = min(steps - 1, int((at - began) / step))
        lags[place] = max(lags[place], lag)
    oldest = states.oldest_waiting_at()
    if oldest:
        ends = (began + step * (place + 1) for place in range(steps))
        lags = [max(lag, (end - oldest).total_seconds()) for lag, end in zip(lags, ends, strict=True)]
    return lags
