"""A budget of requests, for a plan that allows only so many an hour; all processes spend from one.

When little is left, what is least urgent waits first: superseded versions and records, then uploads, reads last.
"""

from collections.abc import Callable
from enum import Enum
from typing import Protocol

from limits import RateLimitItemPerHour
from limits.storage import Storage
from limits.strategies import SlidingWindowCounterRateLimiter

from content.stores.base import NotAsked

SHORTEST_WAIT_SECONDS = 5.0
LONGEST_WAIT_SECONDS = 300.0


class Urgency(Enum):
    """What a request is for; the value is the share of the budget that it leaves to more urgent ones."""

    READ = 0.0
    UPLOAD = 0.1
    CAN_WAIT = 0.3


class BudgetSpent(NotAsked):
    """The request was not made: what is left of the hour's budget is kept for more urgent ones."""


class Budget(Protocol):
    """Decides before each request whether it may be made."""

    def take(self, urgency: Urgency) -> None:
        """Spend one request.

        Raises:
            BudgetSpent: it must wait.
        """
        ...


class Unlimited:
    """The budget of a plan without a limit."""

    def take(self, urgency: Urgency) -> None:
        """Let every request pass."""


class HourlyBudget:
    """So many requests in any hour, counted in a storage of the `limits` library.

    The window slides: where an hour begins for the service is not known.
    """

    def __init__(
        self, per_hour: int, storage: Storage, *, attempt: Callable[[Callable[[], float | None]], float | None]
    ) -> None:
        """Prepare; nothing is counted yet.

        Args:
            per_hour: How many requests.
            storage: One that the processes share, such as `limits.storage.RedisStorage`.
            attempt: Calls what it is given and returns the result, or None when the storage cannot be reached.
        """
        self._limit = RateLimitItemPerHour(per_hour)
        self._limiter = SlidingWindowCounterRateLimiter(storage)
        self._attempt = attempt

    def take(self, urgency: Urgency) -> None:
        """Spend one request; without the storage, every request passes.

        Raises:
            BudgetSpent: it must wait.
        """
        wait = self._attempt(lambda: self._seconds_to_wait(urgency))
        if wait is not None:
            raise BudgetSpent("The hourly budget of requests to ZeroDB is used up for now.", retry_after=wait)

    def _seconds_to_wait(self, urgency: Urgency) -> float | None:
        """Return None when the request may be made, which is then counted."""
        kept = int(self._limit.amount * urgency.value)
        if (not kept or self._limiter.test(self._limit, "zerodb", cost=kept + 1)) and self._limiter.hit(
            self._limit, "zerodb"
        ):
            return None
        # At the limit's pace the requests that are kept for others come free one by one.
        pace = self._limit.get_expiry() / self._limit.amount
        return min(max(pace * (kept + 1), SHORTEST_WAIT_SECONDS), LONGEST_WAIT_SECONDS)
