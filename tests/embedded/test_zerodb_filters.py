"""The SQL that filters become, against a plain predicate in Python."""

import operator
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engarde.embedded.zerodb.errors import Refused
from engarde.embedded.zerodb.filters import BULK_OPERATORS, compile_filter, compile_sort, matches_pattern
from engarde.embedded.zerodb.store import SCHEMA

FIELDS = ["key", "kind", "size", "nested.size", "deep.er.field", "0"]
ABSENT = object()
SELECT = "SELECT seq FROM data_row"

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=3) | st.sampled_from(
    ["a", "b", "ab", "10", "true", "null", "[1]", "é", "😀"]
)
# Halves are exact in binary, so that no two readings of the same digits can differ.
numbers = st.integers(-5, 5) | st.integers(-(2**63), 2**63 - 1) | st.integers(-9, 9).map(lambda half: half / 2)
scalars = st.none() | st.booleans() | numbers | texts
values = (
    scalars | st.lists(scalars, max_size=3) | st.dictionaries(st.sampled_from(["size", "er", "0"]), scalars, max_size=2)
)
rows = st.fixed_dictionaries(
    {},
    optional={
        "key": values,
        "kind": values,
        "size": values,
        "nested": values,
        "0": values,
        "deep": st.fixed_dictionaries({"er": st.fixed_dictionaries({"field": values})}),
    },
)
comparisons = st.sampled_from(["$gt", "$gte", "$lt", "$lte"])
conditions = st.one_of(
    scalars,
    st.dictionaries(st.sampled_from(["$eq", "$ne"]), scalars, min_size=1),
    st.dictionaries(comparisons, texts | numbers, min_size=1),
    st.dictionaries(st.sampled_from(["$in", "$nin"]), st.lists(scalars, max_size=4), min_size=1),
    st.dictionaries(st.just("$contains"), st.booleans() | numbers | texts, min_size=1),
    st.dictionaries(
        st.just("$regex"), texts.map(re.escape) | st.sampled_from(["^a", "b$", "[0-9]", "(?i)A"]), min_size=1
    ),
)
filters = st.dictionaries(st.sampled_from(FIELDS), conditions, max_size=2)


@given(st.lists(rows, max_size=6), filters)
@example([{"key": "[1]"}, {"key": [1]}, {"key": True}, {"key": 1}, {}], {"key": "[1]"})
@example([{"key": True}, {"key": 1}, {"key": "1"}], {"key": True})
@example([{"key": None}, {}, {"key": ""}], {"key": {"$in": [None, ""]}})
def test_it_finds_what_a_plain_predicate_finds(data: list[dict[str, Any]], filter_: dict[str, Any]) -> None:
    condition = compile_filter(filter_)

    with rows_in_sqlite(data) as connection:
        found = connection.execute(f"{SELECT} WHERE {condition.sql}", condition.parameters).fetchall()

    assert [seq for (seq,) in found] == [seq for seq, row in enumerate(data) if satisfies(row, filter_)]


@given(st.lists(st.fixed_dictionaries({"key": texts, "size": st.integers(-3, 3)}), max_size=8))
def test_it_sorts_by_several_fields_and_then_by_insertion(data: list[dict[str, Any]]) -> None:
    order = compile_sort({"size": -1, "key": 1})

    with rows_in_sqlite(data) as connection:
        found = connection.execute(f"{SELECT} ORDER BY {order.sql}", order.parameters).fetchall()

    by_hand = sorted(range(len(data)), key=lambda seq: (-data[seq]["size"], data[seq]["key"], seq))
    assert [seq for (seq,) in found] == by_hand


@pytest.mark.parametrize("field", ["", "$and", "a b", "a-b", "a..b", ".a", "a.", 'a"b', "é", "a\n"])
def test_it_refuses_a_field_name_with_other_characters(field: str) -> None:
    with pytest.raises(Refused) as refusal:
        compile_filter({field: 1})

    assert refusal.value.status == 400


@pytest.mark.parametrize(
    "condition",
    [
        {},
        {"$exists": True},
        {"$not": {"$eq": 1}},
        {"nested": 1},
        {"$in": "text"},
        {"$in": [[1]]},
        {"$eq": {"a": 1}},
        {"$gt": None},
        {"$gt": True},
        {"$contains": None},
        {"$regex": 1},
        {"$regex": "("},
        {"$regex": "(a+)+b"},
        {"$regex": "a" * 201},
        [1, 2],
    ],
)
def test_it_refuses_what_the_service_does_not_document(condition: object) -> None:
    with pytest.raises(Refused) as refusal:
        compile_filter({"field": condition})

    assert refusal.value.status == 400


@pytest.mark.parametrize("name", ["$contains", "$regex"])
def test_it_refuses_search_operators_in_bulk_calls(name: str) -> None:
    with pytest.raises(Refused):
        compile_filter({"field": {name: "a"}}, BULK_OPERATORS)


@pytest.mark.parametrize("direction", [0, 2, True, "asc", None])
def test_it_refuses_other_sort_directions(direction: object) -> None:
    with pytest.raises(Refused):
        compile_sort({"field": direction})


@contextmanager
def rows_in_sqlite(data: list[dict[str, Any]]) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.create_function("matches_pattern", 2, matches_pattern)
        connection.executescript(SCHEMA)
        connection.executemany(
            "INSERT INTO data_row (seq, row_id, table_id, created_at, updated_at, row_data) VALUES (?1, ?1, '', '', '', ?2)",
            [(seq, orjson.dumps(row).decode()) for seq, row in enumerate(data)],
        )
        yield connection


def satisfies(row: dict[str, Any], filter_: dict[str, Any]) -> bool:
    return all(
        test(value_in(row, field), operand)
        for field, wanted in filter_.items()
        for test, operand in (
            [(PREDICATES[name], operand) for name, operand in wanted.items()]
            if isinstance(wanted, dict)
            else [(PREDICATES["$eq"], wanted)]
        )
    )


def value_in(row: Any, field: str) -> Any:
    for step in field.split("."):
        if not isinstance(row, dict) or step not in row:
            return ABSENT
        row = row[step]
    return row


def kind_of(value: Any) -> str:
    if value is None or value is ABSENT:
        return "nothing"
    if isinstance(value, bool):
        return "boolean"
    return "number" if isinstance(value, int | float) else type(value).__name__


def equals(value: Any, operand: Any) -> bool:
    return kind_of(value) == kind_of(operand) and (kind_of(value) == "nothing" or bool(value == operand))


def compares(test: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    return lambda value, operand: kind_of(value) == kind_of(operand) and test(value, operand)


def contains(value: Any, operand: Any) -> bool:
    if isinstance(value, list):
        return any(equals(element, operand) for element in value)
    return isinstance(value, str) and isinstance(operand, str) and operand in value


PREDICATES: dict[str, Callable[[Any, Any], bool]] = {
    "$eq": equals,
    "$ne": lambda value, operand: not equals(value, operand),
    "$in": lambda value, operand: any(equals(value, wanted) for wanted in operand),
    "$nin": lambda value, operand: not any(equals(value, wanted) for wanted in operand),
    "$gt": compares(operator.gt),
    "$gte": compares(operator.ge),
    "$lt": compares(operator.lt),
    "$lte": compares(operator.le),
    "$contains": contains,
    "$regex": lambda value, operand: isinstance(value, str) and re.search(operand, value) is not None,
}
