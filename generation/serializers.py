"""Shapes of requests and answers."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from rest_framework import serializers

from content.models import ContentType
from engarde.common import cursors
from engarde.common.fields import QueryIntegerField, QuerySerializer, StrictSerializer, TextField, TextListField
from engarde.common.paging import DEFAULT_PAGE_SIZE, MAX_PAGE, MAX_PAGE_SIZE, PaginationOutput
from generation.models import ItemStatus, Job, JobEvent, JobItem, JobStatus, KeyStatus, LLMKey, LLMKeyEvent, Provider
from generation.operations import BatchRequest, Started
from generation.prompts import LENGTHS, MAX_PROMPT
from generation.queries import JobView
from generation.single import Generated, SingleRequest
from quotas.serializers import QuotaCheckOutput, show_check

MAX_TOPICS = 10_000
MAX_TOPIC = 300
MAX_ITEMS = 10_000
MAX_OUTPUT_TOKENS = 16_384
WISHES = (
    "platforms",
    "tone",
    "length",
    "keywords",
    "target_audience",
    "temperature",
    "include_hashtags",
    "include_emojis",
)


class KeyInput(StrictSerializer):
    """A provider key to store."""

    provider = serializers.ChoiceField(choices=Provider.choices)
    api_key = TextField(min_length=4, max_length=500, help_text="Encrypted, and never returned.")

    def validate_api_key(self, value: str) -> str:
        """Refuse what no HTTP header can carry."""
        if not (value.isascii() and value.isprintable()) or " " in value:
            raise serializers.ValidationError("Printable ASCII characters without spaces.")
        return value


class KeyOutput(serializers.Serializer[Any]):
    """A stored provider key, without the key."""

    provider = serializers.ChoiceField(choices=Provider.choices)
    last4 = serializers.CharField()
    is_active = serializers.BooleanField(help_text="Whether it is used: until the provider refuses it.")
    status = serializers.ChoiceField(choices=KeyStatus.choices)
    checked_at = serializers.DateTimeField(allow_null=True)


class KeysOutput(serializers.Serializer[Any]):
    """The stored keys."""

    providers = KeyOutput(many=True)


class KeyEventOutput(serializers.Serializer[Any]):
    """An entry of the audit trail."""

    id = serializers.UUIDField()
    provider = serializers.ChoiceField(choices=Provider.choices)
    action = serializers.ChoiceField(choices=LLMKeyEvent.Action.choices)
    last4 = serializers.CharField()
    status = serializers.ChoiceField(choices=KeyStatus.choices)
    actor_id = serializers.UUIDField(allow_null=True, help_text="User or API key; null for the platform.")
    created_at = serializers.DateTimeField()


class KeyEventPage(serializers.Serializer[Any]):
    """A page of the audit trail."""

    data = KeyEventOutput(many=True)  # type: ignore[assignment]  # the contract's name; DRF has an attribute of it
    pagination = PaginationOutput()


class WishesInput(StrictSerializer):
    """How texts shall be."""

    tone = TextField(max_length=200, allow_blank=True, required=False)
    length = serializers.ChoiceField(choices=list(LENGTHS), required=False)
    keywords = TextListField(required=False)
    target_audience = TextField(max_length=500, allow_blank=True, required=False)
    temperature = serializers.FloatField(min_value=0, max_value=2, required=False)
    include_hashtags = serializers.BooleanField(required=False)
    include_emojis = serializers.BooleanField(required=False)


class WriterInput(StrictSerializer):
    """Who writes, and for whom."""

    content_type = serializers.ChoiceField(choices=ContentType.choices)
    platforms = TextListField(required=False)
    brand_id = serializers.UUIDField(required=False, help_text="Whose voice; the tenant's first brand without it.")
    provider = serializers.ChoiceField(
        choices=Provider.choices, required=False, help_text="Without it the first that there is a key for."
    )
    model = TextField(max_length=200, required=False, help_text="Without it the provider's default.")
    max_tokens = serializers.IntegerField(min_value=16, max_value=MAX_OUTPUT_TOKENS, required=False)


class GenerateInput(WriterInput, WishesInput):
    """Texts to write while the caller waits."""

    prompt = TextField(max_length=MAX_PROMPT)
    variants = serializers.IntegerField(min_value=1, max_value=5, default=1)
    save = serializers.BooleanField(default=False, help_text="Store each variant as a draft.")  # type: ignore[assignment]  # DRF has a method of it

    @staticmethod
    def request_of(given: dict[str, Any]) -> SingleRequest:
        """Return what validated input asks for."""
        names = ("content_type", "provider", "model", "brand_id", "max_tokens")
        return SingleRequest(
            prompt=given["prompt"],
            variants=given["variants"],
            save=given["save"],
            params={name: given[name] for name in WISHES if name in given},
            **{name: given[name] for name in names if name in given},
        )


class VariantOutput(serializers.Serializer[Any]):
    """A text."""

    title = serializers.CharField()
    body = serializers.CharField()
    hashtags = serializers.ListField(child=serializers.CharField())


class LLMUsageOutput(serializers.Serializer[Any]):
    """What it took."""

    provider = serializers.ChoiceField(choices=Provider.choices)
    model = serializers.CharField()
    input_tokens = serializers.IntegerField()
    output_tokens = serializers.IntegerField()
    cost_usd = serializers.CharField(allow_null=True, help_text="By list price; null where nobody knows it.")


class FailureOutput(serializers.Serializer[Any]):
    """Why a variant is missing."""

    code = serializers.CharField()
    message = serializers.CharField()


class GenerateOutput(serializers.Serializer[Any]):
    """What was written; `errors` names why variants are missing, if any are."""

    variants = VariantOutput(many=True)
    usage = LLMUsageOutput()
    content_ids = serializers.ListField(child=serializers.UUIDField(), help_text="With save, in the variants' order.")
    errors = FailureOutput(many=True)  # type: ignore[assignment]  # DRF has an attribute of that name


class GenerationParamsInput(WishesInput):
    """What a job writes."""

    prompt_template = TextField(max_length=MAX_PROMPT, help_text="{topic} stands for each topic in turn.")
    topics = serializers.ListField(child=TextField(max_length=MAX_TOPIC), max_length=MAX_TOPICS, required=False)


class MoneyField(serializers.DecimalField):
    """An amount of USD above 0, as a decimal string or a number."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_digits=18, decimal_places=9, min_value=Decimal("0.000000001"), **kwargs)

    def to_internal_value(self, data: Any) -> Decimal:
        """Return the amount.

        Raises:
            ValidationError: it is none.
        """
        if isinstance(data, bool):
            self.fail("invalid")
        return super().to_internal_value(data)


