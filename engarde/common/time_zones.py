"""Time zones by their IANA names; the package `tzdata` has them where the system does not."""

from functools import cache
from zoneinfo import available_timezones

from django.core.exceptions import ValidationError


@cache
def _known() -> frozenset[str]:
    return frozenset(available_timezones())


def validate_time_zone(name: str) -> None:
    """Check a time zone's name.

    Raises:
        ValidationError: there is no such time zone.
    """
    if name not in _known():
        raise ValidationError("There is no such time zone; use a name such as Europe/Berlin.", code="unknown_time_zone")
