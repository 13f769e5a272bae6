"""Input that breaks a rule is refused with a problem that names it, and leaves nothing behind."""

import json
from io import BytesIO
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.conf import LazySettings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engarde.common.json import RequestTooLarge, StrictJSONParser
from tests.people import JSONClient, Person
from tests.stored import stored_by

MIB = 1024**2
VALID = {"title": "A title", "type": "post", "body": "A body"}
CHUNKED = "engarde.common.middleware.ChunkedBodyMiddleware"


def refused(answer: Any, status: int, code: str) -> dict[str, Any]:
    """Check that an answer is a problem, and return it."""
    assert answer.status_code == status, answer.content[:500]
    assert answer["Content-Type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem.keys() >= {"type", "title", "status", "detail", "code", "request_id"}
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["request_id"] == answer["X-Request-ID"]
    return problem


def bad_fields(answer: Any) -> set[str]:
    """Check that an answer refuses fields, and return their names."""
    errors = refused(answer, 400, "validation_error")["errors"]
    assert all(error.keys() == {"field", "message", "code"} for error in errors)
    return {error["field"].split(".")[0] for error in errors}


def post_raw(person: Person, raw: bytes, content_type: str = "application/json", **extra: Any) -> Any:
    return send_raw(person, "POST", "/api/content", raw, content_type, **extra)


def send_raw(
    person: Person, method: str, path: str, raw: Any, content_type: str = "application/json", **extra: Any
) -> Any:
    return person.api.generic(method, path, raw, content_type=content_type, **extra)


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


NOT_TEXT: list[Any] = [None, 5, True, 1.5, [], {}, ["a"]]
NOT_A_LIST_OF_TEXTS: list[Any] = [None, "a", 5, {}, [5], [None], [["a"]], [{}], [""], ["a\0"], ["x" * 101], ["a"] * 101]
NOT_AN_ID: list[Any] = [5, True, "", "5", [], {}, "01a204dc-5242-725b-8f16-7437be78a21", "' OR 1=1 --", "\0"]
BAD: dict[str, list[Any]] = {
    "title": [*NOT_TEXT, "", "x" * 301, "\N{GRINNING FACE}" * 301, "a\0b"],
    "body": [*NOT_TEXT, "a\0b"],
    "type": [*NOT_TEXT, "", "novel", "POST", "post ", "p\0"],
    "content_type": [*NOT_TEXT, "", "novel", "Story"],
    "status": [*NOT_TEXT, "", "deleted", "Draft"],
    "brand_id": [None, *NOT_AN_ID],
    "campaign_space_id": NOT_AN_ID,
    "platforms": NOT_A_LIST_OF_TEXTS,
    "tags": NOT_A_LIST_OF_TEXTS,
    "hashtags": NOT_A_LIST_OF_TEXTS,
    "mentions": NOT_A_LIST_OF_TEXTS,
    "media": [None, "a", {}, [5], ["a"], [str(uuid4())], [str(uuid4())] * 101],
    "scheduled_at": [5, True, "", "soon", [], {}, "2026-13-01T00:00:00Z", "2026-02-30T00:00:00Z", "0001-01-01T00:00:00+14:00"],
    "metadata": [None, "a", 5, [], [{}], {"a": "\0"}, {"\0": 1}, {"a": ["b", {"c": "\0"}]}, nested(21), {"a": "x" * 64 * 1024}],
    "id": [str(uuid4())],
    "version": [1],
    "tenant_id": [str(uuid4())],
    "created_at": ["2026-01-01T00:00:00Z"],
    "storage": [{}],
    "ai_generation": [None],
    "": [1],
    "\0": [1],
    "__proto__": [{}],
}  # fmt: skip
ALL_BAD = [(field, value) for field, values in BAD.items() for value in values]


@pytest.fixture(scope="module")
def _alice_of_module(django_db_setup: None, django_db_blocker: Any) -> Any:
    from tests import people

    with django_db_blocker.unblock():
        alice = people.new_owner("alice")
        yield alice, alice.writes()["id"]


@pytest.fixture
def writer(database: None, _alice_of_module: tuple[Person, str]) -> Person:
    """One owner for all the tests here, who has one item and is never allowed to change anything."""
    return _alice_of_module[0]


@pytest.fixture
def item_id(_alice_of_module: tuple[Person, str]) -> str:
    """The item."""
    return _alice_of_module[1]


@pytest.fixture
def _nothing_stored(writer: Person) -> Any:
    """Check that the test stored and changed nothing."""
    before = stored_by(writer.tenant_id)
    yield
    assert stored_by(writer.tenant_id) == before


pytestmark = pytest.mark.usefixtures("database")
stores_nothing = pytest.mark.usefixtures("_nothing_stored")


# Fields


@stores_nothing
@pytest.mark.parametrize(("field", "value"), ALL_BAD)
def test_it_refuses_to_create_with_a_bad_field(writer: Person, field: str, value: Any) -> None:
    assert bad_fields(writer.api.post("/api/content", {**VALID, field: value})) == {field or "non_field_errors"}


@stores_nothing
@pytest.mark.parametrize(("field", "value"), ALL_BAD)
def test_it_refuses_to_change_a_field_to_a_bad_value(writer: Person, item_id: str, field: str, value: Any) -> None:
    assert bad_fields(writer.api.patch(f"/api/content/{item_id}", {field: value})) == {field or "non_field_errors"}


@stores_nothing
@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, {"title", "type"}),
        ({"title": "A title"}, {"type"}),
        ({"type": "post"}, {"title"}),
        ({**VALID, "type": "post", "content_type": "story"}, {"content_type"}),
        ({**VALID, "status": "scheduled"}, {"scheduled_at"}),
        ({**VALID, "status": "scheduled", "scheduled_at": None}, {"scheduled_at"}),
        ({**VALID, "title": 5, "tags": "a", "unknown": 1}, {"title", "tags", "unknown"}),
    ],
)
def test_it_refuses_what_does_not_fit_together(writer: Person, body: Any, fields: set[str]) -> None:
    assert bad_fields(writer.api.post("/api/content", body)) == fields


