"""Calls of models side by side: how each is counted by what came of it."""

import asyncio
import threading
from collections.abc import Callable

import pytest
from prometheus_client import REGISTRY

from generation.calls import Calls, Result
from generation.llm.base import Answer, Call, NoCredit, Unavailable
from generation.writing import Manner


class Stub:
    """A generator that fails, or hangs where it has nothing to fail with."""

    def __init__(self, error: Exception | None) -> None:
        self.error, self.called = error, threading.Event()

    async def answer(self, call: Call) -> Answer:
        self.called.set()
        if self.error:
            raise self.error
        await asyncio.sleep(60)
        raise AssertionError("nobody broke it off")

    async def models(self) -> list[str]:
        return []

    async def close(self) -> None:
        pass


def came_of(stub: Stub, *, provider: str, then: Callable[[Calls], None] = lambda calls: None) -> list[Result]:
    manner = Manner(model="a model", max_tokens=10, timeout=1)
    with Calls(provider=provider, make=lambda: stub, manner=manner, is_stopped=lambda: False) as calls:
        calls.start(0, {"role": "user", "content": "Write."}, started_at=0.0)
        assert stub.called.wait(10)
        then(calls)
        return list(calls.finished(10))


def counted(provider: str) -> dict[str, float]:
    """Return how many calls ended in each way."""
    [metric] = [metric for metric in REGISTRY.collect() if metric.name == "engarde_llm_calls"]
    samples = [one for one in metric.samples if one.name.endswith("_total") and one.labels["provider"] == provider]
    return {one.labels["outcome"]: one.value for one in samples}


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (KeyError("what a new release of an SDK raises"), "error"),
        (Unavailable("503"), "llm_unavailable"),
        (NoCredit("402"), "llm_no_credit"),
    ],
)
def test_a_failure_is_counted_under_its_code_and_an_unknown_one_as_an_error(error: Exception, outcome: str) -> None:
    provider = f"test-{outcome}"

    [result] = came_of(Stub(error), provider=provider)

    assert result.error is error
    assert counted(provider) == {outcome: 1}


def test_what_is_broken_off_is_no_failure() -> None:
    [result] = came_of(Stub(None), provider="test-broken-off", then=Calls.break_off)

    assert (result.written, result.error) == (None, None)
    assert counted("test-broken-off") == {"broken_off": 1}
