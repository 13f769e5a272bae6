"""Plans: what a tier has and costs."""

from typing import ClassVar

from django.contrib import admin
from django.db.models import Count, QuerySet
from django.http import HttpRequest
from unfold.admin import ModelAdmin
from unfold.decorators import display

from quotas.admin.forms import PlanForm
from quotas.models import Plan
from quotas.sizes import readable

UNLIMITED = "unlimited"


@admin.register(Plan)
class PlanAdmin(ModelAdmin):
    """Tiers. A lower limit blocks growth of who is above it, and takes nothing away."""

    form = PlanForm
    list_display: ClassVar = ["tier", "storage", "retention", "price", "generations", "tenants"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Plan]:
        """Count the tenants of each."""
        return super().get_queryset(request).annotate(tenant_count=Count("quotausage"))

    def get_readonly_fields(self, request: HttpRequest, obj: Plan | None = None) -> tuple[str, ...]:
        """Keep a plan's name once it has one: it is its key."""
        return ("tier",) if obj else ()

    @display(description="Storage", ordering="storage_limit_bytes")
    def storage(self, plan: Plan) -> str:
        """The limit."""
        return UNLIMITED if plan.storage_limit_bytes is None else readable(plan.storage_limit_bytes)

    @display(description="Retention", ordering="retention_days")
    def retention(self, plan: Plan) -> str:
        """How long trash and old versions are kept."""
        return "for ever" if plan.retention_days is None else f"{plan.retention_days} days"

    @display(description="USD a month", ordering="price_usd_month")
    def price(self, plan: Plan) -> str:
        """What it costs."""
        return "by agreement" if plan.price_usd_month is None else str(plan.price_usd_month)

    @display(description="Generated items a month", ordering="monthly_generation_limit")
    def generations(self, plan: Plan) -> str:
        """The monthly limit."""
        limit = plan.monthly_generation_limit
        return UNLIMITED if limit is None else f"{limit:,}"

    @display(description="Tenants", ordering="tenant_count")
    def tenants(self, plan: Plan) -> int:
        """How many are on it."""
        count: int = plan.tenant_count  # type: ignore[attr-defined]  # annotated above
        return count
