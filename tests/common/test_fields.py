"""Strict fields: what is documented is taken exactly, everything else is named and refused."""

from types import SimpleNamespace
from typing import Any

import pytest
from django.http import QueryDict
from rest_framework import serializers

from engarde.common import fields
from engarde.common.fields import MetadataField, QueryIntegerField, StrictSerializer, TextField, TextListField
from engarde.common.paging import Page, PageQuery


class Form(StrictSerializer):
    """One field of each kind."""

    text = TextField(max_length=5, required=False)
    texts = TextListField(required=False)
    metadata = MetadataField(required=False)
    number = serializers.IntegerField(required=False, allow_null=True)
    ratio = serializers.FloatField(required=False)
    flag = serializers.BooleanField(required=False)
    choice = serializers.ChoiceField(choices=["a", "5"], required=False)
    key = serializers.UUIDField(required=False)
    keys = serializers.ListField(child=serializers.UUIDField(), required=False)
    at = serializers.DateTimeField(required=False)


def parsed(**data: Any) -> dict[str, Any]:
    return fields.parse(Form, SimpleNamespace(data=data))  # type: ignore[arg-type]


def bad_fields(data: Any) -> set[str]:
    with pytest.raises(serializers.ValidationError) as caught:
        fields.parse(Form, SimpleNamespace(data=data))  # type: ignore[arg-type]
    assert isinstance(caught.value.detail, dict)
    return set(caught.value.detail)


KEY = "01a204dc-5242-725b-8f16-7437be78a214"


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"text": " a\n "},
        {"text": "\U0001f469\u200d\U0001f680"},
        {"text": "\x01\x7f"},
        {"texts": []},
        {"texts": [" a", "a", "a"]},
        {"texts": ["x" * 100] * 100},
        {"metadata": {"a": [1, 2.5, None, True, {"": "ä"}]}},
        {"number": 5},
        {"number": None},
        {"ratio": 5},
        {"flag": False},
        {"choice": "5"},
    ],
)
def test_it_takes_values_exactly_as_they_are(values: dict[str, Any]) -> None:
    assert parsed(**values) == values


NUMBERS = [{"a": float("nan")}, {"a": float("inf")}, {"a": 2**64}, {"a": "x" * 65536}]
REFUSED: dict[str, list[Any]] = {
    "text": [None, 5, True, 1.5, [], {}, ["a"], "", "x" * 6, "a\0b", "\ud800"],
    "texts": [None, "a", {}, 5, [5], [None], [["a"]], [""], ["x" * 101], ["a"] * 101, ["a\0"], ["\udfff"]],
    "metadata": [None, "a", [], 5, {"a": "\0"}, {"\0": 1}, {"a": ["\0"]}, {"a": "\ud800"}, {"\udfff": 1}, *NUMBERS],
    "number": ["5", True, 1.5, 5.0, [], {}, ""],
    "ratio": ["5", True, [], {}],
    "flag": ["true", "yes", 1, 0, None, []],
    "choice": [5, "b", None, [], ["a"], True],
    "key": [5, True, None, "5", [KEY], {"a": KEY}, 1.5],
    "keys": [5, [5], [True], [[KEY]], KEY],
    "at": [5, True, None, "", "soon", [], "2026-13-01T00:00:00Z", "0001-01-01T00:00:00+14:00"],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in REFUSED.items() for value in values])
def test_it_refuses_other_values_and_names_the_field(field: str, value: Any) -> None:
    assert bad_fields({field: value}) == {field}


def test_it_names_every_bad_field_at_once() -> None:
    assert bad_fields({"text": 5, "key": 5, "unknown": 1, "number": "x"}) == {"text", "key", "unknown", "number"}


@pytest.mark.parametrize("data", [None, [], "text", 5, True, [{"text": "a"}]])
def test_it_refuses_a_body_that_is_no_object(data: Any) -> None:
    assert bad_fields(data) == {"non_field_errors"}


@pytest.mark.parametrize(("levels", "fits"), [(20, True), (21, False), (500, False)])
@pytest.mark.parametrize("shape", ["object", "list"])
def test_it_takes_metadata_of_twenty_levels(levels: int, fits: bool, shape: str) -> None:
    value: Any = {} if shape == "object" else []
    for _ in range(levels - 2):
        value = {"a": value} if shape == "object" else [value]
    value = {"a": value}

    if fits:
        assert parsed(metadata=value) == {"metadata": value}
    else:
        assert bad_fields({"metadata": value}) == {"metadata"}


def test_it_takes_metadata_of_exactly_64_kib() -> None:
    full = {"a": "ä" * ((64 * 1024 - 8) // 2)}

    assert parsed(metadata=full) == {"metadata": full}
    assert bad_fields({"metadata": {"a": full["a"] + "x"}}) == {"metadata"}


# Queries


def page_query(text: str) -> dict[str, Any]:
    return PageQuery.parse(SimpleNamespace(query_params=QueryDict(text)))


@pytest.mark.parametrize(
    ("text", "page", "size"),
    [
        ("", 1, 20),
        ("page=2", 2, 20),
        ("pageSize=100", 1, 100),
        ("page=07", 7, 20),
        ("page=999999999999", 999999999999, 20),
    ],
)
def test_it_reads_a_page(text: str, page: int, size: int) -> None:
    assert page_query(text) == {"page": page, "pageSize": size}


BAD_NUMBERS = ["0", "-1", "1.5", "1.0", "", "%20", "1%20", "%2B1", "1_0", "1e2", "0x1", "٣", "²", "NaN", "null", "9" * 19, "9" * 9999]  # fmt: skip


@pytest.mark.parametrize("number", BAD_NUMBERS)
@pytest.mark.parametrize("name", ["page", "pageSize"])
def test_it_refuses_a_page_that_is_no_plain_number(name: str, number: str) -> None:
    with pytest.raises(serializers.ValidationError) as caught:
        page_query(f"{name}={number}")
    assert isinstance(caught.value.detail, dict)
    assert set(caught.value.detail) == {name}


@pytest.mark.parametrize("text", ["pageSize=101", "page=1&page=2", "pagesize=5", "page[]=1", "unknown="])
def test_it_refuses_a_query_out_of_range_repeated_or_unknown(text: str) -> None:
    with pytest.raises(serializers.ValidationError):
        page_query(text)


def test_it_reads_negative_numbers_where_a_field_allows_them() -> None:
    assert QueryIntegerField().run_validation("-5") == -5


@pytest.mark.parametrize(
    ("number", "total", "pages", "more", "before"),
    [(1, 0, 0, False, False), (1, 20, 1, False, False), (1, 21, 2, True, False), (2, 21, 2, False, True), (9, 21, 2, False, True)],
)  # fmt: skip
def test_it_says_where_in_the_list_a_page_is(number: int, total: int, pages: int, more: bool, before: bool) -> None:
    envelope = Page(rows=[], number=number, size=20, total=total).envelope([])

    assert envelope["data"] == []
    assert envelope["pagination"] == {
        "page": number,
        "pageSize": 20,
        "total": total,
        "totalPages": pages,
        "hasNext": more,
        "hasPrevious": before,
        "nextCursor": None,
    }
