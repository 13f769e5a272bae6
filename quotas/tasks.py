"""Celery's envelopes: one call each."""

import time
from typing import Any
from uuid import UUID

from celery import shared_task
from django.utils import timezone

from quotas import alerts, courier, reconciliation, reservations

LONGEST_RUN_SECONDS = 60.0


@shared_task(name="quotas.send_alerts")
def send_alerts(**_: Any) -> None:
    """Tell people and targets of alerts."""
    courier.run(now=timezone.now)


@shared_task(name="quotas.look_at_thresholds")
def look_at_thresholds(**_: Any) -> None:
    """Alert of what no write noticed: limits that changed, and crossings whose 24 hours are over."""
    alerts.sweep(now=timezone.now())


@shared_task(name="quotas.sweep_reservations")
def sweep_reservations(**_: Any) -> None:
    """Give back what expired reservations hold."""
    reservations.sweep(now=timezone.now())


@shared_task(name="quotas.reconcile")
def reconcile(*, run_id: str | None = None, after: str | None = None, **_: Any) -> None:
    """Compare all counters with what is stored, for a while; the next task goes on from there."""
    deadline = time.monotonic() + LONGEST_RUN_SECONDS
    run, place = reconciliation.run_piece(
        run_id=UUID(run_id) if run_id else None,
        after=UUID(after) if after else None,
        now=timezone.now(),
        go_on=lambda: time.monotonic() < deadline,
    )
    if place is not None:
        reconcile.apply_async(kwargs={"run_id": str(run), "after": str(place)})
        return
    reconciliation.forget_old(now=timezone.now())
