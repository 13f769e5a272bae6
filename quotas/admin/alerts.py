"""Alerts, where they went, and the targets that tenants named."""

from typing import Any, ClassVar

from django.contrib import admin, messages
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from unfold.decorators import action, display
from unfold.forms import BaseDialogForm

from quotas import courier
from quotas.admin import colours
from quotas.admin.readonly import ReadOnlyAdmin, ReadOnlyInline
from quotas.models import Alert, AlertDelivery, AlertTarget
from quotas.sizes import readable
from quotas.usage import LEVELS, hundredths_of


class DeliveryInline(ReadOnlyInline):
    """To whom an alert went."""

    model = AlertDelivery
    fields: ClassVar = ["recipient", "channel", "state", "turn", "attempts", "finished_at", "last_error"]
    readonly_fields: ClassVar = fields
    ordering: ClassVar = ["id"]

    @display(description="To")
    def recipient(self, delivery: AlertDelivery) -> str:
        """The person or target."""
        return str(delivery.target or delivery.user)

    @display(description="By")
    def channel(self, delivery: AlertDelivery) -> str:
        """How."""
        return delivery.target.get_kind_display() if delivery.target else "e-mail"

    @display(description="Status", label=colours.DELIVERIES)
    def state(self, delivery: AlertDelivery) -> str:
        """Where it is on its way."""
        return str(delivery.status)


@admin.register(Alert)
class AlertAdmin(ReadOnlyAdmin):
    """Thresholds that were crossed."""

    list_display: ClassVar = ["created_at", "tenant", "level", "threshold", "used", "sent", "waiting", "failed"]
    list_filter: ClassVar = ["threshold"]
    list_select_related: ClassVar = ["tenant"]
    search_fields: ClassVar = ["tenant__name", "tenant__id"]
    date_hierarchy = "created_at"
    fields: ClassVar = ["tenant", "level", "used", "plan_tier", "created_at", "quiet_until"]
    ordering: ClassVar = ["-created_at"]
    inlines: ClassVar = [DeliveryInline]
    actions_detail: ClassVar = ["send_again"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Alert]:
        """Count the deliveries by status."""
        status = AlertDelivery.Status
        return (
            super()
            .get_queryset(request)
            .annotate(
                sent_count=Count("deliveries", filter=Q(deliveries__status=status.SENT)),
                waiting_count=Count("deliveries", filter=Q(deliveries__status__in=[status.PENDING, status.HELD])),
                failed_count=Count("deliveries", filter=Q(deliveries__status=status.FAILED)),
            )
        )

    @display(description="Level", label=colours.LEVELS, ordering="threshold")
    def level(self, alert: Alert) -> str:
        """The level that was reached."""
        return str(LEVELS[alert.threshold])

    @display(description="Used")
    def used(self, alert: Alert) -> str:
        """What was used then."""
        percent = hundredths_of(alert.used_bytes, alert.limit_bytes) / 100
        return f"{readable(alert.used_bytes)} of {readable(alert.limit_bytes)} ({percent:.2f} %)"

    @display(description="Sent", ordering="sent_count")
    def sent(self, alert: Any) -> int:
        """Deliveries that went out."""
        return int(alert.sent_count)

    @display(description="Waiting", ordering="waiting_count")
    def waiting(self, alert: Any) -> int:
        """Deliveries that are on their way."""
        return int(alert.waiting_count)

    @display(description="Failed", ordering="failed_count")
    def failed(self, alert: Any) -> int:
        """Deliveries that were given up."""
        return int(alert.failed_count)

    def has_send_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Tell whether somebody may send alerts again: who may change usage."""
        return bool(request.user.has_perm("quotas.change_quotausage"))

    @action(
        url_path="send-again",
        description="Send again",
        icon="send",
        permissions=["send"],
        dialog={
            "title": "Send this alert again?",
            "description": "To the tenant's owners, admins and targets as they are now, at once.",
            "form_class": BaseDialogForm,
            "form_submit_text": "Send again",
        },
    )
    def send_again(self, request: HttpRequest, form: BaseDialogForm, object_id: str) -> HttpResponse:
        """Send an alert once more."""
        alert = Alert.objects.select_related("tenant").get(pk=object_id)
        count = courier.send_again(alert=alert, now=timezone.now())
        self.log_change(request, alert, f"Sent again to {count} recipients.")
        messages.success(request, f"The alert is on its way to {count} recipients.")
        return HttpResponse(headers={"HX-Redirect": reverse("admin:quotas_alert_change", args=[object_id])})


@admin.register(AlertTarget)
class AlertTargetAdmin(ReadOnlyAdmin):
    """Slack, Teams and webhooks that tenants named, without their addresses."""

    list_display: ClassVar = ["tenant", "kind", "name", "url_hint", "created_at"]
    list_filter: ClassVar = ["kind"]
    list_select_related: ClassVar = ["tenant"]
    search_fields: ClassVar = ["tenant__name", "tenant__id", "name"]
    exclude: ClassVar = ["url"]
    inlines: ClassVar = [DeliveryInline]
