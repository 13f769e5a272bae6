"""`manage.py backfill_storage_usage`: counters from what is really stored."""

import time
from pathlib import Path
from typing import Any
from uuid import UUID

from django.core.management.base import CommandError, CommandParser, OutputWrapper
from django.utils import timezone
from tqdm import tqdm

from engarde.accounts import queries as account_queries
from engarde.common.commands import JSONCommand, write_report
from quotas import reconciliation
from quotas.reconciliation import Report, TenantResult
from quotas.sizes import readable


class Command(JSONCommand):
    """Compares counters with the sums of what is stored, and repairs them. Running again changes nothing."""

    help = (
        "Compare every tenant's usage with what it really stores and repair what differs; writes may go on meanwhile. "
        "The same runs every night. Exits with 1 when a tenant could not be compared."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Take what to compare and where to report."""
        super().add_arguments(parser)
        parser.add_argument("--dry-run", action="store_true", help="say what is wrong, repair nothing")
        parser.add_argument("--tenant", type=UUID, metavar="ID", help="only this tenant")
        parser.add_argument("--report", type=Path, metavar="FILE", help="write the report as JSON too")

    def run(self, **options: Any) -> dict[str, Any]:
        """Compare and return the report.

        Raises:
            CommandError: there is no such tenant, or the report cannot be written.
        """
        started = time.perf_counter()
        tenants = _tenants(options["tenant"])
        with tqdm(total=len(tenants), unit="tenant", desc="compare", disable=options["json"]) as bar:
            found = reconciliation.run(
                now=timezone.now(),
                tenant_ids=tenants if options["tenant"] else None,
                dry_run=options["dry_run"],
                progress=bar.update,
            )
        report = _report(found, dry_run=options["dry_run"], seconds=time.perf_counter() - started)
        write_report(report, options["report"])
        return report

    def show(self, report: dict[str, Any], out: OutputWrapper) -> None:
        """Print what was wrong, tenant by tenant, and the totals."""
        verb = "differ" if report["dry_run"] else "repaired"
        for tenant_id, tenant in report["tenants"].items():
            for counter, pair in tenant["drift"].items():
                out.write(f"{tenant_id}  {counter}: counted {pair['counted']}, really {pair['real']}\n")
        for error in report["errors"]:
            out.write(f"{error['id']}  {error['message']}\n")
        tenants = "1 tenant" if report["total"] == 1 else f"{report['total']} tenants"
        out.write(
            f"{tenants}: {report['unchanged']} right, {report['changed']} {verb}, "
            f"{report['failed']} failed; {readable(report['bytes'])} stored, {report['seconds']} s\n"
        )

    def succeeded(self, report: dict[str, Any]) -> bool:
        """Fail when some tenant could not be compared."""
        return not report["failed"]


def _tenants(tenant_id: UUID | None) -> list[UUID]:
    if tenant_id is None:
        return account_queries.tenant_ids()
    if account_queries.find_tenant(tenant_id=tenant_id) is None:
        raise CommandError(f"There is no tenant {tenant_id}.")
    return [tenant_id]


def _report(found: Report, *, dry_run: bool, seconds: float) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "total": len(found.tenants) + len(found.errors),
        "changed": len(found.drifted),
        "unchanged": len(found.tenants) - len(found.drifted),
        "failed": len(found.errors),
        "bytes": sum(result.real["used_bytes"] for result in found.tenants.values()),
        "drift_bytes": found.drift_bytes,
        "tenants": {str(tenant_id): _tenant(result) for tenant_id, result in found.tenants.items()},
        "errors": [
            {"id": str(tenant_id), "code": "not_compared", "message": message}
            for tenant_id, message in found.errors.items()
        ],
        "seconds": round(seconds, 3),
    }


def _tenant(result: TenantResult) -> dict[str, Any]:
    names = ("used_bytes", "content_items", "media_files")
    return {name: result.real[name] for name in names} | {"drift": result.differences}
