"""Celery's envelopes: they keep a carrier going for at most a minute and then hand over to the next task."""

import time
from typing import Any

from celery import shared_task
from django.utils import timezone

from content import documents, scheduler, uploader
from engarde.common import wake

LONGEST_RUN_SECONDS = 45.0


@shared_task(name="content.upload_documents")
def upload_documents(**_: Any) -> None:
    """Send spooled documents to ZeroDB until none is due."""
    store = documents.document_store()
    deadline = time.monotonic() + LONGEST_RUN_SECONDS
    while store is not None:
        done = uploader.run_pass(store=store, now=timezone.now)
        if done.is_idle or done.failed:
            return
        if time.monotonic() > deadline:
            wake.after_commit("content.upload_documents")
            return


@shared_task(name="content.publish_due")
def publish_due(**_: Any) -> None:
    """Publish the scheduled items whose time has come."""
    scheduler.publish_due(now=timezone.now())
