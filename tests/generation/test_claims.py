"""Claims and settlements in any order: workers that die, come late, meet cancel and retry; the sums hold after each act."""

from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engarde.common.problems import Problem
from engarde.common.scopes import tenant_scope
from generation import claims, endings, operations, queries
from generation.answers import Text
from generation.claims import Outcome, Step
from generation.llm.base import Tokens
from generation.models import Job
from tests.generation.house import items_of, job_of, new_studio, start
from tests.generation.test_jobs import assert_sums
from tests.people import Person
from tests.providers import Provider

ITEMS = 6
KINDS = ("written", "refused", "later", "throttled", "given back")
ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("claim"), st.integers(0, 1), st.integers(1, 4)),
        st.tuples(st.just("settle"), st.integers(0, 1), st.sampled_from(KINDS)),
        st.tuples(st.just("die"), st.integers(0, 1), st.none()),
        st.tuples(st.just("renew"), st.integers(0, 1), st.none()),
        st.tuples(st.sampled_from(["pause", "resume", "retry"]), st.none(), st.none()),
        st.tuples(st.sampled_from(["cancel", "fail"]), st.none(), st.none()),
    ),
    min_size=5,
    max_size=25,
)


def outcome(index: int, kind: str) -> Outcome:
    spent: dict[str, Any] = {"tokens": Tokens(10, 5), "cost": Decimal("0.00003")}
    if kind == "written":
        return Outcome(index, text=Text(f"Title {index}", f"Body of {index}"), prompt="p", **spent)
    if kind == "refused":
        return Outcome(index, error_code="content_refused", error="no", **spent)
    return Outcome(index, error_code="x", error="x", retry_in=0.0, is_free=kind != "later", **spent)


class Bench:
    """A job and two workers who are played by hand."""

    def __init__(self, person: Person) -> None:
        self.person = person
        self.job_id = start(person, ITEMS, concurrency=5)
        job = queries.job_to_run(tenant_id=person.tenant_id, job_id=self.job_id)
        assert job is not None
        self.job: Job = job
        self.leases = [uuid4(), uuid4()]
        self.hands: list[list[int]] = [[], []]

    def step(self, worker: int, outcomes: list[Outcome], want: int = 0) -> Step:
        return claims.step(
            job=self.job, lease=self.leases[worker], outcomes=outcomes, want=want, crowd=9, now=timezone.now()
        )

    def claim(self, worker: int, want: int) -> None:
        self.hands[worker] += list(self.step(worker, [], want).claimed)

    def settle(self, worker: int, kind: str) -> None:
        done, self.hands[worker] = self.hands[worker], []
        self.step(worker, [outcome(index, kind) for index in done])

    def die(self, worker: int) -> None:
        """Let a worker's leases run out; it may still come back with its results."""
        with tenant_scope(self.person.tenant_id), connection.cursor() as cursor:
            cursor.execute(
                "UPDATE content_generation_items SET lease_until = now() - interval '1 second' WHERE lease = %s",
                [self.leases[worker]],
            )

    def renew(self, worker: int) -> None:
        claims.renew(job=self.job, lease=self.leases[worker], now=timezone.now())

    def act(self, name: str) -> None:
        tenant, now = self.person.tenant_id, timezone.now()
        if name in {"pause", "fail"}:
            with tenant_scope(tenant):
                job = endings.lock_job(tenant_id=tenant, job_id=self.job_id, with_items=True)
                assert job is not None
                if job.status in {"pending", "running"}:
                    (endings.pause if name == "pause" else endings.fail)(job, "code", "message")
            return
        try:
            if name == "cancel":
                operations.cancel_job(tenant_id=tenant, job_id=self.job_id)
            elif name == "resume":
                operations.resume_job(tenant_id=tenant, job_id=self.job_id, max_cost_usd=None, now=now)
            else:
                operations.retry_job(tenant_id=tenant, job_id=self.job_id, max_cost_usd=None, now=now)
        except Problem as problem:
            assert problem.status == 409, problem.detail  # noqa: PT017 -- any other ends the test


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acts=ACTS)
def test_the_sums_hold_after_every_act(
    database: None, provider: Provider, acts: list[tuple[str, int | None, int | str | None]]
) -> None:
    bench = Bench(new_studio("bench"))
    for name, worker, detail in acts:
        if worker is None:
            bench.act(name)
        elif name == "claim":
            bench.claim(worker, int(detail or 0))
        elif name == "settle":
            bench.settle(worker, str(detail))
        else:
            getattr(bench, name)(worker)
        assert_sums(bench.person, bench.job_id)
    assert len(items_of(bench.person, bench.job_id)) == ITEMS


@pytest.fixture
def bench(studio: Person) -> Bench:
    return Bench(studio)


def test_a_worker_that_comes_too_late_changes_nothing(bench: Bench) -> None:
    bench.claim(0, 2)
    late = bench.hands[0]
    bench.die(0)
    bench.renew(1)  # takes back what the dead worker had
    bench.claim(1, 2)
    bench.settle(1, "written")

    bench.step(0, [outcome(index, "refused") for index in late])

    job = job_of(bench.person, bench.job_id)
    assert (job["progress"], job["failed"]) == (2, 0)
    assert_sums(bench.person, bench.job_id)


def test_results_that_come_twice_count_once(bench: Bench) -> None:
    bench.claim(0, 3)
    twice = [outcome(index, "written") for index in bench.hands[0]]

    bench.step(0, twice)
    bench.step(0, twice)

    assert job_of(bench.person, bench.job_id)["progress"] == 3
    assert_sums(bench.person, bench.job_id)


def test_results_after_a_cancel_are_dropped(bench: Bench) -> None:
    bench.claim(0, 3)
    bench.act("cancel")

    bench.settle(0, "written")

    assert job_of(bench.person, bench.job_id)["progress"] == 0
    assert_sums(bench.person, bench.job_id)


def test_results_that_come_while_the_job_is_paused_are_kept(bench: Bench) -> None:
    bench.claim(0, 3)
    bench.act("pause")

    bench.settle(0, "written")

    job = job_of(bench.person, bench.job_id)
    assert (job["status"], job["progress"]) == ("paused", 3)
    assert_sums(bench.person, bench.job_id)


def test_no_more_items_are_in_hand_than_the_job_allows(bench: Bench) -> None:
    bench.claim(0, 4)
    bench.claim(1, 4)

    assert [len(hand) for hand in bench.hands] == [4, 1]


def test_an_item_whose_workers_always_die_fails_in_the_end(bench: Bench) -> None:
    for _ in range(5):
        bench.claim(0, 1)
        bench.die(0)
        bench.renew(1)

    [failed] = items_of(bench.person, bench.job_id, status="failed")
    assert (failed["index"], failed["attempts"], failed["error_code"]) == (0, 5, "worker_lost")
    assert_sums(bench.person, bench.job_id)


def test_settling_many_takes_as_many_statements_as_settling_one(studio: Person) -> None:
    bench = Bench(studio)
    bench.claim(0, 1)
    with CaptureQueriesContext(connection) as one:
        bench.settle(0, "written")
    bench.claim(0, 4)
    with CaptureQueriesContext(connection) as four:
        bench.settle(0, "written")

    assert len(four) == len(one)
