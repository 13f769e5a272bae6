"""The common room's Django application: system checks live here."""

from django.apps import AppConfig


class CommonConfig(AppConfig):
    """Knows no other application."""

    name = "engarde.common"

    def ready(self) -> None:
        """Register the checks, the lookups and the signals that carry request ids."""
        from engarde.common import checks, lookups, request_ids  # noqa: F401, PLC0415 -- registering is the point
