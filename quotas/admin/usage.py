"""Usage: how full each tenant is, and what staff can do about it."""

from collections.abc import Callable
from typing import Any, ClassVar
from uuid import UUID

from django.contrib import admin, messages
from django.db.models import BigIntegerField, Case, DecimalField, F, QuerySet, Value, When
from django.db.models.functions import Cast, Coalesce, Floor
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone
from unfold.admin import ModelAdmin
from unfold.decorators import action, display

from quotas import courier, operations, reconciliation
from quotas.admin import colours, sparkline
from quotas.admin.forms import ChangePlanForm, LimitsForm, ReasonForm, ResendForm
from quotas.admin.reconciliations import told
from quotas.models import Alert, Drift, QuotaUsage, Reservation
from quotas.queries import GRACE
from quotas.reports import history_in_scope, summary_in_scope
from quotas.sizes import readable
from quotas.thresholds import THRESHOLDS
from quotas.usage import LEVELS, level_of

HISTORY_DAYS = 90
ROWS_SHOWN = 20


def by_fullness(rows: QuerySet[QuotaUsage]) -> QuerySet[Any]:
    """Add the limit and how full each is (`hundredths` of a percent; unlimited ones are empty), the fullest first."""
    limit = Coalesce("storage_limit_override", "plan__storage_limit_bytes", output_field=BigIntegerField())
    used = Cast("used_bytes", DecimalField(max_digits=40, decimal_places=0))
    percent = Cast(Floor(used * 10_000 / F("limit")), BigIntegerField())
    empty, full = When(limit=None, then=Value(0)), When(limit=0, then=Value(10_000))
    hundredths = Case(empty, full, default=percent, output_field=BigIntegerField())
    return rows.annotate(limit=limit).annotate(hundredths=hundredths).order_by("-hundredths")


class LevelFilter(admin.SimpleListFilter):
    """Usage of a level."""

    title = "level"
    parameter_name = "level"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the levels."""
        return [("normal", "normal"), *((str(level), f"{level} (from {at} %)") for at, level in LEVELS.items())]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the tenants of the level that was chosen."""
        bounds = [0, *(at * 100 for at in THRESHOLDS), None]
        for level, low, high in zip(["normal", *map(str, LEVELS.values())], bounds, bounds[1:], strict=False):
            if self.value() == level:
                rows = queryset.filter(hundredths__gte=low)
                return rows if high is None else rows.filter(hundredths__lt=high)
        return queryset


