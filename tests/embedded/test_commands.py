"""`python -m engarde.embedded`, as a person at a shell uses it."""

import json
import os
import shutil
import signal
import subprocess
import sys

import psutil
import pytest

from engarde.embedded import daemon, session
from engarde.embedded.paths import PROJECT_ROOT, DataDir
from tests.embedded.conftest import MODULE, eventually, plain_environment, processes_of, service_state


def test_it_runs_a_command_with_the_services_and_hands_its_exit_code_on(run_user, place):
    process = run_user(sys.executable, "-c", "import os, sys; print(os.environ['REDIS_URL']); sys.exit(7)")
    printed, _ = process.communicate(timeout=30)
    assert printed.startswith("redis://:")
    assert process.returncode == 7
    assert not processes_of(place)


def test_it_finds_psql_and_the_database(run_user):
    process = run_user("psql", "-XAt", "-c", "select current_user, current_database()", services=["postgres"])
    assert process.communicate(timeout=30)[0] == "engarde|engarde\n"


def test_ctrl_c_ends_the_command_and_the_services(run_user, place):
    process = run_user("sleep", "60")
    eventually(lambda: service_state(place, "redis"))
    runner = psutil.Process(process.pid)
    # A child that has not become `sleep` yet would lose the signal.
    [sleeping] = eventually(lambda: [child for child in runner.children() if child.name() == "sleep"])
    for target in (sleeping, runner):
        target.send_signal(signal.SIGINT)
    process.wait(timeout=15)
    assert not processes_of(place)


def test_a_killed_user_s_services_stop_by_themselves(run_user, place):
    process = run_user("sleep", "2")
    eventually(lambda: service_state(place, "redis"))
    process.kill()
    eventually(lambda: not daemon.is_running(DataDir.at(place)), seconds=15)


def test_the_services_stay_as_long_as_one_user_does(run_user, place):
    with session.join(place, ["redis"]):
        pid = service_state(place, "redis")["pid"]
        run_user("true").communicate(timeout=30)
        assert service_state(place, "redis")["pid"] == pid


def test_first_comers_at_the_same_moment_share_one_supervisor(run_user, place):
    users = [run_user(sys.executable, "-c", "import os; print(os.environ['REDIS_URL'])") for _ in range(4)]
    assert len({user.communicate(timeout=40)[0] for user in users}) == 1
    assert (place / "logs" / "daemon.log").read_text().count(" starts") == 1


@pytest.mark.soak
def test_a_comer_while_the_services_stop_gets_new_ones(run_user, place):
    for _ in range(3):
        assert run_user("true").wait(timeout=30) == 0
    assert (place / "logs" / "daemon.log").read_text().count("has stopped") == 3


def test_status_tells_what_runs_and_stop_stops_it(place):
    with session.join(place, ["redis"]):
        shown = subprocess.run([*MODULE, "status", "--json", "--data-dir", place], capture_output=True, check=True)
        assert json.loads(shown.stdout)["services"]["redis"]["phase"] == "ready"
    subprocess.run([*MODULE, "stop", "--data-dir", place], check=True, capture_output=True)
    assert not processes_of(place)
    assert subprocess.run([*MODULE, "status", "--data-dir", place], check=False, capture_output=True).returncode == 3


def test_up_refuses_production_and_a_taken_port(place, tmp_path):
    import socket

    production = plain_environment(ENGARDE_ENV="production")
    refused = subprocess.run(
        [*MODULE, "up", "--data-dir", place], env=production, capture_output=True, text=True, check=False
    )
    assert (refused.returncode, "development" in refused.stderr) == (1, True)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [*MODULE, "up", "--data-dir", place, "--port", port]
        refused = subprocess.run(command, env=plain_environment(), capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert port in refused.stderr
    assert "PORT=" in refused.stderr


@pytest.mark.skipif(
    os.geteuid() != 0, reason="becoming another user takes root; as an ordinary user every test here is this test"
)
def test_an_ordinary_user_can_run_it(tmp_path_factory):
    home = tmp_path_factory.mktemp("ordinary")
    for parent in (home, *home.parents[:2]):
        parent.chmod(0o755)
    mine = home / "mine"
    mine.mkdir()
    shutil.chown(mine, "nobody")
    # Reading is allowed everywhere, because the interpreter may live in root's home; writing is not.
    become = ["--reuid=nobody", "--regid=nogroup", "--clear-groups"]
    reading = [
        "--inh-caps=-all,+dac_read_search",
        "--ambient-caps=+dac_read_search",
        "--bounding-set=-all,+dac_read_search",
    ]
    command = [*MODULE, "run", "--data-dir", mine / "data", "--", "psql", "-XAt", "-c", "select current_user"]
    environ = plain_environment(
        BIGQUERY_SYNC_ENABLED="false", HOME=str(mine), PYTHONDONTWRITEBYTECODE="1", PYTHONPATH=str(PROJECT_ROOT)
    )
    done = subprocess.run(
        ["setpriv", *become, *reading, "--", *command],
        env=environ,
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "engarde\n"), done.stderr
