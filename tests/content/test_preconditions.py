"""Entity tags and preconditions: nobody overwrites what he has not seen, and nobody is sent what he has."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from tests.content.answers import ok, refused
from tests.people import Person
from tests.stored import stored_by

OTHERS = ['"nothing"', "nothing", "", '"', "W/", '""', 'W/"x", "y"', "5", '"*"', f'"{uuid4()}-1-0123456789abcdef"']


def made(person: Person, **fields: Any) -> tuple[str, str]:
    """Create an item and return its address and tag."""
    answer = person.api.post("/api/content", {"title": "A title", "type": "post", "body": "A body", **fields})
    assert answer.status_code == 201
    return answer["Location"], answer["ETag"]


def written(person: Person, url: str, method: str, tag: str | None) -> Any:
    """Change an item under an If-Match in one of the three ways."""
    headers: dict[str, Any] = {} if tag is None else {"HTTP_IF_MATCH": tag}
    if method == "restore":
        return person.api.post(f"{url}/versions/1/restore", **headers)
    body = {"body": "Changed"} if method == "patch" else None
    return getattr(person.api, method)(url, body, **headers)


METHODS = ["patch", "delete", "restore"]


# Tags


def test_every_answer_with_an_item_carries_its_strong_tag(alice: Person) -> None:
    url, created = made(alice)
    read = alice.api.get(url)["ETag"]
    patched = alice.api.patch(url, {"body": "second"})["ETag"]
    restored = alice.api.post(f"{url}/versions/1/restore")["ETag"]
    alice.api.delete(url)
    undeleted = alice.api.post(f"{url}/restore")["ETag"]

    assert read == created
    assert len({created, patched, restored, undeleted}) == 4
    for tag in (created, patched, restored, undeleted):
        assert tag.startswith('"')
        assert tag.endswith('"')
    assert alice.api.get(url)["ETag"] == undeleted
    assert alice.api.get(f"{url}?version=1")["ETag"] == alice.api.get(f"{url}/versions/1")["ETag"] == created


def test_the_tag_names_the_item_the_version_and_the_content(alice: Person) -> None:
    url, tag = made(alice)
    _, other = made(alice)

    item_id, _, rest = tag.strip('"').rpartition("-1-")
    assert url.endswith(item_id)
    assert len(rest) == 16
    assert other != tag
    assert other.rpartition("-")[2] == tag.rpartition("-")[2]  # the same content, another item


def test_the_tag_stays_while_the_document_moves(
    alice: Person, upload: Callable[[], int], back_up: Callable[[], int]
) -> None:
    url, tag = made(alice)
    tiers = []

    for move in (upload, back_up):
        move()
        answer = alice.api.get(url)
        tiers.append(answer.json()["storage"])
        assert answer["ETag"] == tag
        assert alice.api.get(url, HTTP_IF_NONE_MATCH=tag).status_code == 304
    assert [(tier["tier"], tier["bigquery_backed_up"]) for tier in tiers] == [("zerodb", False), ("zerodb", True)]


# If-None-Match


@pytest.mark.parametrize("address", ["", "?version=1", "/versions/1"])
def test_a_reader_who_has_it_is_told_so(alice: Person, address: str) -> None:
    url, tag = made(alice)

    for known in (tag, f"W/{tag}", f'"other", {tag}', f'"other",W/{tag} , "x"', "*"):
        answer = alice.api.get(f"{url}{address}", HTTP_IF_NONE_MATCH=known)
        assert (answer.status_code, answer.content, answer["ETag"]) == (304, b"", tag), known
        assert "Content-Type" not in answer
        assert answer["X-Quota-Used"] == "6"


def test_a_reader_who_has_something_else_gets_the_item(alice: Person) -> None:
    url, _ = made(alice)

    for tag in OTHERS:
        assert ok(alice.api.get(url, HTTP_IF_NONE_MATCH=tag))["body"] == "A body", tag


def test_a_reader_with_an_older_version_gets_the_newer_one(alice: Person) -> None:
    url, tag = made(alice)
    alice.api.patch(url, {"body": "second"})

    assert ok(alice.api.get(url, HTTP_IF_NONE_MATCH=tag))["body"] == "second"
    assert alice.api.get(f"{url}?version=1", HTTP_IF_NONE_MATCH=tag).status_code == 304


def test_a_reader_is_not_told_that_a_trashed_item_is_the_same(alice: Person) -> None:
    url, tag = made(alice)
    alice.api.delete(url)

    for known in (tag, "*"):
        refused(alice.api.get(url, HTTP_IF_NONE_MATCH=known), 404, "not_found")


# If-Match


@pytest.mark.parametrize("form", [None, "{tag}", "W/{tag}", '"other", {tag}', "*", " * "])
@pytest.mark.parametrize("method", METHODS)
def test_a_writer_who_has_seen_the_newest_version_may_write(alice: Person, method: str, form: str | None) -> None:
    url, tag = made(alice)

    assert written(alice, url, method, form and form.format(tag=tag)).status_code == 200


@pytest.mark.parametrize("method", METHODS)
def test_a_writer_with_another_tag_is_refused(alice: Person, method: str) -> None:
    url, current = made(alice)
    before, item = stored_by(alice.tenant_id), alice.api.get(url).json()

    for tag in OTHERS:
        answer = written(alice, url, method, tag)
        problem = refused(answer, 412, "precondition_failed")
        assert (problem["current_version"], problem["current_etag"], answer["ETag"]) == (1, current, current)
    assert stored_by(alice.tenant_id) == before
    assert alice.api.get(url).json() == item


@pytest.mark.parametrize("method", METHODS)
def test_a_refused_writer_learns_what_changed_since(alice: Person, bob: Person, method: str) -> None:
    url, tag = made(alice)
    bob.api.patch(url, {"title": "New", "tags": ["a"]})
    bob.api.patch(url, {"body": "New body", "title": "Newer"})

    problem = refused(written(alice, url, method, tag), 412, "precondition_failed")

    assert (problem["current_version"], problem["changed_fields"]) == (3, ["body", "tags", "title"])
    assert "version 3" in problem["detail"]
    assert written(alice, url, method, problem["current_etag"]).status_code == 200


def test_it_learns_of_no_field_where_only_the_trash_came_between(alice: Person) -> None:
    url, tag = made(alice)
    alice.api.delete(url)
    alice.api.post(f"{url}/restore")

    assert refused(written(alice, url, "patch", tag), 412, "precondition_failed")["changed_fields"] == []


def test_a_tag_that_names_no_version_of_the_item_leaves_the_fields_open(alice: Person) -> None:
    url, _ = made(alice)

    assert refused(written(alice, url, "patch", '"x"'), 412, "precondition_failed")["changed_fields"] is None


def test_a_stale_tag_is_refused_even_where_nothing_would_change(alice: Person) -> None:
    url, tag = made(alice)
    alice.api.patch(url, {"body": "second"})

    refused(alice.api.patch(url, {"body": "second"}, HTTP_IF_MATCH=tag), 412, "precondition_failed")


@pytest.mark.parametrize("method", METHODS)
def test_there_is_no_precondition_on_what_is_not_there(alice: Person, method: str) -> None:
    url, tag = made(alice)
    alice.api.delete(url)

    for address, header in ((url, tag), (url, "*"), (f"/api/content/{uuid4()}", "*")):
        refused(written(alice, address, method, header), 404, "not_found")


def test_an_old_tag_does_not_come_true_again(alice: Person) -> None:
    url, tag = made(alice)
    alice.api.patch(url, {"body": "second"})
    alice.api.patch(url, {"body": "A body"})

    assert refused(written(alice, url, "patch", tag), 412, "precondition_failed")["current_version"] == 3
