"""`manage.py sync_to_bigquery`: one pass of the backup, now."""

import time
from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils import timezone
from tqdm import tqdm

from dr import archives, reseeding, sync
from engarde.common.commands import JSONCommand

LONGEST_WAIT_SECONDS = 120.0


class Command(JSONCommand):
    """Seals what was committed and ships what is due."""

    help = "Back up what was committed since the last pass."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take `--until-empty`."""
        super().add_arguments(parser)
        parser.add_argument("--until-empty", action="store_true", help="go on until nothing is left to ship")

        parser.add_argument(
            "--reseed",
            action="store_true",
            help="have all that PostgreSQL has shipped again, such as into a dataset that was made anew (setup_bigquery)",
        )

    def run(self, **options: Any) -> dict[str, Any]:
        """Run and return what was done.

        Raises:
            CommandError: the backup is off.
        """
        told = self._reseed(quiet=options["json"]) if options["reseed"] else 0
        done = sync.run_pass(now=timezone.now, is_probe=True)
        shipped, rows = done.shipped, done.rows
        deadline = time.monotonic() + LONGEST_WAIT_SECONDS
        while options["until_empty"] and done.status == "healthy" and done.backlog and time.monotonic() < deadline:
            if not done.shipped:
                time.sleep(0.5)  # another worker is shipping what is left
            done = sync.run_pass(now=timezone.now)
            shipped, rows = shipped + done.shipped, rows + done.rows
            deadline = time.monotonic() + LONGEST_WAIT_SECONDS if done.shipped else deadline
        figures = {name: value for name, value in asdict(done).items() if name != "ages"}
        return figures | {"told_anew": told, "shipped": shipped, "rows": rows, "until_empty": options["until_empty"]}

    def _reseed(self, *, quiet: bool) -> int:
        if archives.current() is None:
            raise CommandError("The backup is off: set BIGQUERY_PROJECT_ID and BIGQUERY_SYNC_ENABLED=true.")
        with tqdm(unit="line", desc="tell anew", disable=quiet) as bar:
            return reseeding.reseed(now=timezone.now(), progress=bar.update)

    def succeeded(self, report: dict[str, Any]) -> bool:
        """Fail when the archive is away, or something is left that should not be, so that a script notices."""
        return bool(report["status"] == "healthy" and not (report["until_empty"] and report["backlog"]))
