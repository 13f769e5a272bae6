"""`up` runs web, workers and beat, brings them back, and leaves nothing behind. The platform itself is played by stand-ins."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest
import requests

from engarde.embedded import files, remembered
from engarde.embedded.llm import MODEL, install
from engarde.embedded.paths import PROJECT_ROOT
from tests.embedded.conftest import eventually, plain_environment, processes_of, service_state

MANAGE = """
import pathlib, sys
pathlib.Path("commands").open("a").write(" ".join(sys.argv[1:]) + "\\n")
print('{"email": "staff@example.test", "password": "pw"}')
"""
WEB = """
import http.server, os, sys
class Live(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
        self.wfile.write(os.environ.get("LOCAL_LLM_BASE_URL", "").encode())
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Live).serve_forever()
"""
DRIVER = """
import pathlib, sys
from engarde.embedded import up
from engarde.embedded.paths import DataDir
up.PROJECT_ROOT = pathlib.Path(sys.argv[1])
up.web_command = lambda port, workers: [sys.executable, "web.py", str(port)]
up.worker_command = lambda: [sys.executable, "-c", "import time; time.sleep(600)"]
up.generation_worker_command = up.worker_command
up.beat_command = lambda schedule: [sys.executable, "-c", "import time; time.sleep(600)"]
say = lambda text: print(text, flush=True)
sys.exit(up.Platform(DataDir.at(pathlib.Path(sys.argv[2])), int(sys.argv[3]), say).run())
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    for name, text in {"manage.py": MANAGE, "web.py": WEB, "driver.py": DRIVER}.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def start_up(project: Path, place: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    port = remembered.free_port()
    started = []

    def start(**variables: str) -> "subprocess.Popen[str]":
        environ = plain_environment(
            **{
                "PYTHONPATH": str(PROJECT_ROOT),
                "DATABASE_URL": "none",
                "ZERODB_API_KEY": "none",
                "BIGQUERY_SYNC_ENABLED": "false",
                "EMBEDDED_LLM": "off",
                **variables,
            }
        )
        process = subprocess.Popen(
            [sys.executable, str(project / "driver.py"), str(project), str(place), str(port)],
            env=environ,
            stdout=subprocess.PIPE,
            text=True,
        )
        process.url = f"http://127.0.0.1:{port}"  # type: ignore[attr-defined]
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def restarted(place: Path, name: str, killed: int) -> bool:
    return running(place).get(name) not in (None, killed)


def read_until(process: "subprocess.Popen[str]", text: str) -> str:
    seen = ""
    assert process.stdout is not None
    while text not in seen:
        line = process.stdout.readline()
        assert line, f"it ended with {process.wait()} after:\n{seen}"
        seen += line
    return seen


def running(place: Path) -> dict[str, int]:
    return {name: pid for name, (pid, _) in files.read_json(place / "run" / "platform.json").items()}


def test_it_sets_up_serves_and_stops_cleanly(start_up, project, place):
    process = start_up()
    welcome = read_until(process, "Stop ")
    assert process.url in welcome
    assert "staff@example.test" in welcome
    assert "EMBEDDED_LLM=off" in welcome
    assert requests.get(f"{process.url}/health/live", timeout=5).status_code == 200
    commands = (project / "commands").read_text().splitlines()
    assert [command.split()[0] for command in commands] == ["release", "ensure_staff"]
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=12) == 0
    assert not processes_of(place)
    assert not processes_of(project)


def test_it_goes_on_without_what_cannot_be_set_up_and_says_so(start_up, project):
    (project / "manage.py").write_text(MANAGE.replace('"email"', '"zerodb": "failed: it refuses the key", "email"'))

    assert "Setting up zerodb failed: it refuses the key\nGoing on without." in read_until(start_up(), "Stop ")


def test_it_brings_a_killed_program_back_and_says_so(start_up, place):
    process = start_up()
    read_until(process, "Stop ")
    for name in ("web", "worker", "generation", "beat"):
        killed = running(place)[name]
        psutil.Process(killed).kill()
        eventually(partial(restarted, place, name, killed), seconds=5)
        assert "SIGKILL" in read_until(process, f"{name} ready")
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=12) == 0


def test_it_sets_up_again_after_a_service_lost_its_data(start_up, project, place):
    import shutil

    process = start_up()
    read_until(process, "Stop ")
    shutil.rmtree(place / "redis")
    read_until(process, "setting it up anew")
    eventually(lambda: (project / "commands").read_text().count("release") == 2)


def test_it_starts_again_on_the_same_port_after_it_was_killed(start_up, project):
    first = start_up()
    read_until(first, "Stop ")
    first.kill()
    second = start_up()
    read_until(second, "Stop ")
    second.send_signal(signal.SIGTERM)
    assert second.wait(timeout=12) == 0
    assert not processes_of(project)


def test_it_runs_once_per_data_directory(start_up):
    process = start_up()
    read_until(process, "Stop ")
    assert start_up().wait(timeout=15) == 1


@pytest.mark.skipif(not install.is_current(), reason="the local language model is not installed")
def test_it_starts_a_language_model_and_outlives_it(start_up, place):
    process = start_up(EMBEDDED_LLM="on")
    assert MODEL in read_until(process, "Stop ")
    where = requests.get(process.url, timeout=5).text
    eventually(lambda: service_state(place, "llm"), seconds=20)
    assert requests.get(f"{where}/models", timeout=5).json()["data"][0]["id"] == MODEL
    killed = service_state(place, "llm")["pid"]
    psutil.Process(killed).kill()
    eventually(lambda: service_state(place, "llm").get("pid") not in (None, killed), seconds=20)
    assert requests.get(f"{where}/models", timeout=5).ok
    assert requests.get(process.url, timeout=5).ok
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=12) == 0
    assert not processes_of(place)
