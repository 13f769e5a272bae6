"""Telling watchers that a job has news. The channel layer only says "look": the job's events in PostgreSQL are the truth."""

import asyncio
import time
from uuid import UUID

import structlog
from channels.layers import get_channel_layer

from generation.calls import Calls

log = structlog.get_logger(__name__)

LOOK = "job.look"
FLUSH_SECONDS = 0.1
SEND_SECONDS = 0.5


def group_of(job_id: UUID) -> str:
    """Return the channel group of those who watch a job."""
    return f"generation-job.{job_id}"


class Looks:
    """Tells a job's watchers to look, at most every FLUSH_SECONDS: best effort, as they look by themselves now and then."""

    def __init__(self, job_id: UUID) -> None:
        self._job_id = job_id
        self._told = 0
        self._told_at = 0.0

    def tell(self, seq: int, calls: Calls, *, is_last: bool) -> None:
        """Tell them if there is news since the last time."""
        is_soon = time.monotonic() - self._told_at < FLUSH_SECONDS
        if (seq == self._told or is_soon) and not is_last:
            return
        self._told, self._told_at = seq, time.monotonic()
        calls.spawn(_send(self._job_id))


async def _send(job_id: UUID) -> None:
    layer = get_channel_layer()
    try:
        async with asyncio.timeout(SEND_SECONDS):
            await layer.group_send(group_of(job_id), {"type": LOOK})
    except Exception as error:  # noqa: BLE001 -- whatever Redis' client raises: watchers look by themselves
        log.info("watchers were not told to look", job=str(job_id), error=str(error))
