"""Measuring two things against each other in one run: taken in turns, so that the machine's moods hit both alike."""

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

ROUNDS = 30


@dataclass(frozen=True)
class Row:
    """A line of the table. `ratio` is the baseline's time per ours: above 1 we are faster."""

    name: str
    figure: str
    baseline: str = ""
    ratio: float | None = None
    goal: str = ""
    note: str = ""


def side_by_side(
    ours: Callable[[], object], theirs: Callable[[], object], *, batch: int = 10, rounds: int = ROUNDS
) -> tuple[float, float]:
    """Return seconds per call of both, medians over rounds taken in turns."""
    for call in (ours, theirs):
        timed(call, batch)
    pairs = [(timed(ours, batch), timed(theirs, batch)) for _ in range(rounds)]
    return statistics.median(pair[0] for pair in pairs), statistics.median(pair[1] for pair in pairs)


def timed(call: Callable[[], object], times: int) -> float:
    """Return seconds per call."""
    started = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - started) / times


def throughput(makers: Callable[[], Callable[[], object]], *, clients: int, calls: int) -> float:
    """Return calls per second of many clients at once; `makers` makes one client's call."""
    each = [makers() for _ in range(clients)]
    with ThreadPoolExecutor(clients) as pool:
        started = time.perf_counter()
        list(pool.map(lambda call: [call() for _ in range(calls)], each))
        return clients * calls / (time.perf_counter() - started)


def compared(name: str, pair: tuple[float, float], goal: str, note: str = "") -> Row:
    """Return the row of a comparison."""
    ours, theirs = pair
    return Row(name, f"{ours * 1000:.2f} ms", f"{theirs * 1000:.2f} ms", theirs / ours, goal, note)
