"""The rows about the quota: its statements' share of a create, a check, and many clients on one tenant against many tenants."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from django.db import connection
from django.test import Client as DjangoClient

from tests.bench.http_rows import item
from tests.bench.measure import Row, side_by_side, throughput
from tests.bench.server import Client

CREATES = 300
CLIENTS = 64
ROUNDS = 5
CALLS = 4
QUOTA_TABLES = ("content_quota_", "quotas_plan")


def statements(key: str) -> Iterator[Row]:
    """Time the quota's statements inside creates in this process: no server, so the share can only be larger than a client's."""
    client = DjangoClient(headers={"X-API-Key": key})

    def create() -> None:
        answer = client.post("/api/content", item(1), content_type="application/json")
        if answer.status_code != 201:
            raise RuntimeError(answer.content[:300])

    for _ in range(20):
        create()
    timer = _Timer()
    with connection.execute_wrapper(timer):
        started = time.perf_counter()
        for _ in range(CREATES):
            create()
        whole = (time.perf_counter() - started) / CREATES
    quota = timer.seconds / CREATES
    figure, beside = f"{quota * 1e6:.0f} µs", f"{whole * 1e3:.2f} ms"
    yield Row(
        "quota statements in a create", figure, beside, quota / whole, "≤ 0.10", f"{timer.count / CREATES:.1f} a create"
    )


class _Timer:
    """Sums up how long the quota's statements take, as the application waits for them."""

    def __init__(self) -> None:
        self.seconds, self.count = 0.0, 0

    def __call__(self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        if not any(name in sql for name in QUOTA_TABLES):
            return execute(sql, params, many, context)
        started = time.perf_counter()
        try:
            return execute(sql, params, many, context)
        finally:
            self.seconds += time.perf_counter() - started
            self.count += 1


def check(client: Client, our_id: str) -> Iterator[Row]:
    """Compare a check with reading one item."""
    body = {"content_size_bytes": 2000}
    ours, beside = side_by_side(
        lambda: client.call("POST", "/api/content/quota/check", body),
        lambda: client.raw("GET", f"/api/content/{our_id}"),
    )
    yield Row("quota check vs get one", f"{ours * 1000:.2f} ms", f"{beside * 1000:.2f} ms", beside / ours)


def one_tenant_or_many(stranger: Client, keys: Sequence[str]) -> Iterator[Row]:
    """Compare 64 clients that create on one tenant, whose usage row they all charge, with 64 clients on 64 tenants."""

    def rate(mine: Sequence[str], calls: int) -> float:
        clients = iter([stranger.with_key(key) for key in mine])

        def make() -> Callable[[], object]:
            client = next(clients)
            return lambda: client.call("POST", "/api/content", item(1))

        return throughput(make, clients=CLIENTS, calls=calls)

    one, many = [keys[0]] * CLIENTS, list(keys[:CLIENTS])
    rate(many, 1)
    pairs = [(rate(one, CALLS), rate(many, CALLS)) for _ in range(ROUNDS)]
    together, apart = (sorted(side)[ROUNDS // 2] for side in zip(*pairs, strict=True))
    name = f"create, {CLIENTS} clients: one tenant vs {CLIENTS}"
    yield Row(name, f"{together:.0f}/s", f"{apart:.0f}/s", together / apart, "≥ 0.6")
