"""Export: every live item once, one JSON object a line, as a stream that never holds them all."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from content import export, queries
from tests import people, tiers
from tests.content.answers import bad_fields, ok, refused
from tests.people import Person


def exported(person: Person) -> list[dict[str, Any]]:
    answer: Any = person.api.get("/api/content/export")
    assert answer.status_code == 200
    text = b"".join(answer.streaming_content).decode()
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.split("\n")[:-1]]


def streamed(person: Person) -> Iterator[bytes]:
    """Return an export's lines, each read when it is asked for."""
    answer: Any = person.api.get("/api/content/export")
    return iter(answer.streaming_content)


@pytest.fixture
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "CHUNK", 3)


def test_a_line_is_an_item(alice: Person) -> None:
    made = [
        alice.writes(
            title="Ünïcode\n", body="two\nlines\u2028 \U0001f600", metadata={"a": [1, {"b": None}]}, tags=["x", "x"]
        ),
        alice.writes(type="ad", body="", status="published", scheduled_at="2026-01-01T00:00:00+02:00"),
    ]

    answer = alice.api.get("/api/content/export")

    assert answer["Content-Type"] == "application/x-ndjson"
    assert answer["Content-Disposition"].startswith("attachment")
    assert answer["X-Quota-Used"] == str(sum(item["storage"]["size_bytes"] for item in made))
    assert exported(alice) == made
    assert made == [ok(alice.api.get(f"/api/content/{item['id']}")) for item in made]


def test_an_empty_tenant_has_an_empty_export(alice: Person) -> None:
    assert exported(alice) == []


@pytest.mark.usefixtures("_small_chunks")
@pytest.mark.parametrize("items", [1, 2, 3, 4, 6, 7])
def test_all_live_items_come_once_over_several_chunks(alice: Person, items: int) -> None:
    ids = [alice.writes(body=f"body {number}")["id"] for number in range(items)]

    assert [item["id"] for item in exported(alice)] == ids


@pytest.mark.usefixtures("_small_chunks")
def test_only_live_items_of_the_newest_version_and_of_ones_own_come(alice: Person, charlie: Person) -> None:
    kept, changed, trashed, undeleted = (alice.writes()["id"] for _ in range(4))
    charlie.writes(body="not hers")
    alice.api.patch(f"/api/content/{changed}", {"body": "changed"})
    for item_id in (trashed, undeleted):
        alice.api.delete(f"/api/content/{item_id}")
    alice.api.post(f"/api/content/{undeleted}/restore")

    rows = exported(alice)

    assert [(row["id"], row["body"], row["version"]) for row in rows] == [
        (kept, "A body", 1),
        (changed, "changed", 2),
        (undeleted, "A body", 3),
    ]


@pytest.mark.usefixtures("_small_chunks")
def test_the_first_line_comes_before_the_last_item_is_read(alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [alice.writes()["id"] for _ in range(7)]
    read, with_documents = list[str](), queries.with_documents

    def noted(**kwargs: Any) -> list[Any]:
        read.extend(str(item.id) for item in kwargs["items"])
        return with_documents(**kwargs)

    monkeypatch.setattr(queries, "with_documents", noted)
    lines = streamed(alice)
    assert read == []

    assert json.loads(next(lines))["id"] == ids[0]
    assert read == ids[:3]
    assert [json.loads(line)["id"] for line in lines] == ids[1:]
    assert read == ids


@pytest.mark.usefixtures("_small_chunks")
def test_what_comes_and_goes_meanwhile_moves_nothing_else(alice: Person) -> None:
    ids = [alice.writes()["id"] for _ in range(8)]
    lines = streamed(alice)
    met = [json.loads(next(lines))["id"] for _ in range(2)]

    for gone in (ids[0], ids[1], ids[6]):
        alice.api.delete(f"/api/content/{gone}")
    alice.api.patch(f"/api/content/{ids[7]}", {"body": "changed"})
    late = alice.writes()["id"]

    met += [json.loads(line)["id"] for line in lines]
    assert met == [*ids[:6], ids[7], late]


def test_items_come_from_every_tier_and_without_a_body_where_there_is_none(
    alice: Person, upload: Callable[[], int], back_up: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    away = alice.writes(title="Away", body="far", tags=["a"])["id"]
    upload()
    back_up()
    fresh = alice.writes(body="near")["id"]
    tiers.forget_copies()
    assert [row["body"] for row in exported(alice)] == ["far", "near"]

    with tiers.zerodb_away(monkeypatch), tiers.bigquery_away(monkeypatch):
        tiers.forget_copies()
        lost, near = exported(alice)
    tiers.forget_copies()

    assert (lost["id"], lost["title"], lost["body"], lost["storage"]["available"]) == (away, "Away", None, False)
    assert (near["id"], near["body"], near["storage"]["available"]) == (fresh, "near", True)
    assert lost.keys() == near.keys()


def test_a_viewer_may_export_and_nothing_else_is_taken(alice: Person) -> None:
    alice.writes()
    viewer = people.new_colleague(alice, "viewer")

    assert len(exported(viewer)) == 1
    assert bad_fields(alice.api.get("/api/content/export?status=draft")) == {"status"}
    refused(alice.api.post("/api/content/export"), 405, "method_not_allowed")


def test_large_bodies_are_read_a_few_at_a_time(alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, with_documents = list[int](), queries.with_documents

    def noted(**kwargs: Any) -> list[Any]:
        sizes.append(sum(item.size_bytes for item in kwargs["items"]))
        return with_documents(**kwargs)

    for _ in range(10):
        alice.writes(body="x" * 1024**2)
    monkeypatch.setattr(queries, "with_documents", noted)

    assert [len(row["body"]) for row in exported(alice)] == [1024**2] * 10
    assert max(sizes) <= 8 * 1024**2
