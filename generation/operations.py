"""What people ask of jobs: start, cancel, resume, retry. Everything that can be known is checked before anything starts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import structlog
from django.conf import settings
from django.db import connection
from uuid_utils.compat import uuid7

from engarde.common import wake
from engarde.common.problems import Invalid, NotFound
from engarde.common.scopes import tenant_scope
from generation import endings, keys, prompts, queries, stops
from generation.keys import Writer
from generation.models import ACTIVE, UNFINISHED, Job, JobStatus
from generation.problems import CostCapReached, JobFinished, NotFinished, NothingToRetry, NotPaused, TooManyJobs
from generation.prompts import BadTemplate, Brief
from generation.writing import Manner
from quotas import reports, reservations
from quotas.reports import Check

log = structlog.get_logger(__name__)

DISPATCH_TASK = "generation.dispatch"
HELD_FOR = timedelta(hours=24)  # a reservation is renewed while the job goes on
TOPIC = "topic"
MAKE_ITEMS = """
INSERT INTO content_generation_items (tenant_id, job_id, index, status, attempts, next_attempt_at)
SELECT %s, %s, index, 'pending', 0, now() FROM generate_series(0, %s) AS index"""
TRY_AGAIN = """
UPDATE content_generation_items
SET status = 'pending', attempts = 0, error_code = '', error = '', next_attempt_at = now()
WHERE job_id = %s AND status = 'failed'"""


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """What a caller wants generated.

    Attributes:
        params: prompt_template, topics, platforms, tone and the other wishes, as they are stored with the job.
        max_tokens: of an answer; None for the default.
    """

    content_type: str
    target_count: int
    concurrency: int
    params: Mapping[str, Any]
    provider: str | None = None
    model: str | None = None
    brand_id: UUID | None = None
    max_tokens: int | None = None
    max_cost_usd: Decimal | None = None
    notify: bool = True


@dataclass(frozen=True, slots=True)
class Started:
    """A job that was queued, and what its quota check found."""

    job: Job
    check: Check


def start_batch(
    *,
    tenant_id: UUID,
    created_by: UUID,
    request: BatchRequest,
    now: datetime,
    last: Callable[[Started], None] | None = None,
) -> Started:
    """Queue a job. Call it outside a scope: it may ask the provider for its models.

    Args:
        last: called inside the transaction once all is written.

    Raises:
        Invalid: the template, the model, the brand or the cost cap cannot be used.
        LLMKeyMissing, LLMKeyInvalid, LLMNoCredit, LLMNotConfigured, LLMUnavailable: there is nobody to write.
        StorageQuotaExceeded, GenerationQuotaExceeded: not all of it would fit.
        TooManyJobs: the tenant has GENERATION_UNFINISHED_JOBS_PER_TENANT.
    """
    check_template(request.params["prompt_template"], request.params.get("topics", ()))
    brief = queries.brief_of(
        tenant_id=tenant_id, brand_id=request.brand_id, content_type=request.content_type, params=request.params
    )
    writer = keys.find_writer(tenant_id=tenant_id, provider=request.provider, model=request.model, now=now)
    job = _new_job(tenant_id, created_by, request, brief.brief, writer, now)
    job.brand_id = brief.brand_id
    size = job.estimated_item_bytes * job.target_count
    check = reports.check(tenant_id=tenant_id, size_bytes=size, items=job.target_count, now=now)
    with tenant_scope(tenant_id):
        job.save(force_insert=True)
        with connection.cursor() as cursor:
            cursor.execute(MAKE_ITEMS, [tenant_id, job.id, job.target_count - 1])
        _hold(job, job.target_count, now)
        _require_place(tenant_id)
        started = Started(job, check)
        if last:
            last(started)
        wake.after_commit(DISPATCH_TASK)
    log.info("a job of generation was queued", job_id=str(job.id), items=job.target_count, provider=job.provider)
    return started


def check_template(template: str, topics: Sequence[str]) -> None:
    """Check that a prompt template can be filled in.

    Raises:
        Invalid: it cannot, names something else than `{topic}`, or names it without any topics.
    """
    field = "generation_params.prompt_template"
    try:
        names = prompts.placeholders_of(template)
    except BadTemplate as error:
        raise Invalid(field, str(error), "invalid_template") from error
    if unknown := sorted(names - {TOPIC}):
        message = f"Unknown variable {{{unknown[0]}}}: a template may use {{topic}}."
        raise Invalid(field, message, "unknown_variable")
    if TOPIC in names and not topics:
        raise Invalid("generation_params.topics", "The template uses {topic}, so give at least one.", "required")


def _new_job(
    tenant_id: UUID, created_by: UUID, request: BatchRequest, brief: Brief, writer: Writer, now: datetime
) -> Job:
    manner = manner_of(model=writer.model, params=request.params, max_tokens=request.max_tokens)
    longest = longest_prompt(request.params)
    if len(longest) > prompts.MAX_PROMPT:
        too_long = f"With the longest topic in place the prompt has more than {prompts.MAX_PROMPT} characters."
        raise Invalid("generation_params.prompt_template", too_long, "max_length")
    message = brief.message(longest)
    price = writer.price
    item_limit = manner.most_usd(price, message) if price else None
    _check_cap(request.max_cost_usd, item_limit)
    usual_bytes = prompts.usual_bytes(brief, manner.max_tokens)
    usual = None
    if price:
        usual = price.of(prompts.usual_tokens(message, usual_bytes, manner.max_tokens)) * request.target_count
    return Job(
        id=uuid7(),
        tenant_id=tenant_id,
        created_by=created_by,
        notify=request.notify,
        content_type=request.content_type,
        target_count=request.target_count,
        concurrency=request.concurrency,
        provider=writer.credential.provider,
        model=writer.model,
        params={**request.params, "max_tokens": manner.max_tokens},
        input_price=price.input if price else None,
        output_price=price.output if price else None,
        max_cost_usd=request.max_cost_usd,
        item_cost_limit=item_limit,
        estimated_cost_usd=usual,
        estimated_item_bytes=usual_bytes,
        created_at=now,
    )


def manner_of(*, model: str, params: Mapping[str, Any], max_tokens: int | None) -> Manner:
    """Return how a model is called for a job with these parameters."""
    return Manner(
        model=model,
        max_tokens=max_tokens or settings.GENERATION_MAX_TOKENS,
        timeout=settings.GENERATION_CALL_TIMEOUT_SECONDS,
        temperature=params.get("temperature"),
    )


def longest_prompt(params: Mapping[str, Any]) -> str:
    """Return the longest request of a job, for bounds on what an item costs."""
    longest = max(params.get("topics", ()), key=lambda topic: len(topic.encode()), default="")
    return prompts.fill(params["prompt_template"], longest)


def _check_cap(cap: Decimal | None, item_limit: Decimal | None) -> None:
    if cap is None:
        return
    if item_limit is None:
        message = "Nobody knows the model's price, so no cap can be kept; the operator can add it to LLM_PRICES."
        raise Invalid("max_cost_usd", message, "price_unknown")
    if item_limit > cap:
        message = f"A single item may cost up to {format(item_limit.normalize(), 'f')} USD."
        raise Invalid("max_cost_usd", message, "too_low")


def _require_place(tenant_id: UUID) -> None:
    """Count the tenant's unfinished jobs; its usage is locked by the reservation, so nobody adds one meanwhile."""
    most = settings.GENERATION_UNFINISHED_JOBS_PER_TENANT
    if Job.objects.filter(tenant_id=tenant_id, status__in=UNFINISHED).count() > most:
        raise TooManyJobs(f"A tenant may have {most} unfinished jobs; wait for one to end, or cancel one.")


