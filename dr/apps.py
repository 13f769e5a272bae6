"""The disaster recovery room's Django application."""

from django.apps import AppConfig


class DrConfig(AppConfig):
    """Backup, restore and verification."""

    name = "dr"
    verbose_name = "Backup"