class BatchInput(WriterInput):
    """A job to queue."""

    target_count = serializers.IntegerField(min_value=1, max_value=MAX_ITEMS)
    concurrency = serializers.IntegerField(min_value=1, max_value=200, default=10, help_text="Calls at once.")
    max_cost_usd = MoneyField(required=False, help_text="The job is paused before it could cost more.")
    generation_params = GenerationParamsInput()
    campaign_space_id = serializers.UUIDField(required=False, help_text="Given to each item.")
    tags = TextListField(required=False, help_text="Given to each item.")
    notify = serializers.BooleanField(default=True, help_text="Mail me when it ends or is paused.")

    @staticmethod
    def request_of(given: dict[str, Any]) -> BatchRequest:
        """Return what validated input asks for."""
        names = ("content_type", "target_count", "concurrency", "provider", "model", "brand_id", "notify")
        params = dict(given["generation_params"])
        params |= {name: given[name] for name in ("platforms", "tags") if name in given}
        if "campaign_space_id" in given:
            params["campaign_space_id"] = str(given["campaign_space_id"])
        return BatchRequest(
            params=params,
            max_tokens=given.get("max_tokens"),
            max_cost_usd=given.get("max_cost_usd"),
            **{name: given[name] for name in names if name in given},
        )


class GoOnInput(StrictSerializer):
    """How a job goes on."""

    max_cost_usd = MoneyField(required=False, help_text="A new cap for all of the job's cost.")


class BatchOutput(serializers.Serializer[Any]):
    """A job that was queued."""

    job_id = serializers.UUIDField()
    status = serializers.ChoiceField(choices=JobStatus.choices)
    target_count = serializers.IntegerField()
    progress = serializers.IntegerField()
    provider = serializers.ChoiceField(choices=Provider.choices)
    model = serializers.CharField()
    estimated_storage_bytes = serializers.IntegerField()
    estimated_cost_usd = serializers.CharField(allow_null=True, help_text="Null where nobody knows the price.")
    quota_check = QuotaCheckOutput()
    created_at = serializers.DateTimeField()


