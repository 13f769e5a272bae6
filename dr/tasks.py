"""Celery's envelopes."""

from datetime import timedelta
from typing import Any

import structlog
from celery import shared_task
from django.conf import settings
from django.utils import timezone

from dr import alerts, archives, drills, keeping, media_copies, verify
from dr import sync as sync_pass
from engarde.common import stopping, wake

log = structlog.get_logger(__name__)

LONGEST_RUN_SECONDS = 45.0
VERIFY_SECONDS = 300.0
VERIFY_PAUSE_SECONDS = 600
MAX_VERIFY_FAILURES = 36


@shared_task(name="dr.sync")
def sync(**_: Any) -> None:
    """Back up what was committed, until nothing is left or something is in the way."""
    go_on = stopping.go_on_for(LONGEST_RUN_SECONDS)
    while (done := sync_pass.run_pass(now=timezone.now)).shipped:
        if done.status != "healthy":
            return
        if not go_on():
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
    go_on = stopping.go_on_for(LONGEST_RUN_SECONDS)
    while media_copies.run_pass(now=timezone.now, thorough=thorough).copied:
        thorough = False
        if not go_on():
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


@shared_task(name="dr.verify")
def verify_all(*, deep: bool = False, place: dict[str, str] | None = None, failures: int = 0, **_: Any) -> None:
    """Compare all tiers for a while; the next task goes on from there, later if a tier is away."""
    archive = archives.current()
    if archive is None:
        return
    go_on, pause = stopping.go_on_for(VERIFY_SECONDS), 0
    here: verify.Place | None = verify.Place.of(**place) if place else verify.begin(deep=deep, now=timezone.now())
    try:
        while here is not None:
            here = verify.run_part(archive=archive, place=here, deep=deep, now=timezone.now, go_on=go_on)
            if not go_on():
                break
    except verify.AWAY as error:
        log.warning("a verification was interrupted", error=str(error))
        failures, pause = failures + 1, VERIFY_PAUSE_SECONDS
        if failures > MAX_VERIFY_FAILURES and here is not None:
            verify.give_up(place=here, now=timezone.now(), error=str(error))
            return
    if here is not None:
        rest = {"deep": deep, "place": here.as_json(), "failures": failures}
        verify_all.apply_async(kwargs=rest, countdown=pause)


@shared_task(name="dr.drill", time_limit=1800)
def drill(**_: Any) -> None:
    """Bring a sampled tenant back from the real backup into throw-away storage, and compare."""
    drills.run_drill(now=timezone.now)
