"""What each request may carry, and the 422 answer for everything else.

The real service is FastAPI, so a 422 has its shape: a list of `{"type", "loc", "msg", "input"}`. FastAPI ignores unknown
keys unless told otherwise; here they are refused, so that a misspelt key cannot pass unnoticed. The vendor's own Python client
takes three liberties that no page contradicts and that do no harm; they pass: `"offset": 0` beside `limit`, which asks for
nothing (any other `offset` is refused, as the service knows `skip` and would answer page one), `"limit": 0` in a query, which
only counts, and `"confirm": true` when a table is deleted.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson
from starlette.requests import Request

from engarde.embedded.zerodb.errors import Refused

LARGEST_LIMIT = 1000
USUAL_LIMIT = 100
# SQLite's largest integer.
_LARGEST_SKIP = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Field:
    """One allowed key.

    Attributes:
        kind: Its type; float takes whole numbers too.
        required: Whether it must be there.
        default: Its value otherwise.
        at_least: The smallest number.
        at_most: The largest number.
        pattern: What a text must match.
        choices: What the elements of a list can be.
    """

    kind: type
    required: bool = False
    default: Any = None
    at_least: int | None = None
    at_most: int | None = None
    pattern: str | None = None
    choices: tuple[str, ...] | None = None


Fields = Mapping[str, Field]

_TABLE_NAME = Field(str, pattern=r"[A-Za-z0-9_-]{1,255}")
_FILTER = Field(dict, default={})
_CONFIRMATION = Field(bool, default=False)

PAGE: Fields = {
    "skip": Field(int, default=0, at_least=0, at_most=_LARGEST_SKIP),
    "limit": Field(int, default=USUAL_LIMIT, at_least=1, at_most=LARGEST_LIMIT),
}
NOTHING: Fields = {}
NEW_TABLE: Fields = {
    "name": _TABLE_NAME,
    "table_name": _TABLE_NAME,
    "description": Field(str),
    "schema": Field(dict),
    "schema_definition": Field(dict),
}
ROW: Fields = {"row_data": Field(dict, required=True)}
QUERY: Fields = {
    "filter": _FILTER,
    "sort": Field(dict, default={}),
    "skip": PAGE["skip"],
    "limit": replace(PAGE["limit"], at_least=0),
}
DELETION: Fields = {"confirm": Field(bool, default=True)}
BULK_UPDATE: Fields = {
    "filter": Field(dict, required=True),
    "update": Field(dict, required=True),
    "confirm_large_operation": _CONFIRMATION,
}
BULK_DELETE: Fields = {"filter": Field(dict, required=True), "confirm_large_operation": _CONFIRMATION}


async def read_body(request: Request, fields: Fields) -> dict[str, Any]:
    """Return the JSON body's values for `fields`, defaults filled in.

    Raises:
        Refused: 422 when the body is no JSON object or does not fit.
    """
    text = await request.body()
    if not text and not any(field.required for field in fields.values()):
        return _checked({}, fields, "body")
    try:
        body = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Refused(422, [_problem("json_invalid", ["body", error.pos], "JSON decode error", {})]) from error
    if not isinstance(body, dict):
        raise Refused(422, [_problem("model_attributes_type", ["body"], "Input should be a valid dictionary", body)])
    return _checked(body, fields, "body")


def read_query_string(request: Request, fields: Fields) -> dict[str, Any]:
    """Return the query string's values for `fields` (all of them whole numbers), defaults filled in.

    Raises:
        Refused: 422 when it does not fit, `offset` in place of `skip` included.
    """
    given = {name: int(value) if value.isdecimal() else value for name, value in request.query_params.items()}
    return _checked(given, fields, "query")


async def refuse_body(request: Request) -> None:
    """Let a request without a body pass; none is documented for it.

    Raises:
        Refused: 422 when there is one.
    """
    await read_body(request, NOTHING)


def table_name_in(body: Mapping[str, Any]) -> str:
    """Return the name of the table to create: the vendor's pages write `name` or `table_name`, and either will do.

    Raises:
        Refused: 422 when both are missing, or both are there and differ.
    """
    names = {body[key] for key in ("name", "table_name") if body[key] is not None}
    if not names:
        raise Refused(422, [_problem("missing", ["body", "name"], "Field required", body)])
    if len(names) > 1:
        raise Refused(422, [_problem("value_error", ["body", "name"], "name and table_name differ", body)])
    return str(names.pop())


def unknown_key(place: str, name: str, value: Any) -> dict[str, Any]:
    """Return what a 422 answer says of a key that the service does not know."""
    return _problem("extra_forbidden", [place, name], "Extra inputs are not permitted", value)


def _checked(given: Mapping[str, Any], fields: Fields, place: str) -> dict[str, Any]:
    problems = [
        unknown_key(place, name, value)
        for name, value in given.items()
        if name not in fields and not _asks_for_nothing(name, value, fields)
    ]
    problems += [
        _problem("missing", [place, name], "Field required", given)
        for name, field in fields.items()
        if field.required and name not in given
    ]
    problems += [
        _problem(complaint[0], [place, name], complaint[1], value)
        for name, value in given.items()
        if name in fields and (complaint := _complaint(value, fields[name]))
    ]
    if problems:
        raise Refused(422, problems)
    return {name: given.get(name, field.default) for name, field in fields.items()}


def _asks_for_nothing(name: str, value: Any, fields: Fields) -> bool:
    return name == "offset" and value == 0 and "skip" in fields


def _complaint(value: Any, field: Field) -> tuple[str, str] | None:
    if value is None and not field.required and field.default is None:
        return None
    kinds = (int, float) if field.kind is float else field.kind
    if not isinstance(value, kinds) or (isinstance(value, bool) and field.kind is not bool):
        return f"{field.kind.__name__}_type", f"Input should be a valid {field.kind.__name__}"
    return _complaint_of_bounds(value, field)


def _complaint_of_bounds(value: Any, field: Field) -> tuple[str, str] | None:
    if field.at_least is not None and value < field.at_least:
        return "greater_than_equal", f"Input should be greater than or equal to {field.at_least}"
    if field.at_most is not None and value > field.at_most:
        return "less_than_equal", f"Input should be less than or equal to {field.at_most}"
    if field.pattern is not None and not re.fullmatch(field.pattern, value):
        return "string_pattern_mismatch", f"String should match pattern '{field.pattern}'"
    if field.choices is not None and not all(element in field.choices for element in value):
        return "literal_error", f"Elements should be among {', '.join(field.choices)}"
    return None


def _problem(kind: str, loc: list[str | int], message: str, value: Any) -> dict[str, Any]:
    return {"type": kind, "loc": loc, "msg": message, "input": value}
