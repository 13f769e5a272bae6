"""Usage by type, day and month, reservations, overrides with a reason, alerts and reconciliations."""

import django.contrib.postgres.constraints
import django.contrib.postgres.fields
import django.contrib.postgres.fields.ranges
import django.db.models.deletion
import django.db.models.functions.datetime
import uuid_utils.compat
from django.conf import settings
from django.contrib.postgres.operations import BtreeGistExtension
from django.db import migrations, models

import engarde.common.constraints


class Migration(migrations.Migration):
    """Adds the tables and columns."""

    dependencies = [
        ("accounts", "0003_tenant_time_zone"),
        ("quotas", "0003_shorter_retention"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        BtreeGistExtension(),
        migrations.CreateModel(
            name="Alert",
            fields=[
                (
                    "tenant",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="accounts.tenant",
                    ),
                ),
                (
                    "id",
                    models.UUIDField(
                        default=uuid_utils.compat.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("threshold", models.PositiveSmallIntegerField(help_text="Percent of the limit.")),
                ("used_bytes", models.BigIntegerField()),
                ("limit_bytes", models.BigIntegerField()),
                ("plan_tier", models.CharField(max_length=20)),
                ("created_at", models.DateTimeField()),
                ("quiet_until", models.DateTimeField(help_text="Until then the threshold does not alert again.")),
                ("fanned_out_at", models.DateTimeField(help_text="When its deliveries were written.", null=True)),
            ],
            options={
                "db_table": "content_quota_alerts",
                "indexes": [
                    models.Index(
                        models.F("tenant"), models.OrderBy(models.F("created_at"), descending=True), name="alert_newest"
                    ),
                    models.Index(
                        models.F("created_at"), condition=models.Q(("fanned_out_at", None)), name="alert_not_fanned_out"
                    ),
                ],
                "constraints": [
                    models.UniqueConstraint(fields=("tenant", "id"), name="alert_of_tenant"),
                    models.CheckConstraint(
                        condition=models.Q(("threshold__in", (70, 85, 95, 100))), name="alert_threshold_known"
                    ),
                    django.contrib.postgres.constraints.ExclusionConstraint(
                        expressions=[
                            ("tenant", "="),
                            ("threshold", "="),
                            (
                                models.Func(
                                    "created_at",
                                    "quiet_until",
                                    function="tstzrange",
                                    output_field=django.contrib.postgres.fields.ranges.DateTimeRangeField(),
                                ),
                                "&&",
                            ),
                        ],
                        name="one_alert_a_threshold_in_a_day",
                    ),
                    engarde.common.constraints.RowSecurity(column="tenant_id", name="quota_alert_row_security"),
                ],
            },
        ),
        migrations.CreateModel(
            name="AlertDelivery",
            fields=[
                (
                    "tenant",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="accounts.tenant",
                    ),
                ),
                (
                    "id",
                    models.UUIDField(
                        default=uuid_utils.compat.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("turn", models.PositiveSmallIntegerField(default=1, help_text="Above 1: sent again by staff.")),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("pending", "Pending"),
                            ("held", "held for the day's digest"),
                            ("sent", "Sent"),
                            ("failed", "Failed"),
                            ("dropped", "dropped: the person or target is gone"),
                        ],
                        default="pending",
                        max_length=10,
                    ),
                ),
                ("attempts", models.PositiveSmallIntegerField(default=0)),
                ("next_attempt_at", models.DateTimeField()),
                ("last_error", models.TextField(blank=True, default="")),
                ("created_at", models.DateTimeField()),
                ("finished_at", models.DateTimeField(null=True)),
            ],
            options={
                "verbose_name_plural": "alert deliveries",
                "db_table": "content_quota_alert_deliveries",
            },
        ),
        migrations.CreateModel(
            name="AlertTarget",
            fields=[
                (
                    "tenant",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="accounts.tenant",
                    ),
                ),
                (
                    "id",
                    models.UUIDField(
                        default=uuid_utils.compat.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                (
                    "kind",
                    models.CharField(
                        choices=[("slack", "Slack"), ("teams", "Microsoft Teams"), ("webhook", "Webhook")],
                        max_length=10,
                    ),
                ),
                ("name", models.CharField(blank=True, default="", max_length=100)),
                ("url", models.TextField(help_text="Encrypted: who knows it can write there.")),
                ("url_hint", models.CharField(help_text="Its host and last characters.", max_length=300)),
                ("created_by", models.UUIDField(null=True)),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={
                "db_table": "content_quota_alert_targets",
                "constraints": [
                    models.UniqueConstraint(fields=("tenant", "id"), name="alert_target_of_tenant"),
                    models.CheckConstraint(
                        condition=models.Q(("kind__in", ["slack", "teams", "webhook"])), name="alert_target_kind_known"
                    ),
                    engarde.common.constraints.RowSecurity(column="tenant_id", name="quota_alert_target_row_security"),
                ],
            },
        ),
        migrations.CreateModel(
            name="DailyUsage",
            fields=[
                (
                    "tenant",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="accounts.tenant",
                    ),
                ),
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "tenant_id", "date", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("date", models.DateField()),
                ("total_items", models.BigIntegerField(help_text="Null until the day is over.", null=True)),
                ("total_bytes", models.BigIntegerField(help_text="Null until the day is over.", null=True)),
                ("generated", models.BigIntegerField(db_default=0, default=0)),
            ],
            options={
                "db_table": "content_quota_daily",
                "constraints": [
                    engarde.common.constraints.RowSecurity(column="tenant_id", name="quota_daily_row_security")
                ],
            },
        ),
        migrations.CreateModel(
            name="Drift",
            fields=[
                (
                    "tenant",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="accounts.tenant",
                    ),
                ),
                (
                    "id",
                    models.UUIDField(
                        default=uuid_utils.compat.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("found_at", models.DateTimeField()),
                ("repaired", models.BooleanField()),
                ("differences", models.JSONField(help_text='Counter → {"counted", "real"}.')),
            ],
            options={
                "db_table": "content_quota_drifts",
            },
        ),
        migrations.CreateModel(
            name="MonthlyGeneration",
            fields=[
                (
                    "tenant",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="accounts.tenant",
                    ),
                ),
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "tenant_id", "month", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("month", models.DateField(help_text="The month's first day.")),
                ("generated", models.BigIntegerField(default=0)),
                ("reserved", models.BigIntegerField(default=0)),
            ],
            options={
                "db_table": "content_quota_generation",
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("generated__gte", 0), ("reserved__gte", 0)), name="generation_not_negative"
                    ),
                    engarde.common.constraints.RowSecurity(column="tenant_id", name="quota_generation_row_security"),
                ],
            },
        ),
        migrations.CreateModel(
            name="Reconciliation",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid_utils.compat.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("started_at", models.DateTimeField()),
                ("finished_at", models.DateTimeField(null=True)),
                ("dry_run", models.BooleanField(default=False)),
                ("of_all", models.BooleanField(default=True, help_text="Of all tenants, rather than some.")),
                ("tenants", models.PositiveIntegerField(default=0)),
                ("drifted", models.PositiveIntegerField(default=0, help_text="Tenants whose counters were wrong.")),
                ("failed", models.PositiveIntegerField(default=0, help_text="Tenants that could not be compared.")),
                (
                    "drift_bytes",
                    models.BigIntegerField(default=0, help_text="Sum of the differences in used bytes, without signs."),
                ),
            ],
            options={
                "db_table": "content_quota_reconciliations",
                "indexes": [
                    models.Index(models.OrderBy(models.F("started_at"), descending=True), name="reconciliation_newest")
                ],
            },
        ),
        migrations.CreateModel(
            name="Reservation",
            fields=[
                (
                    "tenant",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="accounts.tenant",
                    ),
                ),
                (
                    "id",
                    models.UUIDField(
                        editable=False,
                        help_text="Its holder's id: a holder has one at most.",
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("bytes", models.BigIntegerField(help_text="What is still held.")),
                ("items", models.BigIntegerField(help_text="Generated items that are still held, of the month.")),
                ("month", models.DateField(help_text="The month that the items count in.")),
                ("created_at", models.DateTimeField()),
                ("expires_at", models.DateTimeField(db_index=True)),
            ],
            options={
                "db_table": "content_quota_reservations",
                "indexes": [models.Index(models.F("tenant"), models.F("expires_at"), name="reservation_of_tenant")],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("bytes__gte", 0), ("items__gte", 0)), name="reservation_not_negative"
                    ),
                    engarde.common.constraints.RowSecurity(column="tenant_id", name="quota_reservation_row_security"),
                ],
            },
        ),
        migrations.CreateModel(
            name="TypeUsage",
            fields=[
                (
                    "tenant",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="accounts.tenant",
                    ),
                ),
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "tenant_id", "content_type", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("content_type", models.CharField(max_length=10)),
                ("items", models.BigIntegerField(default=0)),
                ("bytes", models.BigIntegerField(default=0)),
            ],
            options={
                "db_table": "content_quota_usage_by_type",
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("bytes__gte", 0), ("items__gte", 0)), name="quota_type_not_negative"
                    ),
                    engarde.common.constraints.RowSecurity(column="tenant_id", name="quota_type_row_security"),
                ],
            },
        ),
        migrations.AlterModelOptions(
            name="quotausage",
            options={"verbose_name": "usage", "verbose_name_plural": "usage"},
        ),
        migrations.AddField(
            model_name="quotausage",
            name="counted_on",
            field=models.DateField(
                db_default=models.Func(template="(now() AT TIME ZONE 'UTC')::date"),
                help_text="The day (UTC) of the last change; when it moves on, a trigger keeps the counters as that day's history.",
            ),
        ),
        migrations.AddField(
            model_name="quotausage",
            name="disarmed_thresholds",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.PositiveSmallIntegerField(),
                blank=True,
                db_default=[],
                default=list,
                help_text="Percentages that were reached and do not warn again until usage falls 5 points below.",
                size=None,
            ),
        ),
        migrations.AddField(
            model_name="quotausage",
            name="generation_limit_override",
            field=models.PositiveIntegerField(
                blank=True, help_text="Generated items a month; replaces the plan's limit.", null=True
            ),
        ),
        migrations.AddField(
            model_name="quotausage",
            name="override_reason",
            field=models.CharField(
                blank=True, db_default="", default="", help_text="Why the plan's limits do not hold.", max_length=300
            ),
        ),
        migrations.AddField(
            model_name="quotausage",
            name="retention_days_override",
            field=models.PositiveIntegerField(blank=True, help_text="Days; replaces the plan's retention.", null=True),
        ),
        migrations.AddConstraint(
            model_name="plan",
            constraint=models.CheckConstraint(
                condition=models.Q(("storage_limit_bytes__gte", 0)), name="plan_storage_not_negative"
            ),
        ),
        migrations.AddConstraint(
            model_name="plan",
            constraint=models.CheckConstraint(
                condition=models.Q(("price_usd_month__gte", 0)), name="plan_price_not_negative"
            ),
        ),
        migrations.RunSQL(
            sql="UPDATE content_quota_usage SET override_reason = 'Set before reasons were kept.' WHERE storage_limit_override IS NOT NULL",
            reverse_sql="",
        ),
        migrations.AddConstraint(
            model_name="quotausage",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("override_reason", ""), _negated=True),
                    models.Q(
                        ("generation_limit_override", None),
                        ("retention_days_override", None),
                        ("storage_limit_override", None),
                    ),
                    _connector="OR",
                ),
                name="quota_override_has_reason",
            ),
        ),
        migrations.AddField(
            model_name="alertdelivery",
            name="alert",
            field=models.ForeignKey(
                db_constraint=False,
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="deliveries",
                to="quotas.alert",
            ),
        ),
        migrations.AddField(
            model_name="alertdelivery",
            name="user",
            field=models.ForeignKey(
                null=True, on_delete=django.db.models.deletion.CASCADE, related_name="+", to=settings.AUTH_USER_MODEL
            ),
        ),
        migrations.AddField(
            model_name="alertdelivery",
            name="target",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="deliveries",
                to="quotas.alerttarget",
            ),
        ),
        migrations.AddField(
            model_name="drift",
            name="reconciliation",
            field=models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="drifts",
                to="quotas.reconciliation",
            ),
        ),
        migrations.AddIndex(
            model_name="alertdelivery",
            index=models.Index(
                models.F("next_attempt_at"),
                condition=models.Q(("status__in", ["pending", "held"])),
                name="alert_delivery_due",
            ),
        ),
        migrations.AddIndex(
            model_name="alertdelivery",
            index=models.Index(
                models.F("target"),
                models.OrderBy(models.F("created_at"), descending=True),
                name="alert_delivery_of_target",
            ),
        ),
        migrations.AddConstraint(
            model_name="alertdelivery",
            constraint=models.UniqueConstraint(fields=("alert", "user", "turn"), name="alert_once_a_person"),
        ),
        migrations.AddConstraint(
            model_name="alertdelivery",
            constraint=models.UniqueConstraint(fields=("alert", "target", "turn"), name="alert_once_a_target"),
        ),
        migrations.AddConstraint(
            model_name="alertdelivery",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("target__isnull", False), ("user", None)),
                    models.Q(("target", None), ("user__isnull", False)),
                    _connector="OR",
                ),
                name="alert_delivery_goes_somewhere",
            ),
        ),
        migrations.AddConstraint(
            model_name="alertdelivery",
            constraint=engarde.common.constraints.TenantForeignKey(
                column="alert_id", name="alert_delivery_of_tenants_alert", to="quotas.Alert"
            ),
        ),
        migrations.AddConstraint(
            model_name="alertdelivery",
            constraint=engarde.common.constraints.TenantForeignKey(
                column="target_id", name="alert_delivery_of_tenants_target", to="quotas.AlertTarget"
            ),
        ),
        migrations.AddConstraint(
            model_name="alertdelivery",
            constraint=engarde.common.constraints.RowSecurity(
                column="tenant_id", name="quota_alert_delivery_row_security"
            ),
        ),
        migrations.AddIndex(
            model_name="drift",
            index=models.Index(
                models.F("tenant"), models.OrderBy(models.F("found_at"), descending=True), name="drift_newest"
            ),
        ),
        migrations.AddConstraint(
            model_name="drift",
            constraint=engarde.common.constraints.RowSecurity(column="tenant_id", name="quota_drift_row_security"),
        ),
    ]
