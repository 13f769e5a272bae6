"""`manage.py restore_from_bigquery`: a tenant, or everything, back from the backup."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from django.core.management.base import CommandError, CommandParser, OutputWrapper
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from tqdm import tqdm

from content.stores.base import StoreRejected, StoreUnavailable
from dr import archives, restore, restores
from dr.archives.base import Archive, ArchiveRefused, ArchiveUnavailable
from dr.door import DoorBusy
from dr.restore import NewerHere, NothingThen, Restored, Wanted
from engarde.common.commands import JSONCommand, write_report

AWAY = (ArchiveUnavailable, ArchiveRefused, StoreUnavailable, StoreRejected, DoorBusy)


class Command(JSONCommand):
    """Restores the latest state, or an earlier one; over equal data it changes nothing."""

    help = (
        "Bring everything, or one tenant, back from BigQuery: rows and content into PostgreSQL, documents into ZeroDB. "
        "It writes only what is missing or older here and may be run again at any time. With --as-of it goes back in time: "
        "what differs gets a new version, what was made later goes to the trash. Writes of those concerned are answered "
        "503 until it is done."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Take what to restore, to when and where."""
        super().add_arguments(parser)
        parser.add_argument("--tenant", type=UUID, metavar="ID", help="one tenant; default: all")
        parser.add_argument(
            "--as-of",
            type=_moment,
            metavar="TIME",
            help="the state of then, such as 2026-11-28T14:00:00Z; default: the latest",
        )
        parser.add_argument("--tier", choices=["zerodb", "postgres", "all"], default="all")
        parser.add_argument("--dry-run", action="store_true", help="say what would change, change nothing")
        parser.add_argument(
            "--force",
            action="store_true",
            help="have tenants, brands, plans and overrides equal the backup though they are here (never who may log in), and "
            "with --as-of go back over changes that the backup does not have yet",
        )
        parser.add_argument(
            "--no-refill", action="store_true", help="leave sending documents to ZeroDB and indexing to the workers"
        )
        parser.add_argument("--report", type=Path, metavar="FILE", help="write the JSON report to a file too")

    def run(self, **options: Any) -> dict[str, Any]:
        """Restore and return the report.

        Raises:
            CommandError: the backup is off or away, ZeroDB is away, another restore runs, or the backup knows no such tenant.
        """
        archive = archives.current()
        if archive is None:
            raise CommandError("The backup is off: set BIGQUERY_PROJECT_ID and BIGQUERY_SYNC_ENABLED=true.")
        wanted = Wanted(
            tenant_id=options["tenant"],
            tiers=restore.TIERS if options["tier"] == "all" else frozenset({options["tier"]}),
            as_of=options["as_of"],
            force=options["force"],
            dry_run=options["dry_run"],
            refill=not options["no_refill"],
        )
        if wanted.as_of and wanted.as_of > timezone.now():
            raise CommandError(f"--as-of {wanted.as_of:%Y-%m-%dT%H:%M:%SZ} is in the future.")
        if wanted.as_of and "postgres" not in wanted.tiers:
            raise CommandError("--as-of needs PostgreSQL, which decides: leave --tier out, or say --tier postgres.")
        report = self._restore(archive, wanted, quiet=options["json"])
        write_report(report, options["report"])
        return report

    def _restore(self, archive: Archive, wanted: Wanted, *, quiet: bool) -> dict[str, Any]:
        begun, kept = time.perf_counter(), restores.begin(wanted=wanted, now=timezone.now())
        with tqdm(unit="record", desc="restore", disable=quiet) as bar:
            try:
                _require_tenant(archive, wanted)
                done = restore.run(archive=archive, wanted=wanted, now=timezone.now, progress=bar.update)
            except (NewerHere, NothingThen) as error:
                restores.end(kept, ok=False, report={"error": str(error)}, now=timezone.now())
                raise CommandError(str(error)) from error
            except AWAY as error:
                restores.end(kept, ok=False, report={"error": str(error)}, now=timezone.now())
                raise CommandError(f"{error} Run it again; it goes on where it stopped.") from error
            except BaseException as error:
                restores.end(kept, ok=False, report={"error": repr(error)[:500]}, now=timezone.now())
                raise
        report = _report(done, dry_run=wanted.dry_run, seconds=time.perf_counter() - begun)
        restores.end(kept, ok=not done.failed, report=report, now=timezone.now())
        return report

    def show(self, report: dict[str, Any], out: OutputWrapper) -> None:
        """Print the counts, the errors a line each, and what has to be entered again."""
        lines = {name: value for name, value in report.items() if name not in ("errors", "enter_again")}
        super().show(lines, out)
        for error in report["errors"]:
            out.write("{id}: {code}: {message}".format(**error))
        for one in report["enter_again"]:
            out.write(f"not in the backup, to be entered again: {one}")

    def succeeded(self, report: dict[str, Any]) -> bool:
        """Fail when anything could not be brought back."""
        return not report["failed"]


def _moment(text: str) -> datetime:
    """Return a time; one without a zone is in UTC.

    Raises:
        ValueError: it is none.
    """
    moment = parse_datetime(text)
    if moment is None:
        raise ValueError(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _require_tenant(archive: Archive, wanted: Wanted) -> None:
    """Refuse a tenant that neither the platform nor the backup has ever had.

    Raises:
        CommandError: there is none.
    """
    if wanted.tenant_id and not restores.is_known(archive=archive, tenant_id=wanted.tenant_id):
        raise CommandError(f"There is no tenant {wanted.tenant_id}, neither here nor in the backup.")


def _report(done: Restored, *, dry_run: bool, seconds: float) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "would_change": done.changed,
        "changed": 0 if dry_run else done.changed,
        "items": done.items,
        "rows": done.rows,
        "turned_back": done.turned_back,
        "trashed": done.trashed,
        "respooled": done.respooled,
        "records": done.records,
        "uploaded": done.uploaded,
        "indexed": done.indexed,
        "media_files": done.media_files,
        "newer": done.newer,
        "checked": done.checked,
        "failed": done.failed,
        "errors": done.errors,
        "enter_again": list(done.enter_again),
        "phases": done.seconds,
        "seconds": round(seconds, 3),
    }
