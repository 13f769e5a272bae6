"""The report of a migration, for programs and for people."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from django.core.management.base import OutputWrapper

from content.legacy.migrate import Done, Wanted
from content.models import LegacyProblem
from quotas.sizes import readable

MOST_LISTED = 10_000
MOST_SHOWN = 20


def report_of(done: Done, *, wanted: Wanted, seconds: float) -> dict[str, Any]:
    """Return the report as the contract has it, and more; of errors and warnings the first ten thousand each."""
    tally = done.tally
    looked_at = tally.total
    return {
        "dry_run": wanted.dry_run,
        "table": wanted.selection.table,
        "total": tally.total,
        "created": tally.created,
        "unchanged": tally.unchanged,
        "failed": tally.failed,
        "bytes": tally.bytes,
        "media": tally.media,
        "media_fetched": tally.fetched,
        "tenants": {tenant_id: asdict(one) for tenant_id, one in tally.tenants.items()},
        "errors": _listed(done, LegacyProblem.Kind.ERROR),
        "reasons": dict(tally.reasons.most_common()),
        "warnings": _listed(done, LegacyProblem.Kind.WARNING),
        "notices": dict(tally.notices.most_common()),
        "checksums": {
            "compared": tally.compared,
            "equal": tally.equal,
            "different": tally.compared - tally.equal,
        },
        "deleted_left_behind": done.counts.deleted,
        "resumed": done.resumed,
        "finished": done.finished,
        "seconds": round(seconds, 3),
        "rows_per_second": round(looked_at / seconds, 1) if seconds else None,
    }


def _listed(done: Done, kind: str) -> list[dict[str, str]]:
    rows: Iterable[LegacyProblem] = (one for one in done.dry_problems if one.kind == kind)
    if not done.run._state.adding:
        rows = done.run.problems.filter(kind=kind).order_by("id")[:MOST_LISTED]
    return [{"id": one.old_id, "code": one.code, "message": one.message} for one in rows]


def show(report: dict[str, Any], out: OutputWrapper) -> None:
    """Print what became of the rows, tenant by tenant, and why some stayed behind."""
    for tenant_id, one in report["tenants"].items():
        name = plain(one["name"])
        full = f", {one['quota_exceeded']} over the storage limit" if one["quota_exceeded"] else ""
        out.write(
            f"{tenant_id}  {name}: {one['created']} created, {one['unchanged']} unchanged, {one['failed']} failed{full}; "
            f"{readable(one['bytes'])}, {one['media']} media"
        )
    for error in report["errors"][:MOST_SHOWN]:
        out.write(f"  failed  {plain(error['id'])}  {error['code']}: {plain(error['message'])}")
    for warning in report["warnings"][:MOST_SHOWN]:
        out.write(f"  note    {plain(warning['id'])}  {warning['code']}: {plain(warning['message'])}")
    if len(report["errors"]) > MOST_SHOWN or len(report["warnings"]) > MOST_SHOWN:
        out.write("  … and more: --report FILE has them.")
    for code, number in report["reasons"].items():
        out.write(f"  {number:>8} failed: {code}")
    for code, number in report["notices"].items():
        out.write(f"  {number:>8} noted: {code}")
    verb = "would be created" if report["dry_run"] else "created"
    out.write(
        f"{report['table']}: {report['total']} rows, {report['created']} {verb}, {report['unchanged']} unchanged, "
        f"{report['failed']} failed; {readable(report['bytes'])} of text, {report['media']} media files; "
        f"{report['seconds']} s, {report['rows_per_second']} rows/s"
    )
    checked = report["checksums"]
    if checked["compared"]:
        out.write(f"Read back and compared: {checked['compared']}, different: {checked['different']}.")
    if report["deleted_left_behind"]:
        out.write(f"Deleted on the old platform, and left behind: {report['deleted_left_behind']}.")
    if not report["finished"]:
        out.write("There is more: --resume goes on behind the last completed batch.")


def plain(text: str) -> str:
    """Return a text as a terminal may show it: old rows must not move its cursor or write lines of their own."""
    return "".join(one if one.isprintable() else f"\\x{ord(one):02x}" for one in text)
