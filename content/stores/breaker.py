"""A circuit breaker: after several failures in a row, stop asking a service that is down."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from content.stores.base import NotAsked, StoreMisconfigured, StoreRejected, StoreUnavailable

LONGEST_PAUSE_SECONDS = 30.0
"""A service may ask for a longer pause; after this one, one call looks whether it is back already."""


class CircuitOpen(NotAsked):
    """The call was not made, because the calls before it failed."""


class NoticeBoard(Protocol):
    """Where the processes that talk to one service tell each other to leave it alone. Never raises."""

    def pause(self, seconds: float) -> None:
        """Ask all to leave the service alone; 0 takes that back."""
        ...

    def seconds_left(self) -> float:
        """Return how long to leave the service alone still, 0 when nobody asks for it."""
        ...


class NobodyElse:
    """The board of a process that is on its own."""

    def pause(self, seconds: float) -> None:
        """Tell nobody."""

    def seconds_left(self) -> float:
        """Hear nothing."""
        return 0.0


class CircuitBreaker:
    """Counts failures in a row, over all threads.

    Closed, it lets every call through. After `threshold` failures it opens and refuses calls at once for `open_seconds`.
    Then it lets one call through as a probe: success closes it, failure opens it again. A probe that never reports back is
    given up after another `open_seconds`.

    A service that asks for a pause longer than `open_seconds` gets it at once. When it opens, it says so on the board; what
    others say there opens it too, so a service that is down is met by one process's calls and not by every process's.
    """

    def __init__(
        self,
        threshold: int = 5,
        open_seconds: float = 5.0,
        *,
        clock: Callable[[], float] = time.monotonic,
        board: NoticeBoard | None = None,
        on_change: Callable[[bool], object] = lambda _is_open: None,
    ) -> None:
        """Start closed.

        Args:
            threshold: How many failures in a row open it.
            open_seconds: How long it stays open.
            clock: Returns seconds and never goes backwards.
            board: Shared with other processes.
            on_change: Told whether it is open, whenever that changes.
        """
        self._threshold = threshold
        self._open_seconds = open_seconds
        self._clock = clock
        self._board = board or NobodyElse()
        self._on_change = on_change
        self._lock = threading.Lock()
        self._failures = 0
        self._closed_to_all_until = 0.0
        self._reason = ""

    @property
    def is_open(self) -> bool:
        """Whether calls are refused, or the one that probes is still awaited."""
        return self._failures >= self._threshold

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Make one call inside: `StoreUnavailable` counts as a failure, any answer of the service as a success.

        `StoreMisconfigured` counts as a failure too: repeating such calls gets an address or a key blocked.

        Raises:
            CircuitOpen: At once, when calls are not let through; `retry_after` says for how many seconds.
        """
        self._hear()
        self._admit()
        try:
            yield
        except NotAsked:
            raise
        except (StoreUnavailable, StoreMisconfigured) as error:
            self._failed(error)
            raise
        except StoreRejected:
            self._succeeded()
            raise
        self._succeeded()

    def _hear(self) -> None:
        """Open when others say so; what this process found out itself counts for more."""
        if self.is_open or (seconds := self._board.seconds_left()) <= 0:
            return
        with self._lock:
            self._open_for(seconds, "another process met failures")

    def _admit(self) -> None:
        with self._lock:
            if self._failures < self._threshold:
                return
            remaining = self._closed_to_all_until - self._clock()
            if remaining > 0:
                message = f"The service failed repeatedly and is being left alone ({self._reason})."
                raise CircuitOpen(message, retry_after=remaining)
            self._closed_to_all_until = self._clock() + self._open_seconds

    def _failed(self, error: StoreUnavailable | StoreMisconfigured) -> None:
        asked = min(getattr(error, "retry_after", None) or 0.0, LONGEST_PAUSE_SECONDS)
        with self._lock:
            self._failures += 1
            if self._failures < self._threshold and asked <= self._open_seconds:
                return
            seconds = max(self._open_seconds, asked)
            self._open_for(seconds, str(error))
        self._board.pause(seconds)

    def _open_for(self, seconds: float, reason: str) -> None:
        self._failures = max(self._failures, self._threshold)
        self._closed_to_all_until = self._clock() + seconds
        self._reason = reason
        self._on_change(True)  # noqa: FBT003 -- one flag

    def _succeeded(self) -> None:
        with self._lock:
            was_open, self._failures = self.is_open, 0
        if was_open:
            self._board.pause(0)
            self._on_change(False)  # noqa: FBT003 -- one flag
