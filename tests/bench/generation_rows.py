"""Rows of generation: a batch against the ideal of the model's latency, a bare loop, and a provider's limit."""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from django.conf import settings
from django.test import override_settings
from django.utils import timezone

from engarde.celery import app as celery
from engarde.embedded import up
from generation import keys, operations, queries, tasks
from generation.models import UNFINISHED, Job, Provider
from generation.operations import BatchRequest
from quotas.operations import NewTenant
from tests.bench.measure import Row
from tests.providers import Provider as Stranger

ITEMS = 1000
LATENCY = 1.0
WORKERS = 2
LIMIT = 20


@contextmanager
def workers(base_url: str) -> Iterator[None]:
    """Run the worker for generation, as `make up` does."""
    environ = {**os.environ, **environment(base_url), "LOG_LEVEL": "ERROR"}
    process = subprocess.Popen(
        up.generation_worker_command(),
        env=environ,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 30
        while not celery.control.ping(timeout=0.5, limit=1):
            if time.monotonic() > deadline:
                raise TimeoutError("The worker did not answer.")
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=90)


@contextmanager
def reaching(base_url: str) -> Iterator[None]:
    """Have this process, which queues the jobs, know the provider too."""
    urls = {**settings.LLM_BASE_URLS, "openai": base_url}
    with override_settings(LLM_BASE_URLS=urls, LLM_PRICES={"openai/gpt-test": [1, 4]}):
        yield


def environment(base_url: str) -> dict[str, str]:
    return {"OPENAI_BASE_URL": base_url, "LLM_PRICES": '{"openai/gpt-test": [1, 4]}'}


def batches(stranger: Stranger, tenant: NewTenant) -> Iterator[Row]:
    """Measure a job of 1,000 items at 1 s a call, at 10 and at 100 calls at once."""
    stranger.behave(latency=LATENCY)
    ideal = ITEMS * LATENCY / 10
    took = run_job(tenant, 10)
    yield Row(
        "batch of 1,000, 10 at once", _seconds(took), _seconds(ideal), ideal / took, "≥ 0.95", "against the ideal"
    )
    took, bare = run_job(tenant, 100), bare_loop(stranger.url, 100)
    note = f"against a bare loop, which reaches {ITEMS * LATENCY / 100 / bare:.2f} of the ideal"
    yield Row("batch of 1,000, 100 at once", _seconds(took), _seconds(bare), bare / took, "≥ 0.75", note)


def limited(stranger: Stranger, tenant: NewTenant) -> Iterator[Row]:
    """Measure a job at a provider that takes 20 calls a second."""
    stranger.behave(latency=LATENCY, rate=LIMIT, retry_after=1)
    stranger.forget()
    took = run_job(tenant, 100)
    counts = stranger.counts()
    refused = counts.get(429, 0)
    calls = refused + counts.get(200, 0)
    speed, note = ITEMS / took, f"{refused / calls:.1%} refused; below 5 %"
    yield Row("of a provider's 20 calls/s", f"{speed:.1f} /s", f"{LIMIT} /s", speed / LIMIT, "≥ 0.85", note)


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s"


def run_job(tenant: NewTenant, at_once: int) -> float:
    """Run a job on a key that nobody used before, and return the seconds from its queuing to its end."""
    give_key(tenant)
    begun = time.monotonic()
    job_id = start(tenant, at_once)
    tasks.dispatch()
    while True:
        job = queries.get_job(tenant_id=tenant.tenant.id, job_id=job_id)
        if job.status not in UNFINISHED:
            break
        time.sleep(0.05)
    took = time.monotonic() - begun
    if job.completed != ITEMS:
        raise RuntimeError(f"the job is {job.status}: {job.error_message}")
    return took


def start(tenant: NewTenant, at_once: int) -> UUID:
    params = {"prompt_template": "Write about {topic}.", "topics": [f"number {index}" for index in range(ITEMS)]}
    request = BatchRequest(
        content_type="post",
        target_count=ITEMS,
        concurrency=at_once,
        params=params,
        provider="openai",
        model="gpt-test",
        notify=False,
    )
    job: Job = operations.start_batch(
        tenant_id=tenant.tenant.id, created_by=tenant.owner.id, request=request, now=timezone.now()
    ).job
    return job.id


def give_key(tenant: NewTenant) -> None:
    keys.save_key(
        tenant_id=tenant.tenant.id,
        provider=Provider.OPENAI,
        api_key=f"sk-bench-{secrets.token_hex(12)}",
        actor_id=tenant.owner.id,
        now=timezone.now(),
    )


def bare_loop(base_url: str, at_once: int) -> float:
    """Return the seconds that as many processes as there are workers take for the calls alone."""
    share = [base_url, str(ITEMS // WORKERS), str(at_once // WORKERS)]
    command = [sys.executable, "-m", "tests.bench.bare_loop", *share]
    loops = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(WORKERS)
    ]
    for loop in loops:
        assert loop.stdout is not None
        loop.stdout.readline()
    for loop in loops:
        assert loop.stdin is not None
        loop.stdin.write("go\n")
        loop.stdin.flush()
    return max(float(loop.communicate()[0].splitlines()[-1]) for loop in loops)
