"""Workers and who sends them: what the dead leave, what waits, and who goes first."""

import time
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import OperationalError, connection
from django.utils import timezone

from engarde.common.scopes import tenant_scope
from generation import claims, dispatching, runner, stops
from generation.models import Job, JobItem
from generation.pace import Pace
from tests.generation.house import ask_batch, items_of, job_of, start, with_key, work
from tests.generation.test_claims import Bench
from tests.generation.test_jobs import answered, assert_sums
from tests.people import Person
from tests.providers import Provider


@pytest.fixture
def bench(studio: Person) -> Bench:
    return Bench(studio)


def run(person: Person, job_id: UUID) -> runner.Slice:
    return runner.run(tenant_id=person.tenant_id, job_id=job_id, now=timezone.now)


def set_job(person: Person, job_id: UUID, **values: Any) -> None:
    with tenant_scope(person.tenant_id):
        Job.objects.filter(id=job_id).update(**values)


def test_what_dead_workers_had_is_taken_up_at_once(bench: Bench) -> None:
    """Also where nothing else is left to do, and with leases as long as they usually are."""
    bench.claim(0, 6)
    bench.die(0)

    assert run(bench.person, bench.job_id).is_over

    assert job_of(bench.person, bench.job_id)["status"] == "completed"
    assert_sums(bench.person, bench.job_id)


def test_a_worker_too_many_leaves_and_is_not_sent_again(bench: Bench) -> None:
    bench.claim(0, 2)
    begun = time.monotonic()

    done = run(bench.person, bench.job_id)

    assert (done.is_over, done.resume_in) == (False, None)
    assert time.monotonic() - begun < 15


def test_a_worker_with_nothing_to_do_yet_comes_back_later(bench: Bench) -> None:
    with tenant_scope(bench.person.tenant_id):
        JobItem.objects.filter(job_id=bench.job_id).update(next_attempt_at=timezone.now() + timedelta(seconds=90))

    done = run(bench.person, bench.job_id)

    assert done.resume_in is not None
    assert 60 < done.resume_in <= 90


def test_a_cap_with_room_left_pauses_no_job_whose_items_wait(studio: Person) -> None:
    job_id = start(studio, 4, max_tokens=200, max_cost_usd="0.03")
    with tenant_scope(studio.tenant_id):
        JobItem.objects.filter(job_id=job_id).update(next_attempt_at=timezone.now() + timedelta(seconds=60))

    run(studio, job_id)

    assert job_of(studio, job_id)["status"] == "pending"


def test_a_job_that_waited_long_is_not_paused_by_its_first_refusal(studio: Person, provider: Provider) -> None:
    provider.behave(rate=4, burst=1, retry_after=None)
    job_id = start(studio, 4)
    set_job(studio, job_id, created_at=timezone.now() - timedelta(hours=1))

    work(studio, job_id)

    assert job_of(studio, job_id)["status"] == "completed"
    assert answered(provider, 429) > 0


def test_a_prompt_that_topics_make_too_long_is_refused(studio: Person) -> None:
    answer = ask_batch(studio, params={"prompt_template": "{topic}" * 100, "topics": ["x" * 300]})

    assert answer.status_code == 400
    assert answer.json()["errors"][0]["code"] == "max_length"


def test_what_others_wrote_is_kept_when_the_key_is_refused(
    studio: Person, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = start(studio, 12, concurrency=4)
    provider.behave(latency=0.3)
    original = claims.step

    def refuse_once_something_is_stored(**arguments: Any) -> claims.Step:
        found = original(**arguments)
        if any(outcome.text for outcome in arguments["outcomes"]):
            provider.behave(keys={"sk-test-0123456789abcdef": "revoked"})
        return found

    monkeypatch.setattr(claims, "step", refuse_once_something_is_stored)
    work(studio, job_id)

    job = job_of(studio, job_id)
    assert (job["status"], job["error_code"]) == ("failed", "llm_key_invalid")
    assert 1 <= job["progress"] <= answered(provider)  # calls that are under way as the job fails are broken off
    assert_sums(studio, job_id)


def test_no_call_is_made_once_a_job_was_stopped(studio: Person, provider: Provider, settings: Any) -> None:
    settings.GENERATION_SLICE_SECONDS = 0.5
    job_id = start(studio, 3)
    stops.tell(job_id)

    run(studio, job_id)

    assert answered(provider) == 0
    assert {item["attempts"] for item in items_of(studio, job_id)} == {0}


def test_a_connection_that_is_lost_loses_no_text(studio: Person, provider: Provider) -> None:
    job_id = start(studio, 10, concurrency=5)
    original = claims.step
    broken: list[bool] = []

    def break_once(**arguments: Any) -> claims.Step:
        if arguments["outcomes"] and not broken:
            broken.append(True)
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_backend_pid()")
                [pid] = cursor.fetchone()
            kill(pid)
        return original(**arguments)

    claims.step = break_once
    try:
        work(studio, job_id)
    finally:
        claims.step = original

    assert broken
    assert job_of(studio, job_id)["status"] == "completed"
    assert answered(provider) == 10, "nothing was written twice"
    assert_sums(studio, job_id)


def kill(pid: int) -> None:
    """End a connection of PostgreSQL's from another one."""
    other = connection.copy()
    try:
        with other.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s)", [pid])
    finally:
        other.close()


