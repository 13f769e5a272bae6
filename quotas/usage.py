"""A tenant's usage as a value: levels, percentages and what is left."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How full a tenant's storage is."""

    NORMAL = "normal"
    WARNING = "warning"
    HIGH = "high"
    CRITICAL = "critical"
    EXCEEDED = "exceeded"


THRESHOLDS = ((100, Level.EXCEEDED), (95, Level.CRITICAL), (85, Level.HIGH), (70, Level.WARNING))


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

    @property
    def remaining_bytes(self) -> int | None:
        """What can still be stored; never below 0; None when unlimited."""
        if self.limit_bytes is None:
            return None
        return max(0, self.limit_bytes - self.used_bytes - self.reserved_bytes)

    @property
    def percent_hundredths(self) -> int | None:
        """Used per limit in hundredths of a percent, rounded down; None when unlimited. A limit of 0 counts as full."""
        if self.limit_bytes is None:
            return None
        return self.used_bytes * 10_000 // self.limit_bytes if self.limit_bytes else 10_000

    @property
    def level(self) -> Level:
        """The highest threshold reached."""
        hundredths = self.percent_hundredths or 0
        return next((level for percent, level in THRESHOLDS if hundredths >= percent * 100), Level.NORMAL)

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
