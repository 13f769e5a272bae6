"""SIGTERM to each process under load: what is in hand is finished or goes back, nothing is lost or done twice, all is over in time."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import requests
from celery import Celery

from tests.deployment.house import HOST, House, Process, eventually, house
from tests.providers import Provider

ITEMS, SOAK_ITEMS = 30, 1000
ROUNDS, SOAK_ROUNDS = 1, 8


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with Provider() as running:
        yield running


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, provider: Provider) -> Iterator[House]:
    variables = {
        "OPENAI_BASE_URL": provider.url,
        "LLM_PRICES": '{"openai/gpt-test": [1, 4]}',
        "THROTTLE_TENANT": "off",
        "GENERATION_RETRY_SECONDS": "0.5",
        "STUBBORN_SECONDS": "2",
    }
    with house(tmp_path_factory.mktemp("shutdown"), **variables) as found:
        found.manage("release")
        yield found


@pytest.fixture(scope="module")
def web(place: House) -> Process:
    """A web process that stays, to look from."""
    return serving(place)


@pytest.fixture(scope="module")
def headers(place: House, web: Process, provider: Provider) -> dict[str, str]:
    """Credentials of a tenant with a key for the provider."""
    provider.behave()
    who = ["--email", f"{time.time()}@example.com", "--password", "correct-horse-battery", "--tier", "enterprise"]
    made = json.loads(place.manage("create_tenant", "--name", "T", *who, "--json"))
    found = {"X-API-Key": made["api_key"], "Host": HOST}
    key = {"provider": "openai", "api_key": "sk-shutdown-0123456789"}
    requests.post(f"{web.url}/api/llm-keys", json=key, headers=found, timeout=30).raise_for_status()
    return found


def serving(place: House) -> Process:
    process = place.service("web")
    eventually(process.serves, 60)
    return process


def working(place: House, *services: str) -> list[Process]:
    """Start workers side by side and wait until they answer."""
    started = [place.service(name) for name in services]
    names = {process.environment["WORKER_NAME"] for process in started}
    with Celery(broker=place.environment["REDIS_URL"], set_as_current=False) as asking:
        eventually(lambda: names <= set(answering(asking)), 60)
    return started


def answering(asking: Celery) -> list[str]:
    return [name.partition("@")[0] for answer in asking.control.ping(timeout=0.5) or [] for name in answer]


def end(*processes: Process) -> None:
    """Stop processes, which has to go well."""
    for process in processes:
        process.terminate()
    for process in processes:
        assert process.end() == 0, process.said()


class Writers:
    """Threads that create content, and what they were answered."""

    def __init__(self, url: str, headers: dict[str, str], *, pause: float = 0) -> None:
        self._url, self._headers, self._pause = url, headers, pause
        self._name = f"Writer {id(self)}"
        self._ended = threading.Event()
        self.answers: Counter[int] = Counter()
        self.refused = 0
        self.titles: list[str] = []
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(4)]

    def __enter__(self) -> "Writers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        session, count = requests.Session(), 0
        while not self._ended.is_set():
            count += 1
            item = {"title": f"{self._name} {number} item {count}", "type": "post", "body": "text " * 50}
            try:
                answer = session.post(f"{self._url}/api/content", json=item, headers=self._headers, timeout=30)
            except requests.ConnectionError:
                self.refused += 1
                time.sleep(0.1)
                continue
            self.answers[answer.status_code] += 1
            if answer.status_code == 201:
                self.titles.append(item["title"])
            time.sleep(self._pause)

    def written(self, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return what they wrote among items."""
        return [item for item in items if item["title"].startswith(self._name)]


