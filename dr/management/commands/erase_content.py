"""`manage.py erase_content`: one item out of every tier and the backup, with a certificate."""

from pathlib import Path
from typing import Any
from uuid import UUID

from django.core.management.base import CommandError, CommandParser
from django.utils import timezone
from tqdm import tqdm

from dr import erasure
from dr.archives.base import ArchiveRefused, ArchiveUnavailable
from engarde.common.commands import JSONCommand, write_report


class Command(JSONCommand):
    """Erases for good; what it did is kept, so that it goes on where it stopped when it is run again."""

    help = "Erase one item, its versions and its own media files from every tier, and print the certificate."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the tenant and the item."""
        super().add_arguments(parser)
        parser.add_argument("--tenant", type=UUID, required=True, metavar="ID")
        parser.add_argument("--content", type=UUID, required=True, metavar="ID")
        parser.add_argument("--reason", default="", metavar="TEXT", help="kept beside the certificate, not in it")
        parser.add_argument("--dry-run", action="store_true", help="say what would go, remove nothing")
        parser.add_argument("--report", type=Path, metavar="FILE", help="write the certificate to a file too")

    def run(self, **options: Any) -> dict[str, Any]:
        """Erase and return the certificate; of an item that was erased before, that of then.

        Raises:
            CommandError: there is no such item, a restore runs, or a tier is away.
        """
        which = {"tenant_id": options["tenant"], "content_id": options["content"]}
        try:
            if options["dry_run"]:
                report = {"dry_run": True, "would_remove": erasure.foresee_content(**which)}
            else:
                report = self._erase(which, options)
        except erasure.UnknownSubject as error:
            last = erasure.last_of(**which)
            if last is None or not last.certificate:
                raise CommandError(str(error)) from error
            report = last.certificate
        except (erasure.ErasureRefused, erasure.ErasureUnfinished, ArchiveRefused, ArchiveUnavailable) as error:
            raise CommandError(str(error)) from error
        write_report(report, options["report"])
        return report

    def _erase(self, which: dict[str, UUID], options: dict[str, Any]) -> dict[str, Any]:
        with tqdm(unit="row", desc="erase", disable=options["json"]) as bar:
            return erasure.erase_content(**which, now=timezone.now, reason=options["reason"][:300], progress=bar.update)