@stores_nothing
def test_it_refuses_to_schedule_without_a_time_later(writer: Person, item_id: str) -> None:
    assert bad_fields(writer.api.patch(f"/api/content/{item_id}", {"status": "scheduled"})) == {"scheduled_at"}


@stores_nothing
def test_it_refuses_a_brand_of_another_tenant_like_one_that_does_not_exist(
    writer: Person, item_id: str, charlie: Person
) -> None:
    def errors(method: str, path: str, brand_id: Any) -> Any:
        answer = getattr(writer.api, method)(path, {**VALID, "brand_id": str(brand_id)})
        return refused(answer, 400, "validation_error")["errors"]

    for method, path in (("post", "/api/content"), ("patch", f"/api/content/{item_id}")):
        assert errors(method, path, charlie.brand_id) == errors(method, path, uuid4())
        assert [error["field"] for error in errors(method, path, charlie.brand_id)] == ["brand_id"]


def test_it_takes_every_field_at_its_limit(alice: Person) -> None:
    at_limits = {
        "title": "\N{GRINNING FACE}" * 300,
        "body": "x" * MIB,
        "content_type": "reel",
        "tags": ["x" * 100] * 100,
        "metadata": {"a": nested(19), "b": "x" * (60 * 1024)},
    }

    answer = alice.api.post("/api/content", at_limits)

    assert answer.status_code == 201, answer.content[:500]
    assert {name: answer.json()[name] for name in at_limits} == at_limits
    assert answer.json()["type"] == "reel"
    assert alice.api.post("/api/content", {"title": "x", "type": "post"}).json()["body"] == ""
    assert alice.api.post("/api/content", {**VALID, "content_type": "post"}).status_code == 201


# Sizes


