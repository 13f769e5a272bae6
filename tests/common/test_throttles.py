"""Throttles: exact with Redis, out of the way without it."""

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from django.conf import LazySettings
from rest_framework.test import APIClient

from engarde.common import throttles
from engarde.common.throttles import LoginThrottle, RateThrottle
from tests.people import Person

REQUEST: Any = SimpleNamespace()


class Often(RateThrottle):
    """Counts by a name of its own."""

    def __init__(self, rate: str = "3/h", *keys: str) -> None:
        self._rate = rate
        self._keys = list(keys) or [uuid4().hex]

    def rate(self) -> str:
        return self._rate

    def keys(self, request: Any) -> list[str]:
        return self._keys


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(throttles, "_paused_until", 0.0)
    throttles._limiter.cache_clear()
    yield
    throttles._limiter.cache_clear()


def allowed(throttle: RateThrottle, times: int) -> list[bool]:
    return [throttle.allow_request(REQUEST, None) for _ in range(times)]


def test_it_lets_as_many_through_as_the_rate_says_and_tells_when_the_next_may_come() -> None:
    throttle = Often("3/h")

    assert allowed(throttle, 5) == [True, True, True, False, False]
    assert throttle.wait() is not None
    assert 0 < (throttle.wait() or 0) <= 3600


def test_it_counts_each_key_on_its_own() -> None:
    first, second = uuid4().hex, uuid4().hex

    assert allowed(Often("1/h", first), 2) == [True, False]
    assert allowed(Often("1/h", second), 2) == [True, False]
    assert allowed(Often("1/h", uuid4().hex, first), 1) == [False]


@pytest.mark.parametrize("rate", ["off", ""])
def test_it_counts_nothing_when_switched_off(rate: str) -> None:
    assert allowed(Often(rate), 5) == [True] * 5


@pytest.mark.parametrize(
    ("rate", "seconds"), [("9/s", 1), ("9/sec", 1), ("9/min", 60), ("9/hour", 3600), ("9/d", 86400)]
)
def test_it_reads_rates_as_people_write_them(rate: str, seconds: int) -> None:
    limit = throttles._parse(rate)

    assert limit is not None
    assert (limit.amount, limit.get_expiry()) == (9, seconds)


def test_it_answers_429_with_the_seconds_to_wait(alice: Person, settings: LazySettings) -> None:
    settings.THROTTLE_TENANT = "2/h"

    answers = [alice.api.get("/api/content") for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].json()["code"] == "throttled"
    assert 1 <= int(answers[2]["Retry-After"]) <= 3601


def test_it_counts_the_tenants_people_and_programs_together_and_others_apart(
    alice: Person, bob: Person, charlie: Person, settings: LazySettings
) -> None:
    settings.THROTTLE_TENANT = "2/h"

    assert [who.api.get("/api/content").status_code for who in (alice, bob, bob, charlie)] == [200, 200, 429, 200]


def test_it_limits_tries_to_log_in_by_account_and_address(alice: Person, settings: LazySettings) -> None:
    settings.THROTTLE_LOGIN = "2/h"

    def log_in(email: Any, address: str, **headers: str) -> int:
        body = {"email": email, "password": "a guess"}
        client = APIClient()
        client.credentials(REMOTE_ADDR=address, **headers)
        return int(client.post("/api/auth/login", body, format="json").status_code)

    assert [log_in(alice.email, "192.0.2.1") for _ in range(3)] == [401, 401, 429]
    assert log_in(f" {alice.email.upper()} ", "192.0.2.1") == 429
    assert log_in(alice.email, "192.0.2.2") == 401
    assert log_in(alice.email, "192.0.2.1", HTTP_X_FORWARDED_FOR="192.0.2.3") == 429
    assert log_in(f"other-{uuid4().hex}@example.com", "192.0.2.1") == 401


def test_it_keeps_no_address_of_a_person_in_redis(settings: LazySettings) -> None:
    request = SimpleNamespace(data={"email": "a@example.com"}, META={"REMOTE_ADDR": "192.0.2.1"}, user=None)

    [key] = LoginThrottle().keys(request)

    assert "example.com" not in key


@pytest.mark.parametrize("data", [None, [], "text", {"email": ["a"]}, {"email": None}, {"email": "\ud800"}])
def test_it_counts_tries_with_a_nonsensical_body_too(data: Any) -> None:
    assert len(LoginThrottle().keys(SimpleNamespace(data=data, META={"REMOTE_ADDR": "192.0.2.1"}, user=None))) == 1


def test_it_lets_all_through_while_redis_is_away(absent_url: str, settings: LazySettings) -> None:
    settings.REDIS_URL = absent_url

    assert allowed(Often("1/h"), 5) == [True] * 5


def test_a_redis_that_hangs_costs_one_short_wait_and_then_nothing_for_a_while(
    hanging_url: str, settings: LazySettings
) -> None:
    settings.REDIS_URL = hanging_url
    throttle = Often("1/h")

    started = time.monotonic()
    first = throttle.allow_request(REQUEST, None)
    waited = time.monotonic() - started
    rest = allowed(throttle, 100)
    waited_again = time.monotonic() - started - waited

    assert first
    assert all(rest)
    assert waited < 0.25  # 50 ms is asked for; the rest is a slow machine's
    assert waited_again < 0.05


def test_it_counts_again_after_the_pause(absent_url: str, settings: LazySettings, monkeypatch: Any) -> None:
    works, key = settings.REDIS_URL, uuid4().hex
    settings.REDIS_URL = absent_url
    assert allowed(Often("1/h", key), 2) == [True, True]
    settings.REDIS_URL = works
    throttles._limiter.cache_clear()
    assert allowed(Often("1/h", key), 2) == [True, True], "still paused"

    monkeypatch.setattr(throttles, "_paused_until", time.monotonic())

    assert allowed(Often("1/h", key), 2) == [True, False]


def test_a_write_goes_through_while_redis_hangs(alice: Person, hanging_url: str, settings: LazySettings) -> None:
    settings.REDIS_URL = hanging_url
    settings.THROTTLE_TENANT = "1/h"

    assert [alice.api.get("/api/content").status_code for _ in range(3)] == [200, 200, 200]
