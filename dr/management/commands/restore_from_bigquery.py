"""`manage.py restore_from_bigquery`: a tenant, or everything, back from the backup."""

import time
from pathlib import Path
from typing import Any
from uuid import UUID

from django.core.management.base import CommandError, CommandParser
from django.utils import timezone
from tqdm import tqdm

from content.stores.base import StoreRejected, StoreUnavailable
from dr import archives, restore
from dr.archives.base import Archive, ArchiveRefused, ArchiveUnavailable
from engarde.accounts import queries as account_queries
from engarde.common.commands import JSONCommand, write_report


class Command(JSONCommand):
    """Restores the latest state; it writes only what is missing, so over equal data it changes nothing."""

    help = "Bring content back from BigQuery: items and versions into PostgreSQL, documents into ZeroDB."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the tenant and the tiers."""
        super().add_arguments(parser)
        parser.add_argument("--tenant", type=UUID, metavar="ID", help="one tenant; default: all")
        parser.add_argument("--tier", choices=["zerodb", "postgres", "all"], default="all")
        parser.add_argument("--dry-run", action="store_true", help="say what would change, change nothing")
        parser.add_argument("--report", type=Path, metavar="FILE", help="write the JSON report to a file too")

    def run(self, **options: Any) -> dict[str, Any]:
        """Restore and return the report.

        Raises:
            CommandError: the backup is off or away, ZeroDB is away, or there is no such tenant.
        """
        archive = archives.current()
        if archive is None:
            raise CommandError("The backup is off: set BIGQUERY_PROJECT_ID and BIGQUERY_SYNC_ENABLED=true.")
        if options["tenant"] and account_queries.find_tenant(tenant_id=options["tenant"]) is None:
            raise CommandError(f"There is no tenant {options['tenant']}.")
        started = time.perf_counter()
        done = self._restore(archive, options)
        report = _report(done, dry_run=options["dry_run"], seconds=time.perf_counter() - started)
        write_report(report, options["report"])
        return report

    def _restore(self, archive: Archive, options: dict[str, Any]) -> restore.Restored:
        tiers = restore.TIERS if options["tier"] == "all" else {options["tier"]}
        with tqdm(unit="item", desc="restore", disable=options["json"]) as bar:
            try:
                return restore.run(
                    archive=archive,
                    tenant_id=options["tenant"],
                    tiers=tiers,
                    dry_run=options["dry_run"],
                    now=timezone.now,
                    progress=bar.update,
                )
            except (ArchiveUnavailable, ArchiveRefused, StoreUnavailable, StoreRejected) as error:
                raise CommandError(f"{error} Run it again; it goes on where it stopped.") from error

    def succeeded(self, report: dict[str, Any]) -> bool:
        """Fail when anything could not be brought back."""
        return not report["errors"]


def _report(done: restore.Restored, *, dry_run: bool, seconds: float) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "checked": done.checked,
        "would_change": done.changed,
        "changed": 0 if dry_run else done.changed,
        "uploaded": done.uploaded,
        "errors": done.errors,
        "seconds": round(seconds, 3),
    }
