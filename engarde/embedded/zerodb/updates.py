"""The five update operators of ZeroDB's bulk update, applied to one row's data.

Their meaning is MongoDB's, whose names they carry; the vendor's catalogue only lists the names. A dot in a field name is
a step into a nested object, as in filters.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

from engarde.embedded.zerodb.errors import Refused
from engarde.embedded.zerodb.filters import check_field_name


def apply_update(row_data: Mapping[str, Any], update: Mapping[str, Any]) -> dict[str, Any]:
    """Return a changed copy of `row_data`.

    Raises:
        Refused: 400 for an unknown operator, a bad field name, or a value the operator cannot work on.
    """
    changed = copy.deepcopy(dict(row_data))
    for operator, fields in update.items():
        for field, operand in fields.items():
            parent, name = _parent_of(changed, field)
            _OPERATORS[operator](parent, name, operand)
    return changed


def check_update(update: Mapping[str, Any]) -> None:
    """Let `update` pass when it names known operators and good field names.

    Raises:
        Refused: 400 otherwise, and for an empty update.
    """
    if not update:
        raise Refused(400, "Update cannot be empty")
    for operator, fields in update.items():
        if operator not in _OPERATORS:
            raise Refused(400, f"Unsupported update operator: {operator}")
        if not isinstance(fields, dict):
            raise Refused(400, f"{operator} needs an object of fields")
        for field in fields:
            check_field_name(field)


def _parent_of(row_data: dict[str, Any], field: str) -> tuple[dict[str, Any], str]:
    *steps, name = field.split(".")
    parent: Any = row_data
    for step in steps:
        parent = parent.setdefault(step, {})
        if not isinstance(parent, dict):
            raise Refused(400, f"Field is not an object: {step}")
    return parent, name


def _set(parent: dict[str, Any], name: str, operand: Any) -> None:
    parent[name] = operand


def _increment(parent: dict[str, Any], name: str, operand: Any) -> None:
    value = parent.get(name, 0)
    if not _is_number(value) or not _is_number(operand):
        raise Refused(400, f"$inc needs numbers, field: {name}")
    parent[name] = value + operand


def _push(parent: dict[str, Any], name: str, operand: Any) -> None:
    _list_in(parent, name, "$push").append(operand)


def _pull(parent: dict[str, Any], name: str, operand: Any) -> None:
    if name in parent:
        parent[name] = [element for element in _list_in(parent, name, "$pull") if element != operand]


def _unset(parent: dict[str, Any], name: str, _operand: Any) -> None:
    parent.pop(name, None)


def _list_in(parent: dict[str, Any], name: str, operator: str) -> list[Any]:
    value = parent.setdefault(name, [])
    if not isinstance(value, list):
        raise Refused(400, f"{operator} needs an array, field: {name}")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_OPERATORS: dict[str, Callable[[dict[str, Any], str, Any], None]] = {
    "$set": _set,
    "$inc": _increment,
    "$push": _push,
    "$pull": _pull,
    "$unset": _unset,
}
