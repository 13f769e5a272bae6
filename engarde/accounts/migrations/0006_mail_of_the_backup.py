"""Mail about the backup, to the platform's staff."""

from typing import ClassVar

from django.db import migrations, models


class Migration(migrations.Migration):
    """Adds two kinds."""

    dependencies: ClassVar = [("accounts", "0005_back_up_rows")]
    operations: ClassVar = [
        migrations.AlterField(
            model_name="mail",
            name="kind",
            field=models.CharField(
                choices=[
                    ("invitation", "Invitation"),
                    ("membership", "Membership"),
                    ("password_reset", "Password Reset"),
                    ("webhook_disabled", "Webhook Disabled"),
                    ("generation_ended", "Generation Ended"),
                    ("backup_trouble", "Backup Trouble"),
                    ("backup_well", "Backup Well"),
                ],
                max_length=20,
            ),
        ),
    ]