@stores_nothing
@pytest.mark.parametrize("body", ["x" * (MIB + 1), "x" * 2 * MIB, "ä" * (MIB // 2 + 1)])
def test_it_refuses_a_body_over_1_mib(writer: Person, item_id: str, body: str) -> None:
    refused(writer.api.post("/api/content", {**VALID, "body": body}), 413, "content_too_large")
    refused(writer.api.patch(f"/api/content/{item_id}", {"body": body}), 413, "content_too_large")


@stores_nothing
def test_it_refuses_a_request_over_8_mib(writer: Person) -> None:
    raw = json.dumps({**VALID, "metadata": {"a": "x" * 9 * MIB}}).encode()

    refused(post_raw(writer, raw), 413, "content_too_large")
    refused(post_raw(writer, b"[" + b" " * 9 * MIB), 413, "content_too_large")


@stores_nothing
def test_it_refuses_a_request_that_says_it_is_over_8_mib_without_reading_it(writer: Person) -> None:
    class Unread(BytesIO):
        def read(self, *_: Any) -> bytes:
            raise AssertionError("read")

    extra: dict[str, Any] = {"CONTENT_LENGTH": str(9 * MIB), "wsgi.input": Unread()}

    refused(post_raw(writer, b"{}", **extra), 413, "content_too_large")


def test_the_parser_itself_reads_no_further_than_the_limit() -> None:
    stream = BytesIO(b" " * 20 * MIB)

    with pytest.raises(RequestTooLarge):
        StrictJSONParser().parse(stream)
    assert stream.tell() == 8 * MIB + 1


def in_chunks(raw: bytes) -> dict[str, Any]:
    """What a WSGI server hands on for a body without a length."""
    return {
        "CONTENT_LENGTH": "",
        "HTTP_TRANSFER_ENCODING": "chunked",
        "wsgi.input": BytesIO(raw),
        "wsgi.input_terminated": True,
    }


@pytest.fixture
def _chunks(settings: LazySettings) -> None:
    if CHUNKED not in settings.MIDDLEWARE:
        settings.MIDDLEWARE = [settings.MIDDLEWARE[0], CHUNKED, *settings.MIDDLEWARE[1:]]


@stores_nothing
@pytest.mark.usefixtures("_chunks")
def test_it_refuses_a_request_over_8_mib_that_comes_in_chunks(writer: Person) -> None:
    refused(post_raw(writer, b"", **in_chunks(b" " * 9 * MIB)), 413, "content_too_large")


@stores_nothing
@pytest.mark.usefixtures("_chunks")
def test_it_refuses_files_that_come_in_chunks(writer: Person) -> None:
    answer = post_raw(writer, b"", "multipart/form-data; boundary=x", **in_chunks(b"--x--"))

    refused(answer, 411, "length_required")


@pytest.mark.usefixtures("_chunks")
def test_it_reads_a_body_that_comes_in_chunks(alice: Person) -> None:
    answer = post_raw(alice, b"", **in_chunks(json.dumps({**VALID, "body": "in chunks"}).encode()))

    assert (answer.status_code, answer.json()["body"]) == (201, "in chunks")


# Not the JSON that was asked for

NOT_JSON = {
    "broken": b'{"title": "A title", "type": "post"',
    "two values": b"{} {}",
    "text": b"hello",
    "trailing comma": b'{"title": "A title", "type": "post",}',
    "single quotes": b"{'title': 'A title', 'type': 'post'}",
    "invalid UTF-8": b'{"title": "\xff", "type": "post"}',
    "overlong UTF-8": b'{"title": "\xc0\xaf", "type": "post"}',
    "UTF-16": json.dumps(VALID).encode("utf-16"),
    "encoded surrogate": b'{"title": "\xed\xa0\x80", "type": "post"}',
    "lone surrogate": rb'{"title": "\ud800", "type": "post"}',
    "lone low surrogate": rb'{"title": "a\udc00", "type": "post"}',
    "lone surrogate in a key": rb'{"title": "a", "type": "post", "metadata": {"\ud800": 1}}',
    "NaN": b'{"title": "a", "type": "post", "metadata": {"a": NaN}}',
    "Infinity": b'{"title": "a", "type": "post", "metadata": {"a": Infinity}}',
    "-Infinity": b'{"title": "a", "type": "post", "metadata": {"a": -Infinity}}',
    "1e400": b'{"title": "a", "type": "post", "metadata": {"a": 1e400}}',
    "an integer of 400 digits": b'{"title": "a", "type": "post", "metadata": {"a": ' + b"9" * 400 + b"}}",
    "100,000 lists": b'{"title": "a", "type": "post", "metadata": {"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
    "100,000 objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "raw control character": b'{"title": "a\nb", "type": "post"}',
}


@stores_nothing
@pytest.mark.parametrize("raw", NOT_JSON.values(), ids=NOT_JSON)
def test_it_refuses_what_is_no_json(writer: Person, item_id: str, raw: bytes) -> None:
    refused(post_raw(writer, raw), 400, "invalid_json")
    answer = send_raw(writer, "PATCH", f"/api/content/{item_id}", raw)
    refused(answer, 400, "invalid_json")


@stores_nothing
@pytest.mark.parametrize("raw", [b"null", b"[]", b'[{"title": "a"}]', b'"text"', b"5", b"1.5", b"true"])
def test_it_refuses_a_body_that_is_no_object(writer: Person, item_id: str, raw: bytes) -> None:
    assert bad_fields(post_raw(writer, raw)) == {"non_field_errors"}
    answer = send_raw(writer, "PATCH", f"/api/content/{item_id}", raw)
    assert bad_fields(answer) == {"non_field_errors"}


@stores_nothing
@pytest.mark.parametrize("raw", [b"", b" \n", b"{}"])
def test_it_takes_an_empty_body_for_an_empty_object(writer: Person, raw: bytes) -> None:
    assert "title" in bad_fields(post_raw(writer, raw))


@stores_nothing
@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/xml", "application/octet-stream", "application/x-www-form-urlencoded", "nonsense", "application/jsonp"],
)  # fmt: skip
def test_it_refuses_a_body_of_another_type(writer: Person, content_type: str) -> None:
    refused(post_raw(writer, json.dumps(VALID).encode(), content_type), 415, "unsupported_media_type")


@stores_nothing
def test_it_refuses_a_form(writer: Person) -> None:
    refused(writer.api.post("/api/content", VALID, format="multipart"), 415, "unsupported_media_type")


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8", "Application/JSON"])
def test_it_takes_json_however_its_type_is_spelt(alice: Person, content_type: str) -> None:
    assert post_raw(alice, json.dumps(VALID).encode(), content_type).status_code == 201


@stores_nothing
def test_it_takes_a_nonsensical_length_for_none(writer: Person) -> None:
    assert "title" in bad_fields(post_raw(writer, b"", CONTENT_LENGTH="abc"))


def test_it_keeps_integers_beyond_64_bits_as_the_nearest_number(alice: Person) -> None:
    raw = (
        b'{"title": "a", "type": "post", "metadata": {"a": 123456789012345678901234567890, "b": 18446744073709551615}}'
    )

    assert post_raw(alice, raw).json()["metadata"] == {"a": 1.2345678901234568e29, "b": 2**64 - 1}


# Addresses and queries


@pytest.mark.parametrize("method", ["get", "patch", "delete"])
@pytest.mark.parametrize(
    "bad_id", ["5", "nothing", "01a204dc", "0" * 32, "01a204dc-5242-725b-8f16-7437be78a21g", "%00", "٣", ".."]
)
def test_it_finds_nothing_under_a_malformed_id(writer: Person, method: str, bad_id: str) -> None:
    refused(getattr(writer.api, method)(f"/api/content/{bad_id}"), 404, "not_found")


def test_it_finds_an_item_by_its_id_in_capitals(writer: Person, item_id: str) -> None:
    assert writer.api.get(f"/api/content/{item_id.upper()}").status_code == 200


@pytest.mark.parametrize("method", ["put", "delete", "patch"])
def test_it_says_which_methods_a_list_takes(writer: Person, method: str) -> None:
    answer = getattr(writer.api, method)("/api/content")

    refused(answer, 405, "method_not_allowed")
    assert {"GET", "POST"} <= set(answer["Allow"].split(", "))


BAD_QUERIES = {
    "page": ["0", "-1", "1.5", "1.0", "", "a", "1_0", "٣", "²", "%201", "1e1", "NaN", "9" * 19, "9" * 5000, "1&page=1", "%00"],
    "pageSize": ["0", "-1", "1.5", "", "a", "101", "100000", "٣", "20&pageSize=20"],
    "unknown": ["1", ""],
    "PAGE": ["1"],
    "tenant_id": [str(uuid4())],
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD_QUERIES.items() for value in values])
def test_it_refuses_a_bad_query_and_names_the_parameter(writer: Person, name: str, value: str) -> None:
    assert bad_fields(writer.api.get(f"/api/content?{name}={value}")) == {name}


@pytest.mark.parametrize("page", ["2", "1000001", "999999999999999"])
def test_it_answers_a_page_past_the_end_with_nothing(writer: Person, page: str) -> None:
    answer = writer.api.get(f"/api/content?page={page}")

    assert (answer.status_code, answer.json()["data"]) == (200, [])
    assert answer.json()["pagination"]["page"] == int(page)
    assert answer.json()["pagination"]["hasNext"] is False


@pytest.mark.parametrize("given_id", ["a b", "x" * 129, "ä", "<script>", "a\tb", ""])
def test_it_replaces_a_bad_request_id(writer: Person, given_id: str) -> None:
    answer = writer.api.get("/api/content?page=0", HTTP_X_REQUEST_ID=given_id)

    assert UUID(refused(answer, 400, "validation_error")["request_id"]).version == 7


@pytest.mark.parametrize("given_id", ["x" * 128, "A-Z_0.9"])
def test_it_keeps_a_good_request_id(writer: Person, given_id: str) -> None:
    assert writer.api.get("/api/content?page=0", HTTP_X_REQUEST_ID=given_id).json()["request_id"] == given_id


# Whatever comes

on_services = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just("\ud800")
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4), max_leaves=12
)  # fmt: skip
some_values = st.sampled_from(["post", "scheduled", "draft", "2026-01-01T00:00:00Z", str(uuid4()), "\0", "x" * 301])
objects = st.dictionaries(st.sampled_from(sorted(BAD)) | st.text(max_size=5), anything | some_values, max_size=5)


