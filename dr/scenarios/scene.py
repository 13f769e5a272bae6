"""A scenario while it is played: its steps and their times, its measures, and what the product's commands answer."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import StringIO
from typing import Any

from django.core.management import CommandError, call_command

from dr.scenarios.book import Differences
from dr.scenarios.tiers import DrillArchive, DrillStore


class ScenarioFailed(Exception):
    """Something did not go as promised."""


@dataclass(slots=True, kw_only=True)
class Play:
    """What is played, and what it leaves behind.

    Attributes:
        place: the name of all that is its own.
        measures: what goes into the report beside what every scenario has, such as `rto_seconds`.
    """

    place: str
    tell: Callable[[dict[str, Any]], None]
    steps: list[dict[str, Any]] = field(default_factory=list)
    measures: dict[str, Any] = field(default_factory=dict)
    differences: Differences = field(default_factory=Differences)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Time a step and tell of it when it is done."""
        started = time.monotonic()
        yield
        done = {"step": title, "seconds": round(time.monotonic() - started, 3)}
        self.steps.append(done)
        self.tell(done)

    def restore(self, *arguments: str) -> dict[str, Any]:
        """Run the restore command and return its report.

        Raises:
            ScenarioFailed: it did not bring everything back.
        """
        passed, report = run_command("restore_from_bigquery", *arguments)
        expect(passed, f"the restore failed: {json.dumps(report, default=str)[:2000]}")
        return report

    def verify(self, *arguments: str) -> dict[str, Any]:
        """Run the verification, deep, and return its report.

        Raises:
            ScenarioFailed: the tiers differ.
        """
        passed, report = run_command("verify_backup_integrity", "--deep", *arguments)
        expect(passed, f"the verification found faults: {json.dumps(report, default=str)[:2000]}")
        return report


@dataclass(slots=True, kw_only=True)
class Scene(Play):
    """A scenario with tiers of its own to lose.

    Attributes:
        items: how many the main tenant gets; another one, to be left alone, gets a quarter of that.
        template: a migrated database to copy.
    """

    items: int
    server_url: str
    template: str
    store: DrillStore
    archive: DrillArchive


def run_command(name: str, *arguments: str) -> tuple[bool, dict[str, Any]]:
    """Run a management command with `--json` and return whether its exit code was 0, and its report.

    Raises:
        ScenarioFailed: it did not get to a report.
    """
    out, passed = StringIO(), True
    try:
        call_command(name, *arguments, "--json", stdout=out)
    except SystemExit as end:
        passed = not end.code
    except CommandError as error:
        raise ScenarioFailed(f"{name}: {error}") from error
    return passed, dict(json.loads(out.getvalue()))


def expect(holds: bool, otherwise: str) -> None:  # noqa: FBT001 -- reads like an assertion
    """Go on if a promise holds.

    Raises:
        ScenarioFailed: saying what was wrong.
    """
    if not holds:
        raise ScenarioFailed(otherwise)
