"""Diffs: fields with both values, and a body diff that `patch` applies."""

import subprocess
import time
from pathlib import Path
from random import Random
from shutil import which
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from content import diffs
from tests.content.answers import bad_fields, ok, refused
from tests.people import Person

UNENDED = "\\ No newline at end of file\n"


def test_it_tells_the_fields_that_differ_with_both_values(alice: Person) -> None:
    url = f"/api/content/{alice.writes(title='One', body='a', tags=['x'], metadata={'n': 1})['id']}"
    alice.api.patch(url, {"title": "Two", "tags": ["y", "x"], "metadata": {"n": [2]}, "type": "ad"})

    assert ok(alice.api.get(f"{url}/versions/2/diff")) == {
        "from": 1,
        "to": 2,
        "changes": [
            {"field": "metadata", "before": {"n": 1}, "after": {"n": [2]}},
            {"field": "tags", "before": ["x"], "after": ["y", "x"]},
            {"field": "title", "before": "One", "after": "Two"},
            {"field": "type", "before": "post", "after": "ad"},
        ],
        "body_diff": "",
    }


def test_it_shows_a_changed_body_as_a_unified_diff(alice: Person) -> None:
    item_id = alice.writes(body="one\ntwo\nthree\n")["id"]
    url = f"/api/content/{item_id}"
    alice.api.patch(url, {"body": "one\n2\nthree\nfour"})

    diff = ok(alice.api.get(f"{url}/versions/2/diff"))

    assert diff["changes"] == []
    assert diff["body_diff"] == (
        "--- version 1\n+++ version 2\n@@ -1,3 +1,4 @@\n one\n-two\n+2\n three\n+four\n" + UNENDED
    )


def test_it_compares_any_two_versions_either_way(alice: Person) -> None:
    url = f"/api/content/{alice.writes(title='v1')['id']}"
    for number in (2, 3, 4):
        alice.api.patch(url, {"title": f"v{number}"})

    for start, end in ((1, 4), (4, 1), (2, 3), (3, 3)):
        diff = ok(alice.api.get(f"{url}/versions/{end}/diff?against={start}"))
        title = {"field": "title", "before": f"v{start}", "after": f"v{end}"}
        assert (diff["from"], diff["to"], diff["changes"]) == (start, end, [title] if start != end else [])
    assert ok(alice.api.get(f"{url}/versions/4/diff")) == ok(alice.api.get(f"{url}/versions/4/diff?against=3"))


def test_nothing_differs_between_an_item_and_itself_in_and_out_of_the_trash(alice: Person) -> None:
    url = f"/api/content/{alice.writes()['id']}"
    alice.api.delete(url)
    alice.api.post(f"{url}/restore")

    for number in (2, 3):
        diff = ok(alice.api.get(f"{url}/versions/{number}/diff"))
        assert (diff["changes"], diff["body_diff"]) == ([], "")


@pytest.mark.parametrize("query", ["against=3", "against=2147483647"])
def test_there_is_no_diff_against_a_version_that_is_not_there(alice: Person, query: str) -> None:
    url = f"/api/content/{alice.writes()['id']}"
    alice.api.patch(url, {"title": "Other"})

    refused(alice.api.get(f"{url}/versions/2/diff?{query}"), 404, "not_found")


def test_the_first_version_has_none_before_it(alice: Person) -> None:
    refused(alice.api.get(f"/api/content/{alice.writes()['id']}/versions/1/diff"), 404, "not_found")


@pytest.mark.parametrize("value", ["0", "-1", "", "x", "1.5", "2147483648", "1&against=1"])
def test_a_bad_against_is_refused(alice: Person, value: str) -> None:
    url = f"/api/content/{alice.writes()['id']}/versions/1/diff"

    assert bad_fields(alice.api.get(f"{url}?against={value}")) == {"against"}
    assert bad_fields(alice.api.get(f"{url}?against=1&other=1")) == {"other"}


# Limits


def test_there_is_no_body_diff_above_ten_thousand_lines(alice: Person) -> None:
    item_id = alice.writes(body="a\n" * 10_000, title="One")["id"]
    url = f"/api/content/{item_id}"
    alice.api.patch(url, {"body": "a\n" * 9_999 + "b"})
    alice.api.patch(url, {"body": "a\n" * 10_000 + "b", "title": "Two"})

    assert ok(alice.api.get(f"{url}/versions/2/diff"))["body_diff"].endswith(f"-a\n+b\n{UNENDED}")
    for query in ("", "?against=1"):
        diff = ok(alice.api.get(f"{url}/versions/3/diff{query}"))
        assert diff["body_diff"] is None
        assert [change["field"] for change in diff["changes"]] == ["title"]