def sent_as(value: Any) -> bytes:
    """Write JSON as a careless client does: NaN and lone surrogates go through."""
    return json.dumps(value, ensure_ascii=True).encode()


@on_services
@given(body=objects | anything, is_valid_otherwise=st.booleans())
def test_it_creates_or_refuses_whatever_comes(writer: Person, body: Any, is_valid_otherwise: bool) -> None:
    if is_valid_otherwise and isinstance(body, dict):
        body = VALID | body

    answer = post_raw(writer, sent_as(body))

    assert answer.status_code in {201, 400, 413}, answer.content[:500]
    if answer.status_code != 201:
        refused(answer, answer.status_code, answer.json()["code"])


@on_services
@given(body=objects | anything)
def test_it_changes_or_refuses_whatever_comes(writer: Person, body: Any) -> None:
    mine = writer.writes()["id"]

    answer = send_raw(writer, "PATCH", f"/api/content/{mine}", sent_as(body))

    assert answer.status_code in {200, 400, 413}, answer.content[:500]
    if answer.status_code != 200:
        refused(answer, answer.status_code, answer.json()["code"])


@on_services
@given(raw=st.binary(max_size=200))
def test_it_creates_or_refuses_whatever_bytes_come(writer: Person, raw: bytes) -> None:
    refused(post_raw(writer, raw), 400, post_raw(writer, raw).json()["code"])