def _hold(job: Job, items: int, now: datetime) -> None:
    """Reserve the quota for so many items of a job."""
    reservations.reserve(
        tenant_id=job.tenant_id,
        reservation_id=job.id,
        size_bytes=items * job.estimated_item_bytes,
        items=items,
        expires_at=now + HELD_FOR,
        now=now,
    )


def keep_hold(*, job: Job, now: datetime) -> None:
    """Keep what a job has reserved for another day; should it be gone, reserve anew what the job still needs.

    Raises:
        StorageQuotaExceeded, GenerationQuotaExceeded: it does not fit any more.
    """
    with tenant_scope(job.tenant_id):
        row = endings.lock_job(tenant_id=job.tenant_id, job_id=job.id)
        if row is None or row.status not in ACTIVE:
            return
        if not reservations.extend(tenant_id=job.tenant_id, reservation_id=job.id, expires_at=now + HELD_FOR):
            _hold(row, row.target_count - row.completed - row.failed, now)


def cancel_job(*, tenant_id: UUID, job_id: UUID) -> Job:
    """Cancel a job: no call starts any more, and what comes back of those under way is dropped.

    Raises:
        NotFound: the tenant has no such job.
        JobFinished: it has ended already.
    """
    with tenant_scope(tenant_id):
        cancel_in_scope(tenant_id=tenant_id, job_id=job_id)
    stops.tell(job_id)
    return queries.get_job(tenant_id=tenant_id, job_id=job_id)


def cancel_in_scope(*, tenant_id: UUID, job_id: UUID) -> None:
    """Inside a scope, cancel a job.

    Raises:
        NotFound, JobFinished: see `cancel_job`.
    """
    job = _lock(tenant_id, job_id, with_items=True)
    if job.is_finished:
        raise JobFinished(f"The job has ended already: it is {job.status}.")
    endings.cancel(job)


