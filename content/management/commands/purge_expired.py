"""`manage.py purge_expired`: what is older than the plan's retention goes for good."""

import time
from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone
from tqdm import tqdm

from content import retention
from engarde.common.commands import JSONCommand


class Command(JSONCommand):
    """Removes trash and superseded versions by plan, and trims what is kept for a while only. Running again is harmless."""

    help = (
        "Remove trash and old versions that are older than the tenant's plan keeps them, and trim the platform's logs."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Take `--dry-run`."""
        super().add_arguments(parser)
        parser.add_argument("--dry-run", action="store_true", help="say what would go, remove nothing")

    def run(self, **options: Any) -> dict[str, Any]:
        """Purge and return the report."""
        started = time.perf_counter()
        with tqdm(unit="row", desc="purge", disable=options["json"] or options["dry_run"]) as bar:
            done = retention.purge(now=timezone.now(), dry_run=options["dry_run"], progress=bar.update)
        seconds = round(time.perf_counter() - started, 3)
        return {"dry_run": options["dry_run"], **asdict(done), "seconds": seconds}

    def succeeded(self, report: dict[str, Any]) -> bool:
        """Fail when some tenant's retention was not applied."""
        return not report["failed_tenants"]
