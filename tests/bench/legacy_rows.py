"""The rows of the migration: old rows a second against a bare loop and a plain copy, and the memory that it takes."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from io import StringIO
from statistics import median
from typing import Any
from uuid import UUID

from django.conf import settings
from django.core.management import call_command
from django.db import connection

from content.legacy.source import ITEMS
from engarde.embedded.paths import PROJECT_ROOT
from tests.bench import backup_items, legacy_bare
from tests.bench.measure import Row

COMMAND = "migrate_content_items_to_zerodb"
ROUNDS = 3
GOAL = 0.6
MOST_GROWTH = 1.25


def migration(items: int) -> Iterator[Row]:
    """Compare the migration of old items of 2 KB with a bare loop, in turns."""
    tenants = _loaded(items)

    def ours() -> float:
        _take_away(tenants)
        return _timed(lambda: _require(items, _run(COMMAND)["created"]))

    def bare() -> float:
        _take_away(tenants)
        return _timed(lambda: _require(items, legacy_bare.migrate(settings.LEGACY_SCHEMA)))

    pairs = [(ours(), bare()) if number % 2 == 0 else _swapped(bare(), ours()) for number in range(ROUNDS)]
    mine, theirs = (median(column) for column in zip(*pairs, strict=True))
    copied = median(_timed(lambda: legacy_bare.copy(settings.LEGACY_SCHEMA)) for _ in range(ROUNDS))
    met = "met" if theirs / mine >= GOAL else "NOT met"
    yield Row(
        f"migration of {items:,} old items, items/s",
        f"{items / mine:.0f}/s",
        f"{items / theirs:.0f}/s",
        theirs / mine,
        f"≥ {GOAL}",
        f"{met}; {copied / mine:.3f} of a plain copy ({items / copied:.0f}/s)",
    )
    _take_away(tenants)


def memory(items: int) -> Iterator[Row]:
    """Migrate two numbers of rows, each in a process of its own, and compare what they took."""
    small, large = (_peak(number) for number in (items // 4, items))
    met = "met" if large <= MOST_GROWTH * small else "NOT met"
    yield Row(
        f"memory of a migration of {items:,} items",
        f"{large:.0f} MB",
        f"{small:.0f} MB",
        small / large,
        "≥ 0.8, any size",
        f"{met}; beside that of {items // 4:,} items",
    )


def _peak(items: int) -> float:
    tenants = _loaded(items)
    _take_away(tenants)
    program = [sys.executable, "-m", "tests.bench.legacy_memory", settings.LEGACY_SCHEMA]
    ended = subprocess.run(program, env=dict(os.environ), cwd=PROJECT_ROOT, capture_output=True, text=True, check=True)
    figures = json.loads(ended.stdout.splitlines()[-1])
    _require(items, figures["created"])
    _take_away(tenants)
    return float(figures["peak"])


def _loaded(items: int) -> list[UUID]:
    """Make old items, and the tenants that they belong to, which both sides find here then."""
    settings.LEGACY_SCHEMA = "legacy_bench"
    _run("load_legacy_sample", "--items", str(items), "--replace")
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT DISTINCT ON (tenant_id) tenant_id, id FROM {settings.LEGACY_SCHEMA}.{ITEMS}")
        tenants = [UUID(tenant) for tenant, _ in cursor.fetchall()]
    for tenant in tenants:
        _run(COMMAND, "--tenant", str(tenant), "--limit", "20")
    return tenants


def _take_away(tenants: list[UUID]) -> None:
    for tenant in tenants:
        backup_items.take_away(tenant)


def _run(command: str, *options: str) -> dict[str, Any]:
    out = StringIO()
    call_command(command, *options, "--json", stdout=out)
    found: dict[str, Any] = json.loads(out.getvalue())
    return found


def _timed(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def _swapped(theirs: float, mine: float) -> tuple[float, float]:
    return mine, theirs


def _require(wanted: int, got: int) -> None:
    if got != wanted:
        raise RuntimeError(f"{wanted} were wanted, {got} came: this benchmark measures something else.")
