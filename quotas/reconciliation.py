"""Reconciliation: counters against the sums of what is really stored; a difference is repaired and reported.

Comparing takes no lock: each transaction commits what it stores together with its charge, so at any one moment both agree.
Only where they do not, the usage is locked first, so that nobody charges meanwhile, and summed up again in later
statements, which see all that was charged before; one statement that did both would make the drift it looks for.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from django.conf import settings
from django.db.models import F
from django.db.models.functions import Now
from django.utils.module_loading import import_string

from engarde.accounts import queries as account_queries
from engarde.common.scopes import system_scope, tenant_scope
from quotas import alerts, reservations
from quotas.models import Alert, AlertDelivery, Drift, MonthlyGeneration, Plan, QuotaUsage, Reconciliation, TypeUsage
from quotas.usage import Sums

log = structlog.get_logger(__name__)

KEPT = timedelta(days=400)
State = dict[str, int]
Differences = dict[str, dict[str, int]]


@dataclass(slots=True)
class TenantResult:
    """What comparing one tenant found.

    Attributes:
        real: the sums, by counter.
        differences: what the counters said instead; empty when all is well.
    """

    real: State = field(default_factory=dict)
    differences: Differences = field(default_factory=dict)

    @property
    def drift_bytes(self) -> int:
        """How far used bytes were off."""
        found = self.differences.get("used_bytes")
        return abs(found["counted"] - found["real"]) if found else 0


@dataclass(slots=True)
class Report:
    """What a run found, by tenant, and why a tenant could not be compared."""

    tenants: dict[UUID, TenantResult] = field(default_factory=dict)
    errors: dict[UUID, str] = field(default_factory=dict)

    @property
    def drifted(self) -> list[UUID]:
        """The tenants whose counters were wrong."""
        return [tenant_id for tenant_id, result in self.tenants.items() if result.differences]

    @property
    def drift_bytes(self) -> int:
        """The sum of how far used bytes were off."""
        return sum(result.drift_bytes for result in self.tenants.values())


def run(
    *,
    now: datetime,
    tenant_ids: Sequence[UUID] | None = None,
    dry_run: bool = False,
    progress: Callable[[int], object] = lambda tenants: None,
) -> Report:
    """Compare tenants, all unless told which, and repair what is wrong unless it is a dry run.

    Args:
        progress: called with the number of tenants done since the last call.
    """
    run_id = Reconciliation.objects.create(started_at=now, dry_run=dry_run, of_all=tenant_ids is None).id
    wanted = account_queries.tenant_ids() if tenant_ids is None else tenant_ids
    report = _compare_all(wanted, now, run_id, dry_run=dry_run, progress=progress)
    _add_up(run_id, report)
    Reconciliation.objects.filter(id=run_id).update(finished_at=Now())
    return report


def run_piece(
    *, run_id: UUID | None, after: UUID | None, now: datetime, go_on: Callable[[], bool]
) -> tuple[UUID, UUID | None]:
    """Compare and repair a run's next tenants for as long as `go_on` says.

    Args:
        run_id: None begins a run.
        after: the last tenant that the run has done.

    Returns:
        The run, and the last tenant that it has done, None when it has done all.
    """
    run_id = run_id or Reconciliation.objects.create(started_at=now).id
    wanted = [one for one in account_queries.tenant_ids() if after is None or one > after]
    report = _compare_all(_for_a_while(wanted, go_on), now, run_id)
    _add_up(run_id, report)
    done = [*report.tenants, *report.errors]
    if len(done) < len(wanted):
        return run_id, max(done, default=after)
    Reconciliation.objects.filter(id=run_id).update(finished_at=Now())
    return run_id, None


def _for_a_while(tenant_ids: Sequence[UUID], go_on: Callable[[], bool]) -> Iterator[UUID]:
    """Yield one at least, so that each task gets on."""
    for tenant_id in tenant_ids:
        yield tenant_id
        if not go_on():
            return


def _compare_all(
    tenant_ids: Iterable[UUID],
    now: datetime,
    run_id: UUID,
    *,
    dry_run: bool = False,
    progress: Callable[[int], object] = lambda tenants: None,
) -> Report:
    report = Report()
    for tenant_id in tenant_ids:
        try:
            report.tenants[tenant_id] = reconcile(tenant_id=tenant_id, now=now, dry_run=dry_run, run_id=run_id)
        except Exception as error:
            log.exception("a tenant's usage could not be compared", tenant_id=str(tenant_id))
            report.errors[tenant_id] = f"{type(error).__name__}: {error}"
        progress(1)
    return report


def _add_up(run_id: UUID, report: Report) -> None:
    Reconciliation.objects.filter(id=run_id).update(
        tenants=F("tenants") + len(report.tenants),
        failed=F("failed") + len(report.errors),
        drifted=F("drifted") + len(report.drifted),
        drift_bytes=F("drift_bytes") + report.drift_bytes,
    )


def reconcile(*, tenant_id: UUID, now: datetime, dry_run: bool = False, run_id: UUID | None = None) -> TenantResult:
    """Compare one tenant's counters, and repair them unless it is a dry run."""
    with tenant_scope(tenant_id, one_moment=True):
        found = _compare(tenant_id)
    if not found.differences:
        return found
    with tenant_scope(tenant_id):
        if dry_run:
            _record(tenant_id, found, now, run_id, repaired=False)
            return found
        return recalculate(tenant_id=tenant_id, now=now, run_id=run_id)


