"""Adds runs, figures, restores, verifications, findings, drills, erasures and copies of media."""

from typing import ClassVar

import django.contrib.postgres.fields
import django.db.models.functions.datetime
import uuid_utils.compat
from django.db import migrations, models

import engarde.common.constraints


class Migration(migrations.Migration):
    """See the module."""

    dependencies: ClassVar = [
        ("dr", "0001_initial"),
    ]

    operations: ClassVar = [
        migrations.CreateModel(
            name="DailyFigures",
            fields=[
                ("date", models.DateField(primary_key=True, serialize=False)),
                ("rows", models.BigIntegerField(db_default=0, default=0)),
                ("bytes", models.BigIntegerField(db_default=0, default=0)),
                ("batches", models.BigIntegerField(db_default=0, default=0)),
                ("loads", models.BigIntegerField(db_default=0, default=0)),
                ("retries", models.BigIntegerField(db_default=0, default=0)),
                ("failures", models.BigIntegerField(db_default=0, default=0)),
                ("seconds", models.FloatField(db_default=0, default=0, help_text="Spent shipping.")),
                (
                    "rpo_counts",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.BigIntegerField(), db_default=[], default=list, size=None
                    ),
                ),
                ("rpo_max_seconds", models.FloatField(db_default=0, default=0)),
            ],
            options={
                "verbose_name_plural": "daily figures",
                "db_table": "dr_daily_figures",
            },
        ),
        migrations.CreateModel(
            name="Drill",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid_utils.compat.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("scenario", models.CharField(max_length=30)),
                (
                    "scheduled",
                    models.BooleanField(default=False, help_text="By beat, of a sampled tenant's real backup."),
                ),
                ("tenant_id", models.UUIDField(help_text="The sampled tenant.", null=True)),
                ("started_at", models.DateTimeField()),
                ("finished_at", models.DateTimeField(null=True)),
                ("ok", models.BooleanField(null=True)),
                ("items", models.BigIntegerField(default=0)),
                ("lost", models.BigIntegerField(default=0)),
                ("mismatched", models.BigIntegerField(default=0)),
                ("rto_seconds", models.FloatField(null=True)),
                ("rpo_seconds", models.FloatField(null=True)),
                ("report", models.JSONField(default=dict)),
            ],
            options={
                "db_table": "dr_drills",
                "indexes": [models.Index(models.OrderBy(models.F("started_at"), descending=True), name="drill_newest")],
                "constraints": [engarde.common.constraints.RowSecurity(column="tenant_id", name="drill_row_security")],
            },
        ),
        migrations.CreateModel(
            name="Erasure",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid_utils.compat.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("tenant_id", models.UUIDField()),
                ("content_id", models.UUIDField(help_text="Null for all of the tenant.", null=True)),
                ("reason", models.CharField(blank=True, default="", max_length=300)),
                ("requested_by", models.UUIDField(help_text="Null for a command.", null=True)),
                ("requested_at", models.DateTimeField()),
                ("finished_at", models.DateTimeField(null=True)),
                (
                    "steps",
                    models.JSONField(
                        default=dict, help_text="What is done already, by tier; a repeat goes on after it."
                    ),
                ),
                ("certificate", models.JSONField(null=True)),
            ],
            options={
                "db_table": "dr_erasures",
                "indexes": [
                    models.Index(models.OrderBy(models.F("requested_at"), descending=True), name="erasure_newest")
                ],
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("finished_at", None)),
                        fields=("tenant_id", "content_id"),
                        name="one_erasure_at_a_time",
                        nulls_distinct=False,
                    ),
                    engarde.common.constraints.RowSecurity(column="tenant_id", name="erasure_row_security"),
                ],
            },
        ),
        migrations.CreateModel(
            name="Finding",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid_utils.compat.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("verification_id", models.UUIDField(help_text="The run that saw it last.")),
                ("tenant_id", models.UUIDField()),
                ("entity_type", models.CharField(max_length=20)),
                ("entity_id", models.UUIDField()),
                ("version", models.PositiveIntegerField(default=0)),
                (
                    "tier",
                    models.CharField(
                        choices=[
                            ("postgres", "Postgres"),
                            ("spool", "Spool"),
                            ("zerodb", "Zerodb"),
                            ("bigquery", "Bigquery"),
                            ("media", "Media"),
                        ],
                        max_length=10,
                    ),
                ),
                (
                    "kind",
                    models.CharField(
                        choices=[("mismatched", "Mismatched"), ("missing", "Missing"), ("extra", "Extra")],
                        max_length=10,
                    ),
                ),
                ("problem", models.TextField()),
                ("found_at", models.DateTimeField()),
                ("repaired_at", models.DateTimeField(null=True)),
            ],
            options={
                "db_table": "dr_findings",
                "indexes": [
                    models.Index(
                        models.F("tenant_id"),
                        models.OrderBy(models.F("found_at"), descending=True),
                        name="finding_newest",
                    )
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("tier__in", ["postgres", "spool", "zerodb", "bigquery", "media"])),
                        name="finding_tier_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("kind__in", ["mismatched", "missing", "extra"])), name="finding_kind_known"
                    ),
                    engarde.common.constraints.RowSecurity(column="tenant_id", name="finding_row_security"),
                ],
            },
        ),
        migrations.CreateModel(
            name="MediaCopy",
            fields=[
                ("blob_id", models.UUIDField(primary_key=True, serialize=False)),
                ("tenant_id", models.UUIDField()),
                ("storage_key", models.CharField(max_length=200)),
                ("sha256", models.BinaryField()),
                ("size_bytes", models.BigIntegerField()),
                ("attempts", models.PositiveIntegerField(db_default=0, default=0)),
                ("next_try_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("last_error", models.TextField(blank=True, db_default="", default="")),
                ("copied_at", models.DateTimeField(null=True)),
                ("checked_at", models.DateTimeField(null=True)),
                ("unneeded_since", models.DateTimeField(null=True)),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={
                "verbose_name_plural": "media copies",
                "db_table": "dr_media_copies",
                "indexes": [
                    models.Index(
                        models.F("next_try_at"), condition=models.Q(("copied_at", None)), name="media_copy_due"
                    ),
                    models.Index(
                        models.F("checked_at"),
                        condition=models.Q(("copied_at__isnull", False)),
                        name="media_copy_checked",
                    ),
                    models.Index(
                        models.F("unneeded_since"),
                        condition=models.Q(("unneeded_since__isnull", False)),
                        name="media_copy_unneeded",
                    ),
                ],
                "constraints": [
                    engarde.common.constraints.RowSecurity(column="tenant_id", name="media_copy_row_security")
                ],
            },
        ),
        migrations.CreateModel(
            name="Restore",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid_utils.compat.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("tenant_id", models.UUIDField(help_text="Null for all.", null=True)),
                ("as_of", models.DateTimeField(help_text="Null for the latest state.", null=True)),
                (
                    "tiers",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(max_length=10), default=list, size=None
                    ),
                ),
                ("dry_run", models.BooleanField(default=False)),
                ("started_at", models.DateTimeField()),
                ("finished_at", models.DateTimeField(null=True)),
                ("ok", models.BooleanField(null=True)),
                ("report", models.JSONField(default=dict)),
            ],
            options={
                "db_table": "dr_restores",
                "indexes": [
                    models.Index(models.OrderBy(models.F("started_at"), descending=True), name="restore_newest")
                ],
                "constraints": [
                    engarde.common.constraints.RowSecurity(column="tenant_id", name="restore_row_security")
                ],
            },
        ),
        migrations.CreateModel(
            name="Run",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid_utils.compat.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("started_at", models.DateTimeField()),
                ("finished_at", models.DateTimeField(null=True)),
                ("status", models.CharField(max_length=10)),
                ("reason", models.TextField(blank=True, default="")),
                ("sealed", models.PositiveIntegerField(default=0, help_text="Batches sealed.")),
                ("batches", models.PositiveIntegerField(default=0, help_text="Batches shipped.")),
                ("loads", models.PositiveIntegerField(default=0, help_text="Load jobs among what shipped them.")),
                ("rows", models.PositiveIntegerField(default=0)),
                ("bytes", models.BigIntegerField(default=0)),
                ("retries", models.PositiveIntegerField(default=0, help_text="Batches that had been tried before.")),
                ("failures", models.PositiveIntegerField(default=0)),
                ("backlog", models.BigIntegerField(default=0, help_text="Changes that were left.")),
                ("lag_seconds", models.FloatField(default=0, help_text="Age of the oldest change that was left.")),
            ],
            options={
                "db_table": "dr_runs",
                "indexes": [
                    models.Index(
                        models.OrderBy(models.F("started_at"), descending=True),
                        models.OrderBy(models.F("id"), descending=True),
                        name="run_newest",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Verification",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid_utils.compat.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("tenant_id", models.UUIDField(help_text="Null for all.", null=True)),
                ("deep", models.BooleanField(default=False)),
                ("repair", models.BooleanField(default=False)),
                ("started_at", models.DateTimeField()),
                ("finished_at", models.DateTimeField(null=True)),
                ("checked", models.BigIntegerField(default=0)),
                ("mismatched", models.BigIntegerField(default=0)),
                ("missing", models.BigIntegerField(default=0)),
                ("extra", models.BigIntegerField(default=0)),
                ("repaired", models.BigIntegerField(default=0)),
                ("error", models.TextField(blank=True, default="", help_text="Why it could not be carried through.")),
            ],
            options={
                "db_table": "dr_verifications",
                "indexes": [
                    models.Index(models.OrderBy(models.F("started_at"), descending=True), name="verification_newest")
                ],
                "constraints": [
                    engarde.common.constraints.RowSecurity(column="tenant_id", name="verification_row_security")
                ],
            },
        ),
        migrations.AlterModelOptions(
            name="syncstate",
            options={"verbose_name": "backup", "verbose_name_plural": "backup"},
        ),
        migrations.AddField(
            model_name="batch",
            name="lanes",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.BigIntegerField(),
                help_text="Sums of three parts of its rows' hashes.",
                null=True,
                size=None,
            ),
        ),
        migrations.AddField(
            model_name="batch",
            name="oldest_at",
            field=models.DateTimeField(help_text="When its oldest change was made.", null=True),
        ),
        migrations.AddField(
            model_name="batch",
            name="pack_attempt",
            field=models.PositiveIntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name="batch",
            name="pack_id",
            field=models.UUIDField(null=True),
        ),
        migrations.AddField(
            model_name="batch",
            name="set_aside_at",
            field=models.DateTimeField(help_text="Since when it is only tried once a day.", null=True),
        ),
        migrations.AddField(
            model_name="syncstate",
            name="awaits_restore",
            field=models.BooleanField(
                db_default=False,
                default=False,
                help_text="The database is newer than its backup: what was before has to come back.",
            ),
        ),
        migrations.AddField(
            model_name="syncstate",
            name="alerted",
            field=models.CharField(blank=True, default="", max_length=20),
        ),
        migrations.AddField(
            model_name="syncstate",
            name="alerted_at",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name="syncstate",
            name="failing_since",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name="syncstate",
            name="paused_at",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name="syncstate",
            name="paused_by",
            field=models.UUIDField(null=True),
        ),
        migrations.AlterField(
            model_name="syncstate",
            name="epoch",
            field=models.BigIntegerField(
                help_text="Raised by a restore, and higher than any in the archive.", null=True
            ),
        ),
        migrations.AddIndex(
            model_name="batch",
            index=models.Index(
                models.F("pack_id"),
                condition=models.Q(("acked_at", None), ("pack_id__isnull", False)),
                name="batch_of_pack",
            ),
        ),
        migrations.AddIndex(
            model_name="batch",
            index=models.Index(
                models.F("acked_at"), condition=models.Q(("acked_at__isnull", False)), name="batch_acked"
            ),
        ),
        migrations.AddIndex(
            model_name="batch",
            index=models.Index(
                models.OrderBy(models.F("sealed_at"), descending=True),
                models.OrderBy(models.F("id"), descending=True),
                name="batch_newest",
            ),
        ),
    ]