class JobSummaryOutput(serializers.Serializer[Any]):
    """A job in a list."""

    job_id = serializers.UUIDField()
    status = serializers.ChoiceField(choices=JobStatus.choices)
    content_type = serializers.ChoiceField(choices=ContentType.choices)
    provider = serializers.ChoiceField(choices=Provider.choices)
    model = serializers.CharField()
    concurrency = serializers.IntegerField()
    target_count = serializers.IntegerField()
    progress = serializers.IntegerField(help_text="Stored items.")
    failed = serializers.IntegerField()
    progress_percent = serializers.FloatField(help_text="Stored and failed items.")
    total_storage_bytes = serializers.IntegerField()
    total_cost_usd = serializers.CharField(allow_null=True, help_text="By list price; null where nobody knows it.")
    max_cost_usd = serializers.CharField(allow_null=True)
    input_tokens = serializers.IntegerField()
    output_tokens = serializers.IntegerField()
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    completed_at = serializers.DateTimeField(allow_null=True)
    estimated_completion = serializers.DateTimeField(allow_null=True)
    error_code = serializers.CharField(allow_null=True)
    error_message = serializers.CharField(allow_null=True)


class JobOutput(JobSummaryOutput):
    """A job."""

    generated_content_ids = serializers.ListField(child=serializers.UUIDField(), help_text="The first 1,000, by index.")
    errors = serializers.DictField(  # type: ignore[assignment]  # DRF has an attribute of that name
        child=serializers.IntegerField(), help_text="How many items failed, by code."
    )


class JobPage(serializers.Serializer[Any]):
    """A page of jobs."""

    data = JobSummaryOutput(many=True)  # type: ignore[assignment]  # the contract's name; DRF has an attribute of it
    pagination = PaginationOutput()


class JobItemOutput(serializers.Serializer[Any]):
    """An item of a job."""

    index = serializers.IntegerField()
    status = serializers.ChoiceField(choices=ItemStatus.choices)
    attempts = serializers.IntegerField()
    content_id = serializers.UUIDField(allow_null=True)
    error_code = serializers.CharField(allow_null=True)
    error = serializers.CharField(allow_null=True)
    cost_usd = serializers.CharField(allow_null=True, help_text="All tries; null where nobody knows the price.")
    input_tokens = serializers.IntegerField()
    output_tokens = serializers.IntegerField()


class JobItemPage(serializers.Serializer[Any]):
    """A page of items."""

    data = JobItemOutput(many=True)  # type: ignore[assignment]  # the contract's name; DRF has an attribute of it
    pagination = PaginationOutput()


