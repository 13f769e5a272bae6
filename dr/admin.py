"""The admin's pages for the backup: how it is and what it did, with three buttons; everything else is to be looked at.

`home` is this room's part of the first page.
"""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any, ClassVar
from uuid import UUID

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.loader import render_to_string
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from unfold.decorators import action, display

from dr import alerts, charts, figures, queries, states
from dr.models import Batch, Drill, Erasure, Finding, Restore, Run, SyncState, Verification
from engarde.accounts.models import User
from engarde.common.admin_home import Concern, Panel, counted
from engarde.common.problems import Problem, explain
from engarde.common.spans import span
from quotas.admin.readonly import ReadOnlyAdmin
from quotas.sizes import readable

COLOURS = {
    "healthy": "success",
    "lagging": "warning",
    "paused": "warning",
    "failing": "danger",
    "disabled": "danger",
}
RESULTS = {"all right": "success", "failed": "danger", "faults": "danger", "running": "info"}
LAG_STEP, LAG_STEPS = timedelta(minutes=15), 96
RPO_DAYS = 30
ROWS_SHOWN = 8
HOME_ROWS = 5
LONGEST_SHOWN = 120


@admin.register(SyncState)
class BackupAdmin(ReadOnlyAdmin):
    """The backup: one page, as there is one row."""

    fields: ClassVar = ["status", "last_success_at", "failing_since", "next_probe_at", "epoch", "alerted_at"]
    readonly_fields: ClassVar = fields
    change_form_outer_before_template = "dr/admin/backup.html"

    def get_urls(self) -> list[URLPattern]:
        """Add the buttons' addresses."""
        act = self.admin_site.admin_view(self.act_view)
        return [path("act/<str:name>/", act, name="dr_syncstate_act"), *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Lead to the one row."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        return _to_backup()

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Show how the backup is, what it did lately, and the buttons for those who may press them."""
        context = {**(extra_context or {}), "title": "Backup", "may_act": self.may_act(request)}
        if object_id and self.has_view_permission(request):
            context |= _explained(timezone.now())
        return super().changeform_view(request, object_id, form_url, context)

    def act_view(self, request: HttpRequest, name: str) -> HttpResponse:
        """Pause, resume or run the backup, and lead back to its page."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if name not in ACTS:
            raise Http404
        if not self.may_act(request):
            raise PermissionDenied
        try:
            done = ACTS[name](request, timezone.now())
        except Problem as problem:
            messages.error(request, explain(problem))
        else:
            self.log_change(request, states.row(), done)
            messages.success(request, done)
        return _to_backup()

    def may_act(self, request: HttpRequest) -> bool:
        """Whether this member of staff may press the buttons."""
        return bool(request.user.has_perm("dr.change_syncstate"))


def _pause(request: HttpRequest, now: datetime) -> str:
    changed = states.pause(by=request.user.pk, now=now)
    return "The backup is paused." if changed else "The backup was paused already."


def _resume(_request: HttpRequest, now: datetime) -> str:
    return "The backup goes on." if states.resume(now=now) else "The backup was not paused."


def _run(_request: HttpRequest, now: datetime) -> str:
    states.trigger(now=now)
    return "The backup runs now."


ACTS: dict[str, Callable[[HttpRequest, datetime], str]] = {"pause": _pause, "resume": _resume, "run": _run}


def _to_backup() -> HttpResponseRedirect:
    return HttpResponseRedirect(reverse("admin:dr_syncstate_change", args=[states.row().pk]))


def _explained(now: datetime) -> dict[str, Any]:
    """Return all that the backup's page shows."""
    state, health = states.row(), states.current_in_scope(now=now)
    found = figures.summary(now=now, days=RPO_DAYS)
    lags = queries.lag_of(now=now, step=LAG_STEP, steps=LAG_STEPS)
    return {
        "health": health,
        "colour": COLOURS[health.status],
        "lag": span(health.lag_seconds),
        "target": span(health.rpo_target_seconds),
        "paused_by": _email_of(state.paused_by),
        "today": _told(found.days[-1]),
        "total": _told(found.total),
        "lag_chart": charts.of_lag(lags, step=LAG_STEP, target=health.rpo_target_seconds),
        "rpo_chart": charts.of_rpo(found.days, target=health.rpo_target_seconds),
        "runs": Run.objects.order_by("-started_at", "-id")[:ROWS_SHOWN],
        "findings": queries.open_findings().order_by("-found_at")[:ROWS_SHOWN],
        "findings_open": queries.open_findings().count(),
        "verifications": Verification.objects.order_by("-started_at")[:ROWS_SHOWN],
        "drills": Drill.objects.defer("report").order_by("-started_at")[:ROWS_SHOWN],
    }


def _email_of(user_id: UUID | None) -> str:
    user = User.objects.filter(id=user_id).first() if user_id else None
    return user.email if user else ""


def _told(found: figures.Figures) -> str:
    """Return figures in words."""
    if not found.rows:
        return "nothing shipped" + (f", {counted(found.failures, 'failure')}" if found.failures else "")
    parts = [counted(found.rows, "change"), readable(found.bytes), counted(found.batches, "batch", "batches")]
    told = ", ".join([*parts, counted(found.failures, "failure")])
    if found.rpo_p50_seconds is None or found.rpo_p99_seconds is None:
        return told
    return f"{told}; half within {span(found.rpo_p50_seconds)}, 99 % within {span(found.rpo_p99_seconds)}"


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


def _took(row: Any) -> str:
    return span((row.finished_at - row.started_at).total_seconds()) if row.finished_at else "-"


@admin.register(Run)
class RunAdmin(ReadOnlyAdmin):
    """Runs that shipped something, failed or changed the state."""

    list_display: ClassVar = [
        *("started_at", "state", "why", "rows", "size", "batches", "loads", "retries", "failures", "backlog", "lag"),
        "took",
    ]
    list_filter: ClassVar = ["status"]
    ordering: ClassVar = ["-started_at", "-id"]
    show_full_result_count = False

    @display(description="Status", ordering="status", label=COLOURS)
    def state(self, run: Run) -> str:
        """How it ended."""
        return run.status

    @display(description="Reason")
    def why(self, run: Run) -> str:
        """Why."""
        return _short(run.reason)

    @display(description="Size", ordering="bytes")
    def size(self, run: Run) -> str:
        """Shipped bytes."""
        return readable(run.bytes)

    @display(description="Lag", ordering="lag_seconds")
    def lag(self, run: Run) -> str:
        """Of what was left."""
        return span(run.lag_seconds)

    @display(description="Took")
    def took(self, run: Run) -> str:
        """From start to end."""
        return _took(run)


class BatchStateFilter(admin.SimpleListFilter):
    """Batches that wait, that are set aside, or that the archive has."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the states."""
        return [("waiting", "waiting"), ("aside", "set aside"), ("acknowledged", "acknowledged")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the batches of the state that was chosen."""
        if self.value() == "waiting":
            return queryset.filter(acked_at=None, set_aside_at=None)
        if self.value() == "aside":
            return queryset.filter(acked_at=None, set_aside_at__isnull=False)
        return queryset.filter(acked_at__isnull=False) if self.value() == "acknowledged" else queryset


@admin.register(Batch)
class BatchAdmin(ReadOnlyAdmin):
    """Sealed batches; those that are set aside can be tried again."""

    list_display: ClassVar = [
        *("sealed_at", "state", "rows", "first_seq", "last_seq", "size", "attempts", "next_try_at", "error", "acked_at")
    ]
    list_filter: ClassVar = [BatchStateFilter]
    search_fields: ClassVar = ["id"]
    ordering: ClassVar = ["-sealed_at", "-id"]
    actions: ClassVar = ["try_again"]
    show_full_result_count = False

    def has_try_again_permission(self, request: HttpRequest) -> bool:
        """Whether this member of staff may have batches tried again."""
        return bool(request.user.has_perm("dr.change_batch"))

    @action(description="Try again now", permissions=["try_again"])
    def try_again(self, request: HttpRequest, queryset: QuerySet[Batch]) -> None:
        """Have the chosen batches that are set aside tried now."""
        found = states.try_again(batch_ids=list(queryset.values_list("id", flat=True)), now=timezone.now())
        for batch in queryset.filter(acked_at=None, set_aside_at__isnull=False):
            self.log_change(request, batch, "Tried again now.")
        messages.success(request, f"{found} of the chosen batches are tried now; others were not set aside.")

    @display(
        description="State", label={"waiting": "info", "retrying": "warning", "set aside": "danger", "done": "success"}
    )
    def state(self, batch: Batch) -> str:
        """Where it is."""
        if batch.acked_at:
            return "done"
        return "set aside" if batch.set_aside_at else "retrying" if batch.attempts else "waiting"

    @display(description="Size", ordering="bytes")
    def size(self, batch: Batch) -> str:
        """Shipped bytes."""
        return "-" if batch.bytes is None else readable(batch.bytes)

    @display(description="Last error")
    def error(self, batch: Batch) -> str:
        """Why it is not there yet."""
        return _short(batch.last_error) or "-"


class OpenFilter(admin.SimpleListFilter):
    """Findings that nobody has mended."""

    title = "open"
    parameter_name = "open"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the choices."""
        return [("yes", "open"), ("no", "mended")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the findings that were chosen."""
        if self.value() not in {"yes", "no"}:
            return queryset
        return queryset.filter(repaired_at__isnull=self.value() == "yes")


@admin.register(Finding)
class FindingAdmin(ReadOnlyAdmin):
    """What verifications found."""

    list_display: ClassVar = [
        *("found_at", "kind", "tier", "entity_type", "entity_id", "version", "tenant_id", "what", "repaired_at")
    ]
    list_filter: ClassVar = [OpenFilter, "tier", "kind", "entity_type"]
    search_fields: ClassVar = ["tenant_id", "entity_id", "verification_id"]
    ordering: ClassVar = ["-found_at", "-id"]
    show_full_result_count = False

    @display(description="Problem")
    def what(self, finding: Finding) -> str:
        """What is wrong."""
        return _short(finding.problem)


@admin.register(Verification)
class VerificationAdmin(ReadOnlyAdmin):
    """Comparisons of the tiers."""

    list_display: ClassVar = [
        *("started_at", "scope", "deep", "repair", "state", "checked", "mismatched", "missing", "extra", "repaired"),
        "took",
    ]
    list_filter: ClassVar = ["deep", "repair"]
    search_fields: ClassVar = ["id", "tenant_id"]
    ordering: ClassVar = ["-started_at", "-id"]

    @display(description="Of", ordering="tenant_id")
    def scope(self, verification: Verification) -> str:
        """Of whom."""
        return str(verification.tenant_id or "all tenants")

    @display(description="Result", label=RESULTS)
    def state(self, verification: Verification) -> str:
        """How it went."""
        if verification.error:
            return "failed"
        if not verification.finished_at:
            return "running"
        return "all right" if verification.is_clean else "faults"

    @display(description="Took")
    def took(self, verification: Verification) -> str:
        """From start to end."""
        return _took(verification)


def _result(row: Restore | Drill) -> str:
    return "running" if row.ok is None else "all right" if row.ok else "failed"


@admin.register(Restore)
class RestoreAdmin(ReadOnlyAdmin):
    """Restores."""

    list_display: ClassVar = ["started_at", "scope", "as_of", "tiers", "dry_run", "state", "took"]
    list_filter: ClassVar = ["ok", "dry_run"]
    search_fields: ClassVar = ["id", "tenant_id"]
    ordering: ClassVar = ["-started_at", "-id"]

    @display(description="Of", ordering="tenant_id")
    def scope(self, restore: Restore) -> str:
        """Of whom."""
        return str(restore.tenant_id or "all tenants")

    @display(description="Result", ordering="ok", label=RESULTS)
    def state(self, restore: Restore) -> str:
        """How it went."""
        return _result(restore)

    @display(description="Took")
    def took(self, restore: Restore) -> str:
        """From start to end."""
        return _took(restore)


@admin.register(Drill)
class DrillAdmin(ReadOnlyAdmin):
    """Disasters that were played through, and what they measured."""

    list_display: ClassVar = [
        *("started_at", "scenario", "scheduled", "state", "items", "lost", "mismatched", "rto", "rpo", "tenant_id")
    ]
    list_filter: ClassVar = ["scheduled", "ok", "scenario"]
    search_fields: ClassVar = ["id", "tenant_id", "scenario"]
    ordering: ClassVar = ["-started_at", "-id"]

    @display(description="Result", ordering="ok", label=RESULTS)
    def state(self, drill: Drill) -> str:
        """How it went."""
        return _result(drill)

    @display(description="RTO", ordering="rto_seconds")
    def rto(self, drill: Drill) -> str:
        """How long it took until everything was back."""
        return "-" if drill.rto_seconds is None else span(drill.rto_seconds)

    @display(description="RPO", ordering="rpo_seconds")
    def rpo(self, drill: Drill) -> str:
        """How much time's changes were not in the backup."""
        return "-" if drill.rpo_seconds is None else span(drill.rpo_seconds)


@admin.register(Erasure)
class ErasureAdmin(ReadOnlyAdmin):
    """Removals for good, and their certificates."""

    list_display: ClassVar = [
        "requested_at",
        "tenant_id",
        "content_id",
        "state",
        "reason",
        "requested_by",
        "finished_at",
    ]
    search_fields: ClassVar = ["id", "tenant_id", "content_id"]
    ordering: ClassVar = ["-requested_at", "-id"]

    @display(description="Result", label=RESULTS)
    def state(self, erasure: Erasure) -> str:
        """Whether everything is gone."""
        return "all right" if erasure.finished_at else "running"


def home(request: HttpRequest) -> Panel | None:
    """Return this room's part of the admin's first page: how the backup is, what verification found, the last drill."""
    if not request.user.has_perm("dr.view_syncstate"):
        return None
    now = timezone.now()
    health = states.current_in_scope(now=now)
    drill, drilled = queries.last_good_drill(), Drill.objects.defer("report").order_by("-started_at").first()
    findings = list(queries.open_findings().order_by("-found_at")[:HOME_ROWS])
    found = queries.open_findings().count() if len(findings) == HOME_ROWS else len(findings)
    context = {
        "health": health,
        "colour": COLOURS[health.status],
        "lag": span(health.lag_seconds),
        "target": span(health.rpo_target_seconds),
        "share": min(100, health.lag_seconds * 100 / health.rpo_target_seconds) if health.rpo_target_seconds else 0,
        "findings": findings,
        "findings_open": found,
        "verification": Verification.objects.filter(tenant_id=None).order_by("-started_at").first(),
        "drill": drill,
        "drilled_ago": span((now - drill.finished_at).total_seconds()) if drill and drill.finished_at else "",
        "failed_drill": drilled if drilled and drilled.ok is False else None,
    }
    body = render_to_string("dr/admin/home.html", context)
    pages = (("Backup", "syncstate"), ("Findings", "finding"), ("Verifications", "verification"), ("Drills", "drill"))
    links = tuple((text, reverse(f"admin:dr_{name}_changelist")) for text, name in pages)
    return Panel("Backup", body, links, tuple(_concerns(health, found, drill, now)))


def _concerns(health: states.BackupHealth, found: int, drill: Drill | None, now: datetime) -> Iterator[Concern]:
    """Yield what needs somebody; nothing about a backup that is off by setting, but for what is known to be wrong."""
    backup = reverse("admin:dr_syncstate_changelist")
    if health.is_past_target:
        waits = f"the oldest change has waited for {span(health.lag_seconds)}"
        yield Concern("danger", f"More could be lost than promised: {waits}.", backup)
    if not health.is_off and health.status != states.BackupStatus.HEALTHY:
        is_bad = health.status in {states.BackupStatus.FAILING, states.BackupStatus.DISABLED}
        text = f"The backup is {health.status.label.lower()}. {_short(health.reason)}"
        yield Concern("danger" if is_bad else "warning", text, backup)
    if found:
        text = f"{counted(found, 'finding is', 'findings are')} open: a copy is missing or differs."
        yield Concern("danger", text, f"{reverse('admin:dr_finding_changelist')}?open=yes")
    if drill and drill.finished_at and now - drill.finished_at > alerts.DRILL_EVERY and not health.is_off:
        text = f"No drill went well for {span((now - drill.finished_at).total_seconds())}."
        yield Concern("warning", text, reverse("admin:dr_drill_changelist"))
