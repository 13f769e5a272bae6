"""What a worker does for a job: claim some items, have them written side by side, settle what is done, and so on for a while.

Workers are interchangeable: any number may have a job in hand, each a share of its concurrency. One that dies leaves items
under leases that run out. Nothing here decides what is stored once: `claims` does, in PostgreSQL.
"""

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from uuid import UUID, uuid4

import structlog
from django.conf import settings
from django.db import OperationalError, connection
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from engarde.common import redis as redis_client
from engarde.common import stopping
from engarde.common.problems import Problem, explain
from engarde.common.scopes import tenant_scope
from generation import claims, endings, keys, metrics, operations, progress, prompts, queries, stops, writing
from generation.calls import Calls, Result
from generation.claims import Outcome, Step
from generation.llm.base import (
    KeyRefused,
    LLMError,
    NoCredit,
    Throttled,
    Unavailable,
    UnknownModel,
)
from generation.models import Job, JobStatus
from generation.pace import Leave, Pace
from generation.prices import FREE, Price
from generation.prompts import Brief
from generation.providers import Credential
from quotas.refusals import QuotaExceeded

log = structlog.get_logger(__name__)

Clock = Callable[[], datetime]

FEW = 10  # a concurrency up to this needs no second worker
LONGEST_IDLE_SECONDS = 3.0  # a worker waits so long for something to do before it lets another job have its place
IDLE_AGAIN_SECONDS = 2.0  # after a worker found nothing to do
SHORTEST_SLICE_SECONDS = 10.0  # after this, a worker makes place for a task that waits
LAST_CALLS_SECONDS = 10.0  # a worker that is to stop waits so long for the calls that are under way
LONGEST_LOOK_SECONDS = 0.5  # how soon a cancelled job is noticed
LONGEST_RETRY_SECONDS = 300.0
QUEUE = settings.CELERY_TASK_ROUTES["generation.run_shard"]["queue"]  # the name of its list in Redis too
NOBODY = Leave(calls=0, wait=0.0, at=0.0)


@dataclass(frozen=True, slots=True)
class Slice:
    """What a worker leaves behind.

    Attributes:
        is_over: whether the job needs nobody any more.
        resume_in: seconds after which it does; None when other workers have it in hand.
    """

    is_over: bool
    resume_in: float | None = None


def wanted_workers(concurrency: int) -> int:
    """Return by how many workers at once a job is run."""
    return 1 if concurrency <= FEW else max(1, settings.GENERATION_SHARDS)


def run(*, tenant_id: UUID, job_id: UUID, now: Clock) -> Slice:
    """Work on a job for GENERATION_SLICE_SECONDS at most, plus what the calls that are under way then take."""
    job = queries.job_to_run(tenant_id=tenant_id, job_id=job_id)
    if job is None or job.status not in (JobStatus.PENDING, JobStatus.RUNNING):
        return Slice(is_over=True)
    try:
        operations.keep_hold(job=job, now=now())
        credential = keys.credential_of(tenant_id=tenant_id, provider=job.provider, now=now())
        brief = queries.brief_of(
            tenant_id=tenant_id, brand_id=job.brand_id, content_type=job.content_type, params=job.params
        )
    except QuotaExceeded as problem:
        stop(job, partial(endings.pause, code=problem.code, message=problem.detail))
        return Slice(is_over=True)
    except Problem as problem:
        stop(job, partial(endings.fail, code=problem.code, message=explain(problem)), with_items=True)
        return Slice(is_over=True)
    return Worker(job, credential, brief.brief, now).run()


def stop(job: Job, act: Callable[[Job], None], *, with_items: bool = False) -> None:
    """Do something to a job that ends or pauses it, unless it has ended or is paused already."""
    with tenant_scope(job.tenant_id):
        row = endings.lock_job(tenant_id=job.tenant_id, job_id=job.id, with_items=with_items)
        if row and row.status in (JobStatus.PENDING, JobStatus.RUNNING):
            act(row)


through_lost_connections = retry(
    retry=retry_if_exception_type(OperationalError),
    stop=stop_after_attempt(4),
    wait=wait_random_exponential(multiplier=0.2, max=3),
    before_sleep=lambda _: connection.close(),
    reraise=True,
)


