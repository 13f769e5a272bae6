"""The small language model: it answers in the shape it is asked for, and is missed by nobody where it is not."""

import json
import os
import shutil
import signal
import sys

import pytest
import requests

from engarde.embedded import __main__ as command_line
from engarde.embedded import session, supervisor
from engarde.embedded.llm import MODEL, install
from engarde.embedded.model import Model
from engarde.embedded.paths import DataDir
from engarde.embedded.remembered import Remembered
from engarde.embedded.services.llm import LLM
from engarde.embedded.supervisor import GIVEN_UP, Supervisor
from tests.embedded.conftest import eventually, processes_of, service_state

SCHEMA = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "minLength": 3, "maxLength": 80},
        "body": {"type": "string", "minLength": 40, "maxLength": 400},
        "hashtags": {"type": "array", "items": {"type": "string", "maxLength": 30}, "maxItems": 3},
    },
    "required": ["title", "body", "hashtags"],
    "additionalProperties": False,
}
MEBIBYTE = 1024 * 1024
installed = pytest.mark.skipif(not install.is_current(), reason="the local language model is not installed")


@pytest.fixture
def said():
    return []


@pytest.fixture
def model(place, said):
    return Model(DataDir.at(place), {}, said.append)


def settings_when_ready(place, model):
    settings = eventually(lambda: service_state(place, "llm"), seconds=20)["settings"]
    assert model.settings() == settings
    return settings


def ask(settings, **variables):
    request = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Write a short post about a weekend sale of ceramic mugs."}],
        "max_tokens": 400,
        **variables,
    }
    response = requests.post(f"{settings['LOCAL_LLM_BASE_URL']}/chat/completions", json=request, timeout=60)
    response.raise_for_status()
    return response.json()


@installed
@pytest.mark.soak
def test_it_answers_in_the_shape_that_was_asked_for_and_stops(place, model):
    with session.join(place, [], optional=model.services):
        settings = settings_when_ready(place, model)
        listed = requests.get(f"{settings['LOCAL_LLM_BASE_URL']}/models", timeout=10).json()
        assert [each["id"] for each in listed["data"]] == [MODEL]
        shape = {"type": "json_schema", "json_schema": {"name": "post", "strict": True, "schema": SCHEMA}}
        answer = ask(settings, response_format=shape)
        post = json.loads(answer["choices"][0]["message"]["content"])
        assert set(post) == {"title", "body", "hashtags"}
        assert len(post["body"]) >= 40
        assert answer["usage"]["completion_tokens"] > 0
        [process] = [each for each in processes_of(place / "llm") if each.pid == service_state(place, "llm")["pid"]]
        assert process.nice() > os.nice(0)
        assert process.memory_info().rss < 512 * MEBIBYTE
        assert MODEL in model.welcome()
    eventually(lambda: not processes_of(place), seconds=10)


@installed
def test_it_ends_at_once_though_it_is_answering(place, model):
    with session.join(place, [], optional=model.services):
        settings = settings_when_ready(place, model)
        with requests.post(
            f"{settings['LOCAL_LLM_BASE_URL']}/chat/completions",
            json={"messages": [{"role": "user", "content": "Count."}], "stream": True, "ignore_eos": True},
            stream=True,
            timeout=30,
        ) as answer:
            next(answer.iter_lines())
            pid = service_state(place, "llm")["pid"]
            os.kill(pid, signal.SIGTERM)
            again = eventually(lambda: (now := service_state(place, "llm")).get("pid") != pid and now, seconds=5)
    assert again["settings"] == settings
    assert "ended with exit code 0" in (place / "logs" / "daemon.log").read_text()


@installed
def test_its_folder_may_be_deleted(place, model):
    with session.join(place, [], optional=model.services):
        settings = settings_when_ready(place, model)
        pid = service_state(place, "llm")["pid"]
        shutil.rmtree(place / "llm")
        again = eventually(lambda: (now := service_state(place, "llm")).get("pid") != pid and now, seconds=5)
        assert again["settings"] == settings


@installed
def test_commands_beside_it_find_it_unless_they_want_none(place, model, run_user):
    show = [sys.executable, "-c", "import os; print(os.environ.get('LOCAL_LLM_BASE_URL'))"]
    with session.join(place, ["redis"], optional=model.services):
        settings = settings_when_ready(place, model)
        assert session.running_model(place, {}) == settings
        assert session.running_model(place, {"EMBEDDED_LLM": "off"}) == {}
        assert session.running_model(place, {"LOCAL_LLM_BASE_URL": "http://127.0.0.1:11434/v1"}) == {}
        assert run_user(*show).communicate(timeout=30)[0].strip() == settings["LOCAL_LLM_BASE_URL"]
    eventually(lambda: session.running_model(place, {}) == {})


