"""How figures grow with items, tenants and clients at once, as curves."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

import pygal

from quotas.operations import NewTenant
from tests.bench import http_rows, scale
from tests.bench.measure import throughput, timed
from tests.bench.server import Client

ITEMS = (100, 1_000, 10_000, 100_000)
TENANTS = (1, 10, 100, 1_000)
CLIENTS = (1, 2, 4, 8, 16, 32, 64)
ROUNDS = 15


@dataclass(frozen=True, slots=True)
class Curve:
    """Figures over a size.

    Attributes:
        lines: by name, a figure for each size.
    """

    name: str
    title: str
    unit: str
    sizes: Sequence[int]
    lines: dict[str, list[float]]
    note: str

    def picture(self) -> str:
        """Return it drawn, as SVG without scripts."""
        chart = pygal.Line(
            title=f"{self.title}, {self.unit}",
            width=720,
            height=360,
            range=(0, 1.1 * max(max(line) for line in self.lines.values())),
            js=[],
            disable_xml_declaration=False,
            show_legend=len(self.lines) > 1,
            legend_at_bottom=True,
            truncate_legend=-1,
        )
        chart.x_labels = [f"{size:,}" for size in self.sizes]
        for name, line in self.lines.items():
            chart.add(name, [round(value, 3) for value in line])
        return str(chart.render(is_unicode=True))


def curves(stranger: Client, make: Callable[[], NewTenant]) -> list[Curve]:
    """Measure all of them."""
    return [_over_items(stranger, make), _over_tenants(stranger, make), _over_clients(stranger, make)]


def _over_items(stranger: Client, make: Callable[[], NewTenant]) -> Curve:
    lines: dict[str, list[float]] = {"first page": [], "search": [], "create": []}
    for items in ITEMS:
        tenant = make()
        scale.fill(tenant.tenant.id, tenant.brand.id, items=items, labels=True)
        scale.analyze()
        client = stranger.with_key(tenant.api_key)
        for name, call in {
            "first page": partial(client.call, "GET", "/api/content"),
            "search": partial(client.call, "GET", "/api/content?search=summer+word17"),
            "create": partial(client.call, "POST", "/api/content", http_rows.item(1)),
        }.items():
            lines[name].append(_milliseconds(call))
    note = "One client; the tenant has so many items."
    return Curve("items", "Time of a request by items of the tenant", "ms", ITEMS, lines, note)


def _over_tenants(stranger: Client, make: Callable[[], NewTenant]) -> Curve:
    lines: dict[str, list[float]] = {"first page": [], "create": []}
    made: list[NewTenant] = []
    for tenants in TENANTS:
        while len(made) < tenants:
            made.append(make())
            scale.fill(made[-1].tenant.id, made[-1].brand.id, items=20)
        scale.analyze()
        client = stranger.with_key(made[0].api_key)
        lines["first page"].append(_milliseconds(partial(client.call, "GET", "/api/content")))
        lines["create"].append(_milliseconds(partial(client.call, "POST", "/api/content", http_rows.item(1))))
    note = "One client of one tenant; so many others, of 20 items each, share the tables."
    return Curve("tenants", "Time of a request by tenants", "ms", TENANTS, lines, note)


def _over_clients(stranger: Client, make: Callable[[], NewTenant]) -> Curve:
    lines: dict[str, list[float]] = {"create, one tenant": [], "create, a tenant each": [], "first page": []}
    one = stranger.with_key(make().api_key)
    keys = [make().api_key for _ in range(max(CLIENTS))]
    one.call("POST", "/api/content", http_rows.item(1))
    for clients in CLIENTS:
        calls = max(6, 192 // clients)
        waiting = list(keys)
        shared = partial(_maker, stranger, lambda: one.key, "POST")
        apart = partial(_maker, stranger, waiting.pop, "POST")
        reads = partial(_maker, stranger, lambda: one.key, "GET")
        for name, maker in zip(lines, (shared, apart, reads), strict=True):
            lines[name].append(throughput(maker, clients=clients, calls=calls))
    note = "Requests a second of so many clients at once, against two server processes on two cores that the clients share."
    return Curve("clients", "Requests a second by clients at once", "1/s", CLIENTS, lines, note)


def _maker(stranger: Client, key: Callable[[], str], method: str) -> Callable[[], object]:
    mine = stranger.with_key(key())
    return partial(mine.call, method, "/api/content", http_rows.item(1) if method == "POST" else None)


def _milliseconds(call: Callable[[], object]) -> float:
    timed(call, 5)
    return 1000 * median(timed(call, 5) for _ in range(ROUNDS))
