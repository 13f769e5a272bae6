"""How jobs end or stop: each act is done inside the tenant's scope, once, by whoever finds the job in a state that allows it.

Locks are taken in the order items by index, job, usage.
"""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import structlog
from django.db import connection
from django.utils import timezone

from content.models import Event
from content.webhooks import operations as webhooks
from engarde.accounts import operations as account_operations
from engarde.accounts.models import Mail
from generation.models import UNFINISHED, ItemStatus, Job, JobItem, JobStatus
from quotas import reservations

log = structlog.get_logger(__name__)

CANCEL = """
UPDATE content_generation_items SET status = 'cancelled', lease = NULL, lease_until = NULL
WHERE job_id = %s AND status IN ('pending', 'running')"""
FAIL = """
WITH failed AS (
    UPDATE content_generation_items SET status = 'failed', error_code = %(code)s, error = %(message)s, lease = NULL, lease_until = NULL
    WHERE job_id = %(job)s AND status IN ('pending', 'running') RETURNING index
)
INSERT INTO content_generation_events (tenant_id, job_id, seq, index, status, content_id, error_code)
SELECT %(tenant)s, %(job)s, %(last)s + row_number() OVER (ORDER BY index), index, 'failed', NULL, %(code)s FROM failed"""
EVENT_OF = {
    JobStatus.COMPLETED: Event.GENERATION_COMPLETED,
    JobStatus.COMPLETED_WITH_ERRORS: Event.GENERATION_COMPLETED,
    JobStatus.FAILED: Event.GENERATION_FAILED,
    JobStatus.CANCELLED: Event.GENERATION_CANCELLED,
    JobStatus.PAUSED: Event.GENERATION_PAUSED,
}
HEADLINES = {
    JobStatus.COMPLETED: "all texts are there",
    JobStatus.COMPLETED_WITH_ERRORS: "done, with errors",
    JobStatus.FAILED: "it failed",
    JobStatus.PAUSED: "it is paused",
}


def lock_job(*, tenant_id: UUID, job_id: UUID, with_items: bool = False) -> Job | None:
    """Lock a job's row, and before it those of its unfinished items where all of them are about to change.

    The job comes without its parameters, which may be large.
    """
    if with_items:
        rows = JobItem.objects.filter(job_id=job_id, status__in=[ItemStatus.PENDING, ItemStatus.RUNNING])
        list(rows.select_for_update().order_by("index").values_list("index", flat=True))
    return Job.objects.select_for_update().defer("params").filter(tenant_id=tenant_id, id=job_id).first()


def finish_if_done(job: Job) -> bool:
    """End a locked job whose last item has just finished; False while there are others."""
    if job.completed + job.failed < job.target_count or job.status not in UNFINISHED:
        return False
    if not job.failed:
        status = JobStatus.COMPLETED
    else:
        status = JobStatus.COMPLETED_WITH_ERRORS if job.completed else JobStatus.FAILED
    message = "Every item failed; see the items' errors." if status == JobStatus.FAILED else ""
    _end(job, status, "all_items_failed" if message else "", message)
    return True


def cancel(job: Job) -> None:
    """Cancel a job that was locked with its items; what was generated stays."""
    with connection.cursor() as cursor:
        cursor.execute(CANCEL, [job.id])
    _end(job, JobStatus.CANCELLED, "", "")


def fail(job: Job, code: str, message: str) -> None:
    """End a job that was locked with its items because no item of it can succeed; the unfinished ones fail for that reason."""
    values: Mapping[str, Any] = {
        "tenant": job.tenant_id,
        "job": job.id,
        "last": job.last_seq,
        "code": code,
        "message": message,
    }
    with connection.cursor() as cursor:
        cursor.execute(FAIL, values)
        failed = cursor.rowcount
    job.failed += failed
    job.last_seq += failed
    _end(job, JobStatus.FAILED, code, message)


def pause(job: Job, code: str, message: str) -> None:
    """Stop a locked job until somebody resumes it; what is under way still ends."""
    job.status, job.error_code, job.error_message = JobStatus.PAUSED, code, message
    job.save(update_fields=["status", "error_code", "error_message"])
    _tell(job)


def _end(job: Job, status: str, code: str, message: str) -> None:
    job.status, job.error_code, job.error_message, job.completed_at = status, code, message, timezone.now()
    fields = ["status", "error_code", "error_message", "completed_at", "completed", "failed", "last_seq"]
    job.save(update_fields=fields)
    reservations.release(tenant_id=job.tenant_id, reservation_id=job.id)
    _tell(job)


def _tell(job: Job) -> None:
    """Have the tenant's webhooks and the person who started the job told of its state."""
    log.info("a job of generation ended or was paused", **_logged(job))
    told = summary_of(job)
    webhooks.announce(
        tenant_id=job.tenant_id, event=EVENT_OF[JobStatus(job.status)], data=told, occurred_at=timezone.now()
    )
    if job.notify and job.status != JobStatus.CANCELLED:
        account_operations.mail_member(
            tenant_id=job.tenant_id,
            member_id=job.created_by,
            kind=Mail.Kind.GENERATION_ENDED,
            details={**told, "headline": HEADLINES[JobStatus(job.status)]},
        )


def _logged(job: Job) -> dict[str, Any]:
    names = ("status", "completed", "failed", "target_count", "provider", "error_code")
    return {"job_id": str(job.id), **{name: getattr(job, name) for name in names}}


def summary_of(job: Job) -> dict[str, Any]:
    """Return what is told of a job outside the API."""
    return {
        "job_id": str(job.id),
        "tenant_id": str(job.tenant_id),
        "status": job.status,
        "content_type": job.content_type,
        "target_count": job.target_count,
        "progress": job.completed,
        "failed": job.failed,
        "total_cost_usd": str(job.cost_usd.normalize() if job.cost_usd else 0),
        "error_code": job.error_code,
        "error_message": job.error_message,
    }
