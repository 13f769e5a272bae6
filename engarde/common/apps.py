"""The common room's Django application: system checks live here."""

from django.apps import AppConfig


class CommonConfig(AppConfig):
    """Knows no other application."""

    name = "engarde.common"

    def ready(self) -> None:
        """Register the checks, the lookups and the signals that carry request ids and serve metrics; start tracing."""
        from engarde.common import (  # noqa: PLC0415 -- registering is the point
            checks,  # noqa: F401
            lookups,  # noqa: F401
            metrics,  # noqa: F401
            observability,
            request_ids,  # noqa: F401
        )

        observability.start()
