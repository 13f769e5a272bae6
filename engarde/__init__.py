"""En Garde content storage: the project that mounts its rooms."""

from engarde.common.memory import limit_arenas

limit_arenas()  # before any thread is there

from engarde.celery import app as celery_app  # noqa: E402 -- Celery may start threads

__all__ = ["celery_app"]