def test_no_command_starts_it(run_user, place):
    show = [sys.executable, "-c", "import os; print(os.environ.get('LOCAL_LLM_BASE_URL'))"]
    assert run_user(*show).communicate(timeout=30)[0] == "None\n"
    assert not (place / "llm").exists()


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({}, ""),
        ({"EMBEDDED_LLM": "on"}, ""),
        ({"EMBEDDED_LLM": ""}, ""),
        ({"EMBEDDED_LLM": "off"}, "EMBEDDED_LLM=off"),
        ({"EMBEDDED_LLM": "False"}, "EMBEDDED_LLM=False"),
        ({"LOCAL_LLM_BASE_URL": "http://127.0.0.1:11434/v1"}, "LOCAL_LLM_BASE_URL"),
        ({"ENGARDE_ENV": "production"}, "production"),
    ],
)
def test_up_starts_it_unless_the_environment_says_otherwise(variables, reason, place, said, monkeypatch):
    monkeypatch.setattr(install, "is_current", lambda: True)
    model = Model(DataDir.at(place), variables, said.append)
    assert reason in session.why_no_model(variables)
    assert model.services == (frozenset() if reason else {"llm"})
    if reason:
        assert model.settings() == {}
        assert reason in model.welcome()
    assert "llm" not in session.needed(variables)


def test_without_an_installation_it_says_so(place, said, monkeypatch, tmp_path):
    monkeypatch.setattr(install, "HOME", tmp_path / "local-llm")
    model = Model(DataDir.at(place), {}, said.append)
    assert model.services == frozenset()
    assert model.settings() == {}
    assert "python -m engarde.embedded install" in model.welcome()


def test_it_is_given_up_in_words_when_it_cannot_run(place, said, monkeypatch):
    monkeypatch.setattr(install, "is_current", lambda: True)
    model = Model(DataDir.at(place), {}, said.append)
    monkeypatch.setattr(session, "service_state", lambda *_: {"phase": GIVEN_UP, "error": "llm ended", "settings": {}})
    assert model.settings() == {}
    model.watch()
    model.watch()
    assert said == ["llm ended\nGoing on without the local language model."]
    assert "does not start" in model.welcome()


def test_it_is_left_alone_after_it_failed_again_and_again(place, tmp_path, monkeypatch):
    monkeypatch.setattr(supervisor, "FIRST_DELAYS", (0.0,))
    monkeypatch.setattr(install, "is_current", lambda: True)
    monkeypatch.setattr(install, "HOME", tmp_path / "local-llm")
    data = DataDir.at(place)
    runner = Supervisor()
    runner.add(LLM(data, Remembered(data.remembered)).program())
    child = runner.children["llm"]

    def is_given_up() -> bool:
        runner.tick()
        return child.phase == GIVEN_UP

    eventually(is_given_up)
    assert child.deaths == supervisor.HOPELESS_DEATHS
    assert "No module named 'xllamacpp'" in child.error
    runner.stop(1)


@pytest.mark.parametrize("variables", [{"EMBEDDED_LLM": "off"}, {"LOCAL_LLM_BASE_URL": "http://127.0.0.1:11434/v1"}])
def test_it_is_not_installed_where_it_is_not_wanted(variables, monkeypatch, capsys):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(install, "install", lambda _say: pytest.fail("it was installed"))
    assert command_line.main(["install"]) == 0
    assert next(iter(variables)) in capsys.readouterr().out


def test_a_platform_without_a_wheel_says_so_in_a_line_and_goes_on(tmp_path, monkeypatch, capsys):
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(f"absent @ file://{tmp_path / 'absent-1.0-py3-none-any.whl'}\n")
    for name, value in {"EMBEDDED_LLM": "on", "LOCAL_LLM_BASE_URL": ""}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(install, "HOME", tmp_path / "local-llm")
    monkeypatch.setattr(install, "REQUIREMENTS", requirements)
    assert command_line.main(["install"]) == 0
    [_, line] = capsys.readouterr().out.splitlines()
    assert line.startswith("The local language model was not installed, and the platform runs without it: ERROR:")
    assert not install.is_current()
