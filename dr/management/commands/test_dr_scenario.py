"""`manage.py test_dr_scenario`: a disaster played through on throw-away data, with what it cost."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from django.conf import settings
from django.core.management.base import CommandError, CommandParser, OutputWrapper
from django.utils import timezone

from dr.scenarios import SCENARIOS, document, running
from dr.scenarios.databases import NoRoomForDrills
from dr.scenarios.running import CannotDrill
from engarde.common.commands import JSONCommand, write_report

LINE = "{name:<18} {ok:<7} {items:>7} {seconds:>8} {items_per_second:>8} {rto_seconds:>8} {rpo_seconds:>8} {lost:>5} {mismatched:>10}"
DEFAULT_ITEMS = 100
LEAST_ITEMS = 12
MOST_ITEMS = 1_000_000


class Command(JSONCommand):
    """Makes data of its own, loses it, brings it back and compares; the platform's own data is never touched."""

    help = (
        "Play a disaster through on throw-away data, in a database, dataset and collections called drill_<time>_<random> "
        "that are removed at the end. Exit code 0 only when nothing is lost and nothing differs."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the scenario and its size."""
        super().add_arguments(parser)
        parser.add_argument("name", choices=[*SCENARIOS, "all"], metavar="NAME|all", help=", ".join(SCENARIOS))
        parser.add_argument(
            "--items",
            type=int,
            default=DEFAULT_ITEMS,
            metavar="N",
            help=f"items of the tenant that is hit ({DEFAULT_ITEMS}); another tenant gets a quarter of that",
        )
        parser.add_argument("--report", type=Path, metavar="FILE", help="write the JSON report to a file too")
        parser.add_argument("--markdown", type=Path, metavar="FILE", help="write a report for people to a file too")

    def run(self, **options: Any) -> dict[str, Any]:
        """Play and return the report.

        Raises:
            CommandError: a service is off, no database can be made, or the number of items makes no sense.
        """
        if not LEAST_ITEMS <= options["items"] <= MOST_ITEMS:
            raise CommandError(f"--items is {LEAST_ITEMS} to {MOST_ITEMS}: a scenario needs some of each kind.")
        names = SCENARIOS if options["name"] == "all" else (options["name"],)
        try:
            with _terminated_in_order():
                outcomes = running.run(
                    names=names, items=options["items"], now=timezone.now, tell=self._tell(json=options["json"])
                )
        except (CannotDrill, NoRoomForDrills) as error:
            raise CommandError(str(error)) from error
        report = {"scenarios": outcomes}
        write_report(report, options["report"])
        if options["markdown"]:
            _write_document(outcomes, options["markdown"])
        return report

    def _tell(self, *, json: bool) -> Any:
        """Return where steps are told: stdout is the report's alone with `--json`."""
        out = self.stderr if json else self.stdout

        def tell(line: str) -> None:
            if not json or sys.stderr.isatty():
                out.write(line)
                out.flush()

        return tell

    def show(self, report: dict[str, Any], out: OutputWrapper) -> None:
        """Print a line for each scenario, and why one failed."""
        titles = ("name", "ok", "items", "seconds", "items/s", "RTO s", "RPO s", "lost", "mismatched")
        names = [part.split(":")[0] for part in LINE.split("{")[1:]]
        out.write("\n" + LINE.format(**dict(zip(names, titles, strict=True))))
        for outcome in report["scenarios"]:
            shown = {name: "-" if outcome[name] is None else outcome[name] for name in names}
            out.write(LINE.format(**shown | {"ok": "ok" if outcome["ok"] else "FAILED"}))
        for outcome in report["scenarios"]:
            for line in (outcome["error"], *outcome.get("examples", ())):
                if line:
                    out.write(f"{outcome['name']}: {line}")

    def succeeded(self, report: dict[str, Any]) -> bool:
        """Fail when a scenario failed, also for what is lost or differs."""
        return all(outcome["ok"] for outcome in report["scenarios"])


def _write_document(outcomes: list[dict[str, Any]], path: Path) -> None:
    text = document.render(outcomes=outcomes, made_at=timezone.now(), embedded=bool(settings.BIGQUERY_EMULATOR_HOST))
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandError(f"The report cannot be written to {path}: {error.strerror}") from error


@contextmanager
def _terminated_in_order() -> Iterator[None]:
    """Have SIGTERM end the command as Ctrl-C does, so that it cleans up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
