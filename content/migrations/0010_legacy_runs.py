"""Tables for how far a migration of old content got, and what it had to say of rows."""

from typing import ClassVar

import django.contrib.postgres.fields
import django.db.models.deletion
import django.db.models.functions.datetime
import uuid_utils.compat
from django.db import migrations, models


class Migration(migrations.Migration):
    """Creates them."""

    dependencies: ClassVar = [
        ("content", "0009_external_media"),
    ]

    operations: ClassVar = [
        migrations.CreateModel(
            name="LegacyRun",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid_utils.compat.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("table", models.CharField(max_length=40)),
                (
                    "tenant",
                    models.CharField(
                        blank=True, default="", help_text="As the old platform writes it.", max_length=100
                    ),
                ),
                (
                    "last_id",
                    models.TextField(help_text="Of the last row of the last batch that was completed.", null=True),
                ),
                ("source", models.CharField(default="", help_text="The very table that it reads.", max_length=400)),
                (
                    "brought",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.UUIDField(),
                        default=list,
                        help_text="Tenants that came with it.",
                        size=None,
                    ),
                ),
                (
                    "in_hand",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.UUIDField(),
                        default=list,
                        help_text="Items of the batch under way that were not here before it.",
                        size=None,
                    ),
                ),
                ("counts", models.JSONField(default=dict)),
                ("started_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("updated_at", models.DateTimeField(auto_now=True)),
                ("finished_at", models.DateTimeField(null=True)),
            ],
            options={
                "db_table": "content_legacy_runs",
                "indexes": [models.Index(fields=["table", "tenant", "-started_at"], name="legacy_run_newest")],
            },
        ),
        migrations.CreateModel(
            name="LegacyProblem",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("kind", models.CharField(choices=[("error", "Error"), ("warning", "Warning")], max_length=10)),
                (
                    "of_tenant",
                    models.UUIDField(help_text="The tenant whose the row is, as far as it says so.", null=True),
                ),
                ("old_id", models.TextField()),
                ("code", models.CharField(max_length=60)),
                ("message", models.TextField()),
                (
                    "run",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="problems", to="content.legacyrun"
                    ),
                ),
            ],
            options={
                "db_table": "content_legacy_problems",
                "indexes": [models.Index(models.F("of_tenant"), name="legacy_problem_of_tenant")],
            },
        ),
    ]
