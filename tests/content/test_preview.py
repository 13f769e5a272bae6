"""Previews: the first 200 characters of a body as text, in time that grows with the body and no faster."""

import time

import pytest

from content.preview import READ_AHEAD, preview_of, text_of
from tests.people import Person


@pytest.mark.parametrize(
    ("body", "preview"),
    [
        ("", ""),
        ("plain  text\n\twith space", "plain text with space"),
        ("<p>One</p><p>two &amp; three</p>", "One two & three"),
        ("<!-- hidden --> shown", "shown"),
        ("<script>alert('<p>')</script>after<STYLE>p{}</STYLE>!", "after !"),
        ("a < b and b > c, <3", "a < b and b > c, <3"),
        ("never <b closed", "never"),
        ("<!-- never closed", ""),
        ("x" * 500, "x" * 200),
        ("<br>" * 50 + "late", "late"),
    ],
)
def test_it_leaves_markup_out(body: str, preview: str) -> None:
    assert preview_of(body) == preview


@pytest.mark.parametrize("evil", ["<!--", "<script", "<a", "<", "</", "&lt;"])
def test_hostile_markup_takes_no_longer_than_friendly(evil: str) -> None:
    def seconds(body: str) -> float:
        started = time.process_time()
        for _ in range(20):
            preview_of(body)
        return time.process_time() - started

    friendly = seconds("<p>text</p>" * READ_AHEAD)
    assert seconds(evil * READ_AHEAD) < 50 * friendly + 0.05


def test_a_list_shows_previews_and_one_item_its_body(alice: Person) -> None:
    body = "<p>Hello</p>" + "x" * 20_000
    item_id = alice.writes(body=body)["id"]

    [summary] = alice.api.get("/api/content").json()["data"]

    assert summary["preview"].startswith("Hello xxx")
    assert "body" not in summary
    assert alice.api.get(f"/api/content/{item_id}").json()["body"] == body


def test_a_page_of_large_bodies_is_read_in_pieces(alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("content.lists.PIECE_BYTES", 1000)
    ids = [alice.writes(body=f"{number}" * 600)["id"] for number in range(5)]

    page = alice.api.get("/api/content").json()["data"]

    assert [item["id"] for item in page] == ids[::-1]
    assert [item["preview"][0] for item in page] == ["4", "3", "2", "1", "0"]


def test_many_hidden_elements_take_no_time() -> None:
    body = "\N{GRINNING FACE}" + "<script></script>" * 60_000
    started = time.process_time()
    assert text_of(body, len(body)) == "\N{GRINNING FACE}"
    assert time.process_time() - started < 1


def test_letters_that_grow_in_lower_case_move_nothing() -> None:
    dotted = "\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}" * 5
    assert preview_of(f"{dotted}<SCRIPT>x</Script>visible") == f"{dotted} visible"
