"""Which services a command gets, and when nothing is started at all."""

import os

import environ
import pytest

from engarde.embedded import session

EVERYTHING = {"postgres", "redis", "zerodb", "bigquery"}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, EVERYTHING),
        ({"DATABASE_URL": "postgres://db/engarde"}, EVERYTHING - {"postgres"}),
        ({"REDIS_URL_FILE": "/run/secrets/redis"}, EVERYTHING - {"redis"}),
        ({"ZERODB_API_KEY": "k"}, EVERYTHING - {"zerodb"}),
        ({"BIGQUERY_PROJECT_ID": "p"}, EVERYTHING - {"bigquery"}),
        ({"BIGQUERY_SYNC_ENABLED": "False"}, EVERYTHING - {"bigquery"}),
        ({"BIGQUERY_SYNC_ENABLED": "true"}, EVERYTHING),
        ({"DATABASE_URL": ""}, EVERYTHING),
        ({"ENGARDE_ENV": "production"}, set()),
    ],
)
def test_it_embeds_what_the_environment_does_not_name(variables, expected):
    assert session.needed(variables) == expected


@pytest.mark.parametrize(
    "arguments",
    [[], ["help"], ["migrate", "--help"], ["create_tenant", "-h"], ["--version"], ["check"], ["makemigrations"]],
)
def test_it_starts_nothing_for_help_and_for_commands_without_services(arguments, tmp_path, monkeypatch):
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.delenv("REDIS_URL", raising=False)
    with session.for_command(["manage.py", *arguments], {"DATA_DIR": str(tmp_path / "data")}):
        assert environ.Env.db_url_config(os.environ["DATABASE_URL"])["NAME"] == "engarde"
        assert os.environ["REDIS_URL"].startswith("redis://")
    assert not (tmp_path / "data").exists()
    assert "DATABASE_URL" not in os.environ


def test_it_does_nothing_where_the_parent_has_joined(tmp_path):
    before = dict(os.environ)
    with session.for_command(
        ["manage.py", "migrate"], {"ENGARDE_EMBEDDED": "joined", "DATA_DIR": str(tmp_path / "data")}
    ):
        assert dict(os.environ) == before
    assert not (tmp_path / "data").exists()


def test_it_gives_a_command_the_services_and_takes_them_back(place, monkeypatch):
    variables = {
        "DATA_DIR": str(place),
        "DATABASE_URL": "postgres://db/x",
        "ZERODB_API_KEY": "k",
        "BIGQUERY_PROJECT_ID": "p",
    }
    for name in ("REDIS_URL", session.JOINED):
        monkeypatch.delenv(name, raising=False)
    with session.for_command(["manage.py", "create_tenant"], variables):
        assert os.environ["REDIS_URL"].startswith("redis://:")
        assert os.environ["ENGARDE_EMBEDDED"] == "joined"
    assert "REDIS_URL" not in os.environ
    assert "ENGARDE_EMBEDDED" not in os.environ
