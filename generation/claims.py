"""Items between workers: taken under a lease, settled once. One transaction does both, so no item is lost or done twice.

Times of leases and retries are PostgreSQL's own, whatever the clocks of the workers' hosts say.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import ROUND_DOWN, Decimal
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import connection
from django.db.models.functions import Now
from django.utils import timezone
from uuid_utils.compat import uuid7

from content import operations as content_operations
from content.items import Item
from engarde.common.scopes import tenant_scope
from generation import endings
from generation.answers import Text
from generation.llm.base import Tokens
from generation.models import ACTIVE, Job, JobStatus
from quotas import charging

LOST = "worker_lost"
LOST_MESSAGE = "The workers that had the item in hand died each time."

MINE = """
SELECT index, attempts FROM content_generation_items
WHERE job_id = %s AND index = ANY(%s) AND status = 'running' AND lease = %s ORDER BY index FOR UPDATE"""
SETTLE = """
UPDATE content_generation_items AS item
SET status = done.status, content_id = done.content_id, error_code = done.error_code, error = done.error,
    attempts = item.attempts - done.refund, next_attempt_at = now() + done.wait * interval '1 second',
    cost_usd = item.cost_usd + done.cost, input_tokens = item.input_tokens + done.input_tokens,
    output_tokens = item.output_tokens + done.output_tokens, lease = NULL, lease_until = NULL
FROM unnest(%(indexes)s::int[], %(statuses)s::text[], %(content_ids)s::uuid[], %(error_codes)s::text[], %(errors)s::text[],
            %(refunds)s::int[], %(waits)s::float[], %(costs)s::numeric[], %(inputs)s::bigint[], %(outputs)s::bigint[])
     AS done (index, status, content_id, error_code, error, refund, wait, cost, input_tokens, output_tokens)
WHERE item.job_id = %(job)s AND item.index = done.index"""
EVENTS = """
INSERT INTO content_generation_events (tenant_id, job_id, seq, index, status, content_id, error_code)
SELECT %(tenant)s, %(job)s, %(last)s + done.number, done.index, done.status, done.content_id, done.error_code
FROM unnest(%(indexes)s::int[], %(statuses)s::text[], %(content_ids)s::uuid[], %(error_codes)s::text[])
     WITH ORDINALITY AS done (index, status, content_id, error_code, number)"""
IN_HAND = """
SELECT count(*), count(*) FILTER (WHERE lease_until > now()),
       count(DISTINCT lease) FILTER (WHERE lease_until > now() AND lease <> %s)
