"""Reads: jobs, their items and events, and what a text is written for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Count, F, Min, Q, QuerySet, Sum
from django.utils import timezone

from engarde.accounts.models import Brand
from engarde.common import cursors
from engarde.common.paging import Page
from engarde.common.problems import Invalid, NotFound
from engarde.common.scopes import tenant_scope
from generation.models import ACTIVE, ItemStatus, Job, JobEvent, JobItem
from generation.prompts import BrandVoice, Brief

MAX_CONTENT_IDS = 1000


@dataclass(frozen=True, slots=True)
class FoundBrief:
    """A brief, and the brand that it is for."""

    brand_id: UUID
    brief: Brief


@dataclass(frozen=True, slots=True)
class JobView:
    """A job with what its own row does not hold.

    Attributes:
        content_ids: of the first MAX_CONTENT_IDS stored items, by index.
        errors: how many items failed, by code.
    """

    job: Job
    content_ids: Sequence[UUID]
    errors: Mapping[str, int]


def brief_of(*, tenant_id: UUID, brand_id: UUID | None, content_type: str, params: Mapping[str, Any]) -> FoundBrief:
    """Return what to write, for a brand of the tenant's or its first one.

    Raises:
        Invalid: the tenant has no such brand, or none.
    """
    with tenant_scope(tenant_id):
        brands = Brand.objects.filter(tenant_id=tenant_id).order_by("id")
        brand = (brands.filter(id=brand_id) if brand_id else brands).first()
    if brand is None:
        message = "The tenant has no such brand." if brand_id else "The tenant has no brand; create one first."
        raise Invalid("brand_id", message, "unknown_brand")
    return FoundBrief(
        brand.id,
        Brief(
            prompt=params.get("prompt_template", ""),
            content_type=content_type,
            brand=BrandVoice(brand.name, brand.voice, brand.language),
            platforms=params.get("platforms", ()),
            tone=params.get("tone", ""),
            length=params.get("length", ""),
            keywords=params.get("keywords", ()),
            target_audience=params.get("target_audience", ""),
            has_hashtags=params.get("include_hashtags"),
            has_emojis=params.get("include_emojis"),
        ),
    )


def get_job(*, tenant_id: UUID, job_id: UUID) -> Job:
    """Return a job, without its parameters.

    Raises:
        NotFound: the tenant has no such job.
    """
    with tenant_scope(tenant_id):
        return _get(tenant_id, job_id)


def job_to_run(*, tenant_id: UUID, job_id: UUID) -> Job | None:
    """Return a job with its parameters; None when it is gone."""
    with tenant_scope(tenant_id):
        return Job.objects.filter(tenant_id=tenant_id, id=job_id).first()


def view_job(*, tenant_id: UUID, job_id: UUID) -> JobView:
    """Return a job with its contents and errors.

    Raises:
        NotFound: the tenant has no such job.
    """
    with tenant_scope(tenant_id, one_moment=True):
        return JobView(_get(tenant_id, job_id), _content_ids(job_id), _errors(job_id))


def view_of(job: Job) -> JobView:
    """Return a job that was read just now with its contents and errors."""
    with tenant_scope(job.tenant_id, one_moment=True):
        return JobView(job, _content_ids(job.id), _errors(job.id))


def _get(tenant_id: UUID, job_id: UUID) -> Job:
    job = Job.objects.defer("params").filter(tenant_id=tenant_id, id=job_id).first()
    if job is None:
        raise NotFound("generation job")
    return job


def _content_ids(job_id: UUID) -> list[UUID]:
    done = JobItem.objects.filter(job_id=job_id, status=ItemStatus.COMPLETED).order_by("index")
    return [one for one in done.values_list("content_id", flat=True)[:MAX_CONTENT_IDS] if one]


def _errors(job_id: UUID) -> dict[str, int]:
    failed = JobItem.objects.filter(job_id=job_id, status=ItemStatus.FAILED)
    return dict(failed.order_by("error_code").values_list("error_code").annotate(number=Count("index")))


def list_jobs(*, tenant_id: UUID, page: int | None, size: int, cursor: str | None, status: str | None) -> Page[Job]:
    """Return a page of a tenant's jobs, newest first, without their parameters.

    Raises:
        Invalid: the cursor was not made here, or for another status.
    """
    digest = cursors.digest({"list": "jobs", "status": status})
    with tenant_scope(tenant_id, one_moment=True):
        rows: QuerySet[Job] = Job.objects.defer("params").filter(tenant_id=tenant_id)
        rows = rows.filter(status=status) if status else rows
        total = rows.count()
        rows = rows.order_by("-created_at", "-id")
        if cursor:
            at, last = cursors.decode(cursor, digest, [datetime, UUID])
            rows = rows.filter(Q(created_at__lt=at) | Q(created_at=at, id__lt=last))
        start = 0 if page is None else (page - 1) * size
        found = list(rows[start : start + size + 1])
    more = found[size:]
    found = found[:size]
    after = cursors.encode([found[-1].created_at, found[-1].id], digest) if more else None
    return Page(
        rows=found, number=None if cursor else page, size=size, total=total, has_next=bool(more), next_cursor=after
    )


def list_items(
    *, tenant_id: UUID, job_id: UUID, page: int | None, size: int, cursor: str | None, status: str | None
) -> tuple[Job, Page[JobItem]]:
    """Return a job, and a page of its items, by index.

    Raises:
        NotFound: the tenant has no such job.
        Invalid: the cursor was not made here, or for another job or status.
    """
    digest = cursors.digest({"list": "job items", "job": job_id, "status": status})
    with tenant_scope(tenant_id, one_moment=True):
        job = _get(tenant_id, job_id)
        rows = JobItem.objects.filter(tenant_id=tenant_id, job_id=job_id)
        rows = rows.filter(status=status) if status else rows
        total = rows.count()
        rows = rows.order_by("index")
        if cursor:
            [last] = cursors.decode(cursor, digest, [int])
            rows = rows.filter(index__gt=last)
        start = 0 if page is None else (page - 1) * size
        found = list(rows[start : start + size + 1])
    more = found[size:]
    found = found[:size]
    after = cursors.encode([found[-1].index], digest) if more else None
    found_page = Page(
        rows=found, number=None if cursor else page, size=size, total=total, has_next=bool(more), next_cursor=after
    )
    return job, found_page


def events_after(*, tenant_id: UUID, job_id: UUID, seq: int, limit: int) -> list[JobEvent]:
    """Return what finished after an item, in order, at most `limit` of it."""
    with tenant_scope(tenant_id):
        rows = JobEvent.objects.filter(tenant_id=tenant_id, job_id=job_id, seq__gt=seq)
        return list(rows.order_by("seq")[:limit])


def news_of(*, tenant_id: UUID, job_id: UUID, seq: int | None, limit: int) -> tuple[Job | None, list[JobEvent]]:
    """Return a job as it is, and with it what finished after an item, in order, or else the last that did.

    Args:
        seq: None for whoever knows of none yet.
        limit: of events; where more have finished, the newest of them.
    """
    with tenant_scope(tenant_id, one_moment=True):
        job = Job.objects.defer("params").filter(tenant_id=tenant_id, id=job_id).first()
        if job is None or job.last_seq == seq:
            return job, []
        after = max(job.last_seq - limit, seq or 0)
        rows = JobEvent.objects.filter(tenant_id=tenant_id, job_id=job_id, seq__gt=after)
        return job, list(rows.order_by("seq"))


@dataclass(frozen=True, slots=True)
class PlatformState:
    """How generation is on the whole platform.

    Attributes:
        jobs: how many there are, by status.
        oldest_seconds: how long the oldest job has waited for its first item.
        made: by provider, what all jobs have stored, failed, used and cost so far.
    """

    jobs: Mapping[str, int]
    items_waiting: int
    items_in_hand: int
    oldest_seconds: float
    made: Sequence[Mapping[str, Any]]


def platform_state() -> PlatformState:
    """Inside a system scope, return how generation is."""
    by_status = dict(Job.objects.order_by("status").values_list("status").annotate(number=Count("id")))
    active = Job.objects.filter(status__in=ACTIVE)
    sums = active.aggregate(left=Sum(F("target_count") - F("completed") - F("failed"), default=0))
    in_hand = JobItem.objects.filter(status=ItemStatus.RUNNING, job__in=active).count()
    oldest = active.filter(started_at=None).aggregate(at=Min("created_at"))["at"]
    waited = (timezone.now() - oldest).total_seconds() if oldest else 0.0
    names = ("completed", "failed", "input_tokens", "output_tokens", "cost_usd")
    made = Job.objects.order_by("provider").values("provider").annotate(**{f"all_{name}": Sum(name) for name in names})
    return PlatformState(by_status, sums["left"] - in_hand, in_hand, waited, list(made))
