"""Charts of seconds as SVG that needs no script; heights are logarithmic, as a lag may be a second or a day."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from math import log10

from dr.figures import Day
from engarde.common.spans import span

WIDTH, HEIGHT, LEFT = 640, 190, 66
HEADROOM = 1.3
MARKS = ((1, "1 s"), (10, "10 s"), (60, "1 min"), (900, "15 min"), (3600, "1 h"), (86400, "1 day"), (604800, "7 days"))


@dataclass(frozen=True, slots=True)
class Mark:
    """A line across the chart."""

    y: float
    label: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A day: how soon half, and how soon 99 of 100 rows were backed up."""

    x: float
    width: float
    y: float
    height: float
    half_y: float
    half_height: float
    title: str


@dataclass(frozen=True, slots=True)
class Chart:
    """What the template draws.

    Attributes:
        line: points of a line; empty for a chart of bars.
        target_y: where the RPO target is.
    """

    first: str
    last: str
    most: str
    marks: tuple[Mark, ...]
    target_y: float
    line: str = ""
    area: str = ""
    bars: tuple[Bar, ...] = ()
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT


def of_lag(lags: Sequence[float], *, step: timedelta, target: float) -> Chart:
    """Draw how the lag went; `lags` end now and are `step` apart."""
    top = max(target, *lags) * HEADROOM
    stride = (WIDTH - LEFT) / max(1, len(lags) - 1)
    points = [f"{LEFT + number * stride:.1f},{_y(lag, top):.1f}" for number, lag in enumerate(lags)]
    return Chart(
        first=f"{span((step * len(lags)).total_seconds())} ago",
        last="now",
        most=span(max(lags)),
        marks=_marks(top),
        target_y=_y(target, top),
        line=" ".join(points),
        area=f"{LEFT},{HEIGHT} {' '.join(points)} {WIDTH},{HEIGHT}",
    )


def of_rpo(days: Sequence[Day], *, target: float) -> Chart:
    """Draw the observed RPO of days, one bar each; days without rows have none."""
    most = max((day.rpo_p99_seconds or 0.0 for day in days), default=0.0)
    top = max(target, most) * HEADROOM
    stride = (WIDTH - LEFT) / max(1, len(days))
    return Chart(
        first=f"{days[0].date:%-d %b}",
        last=f"{days[-1].date:%-d %b}",
        most=span(most),
        marks=_marks(top),
        target_y=_y(target, top),
        bars=tuple(
            _bar(day, LEFT + number * stride, stride, top) for number, day in enumerate(days) if day.rpo_p99_seconds
        ),
    )


def _bar(day: Day, x: float, stride: float, top: float) -> Bar:
    most, half = day.rpo_p99_seconds or 0.0, day.rpo_p50_seconds or 0.0
    y, half_y = _y(most, top), _y(half, top)
    return Bar(
        x=x + stride * 0.15,
        width=stride * 0.7,
        y=y,
        height=HEIGHT - y,
        half_y=half_y,
        half_height=HEIGHT - half_y,
        title=f"{day.date:%-d %b}: half within {span(half)}, 99 % within {span(most)}, {day.rows:,} changes",
    )


def _marks(top: float) -> tuple[Mark, ...]:
    return tuple(Mark(_y(seconds, top), label) for seconds, label in MARKS if seconds <= top)


def _y(seconds: float, top: float) -> float:
    return HEIGHT - (HEIGHT - 4) * log10(1 + max(0.0, seconds)) / log10(1 + top)
