"""`manage.py release`: what has to happen once before a new release serves."""

import io
import time
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.core.management import CommandError, CommandParser, call_command

from engarde.common.commands import JSONCommand

PAUSE_SECONDS = 2.0


class Command(JSONCommand):
    """Migrates, and sets up ZeroDB and BigQuery as far as they are configured."""

    help = (
        "Migrate PostgreSQL, and create what is missing in ZeroDB and BigQuery where they are configured. "
        "That one of those two is away does not fail a release (the platform runs without), unless --strict is given."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Take how long to wait and whether to insist."""
        super().add_arguments(parser)
        parser.add_argument("--wait", type=float, default=20.0, help="seconds to wait for ZeroDB and BigQuery (20)")
        parser.add_argument("--strict", action="store_true", help="fail when one of them cannot be set up")

    def run(self, **options: Any) -> dict[str, Any]:
        """Do it and return what became of each part."""
        wait: float = options["wait"]
        self._strict: bool = options["strict"]
        call_command("migrate", interactive=False, verbosity=0)
        report = {"postgres": "migrated", "zerodb": "not configured", "bigquery": "not configured"}
        if settings.ZERODB_API_KEY:
            report["zerodb"] = _set_up("setup_zerodb", wait)
        if settings.BIGQUERY_SYNC_ENABLED and settings.BIGQUERY_PROJECT_ID:
            report["bigquery"] = _set_up("setup_bigquery", wait)
        return report

    def succeeded(self, report: dict[str, Any]) -> bool:
        """Tell whether all that had to be done was."""
        return not self._strict or not any(state.startswith("failed") for state in report.values())


def _set_up(command: str, wait: float) -> str:
    deadline = time.monotonic() + wait
    while (problem := _problem(lambda: call_command(command, json=True, stdout=io.StringIO()))) is not None:
        if time.monotonic() > deadline:
            return f"failed: {problem}"
        time.sleep(PAUSE_SECONDS)
    return "set up"


def _problem(act: Callable[[], object]) -> str | None:
    try:
        act()
    except CommandError as error:
        return str(error)
    return None
