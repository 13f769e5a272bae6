"""The admin's pages for this room."""

from typing import Any, ClassVar

from django.contrib import admin
from django.http import HttpRequest
from unfold.admin import ModelAdmin

from content.models import Delivery, Webhook


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
