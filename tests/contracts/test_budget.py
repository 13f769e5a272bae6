"""The budget of requests and the pause that processes ask each other for: both through the real Redis."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from django.conf import LazySettings
from limits.storage import MemoryStorage

from content import sharing
from content.sharing import RedisBoard
from content.stores.base import Document, DocumentKey, StoreUnavailable
from content.stores.breaker import LONGEST_PAUSE_SECONDS, CircuitBreaker, CircuitOpen
from content.stores.budget import BudgetSpent, HourlyBudget, Urgency
from content.stores.zerodb import ZeroDBStore
from engarde.common import redis as redis_client
from tests import switches
from tests.zerodb_process import API_KEY, PROJECT_ID, ZeroDBProcess

TAKE_ALL = """
import django
django.setup()
from content import sharing
from content.stores.budget import BudgetSpent, Urgency
budget, taken = sharing.store_options()["budget"], 0
print("ready", flush=True)
input()
while True:
    try:
        budget.take(Urgency.READ)
    except BudgetSpent:
        break
    taken += 1
print(taken)
"""


def make_budget(per_hour: int) -> HourlyBudget:
    return HourlyBudget(per_hour, MemoryStorage(), attempt=lambda ask: ask())


def taken(budget: Any, urgency: Urgency) -> int:
    """Take requests until one is refused and return how many there were."""
    for number in range(10_000):
        try:
            budget.take(urgency)
        except BudgetSpent:
            return number
    pytest.fail("there is no end to the budget")


def test_what_can_wait_leaves_the_rest_to_uploads_and_these_to_reads() -> None:
    budget = make_budget(100)

    assert taken(budget, Urgency.CAN_WAIT) == 70
    assert taken(budget, Urgency.UPLOAD) == 20
    assert taken(budget, Urgency.READ) == 10
    assert taken(budget, Urgency.READ) == 0


def test_a_small_budget_is_there_for_all() -> None:
    budget = make_budget(1)

    assert taken(budget, Urgency.CAN_WAIT) == 1
    with pytest.raises(BudgetSpent) as refusal:
        budget.take(Urgency.READ)
    assert refusal.value.retry_after is not None
    assert 0 < refusal.value.retry_after <= 300


def test_two_processes_spend_from_one_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZERODB_REQUESTS_PER_HOUR", "2000")
    monkeypatch.setenv("ZERODB_PROJECT_ID", str(uuid4()))
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen([sys.executable, "-c", TAKE_ALL], **pipes) for _ in range(2)]
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in both:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()

    counts = [int(process.communicate(timeout=60)[0]) for process in both]

    assert sum(counts) == 2000
    assert all(counts)


def test_without_redis_every_request_passes(settings: LazySettings, silent_redis: str) -> None:
    settings.REDIS_URL = silent_redis
    settings.ZERODB_REQUESTS_PER_HOUR = 1
    redis_client.client.cache_clear()
    budget = sharing.store_options()["budget"]
    started = time.monotonic()

    for _ in range(100):
        budget.take(Urgency.CAN_WAIT)

    assert time.monotonic() - started < 1


@pytest.fixture
def silent_redis() -> Iterator[str]:
    """The address of something that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        yield f"redis://127.0.0.1:{server.getsockname()[1]}/0"
    redis_client.client.cache_clear()


def test_a_spent_budget_reaches_nobody_and_is_no_failure_of_the_service(zerodb: ZeroDBProcess) -> None:
    breaker = CircuitBreaker(threshold=1)
    store = ZeroDBStore(zerodb.url, API_KEY, PROJECT_ID, collection_prefix=f"b{uuid4().hex}_", breaker=breaker)
    store.set_up()
    poor = ZeroDBStore(zerodb.url, API_KEY, PROJECT_ID, breaker=breaker, budget=make_budget(1))
    with pytest.raises(Exception, match="Table not found"):
        poor.ping()
    before = switches.requests_seen(zerodb.url)

    with pytest.raises(BudgetSpent):
        poor.ping()

    assert switches.requests_seen(zerodb.url) == before
    assert not breaker.is_open
    store.ping()


def test_a_put_that_was_cut_short_by_the_budget_does_not_claim_that_nothing_was_stored(zerodb: ZeroDBProcess) -> None:
    prefix, text = f"b{uuid4().hex}_", "{}"
    ZeroDBStore(zerodb.url, API_KEY, PROJECT_ID, collection_prefix=prefix).set_up()
    poor = ZeroDBStore(zerodb.url, API_KEY, PROJECT_ID, collection_prefix=prefix, budget=make_budget(1))
    document = Document(uuid4(), DocumentKey.of(uuid4(), text), 1, text)

    with (
        switches.switched_on(zerodb.url, "lost_answer", left=1),
        pytest.raises(StoreUnavailable) as failure,
    ):
        poor.put(document)

    assert not isinstance(failure.value, BudgetSpent)


def test_a_pause_reaches_the_other_processes() -> None:
    name = f"test:{uuid4()}"
    mine = CircuitBreaker(threshold=2, open_seconds=30, board=RedisBoard(name))
    theirs = CircuitBreaker(threshold=2, open_seconds=30, board=RedisBoard(name))
    for _ in range(2):
        with pytest.raises(StoreUnavailable), mine.guard():
            raise StoreUnavailable("down")

    with pytest.raises(CircuitOpen) as refusal, theirs.guard():
        pytest.fail("the call was let through")

    assert refusal.value.retry_after == pytest.approx(30, abs=2)
    RedisBoard(name).pause(0)


def test_a_pause_is_taken_back_when_the_service_answers() -> None:
    name = f"test:{uuid4()}"
    clock = [0.0]
    mine = CircuitBreaker(threshold=1, open_seconds=30, board=RedisBoard(name), clock=lambda: clock[0])
    with pytest.raises(StoreUnavailable), mine.guard():
        raise StoreUnavailable("down")
    clock[0] = 31.0
    with mine.guard():
        pass

    assert RedisBoard(name).seconds_left() == 0


def test_a_long_pause_that_the_service_asks_for_is_kept_by_all() -> None:
    name = f"test:{uuid4()}"
    mine = CircuitBreaker(board=RedisBoard(name))
    with pytest.raises(StoreUnavailable), mine.guard():
        raise StoreUnavailable("too many requests", retry_after=3600)

    for breaker in (mine, CircuitBreaker(board=RedisBoard(name))):
        with pytest.raises(CircuitOpen) as refusal, breaker.guard():
            pytest.fail("the call was let through")
        assert refusal.value.retry_after == pytest.approx(LONGEST_PAUSE_SECONDS, abs=2)
    RedisBoard(name).pause(0)


def test_a_process_looks_at_the_board_twice_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def attempt(_ask: Any, otherwise: Any) -> Any:
        asked.append(1)
        return otherwise

    monkeypatch.setattr(redis_client, "attempt", attempt)
    breaker = CircuitBreaker(board=RedisBoard(f"test:{uuid4()}"))

    for _ in range(200):
        with breaker.guard():
            pass

    assert len(asked) <= 2


def test_a_board_that_hangs_costs_one_short_wait(settings: LazySettings, silent_redis: str) -> None:
    settings.REDIS_URL = silent_redis
    redis_client.client.cache_clear()
    breaker = CircuitBreaker(board=RedisBoard("test:hangs"))
    started = time.monotonic()

    threads = [threading.Thread(target=lambda: [breaker.guard().__enter__() for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert time.monotonic() - started < 2
