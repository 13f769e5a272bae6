"""Plans, each tenant's plan and counters, reservations, history, alerts and what reconciliation found."""

from typing import ClassVar

from django.contrib.postgres.constraints import ExclusionConstraint
from django.contrib.postgres.fields import ArrayField, DateTimeRangeField, RangeOperators
from django.db import models
from django.db.models import F, Func, Q
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from engarde.accounts.models import Tenant, User
from engarde.common.constraints import BackedUp, RowSecurity, TenantForeignKey
from quotas.thresholds import THRESHOLDS


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
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(storage_limit_bytes__gte=0), name="plan_storage_not_negative"),
            models.CheckConstraint(condition=Q(price_usd_month__gte=0), name="plan_price_not_negative"),
            BackedUp(name="plan_backed_up", entity_type="plan", tenant="", key=["tier"]),
        ]

    def __str__(self) -> str:
        return self.tier


class QuotaUsage(models.Model):
    """A tenant's plan and counters.

    `used + reserved <= limit` is held by the conditional UPDATE in `charging.charge`: a CHECK would also refuse to
    lower a limit below what is stored. What replaces the plan's limits needs a reason.
    """

    tenant = models.OneToOneField(Tenant, models.CASCADE, primary_key=True, related_name="quota_usage")
    plan = models.ForeignKey(Plan, models.PROTECT)
    storage_limit_override = models.BigIntegerField(
        null=True, blank=True, help_text="Bytes; replaces the plan's limit."
    )
    generation_limit_override = models.PositiveIntegerField(
        null=True, blank=True, help_text="Generated items a month; replaces the plan's limit."
    )
    retention_days_override = models.PositiveIntegerField(
        null=True, blank=True, help_text="Days; replaces the plan's retention."
    )
    override_reason = models.CharField(
        max_length=300, blank=True, default="", db_default="", help_text="Why the plan's limits do not hold."
    )
    used_bytes = models.BigIntegerField(default=0)
    reserved_bytes = models.BigIntegerField(default=0)
    content_items = models.BigIntegerField(default=0)
    media_files = models.BigIntegerField(default=0)
    counted_on = models.DateField(
        db_default=Func(template="(now() AT TIME ZONE 'UTC')::date"),
        help_text="The day (UTC) of the last change; when it moves on, a trigger keeps the counters as that day's history.",
    )
    disarmed_thresholds = ArrayField(
        models.PositiveSmallIntegerField(),
        default=list,
        db_default=[],
        blank=True,
        help_text="Percentages that were reached and do not warn again until usage falls 5 points below.",
    )
    earlier_retention_days = models.PositiveIntegerField(
        null=True, blank=True, help_text="Before the last change to a shorter one; holds for 30 days more."
    )
    retention_shortened_at = models.DateTimeField(null=True, blank=True, help_text="Set by a trigger.")
    updated_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "content_quota_usage"
        verbose_name = "usage"
        verbose_name_plural = "usage"
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(used_bytes__gte=0, reserved_bytes__gte=0, content_items__gte=0, media_files__gte=0),
                name="quota_counters_not_negative",
            ),
            models.CheckConstraint(condition=Q(storage_limit_override__gte=0), name="quota_override_not_negative"),
            models.CheckConstraint(
                condition=~Q(override_reason="")
                | Q(
                    storage_limit_override=None,
                    generation_limit_override=None,
                    retention_days_override=None,
                ),
                name="quota_override_has_reason",
            ),
            RowSecurity(name="quota_usage_row_security"),
            BackedUp(
                name="quota_usage_backed_up",
                entity_type="quota",
                key=["tenant_id"],
                left_out=[
                    "used_bytes",
                    "reserved_bytes",
                    "content_items",
                    "media_files",
                    "counted_on",
                    "disarmed_thresholds",
                    "updated_at",
                ],
            ),
        ]

    def __str__(self) -> str:
        return f"{self.tenant}"


class TypeUsage(models.Model):
    """A tenant's live items of one type: their number and the bytes of their bodies."""

    pk = models.CompositePrimaryKey("tenant_id", "content_type")
    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="+", db_index=False)
    content_type = models.CharField(max_length=10)
    items = models.BigIntegerField(default=0)
    bytes = models.BigIntegerField(default=0)

    class Meta:
        db_table = "content_quota_usage_by_type"
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(items__gte=0, bytes__gte=0), name="quota_type_not_negative"),
            RowSecurity(name="quota_type_row_security"),
        ]

    def __str__(self) -> str:
        return f"{self.items} {self.content_type}"