class Worker:
    """One worker's part in a job, for a while."""

    def __init__(self, job: Job, credential: Credential, brief: Brief, now: Clock) -> None:
        self._job = job
        self._credential = credential
        self._brief = brief
        self._now = now
        self._lease = uuid4()
        self._price = _price_of(job)
        self._pace = Pace(credential.fingerprint)
        self._looks = progress.Looks(job.id)
        self._workers = wanted_workers(job.concurrency)
        self._most = -(-job.concurrency // self._workers)
        self._prompts: dict[int, str] = {}
        self._attempts: dict[int, int] = {}
        self._fatal: LLMError | None = None  # after which no other call can succeed
        self._pending: list[Outcome] = []
        self._begun = time.monotonic()
        self._deadline: float = time.monotonic() + settings.GENERATION_SLICE_SECONDS
        self._latest = math.inf  # then what is under way is given back
        self._next_look = time.monotonic() + LONGEST_LOOK_SECONDS
        self._next_renewal: float = time.monotonic()  # at once: dead workers may have left something
        self._wait = 0.0  # seconds until the pace allows another call
        self._nothing_until = 0.0  # nothing to claim was found; look again then
        self._next_crowd_look = 0.0
        self._idle_since: float | None = None
        self._step = Step(job.status)

    def run(self) -> Slice:
        """Work until the time is over, the job is, or there is nothing to do for it."""
        params, model = self._job.params, self._job.model
        manner = operations.manner_of(model=model, params=params, max_tokens=params["max_tokens"])
        with Calls(
            provider=self._job.provider,
            make=self._credential.generator,
            manner=manner,
            is_stopped=partial(stops.is_stopped, self._job.id),
        ) as calls:
            try:
                while not self._is_done(calls):
                    self._turn(calls)
            finally:
                self._leave(calls)
        return self._slice()

    def _heed_stop(self) -> None:
        """Once the worker is to stop, claim nothing more, and wait for the calls that are under way only so long."""
        if stopping.is_stopping():
            now = time.monotonic()
            self._deadline = min(self._deadline, now)
            self._latest = min(self._latest, now + LAST_CALLS_SECONDS)

    def _is_done(self, calls: Calls) -> bool:
        self._heed_stop()
        if time.monotonic() >= self._latest:
            return True
        if calls.under_way or self._pending:
            return False
        if not self._step.is_active or time.monotonic() >= self._deadline or self._step.others >= self._workers:
            return True
        return self._idle_since is not None and time.monotonic() - self._idle_since >= LONGEST_IDLE_SECONDS

    def _turn(self, calls: Calls) -> None:
        """Wait for something to happen, settle it, and start what there is room for."""
        results = calls.finished(self._patience(calls))
        self._pending += [self._outcome_of(result) for result in results]
        if time.monotonic() >= self._next_renewal:
            self._renew(calls)
        leave = self._leave_for(calls)
        if self._pending or leave.calls or self._is_time_to_look():
            self._settle(calls, leave.calls, leave.at)

    def _patience(self, calls: Calls) -> float:
        """Return for how many seconds nothing but a result needs doing."""
        now = time.monotonic()
        until = min(self._next_look, self._next_renewal)
        if len(calls.under_way) < self._most and self._may_claim():
            until = min(until, now + self._wait)
        return max(0.0, until - now)

    def _may_claim(self) -> bool:
        now = time.monotonic()
        return self._step.is_active and self._nothing_until <= now < self._deadline

    def _leave_for(self, calls: Calls) -> Leave:
        room = self._most - len(calls.under_way)
        if room <= 0 or not self._may_claim():
            return NOBODY
        leave = self._pace.take(room)
        self._wait = max(leave.wait, 0.002) if leave.calls < room else 0.0
        return leave

    def _is_time_to_look(self) -> bool:
        return time.monotonic() >= self._next_look

    def _settle(self, calls: Calls, want: int, at: float) -> None:
        outcomes = list(self._pending)
        step = self._stepped(outcomes, 0 if self._fatal else want)
        del self._pending[: len(outcomes)]  # not before: should the step fail, they are given back
        self._next_look = time.monotonic() + LONGEST_LOOK_SECONDS
        self._make_place()
        for index, attempts in step.claimed.items():
            self._attempts[index] = attempts
            self._prompts[index] = self._prompt_of(index)
            calls.start(index, self._brief.message(self._prompts[index]), started_at=at)
        if unused := want - len(step.claimed):
            self._pace.returned(unused, taken_at=at)
        if want and not step.claimed:
            self._nothing_until = time.monotonic() + LONGEST_LOOK_SECONDS
        is_idle = not calls.under_way and not step.claimed
        self._idle_since = (self._idle_since or time.monotonic()) if is_idle else None
        self._after(step, calls)
        if self._fatal:
            self._fail_job(self._fatal, calls)

    def _make_place(self) -> None:
        """End the slice early where other tasks wait for a worker, so that a large job does not hold up small ones."""
        now = time.monotonic()
        if now - self._begun < SHORTEST_SLICE_SECONDS or now < self._next_crowd_look:
            return
        self._next_crowd_look = now + 1.0
        if redis_client.attempt(lambda client: client.llen(QUEUE), 0):
            self._deadline = min(self._deadline, now)

    def _stepped(self, outcomes: Sequence[Outcome], want: int) -> Step:
        """Settle outcomes together, or where that is refused one by one, so that one of them never sinks the others."""
        try:
            return self._try_step(outcomes, want)
        except Problem as problem:
            if len(outcomes) <= 1:
                return self._unsettled(outcomes, problem)
        for outcome in outcomes:
            step = self._stepped([outcome], 0)
        return step

    @through_lost_connections
    def _try_step(self, outcomes: Sequence[Outcome], want: int) -> Step:
        """Make a step; texts that were paid for are not dropped because a connection broke."""
        return claims.step(
            job=self._job, lease=self._lease, outcomes=outcomes, want=want, crowd=self._workers, now=self._now()
        )

    def _unsettled(self, outcomes: Sequence[Outcome], problem: Problem) -> Step:
        """Settle a text that could not be stored: without room the job is paused, otherwise the item has failed."""
        if isinstance(problem, QuotaExceeded):
            stop(self._job, partial(endings.pause, code=problem.code, message=problem.detail))
            again = [replace(outcome, text=None, retry_in=0.0, is_free=True) for outcome in outcomes]
            return self._try_step(again, 0)
        why = explain(problem)
        failed = [replace(outcome, text=None, error_code=problem.code, error=why) for outcome in outcomes]
        return self._try_step(failed, 0)

    def _after(self, step: Step, calls: Calls) -> None:
        """Take in how the job stands: the watchers are told, and a job that ended meanwhile needs no more answers."""
        self._step = step
        self._looks.tell(step.last_seq, calls, is_last=not step.is_active)
        if step.status in (JobStatus.CANCELLED, JobStatus.FAILED) and calls.under_way:
            calls.break_off()
        if step.is_active and step.is_held_back and not step.in_hand:
            self._pause("cost_cap_reached", "Not one more item can be tried without a chance to go over max_cost_usd.")
        longest = timedelta(seconds=settings.GENERATION_PAUSE_AFTER_429_SECONDS)
        if step.is_active and step.refused_since and self._now() - step.refused_since > longest:
            minutes = int(longest.total_seconds() // 60)
            refused = f"{self._job.provider} has refused every call for {minutes} minutes: too many calls on this key."
            self._pause("llm_rate_limited", refused)

    def _pause(self, code: str, message: str) -> None:
        stop(self._job, partial(endings.pause, code=code, message=message))
        self._step = replace(self._step, status=JobStatus.PAUSED)

    def _renew(self, calls: Calls) -> None:
        self._next_renewal = time.monotonic() + settings.GENERATION_LEASE_SECONDS / 3
        self._after(self._renewed(), calls)

    @through_lost_connections
    def _renewed(self) -> Step:
        return claims.renew(job=self._job, lease=self._lease, now=self._now())

    def _prompt_of(self, index: int) -> str:
        topics = self._job.params.get("topics") or [""]
        return prompts.fill(self._job.params["prompt_template"], topics[index % len(topics)])

    def _outcome_of(self, result: Result) -> Outcome:
        """Return what becomes of an item, and note what an error says about the others."""
        prompt = self._prompts.pop(result.index, "")
        self._measure(result)
        if result.written:
            self._pace.answered(1)
            tokens = result.written.tokens
            cost = self._price.of(tokens)
            text = writing.as_wished(result.written.text, self._brief)
            return Outcome(result.index, text=text, tokens=tokens, cost=cost, prompt=prompt)
        if result.error is None:
            self._pace.returned(1, taken_at=result.started_at)
            return Outcome(result.index, retry_in=0.0, is_free=True)
        if not isinstance(result.error, LLMError):
            log.error("a call failed unexpectedly", exc_info=result.error)
            return Outcome(
                result.index, error_code="internal_error", error="The call failed on our side.", retry_in=10.0
            )
        return self._outcome_of_error(result, result.error)

    def _measure(self, result: Result) -> None:
        tokens = result.written.tokens if result.written else getattr(result.error, "tokens", None)
        if tokens:
            metrics.note_tokens(self._job.provider, tokens, self._price)

    def _outcome_of_error(self, result: Result, error: LLMError) -> Outcome:
        outcome = Outcome(
            result.index,
            tokens=error.tokens,
            cost=self._price.of(error.tokens),
            error_code=error.code,
            error=str(error),
        )
        if isinstance(error, Throttled):
            self._pace.refused(started_at=result.started_at, retry_after=error.retry_after)
            return replace(outcome, retry_in=0.0, is_free=True, is_refusal=True)
        self._pace.answered(1)
        if isinstance(error, Unavailable):
            return replace(outcome, retry_in=_backoff(self._attempts.get(result.index, 1)))
        if isinstance(error, NoCredit):
            keys.note_refusal(tenant_id=self._job.tenant_id, credential=self._credential, error=error, now=self._now())
            self._pause(error.code, f"{self._job.provider} says that the account has no credit left: {error}")
            return replace(outcome, retry_in=0.0, is_free=True)
        if isinstance(error, KeyRefused | UnknownModel):
            self._fatal = self._fatal or error  # what others have written is settled first
            return replace(outcome, retry_in=0.0, is_free=True)
        return outcome

    def _fail_job(self, error: LLMError, calls: Calls) -> None:
        self._fatal = None
        calls.break_off()
        if isinstance(error, KeyRefused):
            keys.note_refusal(tenant_id=self._job.tenant_id, credential=self._credential, error=error, now=self._now())
        what = "refused the key" if isinstance(error, KeyRefused) else f"does not know the model {self._job.model}"
        detail = f"{self._job.provider} {what}: {error}"
        stop(self._job, partial(endings.fail, code=error.code, message=detail), with_items=True)
        self._step = replace(self._step, status=JobStatus.FAILED)

    def _leave(self, calls: Calls) -> None:
        """Give back what is in hand, whatever ended the work."""
        calls.break_off()
        left = sorted(calls.under_way | {outcome.index for outcome in self._pending})
        if left:
            claims.give_back(job=self._job, lease=self._lease, indexes=left, now=self._now())

    def _slice(self) -> Slice:
        if not self._step.is_active:
            return Slice(is_over=True)
        number, due_in = claims.waiting(job=self._job)
        if not number or self._step.others >= self._workers:
            return Slice(is_over=False)
        is_in_its_stride = time.monotonic() >= self._deadline
        return Slice(is_over=False, resume_in=0.0 if is_in_its_stride else max(due_in, self._wait, IDLE_AGAIN_SECONDS))


def _backoff(attempts: int) -> float:
    """Return the seconds before another try: random, so that what failed together is not tried together."""
    seconds: float = min(LONGEST_RETRY_SECONDS, settings.GENERATION_RETRY_SECONDS * 2 ** (attempts - 1))
    return seconds * (0.5 + random.random())  # noqa: S311 -- not for secrets


def _price_of(job: Job) -> Price:
    if job.input_price is None or job.output_price is None:
        return FREE
    return Price(Decimal(job.input_price), Decimal(job.output_price))
