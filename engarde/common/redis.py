"""The client for what Redis may speed up or protect, but never decide: it gives up at once and callers fail open."""

from functools import cache
from typing import Any

import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry


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