class DailyUsage(models.Model):
    """A tenant's counters at the end of a day (UTC) on which they changed, and what was generated on it."""

    pk = models.CompositePrimaryKey("tenant_id", "date")
    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="+", db_index=False)
    date = models.DateField()
    total_items = models.BigIntegerField(null=True, help_text="Null until the day is over.")
    total_bytes = models.BigIntegerField(null=True, help_text="Null until the day is over.")
    generated = models.BigIntegerField(default=0, db_default=0)

    class Meta:
        db_table = "content_quota_daily"
        constraints: ClassVar = [RowSecurity(name="quota_daily_row_security")]

    def __str__(self) -> str:
        return f"{self.tenant_id} on {self.date}"


class MonthlyGeneration(models.Model):
    """What a tenant generated in a month of its time zone, and what is reserved of that month.

    A row a month instead of a counter that is set back: a clock that jumps over a month's end and back finds the
    numbers as they were.
    """

    pk = models.CompositePrimaryKey("tenant_id", "month")
    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="+", db_index=False)
    month = models.DateField(help_text="The month's first day.")
    generated = models.BigIntegerField(default=0)
    reserved = models.BigIntegerField(default=0)

    class Meta:
        db_table = "content_quota_generation"
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(generated__gte=0, reserved__gte=0), name="generation_not_negative"),
            RowSecurity(name="quota_generation_row_security"),
        ]

    def __str__(self) -> str:
        return f"{self.generated} in {self.month:%Y-%m}"


class Reservation(models.Model):
    """Bytes and generated items held for work that is under way, until it settles, ends or expires."""

    id = models.UUIDField(primary_key=True, editable=False, help_text="Its holder's id: a holder has one at most.")
    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="+", db_index=False)
    bytes = models.BigIntegerField(help_text="What is still held.")
    items = models.BigIntegerField(help_text="Generated items that are still held, of the month.")
    month = models.DateField(help_text="The month that the items count in.")
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField(db_index=True)

    class Meta:
        db_table = "content_quota_reservations"
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(bytes__gte=0, items__gte=0), name="reservation_not_negative"),
            RowSecurity(name="quota_reservation_row_security"),
        ]
        indexes: ClassVar = [models.Index("tenant", "expires_at", name="reservation_of_tenant")]

    def __str__(self) -> str:
        return f"{self.bytes} bytes, {self.items} items until {self.expires_at:%Y-%m-%d %H:%M}"


class Alert(models.Model):
    """Usage crossed a threshold upward. The database itself allows one a threshold and tenant in 24 hours."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="+", db_index=False)
    threshold = models.PositiveSmallIntegerField(help_text="Percent of the limit.")
    used_bytes = models.BigIntegerField()
    limit_bytes = models.BigIntegerField()
    plan_tier = models.CharField(max_length=20)
    created_at = models.DateTimeField()
    quiet_until = models.DateTimeField(help_text="Until then the threshold does not alert again.")
    fanned_out_at = models.DateTimeField(null=True, help_text="When its deliveries were written.")

    class Meta:
        db_table = "content_quota_alerts"
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["tenant", "id"], name="alert_of_tenant"),
            models.CheckConstraint(condition=Q(threshold__in=THRESHOLDS), name="alert_threshold_known"),
            ExclusionConstraint(
                name="one_alert_a_threshold_in_a_day",
                expressions=[
                    ("tenant", RangeOperators.EQUAL),
                    ("threshold", RangeOperators.EQUAL),
                    (
                        Func("created_at", "quiet_until", function="tstzrange", output_field=DateTimeRangeField()),
                        RangeOperators.OVERLAPS,
                    ),
                ],
            ),
            RowSecurity(name="quota_alert_row_security"),
        ]
        indexes: ClassVar = [
            models.Index("tenant", F("created_at").desc(), name="alert_newest"),
            models.Index("created_at", name="alert_not_fanned_out", condition=Q(fanned_out_at=None)),
        ]

    def __str__(self) -> str:
        return f"{self.threshold} % on {self.created_at:%Y-%m-%d %H:%M}"


class AlertTarget(models.Model):
    """An address of a tenant's that is told of its alerts."""

    class Kind(models.TextChoices):
        """What the address belongs to."""

        SLACK = "slack", "Slack"
        TEAMS = "teams", "Microsoft Teams"
        WEBHOOK = "webhook", "Webhook"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="+", db_index=False)
    kind = models.CharField(max_length=10, choices=Kind.choices)
    name = models.CharField(max_length=100, blank=True, default="")
    url = models.TextField(help_text="Encrypted: who knows it can write there.")
    url_hint = models.CharField(max_length=300, help_text="Its host and last characters.")
    created_by = models.UUIDField(null=True)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "content_quota_alert_targets"
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["tenant", "id"], name="alert_target_of_tenant"),
            models.CheckConstraint(condition=Q(kind__in=["slack", "teams", "webhook"]), name="alert_target_kind_known"),
            RowSecurity(name="quota_alert_target_row_security"),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} {self.url_hint}"


