"""What the processes that talk to ZeroDB share through Redis: when to leave it alone, and the budget of requests.

Redis decides nothing here: without it, each process looks after itself.
"""

import hashlib
import time
from typing import Any

from django.conf import settings
from limits.storage import RedisStorage

from content import metrics
from content.stores.breaker import CircuitBreaker
from content.stores.budget import Budget, HourlyBudget, Unlimited
from engarde.common import redis as redis_client

LOOK_EVERY_SECONDS = 0.5


class RedisBoard:
    """A key with a TTL: while it is there, all leave the service alone. A process looks at it twice a second at most."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._look_at = 0.0
        self._until = 0.0

    def pause(self, seconds: float) -> None:
        """Set the key for so long, or remove it."""
        milliseconds = int(seconds * 1000)
        if milliseconds > 0:
            redis_client.attempt(lambda client: client.set(self._name, b"1", px=milliseconds), None)
        else:
            redis_client.attempt(lambda client: client.delete(self._name), 0)
        self._until = self._look_at = 0.0

    def seconds_left(self) -> float:
        """Return how long the key still lives."""
        now = time.monotonic()
        if now >= self._look_at:
            left = redis_client.attempt(lambda client: int(client.pttl(self._name)), 0)
            self._look_at, self._until = now + LOOK_EVERY_SECONDS, now + left / 1000
        return max(0.0, self._until - now)


def store_options() -> dict[str, Any]:
    """Return what a document store needs to act together with those of other processes."""
    name = f"engarde:zerodb:{_service()}"
    breaker = CircuitBreaker(board=RedisBoard(f"{name}:left-alone"), on_change=_note_circuit)
    return {"breaker": breaker, "budget": _budget(name)}


def _service() -> str:
    """Return a short name of the service that the settings name, so that drills and tests share with nobody."""
    where = f"{settings.ZERODB_BASE_URL} {settings.ZERODB_PROJECT_ID} {settings.CONTENT_STORE_OPTIONS.get('base_url')}"
    return hashlib.sha256(where.encode()).hexdigest()[:12]


def _budget(name: str) -> Budget:
    if not settings.ZERODB_REQUESTS_PER_HOUR:
        return Unlimited()
    storage = RedisStorage(settings.REDIS_URL, key_prefix=name, **redis_client.connection_options())
    return HourlyBudget(
        settings.ZERODB_REQUESTS_PER_HOUR,
        storage,
        attempt=lambda ask: redis_client.attempt(lambda _client: ask(), None),
    )


def _note_circuit(is_open: bool) -> None:  # noqa: FBT001 -- one flag
    metrics.ZERODB_CIRCUIT.set(is_open)
