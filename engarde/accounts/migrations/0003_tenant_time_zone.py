"""Tenants have a time zone, in which their months begin."""

from django.db import migrations, models

import engarde.common.time_zones


class Migration(migrations.Migration):
    """Adds the column."""

    dependencies = [
        ("accounts", "0002_mail_of_webhooks"),
    ]

    operations = [
        migrations.AddField(
            model_name="tenant",
            name="time_zone",
            field=models.CharField(
                db_default="UTC",
                default="UTC",
                help_text="An IANA name such as Europe/Berlin; the tenant's months begin at midnight there.",
                max_length=64,
                validators=[engarde.common.time_zones.validate_time_zone],
            ),
        ),
    ]
