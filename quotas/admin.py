"""The admin's pages for plans and usage."""

from typing import Any, ClassVar

from django.contrib import admin
from django.http import HttpRequest

from quotas.models import Plan, QuotaUsage


@admin.register(Plan)
class PlanAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Tiers."""

    list_display = (
        "tier",
        "storage_limit_bytes",
        "retention_days",
        "price_usd_month",
        "monthly_generation_limit",
    )


@admin.register(QuotaUsage)
class QuotaUsageAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Each tenant's plan and counters; the counters are the platform's own."""

    list_display = ("tenant", "plan", "used_bytes", "reserved_bytes", "content_items", "storage_limit_override")
    list_filter = ("plan",)
    search_fields = ("tenant__name", "tenant__id")
    list_select_related = ("tenant", "plan")
    readonly_fields: ClassVar[Any] = (
        "tenant",
        "used_bytes",
        "reserved_bytes",
        "content_items",
        "media_files",
        "earlier_retention_days",
        "retention_shortened_at",
        "updated_at",
    )

    def save_model(self, request: HttpRequest, obj: QuotaUsage, form: Any, change: bool) -> None:  # noqa: FBT001
        """Save what was changed and nothing else: the counters move on while somebody looks at the form."""
        if form.changed_data:
            obj.save(update_fields=form.changed_data)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Never: usage is made with its tenant."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: QuotaUsage | None = None) -> bool:
        """Never: usage goes with its tenant."""
        return False
