"""`manage.py verify_backup_integrity`: do PostgreSQL, ZeroDB and BigQuery agree, byte for byte?"""

import time
from pathlib import Path
from typing import Any
from uuid import UUID

from django.core.management.base import CommandError, CommandParser, OutputWrapper
from tqdm import tqdm

from content.stores.base import StoreRejected, StoreUnavailable
from dr import archives, verify
from dr.archives.base import Archive, ArchiveRefused, ArchiveUnavailable
from engarde.accounts import queries as account_queries
from engarde.common.commands import JSONCommand, write_report


class Command(JSONCommand):
    """Reads every version in all tiers and compares checksums; exit code 0 only when every item matches."""

    help = "Compare every version in PostgreSQL, ZeroDB and BigQuery; exit code 0 only when all match."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the tenant."""
        super().add_arguments(parser)
        parser.add_argument("--tenant", type=UUID, metavar="ID", help="one tenant; default: all")
        parser.add_argument("--report", type=Path, metavar="FILE", help="write the JSON report to a file too")

    def run(self, **options: Any) -> dict[str, Any]:
        """Verify and return the report.

        Raises:
            CommandError: the backup is off, a tier is away, or there is no such tenant.
        """
        archive = archives.current()
        if archive is None:
            raise CommandError("The backup is off: set BIGQUERY_PROJECT_ID and BIGQUERY_SYNC_ENABLED=true.")
        tenants = account_queries.tenant_ids()
        if options["tenant"] and options["tenant"] not in tenants:
            raise CommandError(f"There is no tenant {options['tenant']}.")
        started = time.perf_counter()
        found = self._verify(archive, [options["tenant"]] if options["tenant"] else tenants, quiet=options["json"])
        report = _report(found, seconds=time.perf_counter() - started)
        write_report(report, options["report"])
        return report

    def _verify(self, archive: Archive, tenants: list[UUID], *, quiet: bool) -> verify.Verified:
        found = verify.Verified()
        with tqdm(unit="item", desc="verify", disable=quiet) as bar:
            try:
                for tenant_id in tenants:
                    verify.run(archive=archive, tenant_id=tenant_id, found=found, progress=bar.update)
            except (ArchiveUnavailable, ArchiveRefused, StoreUnavailable, StoreRejected) as error:
                raise CommandError(f"Not verified: {error}") from error
        return found

    def show(self, report: dict[str, Any], out: OutputWrapper) -> None:
        """Print the counts, and the findings a line each."""
        super().show({name: value for name, value in report.items() if name != "findings"}, out)
        for finding in report["findings"]:
            out.write("{tier}: item {id} version {version}: {problem}".format(**finding))

    def succeeded(self, report: dict[str, Any]) -> bool:
        """Fail when any item does not match."""
        return not (report["mismatched"] or report["missing"] or report["extra"])


def _report(found: verify.Verified, *, seconds: float) -> dict[str, Any]:
    return {
        "checked": found.checked,
        "versions": found.versions,
        "mismatched": found.mismatched,
        "missing": found.missing,
        "extra": found.extra,
        "findings": found.findings,
        "seconds": round(seconds, 3),
    }
