"""Each command of docker-compose.yml and the Procfile comes up in production mode, and ends well on SIGTERM."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from celery import Celery

from engarde.embedded.paths import PROJECT_ROOT
from tests.deployment.house import HOST, STOP_SECONDS, House, Process, compose, eventually, house, procfile

WEB = ("web", "websocket")
OTHER_IMAGES = ("postgres", "redis", "zerodb", "bigquery", "prometheus")
START_SECONDS = 60


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("deployment")) as found:
        [command] = {compose()["services"]["migrate"]["command"], procfile()["release"]}
        released = found.start("release", command + " --json --strict")
        assert released.end(120) == 0, released.said()
        report = json.loads(released.said().splitlines()[-1])
        assert report == {"postgres": "migrated", "zerodb": "set up", "bigquery": "set up"}
        yield found


def comes_up(process: Process, place: House) -> None:
    if process.name in WEB:
        eventually(process.serves, START_SECONDS)
    elif process.name == "beat":
        eventually(lambda: list(place.folder.rglob("*schedule*")), START_SECONDS)
    else:
        name = process.environment.get("WORKER_NAME") or {"worker": "default"}.get(process.name, process.name)
        answers(f"{name}@{socket.gethostname()}", place)


def answers(worker: str, place: House) -> None:
    with Celery(broker=place.environment["REDIS_URL"], set_as_current=False) as asking:
        eventually(lambda: asking.control.ping([worker], timeout=1), START_SECONDS)


def come_up_and_end(started: list[Process], place: House) -> None:
    for process in started:
        comes_up(process, place)
    for process in started:
        if process.name in WEB:
            is_well(process)
        elif process.name in ("beat", "worker-dr"):
            passes_its_check(process, place)
    for process in started:
        process.terminate()
    begun = time.monotonic()
    ends = {process.name: process.end() for process in started}
    assert set(ends.values()) == {0}, [process.said() for process in started if ends[process.name]]
    assert time.monotonic() - begun < STOP_SECONDS


def is_well(process: Process) -> None:
    """The image's health check says so, and /health of all parts."""
    asked = {**process.environment, "PORT": str(process.port)}
    subprocess.run(["python", "engarde/healthcheck.py"], env=asked, cwd=PROJECT_ROOT, check=True)
    full = requests.get(f"{process.url}/health", headers={"Host": HOST}, timeout=30).json()
    assert full["status"] == "ok", full


def passes_its_check(process: Process, place: House) -> None:
    check = compose()["services"].get(process.name, {}).get("healthcheck", {}).get("test", "true")
    command = check.replace("$$", "$").replace("/data/beat", str(place.folder / "beat"))
    environment = {**process.environment, "HOSTNAME": socket.gethostname()}
    subprocess.run(command, shell=True, env=environment, cwd=PROJECT_ROOT, check=True, capture_output=True)


@pytest.mark.soak
def test_every_process_of_compose_comes_up_and_ends(place: House) -> None:
    names = [name for name in compose()["services"] if name not in (*OTHER_IMAGES, "migrate")]
    assert {"web", "websocket", "beat", "worker-generation"} < set(names)
    come_up_and_end([place.service(name) for name in names], place)


@pytest.mark.soak  # the same programs with other queues
def test_every_process_of_the_procfile_comes_up_and_ends(place: House) -> None:
    commands = {name: command for name, command in procfile().items() if name != "release"}
    (place.folder / "celerybeat-schedule").unlink(missing_ok=True)
    come_up_and_end([place.start(name, command) for name, command in commands.items()], place)


def test_the_health_check_fails_where_nobody_serves() -> None:
    environment = {"PATH": os.environ["PATH"], "PORT": "1", "ALLOWED_HOSTS": "content.test"}
    done = subprocess.run(
        ["python3", "engarde/healthcheck.py"], env=environment, cwd=PROJECT_ROOT, capture_output=True, check=False
    )
    assert done.returncode == 1


@pytest.mark.soak
def test_the_emulators_answer_as_compose_starts_them(place: House, tmp_path: Path) -> None:
    described = compose()["services"]["zerodb"]
    found = place.start(
        "zerodb", described["command"], **{**described["environment"], "ZERODB_EMULATOR_DATA": str(tmp_path)}
    )
    eventually(lambda: answers_http(f"{found.url}/health"), START_SECONDS)
    found.terminate()
    assert found.end() == 0


def answers_http(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False