class _CursorQuery(QuerySerializer):
    """A page by number or by cursor."""

    page = QueryIntegerField(min_value=1, max_value=MAX_PAGE, required=False, help_text="From 1; not with a cursor.")
    pageSize = QueryIntegerField(min_value=1, max_value=MAX_PAGE_SIZE, default=DEFAULT_PAGE_SIZE)
    cursor = TextField(required=False, max_length=cursors.LONGEST)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuse what contradicts itself."""
        if "cursor" in attrs and "page" in attrs:
            raise serializers.ValidationError({"page": "Give a page or a cursor, not both."})
        return attrs

    @classmethod
    def arguments(cls, request: Any) -> dict[str, Any]:
        """Return page, size, cursor and status as reads take them."""
        query = cls.parse(request)
        cursor = query.get("cursor")
        page = None if cursor else query.get("page", 1)
        return {"page": page, "size": query["pageSize"], "cursor": cursor, "status": query.get("status")}


class JobQuery(_CursorQuery):
    """A page of jobs, all or those of one status."""

    status = serializers.ChoiceField(choices=JobStatus.choices, required=False)


class JobItemQuery(_CursorQuery):
    """A page of items, all or those of one status."""

    status = serializers.ChoiceField(choices=ItemStatus.choices, required=False)


def money(amount: Decimal | None) -> str | None:
    """Return an amount as a decimal string without needless zeros."""
    return None if amount is None else format(amount.normalize(), "f")


def show_key(key: LLMKey) -> dict[str, Any]:
    """Return a stored key, without the key."""
    return {name: getattr(key, name) for name in ("provider", "last4", "is_active", "status", "checked_at")}


def show_key_event(event: LLMKeyEvent) -> dict[str, Any]:
    """Return an entry of the audit trail."""
    names = ("id", "provider", "action", "last4", "status", "actor_id", "created_at")
    return {name: getattr(event, name) for name in names}


def show_generated(done: Generated) -> dict[str, Any]:
    """Return what was written."""
    texts = [one.text for one in done.written]
    return {
        "variants": [{"title": text.title, "body": text.body, "hashtags": list(text.hashtags)} for text in texts],
        "usage": {
            "provider": done.provider,
            "model": done.model,
            "input_tokens": done.tokens.input,
            "output_tokens": done.tokens.output,
            "cost_usd": money(done.cost),
        },
        "content_ids": [str(one) for one in done.content_ids],
        "errors": [{"code": failure.code, "message": str(failure)} for failure in done.failures],
    }


def show_started(started: Started) -> dict[str, Any]:
    """Return a job that was queued."""
    job = started.job
    return {
        "job_id": str(job.id),
        "status": job.status,
        "target_count": job.target_count,
        "progress": job.completed,
        "provider": job.provider,
        "model": job.model,
        "estimated_storage_bytes": job.estimated_item_bytes * job.target_count,
        "estimated_cost_usd": money(job.estimated_cost_usd),
        "quota_check": show_check(started.check),
        "created_at": job.created_at,
    }


def show_summary(job: Job, now: datetime) -> dict[str, Any]:
    """Return a job for a list."""
    return {
        "job_id": job.id,
        "status": job.status,
        "content_type": job.content_type,
        "provider": job.provider,
        "model": job.model,
        "concurrency": job.concurrency,
        "target_count": job.target_count,
        **show_counts(job, now),
        "max_cost_usd": money(job.max_cost_usd),
        "created_at": job.created_at,
        "started_at": job.started_at,
        "completed_at": job.completed_at,
        "error_code": job.error_code or None,
        "error_message": job.error_message or None,
    }


def show_counts(job: Job, now: datetime) -> dict[str, Any]:
    """Return how far a job is."""
    finished = job.completed + job.failed
    return {
        "progress": job.completed,
        "failed": job.failed,
        "progress_percent": round(100 * finished / job.target_count, 2),
        "total_storage_bytes": job.stored_bytes,
        "total_cost_usd": None if job.input_price is None else money(job.cost_usd),
        "input_tokens": job.input_tokens,
        "output_tokens": job.output_tokens,
        "estimated_completion": _estimated_completion(job, finished, now),
    }


def _estimated_completion(job: Job, finished: int, now: datetime) -> datetime | None:
    if job.status != JobStatus.RUNNING or not job.started_at or not finished:
        return None
    passed = max(0.0, (now - job.started_at).total_seconds())
    return now + timedelta(seconds=passed / finished * (job.target_count - finished))


def show_job(view: JobView, now: datetime) -> dict[str, Any]:
    """Return a job with its contents and errors."""
    return {
        **show_summary(view.job, now),
        "generated_content_ids": list(view.content_ids),
        "errors": dict(view.errors),
    }


def show_item(item: JobItem, *, has_price: bool) -> dict[str, Any]:
    """Return an item of a job; without a price its cost is null."""
    return {
        "index": item.index,
        "status": item.status,
        "attempts": item.attempts,
        "content_id": item.content_id,
        "error_code": item.error_code or None,
        "error": item.error or None,
        "cost_usd": money(item.cost_usd) if has_price else None,
        "input_tokens": item.input_tokens,
        "output_tokens": item.output_tokens,
    }


def show_events(events: Sequence[JobEvent]) -> list[dict[str, Any]]:
    """Return finished items as watchers are told of them."""
    return [_show_event(event) for event in events]


def _show_event(event: JobEvent) -> dict[str, Any]:
    shown: dict[str, Any] = {"type": "item", "seq": event.seq, "index": event.index, "status": event.status}
    if event.content_id:
        shown["content_id"] = event.content_id
    if event.error_code:
        shown["error_code"] = event.error_code
    return shown
