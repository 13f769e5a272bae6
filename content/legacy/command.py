"""What the two migration commands share."""

import time
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser, OutputWrapper
from django.db import DatabaseError
from django.utils import timezone
from tqdm import tqdm

from content.legacy import migrate, report, source
from content.legacy.migrate import Wanted
from content.legacy.source import Selection
from engarde.common.commands import JSONCommand, write_report
from engarde.common.problems import Problem, explain

COULD_NOT_RUN = 2
MOST_A_BATCH = 1000


class MigrationCommand(JSONCommand):
    """Moves a table of the old platform over; exits with 1 when rows failed and with 2 when it could not run."""

    table = ""

    def add_arguments(self, parser: CommandParser) -> None:
        """Take what to migrate, and how."""
        super().add_arguments(parser)
        parser.add_argument("--dry-run", action="store_true", help="read and check every row, write nothing")
        parser.add_argument(
            "--batch-size", type=_batch_size, default=100, metavar="N", help="rows that are written together (100)"
        )
        parser.add_argument("--tenant", default="", metavar="ID", help="only this tenant's rows, by its old id")
        parser.add_argument("--limit", type=_number, metavar="N", help="look at N rows and stop")
        parser.add_argument("--resume", action="store_true", help="go on behind the last completed batch")
        parser.add_argument("--report", type=Path, metavar="FILE", help="write the report as JSON too")
        parser.add_argument(
            "--mend", action="store_true", help="bring rows over that the API would refuse, where nothing is lost by it"
        )
        parser.add_argument("--no-files", action="store_true", help="fetch no files; record where they are")

    def run(self, **options: Any) -> dict[str, Any]:
        """Migrate and return the report.

        Raises:
            CommandError: it could not run; what was completed stays, and --resume goes on behind it.
        """
        started, wanted = time.perf_counter(), self._wanted(options)
        _require_writable(options["report"])
        try:
            with source.opened() as opened, tqdm(unit="row", desc=self.table, disable=options["json"]) as bar:
                done = migrate.run(source=opened, wanted=wanted, now=timezone.now, begin=bar.reset, progress=bar.update)
        except Problem as problem:
            raise CommandError(explain(problem), returncode=COULD_NOT_RUN) from problem
        except KeyboardInterrupt as error:
            message = "Stopped. What was completed stays; --resume goes on behind it."
            raise CommandError(message, returncode=COULD_NOT_RUN) from error
        except DatabaseError as error:
            message = f"The database failed; what was completed stays, --resume goes on behind it. {error}"
            raise CommandError(message, returncode=COULD_NOT_RUN) from error
        found = report.report_of(done, wanted=wanted, seconds=time.perf_counter() - started)
        write_report(found, options["report"])
        return found

    def _wanted(self, options: dict[str, Any]) -> Wanted:
        return Wanted(
            selection=Selection(self.table, options["tenant"].strip()),
            batch_size=options["batch_size"],
            limit=options["limit"],
            resume=options["resume"],
            dry_run=options["dry_run"],
            mend=options["mend"],
            fetch=not options["no_files"],
        )

    def show(self, report_: dict[str, Any], out: OutputWrapper) -> None:
        """Print the report for people."""
        report.show(report_, out)

    def succeeded(self, report_: dict[str, Any]) -> bool:
        """Fail when some row failed, or arrived as something else."""
        return not report_["failed"] and not report_["notices"].get("differs")


def _require_writable(path: Path | None) -> None:
    """See that a report can be written before hours of work go into it.

    Raises:
        CommandError: it cannot.
    """
    try:
        if path is not None:
            path.open("a").close()
    except OSError as error:
        message = f"The report cannot be written to {path}: {error.strerror}"
        raise CommandError(message, returncode=COULD_NOT_RUN) from error


def _number(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise ArgumentTypeError("a whole number from 1")
    return int(text)


def _batch_size(text: str) -> int:
    number = _number(text)
    if number > MOST_A_BATCH:
        raise ArgumentTypeError(f"at most {MOST_A_BATCH}")
    return number