@admin.register(QuotaUsage)
class UsageAdmin(ModelAdmin):
    """Each tenant's plan and counters. They are changed by actions alone, which ask first and are kept in the history."""

    list_display: ClassVar = [
        "tenant",
        "plan",
        "level",
        "bar",
        "reserved",
        "content_items",
        "media_files",
        "limits",
    ]
    list_filter: ClassVar = [LevelFilter, "plan"]
    list_select_related: ClassVar = ["tenant", "plan"]
    search_fields: ClassVar = ["tenant__name", "tenant__id"]
    fields: ClassVar = ["tenant", "plan", "counted", "overrides", "retention", "updated_at"]
    readonly_fields: ClassVar = fields
    actions_detail: ClassVar = ["change_plan", "override_limits", "recalculate", "send_alert_again"]
    change_form_before_template = "quotas/admin/usage.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[QuotaUsage]:
        """Add how full each is."""
        return by_fullness(super().get_queryset(request))

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Never: usage is made with its tenant."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: QuotaUsage | None = None) -> bool:
        """Never: usage goes with its tenant."""
        return False

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Show usage with all that explains it, and no button to save: there is nothing to type in."""
        buttons = dict.fromkeys(
            ("show_save", "show_save_and_continue", "show_save_and_add_another", "show_close"), False
        )
        context = {**(extra_context or {}), **buttons}
        if object_id:
            context |= _explained(object_id)
        return super().changeform_view(request, object_id, form_url, context)

    # The list

    @display(description="Level", label=colours.LEVELS)
    def level(self, usage: Any) -> str:
        """How full it is."""
        return str(level_of(usage.hundredths))

    @display(description="Storage", ordering="hundredths")
    def bar(self, usage: Any) -> str:
        """Used of the limit."""
        return bar_of(usage.used_bytes, usage.reserved_bytes, usage.limit)

    @display(description="Reserved", ordering="reserved_bytes")
    def reserved(self, usage: QuotaUsage) -> str:
        """What is held."""
        return readable(usage.reserved_bytes) if usage.reserved_bytes else "-"

    @display(description="Limits", label={"overridden": "info"})
    def limits(self, usage: QuotaUsage) -> str:
        """Whether the plan's limits hold."""
        return "overridden" if usage.override_reason else "of the plan"

    # The page

    @display(description="Counters")
    def counted(self, usage: QuotaUsage) -> str:
        """The counters, to the byte."""
        return (
            f"{usage.used_bytes:,} bytes used, {usage.reserved_bytes:,} reserved; "
            f"{usage.content_items:,} items, {usage.media_files:,} media files"
        )

    @display(description="Overrides")
    def overrides(self, usage: QuotaUsage) -> str:
        """What replaces the plan's limits, and why."""
        found = {
            "storage": None if usage.storage_limit_override is None else readable(usage.storage_limit_override),
            "generated items a month": usage.generation_limit_override,
            "retention in days": usage.retention_days_override,
        }
        parts = [f"{name}: {value}" for name, value in found.items() if value is not None]
        return f"{', '.join(parts)} ({usage.override_reason})" if parts else "none: the plan's limits hold"

    @display(description="Retention")
    def retention(self, usage: QuotaUsage) -> str:
        """How long trash and old versions are kept."""
        days = usage.plan.retention_days if usage.retention_days_override is None else usage.retention_days_override
        text = "for ever" if days is None else f"{days} days"
        if usage.retention_shortened_at and usage.retention_shortened_at > timezone.now() - GRACE:
            earlier = usage.earlier_retention_days
            text += f"; until 30 days after {usage.retention_shortened_at:%Y-%m-%d} still "
            text += "for ever" if earlier is None else f"{earlier} days"
        return text

    # What can be done

    @action(
        url_path="change-plan",
        description="Change plan",
        icon="swap_horiz",
        permissions=["change"],
        dialog={
            "title": "Change the plan?",
            "description": "It counts at once. What is stored over a lower limit stays, but cannot grow; a shorter retention "
            "takes effect 30 days later.",
            "form_class": ChangePlanForm,
            "form_submit_text": "Change plan",
        },
    )
    def change_plan(self, request: HttpRequest, form: ChangePlanForm, object_id: str) -> HttpResponse:
        """Put a tenant on another plan."""
        tier, reason = form.cleaned_data["tier"].tier, form.cleaned_data["reason"]

        def change(usage: QuotaUsage) -> str:
            operations.change_plan(tenant_id=usage.tenant_id, tier=tier, now=timezone.now())
            return f"Changed the plan from {usage.plan_id} to {tier}: {reason}"

        return self._do(request, object_id, change)

    @action(
        url_path="override-limits",
        description="Override limits",
        icon="tune",
        permissions=["change"],
        dialog={
            "title": "Replace the plan's limits?",
            "description": "For this tenant alone, at once. Leave a field empty for the plan's limit.",
            "form_class": LimitsForm,
            "form_submit_text": "Override",
        },
    )
    def override_limits(self, request: HttpRequest, form: LimitsForm, object_id: str) -> HttpResponse:
        """Replace limits of a tenant's plan."""
        limits = form.limits

        def change(usage: QuotaUsage) -> str:
            before = self.overrides(usage)
            operations.override_limits(tenant_id=usage.tenant_id, limits=limits, now=timezone.now())
            return f"Changed overrides from “{before}” to “{self.overrides(QuotaUsage.objects.get(pk=usage.pk))}”"

        return self._do(request, object_id, change)

    @action(
        url_path="recalculate",
        description="Recalculate",
        icon="calculate",
        permissions=["change"],
        dialog={
            "title": "Recalculate usage?",
            "description": "Sums up what is really stored and repairs the counters. The tenant's writes wait meanwhile.",
            "form_class": ReasonForm,
            "form_submit_text": "Recalculate",
        },
    )
    def recalculate(self, request: HttpRequest, form: ReasonForm, object_id: str) -> HttpResponse:
        """Set the counters to what is stored."""
        reason = form.cleaned_data["reason"]

        def change(usage: QuotaUsage) -> str:
            found = reconciliation.recalculate(tenant_id=usage.tenant_id, now=timezone.now())
            return f"Recalculated: {told(found.differences) or 'everything was right'}. {reason}"

        return self._do(request, object_id, change)

    @action(
        url_path="send-alert-again",
        description="Send an alert again",
        icon="send",
        permissions=["change"],
        dialog={
            "title": "Send an alert again?",
            "description": "To the tenant's owners, admins and targets as they are now, at once.",
            "form_class": ResendForm,
            "form_submit_text": "Send again",
        },
    )
    def send_alert_again(self, request: HttpRequest, form: ResendForm, object_id: str) -> HttpResponse:
        """Send one of a tenant's alerts once more."""
        alert: Alert = form.cleaned_data["alert"]

        def change(_usage: QuotaUsage) -> str:
            count = courier.send_again(alert=alert, now=timezone.now())
            return f"Sent the alert “{alert}” again to {count} recipients"

        return self._do(request, object_id, change)

    def _do(self, request: HttpRequest, object_id: str, change: Callable[[QuotaUsage], str]) -> HttpResponse:
        """Do something to a tenant's usage, keep it in the history, and show the page anew."""
        usage = QuotaUsage.objects.select_related("plan", "tenant").get(tenant_id=UUID(object_id))
        done = change(usage)
        self.log_change(request, usage, done)
        messages.success(request, f"{usage.tenant}: {done}")
        return HttpResponse(headers={"HX-Redirect": reverse("admin:quotas_quotausage_change", args=[object_id])})


