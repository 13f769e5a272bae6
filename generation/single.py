"""Texts that somebody waits for: a few variants, within a deadline, of which a process writes only so many at once."""

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Any
from uuid import UUID

from django.conf import settings
from uuid_utils.compat import uuid7

from content import operations as content_operations
from content.items import Item
from engarde.common.problems import Invalid, Problem
from engarde.common.scopes import tenant_scope
from generation import claims, keys, metrics, prompts, providers, queries, writing
from generation.keys import Writer
from generation.llm.base import (
    KeyRefused,
    LLMError,
    NoCredit,
    TextGenerator,
    Throttled,
    TimedOut,
    Tokens,
    Unavailable,
    UnknownModel,
)
from generation.operations import manner_of
from generation.pace import Pace
from generation.problems import (
    GenerationBusy,
    GenerationFailed,
    GenerationTimeout,
    LLMRateLimited,
    LLMUnavailable,
)
from generation.prompts import Brief
from generation.writing import Manner, Written
from quotas import charging, reservations

HELD_FOR = timedelta(minutes=10)
CLOSE_SECONDS = 5.0
TOO_LATE = "The model did not answer in time; ask for less, or use a batch."
TRIES = 3
RETRY_SECONDS = 1.0
LONGEST_WAIT_FOR_PACE = 10.0


@dataclass(frozen=True, slots=True)
class SingleRequest:
    """What a caller wants written.

    Attributes:
        params: the wishes, named as those of a job.
        save: whether each variant is stored as a draft.
    """

    prompt: str
    content_type: str
    variants: int
    save: bool
    params: Mapping[str, Any]
    provider: str | None = None
    model: str | None = None
    brand_id: UUID | None = None
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Generated:
    """What was written.

    Attributes:
        failures: of variants that were not; there is at least one that was.
        cost: in USD; None where nobody knows the model's price.
        content_ids: of the stored drafts, in the order of `written`.
    """

    provider: str
    model: str
    written: Sequence[Written]
    failures: Sequence[LLMError]
    tokens: Tokens
    cost: Decimal | None
    content_ids: Sequence[UUID] = ()


def generate(
    *,
    tenant_id: UUID,
    author_id: UUID,
    request: SingleRequest,
    now: datetime,
    last: Callable[[Generated], None] | None = None,
) -> Generated:
    """Have texts written while the caller waits. Call it outside a scope.

    Args:
        last: called inside the transaction that counts and stores them, once all else is written.

    Raises:
        GenerationBusy: this process writes GENERATE_CONCURRENCY requests at once already.
        GenerationTimeout: GENERATE_TIMEOUT_SECONDS were not enough.
        GenerationFailed: no variant could be used.
        LLMKeyMissing, LLMKeyInvalid, LLMNoCredit, LLMNotConfigured, LLMUnavailable, LLMRateLimited: there is nobody to write.
        StorageQuotaExceeded, GenerationQuotaExceeded: it does not fit.
        Invalid: the model or the brand is not there.
    """
    deadline = time.monotonic() + settings.GENERATE_TIMEOUT_SECONDS
    with _slot():
        found = queries.brief_of(
            tenant_id=tenant_id, brand_id=request.brand_id, content_type=request.content_type, params=request.params
        )
        writer = keys.find_writer(tenant_id=tenant_id, provider=request.provider, model=request.model, now=now)
        manner = manner_of(model=writer.model, params=request.params, max_tokens=request.max_tokens)
        with _held(tenant_id, request, found.brief, manner, now) as reservation_id:
            results = [
                replace(one, text=writing.as_wished(one.text, found.brief)) if isinstance(one, Written) else one
                for one in _write_all(tenant_id, writer, manner, found.brief, request, deadline, now)
            ]
            return _settle(tenant_id, author_id, request, found.brand_id, writer, results, reservation_id, now, last)


@cache
def _slots() -> threading.BoundedSemaphore:
    return threading.BoundedSemaphore(settings.GENERATE_CONCURRENCY)


@contextmanager
def _slot() -> Iterator[None]:
    """Have one of the process's slots; slow models must not take all of its threads."""
    slots = _slots()
    if not slots.acquire(blocking=False):
        detail = f"This process writes {settings.GENERATE_CONCURRENCY} requests at once already; try again soon, or use a batch."
        raise GenerationBusy(detail, headers={"Retry-After": "5"})
    try:
        yield
    finally:
        slots.release()


@contextmanager
def _held(tenant_id: UUID, request: SingleRequest, brief: Brief, manner: Manner, now: datetime) -> Iterator[UUID]:
    """Hold the quota while the model writes, so that nothing is paid for that cannot be counted."""
    reservation_id = uuid7()
    size = request.variants * prompts.usual_bytes(brief, manner.max_tokens) if request.save else 0
    with tenant_scope(tenant_id):
        reservations.reserve(
            tenant_id=tenant_id,
            reservation_id=reservation_id,
            size_bytes=size,
            items=request.variants,
            expires_at=now + HELD_FOR,
            now=now,
        )
    try:
        yield reservation_id
    except BaseException:
        with tenant_scope(tenant_id):
            reservations.release(tenant_id=tenant_id, reservation_id=reservation_id)
        raise


