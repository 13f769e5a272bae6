"""The admin's pages for this room: jobs with live counts, their items and errors, and provider keys without the keys.

`home` is this room's part of the first page.
"""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any, ClassVar
from uuid import UUID

from django.contrib import admin, messages
from django.core.paginator import Paginator
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest, HttpResponse, QueryDict
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone
from unfold.dataclasses import UnfoldAction
from unfold.decorators import action, display
from unfold.forms import BaseDialogForm

from engarde.accounts import queries as account_queries
from engarde.common.admin_home import Concern, Panel, counted
from engarde.common.converters import IdConverter
from engarde.common.problems import Problem, explain
from generation import operations
from generation.models import UNFINISHED, ItemStatus, Job, JobItem, JobStatus, LLMKey, LLMKeyEvent
from quotas.admin.readonly import ReadOnlyAdmin
from quotas.sizes import readable

COLOURS = {
    JobStatus.PENDING: "info",
    JobStatus.RUNNING: "info",
    JobStatus.PAUSED: "warning",
    JobStatus.COMPLETED: "success",
    JobStatus.COMPLETED_WITH_ERRORS: "warning",
    JobStatus.FAILED: "danger",
    JobStatus.CANCELLED: "default",
}
KEY_COLOURS = {"valid": "success", "invalid": "danger", "no_credit": "warning", "unreachable": "warning"}
OFFERED: dict[str, Callable[[Job], bool]] = {
    "cancel_job": lambda job: not job.is_finished,
    "resume_job": lambda job: job.status == JobStatus.PAUSED,
    "retry_job": lambda job: job.is_finished and job.status != JobStatus.CANCELLED and job.failed > 0,
}
ITEMS_SHOWN = 50
LATELY, HOME_JOBS = timedelta(hours=24), 6
ID = re.compile(IdConverter.regex)


