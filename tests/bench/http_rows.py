"""The HTTP rows: the same requests to the platform and to the baseline, one client unless said otherwise."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

from tests.bench.measure import ROUNDS, Row, compared, side_by_side, throughput, timed
from tests.bench.server import Client

ITEMS = 200
BODY = "<p>" + "A summer campaign for running shoes, with colours, prices and a call to action. " * 25 + "</p>"


def item(number: int) -> dict[str, Any]:
    """Return an item as a studio writes it: 2 KB of body, a few labels."""
    return {
        "title": f"Summer campaign {number}",
        "body": BODY,
        "type": "post",
        "status": "draft",
        "platforms": ["instagram", "linkedin"],
        "tags": ["summer", f"week-{number % 50}"],
        "hashtags": ["#summer", "#running"],
        "metadata": {"audience": "runners", "budget": 100, "nested": {"a": [1, 2, 3]}},
    }


def their_item(number: int) -> dict[str, Any]:
    """Return the same for the baseline, which takes every column."""
    return {**item(number), "content_type": "post", "preview": BODY[:200], "storage": {"size_bytes": len(BODY)}}


def load(client: Client) -> tuple[str, str]:
    """Make the items on both sides and return an id of each."""
    ours = [client.call("POST", "/api/content", item(number))["id"] for number in range(ITEMS)]
    theirs = [client.call("POST", "/baseline/items", their_item(number))["id"] for number in range(ITEMS)]
    return ours[-1], theirs[-1]


def reads(client: Client, our_id: str, their_id: str) -> Iterator[Row]:
    """Measure lists and one item, warm."""

    def get(path: str) -> Callable[[], object]:
        return lambda: client.raw("GET", path)

    pairs = (
        ("list 20 summaries", "/api/content", "/baseline/items", "≥ 1.0"),
        ("list 20 with bodies", "/api/content?include=body", "/baseline/items?include=body", "≥ 0.8"),
        ("get one", f"/api/content/{our_id}", f"/baseline/items/{their_id}", "≥ 0.8"),
    )
    for name, ours, theirs, goal in pairs:
        yield compared(name, side_by_side(get(ours), get(theirs)), goal)


def beside_carriers(client: Client, our_id: str, rows: Sequence[Row]) -> Iterator[Row]:
    """Yield the rows with our figure while a worker carries what was created."""
    calls: dict[str, Callable[[], object]] = {
        "list 20 summaries": lambda: client.raw("GET", "/api/content"),
        "list 20 with bodies": lambda: client.raw("GET", "/api/content?include=body"),
        "get one": lambda: client.raw("GET", f"/api/content/{our_id}"),
        "create": lambda: client.call("POST", "/api/content", item(1)),
    }
    for row in rows:
        seconds = median(timed(calls[row.name], 10) for _ in range(ROUNDS))
        yield replace(row, note=f"{seconds * 1000:.2f} ms with the carriers running")


def creates(client: Client) -> Row:
    """Measure creating, one client."""
    ours = lambda: client.call("POST", "/api/content", item(1))  # noqa: E731
    theirs = lambda: client.call("POST", "/baseline/items", their_item(1))  # noqa: E731
    return compared("create", side_by_side(ours, theirs), "≥ 0.45 (goal 0.6)")


def creates_at_once(client: Client) -> Row:
    """Measure creating by 64 clients on one tenant, whose quota row they all charge."""

    def maker(path: str, body: dict[str, Any]) -> Callable[[], Callable[[], object]]:
        def make() -> Callable[[], object]:
            mine = client.with_key(client.key)
            return lambda: mine.call("POST", path, body)

        return make

    sides = (maker("/api/content", item(1)), maker("/baseline/items", their_item(1)))
    for side in sides:
        throughput(side, clients=64, calls=1)
    ours, theirs = (throughput(side, clients=64, calls=6) for side in sides)
    return Row("create, 64 clients on one tenant", f"{ours:.0f}/s", f"{theirs:.0f}/s", ours / theirs)
