"""Works the switches of a running ZeroDB emulator.

`url` is its scheme, host and port: `ZeroDBProcess.url`, or `settings.ZERODB_BASE_URL` for the embedded service. Which
switches there are, and their options, is told in `engarde/embedded/zerodb/control.py`.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import requests

_SECONDS = 10


def switch_on(url: str, name: str, **options: Any) -> dict[str, Any]:
    """Switch `name` on and return it as the emulator shows it, with its `id`."""
    answer = requests.post(f"{url}/__switches/{name}", json=options, timeout=_SECONDS)
    assert answer.ok, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


def switch_off(url: str, which: str | int) -> int:
    """Switch off what has this name or id and return how many that were."""
    answer = requests.delete(f"{url}/__switches/{which}", timeout=_SECONDS)
    return int(answer.json().get("off", 0))


def all_off(url: str) -> None:
    """Switch everything off."""
    requests.delete(f"{url}/__switches", timeout=_SECONDS).raise_for_status()


@contextmanager
def switched_on(url: str, name: str, **options: Any) -> Iterator[dict[str, Any]]:
    """Keep `name` switched on in the `with` block; an emulator that died in it has no switches left to turn off."""
    switch = switch_on(url, name, **options)
    try:
        yield switch
    finally:
        with suppress(requests.ConnectionError):
            switch_off(url, switch["id"])


def switches_on(url: str) -> list[dict[str, Any]]:
    """Return the switches that are on, with their `hits` and how many requests are `left`."""
    shown: list[dict[str, Any]] = requests.get(f"{url}/__switches", timeout=_SECONDS).json()["switches"]
    return shown


def requests_seen(url: str) -> Counter[str]:
    """Return how many requests each route got, as `{"POST /{table}/query": 3}`; subtract two of them to get a span."""
    return Counter(requests.get(f"{url}/__switches", timeout=_SECONDS).json()["requests"])
