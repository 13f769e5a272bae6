"""The Celery application; its schedule and routes are in the settings."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "engarde.settings")

app = Celery("engarde")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
