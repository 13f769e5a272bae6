"""Calls of models side by side, on one event loop in a thread of its own; whoever started them gets the results by a queue."""

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Self

import structlog

from generation import metrics, writing
from generation.llm.base import Answer, Call, LLMError, Message, TextGenerator
from generation.writing import Manner, Written

log = structlog.get_logger(__name__)

CLOSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a call: a text, an error, or neither when it was broken off.

    Attributes:
        started_at: as the pace gave leave for it.
    """

    index: int
    started_at: float
    written: Written | None = None
    error: Exception | None = None


class _Stopped(Exception):
    """No call is made any more."""


class _Stoppable:
    """A generator that asks first whether it still may."""

    def __init__(self, generator: TextGenerator, is_stopped: Callable[[], bool]) -> None:
        self._generator, self._is_stopped = generator, is_stopped
        self.models, self.close = generator.models, generator.close

    async def answer(self, call: Call) -> Answer:
        if self._is_stopped():
            raise _Stopped
        return await self._generator.answer(call)


class Calls:
    """Calls under way. Use it as a context manager: at its end what is under way is broken off.

    Args:
        make: makes the generator, inside the event loop.
        is_stopped: asked before each call of the model, re-asks among them; none is made any more once it says so.
    """

    def __init__(
        self, *, provider: str, make: Callable[[], TextGenerator], manner: Manner, is_stopped: Callable[[], bool]
    ) -> None:
        self._provider = provider
        self._make = make
        self._is_stopped = is_stopped
        self._manner = manner
        self._results: queue.SimpleQueue[Result] = queue.SimpleQueue()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="model-calls", daemon=True)
        self._generator: TextGenerator | None = None
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self.under_way: set[int] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(CLOSE_SECONDS)
        except TimeoutError:
            log.warning("connections to a provider were not closed in time", provider=self._provider)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSE_SECONDS)
        if not self._loop.is_running():
            self._loop.close()

    def start(self, index: int, message: Message, *, started_at: float) -> None:
        """Start a call."""
        self.under_way.add(index)
        self._loop.call_soon_threadsafe(self._start, index, message, started_at)

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run something else on the event loop; nobody waits for it."""
        asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def finished(self, timeout: float) -> Sequence[Result]:
        """Return the results that are there, after waiting for the first of them for at most `timeout` seconds."""
        found: list[Result] = []
        try:
            found.append(self._results.get(timeout=timeout) if timeout > 0 else self._results.get_nowait())
            while True:
                found.append(self._results.get_nowait())
        except queue.Empty:
            pass
        self.under_way.difference_update(result.index for result in found)
        return found

    def break_off(self) -> None:
        """Break off all that is under way; each comes back as a result without text and error."""
        self._loop.call_soon_threadsafe(self._cancel_all)

    def _start(self, index: int, message: Message, started_at: float) -> None:
        if self._generator is None:
            self._generator = _Stoppable(self._make(), self._is_stopped)
        self._tasks[index] = self._loop.create_task(self._call(self._generator, index, message, started_at))

    async def _call(self, generator: TextGenerator, index: int, message: Message, started_at: float) -> None:
        begun = time.monotonic()
        written: Written | None = None
        failure: Exception | None = None
        try:
            written = await writing.write(generator, self._manner, message)
        except (asyncio.CancelledError, _Stopped):
            pass  # broken off: it comes back with neither
        except Exception as error:  # noqa: BLE001 -- whatever an SDK raises belongs to its item, the runner tells them apart
            failure = error
        finally:
            self._tasks.pop(index, None)
            self._results.put(Result(index, started_at, written, failure))
        metrics.SECONDS.labels(self._provider).observe(time.monotonic() - begun)
        metrics.CALLS.labels(self._provider, _outcome(written, failure)).inc()

    def _cancel_all(self) -> None:
        for task in list(self._tasks.values()):
            task.cancel()

    async def _close(self) -> None:
        self._cancel_all()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        if self._generator:
            await self._generator.close()


def _outcome(written: Written | None, failure: Exception | None) -> str:
    """Return how a call is counted; what no adapter knows as an error of its vendor's is `error`."""
    if written:
        return "ok"
    if failure is None:
        return "broken_off"
    return failure.code if isinstance(failure, LLMError) else "error"