def recalculate(*, tenant_id: UUID, now: datetime, run_id: UUID | None = None) -> TenantResult:
    """Inside a scope, set a tenant's counters to the sums, whatever the limit, and return and record what was wrong."""
    found = recount(tenant_id=tenant_id, now=now)
    if found.differences:
        _record(tenant_id, found, now, run_id, repaired=True)
        log.error("usage had drifted and was repaired", tenant_id=str(tenant_id), differences=found.differences)
    return found


def recount(*, tenant_id: UUID, now: datetime) -> TenantResult:
    """Inside a scope, set a tenant's counters to the sums after rows came back that nobody charged, as in a restore."""
    _make_missing(tenant_id)
    reservations.lock_usage(tenant_id=tenant_id)
    found = _compare(tenant_id)
    if found.differences:
        _repair(tenant_id, found.real)
    alerts.look_again(tenant_id=tenant_id, now=now)
    return found


def _make_missing(tenant_id: UUID) -> None:
    """Put a tenant without usage (restored by hand, say) on the smallest plan; staff can change it."""
    if not QuotaUsage.objects.filter(tenant_id=tenant_id).exists():
        row = QuotaUsage(tenant_id=tenant_id, plan=Plan.objects.order_by("rank")[0])
        QuotaUsage.objects.bulk_create([row], ignore_conflicts=True)
        log.warning("a tenant had no plan; it is on the smallest now", tenant_id=str(tenant_id))


# Comparing


def _compare(tenant_id: UUID) -> TenantResult:
    real, counted = _real(tenant_id), _counted(tenant_id)
    names = sorted(real.keys() | counted.keys())
    pairs: Mapping[str, tuple[int, int]] = {name: (counted.get(name, 0), real.get(name, 0)) for name in names}
    wrong = {name: {"counted": is_, "real": be} for name, (is_, be) in pairs.items() if is_ != be}
    return TenantResult(real, wrong)


def _counted(tenant_id: UUID) -> State:
    names = ("used_bytes", "reserved_bytes", "content_items", "media_files")
    row = QuotaUsage.objects.filter(tenant_id=tenant_id).values(*names).first()
    state: State = dict(row) if row else {"used_bytes": -1}  # a tenant without a row is wrong whatever it stores
    for name, items, size in TypeUsage.objects.filter(tenant_id=tenant_id).values_list(
        "content_type", "items", "bytes"
    ):
        state |= {f"{name} items": items, f"{name} bytes": size}
    months = MonthlyGeneration.objects.filter(tenant_id=tenant_id, reserved__gt=0)
    return state | {f"reserved in {month:%Y-%m}": held for month, held in months.values_list("month", "reserved")}


def _real(tenant_id: UUID) -> State:
    sums: Sums = import_string(settings.QUOTA_SUMS_SOURCE)(tenant_id=tenant_id)
    reserved_bytes, reserved_items = reservations.held_by_tenant(tenant_id=tenant_id)
    state = {
        "used_bytes": sums.media.size_bytes + sum(count.size_bytes for count in sums.by_type.values()),
        "reserved_bytes": reserved_bytes,
        "content_items": sum(count.number for count in sums.by_type.values()),
        "media_files": sums.media.number,
    }
    for name, count in sums.by_type.items():
        state |= {f"{name} items": count.number, f"{name} bytes": count.size_bytes}
    return state | {f"reserved in {month:%Y-%m}": held for month, held in reserved_items.items()}


# Repairing


def _repair(tenant_id: UUID, real: State) -> None:
    QuotaUsage.objects.filter(tenant_id=tenant_id).update(
        **{name: real[name] for name in ("used_bytes", "reserved_bytes", "content_items", "media_files")},
        updated_at=Now(),
    )
    types = [name.removesuffix(" items") for name in real if name.endswith(" items")]
    TypeUsage.objects.filter(tenant_id=tenant_id).delete()
    TypeUsage.objects.bulk_create(
        TypeUsage(tenant_id=tenant_id, content_type=name, items=real[f"{name} items"], bytes=real[f"{name} bytes"])
        for name in types
    )
    _, reserved_items = reservations.held_by_tenant(tenant_id=tenant_id)
    for row in MonthlyGeneration.objects.filter(tenant_id=tenant_id):
        MonthlyGeneration.objects.filter(tenant_id=tenant_id, month=row.month).update(
            reserved=reserved_items.get(row.month, 0)
        )


def _record(tenant_id: UUID, found: TenantResult, now: datetime, run_id: UUID | None, *, repaired: bool) -> None:
    Drift.objects.create(
        tenant_id=tenant_id,
        reconciliation_id=run_id,
        found_at=now,
        repaired=repaired,
        differences=found.differences,
    )


def forget_old(*, now: datetime) -> int:
    """Remove records of runs, alerts and tests of targets after 400 days, and return how many there were."""
    with system_scope("forget old records of quotas"):
        old = (
            Reconciliation.objects.filter(started_at__lt=now - KEPT),
            Alert.objects.filter(created_at__lt=now - KEPT),
            AlertDelivery.objects.filter(alert=None, created_at__lt=now - KEPT),
        )
        return sum(rows.delete()[0] for rows in old)
