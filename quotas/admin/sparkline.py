"""A tenant's history as a line: an SVG that needs no script."""

from collections.abc import Sequence
from typing import Any

from quotas.reports import Day
from quotas.sizes import readable

WIDTH, HEIGHT = 600, 80


def draw(days: Sequence[Day], limit: int | None) -> dict[str, Any]:
    """Return what the template draws: points of the line and of the area below it, and the limit if it is in reach."""
    most = max(day.total_bytes for day in days)
    top = max(most, limit) if limit and limit <= 2 * most else most
    step = WIDTH / max(1, len(days) - 1)
    points = [f"{number * step:.1f},{_height(day.total_bytes, top):.1f}" for number, day in enumerate(days)]
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "line": " ".join(points),
        "area": f"0,{HEIGHT} {' '.join(points)} {WIDTH},{HEIGHT}",
        "limit_height": _height(limit, top) if limit and limit <= top else None,
        "first": days[0].date,
        "last": days[-1].date,
        "from_size": readable(days[0].total_bytes),
        "to_size": readable(days[-1].total_bytes),
        "most": readable(most),
        "generated": sum(day.generated for day in days),
        "days": len(days),
    }


def _height(size: int, top: int) -> float:
    """Return how far from the upper edge a size is; the line keeps clear of both edges."""
    return HEIGHT - 2 - (HEIGHT - 6) * (size / top if top else 0)
