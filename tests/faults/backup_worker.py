"""Workers of the backup that die all the time: a program that forks them, kills them at random moments and forks others.

    python -m tests.faults.backup_worker SEED

It imports once and forks, so that a new worker works at once. Half of the deaths come at a moment of the clock, half at a step of
the work: just before or after a call. The line `calm` on its standard input ends the killing, its end ends the program, which then
prints what it did as JSON. Waits are shorter than the platform's, leases too: they end while somebody still ships, so that two
workers ship the same batch at the same time.
"""

import json
import os
import random
import select
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pkgutil import resolve_name
from typing import Any

import django

WORKERS = 2
LOOK_SECONDS = 0.02
LIFE_SECONDS = (0.3, 3.0)
STEPS = (
    "dr.sync._seal",
    "dr.sync._lease",
    "dr.sync._read",
    "dr.sync._acknowledge",
    "dr.archives.bigquery.BigQueryArchive.append",
    "dr.archives.bigquery.BigQueryArchive.load",
    "dr.archives.bigquery.BigQueryArchive._load",
    "dr.archives.bigquery.BigQueryArchive._append_chunk",
)
DEAD = float("-inf")
DIES = 0.02
FAILS = 0.05


def main(seed: int) -> None:
    """Keep workers alive, or see to it that they are not, until the input ends."""
    django.setup()
    for step in STEPS:
        resolve_name(step)  # imports what workers need, once for all
    hasten()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    chance, counts = random.Random(seed), Counter[str]()
    workers: dict[int, float] = {}
    calm = False
    while True:
        while len(workers) < WORKERS:
            life = float("inf") if calm else chance.uniform(*LIFE_SECONDS)
            counts["started"] += 1
            pid = fork(chance.random(), packs=counts["started"] % 2 == 0, calm=calm)
            workers[pid] = time.monotonic() + life
        order = read_order()
        if order == "calm":
            calm = True
        for pid, end in list(workers.items()):
            if end is not DEAD and time.monotonic() > end:
                os.kill(pid, signal.SIGKILL)
                workers[pid] = DEAD
                counts["killed by the clock"] += 1
        if order is not None:
            put_down(workers)
        reap(workers, counts)
        if order == "":
            break
    sys.stdout.write(json.dumps(counts))


def hasten() -> None:
    """Shorten what workers wait for, and make batches and packs small, so that a few seconds see many of them."""
    from django.conf import settings

    from dr import sync

    settings.BIGQUERY_SYNC_BATCH_SIZE = 5
    shorter: dict[str, object] = {
        "LEASE": timedelta(seconds=1),
        "LOAD_LEASE": timedelta(seconds=2),
        "SHORTEST_WAIT": timedelta(seconds=0.1),
        "LONGEST_WAIT": timedelta(seconds=1),
        "PROBE_EVERY": timedelta(seconds=0.5),
        "PACK_FROM_BATCHES": 6,
        "PACK_BATCHES": 10,
        "APPEND_BATCHES": 3,
    }
    for name, value in shorter.items():
        assert hasattr(sync, name), name
        setattr(sync, name, value)


def read_order() -> str | None:
    """Return the next line of the input, an empty one at its end, None while there is none."""
    ready, _, _ = select.select([sys.stdin], [], [], LOOK_SECONDS)
    return sys.stdin.readline().strip() if ready else None


def put_down(workers: dict[int, float]) -> None:
    """Kill all workers that are left, for others to come or none."""
    for pid in list(workers):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        del workers[pid]


def reap(workers: dict[int, float], counts: Counter[str]) -> None:
    """Take note of workers that died by themselves."""
    for pid, end in list(workers.items()):
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            del workers[pid]
            if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
                counts["ended by an error"] += 1
            elif end is not DEAD:
                counts["died at a step"] += 1


def fork(seed: float, *, packs: bool, calm: bool) -> int:
    """Start a worker and return its process id."""
    if pid := os.fork():
        return pid
    try:
        work(seed, packs=packs, calm=calm)
    except BaseException:  # noqa: BLE001 -- the worker must not go on as its parent
        traceback.print_exc()
    os._exit(1)


def work(seed: float, *, packs: bool, calm: bool) -> None:
    """Back up until somebody puts an end to it; half of the workers never make packs."""
    from django.utils import timezone

    from dr import sync

    if not packs:
        sync.PACK_FROM_BATCHES = sync.MAX_SEALS_A_PASS * sync.MAX_SEALS_A_PASS
    if not calm:
        make_deadly(random.Random(seed))
    while True:
        if not sync.run_pass(now=timezone.now).shipped:
            time.sleep(0.05)


def make_deadly(chance: random.Random) -> None:
    """Have steps of the work kill their process now and then, and calls to BigQuery fail or lose their answers."""
    from google.api_core.exceptions import DeadlineExceeded, ServiceUnavailable

    for target in STEPS:
        owner, _, name = target.rpartition(".")
        place: Any = resolve_name(owner)
        setattr(place, name, deadly(getattr(place, name), chance))
    archive: Any = resolve_name("dr.archives.bigquery.BigQueryArchive")
    archive._append_chunk = failing(archive._append_chunk, chance, ServiceUnavailable("away"), DeadlineExceeded("lost"))


def deadly(call: Callable[..., Any], chance: random.Random) -> Callable[..., Any]:
    """Return the same call, with death before or after it."""

    def called(*args: Any, **kwargs: Any) -> Any:
        die(chance)
        answer = call(*args, **kwargs)
        die(chance)
        return answer

    return called


def die(chance: random.Random) -> None:
    """End this process as a power cut would, with some luck not."""
    if chance.random() < DIES:
        os.kill(os.getpid(), signal.SIGKILL)


def failing(call: Callable[..., Any], chance: random.Random, before: Exception, after: Exception) -> Callable[..., Any]:
    """Return the same call, which sometimes fails before it does anything, or after it did everything."""

    def called(*args: Any, **kwargs: Any) -> Any:
        if chance.random() < FAILS:
            raise before
        answer = call(*args, **kwargs)
        if chance.random() < FAILS:
            raise after
        return answer

    return called


if __name__ == "__main__":
    main(int(sys.argv[1]))