@admin.register(Job)
class JobAdmin(ReadOnlyAdmin):
    """Jobs. Nothing is typed in here; staff can cancel, resume and retry them."""

    list_display: ClassVar = [
        "created_at",
        "tenant",
        "content_type",
        "state",
        "bar",
        "errors",
        "cost",
        "writer",
        "took",
    ]
    list_filter: ClassVar = ["status", "provider", "content_type"]
    list_select_related: ClassVar = ["tenant"]
    search_fields: ClassVar = ["id", "tenant__name", "tenant__id", "model"]
    date_hierarchy = "created_at"
    ordering: ClassVar = ["-created_at", "-id"]
    list_before_template = "generation/admin/live.html"
    change_form_before_template = "generation/admin/job.html"
    fields: ClassVar = [
        "tenant",
        "id",
        "where",
        "error_message",
        "writer",
        "price",
        "asked",
        "started_by",
        "created_at",
        "started_at",
        "completed_at",
    ]
    readonly_fields: ClassVar = fields
    actions_detail: ClassVar = ["cancel_job", "resume_job", "retry_job"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Job]:
        """Leave out the parameters, which may be large."""
        return super().get_queryset(request).defer("params")

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Show a job with its counts and errors."""
        context = {**(extra_context or {}), **(_explained(object_id, request.GET) if object_id else {})}
        return super().changeform_view(request, object_id, form_url, context)

    @display(description="Status", ordering="status", label=COLOURS)
    def state(self, job: Job) -> tuple[str, str]:
        """Where it is."""
        return job.status, job.get_status_display()

    @display(description="Status")
    def where(self, job: Job) -> str:
        """Where it is, in words."""
        return job.get_status_display()

    @display(description="Progress")
    def bar(self, job: Job) -> str:
        """Stored and failed of all."""
        return _bar(job)

    @display(description="Failed", ordering="failed")
    def errors(self, job: Job) -> str:
        """How many items failed."""
        return f"{job.failed:,}" if job.failed else "-"

    @display(description="Cost", ordering="cost_usd")
    def cost(self, job: Job) -> str:
        """What it has cost, and the cap."""
        return f"{job.cost_usd:.4f} USD" + (f" of {job.max_cost_usd.normalize():f}" if job.max_cost_usd else "")

    @display(description="Written by")
    def writer(self, job: Job) -> str:
        """Provider and model."""
        return f"{job.provider} {job.model}"

    @display(description="Took")
    def took(self, job: Job) -> str:
        """From its first item to its end."""
        if not job.started_at:
            return "-"
        passed = (job.completed_at or timezone.now()) - job.started_at
        return str(passed).split(".", maxsplit=1)[0]

    @display(description="Price")
    def price(self, job: Job) -> str:
        """What it pays for tokens."""
        if job.input_price is None or job.output_price is None:
            return "nobody knows"
        return f"{job.input_price.normalize():f} in, {job.output_price.normalize():f} out, USD per million tokens"

    @display(description="Asked for")
    def asked(self, job: Job) -> str:
        """How much, how many at once."""
        return f"{job.target_count:,} {job.content_type}, {job.concurrency} at once"

    @display(description="Started by")
    def started_by(self, job: Job) -> str:
        """A person or an API key."""
        [actor] = account_queries.names_of(tenant_id=job.tenant_id, ids=[job.created_by]).values()
        return f"{actor.name or 'somebody who left'} ({actor.kind.replace('_', ' ')})"

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[UnfoldAction]:
        """Offer what can be done with the job as it is; who acts on an older page is told why not."""
        job = self.get_object(request, object_id)
        offered = super().get_actions_detail(request, object_id)
        return [one for one in offered if job and OFFERED[one.method.__name__](job)]

    def has_job_change_permission(self, request: HttpRequest, _object_id: Any = None) -> bool:
        """Whether this member of staff may act on jobs."""
        return bool(request.user.has_perm("generation.change_job"))

    @action(
        description="Cancel",
        url_path="cancel",
        permissions=["job_change"],
        dialog={"title": "Cancel this job?", "description": "What was generated stays.", "form_class": BaseDialogForm},
    )
    def cancel_job(self, request: HttpRequest, form: BaseDialogForm, object_id: str) -> HttpResponse:
        """Cancel a job."""
        return self._act(request, object_id, operations.cancel_in_scope, "The job is cancelled.")

    @action(
        description="Resume",
        url_path="resume",
        permissions=["job_change"],
        dialog={"title": "Let this job go on?", "description": "A paused job goes on.", "form_class": BaseDialogForm},
    )
    def resume_job(self, request: HttpRequest, form: BaseDialogForm, object_id: str) -> HttpResponse:
        """Resume a job."""
        return self._act(request, object_id, _resume, "The job goes on.")

    @action(
        description="Retry failed items",
        url_path="retry",
        permissions=["job_change"],
        dialog={
            "title": "Try the failed items again?",
            "description": "On the tenant's own key, and cost.",
            "form_class": BaseDialogForm,
        },
    )
    def retry_job(self, request: HttpRequest, form: BaseDialogForm, object_id: str) -> HttpResponse:
        """Retry a job's failed items."""
        return self._act(request, object_id, _retry, "The failed items are tried again.")

    def _act(self, request: HttpRequest, object_id: str, act: Callable[..., None], done: str) -> HttpResponse:
        job = self.get_object(request, object_id)
        if job is None:
            messages.error(request, "There is no such job any more.")
            return HttpResponse(headers={"HX-Redirect": reverse("admin:generation_job_changelist")})
        try:
            act(tenant_id=job.tenant_id, job_id=job.id)
        except Problem as problem:
            messages.error(request, explain(problem))
        else:
            self.log_change(request, job, done)
            messages.success(request, done)
        return HttpResponse(headers={"HX-Redirect": reverse("admin:generation_job_change", args=[object_id])})


def _resume(*, tenant_id: UUID, job_id: UUID) -> None:
    operations.resume_in_scope(tenant_id=tenant_id, job_id=job_id, now=timezone.now())


def _retry(*, tenant_id: UUID, job_id: UUID) -> None:
    operations.retry_in_scope(tenant_id=tenant_id, job_id=job_id, now=timezone.now())


def _bar(job: Job) -> str:
    shares = {
        "done": 100 * job.completed / job.target_count,
        "failed": 100 * job.failed / job.target_count,
    }
    return render_to_string("generation/admin/bar.html", {"job": job, **shares})


