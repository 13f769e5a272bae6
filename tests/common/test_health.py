"""Health and metrics: honest about each part, and up as long as PostgreSQL is."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from django.conf import LazySettings
from rest_framework.test import APIClient

from content import documents
from engarde import health
from engarde.common import redis as redis_client

PARTS = ["postgres", "redis", "zerodb", "bigquery", "celery"]


@pytest.fixture
def api() -> APIClient:
    """A client without credentials."""
    return APIClient()


@pytest.fixture(autouse=True)
def _checker(database: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checker of the test's own, on a platform where every part is well."""
    monkeypatch.setattr(health, "CHECKS", {**health.CHECKS, "celery": lambda: "ok"})
    monkeypatch.setattr(health, "_checker", health.Checker())


def fail() -> str:
    raise ConnectionError("postgres://user:hunter22@db refused")


def set_check(monkeypatch: pytest.MonkeyPatch, name: str, check: Any) -> None:
    monkeypatch.setattr(health, "CHECKS", {**health.CHECKS, name: check})


def test_it_says_that_every_part_is_well(api: APIClient) -> None:
    answer = api.get("/health")

    assert answer.status_code == 200
    assert answer.json() == {"status": "ok", "checks": dict.fromkeys(PARTS, "ok")}
    assert answer["Cache-Control"] == "no-store"
    assert answer["Content-Type"] == "application/json"


@pytest.mark.parametrize("part", ["redis", "zerodb", "bigquery", "celery"])
def test_it_is_degraded_but_up_while_another_part_is_down(
    api: APIClient, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    set_check(monkeypatch, part, fail)

    answer = api.get("/health")

    assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
    assert answer.json()["checks"] == {**dict.fromkeys(PARTS, "ok"), part: "down"}
    assert b"hunter22" not in answer.content
    assert api.get("/health/ready").status_code == 200


def test_it_is_down_when_postgresql_is(api: APIClient, monkeypatch: pytest.MonkeyPatch) -> None:
    set_check(monkeypatch, "postgres", fail)

    answer, ready, live = api.get("/health"), api.get("/health/ready"), api.get("/health/live")

    assert (answer.status_code, answer.json()["status"]) == (503, "down")
    assert (ready.status_code, ready.json()) == (503, {"status": "down"})
    assert (live.status_code, live.json()) == (200, {"status": "ok"})


def test_a_part_that_is_switched_off_on_purpose_is_no_fault(api: APIClient, monkeypatch: pytest.MonkeyPatch) -> None:
    set_check(monkeypatch, "bigquery", lambda: "disabled: BIGQUERY_SYNC_ENABLED is off")

    assert api.get("/health").json()["status"] == "ok"


def test_the_real_checks_tell_a_service_that_is_away(api: APIClient, absent_url: str, settings: LazySettings) -> None:
    settings.REDIS_URL = absent_url
    redis_client.client.cache_clear()
    settings.CONTENT_STORE_OPTIONS = _elsewhere(settings, absent_url)
    documents.document_store.cache_clear()
    try:
        checks = api.get("/health").json()["checks"]
    finally:
        redis_client.client.cache_clear()
        documents.document_store.cache_clear()

    assert {name for name, state in checks.items() if state != "ok"} == {"redis", "zerodb"}


def _elsewhere(settings: LazySettings, url: str) -> dict[str, Any]:
    return {**settings.CONTENT_STORE_OPTIONS, "base_url": url.replace("redis", "http").removesuffix("/0")}


@pytest.fixture
def hanging() -> Iterator[tuple[Any, threading.Event]]:
    """A check that hangs until the test ends, and what it sets when it is called."""
    called, go_on = threading.Event(), threading.Event()

    def hang() -> str:
        called.set()
        go_on.wait(30)
        return "ok"

    yield hang, called
    go_on.set()


def test_parts_that_hang_cost_one_time_limit_together_and_never_postgresqls_thread(
    api: APIClient, monkeypatch: pytest.MonkeyPatch, hanging: tuple[Any, threading.Event]
) -> None:
    monkeypatch.setattr(health, "CHECK_SECONDS", 0.3)
    for part in ("redis", "zerodb", "bigquery", "celery"):
        set_check(monkeypatch, part, hanging[0])

    started = time.monotonic()
    answers = [api.get("/health") for _ in range(4)]
    took = time.monotonic() - started

    assert took < 4 * 0.3 + 1
    assert [answer.status_code for answer in answers] == [200] * 4
    assert answers[-1].json()["checks"]["postgres"] == "ok"
    assert answers[-1].json()["checks"]["zerodb"] == "down: no answer within 0.3 s"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each part was asked; all are well."""
    found: Counter[str] = Counter()

    def check(part: str) -> str:
        found[part] += 1
        return "ok"

    monkeypatch.setattr(health, "CHECKS", {part: partial(check, part) for part in PARTS})
    return found


def test_fifty_requests_ask_each_part_once(
    api: APIClient, monkeypatch: pytest.MonkeyPatch, asked: Counter[str]
) -> None:
    monkeypatch.setattr(health, "KEPT_SECONDS", 60.0)

    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: APIClient().get("/health"), range(50)))

    assert {answer.json()["status"] for answer in answers} == {"ok"}
    assert asked == dict.fromkeys(PARTS, 1)


def test_what_was_found_is_kept_no_longer(api: APIClient, monkeypatch: pytest.MonkeyPatch, asked: Counter[str]) -> None:
    monkeypatch.setattr(health, "KEPT_SECONDS", 0.0)

    for _ in range(3):
        api.get("/health")

    assert asked == dict.fromkeys(PARTS, 3)


def test_whether_it_is_ready_is_asked_each_time(api: APIClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "KEPT_SECONDS", 60.0)
    assert api.get("/health").json()["checks"]["postgres"] == "ok"
    set_check(monkeypatch, "postgres", fail)

    assert api.get("/health").status_code == 200, "as it was just now"
    assert api.get("/health/ready").status_code == 503
    assert api.get("/health").status_code == 503, "the latest that is known"
    set_check(monkeypatch, "postgres", lambda: "ok")
    assert api.get("/health/ready").status_code == 200
    assert api.get("/health").status_code == 200


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready", "/metrics"])
def test_it_needs_no_credentials_and_takes_a_slash(api: APIClient, path: str) -> None:
    assert api.get(path).status_code == 200
    assert api.get(f"{path}/").status_code == 200
    assert api.head(path).status_code == 200
    assert api.get(path, HTTP_AUTHORIZATION="Bearer nonsense").status_code == 200


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready", "/metrics"])
def test_it_is_for_reading_only(path: str) -> None:
    answer = APIClient(enforce_csrf_checks=True).post(path, {})

    assert (answer.status_code, answer["Allow"]) == (405, "GET, HEAD")
    assert answer.json()["code"] == "method_not_allowed"


def test_it_has_metrics_for_prometheus(api: APIClient) -> None:
    answer = api.get("/metrics")

    assert answer["Content-Type"].startswith("text/plain; version=")
    assert b"# TYPE python_info gauge" in answer.content
