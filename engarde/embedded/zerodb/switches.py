"""Switches that are on, how far each reaches, and the count of requests seen. All of it is gone when the process ends."""

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import count
from typing import Any

from engarde.embedded.zerodb.bodies import Field, Fields

SCOPE: Fields = {
    "left": Field(int, at_least=1),
    "rate": Field(float, default=1.0, at_least=0, at_most=1),
    "seed": Field(int),
    "methods": Field(list, choices=("GET", "POST", "PUT", "DELETE")),
    "path": Field(str),
}
"""The options that every switch takes."""


@dataclass(slots=True, eq=False)
class Switch:
    """One switch that is on.

    Attributes:
        options: What it was switched on with, `SCOPE` and its own options, defaults filled in.
        left: How many requests it still acts on; None for any number.
        hits: How many it acted on.
    """

    id: int
    name: str
    options: Mapping[str, Any]
    left: int | None = None
    hits: int = 0
    _random: random.Random = field(default_factory=random.Random)
    _hit_times: deque[float] = field(default_factory=deque)
    _is_off: asyncio.Event = field(default_factory=asyncio.Event)

    def takes(self, method: str, path: str) -> bool:
        """Tell whether it acts on this request, and count it when it does."""
        if self.left == 0 or not self._reaches(method, path) or self._random.random() >= self.options["rate"]:
            return False
        self.hits += 1
        if self.left is not None:
            self.left -= 1
        return True

    def has_room(self, requests: int, seconds: float) -> bool:
        """Tell whether one more request would be within `requests` per `seconds`, and count it when it is."""
        now = time.monotonic()
        while self._hit_times and self._hit_times[0] <= now - seconds:
            self._hit_times.popleft()
        if len(self._hit_times) >= requests:
            return False
        self._hit_times.append(now)
        return True

    async def wait(self, seconds: float) -> None:
        """Let `seconds` pass, or fewer when it is switched off."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._is_off.wait(), seconds)

    def turn_off(self) -> None:
        """Wake the requests that wait."""
        self._is_off.set()

    def as_json(self) -> dict[str, Any]:
        """Return it as the control endpoint shows it."""
        return {"id": self.id, "name": self.name, "hits": self.hits, **self.options, "left": self.left}

    def _reaches(self, method: str, path: str) -> bool:
        methods, pattern = self.options["methods"], self.options["path"]
        return (methods is None or method in methods) and (pattern is None or fnmatchcase(path, pattern))


class Switches:
    """All switches of one process, and its count of requests by method and route."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self._on: list[Switch] = []
        self._ids = count(1)

    def turn_on(self, name: str, options: Mapping[str, Any]) -> Switch:
        """Add a switch, also beside others of the same name."""
        switch = Switch(next(self._ids), name, options, options["left"], _random=random.Random(options["seed"]))  # noqa: S311
        self._on.append(switch)
        return switch

    def turn_off(self, which: str | None = None) -> int:
        """Remove all switches, or those with this name or id; return how many they were."""
        leaving = [each for each in self._on if which in (None, each.name, str(each.id))]
        self._on = [each for each in self._on if each not in leaving]
        for switch in leaving:
            switch.turn_off()
        return len(leaving)

    def on(self) -> list[Switch]:
        """Return the switches that are on, in the order they were switched on."""
        return list(self._on)
