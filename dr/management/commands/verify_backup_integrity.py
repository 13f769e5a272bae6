"""`manage.py verify_backup_integrity`: do PostgreSQL, ZeroDB and BigQuery agree, byte for byte?"""

import json
import time
from pathlib import Path
from typing import Any
from uuid import UUID

from django.core.management.base import CommandError, CommandParser, OutputWrapper
from django.utils import timezone
from tqdm import tqdm

from dr import archives, verify
from engarde.accounts import queries as account_queries
from engarde.common.commands import JSONCommand, write_report


class Command(JSONCommand):
    """Compares all tiers by sums of hashes, and by rows where these differ; exit code 0 only when every item matches."""

    help = "Compare every version in PostgreSQL, ZeroDB and BigQuery; exit code 0 only when all match."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the tenant, how thorough to be, and where to write."""
        super().add_arguments(parser)
        parser.add_argument(
            "--tenant", type=UUID, metavar="ID", help="one tenant; default: all, and the platform's rows"
        )
        parser.add_argument("--deep", action="store_true", help="hash every document anew in every tier")
        parser.add_argument("--repair", action="store_true", help="mend what can be mended, and report what is left")
        parser.add_argument("--report", type=Path, metavar="FILE", help="write the JSON report to a file too")
        parser.add_argument(
            "--findings",
            type=Path,
            metavar="FILE",
            help="write all findings that are kept to a file, a JSON object a line",
        )

    def run(self, **options: Any) -> dict[str, Any]:
        """Verify and return the report.

        Raises:
            CommandError: the backup is off, a tier is away, there is no such tenant, or a file cannot be written.
        """
        archive = archives.current()
        if archive is None:
            raise CommandError("The backup is off: set BIGQUERY_PROJECT_ID and BIGQUERY_SYNC_ENABLED=true.")
        if options["tenant"] and options["tenant"] not in account_queries.tenant_ids():
            raise CommandError(f"There is no tenant {options['tenant']}.")
        started = time.perf_counter()
        with tqdm(unit="document", desc="verify", disable=options["json"]) as bar:
            try:
                found = verify.run(
                    archive=archive,
                    tenant_id=options["tenant"],
                    deep=options["deep"],
                    repair_too=options["repair"],
                    now=timezone.now,
                    progress=bar.update,
                )
            except verify.AWAY as error:
                raise CommandError(f"Not verified: {error}") from error
        report = _report(found, seconds=time.perf_counter() - started)
        write_report(report, options["report"])
        _export(found, options["findings"])
        return report

    def show(self, report: dict[str, Any], out: OutputWrapper) -> None:
        """Print the counts, and the findings a line each."""
        super().show({name: value for name, value in report.items() if name != "findings"}, out)
        for finding in report["findings"]:
            out.write("{tier}: {entity_type} {id} version {version}: {kind}, {problem}".format(**finding))

    def succeeded(self, report: dict[str, Any]) -> bool:
        """Fail when any item does not match."""
        return not (report["mismatched"] or report["missing"] or report["extra"])


def _report(found: verify.Verified, *, seconds: float) -> dict[str, Any]:
    return {
        "verification_id": str(found.verification_id),
        "checked": found.checked,
        "versions": found.versions,
        "rows": found.rows,
        "mismatched": found.mismatched,
        "missing": found.missing,
        "extra": found.extra,
        "waiting": found.waiting,
        "repaired": found.repaired,
        "findings_total": found.found,
        "findings": found.findings,
        "seconds": round(seconds, 3),
    }


def _export(found: verify.Verified, path: Path | None) -> None:
    if path is None:
        return
    try:
        with path.open("w", encoding="utf-8") as file:
            for finding in verify.export(found.verification_id):
                file.write(json.dumps(finding) + "\n")
    except OSError as error:
        raise CommandError(f"The findings cannot be written to {path}: {error.strerror}") from error
