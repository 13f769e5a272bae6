"""The rows of the backup under load: how soon a write is safe, and whether writers ever wait for BigQuery."""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import connection
from django.utils import timezone

from dr import states
from engarde.common.scopes import system_scope
from engarde.embedded import up
from quotas.operations import NewTenant
from tests.bench import backup_gate
from tests.bench.backup_gate import FAULTS, Fault, Gate
from tests.bench.http_rows import item
from tests.bench.measure import Row
from tests.bench.server import Client, carriers

RATE = 50
FAULT_RATE = 20  # one client at a time mostly, so that what is measured is how long a write takes, and not a queue
RPO_SECONDS = 30.0
WARM_SECONDS = 5.0
FAULT_SECONDS = 12.0
CLIENTS = 16
DRAIN_SECONDS = 240.0
POLL_SECONDS = 0.1
RPO_GOAL, RPO_PROMISE = 10.0, 900.0
P50_GOAL, P99_GOAL = 1.2, 2.0
AGES = """
SELECT count(*), percentile_cont(ARRAY[0.5, 0.99, 1]) WITHIN GROUP (ORDER BY extract(epoch FROM acked_at - changed_at))
FROM content_changes WHERE tenant_id = %s AND entity_type = 'content' AND acked_at IS NOT NULL"""
WAITING = "SELECT count(*) FROM content_changes WHERE tenant_id = %s AND acked_at IS NULL"


@dataclass(frozen=True)
class Load:
    """What writers saw, in seconds a write."""

    p50: float
    p99: float
    rate: float

    @classmethod
    def of(cls, writes: Sequence[float], seconds: float) -> "Load":
        ordered = sorted(writes)
        return cls(_at(ordered, 0.5), _at(ordered, 0.99), len(ordered) / seconds)


def _at(ordered: Sequence[float], part: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def rows(stranger: Client, watched: NewTenant, hit: NewTenant) -> Iterator[Row]:
    """Measure one tenant's writes while the backup is well, and another's while BigQuery fails."""
    grpc_host, rest = settings.BIGQUERY_EMULATOR_GRPC_HOST, settings.BIGQUERY_EMULATOR_HOST
    with ExitStack() as stack:
        gate = stack.enter_context(backup_gate.before(grpc_host, rest))
        stack.enter_context(_environment(BIGQUERY_EMULATOR_GRPC_HOST=gate.address))
        stack.enter_context(carriers())
        stack.enter_context(_beat())
        yield rpo(stranger.with_key(watched.api_key), watched.tenant.id)
        yield from faults(gate, stranger.with_key(hit.api_key), hit.tenant.id)


def rpo(client: Client, tenant_id: UUID) -> Row:
    """Measure how long writes, 50 a second by HTTP, take from their transaction to the backup's acknowledgement."""
    write_steadily(client, WARM_SECONDS)
    writes, took = write_steadily(client, RPO_SECONDS)
    wait_until_safe(tenant_id)
    with system_scope("look how old changes became"), connection.cursor() as cursor:
        cursor.execute(AGES, [tenant_id])
        acknowledged, (p50, p99, largest) = cursor.fetchone()
    met = "met" if p99 <= RPO_GOAL else "NOT met"
    return Row(
        f"RPO p99 at {len(writes) / took:.0f} writes/s",
        f"{p99:.2f} s",
        f"{RPO_GOAL:.0f} s",
        RPO_GOAL / float(p99),
        "≤ 10 s, < 15 min",
        f"{met}; p50 {p50:.2f} s, largest {largest:.2f} s of {acknowledged:,} changes",
    )


def write_steadily(client: Client, seconds: float, rate: int = RATE) -> tuple[list[float], float]:
    """Create items at a steady rate; return how long each took, and the seconds in all."""
    numbers, lock, began = count(), Lock(), time.perf_counter()
    total = int(seconds * rate)

    def write(mine: Client) -> list[float]:
        took: list[float] = []
        while True:
            with lock:
                number = next(numbers)
            if number >= total:
                return took
            time.sleep(max(0.0, began + number / rate - time.perf_counter()))
            sent = time.perf_counter()
            mine.call("POST", "/api/content", item(number))
            took.append(time.perf_counter() - sent)

    with ThreadPoolExecutor(CLIENTS) as pool:
        all_took = pool.map(write, [client.with_key(client.key) for _ in range(CLIENTS)])
        writes = [one for took in all_took for one in took]
    return writes, time.perf_counter() - began


def wait_until_safe(tenant_id: UUID) -> float:
    """Return the seconds until the backup has acknowledged all changes of a tenant.

    Raises:
        TimeoutError: it has not within four minutes.
    """
    began = time.perf_counter()
    while waiting := _waiting(tenant_id):
        if time.perf_counter() - began > DRAIN_SECONDS:
            raise TimeoutError(f"{waiting} changes are still not backed up.")
        time.sleep(POLL_SECONDS)
    return time.perf_counter() - began


def _waiting(tenant_id: UUID) -> int:
    with system_scope("count what waits"), connection.cursor() as cursor:
        cursor.execute(WAITING, [tenant_id])
        return int(cursor.fetchone()[0])


# Faults


def faults(gate: Gate, client: Client, tenant_id: UUID) -> Iterator[Row]:
    """Compare writes while BigQuery fails in each way with those before and after, while the backup is well."""
    write_steadily(client, WARM_SECONDS, FAULT_RATE)
    before = _well(client, tenant_id)
    for fault in FAULTS:
        load, status, drained = _under(gate, fault, client, tenant_id)
        after = _well(client, tenant_id)
        baseline = Load.of([*before, *after], 2 * FAULT_SECONDS)
        yield from _rows(fault, load, baseline, f"health said {status}; drained {drained:.1f} s after it")
        before = after


def _well(client: Client, tenant_id: UUID) -> list[float]:
    writes, _ = write_steadily(client, FAULT_SECONDS, FAULT_RATE)
    wait_until_safe(tenant_id)
    return writes


def _under(gate: Gate, fault: Fault, client: Client, tenant_id: UUID) -> tuple[Load, str, float]:
    with gate.faulty(fault):
        load = Load.of(*write_steadily(client, FAULT_SECONDS, FAULT_RATE))
        status = str(states.current(now=timezone.now()).status)
        if not _waiting(tenant_id):
            raise RuntimeError(f"All was backed up despite {fault.name}: this benchmark measures something else.")
    return load, status, wait_until_safe(tenant_id)


def _rows(fault: Fault, load: Load, well: Load, note: str) -> Iterator[Row]:
    for name, ours, theirs, goal in (("p50", load.p50, well.p50, P50_GOAL), ("p99", load.p99, well.p99, P99_GOAL)):
        met = "met" if ours <= goal * theirs else "NOT met"
        yield Row(
            f"create at {load.rate:.0f}/s, BigQuery {fault.name}, {name}",
            f"{ours * 1000:.1f} ms",
            f"{theirs * 1000:.1f} ms",
            theirs / ours,
            f"≥ {1 / goal:.2f} (≤ {goal} times)",
            f"{met}; {note}",
        )


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Have processes that are started in the block see other variables."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


@contextmanager
def _beat() -> Iterator[None]:
    """Run beat, which looks for what was missed, as `make up` does."""
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with tempfile.TemporaryDirectory(prefix="engarde-bench-beat-") as folder:
        process = subprocess.Popen(up.beat_command(Path(folder) / "schedule"), start_new_session=True, **quiet)
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=20)
