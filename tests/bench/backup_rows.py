"""The rows of backup and restore: rows a second against bare loops, memory, and the time that a million items would take."""

import time
from collections.abc import Callable, Iterator
from statistics import median
from uuid import UUID

from django.utils import timezone

from content import documents, indexing, uploader
from dr import restore, sync
from dr.restore import Restored, Wanted
from quotas.operations import NewTenant
from tests.bench import backup_bare, backup_items
from tests.bench.measure import Row

ROUNDS = 3
MILLION = 1_000_000
DATA_STEPS_GOAL = 300.0
RTO_PROMISE = 3600.0
REFILLED = 2_000


def backup(new: NewTenant, items: int) -> Iterator[Row]:
    """Compare the backup of a first load with a bare loop; all of it is backed up at the end."""
    tenant_id, archive = new.tenant.id, backup_items.archive()

    def bare() -> float:
        documents.start_afresh()
        with backup_bare.table(archive) as target:
            return _seconds(lambda: _expect(items, backup_bare.back_up(archive, tenant_id, target)))

    def ours() -> float:
        backup_items.forget_backup(tenant_id)
        return _seconds(lambda: _expect(items, back_up_all()))

    mine, theirs = _in_turns(ours, bare)
    name = f"backup of {items:,} items, rows/s"
    yield _rate_row(name, items, mine, theirs, "≥ 0.7", f"in loads of {backup_bare.LOAD_ROWS:,}")


def back_up_all() -> int:
    """Back up until nothing waits and return how many rows went.

    Raises:
        RuntimeError: the backup does not work.
    """
    total = 0
    while (done := sync.run_pass(now=timezone.now)).shipped:
        if done.status != "healthy":
            raise RuntimeError(f"The backup is {done.status}: {done.reason}")
        total += done.rows
    return total


def restores(new: NewTenant, items: int) -> Iterator[Row]:
    """Compare the restore of a tenant's content with a bare loop, and say what follows for a million items."""
    tenant_id, archive = new.tenant.id, backup_items.archive()
    _, before = backup_items.checksum(tenant_id)
    reports: list[Restored] = []

    def bare() -> float:
        backup_items.take_away(tenant_id)
        took = _seconds(lambda: _expect(items, backup_bare.restore(archive, tenant_id)))
        _require_equal(tenant_id, before)
        return took

    def ours() -> float:
        backup_items.take_away(tenant_id)
        took = _seconds(lambda: reports.append(bring_back(tenant_id)))
        _expect(items, reports[-1].items)
        _require_equal(tenant_id, before)
        return took

    mine, theirs = _in_turns(ours, bare)
    note = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in reports[-1].seconds.items())
    yield _rate_row(f"restore of {items:,} items, items/s", items, mine, theirs, "≥ 0.7", note)
    yield from refills(new, mine / items * MILLION)


def bring_back(tenant_id: UUID) -> Restored:
    """Restore a tenant to PostgreSQL; ZeroDB and searches are left to the carriers."""
    wanted = Wanted(tenant_id=tenant_id, tiers=frozenset({"postgres"}), refill=False)
    done = restore.run(archive=backup_items.archive(), wanted=wanted, now=timezone.now, progress=lambda _count: None)
    if done.failed:
        raise RuntimeError(f"{done.failed} could not be restored, such as {done.errors[0]}")
    return done


def refills(new: NewTenant, million: float) -> Iterator[Row]:
    """Say when a million items are there again, and how fast ZeroDB and searches follow behind."""
    met = "met" if million <= DATA_STEPS_GOAL else "NOT met"
    promise = "kept" if million <= RTO_PROMISE else "NOT kept"
    yield Row(
        "RTO of 1,000,000 items that follows",
        f"{million:.0f} s",
        f"{DATA_STEPS_GOAL:.0f} s",
        DATA_STEPS_GOAL / million,
        "≤ 300 s, < 1 h",
        f"goal {met}, promise {promise}: then every read is answered, from the spool, while ZeroDB refills",
    )
    uploaded, took = _upload(REFILLED)
    yield Row(
        "ZeroDB refill behind it, documents/s", f"{uploaded / took:.0f}/s", note=_hours(MILLION / uploaded * took)
    )
    indexed = 0

    def index() -> None:
        nonlocal indexed
        indexed = indexing.index_changed_brands(now=timezone.now())

    took = _seconds(index)
    yield Row(
        "search refill behind it, items/s", f"{indexed / took:.0f}/s", note=_hours(MILLION / max(indexed, 1) * took)
    )


def _hours(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes for 1,000,000"


def _upload(at_most: int) -> tuple[int, float]:
    store, done = documents.document_store(), 0
    if store is None:
        raise RuntimeError("ZeroDB is off.")
    begun = time.perf_counter()
    while done < at_most and (one := uploader.run_pass(store=store, now=timezone.now)).got_on:
        done += one.uploaded
    return done, time.perf_counter() - begun


# Measuring


def _in_turns(ours: Callable[[], float], theirs: Callable[[], float]) -> tuple[float, float]:
    """Return the medians of both, taken in turns; each begins as often as the other, but for one round."""
    pairs: list[tuple[float, float]] = []
    for number in range(ROUNDS):
        if number % 2:
            their_seconds, our_seconds = theirs(), ours()
        else:
            our_seconds, their_seconds = ours(), theirs()
        pairs.append((our_seconds, their_seconds))
    return median(mine for mine, _ in pairs), median(their for _, their in pairs)


def _rate_row(name: str, items: int, ours: float, theirs: float, goal: str, note: str) -> Row:
    met = "" if theirs / ours >= 0.7 else "NOT met; "
    return Row(name, f"{items / ours:.0f}/s", f"{items / theirs:.0f}/s", theirs / ours, goal, met + note)


def _seconds(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def _expect(wanted: int, got: int) -> None:
    if got < wanted:
        raise RuntimeError(f"{wanted} were wanted, {got} came: this benchmark measures something else.")


def _require_equal(tenant_id: UUID, before: str) -> None:
    if backup_items.checksum(tenant_id)[1] != before:
        raise RuntimeError("What came back differs from what was there.")