def test_there_is_no_body_diff_above_a_mebibyte() -> None:
    full, over = "ä" * (1024**2 // 2), "ä" * (1024**2 // 2) + "x"

    assert diffs.body_diff("", full, ("a", "b")) is not None
    assert diffs.body_diff("", over, ("a", "b")) is None
    assert diffs.body_diff(over, "", ("a", "b")) is None
    assert diffs.body_diff(over, over, ("a", "b")) is None


HOSTILE: dict[str, tuple[list[Any], list[Any]]] = {
    "all different": ([f"a {n}" for n in range(10_000)], [f"b {n}" for n in range(10_000)]),
    "in reverse": ([str(n) for n in range(10_000)], [str(n) for n in reversed(range(10_000))]),
    "two lines in turn": (["x", "y"] * 5000, ["y", "x", "x"] * 3333),
    "shuffled": (Random(1).sample(range(10_000), 10_000), Random(2).sample(range(10_000), 10_000)),
    "few lines often": (Random(3).choices("abcdef", k=10_000), Random(4).choices("abcdef", k=10_000)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bodies_cost_less_than_a_second(name: str) -> None:
    before, after = ("\n".join(str(line) for line in lines) for lines in HOSTILE[name])

    started = time.process_time()
    diff = diffs.body_diff(before, after, ("a", "b"))
    seconds = time.process_time() - started

    assert diff is not None
    assert applied(before, diff) == after
    assert seconds < 1


# It applies


def applied(before: str, diff: str) -> str:
    """Apply a unified diff as strictly as can be: every line of it has to be just right."""
    old, new, at = before.split("\n"), list[str](), 0
    old = [f"{line}\n" for line in old[:-1]] + ([old[-1]] if old[-1] else [])
    lines = diff.split("\n")
    assert (lines[0], lines[1], lines.pop()) == ("--- a", "+++ b", "")
    position = 2
    while position < len(lines):
        _, from_, to, _ = lines[position].split(" ")
        position += 1
        (start, count), (new_start, new_count) = span(from_, "-"), span(to, "+")
        begin = start - 1 if count else start
        assert begin >= at, "hunks overlap"
        new += old[at:begin]
        assert len(new) == (new_start - 1 if new_count else new_start)
        at = begin
        for _line in range(10**9):
            if not count and not new_count:
                break
            sign, text, position = take(lines, position)
            if sign in " -":
                assert old[at] == text
                at, count = at + 1, count - 1
            if sign in " +":
                new.append(text)
                new_count -= 1
    return "".join(new + old[at:])


def span(text: str, sign: str) -> tuple[int, int]:
    assert text[0] == sign
    start, _, count = text[1:].partition(",")
    return int(start), int(count or 1)


def take(lines: list[str], position: int) -> tuple[str, str, int]:
    sign, text = lines[position][0], lines[position][1:]
    is_unended = position + 1 < len(lines) and lines[position + 1] == UNENDED[:-1]
    return (sign, text, position + 2) if is_unended else (sign, f"{text}\n", position + 1)


few_lines = st.lists(st.sampled_from(["a", "b", "", "c c", "-", "+x", "\\", "@@ -1 +1 @@"]), max_size=12).map("\n".join)
any_text = st.text(st.sampled_from("ab \n\r\v\f\x1c\x85\u2028é\U0001f600\\+-@"), max_size=40)
long_text = st.lists(st.integers(0, 3).map(str), min_size=10, max_size=60).map("\n".join)
texts = few_lines | any_text | long_text | long_text.map(lambda text: f"{text}\n")


@settings(max_examples=300, deadline=None)
@given(before=texts, after=texts)
def test_the_body_diff_turns_one_body_into_the_other(before: str, after: str) -> None:
    diff = diffs.body_diff(before, after, ("a", "b"))

    assert diff is not None
    assert (applied(before, diff) if diff else before) == after


@pytest.mark.skipif(which("patch") is None, reason="`patch` is not installed")
@settings(max_examples=40, deadline=None)
@given(before=texts, after=texts)
def test_patch_applies_the_body_diff(tmp_path_factory: Any, before: str, after: str) -> None:
    folder: Path = tmp_path_factory.mktemp("patch")
    (folder / "old").write_bytes(before.encode())
    (folder / "diff").write_bytes((diffs.body_diff(before, after, ("a", "b")) or "").encode())

    command = ["patch", "--silent", "--binary", "--fuzz=0", "--output=new", "old", "diff"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    if before != after:
        assert (folder / "new").read_bytes() == after.encode()
