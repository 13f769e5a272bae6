"""Plans, and each tenant's plan and counters."""

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from engarde.accounts.models import Tenant
from engarde.common.constraints import RowSecurity


class Plan(models.Model):
    """A tier that tenants can be on; null means unlimited (or, for the price, by agreement)."""

    tier = models.CharField(max_length=20, primary_key=True)
    rank = models.PositiveSmallIntegerField(unique=True, help_text="Order from the smallest plan to the largest.")
    storage_limit_bytes = models.BigIntegerField(null=True, blank=True)
    retention_days = models.PositiveIntegerField(null=True, blank=True)
    price_usd_month = models.DecimalField(max_digits=9, decimal_places=2, null=True, blank=True)
    monthly_generation_limit = models.PositiveIntegerField(null=True, blank=True)

    class Meta:
        ordering: ClassVar = ["rank"]

    def __str__(self) -> str:
        return self.tier


class QuotaUsage(models.Model):
    """A tenant's plan and counters.

    `used + reserved <= limit` is held by the conditional UPDATE in `operations.charge`: a CHECK would also refuse to
    lower a limit below what is stored.
    """

    tenant = models.OneToOneField(Tenant, models.CASCADE, primary_key=True, related_name="quota_usage")
    plan = models.ForeignKey(Plan, models.PROTECT)
    storage_limit_override = models.BigIntegerField(
        null=True, blank=True, help_text="Bytes; replaces the plan's limit."
    )
    used_bytes = models.BigIntegerField(default=0)
    reserved_bytes = models.BigIntegerField(default=0)
    content_items = models.BigIntegerField(default=0)
    media_files = models.BigIntegerField(default=0)
    earlier_retention_days = models.PositiveIntegerField(
        null=True, blank=True, help_text="Before the last change to a shorter one; holds for 30 days more."
    )
    retention_shortened_at = models.DateTimeField(null=True, blank=True, help_text="Set by a trigger.")
    updated_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "content_quota_usage"
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(used_bytes__gte=0, reserved_bytes__gte=0, content_items__gte=0, media_files__gte=0),
                name="quota_counters_not_negative",
            ),
            models.CheckConstraint(condition=Q(storage_limit_override__gte=0), name="quota_override_not_negative"),
            RowSecurity(name="quota_usage_row_security"),
        ]

    def __str__(self) -> str:
        return f"{self.tenant_id}: {self.used_bytes} bytes"
