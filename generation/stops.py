"""Telling workers at once that a job was cancelled. Best effort: they also see it in PostgreSQL, within half a second."""

from uuid import UUID

from engarde.common import redis as redis_client

KEY = "generation:stopped:{}"
KEPT_SECONDS = 600


def tell(job_id: UUID) -> None:
    """Have no call of a job start any more; call it once the cancellation is committed."""
    redis_client.attempt(lambda client: client.set(KEY.format(job_id), 1, ex=KEPT_SECONDS), None)


def is_stopped(job_id: UUID) -> bool:
    """Tell whether a job was cancelled."""
    return bool(redis_client.attempt(lambda client: client.exists(KEY.format(job_id)), 0))
