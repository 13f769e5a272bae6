"""Finding the jobs that no worker has in hand: new ones, those whose workers died, and those whose time has come again."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from django.conf import settings
from django.db import connection

from engarde.common.scopes import system_scope, tenant_scope

UNTOUCHED_SECONDS = 10
MOST_AT_ONCE = 500
# Of a tenant's jobs the oldest go first, a few at a time, so that a hundred of them do not stand in everybody's way.
DUE = """
WITH ranked AS (
    SELECT id, row_number() OVER (PARTITION BY tenant_id ORDER BY started_at IS NULL, created_at, id) AS place
    FROM content_generation_jobs
    WHERE status IN ('pending', 'running') AND coalesce(not_before, '-infinity') <= now()
), due AS (
    SELECT job.id FROM content_generation_jobs AS job JOIN ranked ON ranked.id = job.id
    WHERE ranked.place <= %(per_tenant)s
      AND coalesce(job.touched_at, '-infinity') < now() - %(untouched)s * interval '1 second'
    ORDER BY job.touched_at NULLS FIRST, job.created_at LIMIT %(most)s FOR UPDATE OF job SKIP LOCKED
)
UPDATE content_generation_jobs AS job SET touched_at = now()
FROM due WHERE job.id = due.id RETURNING job.tenant_id, job.id, job.concurrency"""
WAIT = """
UPDATE content_generation_jobs SET not_before = now() + %s * interval '1 second', touched_at = NULL
WHERE id = %s AND status IN ('pending', 'running')"""


@dataclass(frozen=True, slots=True)
class DueJob:
    """A job that needs workers."""

    tenant_id: UUID
    job_id: UUID
    concurrency: int


def due_jobs() -> Sequence[DueJob]:
    """Return the jobs that need workers, each to one caller only for UNTOUCHED_SECONDS."""
    values = {
        "per_tenant": settings.GENERATION_JOBS_PER_TENANT,
        "untouched": UNTOUCHED_SECONDS,
        "most": MOST_AT_ONCE,
    }
    with system_scope("find jobs that no worker has in hand"), connection.cursor() as cursor:
        cursor.execute(DUE, values)
        return [DueJob(*row) for row in cursor.fetchall()]


def resume_later(*, tenant_id: UUID, job_id: UUID, seconds: float) -> None:
    """Have a job found again in so many seconds."""
    with tenant_scope(tenant_id), connection.cursor() as cursor:
        cursor.execute(WAIT, [seconds, job_id])