def _write_all(
    tenant_id: UUID,
    writer: Writer,
    manner: Manner,
    brief: Brief,
    request: SingleRequest,
    deadline: float,
    now: datetime,
) -> list[Written | LLMError]:
    """Have all variants written side by side, and raise where none was."""
    pace = Pace(writer.credential.fingerprint)
    several = request.variants > 1
    messages = [
        brief.message(request.prompt, variant=number if several else None) for number in range(1, request.variants + 1)
    ]

    seconds = max(0.1, deadline - time.monotonic())

    async def all_of_them(generator: TextGenerator) -> list[Written | LLMError]:
        tasks = [asyncio.create_task(_write(generator, manner, message, pace)) for message in messages]
        _, late = await asyncio.wait(tasks, timeout=seconds)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        return [TimedOut(TOO_LATE) if task in late else task.result() for task in tasks]

    results = providers.ask(writer.credential, all_of_them, seconds=seconds + CLOSE_SECONDS)
    failures = [result for result in results if isinstance(result, LLMError)]
    for failure in failures:
        if isinstance(failure, KeyRefused | NoCredit):
            keys.note_refusal(tenant_id=tenant_id, credential=writer.credential, error=failure, now=now)
    if len(failures) == len(results):
        raise _problem_of(failures[0], writer) from failures[0]
    return results


async def _write(generator: TextGenerator, manner: Manner, message: Any, pace: Pace) -> Written | LLMError:
    """Return a text or why there is none; what may pass is tried again, within the deadline that the caller sets."""
    for attempt in range(1, TRIES + 1):
        try:
            started_at = await _leave(pace)
            written = await writing.write(generator, manner, message)
        except Throttled as error:
            pace.refused(started_at=started_at, retry_after=error.retry_after)
            failure: LLMError = error
        except Unavailable as error:
            failure = error
            if attempt < TRIES:
                await asyncio.sleep(RETRY_SECONDS * (0.5 + random.random()))  # noqa: S311 -- not for secrets
        except LLMError as error:
            return error
        else:
            pace.answered(1)
            return written
    return failure


async def _leave(pace: Pace) -> float:
    """Wait until a call may start, and return that moment as the pace tells it.

    Raises:
        Throttled: it would be too long.
    """
    waited = 0.0
    while not (leave := pace.take(1)).calls:
        if waited + leave.wait > LONGEST_WAIT_FOR_PACE:
            raise _Busy("The provider asks for fewer calls.", retry_after=leave.wait)
        waited += max(leave.wait, 0.05)
        await asyncio.sleep(max(leave.wait, 0.05))
    return leave.at


class _Busy(LLMError):
    """The pace allows no call for a while; none was made."""

    code = "llm_rate_limited"

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


def _problem_of(failure: LLMError, writer: Writer) -> Problem:
    if isinstance(failure, KeyRefused | NoCredit):
        return keys.refusal_of(failure, writer.credential)
    if isinstance(failure, UnknownModel):
        return Invalid("model", str(failure), "unknown_model")
    if isinstance(failure, Throttled | _Busy):
        seconds = str(max(1, round(failure.retry_after or 5)))
        return LLMRateLimited(f"{writer.credential.provider} asks for fewer calls.", headers={"Retry-After": seconds})
    if isinstance(failure, TimedOut):
        return GenerationTimeout(str(failure))
    if isinstance(failure, Unavailable):
        return LLMUnavailable(f"{writer.credential.provider}: {failure}", headers={"Retry-After": "10"})
    return GenerationFailed(str(failure), reason=failure.code)


def _settle(
    tenant_id: UUID,
    author_id: UUID,
    request: SingleRequest,
    brand_id: UUID,
    writer: Writer,
    results: Sequence[Written | LLMError],
    reservation_id: UUID,
    now: datetime,
    last: Callable[[Generated], None] | None,
) -> Generated:
    """Count what was written, and store it where that is wanted, in one transaction."""
    written = [result for result in results if isinstance(result, Written)]
    failures = [result for result in results if isinstance(result, LLMError)]
    tokens = sum((result.tokens for result in results), Tokens())
    metrics.note_tokens(writer.credential.provider, tokens, writer.price)
    ids = [uuid7() for _ in written] if request.save else []
    with content_operations.named_conflicts(), tenant_scope(tenant_id):
        items: list[Item] = []
        if request.save:
            items = content_operations.write_new(
                tenant_id=tenant_id,
                author_id=author_id,
                contents=[_fields(request, brand_id, writer, one) for one in written],
                now=now,
                ids=ids,
            )
        charging.charge(
            tenant_id=tenant_id,
            now=now,
            added=[content_operations.sized(item) for item in items],
            reservation_id=reservation_id,
            generated=len(written),
        )
        reservations.release(tenant_id=tenant_id, reservation_id=reservation_id)
        done = Generated(
            provider=writer.credential.provider,
            model=writer.model,
            written=written,
            failures=failures,
            tokens=tokens,
            cost=writer.price.of(tokens) if writer.price else None,
            content_ids=ids,
        )
        if last:
            last(done)
    return done


def _fields(request: SingleRequest, brand_id: UUID, writer: Writer, written: Written) -> dict[str, Any]:
    return {
        "title": written.text.title,
        "body": written.text.body,
        "hashtags": list(written.text.hashtags),
        "type": request.content_type,
        "brand_id": brand_id,
        "platforms": list(request.params.get("platforms", [])),
        "ai_generation": claims.ai_generation(
            provider=writer.credential.provider,
            model=writer.model,
            prompt=request.prompt,
            tokens=written.tokens,
            cost=writer.price.of(written.tokens) if writer.price else None,
            job_id=None,
        ),
    }
