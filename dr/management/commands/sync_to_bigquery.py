"""`manage.py sync_to_bigquery`: one pass of the backup, now."""

from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from dr import sync
from engarde.common.commands import JSONCommand


class Command(JSONCommand):
    """Seals what was committed and ships what is due."""

    help = "Back up what was committed since the last pass."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take `--until-empty`."""
        super().add_arguments(parser)
        parser.add_argument("--until-empty", action="store_true", help="go on until nothing is left to ship")

    def run(self, **options: Any) -> dict[str, Any]:
        """Run and return what was done."""
        done = sync.run_pass(now=timezone.now)
        shipped, rows = done.shipped, done.rows
        while options["until_empty"] and done.shipped and done.status == "healthy" and done.backlog:
            done = sync.run_pass(now=timezone.now)
            shipped, rows = shipped + done.shipped, rows + done.rows
        return asdict(done) | {"shipped": shipped, "rows": rows}

    def succeeded(self, report: dict[str, Any]) -> bool:
        """Fail when the archive is away, so that a script notices."""
        return bool(report["status"] == "healthy")
