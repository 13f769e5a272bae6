"""A job under fire: a provider with every kind of fault, workers that are killed, a Valkey that is restarted, a line that drops."""

import asyncio
import json
import random
import threading
import time
from decimal import Decimal
from typing import Any

import psutil
import pytest
import requests
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from tests.faults.platform import Platform, eventually
from tests.providers import Provider

ITEMS = 40
SOAK_ITEMS = 1000
KILL_SECONDS = 3.0
FAULTS = {
    "rate_limit": 0.01,
    "rate_limit_silent": 0.01,
    "server_error": 0.05,
    "bad_gateway": 0.02,
    "overloaded": 0.01,
    "hang": 0.01,
    "truncated": 0.03,
    "invalid_json": 0.05,
    "cut_json": 0.03,
    "wrong_shape": 0.03,
    "fenced": 0.05,
    "refusal": 0.02,
    "content_filter": 0.02,
    "bad_request": 0.01,
    "empty": 0.03,
}
ENDS = {"completed", "completed_with_errors"}


@pytest.fixture
def headers(platform: Platform) -> dict[str, str]:
    """Credentials of a new tenant with a key for the provider."""
    who = ["--email", f"{time.time()}@example.com", "--password", "correct-horse-battery", "--tier", "enterprise"]
    found = {"X-API-Key": platform.manage("create_tenant", "--name", "T", *who)["api_key"]}
    key = {"provider": "openai", "api_key": "sk-storm-0123456789"}
    requests.post(f"{platform.url}/api/llm-keys", json=key, headers=found, timeout=30).raise_for_status()
    return found


class Watcher(threading.Thread):
    """Watches a job as a browser would: it comes back after each drop, with the last item that it knows of."""

    def __init__(self, platform: Platform, headers: dict[str, str], job_id: str) -> None:
        super().__init__(daemon=True)
        self.url = f"ws://127.0.0.1:{platform.port}/ws/generation-jobs/{job_id}"
        self.headers = headers
        self.seen: list[dict[str, Any]] = []
        self.done: dict[str, Any] | None = None
        self.connections = 0
        self.stopping = threading.Event()

    def run(self) -> None:
        asyncio.run(self._watch())

    async def _watch(self) -> None:
        while self.done is None and not self.stopping.is_set():
            last = self.seen[-1]["seq"] if self.seen else 0
            try:
                async with connect(f"{self.url}?after={last}", additional_headers=self.headers) as line:
                    self.connections += 1
                    await self._listen(line)
            except (OSError, WebSocketException, TimeoutError):
                await asyncio.sleep(0.2)

    async def _listen(self, line: Any) -> None:
        drops_at = time.monotonic() + random.uniform(2, 6)
        while self.done is None and time.monotonic() < drops_at:
            message = json.loads(await asyncio.wait_for(line.recv(), 30))
            if message["type"] == "item":
                self.seen.append(message)
            elif message["type"] == "done":
                self.done = message


def start(platform: Platform, headers: dict[str, str], items: int, at_once: int) -> str:
    params = {"prompt_template": "Write about {topic}.", "topics": [f"number {index}" for index in range(items)]}
    body = {
        "content_type": "post",
        "target_count": items,
        "concurrency": at_once,
        "generation_params": params,
        "provider": "openai",
        "model": "gpt-test",
    }
    answer = requests.post(f"{platform.url}/api/content/generate-batch", json=body, headers=headers, timeout=60)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["job_id"])


def read(platform: Platform, headers: dict[str, str], path: str, **query: Any) -> dict[str, Any]:
    answer = requests.get(f"{platform.url}{path}", params=query, headers=headers, timeout=60)
    answer.raise_for_status()
    return dict(answer.json())


