"""The client for what Redis may speed up or protect, but never decide: it gives up at once and callers fail open."""

import time
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import redis
import structlog
from django.conf import settings
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

log = structlog.get_logger(__name__)

T = TypeVar("T")

PAUSE_AFTER_FAILURE_SECONDS = 5.0
_paused_until = 0.0


def connection_options() -> dict[str, Any]:
    """Return options under which a Redis that hangs costs one short time-out and no second try."""
    return {
        "socket_timeout": settings.REDIS_TIMEOUT_SECONDS,
        "socket_connect_timeout": settings.REDIS_TIMEOUT_SECONDS,
        "retry": Retry(NoBackoff(), 0),
        "health_check_interval": 0,
    }


@cache
def client() -> "redis.Redis":
    """Return the process's client."""
    return redis.Redis.from_url(settings.REDIS_URL, **connection_options())


def attempt(ask: Callable[["redis.Redis"], T], otherwise: T) -> T:
    """Return what `ask` gets from Redis; when that fails `otherwise`, and for the next 5 s without asking."""
    global _paused_until  # noqa: PLW0603 -- one memory of a failing Redis for the process
    if time.monotonic() < _paused_until:
        return otherwise
    try:
        return ask(client())
    except RedisError as error:
        _paused_until = time.monotonic() + PAUSE_AFTER_FAILURE_SECONDS
        log.warning("Redis does not answer; going on without for a while", error=str(error))
        return otherwise


def forget_failures() -> None:
    """Ask Redis again at once, whatever failed before."""
    global _paused_until  # noqa: PLW0603 -- see attempt
    _paused_until = 0.0
