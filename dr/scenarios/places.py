"""Names of throw-away places: databases, datasets and collections that a drill makes and removes. It touches no other."""

import re
import secrets
from datetime import UTC, datetime, timedelta

NAME = re.compile(r"drill_(\d{14})_[0-9a-f]{8}(?:_[a-z]+)*")
LEFT_OVER_AFTER = timedelta(days=1)


class NotThrowAway(Exception):
    """A place was about to be used for a drill that is not one of a drill's own."""


def new_name(*, now: datetime) -> str:
    """Return a name that nobody else uses, which tells when it was made."""
    return f"drill_{now.astimezone(UTC):%Y%m%d%H%M%S}_{secrets.token_hex(4)}"


def require_throw_away(name: str) -> str:
    """Return the name of a drill's place.

    Raises:
        NotThrowAway: it is the name of something else.
    """
    if not NAME.fullmatch(name):
        raise NotThrowAway(f"{name!r} is no drill's: drills only touch what is called drill_<time>_<random>.")
    return name


def is_left_over(name: str, *, now: datetime) -> bool:
    """Tell whether a place is a drill's that began more than a day ago: it was killed, and nobody cleaned up."""
    found = NAME.fullmatch(name)
    if found is None:
        return False
    try:
        made_at = datetime.strptime(found[1], "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return False
    return made_at < now - LEFT_OVER_AFTER
