"""Celery's envelopes. No task is long, and one that comes twice does nothing twice: items are claimed in PostgreSQL."""

from typing import Any
from uuid import UUID

import structlog
from celery import shared_task
from django.utils import timezone

from engarde.common import wake
from generation import dispatching, runner

DISPATCH = "generation.dispatch"
AT_ONCE_SECONDS = 1.0
EXPIRES_SECONDS = 60


@shared_task(name=DISPATCH)
def dispatch(**_: Any) -> None:
    """Send workers to the jobs that have none."""
    for job in dispatching.due_jobs():
        for _number in range(runner.wanted_workers(job.concurrency)):
            _send(str(job.tenant_id), str(job.job_id))


@shared_task(name="generation.run_shard", reject_on_worker_lost=True)  # a killed worker's place is taken at once
def run_shard(*, tenant_id: str, job_id: str, **_: Any) -> None:
    """Work on a job for a while; whoever is free goes on with it."""
    structlog.contextvars.bind_contextvars(job_id=job_id)
    done = runner.run(tenant_id=UUID(tenant_id), job_id=UUID(job_id), now=timezone.now)
    if done.is_over:
        wake.after_commit(DISPATCH)  # the tenant's next job may begin
    elif done.resume_in is not None and done.resume_in <= AT_ONCE_SECONDS:
        _send(tenant_id, job_id)
    elif done.resume_in is not None:
        dispatching.resume_later(tenant_id=UUID(tenant_id), job_id=UUID(job_id), seconds=done.resume_in)


def _send(tenant_id: str, job_id: str) -> None:
    run_shard.apply_async(kwargs={"tenant_id": tenant_id, "job_id": job_id}, expires=EXPIRES_SECONDS)
