"""What can be told of the deployment's files by reading them; `docker compose config` and a build are for machines with Docker."""

import json
import re
import tomllib
from itertools import chain

import pytest
from django.conf import settings

from engarde import variables
from engarde.embedded.paths import PROJECT_ROOT
from tests.deployment.house import VARIABLE, compose, filled, procfile

APP = {"web", "websocket", "worker-default", "worker-documents", "worker-generation", "worker-dr", "worker-maintenance"}
DOCKERFILE = (PROJECT_ROOT / "Dockerfile").read_text()


def queues(command: str) -> list[str]:
    found = re.search(r"-Q (\S+)", command)
    return found[1].split(",") if found else []


def routed() -> set[str]:
    routes = settings.CELERY_TASK_ROUTES.values()
    return {settings.CELERY_TASK_DEFAULT_QUEUE, *(route["queue"] for route in routes)}


def test_compose_names_every_process() -> None:
    assert set(compose()["services"]) == APP | {"beat", "migrate", "postgres", "redis", "zerodb", "bigquery"}


@pytest.mark.parametrize(
    "commands",
    [[each["command"] for each in compose()["services"].values() if "command" in each], [*procfile().values()]],
)
def test_every_queue_has_a_worker_and_no_worker_two_names(commands: list[str]) -> None:
    listened = list(chain.from_iterable(queues(command) for command in commands))
    names = re.findall(r" -n (\S+)", " ".join(commands))

    assert sorted(listened) == sorted(routed())
    assert len(names) == len(set(names))


def test_the_platforms_services_wait_for_the_migrations_and_are_held_tight() -> None:
    for name in (*APP, "beat"):
        service = compose()["services"][name]
        assert service["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
        assert (service["read_only"], service["cap_drop"], service["init"]) == (True, ["ALL"], True)
        assert service["stop_grace_period"] == "30s"
        assert service["environment"]["ENGARDE_ENV"] == "production"
    assert compose()["services"]["migrate"]["restart"] == "no"
    assert set(compose()["services"]["migrate"]["depends_on"]) == {"postgres", "redis"}


def test_only_emulators_have_a_profile_and_volumes_are_declared() -> None:
    found = compose()
    assert {name for name, each in found["services"].items() if "profiles" in each} == {"zerodb", "bigquery"}
    used = {volume.split(":")[0] for each in found["services"].values() for volume in each.get("volumes", [])}
    assert {name for name in used if not name.startswith(".")} == set(found["volumes"])
    assert all((PROJECT_ROOT / name).exists() for name in used if name.startswith("."))


def test_workers_are_asked_under_the_name_that_they_have() -> None:
    for name in APP - {"web", "websocket"}:
        service = compose()["services"][name]
        assert f"-n {service['environment']['WORKER_NAME']}@%h " in service["command"]


def test_ports_are_open_to_this_machine_alone() -> None:
    ports = [port for each in compose()["services"].values() for port in each.get("ports", [])]
    assert [filled(port, {}) for port in ports] == ["127.0.0.1:8000:8000", "127.0.0.1:8001:8000"]


def test_variables_of_compose_are_listed() -> None:
    text = (PROJECT_ROOT / "docker-compose.yml").read_text()
    named = {match[1] for match in VARIABLE.finditer(text)}
    assert named <= set(re.findall(r"^#?([A-Z_0-9]+)=", (PROJECT_ROOT / ".env.example").read_text(), re.MULTILINE))


def test_railway_runs_what_the_procfile_runs() -> None:
    deploy = json.loads((PROJECT_ROOT / "railway.json").read_text())["deploy"]
    assert procfile()["web"] in deploy["startCommand"]
    assert deploy["preDeployCommand"] == [procfile()["release"]]
    assert deploy["healthcheckPath"] == "/health/live"


def test_the_image_runs_as_nobody_in_particular_and_holds_no_secret() -> None:
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]
    app = stages[-1]

    assert [stage.split()[0] for stage in stages if " AS base" in stage] == ["python:3.11-slim-bookworm"]
    assert re.findall(r"^USER (\S+)", app, re.MULTILINE) == ["10001:10001"]
    assert "HEALTHCHECK" in app
    assert "collectstatic" in app
    assert "ENGARDE_ENV=production" in app
    assert "-c requirements-lock.txt" in (PROJECT_ROOT / "requirements.txt").read_text()
    assert not re.search(r"^(ENV|ARG) .*(SECRET|PASSWORD|KEY|TOKEN)", DOCKERFILE, re.MULTILINE)


def test_the_image_takes_in_all_code_and_nothing_else() -> None:
    packages = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["root_packages"]
    ignored = (PROJECT_ROOT / ".dockerignore").read_text().splitlines()
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    taken = set(" ".join(copied).split())

    assert set(packages) <= taken
    assert "*" in ignored
    let_in = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert all(name.split("/")[0] in let_in for name in taken)
    assert all((PROJECT_ROOT / name).exists() for name in taken)


def test_the_guide_and_the_example_name_what_the_code_reads() -> None:
    assert variables.main(["--check"]) == 0
