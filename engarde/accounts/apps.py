"""The accounts room's Django application."""

from django.apps import AppConfig


class AccountsConfig(AppConfig):
    """Tenants, people and their credentials."""

    name = "engarde.accounts"
    label = "accounts"
    verbose_name = "Tenants"
