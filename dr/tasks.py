"""Celery's envelopes."""

import time
from datetime import timedelta
from typing import Any

from celery import shared_task
from django.conf import settings
from django.utils import timezone

from dr import alerts, keeping, media_copies
from dr import sync as sync_pass
from engarde.common import wake

LONGEST_RUN_SECONDS = 45.0


@shared_task(name="dr.sync")
def sync(**_: Any) -> None:
    """Back up what was committed, until nothing is left or something is in the way."""
    deadline = time.monotonic() + LONGEST_RUN_SECONDS
    while (done := sync_pass.run_pass(now=timezone.now)).shipped:
        if done.status != "healthy":
            return
        if time.monotonic() > deadline:
            wake.after_commit("dr.sync")
            return


@shared_task(name="dr.sweep")
def sweep(**_: Any) -> None:
    """Look thoroughly: ship what is due, compare the last batches with their manifests, drop old records of the work."""
    sync()
    keeping.look_after(now=timezone.now())


@shared_task(name="dr.alert")
def alert(**_: Any) -> None:
    """Tell staff when the backup needs them, and when it is well again."""
    alerts.look(now=timezone.now())


@shared_task(name="dr.copy_media", time_limit=1800)
def copy_media(*, thorough: bool = False, **_: Any) -> None:
    """Copy media files into the second storage until none is due."""
    deadline = time.monotonic() + LONGEST_RUN_SECONDS
    while media_copies.run_pass(now=timezone.now, thorough=thorough).copied:
        thorough = False
        if time.monotonic() > deadline:
            wake.after_commit("dr.copy_media")
            return


@shared_task(name="dr.check_media", time_limit=1800)
def check_media(**_: Any) -> None:
    """Read some copies that nobody read for 30 days."""
    media_copies.check_pass(now=timezone.now)


@shared_task(name="dr.remove_purged", time_limit=1800)
def remove_purged(**_: Any) -> None:
    """Remove from the archive what was purged so long ago that no restore needs it."""
    keeping.remove_purged(before=timezone.now() - timedelta(days=settings.DR_HISTORY_DAYS))
