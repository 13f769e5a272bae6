"""One job's news for all who watch it in this process: read once, encoded once, sent to each.

A feed looks when the channel layer says so, and by itself now and then, as that may lose a message. What it read last stays
in memory for a while; whoever is further behind reads from PostgreSQL.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from uuid import UUID

import structlog
from channels.db import database_sync_to_async
from channels.layers import get_channel_layer
from django.utils import timezone

from engarde.common import json
from generation import queries, serializers
from generation.models import Job, JobEvent
from generation.progress import FLUSH_SECONDS, group_of

log = structlog.get_logger(__name__)

LOOK_SECONDS = 1.0
PAGE = 500
KEPT_EVENTS = 5000
SUBSCRIBE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Told:
    """A finished item as watchers are told of it."""

    seq: int
    text: str


@dataclass(frozen=True, slots=True)
class State:
    """A job's counts at one moment.

    Attributes:
        seq: the last item that they take into account.
        text: the progress message; as it tells when the job may end, it alone is no news.
    """

    seq: int
    status: str
    is_finished: bool
    text: str = field(compare=False)


class Feed:
    """The news of one job; `watch` makes and keeps it."""

    def __init__(self, tenant_id: UUID, job_id: UUID) -> None:
        self.tenant_id = tenant_id
        self.job_id = job_id
        self.watchers = 0
        self.state: State | None = None
        self.version = 0
        self._recent: deque[Told] = deque(maxlen=KEPT_EVENTS)
        self._news = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Start reading."""
        self._task = asyncio.create_task(self._run())

    async def end(self) -> None:
        """Stop reading."""
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def wait_for_news(self, version: int, seconds: float) -> None:
        """Return once there is more than a version, or the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), self._news:
                await self._news.wait_for(lambda: self.version > version)

    async def after(self, seq: int) -> Sequence[Told]:
        """Return what finished after an item, in order, at most PAGE of it."""
        if self._recent and self._recent[0].seq <= seq + 1:
            first = seq + 1 - self._recent[0].seq
            return [self._recent[place] for place in range(first, min(first + PAGE, len(self._recent)))]
        if self.state and self.state.seq <= seq:
            return []
        return _told(await _events(self.tenant_id, self.job_id, seq))

    async def _run(self) -> None:
        structlog.contextvars.clear_contextvars()  # the first watcher's: the feed is everybody's
        structlog.contextvars.bind_contextvars(job_id=str(self.job_id))
        async with self._told_to_look() as look:
            while True:
                begun = time.monotonic()
                try:
                    await self._read()
                except Exception:  # whatever it is, watchers wait for this task
                    log.exception("a job's progress was not read; trying again")
                await asyncio.sleep(max(0.0, FLUSH_SECONDS - (time.monotonic() - begun)))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(look.wait(), LOOK_SECONDS)
                look.clear()

    async def _read(self) -> None:
        last = self._recent[-1].seq if self._recent else None
        job, events = await _news_of(self.tenant_id, self.job_id, last)
        if job is None:
            return
        told = _told(events)
        if last is not None and told and told[0].seq != last + 1:
            self._recent.clear()
        self._recent.extend(told)
        is_behind = bool(self._recent) and self._recent[-1].seq < job.last_seq
        state = State(job.last_seq, job.status, job.is_finished and not is_behind, progress_text(job))
        if told or state != self.state:
            self.state = state
            self.version += 1
            async with self._news:
                self._news.notify_all()

    @asynccontextmanager
    async def _told_to_look(self) -> AsyncIterator[asyncio.Event]:
        """Have an event set whenever the channel layer says "look"."""
        look = asyncio.Event()
        listener = asyncio.create_task(self._listen(look))
        try:
            yield look
        finally:
            listener.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await listener

    async def _listen(self, look: asyncio.Event) -> None:
        layer, group = get_channel_layer(), group_of(self.job_id)
        while True:
            channel = ""
            try:
                channel = await layer.new_channel()
                await layer.group_add(group, channel)
                while True:
                    await layer.receive(channel)
                    look.set()
            except asyncio.CancelledError:
                if channel:
                    with contextlib.suppress(Exception):
                        async with asyncio.timeout(SUBSCRIBE_SECONDS):
                            await layer.group_discard(group, channel)
                raise
            except Exception as error:  # noqa: BLE001 -- whatever Redis' client raises: the feed looks by itself
                log.info("not told of progress for a while", error=str(error))
                await asyncio.sleep(SUBSCRIBE_SECONDS)


def _told(events: Sequence[JobEvent]) -> list[Told]:
    shown = serializers.show_events(events)
    return [Told(one["seq"], json.dumps(one).decode()) for one in shown]


def progress_text(job: Job) -> str:
    """Return the progress message for a job as it is."""
    told = {"type": "progress", "seq": job.last_seq, "job_id": job.id, "status": job.status}
    counts = {**serializers.show_counts(job, timezone.now()), "target_count": job.target_count}
    return json.dumps({**told, **counts}).decode()


@partial(database_sync_to_async, thread_sensitive=False)
def _events(tenant_id: UUID, job_id: UUID, seq: int) -> list[JobEvent]:
    return queries.events_after(tenant_id=tenant_id, job_id=job_id, seq=seq, limit=PAGE)


@partial(database_sync_to_async, thread_sensitive=False)
def _news_of(tenant_id: UUID, job_id: UUID, seq: int | None) -> tuple[Job | None, list[JobEvent]]:
    return queries.news_of(tenant_id=tenant_id, job_id=job_id, seq=seq, limit=KEPT_EVENTS)


_feeds: dict[tuple[int, UUID], Feed] = {}


@asynccontextmanager
async def watch(tenant_id: UUID, job_id: UUID) -> AsyncIterator[Feed]:
    """Have the feed of a job as long as the block lasts; its watchers on this event loop share it."""
    key = (id(asyncio.get_running_loop()), job_id)
    feed = _feeds.get(key)
    if feed is None:
        feed = _feeds[key] = Feed(tenant_id, job_id)
        feed.begin()
    feed.watchers += 1
    try:
        yield feed
    finally:
        feed.watchers -= 1
        if not feed.watchers:
            del _feeds[key]
            await feed.end()
