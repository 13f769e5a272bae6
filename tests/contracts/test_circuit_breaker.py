import threading

import pytest

from content.stores.base import StoreRejected, StoreUnavailable
from content.stores.breaker import CircuitBreaker, CircuitOpen


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> CircuitBreaker:
    return CircuitBreaker(threshold=3, open_seconds=10, clock=clock)


def fail(breaker: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(StoreUnavailable), breaker.guard():
            raise StoreUnavailable("down")


def succeed(breaker: CircuitBreaker) -> None:
    with breaker.guard():
        pass


def assert_open(breaker: CircuitBreaker, seconds: float) -> None:
    with pytest.raises(CircuitOpen) as refusal, breaker.guard():
        pytest.fail("the call was let through")
    assert refusal.value.retry_after == seconds


def test_it_opens_after_failures_in_a_row(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 4

    assert_open(breaker, 6)


def test_it_starts_counting_anew_after_a_success(breaker: CircuitBreaker) -> None:
    fail(breaker, 2)
    succeed(breaker)
    fail(breaker, 2)

    succeed(breaker)


def test_it_counts_a_rejection_as_an_answer(breaker: CircuitBreaker) -> None:
    fail(breaker, 2)
    with pytest.raises(StoreRejected), breaker.guard():
        raise StoreRejected("no")
    fail(breaker, 2)

    succeed(breaker)


def test_it_closes_when_the_probe_succeeds(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 10
    succeed(breaker)

    fail(breaker, 2)
    succeed(breaker)


def test_it_opens_again_when_the_probe_fails(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 10
    fail(breaker)

    assert_open(breaker, 10)


def test_it_lets_only_one_probe_through(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 10
    with breaker.guard():
        assert_open(breaker, 10)


def test_it_gives_up_on_a_probe_that_never_reports(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 10
    with pytest.raises(KeyboardInterrupt), breaker.guard():
        raise KeyboardInterrupt
    assert_open(breaker, 10)
    clock.now += 10

    succeed(breaker)


def test_it_lets_one_of_many_threads_probe(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 10
    together, refused = threading.Barrier(8), threading.Semaphore(0)
    admitted: list[bool] = []

    def probe() -> None:
        together.wait(5)
        try:
            with breaker.guard():
                admitted.append(True)
                for _ in range(7):
                    assert refused.acquire(timeout=5)
        except CircuitOpen:
            refused.release()

    threads = [threading.Thread(target=probe) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert admitted == [True]
