"""Throttles: counted in Redis for all processes together; when Redis is away, requests pass."""

import hashlib
import time
from functools import cache
from typing import Any

import structlog
from django.conf import settings
from limits import RateLimitItem, parse
from limits.storage import RedisStorage
from limits.strategies import FixedWindowRateLimiter
from redis.exceptions import RedisError
from rest_framework.settings import api_settings
from rest_framework.throttling import BaseThrottle

from engarde.common.redis import connection_options

log = structlog.get_logger(__name__)

PAUSE_AFTER_FAILURE_SECONDS = 5.0
UNITS = {"s": "second", "sec": "second", "min": "minute", "m": "minute", "h": "hour", "d": "day"}
_paused_until = 0.0


class RateThrottle(BaseThrottle):
    """Allows `rate()` requests for each `key()`; a rate of "off" allows all."""

    wait_seconds: float | None = None

    def rate(self) -> str:
        """Return the limit, such as "20/min"."""
        raise NotImplementedError

    def keys(self, request: Any) -> list[str]:
        """Return what is counted, each on its own; none to let the request pass."""
        raise NotImplementedError

    def allow_request(self, request: Any, view: Any) -> bool:
        """Count the request and tell whether it is within the limit."""
        limit = _parse(self.rate())
        if limit is None:
            return True
        return all(self._hit(limit, [type(self).__name__, key]) for key in self.keys(request))

    def wait(self) -> float | None:
        """Return the seconds until the window ends."""
        return self.wait_seconds

    def _hit(self, limit: RateLimitItem, identifiers: list[str]) -> bool:
        global _paused_until  # noqa: PLW0603 -- one memory of a failing Redis for the process
        if time.monotonic() < _paused_until:
            return True
        try:
            if _limiter().hit(limit, *identifiers):
                return True
            self.wait_seconds = max(0.0, _limiter().get_window_stats(limit, *identifiers).reset_time - time.time())
        except RedisError as error:
            _paused_until = time.monotonic() + PAUSE_AFTER_FAILURE_SECONDS
            log.warning("throttle is off: Redis does not answer", error=str(error))
            return True
        return False


class TenantThrottle(RateThrottle):
    """`THROTTLE_TENANT` requests for each tenant."""

    def rate(self) -> str:
        """Return the limit for a tenant."""
        return str(settings.THROTTLE_TENANT)

    def keys(self, request: Any) -> list[str]:
        """Count by tenant; requests without one are not counted here."""
        tenant_id = getattr(request.user, "tenant_id", None)
        return [str(tenant_id)] if tenant_id else []


class LoginThrottle(RateThrottle):
    """`THROTTLE_LOGIN` tries for each account from each address.

    X-Forwarded-For counts only behind as many proxies as NUM_PROXIES says: anybody can send it.
    """

    def rate(self) -> str:
        """Return the limit for an account from an address."""
        return str(settings.THROTTLE_LOGIN)

    def keys(self, request: Any) -> list[str]:
        """Count by the account that is tried together with the address that tries."""
        email = request.data.get("email") if isinstance(request.data, dict) else None
        email = email or getattr(request.user, "id", "")
        address = self.get_ident(request) if api_settings.NUM_PROXIES else request.META.get("REMOTE_ADDR")
        account = hashlib.sha256(str(email or "").strip().casefold().encode("utf-8", "replace")).hexdigest()[:32]
        return [f"{account}:{address}"]


@cache
def _limiter() -> FixedWindowRateLimiter:
    storage = RedisStorage(settings.REDIS_URL, key_prefix=settings.THROTTLE_KEY_PREFIX, **connection_options())
    return FixedWindowRateLimiter(storage)


@cache
def _parse(rate: str) -> RateLimitItem | None:
    """Return the limit of a rate such as "20/min" or "200/s"; None for "off"."""
    if rate in {"", "off"}:
        return None
    count, _, unit = rate.partition("/")
    return parse(f"{count}/{UNITS.get(unit.strip(), unit)}")
