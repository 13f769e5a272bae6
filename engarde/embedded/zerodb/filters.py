"""Filters, sort orders and their checks, turned into SQL over a row's JSON text.

The operators are the ten that ZeroDB's endpoint catalogue lists (`POST /{table}/query`): a bare value means equality, and
several fields, like several operators on one field, are ANDed. Where the vendor is silent, this reading is taken:

- A dot in a field name is a step into a nested object.
- Values of different kinds (text, number, boolean) are never equal and never ordered against each other.
- `null` equals an absent field. `$ne` and `$nin` are the exact opposites of `$eq` and `$in`, so they match absent fields.
- Texts compare by code point. `$regex` searches anywhere in the text.
- Arrays and objects as operands are refused, except the list that `$in` and `$nin` need.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from engarde.embedded.zerodb.errors import Refused

# Text values of these fields have an indexed column of their own (see store.py), because the platform looks rows up by
# them. All other fields are read out of the JSON text of every row in the table.
INDEXED_FIELDS = ("key", "content_id", "tenant_id")

COMPARISONS = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
BULK_OPERATORS = frozenset({"$eq", "$ne", "$in", "$nin", *COMPARISONS})
QUERY_OPERATORS = BULK_OPERATORS | {"$contains", "$regex"}

_FIELD_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
_LONGEST_PATTERN = 200
# A repeated group that itself repeats, such as (a+)+, can take for ever on a short text.
_RUNAWAY_PATTERN = re.compile(r"\([^)]*[+*}][^)]*\)[+*{]")
_SMALLEST_INTEGER, _LARGEST_INTEGER = -(2**63), 2**63 - 1

_AN_ELEMENT = "SELECT 1 FROM json_each(row_data, ?) AS element WHERE"

Parameter = str | int | float


@dataclass(frozen=True, slots=True)
class Condition:
    """A piece of SQL with the values for its question marks."""

    sql: str
    parameters: tuple[Parameter, ...] = ()

    def negated(self) -> "Condition":
        """Return the condition that holds exactly where this one does not (SQL's NULL counts as "does not")."""
        return Condition(f"NOT coalesce({self.sql}, 0)", self.parameters)


EVERYTHING = Condition("1")
NOTHING = Condition("0")


def compile_filter(filter_: Mapping[str, Any], operators: frozenset[str] = QUERY_OPERATORS) -> Condition:
    """Return the condition that holds for the rows `filter_` asks for.

    Args:
        filter_: Field names to a value, or to an object of operators.
        operators: The operators that are allowed here.

    Raises:
        Refused: 400 for a field name, operator, operand or pattern that the service does not take.
    """
    return _all_of([_field_condition(field, wanted, operators) for field, wanted in filter_.items()])


def compile_sort(sort: Mapping[str, Any]) -> Condition:
    """Return the terms of an ORDER BY for `{"field": 1, "other": -1}`; rows without the field come first when ascending.

    Raises:
        Refused: 400 for a bad field name, or a direction other than 1 and -1.
    """
    terms = [_sort_terms(field, direction) for field, direction in sort.items()]
    terms.append(Condition("seq"))
    return _joined(", ", terms)


def check_field_name(field: str) -> None:
    """Let `field` pass when it is made of letters, digits, underscores and dots only.

    Raises:
        Refused: 400 otherwise. `$and`, `$or` and the like end here too: the service has no logical operators.
    """
    if not _FIELD_NAME.fullmatch(field):
        raise Refused(400, f"Invalid field name: {field}")


def matches_pattern(pattern: str, text: str | None) -> bool:
    """Tell whether `pattern` is found in `text`; the SQL function behind `$regex`."""
    return text is not None and re.search(pattern, text) is not None


def _field_condition(field: str, wanted: Any, operators: frozenset[str]) -> Condition:
    check_field_name(field)
    if not isinstance(wanted, dict):
        return _one_of(field, [wanted])
    if not wanted:
        raise Refused(400, f"No operator given for field: {field}")
    return _all_of([_operator_condition(field, name, operand, operators) for name, operand in wanted.items()])


def _operator_condition(field: str, operator: str, operand: Any, operators: frozenset[str]) -> Condition:
    if operator not in operators:
        raise Refused(400, f"Unsupported operator: {operator}")
    if operator in COMPARISONS:
        return _compared(field, COMPARISONS[operator], operand)
    return _BUILDERS[operator](field, operand)


def _one_of(field: str, values: Sequence[Any]) -> Condition:
    for value in values:
        _check_scalar(field, value)
    texts = [value for value in values if isinstance(value, str)]
    numbers = [value for value in values if _is_number(value)]
    kinds = []
    if texts:
        kinds.append(_text(field, "IN (SELECT value FROM json_each(?))", _as_json(texts)))
    if numbers:
        kinds.append(_number(field, "IN (SELECT value FROM json_each(?))", _as_json(numbers)))
    kinds += [_type_is(field, "true" if value else "false") for value in values if isinstance(value, bool)]
    if None in values:
        kinds.append(Condition("coalesce(json_type(row_data, ?), 'null') = 'null'", (_path(field),)))
    return _any_of(kinds)


def _compared(field: str, comparison: str, operand: Any) -> Condition:
    if isinstance(operand, str):
        return _text(field, f"{comparison} ?", operand)
    if _is_number(operand):
        return _number(field, f"{comparison} ?", _bindable(operand))
    raise Refused(400, f"Only texts and numbers can be compared, field: {field}")


def _contains(field: str, operand: Any) -> Condition:
    _check_scalar(field, operand)
    if operand is None:
        raise Refused(400, f"$contains needs a value, field: {field}")
    if isinstance(operand, str):
        return _any_of([_text_contains(field, operand), _has_element(field, "= 'text'", operand)])
    if isinstance(operand, bool):
        return _has_element(field, f"= '{str(operand).lower()}'", int(operand))
    return _has_element(field, "IN ('integer', 'real')", _bindable(operand))


def _has_element(field: str, kind: str, operand: Parameter) -> Condition:
    return Condition(
        f"(json_type(row_data, ?) = 'array' AND EXISTS ({_AN_ELEMENT} element.type {kind} AND element.value = ?))",
        (_path(field), _path(field), operand),
    )


def _regex(field: str, operand: Any) -> Condition:
    if not isinstance(operand, str) or len(operand) > _LONGEST_PATTERN or _RUNAWAY_PATTERN.search(operand):
        raise Refused(400, f"Dangerous or unsupported pattern, field: {field}")
    try:
        re.compile(operand)
    except re.error as error:
        raise Refused(400, f"Invalid regex pattern: {error}") from error
    return Condition(
        "(json_type(row_data, ?) = 'text' AND matches_pattern(?, json_extract(row_data, ?)))",
        (_path(field), operand, _path(field)),
    )


def _listed(field: str, operand: Any) -> Condition:
    if not isinstance(operand, list):
        raise Refused(400, f"$in and $nin need a list, field: {field}")
    return _one_of(field, operand)


_BUILDERS: dict[str, Callable[[str, Any], Condition]] = {
    "$eq": lambda field, operand: _one_of(field, [operand]),
    "$ne": lambda field, operand: _one_of(field, [operand]).negated(),
    "$in": _listed,
    "$nin": lambda field, operand: _listed(field, operand).negated(),
    "$contains": _contains,
    "$regex": _regex,
}


def _sort_terms(field: str, direction: Any) -> Condition:
    check_field_name(field)
    if isinstance(direction, bool) or direction not in (1, -1):
        raise Refused(400, f"Sort direction must be 1 or -1, field: {field}")
    way = "ASC" if direction == 1 else "DESC"
    by_value = Condition(f"json_extract(row_data, ?) {way}", (_path(field),))
    if field not in INDEXED_FIELDS:
        return by_value
    # The column comes first so that SQLite walks its index; the value behind it only orders what is not text.
    return _joined(", ", [Condition(f"text_of_{field} {way}"), by_value])


def _text(field: str, test: str, *operands: str) -> Condition:
    if field in INDEXED_FIELDS:
        return Condition(f"text_of_{field} {test}", operands)
    path = _path(field)
    return Condition(
        f"(json_type(row_data, ?) = 'text' AND json_extract(row_data, ?) {test})",
        (path, path, *operands),
    )


def _text_contains(field: str, operand: str) -> Condition:
    path = _path(field)
    return Condition(
        "(json_type(row_data, ?) = 'text' AND instr(json_extract(row_data, ?), ?) > 0)",
        (path, path, operand),
    )


def _number(field: str, test: str, *operands: Parameter) -> Condition:
    path = _path(field)
    return Condition(
        f"(json_type(row_data, ?) IN ('integer', 'real') AND json_extract(row_data, ?) {test})",
        (path, path, *operands),
    )


def _type_is(field: str, kind: str) -> Condition:
    return Condition(f"json_type(row_data, ?) = '{kind}'", (_path(field),))


def _check_scalar(field: str, value: Any) -> None:
    if isinstance(value, dict | list):
        raise Refused(400, f"Arrays and objects cannot be compared, field: {field}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _bindable(number: int | float) -> int | float:
    # SQLite refuses integers beyond 64 bits; JSON text with such a number is read as a float by it too.
    return number if isinstance(number, float) or _SMALLEST_INTEGER <= number <= _LARGEST_INTEGER else float(number)


def _path(field: str) -> str:
    return "$" + "".join(f'."{step}"' for step in field.split("."))


def _as_json(values: Sequence[Any]) -> str:
    return orjson.dumps(values).decode()


def _all_of(conditions: Sequence[Condition]) -> Condition:
    return _joined(" AND ", conditions) if conditions else EVERYTHING


def _any_of(conditions: Sequence[Condition]) -> Condition:
    if not conditions:
        return NOTHING
    if len(conditions) == 1:
        return conditions[0]
    either = _joined(" OR ", conditions)
    return Condition(f"({either.sql})", either.parameters)


def _joined(glue: str, conditions: Sequence[Condition]) -> Condition:
    return Condition(
        glue.join(condition.sql for condition in conditions),
        tuple(parameter for condition in conditions for parameter in condition.parameters),
    )