def every(platform: Platform, headers: dict[str, str], path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        page = read(platform, headers, path, pageSize=100, **cursor)
        found += page["data"]
        if not page["pagination"]["nextCursor"]:
            return found
        cursor = {"cursor": page["pagination"]["nextCursor"]}


def kill_a_worker(platform: Platform) -> None:
    """Kill one of the two processes that run jobs, or now and then their leader with them."""
    try:
        [leader] = platform.pids("generation")
    except KeyError:  # it is being started again
        return
    if not psutil.pid_exists(leader):
        return
    if random.random() < 0.2:
        platform.kill("generation")
        return
    if children := psutil.Process(leader).children():
        random.choice(children).kill()


def storm(platform: Platform, job_path: str, headers: dict[str, str], until: float) -> int:
    """Kill a worker every few seconds and Valkey once, until the job has ended; return how many were killed.

    Workers that only just start are left alone: Celery gives up on a pool whose processes die before they are up.
    """
    kills, finished = 0, 0
    next_kill = time.monotonic() + KILL_SECONDS
    while (job := read(platform, headers, job_path))["status"] in {"pending", "running"}:
        assert time.monotonic() < until, job
        if time.monotonic() >= next_kill and job["progress"] + job["failed"] > finished:
            kill_a_worker(platform)
            kills, finished = kills + 1, job["progress"] + job["failed"]
            next_kill = time.monotonic() + KILL_SECONDS
            if kills == 2:
                platform.kill("redis")
        time.sleep(0.3)
    return kills


@pytest.mark.timeout(900)
@pytest.mark.parametrize("items", [ITEMS, pytest.param(SOAK_ITEMS, marks=pytest.mark.soak)])
def test_every_item_ends_once_whatever_dies(
    platform: Platform, provider: Provider, headers: dict[str, str], items: int
) -> None:
    provider.behave(latency=0.4, jitter=0.5, faults=FAULTS, hang_seconds=30, retry_after=1, seed=items)
    job_id = start(platform, headers, items, 20)
    path = f"/api/content/generation-jobs/{job_id}"
    watcher = Watcher(platform, headers, job_id)
    watcher.start()

    kills = storm(platform, path, headers, time.monotonic() + 600)

    eventually(lambda: watcher.done, 60)
    job, rows = read(platform, headers, path), every(platform, headers, f"{path}/items")
    contents = every(platform, headers, "/api/content")
    done = {row["index"]: row["content_id"] for row in rows if row["status"] == "completed"}
    failed = {row["index"] for row in rows if row["status"] == "failed"}
    assert kills >= 2
    assert job["status"] in ENDS
    assert sorted([*done, *failed]) == list(range(items)), "each index has one content or one final error"
    assert all(row["error_code"] and row["error"] for row in rows if row["status"] == "failed")
    assert sorted(done.values()) == sorted(content["id"] for content in contents), "no content twice, none astray"
    assert (job["progress"], job["failed"]) == (len(done), len(failed))
    assert Decimal(job["total_cost_usd"]) == sum(Decimal(row["cost_usd"]) for row in rows)
    assert job["total_storage_bytes"] == sum(content["storage"]["size_bytes"] for content in contents)
    usage = read(platform, headers, "/api/content/quota")["usage"]
    assert usage["generated_this_month"] == len(done)
    assert usage["total_storage_bytes"] == job["total_storage_bytes"]
    assert usage["reserved_bytes"] == usage["reserved_generations"] == 0
    assert [event["seq"] for event in watcher.seen] == list(range(1, items + 1)), "each once, in order, across drops"
    assert {event["index"] for event in watcher.seen} == set(range(items))
    assert watcher.connections > 1
    assert watcher.done is not None
    assert watcher.done["seq"] == items


@pytest.mark.timeout(300)
def test_ten_thousand_items_queue_while_the_api_answers_others(
    platform: Platform, provider: Provider, headers: dict[str, str]
) -> None:
    provider.behave(latency=1.0)
    longest = 0.0
    stopping = threading.Event()

    def others() -> None:
        nonlocal longest
        while not stopping.is_set():
            begun = time.monotonic()
            read(platform, headers, "/api/content", pageSize=1)
            longest = max(longest, time.monotonic() - begun)

    asking = threading.Thread(target=others)
    asking.start()
    begun = time.monotonic()
    job_id = start(platform, headers, 10_000, 10)
    took = time.monotonic() - begun
    stopping.set()
    asking.join()

    path = f"{platform.url}/api/content/generation-jobs/{job_id}"
    assert requests.delete(path, headers=headers, timeout=60).json()["status"] == "cancelled"
    assert took < 5
    assert longest < 2


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_no_call_starts_after_a_job_was_cancelled(
    platform: Platform, provider: Provider, headers: dict[str, str]
) -> None:
    provider.behave(latency=1.0)
    provider.forget()
    job_id = start(platform, headers, 500, 40)
    eventually(lambda: len(provider.calls()) > 60, 60)

    path = f"{platform.url}/api/content/generation-jobs/{job_id}"
    answer = requests.delete(path, headers=headers, timeout=60)
    cancelled_at = time.time()

    assert answer.json()["status"] == "cancelled"
    time.sleep(2.5)
    # A request that was on its way to the provider when the job was cancelled arrives a moment later.
    assert [call for call in provider.calls() if call["at"] > cancelled_at + 0.5] == []
    assert provider.counts()["in_flight"] == 0
    after = requests.get(path, headers=headers, timeout=60).json()
    assert after["progress"] == answer.json()["progress"], "its counts are final"
