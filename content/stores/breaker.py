"""A circuit breaker: after several failures in a row, stop asking a service that is down."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from content.stores.base import StoreRejected, StoreUnavailable


class CircuitOpen(StoreUnavailable):
    """The call was not made, because the calls before it failed."""


class CircuitBreaker:
    """Counts failures in a row, over all threads.

    Closed, it lets every call through. After `threshold` failures it opens and refuses calls at once for `open_seconds`.
    Then it lets one call through as a probe: success closes it, failure opens it again. A probe that never reports back is
    given up after another `open_seconds`.
    """

    def __init__(
        self, threshold: int = 5, open_seconds: float = 5.0, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Start closed; `clock` returns seconds and never goes backwards."""
        self._threshold = threshold
        self._open_seconds = open_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._closed_to_all_until = 0.0

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Make one call inside: `StoreUnavailable` counts as a failure, any answer of the service as a success.

        Raises:
            CircuitOpen: At once, when calls are not let through; `retry_after` says for how many seconds.
        """
        self._admit()
        try:
            yield
        except StoreUnavailable:
            self._failed()
            raise
        except StoreRejected:
            self._succeeded()
            raise
        self._succeeded()

    def _admit(self) -> None:
        with self._lock:
            if self._failures < self._threshold:
                return
            remaining = self._closed_to_all_until - self._clock()
            if remaining > 0:
                raise CircuitOpen("The service failed repeatedly and is being left alone.", retry_after=remaining)
            self._closed_to_all_until = self._clock() + self._open_seconds

    def _failed(self) -> None:
        with self._lock:
            self._failures += 1
            if self._failures >= self._threshold:
                self._closed_to_all_until = self._clock() + self._open_seconds

    def _succeeded(self) -> None:
        with self._lock:
            self._failures = 0
