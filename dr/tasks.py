"""Celery's envelopes."""

import time
from typing import Any

from celery import shared_task
from django.utils import timezone

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