def _explained(object_id: str, query: QueryDict) -> dict[str, Any]:
    """Return what the page shows of a job besides its fields: items of a status, failed ones unless asked otherwise."""
    job = Job.objects.defer("params").filter(id=object_id).first() if ID.fullmatch(object_id) else None
    if job is None:
        return {}
    items = JobItem.objects.filter(job_id=job.id).order_by("index")
    counts = dict(items.order_by("status").values_list("status").annotate(number=Count("index")))
    wanted = query.get("items")
    status = wanted if wanted in ItemStatus.values else ItemStatus.FAILED
    codes = items.filter(status=ItemStatus.FAILED).order_by("error_code").values_list("error_code")
    return {
        "job": job,
        "bar": _bar(job),
        "is_live": job.status in UNFINISHED,
        "size": readable(job.stored_bytes),
        "counts": counts,
        "codes": dict(codes.annotate(number=Count("index"))),
        "items_status": status,
        "items": Paginator(items.filter(status=status), ITEMS_SHOWN).get_page(query.get("page")),
    }


@admin.register(LLMKey)
class LLMKeyAdmin(ReadOnlyAdmin):
    """Provider keys: whose, and whether they work. The keys themselves are nowhere to be seen."""

    list_display: ClassVar = ["tenant", "provider", "last4", "state", "checked_at", "master_key_id", "created_at"]
    list_filter: ClassVar = ["provider", "status"]
    list_select_related: ClassVar = ["tenant"]
    search_fields: ClassVar = ["tenant__name", "tenant__id"]
    exclude: ClassVar = ("secret",)

    @display(description="Status", label=KEY_COLOURS)
    def state(self, key: LLMKey) -> str:
        """What the last check found."""
        return str(key.status)


@admin.register(LLMKeyEvent)
class LLMKeyEventAdmin(ReadOnlyAdmin):
    """The audit trail of provider keys."""

    list_display: ClassVar = ["created_at", "tenant", "provider", "action", "last4", "status", "actor_id"]
    list_filter: ClassVar = ["action", "provider", "status"]
    list_select_related: ClassVar = ["tenant"]
    search_fields: ClassVar = ["tenant__name", "tenant__id", "actor_id"]
    date_hierarchy = "created_at"
    ordering: ClassVar = ["-created_at", "-id"]


def home(request: HttpRequest) -> Panel | None:
    """Return this room's part of the admin's first page: jobs under way, and those that failed in the last 24 hours."""
    if not request.user.has_perm("generation.view_job"):
        return None
    jobs = Job.objects.defer("params").select_related("tenant")
    lately = Q(completed_at__gte=timezone.now() - LATELY)
    ended = {name: Count("id", filter=lately & Q(status=name)) for name in JobStatus.values if name not in UNFINISHED}
    numbers = Job.objects.filter(lately | Q(status__in=UNFINISHED)).aggregate(
        **{str(name): Count("id", filter=Q(status=name)) for name in UNFINISHED}, **ended
    )
    lists = {
        "active": jobs.filter(status__in=UNFINISHED).order_by("-created_at"),
        "failed": jobs.filter(lately, status__in=[JobStatus.FAILED, JobStatus.COMPLETED_WITH_ERRORS]),
    }
    shown = {
        "active": _shown(lists["active"]) if any(numbers[name] for name in UNFINISHED) else [],
        "failed": _shown(lists["failed"].order_by("-completed_at"))
        if numbers[JobStatus.FAILED] or numbers[JobStatus.COMPLETED_WITH_ERRORS]
        else [],
    }
    jobs_page = reverse("admin:generation_job_changelist")
    concerns: tuple[Concern, ...] = ()
    if numbers[JobStatus.FAILED]:
        text = f"{counted(numbers[JobStatus.FAILED], 'job')} failed in the last 24 hours."
        concerns = (Concern("warning", text, f"{jobs_page}?status__exact=failed"),)
    body = render_to_string("generation/admin/home.html", {"numbers": numbers, **shown})
    return Panel("Generation, the last 24 hours", body, (("All jobs", jobs_page),), concerns)


def _shown(jobs: QuerySet[Job]) -> list[dict[str, Any]]:
    return [
        {"job": job, "status": job.get_status_display(), "colour": COLOURS[JobStatus(job.status)], "bar": _bar(job)}
        for job in jobs[:HOME_JOBS]
    ]
