"""Mail can tell owners that a webhook was switched off."""

from typing import ClassVar

from django.db import migrations, models

KINDS = [
    ("invitation", "Invitation"),
    ("membership", "Membership"),
    ("password_reset", "Password Reset"),
    ("webhook_disabled", "Webhook Disabled"),
]


class Migration(migrations.Migration):
    """Adds the kind."""

    dependencies: ClassVar = [("accounts", "0001_initial")]
    operations: ClassVar = [
        migrations.AlterField("mail", "kind", models.CharField(choices=KINDS, max_length=20)),
    ]