def resume_job(*, tenant_id: UUID, job_id: UUID, max_cost_usd: Decimal | None, now: datetime) -> Job:
    """Let a paused job go on.

    Args:
        max_cost_usd: a new cap; None to keep the old one.

    Raises:
        NotFound: the tenant has no such job.
        NotPaused: it is not paused.
        CostCapReached: not one more item fits under the cap.
        LLMKeyMissing, LLMKeyInvalid, LLMNoCredit, LLMNotConfigured: there is nobody to write.
        StorageQuotaExceeded, GenerationQuotaExceeded: what is left of it does not fit.
    """
    job = queries.get_job(tenant_id=tenant_id, job_id=job_id)
    _require_paused(job)
    keys.find_writer(tenant_id=tenant_id, provider=job.provider, model=job.model, now=now)
    with tenant_scope(tenant_id):
        resume_in_scope(tenant_id=tenant_id, job_id=job_id, max_cost_usd=max_cost_usd, now=now)
    return queries.get_job(tenant_id=tenant_id, job_id=job_id)


def resume_in_scope(*, tenant_id: UUID, job_id: UUID, now: datetime, max_cost_usd: Decimal | None = None) -> None:
    """Inside a scope, let a paused job go on; whether its key works its workers will find out.

    Raises:
        NotFound, NotPaused, CostCapReached, StorageQuotaExceeded, GenerationQuotaExceeded: see `resume_job`.
    """
    job = _lock(tenant_id, job_id)
    _require_paused(job)
    _start_again(job, job.target_count - job.completed - job.failed, max_cost_usd, now)


def _require_paused(job: Job) -> None:
    if job.status != JobStatus.PAUSED:
        raise NotPaused(f"Only a paused job can be resumed; this one is {job.status}.")


def retry_job(*, tenant_id: UUID, job_id: UUID, max_cost_usd: Decimal | None, now: datetime) -> Job:
    """Try the failed items of a job again, and no others.

    Raises:
        NotFound: the tenant has no such job.
        NotFinished: it has not ended yet.
        NothingToRetry: no item failed.
        CostCapReached, LLMKeyMissing, StorageQuotaExceeded, …: as for `resume_job`.
    """
    job = queries.get_job(tenant_id=tenant_id, job_id=job_id)
    _require_failed(job)
    keys.find_writer(tenant_id=tenant_id, provider=job.provider, model=job.model, now=now)
    with tenant_scope(tenant_id):
        retry_in_scope(tenant_id=tenant_id, job_id=job_id, max_cost_usd=max_cost_usd, now=now)
    return queries.get_job(tenant_id=tenant_id, job_id=job_id)


def retry_in_scope(*, tenant_id: UUID, job_id: UUID, now: datetime, max_cost_usd: Decimal | None = None) -> None:
    """Inside a scope, have the failed items of a job tried again; whether its key works its workers will find out.

    Raises:
        NotFound, NotFinished, NothingToRetry, CostCapReached, StorageQuotaExceeded, …: see `retry_job`.
    """
    job = _lock(tenant_id, job_id)
    _require_failed(job)
    again = job.failed
    with connection.cursor() as cursor:
        cursor.execute(TRY_AGAIN, [job.id])
    job.failed = 0
    job.completed_at = None
    _start_again(job, again, max_cost_usd, now)


def _require_failed(job: Job) -> None:
    if job.status == JobStatus.CANCELLED:
        raise NothingToRetry("The job was cancelled; start another one for what is missing.")
    if not job.is_finished:
        raise NotFinished(f"The job is {job.status}; its failed items can be tried again once it has ended.")
    if not job.failed:
        raise NothingToRetry("No item of the job failed.")


def _start_again(job: Job, items: int, max_cost_usd: Decimal | None, now: datetime) -> None:
    """Bring a locked job back among those that workers take."""
    if max_cost_usd is not None:
        _check_cap(max_cost_usd, job.item_cost_limit)
        job.max_cost_usd = max_cost_usd
    if job.max_cost_usd is not None and job.item_cost_limit and job.cost_usd + job.item_cost_limit > job.max_cost_usd:
        raise CostCapReached(
            f"The job has cost {format(job.cost_usd.normalize(), 'f')} USD, and another item might take it over the cap "
            f"of {format(job.max_cost_usd.normalize(), 'f')}; give a higher max_cost_usd."
        )
    job.status, job.error_code, job.error_message = JobStatus.PENDING, "", ""
    job.touched_at, job.not_before, job.refused_since = None, None, None
    job.save()
    reservations.release(tenant_id=job.tenant_id, reservation_id=job.id)
    _hold(job, items, now)
    wake.after_commit(DISPATCH_TASK)


def _lock(tenant_id: UUID, job_id: UUID, *, with_items: bool = False) -> Job:
    job = endings.lock_job(tenant_id=tenant_id, job_id=job_id, with_items=with_items)
    if job is None:
        raise NotFound("generation job")
    return job
