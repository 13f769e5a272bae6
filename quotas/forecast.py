"""When storage will be full if it goes on growing as it did."""

import math
from collections.abc import Sequence
from datetime import date, timedelta
from statistics import linear_regression

FEWEST_DAYS = 2
FARTHEST_DAYS = 3650


def full_on(*, sizes: Sequence[int], limit_bytes: int | None, today: date) -> date | None:
    """Return the day on which storage is full by the least-squares trend of its size in bytes a day, today's last.

    None when it is unlimited, does not grow, is full no sooner than in ten years, or is not known for two days yet.
    """
    if limit_bytes is None or not sizes:
        return None
    if sizes[-1] >= limit_bytes:
        return today
    if len(sizes) < FEWEST_DAYS:
        return None
    bytes_a_day = linear_regression(range(len(sizes)), sizes).slope
    if bytes_a_day <= 0:
        return None
    days = math.ceil((limit_bytes - sizes[-1]) / bytes_a_day)
    return today + timedelta(days=days) if days <= FARTHEST_DAYS else None
