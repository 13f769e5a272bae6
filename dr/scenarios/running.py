"""Scenarios one after the other, each in a process and a place of its own, and a row of the history for each."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import connection

from dr.models import Drill
from dr.scenarios import stage
from dr.scenarios.stage import Place
from engarde.common.scopes import system_scope

LONGEST_SECONDS = 600.0
SECONDS_AN_ITEM = 1.0
ERROR_CHARACTERS = 4000
RESULT = "outcome"
REPORTED = ("ok", "items", "lost", "mismatched", "rto_seconds", "rpo_seconds")


class CannotDrill(Exception):
    """A service that the scenarios need is switched off by setting."""


def run(
    *, names: Iterable[str], items: int, now: Callable[[], datetime], tell: Callable[[str], object]
) -> list[dict[str, Any]]:
    """Play scenarios and return the outcome of each, as contract and history have it.

    Args:
        items: of the main tenant of each.
        tell: called with a line for people at every step.

    Raises:
        CannotDrill: ZeroDB or BigQuery is off.
        NoRoomForDrills: no database of our own can be made.
    """
    require_services()
    outcomes = []
    with stage.prepared(now=now(), tell=tell) as ground:
        for name in names:
            tell(name)
            started_at = now()
            with ground.place(name) as place:
                outcome = play(place=place, name=name, items=items, tell=tell)
            note(outcome=outcome, started_at=started_at, finished_at=now())
            outcomes.append(outcome)
    return outcomes


def require_services() -> None:
    """See that all tiers are there to be lost, and that outcomes can be kept.

    Raises:
        CannotDrill: one is off by setting, or the database is not migrated.
    """
    if Drill._meta.db_table not in connection.introspection.table_names():
        raise CannotDrill("The database has no table for the outcomes yet: run migrate first.")
    if not settings.BIGQUERY_SYNC_ENABLED:
        raise CannotDrill("The backup is off: set BIGQUERY_PROJECT_ID and BIGQUERY_SYNC_ENABLED=true.")
    if not settings.ZERODB_API_KEY:
        raise CannotDrill("There is no ZeroDB to lose: set ZERODB_API_KEY and ZERODB_PROJECT_ID.")


def play(
    *, place: Place, name: str, items: int, tell: Callable[[str], object], longest: float | None = None
) -> dict[str, Any]:
    """Play one scenario in a process of its own and return its outcome, also of a process that died.

    Args:
        longest: seconds after which the process is killed; by default a time that goes by the number of items.
    """
    outcome: dict[str, Any] | None = None
    errors = place.folder / "errors.txt"
    with _child(place, name, items, errors, longest or LONGEST_SECONDS + SECONDS_AN_ITEM * items) as child:
        for line in child.stdout or ():
            message = _message(line)
            outcome = message.get(RESULT, outcome)
            if "step" in message:
                tell(f"  {message['step']}  ({message['seconds']:.1f} s)")
    return outcome or _died(name, items, child.returncode, errors)


@contextmanager
def _child(place: Place, name: str, items: int, errors: Path, longest: float) -> "Iterator[subprocess.Popen[str]]":
    """Run the child; it ends with its parent, whose end of the pipe it reads, and after a bounded time."""
    command = [sys.executable, "-m", "dr.scenarios.child", name, "--items", str(items)]
    with errors.open("w") as stderr:
        child = subprocess.Popen(  # noqa: S603 -- our own words
            command,
            env=place.environment,
            cwd=settings.BASE_DIR,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    watchdog = threading.Timer(longest, child.kill)
    watchdog.daemon = True
    watchdog.start()
    try:
        yield child
        child.wait()
    finally:
        watchdog.cancel()
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()


def _message(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _died(name: str, items: int, code: int, errors: Path) -> dict[str, Any]:
    said = errors.read_text(errors="replace")[-ERROR_CHARACTERS:]
    return {
        "name": name,
        "ok": False,
        "items": items,
        "seconds": None,
        "items_per_second": None,
        "rto_seconds": None,
        "rpo_seconds": None,
        "lost": 0,
        "mismatched": 0,
        "error": f"The scenario's process ended with status {code} before it had an outcome. {said}".strip(),
    }


def note(
    *,
    outcome: dict[str, Any],
    started_at: datetime,
    finished_at: datetime,
    scheduled: bool = False,
    tenant_id: UUID | None = None,
) -> None:
    """Keep an outcome in the history of drills."""
    with system_scope("note a drill"):
        Drill.objects.create(
            scenario=outcome["name"],
            scheduled=scheduled,
            tenant_id=tenant_id,
            started_at=started_at,
            finished_at=finished_at,
            report=outcome,
            **{name: outcome[name] for name in REPORTED},
        )
