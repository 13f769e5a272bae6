"""The quotas room's Django application."""

from django.apps import AppConfig


class QuotasConfig(AppConfig):
    """Plans and usage."""

    name = "quotas"
    verbose_name = "Plans and usage"