def test_a_scope_on_a_lost_connection_says_so(studio: Person) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        [pid] = cursor.fetchone()
    kill(pid)

    with pytest.raises(OperationalError), tenant_scope(studio.tenant_id):
        pass
    connection.close()


# Dispatching


def due(person: Person) -> set[UUID]:
    return {job.job_id for job in dispatching.due_jobs() if job.tenant_id == person.tenant_id}


def test_a_job_is_given_out_once_for_a_while(studio: Person) -> None:
    job_id = start(studio, 1)

    assert due(studio) == {job_id}
    assert due(studio) == set()
    set_job(studio, job_id, touched_at=timezone.now() - timedelta(seconds=11))
    assert due(studio) == {job_id}


def test_a_tenants_jobs_go_a_few_at_a_time_and_those_that_wait_stand_in_no_way(studio: Person, settings: Any) -> None:
    settings.GENERATION_JOBS_PER_TENANT = 2
    first, second, third = (start(studio, 1) for _ in range(3))

    assert due(studio) == {first, second}
    dispatching.resume_later(tenant_id=studio.tenant_id, job_id=first, seconds=600)
    assert due(studio) == {third}


def test_a_new_key_ends_the_wait_of_its_jobs(studio: Person) -> None:
    job_id = start(studio, 1)
    dispatching.resume_later(tenant_id=studio.tenant_id, job_id=job_id, seconds=600)
    assert due(studio) == set()

    with_key(studio, key="sk-another-0123456789")

    assert due(studio) == {job_id}


# The pace


def test_a_key_that_was_refused_once_is_used_again_soon() -> None:
    pace, now = Pace(f"test-{time.time()}"), 1000.0
    leave = pace.take(10, now=now)
    for _ in range(leave.calls):
        pace.refused(started_at=leave.at, retry_after=None, now=now + 0.1)

    started = 0
    for tick in range(100):
        at = now + 1 + tick / 10
        taken = pace.take(10, now=at).calls
        pace.answered(taken, now=at)
        started += taken

    assert started > 100


def test_a_limit_is_met_without_many_refusals() -> None:
    """A provider that takes 20 calls a second and refuses beyond, simulated: 400 calls, 100 at once, 1 s each."""
    pace, now, tokens = Pace(f"test-{time.time()}"), 1000.0, 20.0
    under_way: list[float] = []
    done = refused = 0
    begun = now
    while done < 400:
        now += 0.02
        tokens = min(20.0, tokens + 0.4)
        ended = [at for at in under_way if at <= now]
        under_way = [at for at in under_way if at > now]
        if ended:
            pace.answered(len(ended), now=now)
            done += len(ended)
        leave = pace.take(100 - len(under_way), now=now)
        for _ in range(leave.calls):
            if tokens >= 1:
                tokens -= 1
                under_way.append(now + 1)
            else:
                refused += 1
                pace.refused(started_at=leave.at, retry_after=1.0, now=now)

    assert 400 / (now - begun) / 20 >= 0.85
    assert refused / (400 + refused) < 0.05


def test_leave_that_was_not_used_is_given_back() -> None:
    pace, now = Pace(f"test-{time.time()}"), 1000.0

    for tick in range(50):
        leave = pace.take(10, now=now + tick / 100)
        assert leave.calls == 10
        pace.returned(10, taken_at=leave.at, now=now + tick / 100)


def test_leave_that_dead_workers_took_along_is_given_anew() -> None:
    pace, now = Pace(f"test-{time.time()}"), 1000.0
    pace.take(100, now=now)

    assert pace.take(100, now=now + 1).calls == 0
    assert pace.take(100, now=now + 7).calls > 0
