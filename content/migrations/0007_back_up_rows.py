"""Has the change log, and so the backup, told of media files."""

from typing import ClassVar

from django.db import migrations, models

import engarde.common.constraints


class Migration(migrations.Migration):
    """See the module."""

    dependencies: ClassVar = [
        ("common", "0002_log_row"),
        ("accounts", "0005_back_up_rows"),
        ("content", "0006_announced_deliveries"),
    ]

    operations: ClassVar = [
        migrations.AddField(
            model_name="change",
            name="facts",
            field=models.TextField(
                help_text="The row as JSON; null for content, whose versions never change.", null=True
            ),
        ),
        migrations.AddConstraint(
            model_name="blob",
            constraint=engarde.common.constraints.BackedUp(
                comparable="",
                entity_type="blob",
                events=("INSERT", "UPDATE", "DELETE"),
                key=("id",),
                left_out=("unused_since",),
                name="blob_backed_up",
                noticed=(),
                tenant="tenant_id",
                when="",
            ),
        ),
        migrations.AddConstraint(
            model_name="media",
            constraint=engarde.common.constraints.BackedUp(
                comparable="",
                entity_type="media",
                events=("INSERT", "UPDATE", "DELETE"),
                key=("id",),
                left_out=(),
                name="media_backed_up",
                noticed=(),
                tenant="tenant_id",
                when="",
            ),
        ),
    ]
