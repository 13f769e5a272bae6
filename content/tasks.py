"""Celery's envelopes: they keep a carrier going for at most a minute and then hand over to the next task."""

from collections.abc import Callable
from typing import Any

import structlog
from celery import shared_task
from django.utils import timezone

from content import collector, documents, indexing, records, retention, scheduler, spool, uploader
from content.media import sweep, uploads
from content.stores.base import COLLECTIONS, StoreRejected, StoreUnavailable
from content.webhooks import sender
from engarde.common import stopping, wake
from engarde.common.scopes import system_scope

log = structlog.get_logger(__name__)

LONGEST_RUN_SECONDS = 45.0
SWEEP_ROWS = 1000
SWEEP_PAUSE_SECONDS = 600
MAX_SWEEP_FAILURES = 100


@shared_task(name="content.upload_documents")
def upload_documents(**_: Any) -> None:
    """Send spooled documents to ZeroDB until none is due."""
    _carry(uploader.run_pass, "content.upload_documents")


@shared_task(name="content.carry_records")
def carry_records(**_: Any) -> None:
    """Put spooled records into ZeroDB, and remove what is to go there, until none is due."""
    _carry(records.run_pass, "content.carry_records")


def _carry(run_pass: Callable[..., uploader.Pass | records.Pass], task_name: str) -> None:
    """Run passes while they get on; what is left over, or came too late, is for the next task."""
    store = documents.document_store()
    go_on = stopping.go_on_for(LONGEST_RUN_SECONDS)
    while store is not None:
        done = run_pass(store=store, now=timezone.now)
        if not done.got_on:
            return
        if not go_on():
            wake.after_commit(task_name)
            return


@shared_task(name="content.sweep_spool")
def sweep_spool(**_: Any) -> None:
    """Drop what the spool need not keep, and the oldest of what only the backup lacks when that is too much."""
    go_on = stopping.go_on_for(LONGEST_RUN_SECONDS)
    dropped = SWEEP_ROWS
    while dropped == SWEEP_ROWS and go_on():
        with system_scope("drop finished documents"):
            dropped = spool.sweep_finished(limit=SWEEP_ROWS)
    with system_scope("keep the spool within its bounds"):
        early = spool.shrink()
    if early:
        log.warning("the spool is full: documents left it that the backup still lacks", count=early)


@shared_task(name="content.collect_duplicates")
def collect_duplicates(*, collection: str = COLLECTIONS[0], after: str = "", failures: int = 0, **_: Any) -> None:
    """Tidy ZeroDB's collections one after the other, for a while; the next task goes on from there."""
    store = documents.document_store()
    go_on = stopping.go_on_for(LONGEST_RUN_SECONDS)
    if store is None:
        return
    found, pause = collector.Collected(place=after), 0
    try:
        collector.run(
            store=store,
            collection=collection,
            now=timezone.now(),
            collected=found,
            go_on=go_on,
        )
    except (StoreUnavailable, StoreRejected) as error:
        log.warning("the sweep of ZeroDB was interrupted", collection=collection, error=str(error))
        failures, pause = failures + 1, SWEEP_PAUSE_SECONDS
    log.info("swept ZeroDB", collection=collection, **found.as_json())
    following = _after(collection) if found.place is None else collection
    if following and failures <= MAX_SWEEP_FAILURES:
        rest = {"collection": following, "after": found.place or "", "failures": failures}
        collect_duplicates.apply_async(kwargs=rest, countdown=pause)


def _after(collection: str) -> str | None:
    return next(iter(COLLECTIONS[COLLECTIONS.index(collection) + 1 :]), None)


@shared_task(name="content.send_webhooks")
def send_webhooks(**_: Any) -> None:
    """Send the webhook deliveries that are due."""
    sender.run(now=timezone.now)


@shared_task(name="content.publish_due")
def publish_due(**_: Any) -> None:
    """Publish the scheduled items whose time has come."""
    scheduler.publish_due(now=timezone.now())


@shared_task(name="content.index_brands")
def index_brands(**_: Any) -> None:
    """Index the items of brands whose language changed."""
    indexing.index_changed_brands(now=timezone.now())


@shared_task(name="content.purge_expired")
def purge_expired(**_: Any) -> None:
    """Remove for good what the plans do not keep any longer."""
    retention.purge(now=timezone.now())


@shared_task(name="content.sweep_media")
def sweep_media(**_: Any) -> None:
    """Remove media bytes that nothing needs."""
    uploads.drop_abandoned()
    go_on = stopping.go_on_for(LONGEST_RUN_SECONDS)
    while not sweep.run_pass(now=timezone.now()).is_idle and go_on():
        pass
