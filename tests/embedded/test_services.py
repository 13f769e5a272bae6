"""The services start, keep their data, come back after every kind of death, and go when nobody needs them."""

import contextlib
import os
import re
import shutil
import signal
import stat
from functools import partial
from pathlib import Path
from typing import Any

import environ
import psycopg
import pytest
import redis
import requests

from engarde.embedded import daemon, files, session
from engarde.embedded.errors import StartFailed
from engarde.embedded.paths import DataDir
from engarde.embedded.remembered import Remembered
from engarde.embedded.services.postgres import Postgres
from tests.embedded.conftest import eventually, processes_of, service_state


def restarted(place: Path, name: str, killed: int) -> dict[str, Any]:
    """Return what the daemon says of a service that runs under another process id than before."""
    now = service_state(place, name)
    return now if now.get("pid") not in (None, killed) else {}


def dsn(settings):
    return settings["DATABASE_URL"]


def client(settings):
    return redis.Redis.from_url(settings["REDIS_URL"])


def test_it_starts_postgres_for_an_ordinary_role_and_stops_after_the_last_user(place):
    with session.join(place, ["postgres"]) as settings, psycopg.connect(dsn(settings)) as connection:
        role = connection.execute(
            "select rolsuper, rolbypassrls, rolcreatedb from pg_roles where rolname = current_user"
        ).fetchone()
        assert role == (False, False, True)
        assert connection.execute("select current_user, lower('ÄÖ')").fetchone() == ("engarde", "äö")
        assert connection.execute("show fsync").fetchone() == ("on",)
    eventually(lambda: not processes_of(place), seconds=10)


def test_it_gives_a_database_url_that_django_environ_reads(place):
    with session.join(place, ["postgres"]) as settings:
        config = environ.Env.db_url_config(settings["DATABASE_URL"])
        assert config["ENGINE"] == "django.db.backends.postgresql"
        with psycopg.connect(user=config["USER"], dbname=config["NAME"], **config["OPTIONS"]) as connection:
            assert connection.execute("select 1").fetchone() == (1,)


def test_it_keeps_data_and_addresses_over_a_restart(place):
    with session.join(place, ["postgres", "redis"]) as first:
        with psycopg.connect(dsn(first)) as connection:
            connection.execute("create table kept (n int)")
        client(first).set("kept", "yes")
    eventually(lambda: not daemon.is_running(DataDir.at(place)))
    with session.join(place, ["postgres", "redis"]) as second:
        assert second == first
        with psycopg.connect(dsn(second)) as connection:
            assert connection.execute("select count(*) from kept").fetchone() == (0,)
        assert client(second).get("kept") == b"yes"


def test_it_keeps_secrets_from_other_users(place):
    with session.join(place, ["redis"]) as settings:
        for name in ("remembered.json", "services.json", "valkey.conf"):
            assert stat.S_IMODE((place / "run" / name).stat().st_mode) == 0o600
        with pytest.raises(redis.AuthenticationError):
            redis.Redis.from_url(settings["REDIS_URL"].replace("://:", "://:not-")).ping()


@pytest.mark.soak
def test_it_runs_two_data_directories_at_once(place, tmp_path):
    with (
        session.join(place, ["postgres", "redis"]) as one,
        session.join(tmp_path / "other", ["postgres", "redis"]) as two,
    ):
        assert one["DATABASE_URL"] != two["DATABASE_URL"]
        assert one["REDIS_URL"] != two["REDIS_URL"]
        client(one).set("mine", "1")
        assert client(two).get("mine") is None
    eventually(lambda: not processes_of(tmp_path), seconds=10)


def test_it_adds_a_service_that_a_later_user_needs(place):
    with session.join(place, ["redis"]):
        pid = service_state(place, "redis")["pid"]
        with session.join(place, ["redis", "postgres"]) as both:
            assert {"DATABASE_URL", "REDIS_URL"} <= set(both)
            assert service_state(place, "redis")["pid"] == pid