class AlertDelivery(models.Model):
    """An alert on its way to one person or target; without an alert it is a test of a target.

    While it is being sent, `next_attempt_at` is the end of the sender's lease.
    """

    class Status(models.TextChoices):
        """Where it is on its way."""

        PENDING = "pending"
        HELD = "held", "held for the day's digest"
        SENT = "sent"
        FAILED = "failed"
        DROPPED = "dropped", "dropped: the person or target is gone"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="+", db_index=False)
    alert = models.ForeignKey(Alert, models.CASCADE, null=True, related_name="deliveries", db_constraint=False)
    user = models.ForeignKey(User, models.CASCADE, null=True, related_name="+")
    target = models.ForeignKey(
        AlertTarget, models.CASCADE, null=True, related_name="deliveries", db_constraint=False, db_index=False
    )
    turn = models.PositiveSmallIntegerField(default=1, help_text="Above 1: sent again by staff.")
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.PENDING)
    attempts = models.PositiveSmallIntegerField(default=0)
    next_attempt_at = models.DateTimeField()
    last_error = models.TextField(blank=True, default="")
    created_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "content_quota_alert_deliveries"
        verbose_name_plural = "alert deliveries"
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["alert", "user", "turn"], name="alert_once_a_person"),
            models.UniqueConstraint(fields=["alert", "target", "turn"], name="alert_once_a_target"),
            models.CheckConstraint(
                condition=Q(user=None, target__isnull=False) | Q(user__isnull=False, target=None),
                name="alert_delivery_goes_somewhere",
            ),
            TenantForeignKey(name="alert_delivery_of_tenants_alert", column="alert_id", to="quotas.Alert"),
            TenantForeignKey(name="alert_delivery_of_tenants_target", column="target_id", to="quotas.AlertTarget"),
            RowSecurity(name="quota_alert_delivery_row_security"),
        ]
        indexes: ClassVar = [
            models.Index("next_attempt_at", name="alert_delivery_due", condition=Q(status__in=["pending", "held"])),
            models.Index("target", F("created_at").desc(), name="alert_delivery_of_target"),
        ]

    def __str__(self) -> str:
        return f"{self.alert or 'test'} to {self.target or self.user}"


class Reconciliation(models.Model):
    """A comparison of counters with the sums of what is stored, for all tenants or one."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True)
    dry_run = models.BooleanField(default=False)
    of_all = models.BooleanField(default=True, help_text="Of all tenants, rather than some.")
    tenants = models.PositiveIntegerField(default=0)
    drifted = models.PositiveIntegerField(default=0, help_text="Tenants whose counters were wrong.")
    failed = models.PositiveIntegerField(default=0, help_text="Tenants that could not be compared.")
    drift_bytes = models.BigIntegerField(default=0, help_text="Sum of the differences in used bytes, without signs.")

    class Meta:
        db_table = "content_quota_reconciliations"
        indexes: ClassVar = [models.Index(F("started_at").desc(), name="reconciliation_newest")]

    def __str__(self) -> str:
        return f"{self.started_at:%Y-%m-%d %H:%M}"


class Drift(models.Model):
    """A tenant's counters that a reconciliation found wrong."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="+", db_index=False)
    reconciliation = models.ForeignKey(Reconciliation, models.CASCADE, null=True, related_name="drifts")
    found_at = models.DateTimeField()
    repaired = models.BooleanField()
    differences = models.JSONField(help_text='Counter → {"counted", "real"}.')

    class Meta:
        db_table = "content_quota_drifts"
        constraints: ClassVar = [RowSecurity(name="quota_drift_row_security")]
        indexes: ClassVar = [models.Index("tenant", F("found_at").desc(), name="drift_newest")]

    def __str__(self) -> str:
        return f"{', '.join(self.differences)} of {self.tenant_id}"
