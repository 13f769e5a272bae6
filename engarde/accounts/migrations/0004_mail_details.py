"""Mail can tell particulars."""

from django.db import migrations, models


class Migration(migrations.Migration):
    """Adds what a mail tells."""

    dependencies = [
        ("accounts", "0003_tenant_time_zone"),
    ]

    operations = [
        migrations.AddField(
            model_name="mail",
            name="details",
            field=models.JSONField(db_default={}, default=dict, help_text="What the text tells, for its template."),
        ),
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
                ],
                max_length=20,
            ),
        ),
    ]
