"""Jobs that came back from a backup: no worker has them in hand, and items that had not finished are in no backup."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from django.db import connection
from django.db.models import Count, Q, Sum

from engarde.common.scopes import tenant_scope
from generation.models import UNFINISHED, ItemStatus, Job, JobItem, JobStatus

INTERRUPTED = "interrupted"
MESSAGE = "The platform was restored from its backup while this job ran; retry has the rest written."
FAIL_MISSING = """
INSERT INTO content_generation_items (job_id, index, tenant_id, status, error_code, error)
SELECT job.id, number, job.tenant_id, 'failed', %s, %s
FROM content_generation_jobs AS job, generate_series(0, job.target_count - 1) AS number
WHERE job.id = %s ON CONFLICT (job_id, index) DO NOTHING"""
EVENTS = """
INSERT INTO content_generation_events (job_id, seq, tenant_id, index, status, content_id, error_code)
SELECT job_id, row_number() OVER (ORDER BY index), tenant_id, index, status, content_id, error_code
FROM content_generation_items WHERE job_id = %s AND status IN ('completed', 'failed') ON CONFLICT DO NOTHING"""


def settle_jobs(*, tenant_id: UUID, ids: Sequence[UUID], now: datetime) -> None:
    """End the jobs that had not ended, their missing items as failed, so that a retry has them written; tell progress anew."""
    for job_id in ids:
        with tenant_scope(tenant_id), connection.cursor() as cursor:
            job = Job.objects.select_for_update().filter(id=job_id).first()
            if job is None:
                continue
            if job.status in UNFINISHED:
                cursor.execute(FAIL_MISSING, [INTERRUPTED, MESSAGE, job_id])
            cursor.execute(EVENTS, [job_id])
            Job.objects.filter(id=job_id).update(last_seq=cursor.rowcount, **_counted(job, now))


def _counted(job: Job, now: datetime) -> dict[str, object]:
    """Return what an unfinished job ends with: the sums over its items."""
    if job.status not in UNFINISHED:
        return {}
    counts = JobItem.objects.filter(job_id=job.id).aggregate(
        completed=Count("index", filter=Q(status=ItemStatus.COMPLETED)),
        failed=Count("index", filter=Q(status=ItemStatus.FAILED)),
        cost_usd=Sum("cost_usd", default=0),
        input_tokens=Sum("input_tokens", default=0),
        output_tokens=Sum("output_tokens", default=0),
    )
    status = JobStatus.COMPLETED_WITH_ERRORS if counts["completed"] else JobStatus.FAILED
    if not counts["failed"]:
        status = JobStatus.COMPLETED
    ended = {"status": status, "completed_at": now, "error_code": INTERRUPTED, "error_message": MESSAGE}
    return {**counts, **(ended if counts["failed"] else {"status": status, "completed_at": now})}
