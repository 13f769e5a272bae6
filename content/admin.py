"""The admin's pages for this room, and its part of the first page."""

from typing import Any, ClassVar

from django.conf import settings
from django.contrib import admin
from django.db.models import Q
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.urls import reverse
from unfold.admin import ModelAdmin

from content import documents, spool
from content.models import Delivery, Webhook
from engarde.common.admin_home import Concern, Panel, counted
from engarde.common.spans import span
from quotas.sizes import readable

LONG_WAIT_SECONDS = 15 * 60


class ReadOnlyAdmin(ModelAdmin):
    """Rows to look at: their tenants' admins make and change them."""

    list_select_related: ClassVar[Any] = ("tenant",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Never."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Never."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Never."""
        return False


@admin.register(Webhook)
class WebhookAdmin(ReadOnlyAdmin):
    """Webhooks, without their secrets."""

    list_display = ("url", "tenant", "is_active", "disabled_reason", "failures_in_a_row", "failing_since", "created_at")
    list_filter = ("is_active",)
    search_fields = ("url", "tenant__name", "tenant__id")
    exclude: ClassVar[Any] = ("secret", "previous_secret")


@admin.register(Delivery)
class DeliveryAdmin(ReadOnlyAdmin):
    """Deliveries."""

    list_display = ("event", "content_id", "webhook", "tenant", "status", "attempts", "response_status", "created_at")
    list_filter = ("status", "event")
    list_select_related: ClassVar[Any] = ("tenant", "webhook")
    search_fields = ("id", "content_id", "webhook__id", "tenant__id")


def home(request: HttpRequest) -> Panel | None:
    """Return this room's part of the admin's first page: what waits for ZeroDB, and webhooks that do not get through."""
    if not request.user.has_perm("content.view_webhook"):
        return None
    backlog, most = spool.backlog(), settings.CONTENT_SPOOL_MAX_BYTES
    size = backlog.document_bytes + backlog.kept_bytes
    is_long = backlog.document_age > LONG_WAIT_SECONDS and documents.document_store() is not None
    context = {
        "backlog": backlog,
        "age": span(backlog.document_age),
        "size": readable(size),
        "most": readable(most),
        "percent": min(100, size * 100 / most) if most else 100,
        "colour": "#dc2626" if size > spool.FULL_SHARE * most else "#ca8a04" if is_long else "#16a34a",
        "has_store": documents.document_store() is not None,
        "webhooks": Webhook.objects.filter(Q(is_active=False) | Q(failing_since__isnull=False)).count(),
    }
    concerns = []
    if is_long:
        waits = f"{counted(backlog.documents, 'document waits', 'documents wait')} for ZeroDB"
        text = f"{waits}, the oldest for {span(backlog.document_age)}. Nothing is lost."
        concerns.append(Concern("warning", text, "/health"))
    body = render_to_string("content/admin/home.html", context)
    webhooks = reverse("admin:content_webhook_changelist")
    return Panel("Documents", body, (("Health", "/health"), ("Webhooks", webhooks)), tuple(concerns))
