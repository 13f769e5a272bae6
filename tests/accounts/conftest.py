"""Fixtures for this room's tests."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from engarde.common import throttles


@pytest.fixture
def three_tries(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Three logins a minute, counted apart from every other test's."""
    settings.THROTTLE_LOGIN = "3/min"
    settings.THROTTLE_KEY_PREFIX = f"test-{uuid4()}"
    settings.REDIS_TIMEOUT_SECONDS = 5
    monkeypatch.setattr(throttles, "_paused_until", 0.0)
    throttles._limiter.cache_clear()
    yield
    throttles._limiter.cache_clear()
