"""En Garde content storage: the project that mounts its rooms."""

from engarde.celery import app as celery_app

__all__ = ["celery_app"]
