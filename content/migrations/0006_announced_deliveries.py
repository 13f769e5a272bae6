"""Webhooks can be told what is no version of an item."""

from django.db import migrations, models


class Migration(migrations.Migration):
    """Adds what a delivery tells."""

    dependencies = [
        ("content", "0005_usage_by_type"),
    ]

    operations = [
        migrations.AddField(
            model_name="delivery",
            name="data",
            field=models.JSONField(help_text="What is told, where it is no version of an item.", null=True),
        ),
        migrations.AlterField(
            model_name="delivery",
            name="event",
            field=models.CharField(
                choices=[
                    ("content.created", "Created"),
                    ("content.updated", "Updated"),
                    ("content.published", "Published"),
                    ("content.archived", "Archived"),
                    ("content.deleted", "Deleted"),
                    ("content.restored", "Restored"),
                    ("generation.completed", "Generation Completed"),
                    ("generation.failed", "Generation Failed"),
                    ("generation.cancelled", "Generation Cancelled"),
                    ("generation.paused", "Generation Paused"),
                ],
                max_length=30,
            ),
        ),
    ]
