"""A tenant's usage as a value: levels, percentages and what is left."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from quotas.thresholds import THRESHOLDS

GB = 1024**3


class Level(StrEnum):
    """How full a tenant's storage is."""

    NORMAL = "normal"
    WARNING = "warning"
    HIGH = "high"
    CRITICAL = "critical"
    EXCEEDED = "exceeded"


LEVELS = dict(zip(THRESHOLDS, (Level.WARNING, Level.HIGH, Level.CRITICAL, Level.EXCEEDED), strict=True))
Sized = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Count:
    """So many things of so many bytes together; below zero for what goes."""

    number: int = 0
    size_bytes: int = 0

    def __add__(self, other: "Count") -> "Count":
        return Count(self.number + other.number, self.size_bytes + other.size_bytes)

    def __neg__(self) -> "Count":
        return Count(-self.number, -self.size_bytes)

    def __bool__(self) -> bool:
        return bool(self.number or self.size_bytes)


@dataclass(frozen=True, slots=True)
class Sums:
    """What is really stored of what the quota counts: live items by type, and media files."""

    by_type: Mapping[str, Count]
    media: Count


def total(counts: Iterable[Count]) -> Count:
    """Return the sum of counts."""
    return sum(counts, Count())


def difference(*, added: Iterable[Sized] = (), removed: Iterable[Sized] = ()) -> dict[str, Count]:
    """Return what changes a type, from the type and size in bytes of each item that comes and goes."""
    changes: dict[str, Count] = {}
    for sign, items in ((1, added), (-1, removed)):
        for content_type, size in items:
            changes[content_type] = changes.get(content_type, Count()) + Count(sign, sign * size)
    return {content_type: change for content_type, change in changes.items() if change}


@dataclass(frozen=True, slots=True)
class Usage:
    """What a tenant uses and may use.

    Attributes:
        used_bytes: live bodies and live media.
        reserved_bytes: held for work that is under way.
        limit_bytes: None when unlimited.
        content_items: live ones.
    """

    plan_tier: str
    used_bytes: int
    reserved_bytes: int
    limit_bytes: int | None
    content_items: int = 0
    media_files: int = 0
    updated_at: datetime | None = field(default=None, compare=False)

    @property
    def remaining_bytes(self) -> int | None:
        """What can still be stored; never below 0; None when unlimited."""
        if self.limit_bytes is None:
            return None
        return max(0, self.limit_bytes - self.used_bytes - self.reserved_bytes)

    @property
    def percent_hundredths(self) -> int | None:
        """Used per limit in hundredths of a percent, rounded down; None when unlimited. A limit of 0 counts as full."""
        return None if self.limit_bytes is None else hundredths_of(self.used_bytes, self.limit_bytes)

    @property
    def level(self) -> Level:
        """The highest threshold reached."""
        return level_of(self.percent_hundredths)

    def headers(self) -> dict[str, str]:
        """Return the X-Quota-* headers and the RateLimit-Policy for storage (draft-ietf-httpapi-ratelimit-headers)."""
        headers = {"X-Quota-Used": str(self.used_bytes), "X-Quota-Warning": self.level}
        if self.limit_bytes is None:
            return headers | {"X-Quota-Limit": "unlimited", "X-Quota-Remaining": "unlimited"}
        hundredths = self.percent_hundredths or 0
        return headers | {
            "X-Quota-Limit": str(self.limit_bytes),
            "X-Quota-Remaining": str(self.remaining_bytes),
            "X-Quota-Percent": f"{hundredths // 100}.{hundredths % 100:02d}",
            "RateLimit-Policy": f'"storage";q={self.limit_bytes};qu="content-bytes"',
        }


def hundredths_of(used_bytes: int, limit_bytes: int) -> int:
    """Return used per limit in hundredths of a percent, rounded down; a limit of 0 counts as full."""
    return used_bytes * 10_000 // limit_bytes if limit_bytes else 10_000


def level_of(hundredths: int | None) -> Level:
    """Return the highest level reached at so many hundredths of a percent; None is unlimited."""
    reached = [level for threshold, level in LEVELS.items() if (hundredths or 0) >= threshold * 100]
    return reached[-1] if reached else Level.NORMAL
