"""The accounts room's Django application."""

from django.apps import AppConfig


class AccountsConfig(AppConfig):
    """Tenants, people and their credentials."""

    name = "engarde.accounts"
    label = "accounts"
    verbose_name = "Tenants"

    def ready(self) -> None:
        """Have the counters there from the start, in processes that send no mail too."""
        from engarde.accounts import metrics  # noqa: F401, PLC0415 -- registering is the point