FROM content_generation_items WHERE job_id = %s AND status = 'running'"""
CLAIM = """
WITH due AS (
    SELECT index FROM content_generation_items
    WHERE job_id = %(job)s AND status = 'pending' AND next_attempt_at <= now()
    ORDER BY index LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
UPDATE content_generation_items AS item
SET status = 'running', lease = %(lease)s, lease_until = now() + %(seconds)s * interval '1 second', attempts = attempts + 1
FROM due WHERE item.job_id = %(job)s AND item.index = due.index
RETURNING item.index, item.attempts"""
ABANDONED = """
SELECT index, attempts FROM content_generation_items
WHERE job_id = %s AND status = 'running' AND lease_until <= now() ORDER BY index FOR UPDATE SKIP LOCKED"""
TAKE_BACK = """
UPDATE content_generation_items SET status = 'pending', lease = NULL, lease_until = NULL, next_attempt_at = now()
WHERE job_id = %s AND index = ANY(%s)"""
RENEW = """
WITH mine AS (
    SELECT index FROM content_generation_items
    WHERE job_id = %(job)s AND status = 'running' AND lease = %(lease)s ORDER BY index FOR UPDATE
)
UPDATE content_generation_items AS item SET lease_until = now() + %(seconds)s * interval '1 second'
FROM mine WHERE item.job_id = %(job)s AND item.index = mine.index"""
WAITING = """
SELECT count(*), extract(epoch FROM min(next_attempt_at) - now())::float
FROM content_generation_items WHERE job_id = %s AND status = 'pending'"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one try of an item.

    Attributes:
        text: what was written; None when nothing was.
        error_code: why nothing was; kept only with an item that failed for good.
        retry_in: seconds until it may be tried again; None for never.
        is_free: whether the try does not count.
        is_refusal: whether the provider said "too many calls".
        prompt: what was asked for, kept with the content.
    """

    index: int
    text: Text | None = None
    tokens: Tokens = field(default_factory=Tokens)
    cost: Decimal = Decimal(0)
    error_code: str = ""
    error: str = ""
    retry_in: float | None = None
    is_free: bool = False
    is_refusal: bool = False
    prompt: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """How a job stands after a step.

    Attributes:
        claimed: indexes of the items that are the caller's now, each with how often it is tried with this time.
        others: workers besides the caller that have items in hand.
        in_hand: items that somebody has in hand, the caller's and dead workers' among them.
        is_held_back: whether the cost cap allows not one more item.
        last_seq: how many items have finished.
        refused_since: since when the provider has said nothing but "too many calls".
    """

    status: str
    claimed: Mapping[int, int] = field(default_factory=dict)
    others: int = 0
    in_hand: int = 0
    is_held_back: bool = False
    last_seq: int = 0
    refused_since: datetime | None = None

    @property
    def is_active(self) -> bool:
        """Whether items of the job may be claimed."""
        return self.status in ACTIVE


def step(*, job: Job, lease: UUID, outcomes: Sequence[Outcome], want: int, crowd: int, now: datetime) -> Step:
    """Settle what is done and claim what is next, in one transaction.

    An outcome of an item that is not the caller's any more is dropped: another worker has it, or the job was cancelled.

    Args:
        job: as the caller has read it once, with its parameters; its counters are read anew.
        want: how many items the caller can take; the job's concurrency and cost cap may allow fewer.
        crowd: claim nothing where so many other workers have items in hand.

    Raises:
        StorageQuotaExceeded, GenerationQuotaExceeded, Invalid, TooLarge: a text cannot be stored; nothing was settled.
    """
    with content_operations.named_conflicts(), tenant_scope(job.tenant_id):
        items, settled = _store(job, _mine(job.id, lease, outcomes), now)
        row = endings.lock_job(tenant_id=job.tenant_id, job_id=job.id)
        if row is None:
            return Step(JobStatus.CANCELLED)
        _count(row, settled, items, now)
        found = _claim(row, lease, want, crowd) if row.status in ACTIVE else Step(row.status)
        if items:
            charging.charge(
                tenant_id=job.tenant_id,
                now=now,
                added=[content_operations.sized(item) for item in items],
                reservation_id=job.id,
                generated=len(items),
            )
        endings.finish_if_done(row)
    return replace(found, status=row.status, last_seq=row.last_seq, refused_since=row.refused_since)


@dataclass(frozen=True, slots=True)
class _Settled:
    """An outcome as it goes into the item's row."""

    outcome: Outcome
    status: str
    content_id: UUID | None = None


def _mine(job_id: UUID, lease: UUID, outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Lock the items of outcomes that are still under the lease; those out of attempts are not retried any more."""
    if not outcomes:
        return []
    with connection.cursor() as cursor:
        cursor.execute(MINE, [job_id, [outcome.index for outcome in outcomes], lease])
        attempts: dict[int, int] = dict(cursor.fetchall())
    return [
        _last_try(outcome, attempts[outcome.index])
        for outcome in sorted(outcomes, key=lambda one: one.index)
        if outcome.index in attempts
    ]


def _last_try(outcome: Outcome, attempts: int) -> Outcome:
    is_last = attempts >= settings.GENERATION_MAX_ATTEMPTS and not outcome.is_free
    return replace(outcome, retry_in=None) if is_last else outcome


def _store(job: Job, outcomes: Sequence[Outcome], now: datetime) -> tuple[list[Item], list[_Settled]]:
    """Write the contents, and what came of each item into its row."""
    if not outcomes:
        return [], []
    written = [outcome for outcome in outcomes if outcome.text]
    ids = [uuid7() for _ in written]
    items: list[Item] = []
    if written:
        contents = [content_fields(job, outcome) for outcome in written]
        items = content_operations.write_new(
            tenant_id=job.tenant_id, author_id=job.created_by, contents=contents, now=now, ids=ids
        )
    content_of = dict(zip((outcome.index for outcome in written), ids, strict=True))
    settled = [_Settled(one, _status_of(one), content_of.get(one.index)) for one in outcomes]
    with connection.cursor() as cursor:
        cursor.execute(SETTLE, {"job": job.id, **_columns(settled)})
    return items, settled


def _status_of(outcome: Outcome) -> str:
    if outcome.text:
        return "completed"
    return "failed" if outcome.retry_in is None else "pending"


def _columns(settled: Sequence[_Settled]) -> dict[str, Any]:
    is_final = [one.status != "pending" for one in settled]
    outcomes = [one.outcome for one in settled]
    return {
        "indexes": [one.index for one in outcomes],
        "statuses": [one.status for one in settled],
        "content_ids": [one.content_id for one in settled],
        "error_codes": [one.error_code if final else "" for one, final in zip(outcomes, is_final, strict=True)],
        "errors": [one.error[:1000] if final else "" for one, final in zip(outcomes, is_final, strict=True)],
        "refunds": [int(one.is_free) for one in outcomes],
        "waits": [one.retry_in or 0.0 for one in outcomes],
        "costs": [one.cost for one in outcomes],
        "inputs": [one.tokens.input for one in outcomes],
        "outputs": [one.tokens.output for one in outcomes],
    }


def content_fields(job: Job, outcome: Outcome) -> dict[str, Any]:
    """Return the document of a text that was written for a job."""
    text = outcome.text
    assert text is not None  # noqa: S101 -- only outcomes with a text get here
    return {
        "title": text.title,
        "body": text.body,
        "hashtags": list(text.hashtags),
        "type": job.content_type,
        "brand_id": job.brand_id,
        "campaign_space_id": job.params.get("campaign_space_id"),
        "platforms": job.params.get("platforms", []),
        "tags": job.params.get("tags", []),
        "ai_generation": ai_generation(
            provider=job.provider,
            model=job.model,
            prompt=outcome.prompt,
            tokens=outcome.tokens,
            cost=None if job.input_price is None else outcome.cost,
            job_id=job.id,
        ),
    }


def ai_generation(
    *, provider: str, model: str, prompt: str, tokens: Tokens, cost: Decimal | None, job_id: UUID | None
) -> dict[str, Any]:
    """Return what a content says of how it was generated."""
    return {
        "provider": provider,
        "model": model,
        "prompt": prompt,
        "tokens": tokens.input + tokens.output,
        "input_tokens": tokens.input,
        "output_tokens": tokens.output,
        "cost_usd": None if cost is None else format(cost.normalize(), "f"),
        "job_id": str(job_id) if job_id else None,
    }


def _count(job: Job, settled: Sequence[_Settled], items: Sequence[Item], now: datetime) -> None:
    """Bring a locked job's counters up to what was settled, and number what finished."""
    finished = [one for one in settled if one.status != "pending"]
    if finished:
        columns = _columns(finished)
        names = ("indexes", "statuses", "content_ids", "error_codes")
        values: Mapping[str, Any] = {name: columns[name] for name in names}
        with connection.cursor() as cursor:
            cursor.execute(EVENTS, {"tenant": job.tenant_id, "job": job.id, "last": job.last_seq, **values})
    job.completed += len(items)
    job.failed += len(finished) - len(items)
    job.last_seq += len(finished)
    job.stored_bytes += sum(item.size_bytes for item in items)
    job.cost_usd += sum((one.outcome.cost for one in settled), Decimal(0))
    job.input_tokens += sum(one.outcome.tokens.input for one in settled)
    job.output_tokens += sum(one.outcome.tokens.output for one in settled)
    if any(not one.outcome.is_free for one in settled):
        job.refused_since = None
    elif any(one.outcome.is_refusal for one in settled):
        job.refused_since = job.refused_since or now
    job.touched_at = Now()  # PostgreSQL's clock, by which `dispatch` goes
    fields = ["completed", "failed", "last_seq", "stored_bytes", "cost_usd", "input_tokens", "output_tokens"]
    job.save(update_fields=[*fields, "refused_since", "touched_at"])


def _claim(job: Job, lease: UUID, want: int, crowd: int) -> Step:
    """Take items of a locked job, as many as its concurrency and its cost cap leave."""
    with connection.cursor() as cursor:
        cursor.execute(IN_HAND, [lease, job.id])
        in_hand, live, others = cursor.fetchone()
        by_cost, room = _affordable(job, in_hand), min(want, job.concurrency - live)
        found = Step(job.status, others=others, in_hand=in_hand, is_held_back=room > 0 >= by_cost)
        limit = min(room, by_cost)
        if limit <= 0 or others >= crowd:
            return found
        seconds = settings.GENERATION_LEASE_SECONDS
        cursor.execute(CLAIM, {"job": job.id, "limit": limit, "lease": lease, "seconds": seconds})
        claimed = dict(sorted(cursor.fetchall()))
    if claimed and job.status == JobStatus.PENDING:
        job.status = JobStatus.RUNNING
        job.started_at = job.started_at or timezone.now()
        job.save(update_fields=["status", "started_at"])
    return replace(found, claimed=claimed, in_hand=in_hand + len(claimed))


def _affordable(job: Job, in_hand: int) -> int:
    """Return how many more items may be tried at once without any chance to go over the cost cap."""
    if job.max_cost_usd is None or not job.item_cost_limit:
        return job.concurrency
    left = job.max_cost_usd - job.cost_usd - in_hand * job.item_cost_limit
    return max(0, int((left / job.item_cost_limit).to_integral_value(rounding=ROUND_DOWN)))


def renew(*, job: Job, lease: UUID, now: datetime) -> Step:
    """Keep what the caller has in hand, take back what dead workers had, and tell how the job stands."""
    with tenant_scope(job.tenant_id):
        with connection.cursor() as cursor:
            cursor.execute(RENEW, {"job": job.id, "lease": lease, "seconds": settings.GENERATION_LEASE_SECONDS})
            cursor.execute(ABANDONED, [job.id])
            abandoned: list[tuple[int, int]] = cursor.fetchall()
            most = settings.GENERATION_MAX_ATTEMPTS
            cursor.execute(TAKE_BACK, [job.id, [index for index, attempts in abandoned if attempts < most]])
        lost = [
            Outcome(index, error_code=LOST, error=LOST_MESSAGE) for index, attempts in abandoned if attempts >= most
        ]
        _, settled = _store(job, lost, now)
        row = endings.lock_job(tenant_id=job.tenant_id, job_id=job.id)
        if row is None:
            return Step(JobStatus.CANCELLED)
        if settled or row.status in ACTIVE:
            _count(row, settled, [], now)
        endings.finish_if_done(row)
    return Step(row.status, last_seq=row.last_seq)


def give_back(*, job: Job, lease: UUID, indexes: Sequence[int], now: datetime) -> None:
    """Return items that were claimed and not tried to the end."""
    outcomes = [Outcome(index, retry_in=0.0, is_free=True) for index in indexes]
    step(job=job, lease=lease, outcomes=outcomes, want=0, crowd=0, now=now)


def waiting(*, job: Job) -> tuple[int, float]:
    """Return how many items nobody has in hand, and in how many seconds the next of them is due."""
    with tenant_scope(job.tenant_id), connection.cursor() as cursor:
        cursor.execute(WAITING, [job.id])
        number, seconds = cursor.fetchone()
    return number, max(0.0, seconds or 0.0)