clean_text = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
clean_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(clean_text),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(clean_text, max_size=8), inner, max_size=4),
    max_leaves=10,
)  # fmt: skip


@on_services
@given(
    title=st.text(clean_text, min_size=1, max_size=300),
    body=st.text(clean_text, max_size=2000),
    tags=st.lists(st.text(clean_text, min_size=1, max_size=100), max_size=10),
    metadata=st.dictionaries(st.text(clean_text, max_size=8), clean_json, max_size=4),
)
def test_it_gives_back_exactly_what_was_sent(writer: Person, title: str, body: str, tags: Any, metadata: Any) -> None:
    sent = {"title": title, "body": body, "tags": tags, "metadata": metadata}

    created = writer.api.post("/api/content", {**sent, "type": "post"})
    assert created.status_code == 201, created.content[:500]
    item = created.json()
    read = writer.api.get(f"/api/content/{item['id']}").json()

    assert {name: item[name] for name in sent} == sent
    assert {name: read[name] for name in sent} == sent
    assert read["storage"]["size_bytes"] == len(body.encode())
    assert writer.api.patch(f"/api/content/{item['id']}", sent).json()["version"] == 1


@pytest.mark.parametrize("method", ["post", "patch", "delete"])
def test_a_write_takes_no_query(alice: Person, method: str) -> None:
    item_id = alice.writes()["id"]
    path = "/api/content" if method == "post" else f"/api/content/{item_id}"
    answer = getattr(alice.api, method)(f"{path}?version=1", {"title": "t", "type": "post"})
    assert answer.status_code == 400
    assert [error["field"] for error in answer.json()["errors"]] == ["version"]
    assert alice.api.get(f"/api/content/{item_id}").json()["version"] == 1


@pytest.mark.parametrize("path", ["nothing", "123", "00000000-0000-0000-0000-00000000000g", "nothing/versions/1"])
def test_a_malformed_id_is_not_found_and_tells_the_quota(alice: Person, path: str) -> None:
    for method in ("get", "patch", "delete", "post"):
        answer = getattr(alice.api, method)(f"/api/content/{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        assert "X-Quota-Used" in answer
    assert JSONClient().get(f"/api/content/{path}").status_code == 401