def bar_of(used: int, reserved: int, limit: int | None) -> str:
    """Return a bar that shows used and reserved of a limit."""
    hundredths = None if limit is None else (used * 10_000 // limit if limit else 10_000)
    context = {
        "colour": colours.BARS[str(level_of(hundredths))],
        "used": readable(used),
        "limit": None if limit is None else readable(limit),
        "percent": None if hundredths is None else hundredths / 100,
        "width": min(100, (hundredths or 0) / 100),
        "reserved_width": min(100 - min(100, (hundredths or 0) / 100), reserved * 100 / limit) if limit else 0,
    }
    return render_to_string("quotas/admin/bar.html", context)


def _explained(object_id: str) -> dict[str, Any]:
    """Return all that explains a tenant's usage; nothing where there is no such tenant."""
    try:
        usage = QuotaUsage.objects.select_related("plan", "tenant").get(tenant_id=UUID(object_id))
    except (ValueError, QuotaUsage.DoesNotExist):
        return {}
    tenant_id, now = usage.tenant_id, timezone.now()
    summary = summary_in_scope(tenant_id=tenant_id, now=now)
    most = max((count.size_bytes for count in summary.by_type.values()), default=0)
    media = summary.usage.used_bytes - summary.content.size_bytes
    rows = [(name, count.number, count.size_bytes) for name, count in summary.by_type.items()]
    rows += [("media files", summary.usage.media_files, media)] if summary.usage.media_files else []
    most = max(most, media)
    return {
        "summary": summary,
        "usage_bar": bar_of(summary.usage.used_bytes, summary.usage.reserved_bytes, summary.usage.limit_bytes),
        "month": summary.month,
        "available": None if summary.usage.remaining_bytes is None else readable(summary.usage.remaining_bytes),
        "reserved": readable(summary.usage.reserved_bytes),
        "types": [
            {"name": name, "count": count, "size": readable(size), "width": size * 100 / most if most else 0}
            for name, count, size in sorted(rows, key=lambda row: -row[2])
        ],
        "history": sparkline.draw(
            history_in_scope(tenant_id=tenant_id, days=HISTORY_DAYS, now=now), summary.usage.limit_bytes
        ),
        "reservations": Reservation.objects.filter(tenant_id=tenant_id).order_by("expires_at")[:ROWS_SHOWN],
        "alerts": Alert.objects.filter(tenant_id=tenant_id)
        .prefetch_related("deliveries__user", "deliveries__target")
        .order_by("-created_at")[:ROWS_SHOWN],
        "drifts": [
            {"found_at": drift.found_at, "what": told(drift.differences), "repaired": drift.repaired}
            for drift in Drift.objects.filter(tenant_id=tenant_id).order_by("-found_at")[:ROWS_SHOWN]
        ],
    }
