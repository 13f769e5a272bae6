"""`manage.py erase_tenant`: a tenant out of every tier and the backup, with a certificate."""

import json
from pathlib import Path
from typing import Any
from uuid import UUID

from django.core.management.base import CommandError, CommandParser
from django.utils import timezone
from tqdm import tqdm

from dr import erasure
from engarde.accounts import queries as account_queries
from engarde.common.commands import JSONCommand, write_report


class Command(JSONCommand):
    """Erases for good; what it did is kept, so that it goes on where it stopped when it is run again."""

    help = "Erase a tenant from PostgreSQL, ZeroDB, Redis, the media storages and BigQuery, and print the certificate."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the tenant, and its name as a confirmation."""
        super().add_arguments(parser)
        parser.add_argument("--tenant", type=UUID, required=True, metavar="ID")
        parser.add_argument("--confirm", default="", metavar="NAME", help="the tenant's name, letter for letter")
        parser.add_argument("--reason", default="", metavar="TEXT", help="kept beside the certificate, not in it")
        parser.add_argument("--dry-run", action="store_true", help="say what would go, remove nothing")
        parser.add_argument("--report", type=Path, metavar="FILE", help="write the certificate to a file too")

    def run(self, **options: Any) -> dict[str, Any]:
        """Erase and return the certificate; of a tenant that was erased before, that of then.

        Raises:
            CommandError: there is no such tenant, it is not confirmed, a restore runs, or a tier is away.
        """
        tenant_id, last = options["tenant"], erasure.last_of(tenant_id=options["tenant"])
        tenant = account_queries.find_tenant(tenant_id=tenant_id)
        try:
            if tenant is None and last is not None and last.certificate:
                report: dict[str, Any] = last.certificate
            elif options["dry_run"]:
                report = {"dry_run": True, "would_remove": erasure.foresee_tenant(tenant_id=tenant_id)}
            else:
                self._require_confirmation(tenant.name if tenant else None, options)
                report = self._erase(options)
        except (erasure.UnknownSubject, erasure.ErasureRefused, erasure.ErasureUnfinished) as error:
            raise CommandError(str(error)) from error
        write_report(report, options["report"])
        return report

    def _require_confirmation(self, name: str | None, options: dict[str, Any]) -> None:
        """Refuse unless the tenant is named; one whose row is gone was named when its erasure began."""
        if name is None or options["confirm"] == name:
            return
        counts = json.dumps(erasure.foresee_tenant(tenant_id=options["tenant"]))
        raise CommandError(f"Nothing was removed. This would go: {counts}. Confirm with --confirm {name!r}.")

    def _erase(self, options: dict[str, Any]) -> dict[str, Any]:
        with tqdm(unit="row", desc="erase", disable=options["json"]) as bar:
            return erasure.erase_tenant(
                tenant_id=options["tenant"], now=timezone.now, reason=options["reason"][:300], progress=bar.update
            )