@pytest.mark.parametrize("service", ["postgres", "redis", "zerodb"])
def test_it_brings_a_killed_service_back_at_the_same_address_within_five_seconds(place, service):
    with session.join(place, [service]) as settings:
        pid = service_state(place, service)["pid"]
        os.kill(pid, signal.SIGKILL)
        again = eventually(lambda: (now := service_state(place, service)).get("pid") != pid and now, seconds=5)
        assert again["settings"] == settings
        assert again["restarts"] == 1


def test_it_loses_nothing_that_was_committed_when_services_are_killed(place):
    with session.join(place, ["postgres", "redis"]) as settings:
        with psycopg.connect(dsn(settings), autocommit=True) as connection:
            connection.execute("create table kept (n int)")
            client(settings).set("kept", "yes")
            pids = {name: service_state(place, name)["pid"] for name in ("postgres", "redis")}
            for pid in pids.values():
                os.kill(pid, signal.SIGKILL)
        for name, pid in pids.items():
            eventually(partial(restarted, place, name, pid), seconds=5)
        with psycopg.connect(dsn(settings)) as connection:
            assert connection.execute("select count(*) from kept").fetchone() == (0,)
        assert client(settings).get("kept") == b"yes"


def test_it_gives_a_user_the_services_back_after_their_supervisor_is_killed(place):
    with session.join(place, ["postgres", "redis"]) as settings:
        client(settings).set("kept", "yes")
        killed = session.running_state(DataDir.at(place))["pid"]
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: session.running_state(DataDir.at(place)).get("pid") not in (None, killed), seconds=5)
        eventually(lambda: service_state(place, "redis") and service_state(place, "postgres"), seconds=5)
        assert client(settings).get("kept") == b"yes"
        psycopg.connect(dsn(settings)).close()


def test_it_starts_again_after_supervisor_and_services_were_killed_together(place):
    with session.join(place, ["postgres", "redis"]) as settings:
        client(settings).set("kept", "yes")
        state = session.running_state(DataDir.at(place))
        for pid in (state["pid"], *(service["pid"] for service in state["services"].values())):
            os.kill(pid, signal.SIGKILL)
    # A killed process takes a moment to die: whoever joins in that moment finds the old services, and then the new ones.
    with session.join(place, ["postgres", "redis"]) as again:
        assert again == settings
        assert eventually(partial(kept_in, again)) == b"yes"


def kept_in(settings: Any) -> Any:
    """Return what a test put into Valkey, once that answers."""
    with contextlib.suppress(redis.exceptions.ConnectionError):
        return client(settings).get("kept")


@pytest.mark.soak
def test_it_ends_a_service_that_outlived_its_supervisor(place):
    # A stopped process does not die of the signal it gets when its parent goes, so it is still there at the next start.
    with session.join(place, ["redis"]) as settings:
        client(settings).set("kept", "yes")
        state = session.running_state(DataDir.at(place))
        stray = state["services"]["redis"]["pid"]
        os.kill(stray, signal.SIGSTOP)
        os.kill(state["pid"], signal.SIGKILL)
        again = eventually(partial(restarted, place, "redis", stray), 20)
        assert again["settings"] == settings
        assert client(settings).get("kept") == b"yes"


@pytest.mark.soak
@pytest.mark.parametrize("service", ["postgres", "redis", "zerodb", "bigquery"])
def test_it_starts_anew_after_a_folder_was_deleted_between_runs(place, service):
    with session.join(place, [service]) as first:
        pass
    eventually(lambda: not daemon.is_running(DataDir.at(place)))
    shutil.rmtree(place / service)
    with session.join(place, [service]) as second:
        assert second == first


@pytest.mark.parametrize(
    "service", ["postgres", "redis", *[pytest.param(one, marks=pytest.mark.soak) for one in ("zerodb", "bigquery")]]
)
def test_it_starts_anew_at_the_same_address_when_a_folder_is_deleted_under_it(place, service):
    with session.join(place, [service]) as settings:
        pid = service_state(place, service)["pid"]
        shutil.rmtree(place / service, ignore_errors=True)
        again = eventually(partial(restarted, place, service, pid), 8)
        assert again["settings"] == settings


