"""What can be told of the deployment's files by reading them; `docker compose config` and a build are for machines with Docker."""

import json
import re
import shutil
import subprocess
import tomllib
from itertools import chain
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from django.conf import settings

from engarde import variables
from engarde.embedded.paths import PROJECT_ROOT
from tests.deployment.house import VARIABLE, compose, filled, procfile

APP = {"web", "websocket", "worker-default", "worker-documents", "worker-generation", "worker-dr", "worker-maintenance"}
DOCKERFILE = (PROJECT_ROOT / "Dockerfile").read_text()
READS = re.compile(r"""os\.(?:environ(?:\.get\(|\.setdefault\(|\.pop\(|\[)|getenv\()\s*["'](\w+)["']""")
NOT_FOR_OPERATORS = {"DJANGO_SETTINGS_MODULE"}


def queues(command: str) -> list[str]:
    found = re.search(r"-Q (\S+)", command)
    return found[1].split(",") if found else []


def routed() -> set[str]:
    routes = settings.CELERY_TASK_ROUTES.values()
    return {settings.CELERY_TASK_DEFAULT_QUEUE, *(route["queue"] for route in routes)}


@pytest.mark.soak
@pytest.mark.skipif(not shutil.which("npm"), reason="npm, which brings the schema, is not on this machine")
def test_compose_is_what_the_compose_specification_allows(tmp_path: Path) -> None:
    """By the specification's own JSON schema, which comes with a linter that is kept up to date with it."""
    install = [
        "npm",
        "install",
        "--no-audit",
        "--no-fund",
        "--loglevel=error",
        "--prefix",
        str(tmp_path),
        "dclint@3.1.0",
    ]
    subprocess.run(install, check=True, capture_output=True)
    schema = json.loads((tmp_path / "node_modules/dclint/schemas/compose.schema.json").read_text())

    assert list(jsonschema.Draft7Validator(schema).iter_errors({"services": {"web": {"comand": "x"}}}))
    assert list(jsonschema.Draft7Validator(schema).iter_errors(compose())) == []


def test_compose_names_every_process() -> None:
    assert set(compose()["services"]) == APP | {
        *("beat", "migrate", "postgres", "redis", "zerodb", "bigquery", "prometheus")
    }


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


def test_each_image_of_ours_is_built_by_one_service() -> None:
    services = compose()["services"].values()
    used = {each["image"] for each in services if each["image"].startswith("engarde-")}
    assert sorted(each["image"] for each in services if "build" in each) == sorted(used)
    assert all(f"ARG {name}=" in DOCKERFILE for name in compose()["services"]["migrate"]["build"]["args"])


def test_no_service_fills_the_machines_disk_or_memory() -> None:
    for name, each in compose()["services"].items():
        assert each["logging"] == {"driver": "json-file", "options": {"max-size": "20m", "max-file": "5"}}, name
    folders = compose()["services"]["web"]["tmpfs"]
    assert [folder for folder in folders if folder.startswith("/tmp")] == ["/tmp:size=512m"]
    maintenance = compose()["services"]["worker-maintenance"]
    assert (maintenance["environment"]["TMPDIR"], maintenance["volumes"]) == ("/data/tmp", ["data:/data"])


def test_prometheus_asks_every_process_that_tells_figures() -> None:
    services = compose()["services"]
    described = yaml.safe_load((PROJECT_ROOT / "deploy/prometheus/prometheus.yml").read_text())
    asked = [
        target
        for job in described["scrape_configs"]
        for addresses in job["static_configs"]
        for target in addresses["targets"]
    ]
    tell = {name: each["environment"].get("WORKER_METRICS_PORT") for name, each in services.items() if name in APP}

    assert sorted(asked) == sorted(f"{name}:{port or 8000}" for name, port in tell.items())
    assert all(job["job_name"].startswith("engarde-") for job in described["scrape_configs"])
    secret = {job["authorization"]["credentials_file"] for job in described["scrape_configs"]}
    assert secret == {f"/run/secrets/{name}" for name in services["prometheus"]["secrets"]}
    assert compose()["secrets"] == {
        name: {"environment": "METRICS_TOKEN"} for name in services["prometheus"]["secrets"]
    }
    assert "read_only" not in services["prometheus"]  # Compose refuses to write a secret into it
    assert "./deploy/prometheus:/etc/prometheus:ro" in services["prometheus"]["volumes"]
    assert all((PROJECT_ROOT / "deploy/prometheus" / name).exists() for name in described["rule_files"])


def test_profiles_are_for_what_is_extra_and_volumes_are_declared() -> None:
    found = compose()
    profiles = {name: each["profiles"] for name, each in found["services"].items() if "profiles" in each}
    assert profiles == {"zerodb": ["emulators"], "bigquery": ["emulators"], "prometheus": ["monitoring"]}
    used = {volume.split(":")[0] for each in found["services"].values() for volume in each.get("volumes", [])}
    assert {name for name in used if not name.startswith(".")} == set(found["volumes"])
    assert all((PROJECT_ROOT / name).exists() for name in used if name.startswith("."))


def test_workers_are_asked_under_the_name_that_they_have() -> None:
    for name in APP - {"web", "websocket"}:
        service = compose()["services"][name]
        assert f"-n {service['environment']['WORKER_NAME']}@%h " in service["command"]


def test_ports_are_open_to_this_machine_alone() -> None:
    ports = [port for each in compose()["services"].values() for port in each.get("ports", [])]
    assert [filled(port, {}) for port in ports] == [
        "127.0.0.1:8000:8000",
        "127.0.0.1:8001:8000",
        "127.0.0.1:9090:9090",
    ]