def listed(web: Process, headers: dict[str, str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    query: dict[str, Any] = {"pageSize": 100}
    while True:
        answer = requests.get(f"{web.url}/api/content", params=query, headers=headers, timeout=60)
        answer.raise_for_status()
        found += answer.json()["data"]
        if not (cursor := answer.json()["pagination"]["nextCursor"]):
            return found
        query = {"pageSize": 100, "cursor": cursor}


def generated(url: str, headers: dict[str, str], into: list[int]) -> threading.Thread:
    """Ask for a text that takes its time, in a thread that keeps the answer's status."""
    wish = {"prompt": "x", "content_type": "post", "provider": "openai", "model": "gpt-test", "save": True}

    def ask() -> None:
        answer = requests.post(f"{url}/api/content/generate", json=wish, headers=headers, timeout=60)
        into.append(answer.status_code)

    thread = threading.Thread(target=ask)
    thread.start()
    return thread


@pytest.mark.soak
def test_requests_in_flight_are_answered(
    place: House, web: Process, headers: dict[str, str], provider: Provider
) -> None:
    provider.behave(latency=4)
    going = serving(place)
    statuses: list[int] = []
    with Writers(going.url, headers) as writers:
        slow = [generated(going.url, headers, statuses) for _ in range(3)]
        time.sleep(1.5)
        going.terminate()
        begun = time.monotonic()
        assert going.end() == 0, going.said()
        assert time.monotonic() - begun > 1  # for the slow ones
    for thread in slow:
        thread.join()

    assert statuses == [200, 200, 200]
    assert set(writers.answers) == {201}
    assert writers.refused
    there = Counter(item["title"] for item in listed(web, headers))
    assert not [title for title in writers.titles if there[title] != 1]


@pytest.mark.soak
def test_requests_longer_than_the_time_are_cut_off(place: House, headers: dict[str, str], provider: Provider) -> None:
    provider.behave(latency=20)
    going = place.start("web", f"{web_command()} --workers-kill-timeout 2")
    eventually(going.serves, 60)
    lost: list[bool] = []
    thread = threading.Thread(target=lambda: lost.append(loses_its_connection(going.url, headers)))
    thread.start()
    time.sleep(1)
    going.terminate()
    assert going.end(10) == 0
    thread.join()
    assert lost == [True]


def loses_its_connection(url: str, headers: dict[str, str]) -> bool:
    wish = {"prompt": "x", "content_type": "post", "provider": "openai", "model": "gpt-test"}
    with pytest.raises(requests.ConnectionError):
        requests.post(f"{url}/api/content/generate", json=wish, headers=headers, timeout=60)
    return True


def web_command() -> str:
    return "granian --interface asginl --host 127.0.0.1 --port 8000 --workers 1 engarde.asgi:application"


def start_job(web: Process, headers: dict[str, str], items: int, at_once: int) -> str:
    topics = [f"number {index}" for index in range(items)]
    body = {
        "content_type": "post",
        "target_count": items,
        "concurrency": at_once,
        "generation_params": {"prompt_template": "Write about {topic}.", "topics": topics},
        "provider": "openai",
        "model": "gpt-test",
    }
    answer = requests.post(f"{web.url}/api/content/generate-batch", json=body, headers=headers, timeout=60)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["job_id"])


def job(web: Process, headers: dict[str, str], job_id: str) -> dict[str, Any]:
    answer = requests.get(f"{web.url}/api/content/generation-jobs/{job_id}", headers=headers, timeout=60)
    answer.raise_for_status()
    return dict(answer.json())


def running_items(web: Process, headers: dict[str, str], job_id: str) -> int:
    address = f"{web.url}/api/content/generation-jobs/{job_id}/items"
    answer = requests.get(address, params={"status": "running"}, headers=headers, timeout=60)
    return int(answer.json()["pagination"]["total"])


def ends_well(web: Process, headers: dict[str, str], job_id: str, items: int) -> None:
    eventually(lambda: job(web, headers, job_id)["completed_at"], 180)
    done = job(web, headers, job_id)
    assert (done["status"], done["progress"], done["failed"]) == ("completed", items, 0)
    assert len(set(done["generated_content_ids"])) == items
    of_the_job = [item for item in listed(web, headers) if (item["ai_generation"] or {}).get("job_id") == job_id]
    assert len(of_the_job) == items


@pytest.mark.soak
def test_items_in_flight_go_back(place: House, web: Process, headers: dict[str, str], provider: Provider) -> None:
    provider.behave(latency=0.5)
    default, worker = working(place, "worker-default", "worker-generation")
    job_id = start_job(web, headers, ITEMS, 10)
    eventually(lambda: job(web, headers, job_id)["progress"] >= 5, 60)
    provider.behave(latency=60)  # calls that were under way before take half a second, later ones a minute
    eventually(lambda: running_items(web, headers, job_id) == 10, 60)
    end(worker)
    assert running_items(web, headers, job_id) == 0

    provider.behave()
    [worker] = working(place, "worker-generation")
    ends_well(web, headers, job_id, ITEMS)
    end(worker, default)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_thousand_items_under_workers_that_stop(
    place: House, web: Process, headers: dict[str, str], provider: Provider
) -> None:
    provider.behave(latency=2, jitter=0.9)
    default, worker = working(place, "worker-default", "worker-generation")
    job_id = start_job(web, headers, SOAK_ITEMS, 50)
    for number in range(1, SOAK_ROUNDS + 1):
        goal = number * SOAK_ITEMS // (SOAK_ROUNDS + 2)
        eventually(lambda goal=goal: job(web, headers, job_id)["progress"] >= goal, 120)
        end(worker)
        assert running_items(web, headers, job_id) == 0
        [worker] = working(place, "worker-generation")
    ends_well(web, headers, job_id, SOAK_ITEMS)
    end(worker, default)


def stop_carriers(place: House, web: Process, headers: dict[str, str], *, seconds: float, rounds: int) -> None:
    """Stop the carriers again and again while content is written; in the end all of it is in ZeroDB and the backup, once."""
    names = ("worker-documents", "worker-dr")
    beat, workers = place.service("beat"), working(place, *names)
    eventually(lambda: list(place.folder.rglob("schedule*")), 60)
    with Writers(web.url, headers, pause=0.2) as writers:
        for _ in range(rounds):
            time.sleep(seconds)
            end(*workers)
            workers = working(place, *names)
    assert set(writers.answers) == {201}
    eventually(lambda: all(map(is_everywhere, writers.written(listed(web, headers)))), 240)
    end(beat, *workers)
    assert Counter(item["title"] for item in writers.written(listed(web, headers))) == Counter(writers.titles)


def is_everywhere(item: dict[str, Any]) -> bool:
    return bool(item["storage"]["zerodb_id"] and item["storage"]["bigquery_backed_up"])


@pytest.mark.soak
def test_documents_on_their_way_arrive(place: House, web: Process, headers: dict[str, str]) -> None:
    stop_carriers(place, web, headers, seconds=2, rounds=ROUNDS)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_documents_on_their_way_arrive_however_often_carriers_stop(
    place: House, web: Process, headers: dict[str, str]
) -> None:
    stop_carriers(place, web, headers, seconds=5, rounds=SOAK_ROUNDS)


@pytest.mark.soak
def test_tasks_that_do_not_end_are_broken_off_and_go_back(place: House, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    command = "celery -A tests.deployment.stubborn worker -n stubborn@%h -Q stubborn --concurrency 2 --loglevel INFO"
    with Celery(broker=place.environment["REDIS_URL"], set_as_current=False) as sending:
        for is_deaf in (False, True):
            sending.send_task("tests.stubborn", kwargs={"begun": str(begun), "is_deaf": is_deaf}, queue="stubborn")
    worker = place.start("stubborn", command)
    eventually(lambda: begun.exists() and begun.read_text() == "begun\nbegun\n", 60)
    end(worker)
    with redis.Redis.from_url(place.environment["REDIS_URL"]) as client:
        assert client.llen("stubborn") == 2
