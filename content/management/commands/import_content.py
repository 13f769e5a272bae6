"""`manage.py import_content`: a folder of documents becomes content."""

import time
from collections import Counter
from pathlib import Path
from typing import Any
from uuid import UUID

from django.core.management.base import CommandError, CommandParser
from django.utils import timezone
from tqdm import tqdm

from content import importer
from engarde.accounts import queries as account_queries
from engarde.common.commands import JSONCommand, write_report


class Command(JSONCommand):
    """Imports Markdown, text and HTML files; one bad file never stops the rest, and a second run changes nothing."""

    help = "Import a folder of Markdown, text and HTML files; YAML front matter gives title, tags, status and type."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the folder and the tenant."""
        super().add_arguments(parser)
        parser.add_argument("path", type=Path, help="a folder (or one file)")
        parser.add_argument("--tenant", type=UUID, required=True, metavar="ID")
        parser.add_argument("--limit", type=int, metavar="N", help="stop after N files")
        parser.add_argument("--dry-run", action="store_true", help="read and check every file, store nothing")
        parser.add_argument("--report", type=Path, metavar="FILE", help="write the JSON report to a file too")

    def run(self, **options: Any) -> dict[str, Any]:
        """Import and return the report.

        Raises:
            CommandError: there is no such folder or tenant.
        """
        root = options["path"].resolve()
        if not root.exists():
            raise CommandError(f"There is nothing at {options['path']}.")
        if account_queries.find_tenant(tenant_id=options["tenant"]) is None:
            raise CommandError(f"There is no tenant {options['tenant']}.")
        started = time.perf_counter()
        outcomes = [self._import(root, path, options) for path in _progress(root, options)]
        report = _report(outcomes, seconds=time.perf_counter() - started, dry_run=options["dry_run"])
        write_report(report, options["report"])
        return report

    def _import(self, root: Path, path: Path, options: dict[str, Any]) -> importer.Outcome:
        if options["dry_run"]:
            return importer.check_file(tenant_id=options["tenant"], root=root, path=path)
        return importer.import_file(tenant_id=options["tenant"], root=root, path=path, now=timezone.now())

    def succeeded(self, report: dict[str, Any]) -> bool:
        """Fail when any file failed."""
        return not report["failed"]


def _progress(root: Path, options: dict[str, Any]) -> Any:
    files = importer.find_files(root)[: options["limit"]]
    return tqdm(files, unit="file", desc="import", disable=options["json"])


def _report(outcomes: list[importer.Outcome], *, seconds: float, dry_run: bool) -> dict[str, Any]:
    counts = Counter(outcome.result for outcome in outcomes)
    failed = [outcome for outcome in outcomes if outcome.result == "failed"]
    return {
        "dry_run": dry_run,
        "total": len(outcomes),
        **{result: counts[result] for result in ("created", "updated", "unchanged", "skipped", "failed")},
        "bytes": sum(outcome.size_bytes for outcome in outcomes),
        "errors": [{"id": outcome.path, "code": outcome.code, "message": outcome.message} for outcome in failed],
        "seconds": round(seconds, 3),
        "items_per_second": round(len(outcomes) / seconds, 1) if seconds else None,
    }