@pytest.mark.soak
def test_it_starts_over_a_broken_log_of_valkey(place):
    with session.join(place, ["redis"]) as settings:
        client(settings).set("some", "thing")
    eventually(lambda: not daemon.is_running(DataDir.at(place)))
    for log in (place / "redis" / "appendonlydir").glob("*.incr.aof"):
        log.write_bytes(b"*3\r\n$3\r\nnonsense" * 100)
    with session.join(place, ["redis"], timeout=30) as settings:
        assert client(settings).ping()


def test_it_sets_a_folder_without_a_cluster_aside(place):
    (place / "postgres").mkdir(parents=True)
    (place / "postgres" / "something").write_text("of mine")
    with session.join(place, ["postgres"]):
        aside = list(place.glob("postgres.broken-*"))
    assert [path.read_text() for folder in aside for path in folder.iterdir()] == ["of mine"]


def test_it_is_not_stopped_by_a_stale_postmaster_pid(place):
    with session.join(place, ["postgres"]):
        pass
    eventually(lambda: not daemon.is_running(DataDir.at(place)))
    stale = f"{os.getpid()}\n{place}/postgres\n1\n5432\n/tmp\n\n\nready\n"
    (place / "postgres" / "postmaster.pid").write_text(stale)
    with session.join(place, ["postgres"]):
        pass


def test_it_refuses_a_socket_folder_that_is_not_its_own(place, tmp_path):
    data = DataDir.at(place)
    folder = Postgres(data, Remembered(data.remembered)).socket_folder
    folder.symlink_to(tmp_path)
    try:
        with pytest.raises(StartFailed, match=re.escape(str(folder))), session.join(place, ["postgres"]):
            pass
    finally:
        folder.unlink()


def test_it_says_what_to_do_when_an_emulator_is_missing(place, monkeypatch, tmp_path):
    from engarde.embedded.bigquery import install
    from engarde.embedded.services.bigquery import BigQuery

    monkeypatch.setattr(install, "HOME", tmp_path / "nowhere")
    data = DataDir.at(place)
    with pytest.raises(StartFailed, match="embedded install"):
        BigQuery(data, Remembered(data.remembered)).prepare()


def test_it_serves_zerodb(place):
    with session.join(place, ["zerodb"]) as settings:
        assert requests.get(f"{settings['ZERODB_BASE_URL']}/health", timeout=5).status_code == 200


def test_it_uses_a_folder_that_only_its_owner_may_enter(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with session.join(closed / "data", ["postgres"]) as settings:
        psycopg.connect(dsn(settings)).close()
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    eventually(lambda: not processes_of(closed))


def test_it_survives_the_loss_of_the_whole_data_directory(place: Path):
    with session.join(place, ["redis"]):
        killed = session.running_state(DataDir.at(place))["pid"]
        shutil.rmtree(place, ignore_errors=True)
        eventually(lambda: session.running_state(DataDir.at(place)).get("pid") not in (None, killed), seconds=15)
        eventually(lambda: service_state(place, "redis"), seconds=5)


def test_it_never_gives_two_services_one_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ports = iter([20_001, 20_001, 20_002])
    monkeypatch.setattr("engarde.embedded.remembered.free_port", lambda: next(ports))
    remembered = Remembered(tmp_path / "remembered.json")
    assert remembered.port("one") != remembered.port("other")


@pytest.mark.soak
def test_it_moves_a_service_that_cannot_start_where_it_should(place: Path) -> None:
    data = DataDir.at(place)
    taken = Remembered(data.remembered).port("bigquery")
    files.write_json(data.remembered, {"bigquery": taken, "bigquery_grpc": taken})
    with session.join(place, ["bigquery"]) as settings:
        assert settings["BIGQUERY_EMULATOR_GRPC_HOST"] not in settings["BIGQUERY_EMULATOR_HOST"]