def test_variables_of_compose_are_listed() -> None:
    text = (PROJECT_ROOT / "docker-compose.yml").read_text()
    named = {match[1] for match in VARIABLE.finditer(text)}
    assert named <= set(re.findall(r"^#?([A-Z_0-9]+)=", (PROJECT_ROOT / ".env.example").read_text(), re.MULTILINE))


def railway(name: str) -> dict[str, Any]:
    described = json.loads((PROJECT_ROOT / name).read_text())
    assert described["build"] == {"builder": "DOCKERFILE", "dockerfilePath": "Dockerfile"}
    return dict(described["deploy"])


def test_railway_runs_what_the_procfile_runs() -> None:
    commands = procfile()
    web = railway("railway.json")
    assert web["preDeployCommand"] == [commands.pop("release")]
    assert web["startCommand"] == f"sh -c 'exec {commands.pop('web')}'"
    assert web["healthcheckPath"] == "/health/ready"

    files = {file.stem for file in (PROJECT_ROOT / "deploy/railway").iterdir()}
    assert files == set(commands)
    for name, command in commands.items():
        deploy = railway(f"deploy/railway/{name}.json")
        assert deploy["startCommand"] == f"sh -c 'exec {command}'"
        assert not deploy.keys() & {"healthcheckPath", "preDeployCommand"}
        assert deploy["drainingSeconds"] >= web["drainingSeconds"] == 30
    assert railway("deploy/railway/beat.json")["overlapSeconds"] == 0  # one, never more


def test_the_image_serves_as_the_procfile_does() -> None:
    [command] = re.findall(r"^CMD (.+)$", DOCKERFILE.split(" AS app")[1], re.MULTILINE)
    assert json.loads(command) == ["sh", "-c", f"exec {procfile()['web']}"]


def test_every_service_serves_with_the_options_of_the_procfile() -> None:
    for name in ("web", "websocket"):
        command = compose()["services"][name]["command"]
        assert filled(command, {"WEBSOCKET_WORKERS": "2"}) == filled(procfile()["web"], {})


def test_railway_can_build_the_image() -> None:
    assert not re.search(r"^\s*VOLUME", DOCKERFILE, re.MULTILINE)


def test_the_image_runs_as_nobody_in_particular_and_holds_no_secret() -> None:
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]
    app = stages[-1]

    assert [stage.split()[0] for stage in stages if " AS base" in stage] == ["${PYTHON_IMAGE}"]
    assert re.search(r"^ARG PYTHON_IMAGE=python:3\.11\.\d+-slim-bookworm$", DOCKERFILE, re.MULTILINE)
    assert re.findall(r"^USER (\S+)", app, re.MULTILINE) == ["10001:10001"]
    assert "HEALTHCHECK" in app
    assert "collectstatic" in app
    assert "ENGARDE_ENV=production" in app
    for name in ("requirements.txt", "requirements-observability.txt"):
        assert "-c requirements-lock.txt" in (PROJECT_ROOT / name).read_text()
    assert not re.search(r"^(ENV|ARG) .*(SECRET|PASSWORD|KEY|TOKEN)", DOCKERFILE, re.MULTILINE)


def test_the_image_is_compiled_and_adds_up_what_its_processes_count() -> None:
    app = DOCKERFILE.split(" AS app")[1]
    compiled = " ".join(re.findall(r"compileall -q --invalidation-mode unchecked-hash (\S+)", DOCKERFILE))
    assert compiled.split()[1:] == ["/venv/lib", "/app"]
    assert "/run/metrics" in DOCKERFILE.split("install -d -o engarde -g engarde -m 0700")[1].splitlines()[0]
    after_what_root_runs = app.rpartition("\nRUN ")[2]
    assert "ENV PROMETHEUS_MULTIPROC_DIR=/run/metrics" in after_what_root_runs
    assert compose()["services"]["web"]["environment"]["PROMETHEUS_MULTIPROC_DIR"] == "/run/metrics"


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


def test_the_table_has_every_variable_that_the_code_and_the_commands_read() -> None:
    listed = variables.read_by_the_code().keys()
    read = {name for text in sources() for name in READS.findall(text)}
    read |= {match[1] for command in procfile().values() for match in VARIABLE.finditer(command)}
    assert {"PROMETHEUS_MULTIPROC_DIR", "PORT", "WEB_WORKERS"} <= read
    assert read - NOT_FOR_OPERATORS <= listed


def test_what_the_table_has_by_hand_is_read_somewhere() -> None:
    embedded = [file.read_text() for file in (PROJECT_ROOT / "engarde/embedded").rglob("*.py")]
    text = "\n".join([*sources(), *embedded, *procfile().values()])
    for each in variables.ELSEWHERE:
        assert re.search(rf"""["'{{]{each.name}["':]""", text), each.name
    described = (PROJECT_ROOT / "docker-compose.yml").read_text()
    assert {each.name for each in variables.COMPOSE} <= {match[1] for match in VARIABLE.finditer(described)}


def sources() -> list[str]:
    """Return the code that runs in production; drills tell their children what to do by variables of their own."""
    elsewhere = [PROJECT_ROOT / name for name in ("engarde/embedded", "engarde/variables.py", "dr/scenarios")]
    packages = ("engarde", "quotas", "content", "generation", "dr")
    files = chain([PROJECT_ROOT / "manage.py"], *((PROJECT_ROOT / name).rglob("*.py") for name in packages))
    return [file.read_text() for file in files if not any(file.is_relative_to(folder) for folder in elsewhere)]
