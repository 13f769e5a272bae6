"""The rows of the backup that run in processes of their own: the memory of a restore, and the six scenarios."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

from engarde.embedded.paths import PROJECT_ROOT
from quotas.operations import NewTenant
from tests.bench import backup_items, backup_rows
from tests.bench.measure import Row

MOST_MEGABYTES = 300.0
LARGE = 200_000
LEAST_SECONDS = 600
SECONDS_AN_ITEM = 0.05
SCENARIOS = 6


class Failed(RuntimeError):
    """A process of a benchmark did not end well."""


def memory(make: Callable[[], NewTenant], sizes: tuple[int, ...]) -> Iterator[Row]:
    """Restore tenants of several sizes, each in a process of its own, and compare the largest with the smallest."""
    measured = []
    for items in sizes:
        new = make()
        backup_items.write(new, items)
        backup_rows.back_up_all()
        backup_items.take_away(new.tenant.id)
        measured.append(_restore_apart(new.tenant.id, items))
        backup_items.take_away(new.tenant.id)
        backup_items.forget_backup(new.tenant.id, wait=False)
    small, large = measured[0], measured[-1]
    growth = f"{small['peak']:.0f} MB at {sizes[0]:,} items; idle {large['idle']:.0f} MB; {large['seconds']} s"
    met = "met" if large["peak"] <= MOST_MEGABYTES else "NOT met"
    yield Row(
        f"memory of a restore of {sizes[-1]:,} items",
        f"{large['peak']:.0f} MB",
        f"{MOST_MEGABYTES:.0f} MB",
        MOST_MEGABYTES / large["peak"],
        f"≤ 300 MB at {LARGE:,}",
        f"{met}; {growth}",
    )


def _restore_apart(tenant_id: UUID, items: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.bench.backup_memory", str(tenant_id)]
    figures = _run(command, seconds=LEAST_SECONDS + items * SECONDS_AN_ITEM)
    if figures["items"] != items:
        raise Failed(f"{items} items were wanted, {figures['items']} came back.")
    return figures


def scenarios(items: int) -> Iterator[Row]:
    """Play the six disasters through, each on throw-away data of its own."""
    manage = [sys.executable, str(PROJECT_ROOT / "manage.py"), "test_dr_scenario", "all", "--json"]
    seconds = SCENARIOS * (LEAST_SECONDS + items * SECONDS_AN_ITEM)
    yield from rows_of(_run([*manage, "--items", str(items)], seconds=seconds, is_strict=False))


def rows_of(report: dict[str, Any]) -> Iterator[Row]:
    """Return the rows of what `test_dr_scenario all --report FILE` wrote."""
    for one in report["scenarios"]:
        is_whole = one["ok"] and not one["lost"] and not one["mismatched"]
        error = f"; {one['error']}" if one.get("error") else ""
        yield Row(
            f"scenario {one['name']}, {one['items']:,} items",
            f"{one.get('items_per_second') or 0:.0f}/s",
            note=f"{'ok' if is_whole else 'FAILED'}; RTO {_shown(one['rto_seconds'])}, RPO {_shown(one['rpo_seconds'])}, "
            f"lost {one['lost']}, mismatched {one['mismatched']}, {one['seconds']:.0f} s in all{error}",
            goal="lost 0, mismatched 0",
        )


def _shown(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.1f} s"


def _run(command: list[str], *, seconds: float, is_strict: bool = True) -> dict[str, Any]:
    """Return the JSON object that a process prints last.

    Raises:
        Failed: it ends badly, or takes too long; not strictly, only when it prints nothing.
    """
    try:
        ended = subprocess.run(
            command,
            env=dict(os.environ),
            cwd=PROJECT_ROOT,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{' '.join(command[1:4])} takes longer than {seconds:.0f} s.") from error
    printed = ended.stdout[ended.stdout.find("{") :]
    if not printed or (is_strict and ended.returncode):
        raise Failed(f"{' '.join(command[1:4])} ended with {ended.returncode}: {ended.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(printed)
    return found
