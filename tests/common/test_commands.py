"""Commands that people and programs can use alike."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from engarde.common.commands import JSONCommand, write_report
from engarde.common.problems import Invalid, Problem


class Refused(Problem):
    """A room's own error."""


class Command(JSONCommand):
    """Answers with what it was made with."""

    def __init__(self, outcome: Any, *, ok: bool = True) -> None:
        super().__init__()
        self.outcome = outcome
        self.ok = ok

    def run(self, **options: Any) -> dict[str, Any]:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return dict(self.outcome)

    def succeeded(self, report: dict[str, Any]) -> bool:
        return self.ok


def printed(command: Command, *args: str) -> str:
    out = StringIO()
    call_command(command, *args, stdout=out)
    return out.getvalue()


def test_it_prints_one_json_object_for_programs(tmp_path: Path) -> None:
    text = printed(Command({"total": 5, "where": tmp_path, "nested": {"a": None}}), "--json")

    assert json.loads(text) == {"total": 5, "where": str(tmp_path), "nested": {"a": None}}
    assert text.count("\n") == 1


def test_it_prints_a_line_a_value_for_people() -> None:
    lines = printed(Command({"total": 5, "failed": 0})).splitlines()

    assert [line.split() for line in lines] == [["total", "5"], ["failed", "0"]]


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_it_prints_the_report_and_exits_with_1_when_the_report_says_so(arguments: list[str]) -> None:
    out = StringIO()

    with pytest.raises(SystemExit) as caught:
        call_command(Command({"failed": 1}, ok=False), *arguments, stdout=out)

    assert caught.value.code == 1
    assert "failed" in out.getvalue()


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (Refused("There is no room."), "There is no room."),
        (Invalid("tier", "There is no such plan."), "tier: There is no such plan."),
    ],
)
def test_it_ends_with_the_words_of_a_problem_and_nothing_on_stdout(problem: Problem, words: str) -> None:
    out = StringIO()

    with pytest.raises(CommandError, match=words) as caught:
        call_command(Command(problem), "--json", stdout=out)

    assert caught.value.returncode == 1
    assert out.getvalue() == ""


def test_it_lets_a_bug_show_itself() -> None:
    with pytest.raises(KeyError):
        printed(Command(KeyError("a bug")))


def test_it_writes_a_report_to_a_file(tmp_path: Path) -> None:
    write_report({"total": 5}, tmp_path / "report.json")
    write_report({"total": 5}, None)

    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8")) == {"total": 5}
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_it_says_why_a_report_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"nowhere/report\.json: No such file"):
        write_report({}, tmp_path / "nowhere" / "report.json")
