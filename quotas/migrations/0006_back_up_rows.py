"""Has the change log, and so the backup, told of plans and of tenants' plans and overrides."""

from typing import ClassVar

from django.db import migrations

import engarde.common.constraints


class Migration(migrations.Migration):
    """See the module."""

    dependencies: ClassVar = [
        ("common", "0002_log_row"),
        ("accounts", "0005_back_up_rows"),
        ("quotas", "0005_history_and_retention"),
    ]

    operations: ClassVar = [
        migrations.AddConstraint(
            model_name="plan",
            constraint=engarde.common.constraints.BackedUp(
                comparable="",
                entity_type="plan",
                events=("INSERT", "UPDATE", "DELETE"),
                key=("tier",),
                left_out=(),
                name="plan_backed_up",
                noticed=(),
                tenant="",
                when="",
            ),
        ),
        migrations.AddConstraint(
            model_name="quotausage",
            constraint=engarde.common.constraints.BackedUp(
                comparable="",
                entity_type="quota",
                events=("INSERT", "UPDATE", "DELETE"),
                key=("tenant_id",),
                left_out=(
                    "used_bytes",
                    "reserved_bytes",
                    "content_items",
                    "media_files",
                    "counted_on",
                    "disarmed_thresholds",
                    "updated_at",
                ),
                name="quota_usage_backed_up",
                noticed=(),
                tenant="tenant_id",
                when="",
            ),
        ),
    ]
