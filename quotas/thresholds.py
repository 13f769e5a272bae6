"""When usage is worth a warning, as a pure function of what it was and is.

A threshold is armed until usage reaches it, and armed again once usage has fallen 5 points below it.
"""

from collections.abc import Collection
from dataclasses import dataclass

THRESHOLDS = (70, 85, 95, 100)
REARM_POINTS = 5


@dataclass(frozen=True, slots=True)
class Look:
    """What looking at usage found.

    Attributes:
        disarmed: the thresholds that will not warn again for now.
        crossed: the highest of those that were crossed since the last look; one warning tells of all of them.
    """

    disarmed: frozenset[int]
    crossed: int | None


def look(hundredths: int | None, disarmed: Collection[int]) -> Look:
    """Look at usage in hundredths of a percent (None is unlimited), knowing which thresholds are not armed."""
    level = hundredths or 0
    still = {one for one in disarmed if level > (one - REARM_POINTS) * 100}
    crossed = [one for one in THRESHOLDS if one not in still and level >= one * 100]
    return Look(frozenset(still | set(crossed)), crossed[-1] if crossed else None)
