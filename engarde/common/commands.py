"""Management commands that people and programs can use alike."""

import json
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser, OutputWrapper

from engarde.common import wake
from engarde.common.problems import Problem, explain


class JSONCommand(BaseCommand):
    """A command with `--json`: then it prints one JSON object on stdout and nothing else there.

    A subclass's `run` returns the report; a problem in it ends the command with its detail and exit code 1.
    """

    options: dict[str, Any]

    def add_arguments(self, parser: CommandParser) -> None:
        """Take `--json`."""
        parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")

    def run(self, **options: Any) -> dict[str, Any]:
        """Do the work and return the report."""
        raise NotImplementedError

    def show(self, report: dict[str, Any], out: OutputWrapper) -> None:
        """Print the report for people: by default a line a value."""
        for name, value in report.items():
            out.write(f"{name:<22} {value}\n")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Run, print, and exit with 1 when the report says that it failed.

        Raises:
            CommandError: the work could not be done.
        """
        try:
            report = self.run(**options)
        except Problem as problem:
            raise CommandError(explain(problem)) from problem
        wake.after_commit("dr.sync")  # what it wrote is backed up within seconds
        if options["json"]:
            self.stdout.write(json.dumps(report, default=str))
        else:
            self.show(report, self.stdout)
        if not self.succeeded(report):
            raise SystemExit(1)

    def succeeded(self, report: dict[str, Any]) -> bool:
        """Tell whether the exit code is 0."""
        return True


def write_report(report: dict[str, Any], path: Path | None) -> None:
    """Write a report to a file, if one was asked for.

    Raises:
        CommandError: the file cannot be written.
    """
    if path is None:
        return
    try:
        path.write_text(json.dumps(report, default=str, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise CommandError(f"The report cannot be written to {path}: {error.strerror}") from error
