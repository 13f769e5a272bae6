"""Cursors: where a list goes on, opaque to its reader, good only for the filters and the sort that it came with."""

import hashlib
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson

from engarde.common import json
from engarde.common.problems import Invalid

LONGEST = 3000  # the longest title, each character of it escaped in JSON
LARGEST = 2**63 - 1  # a bigint
JSON_TYPES: dict[type, type] = {int: int, float: float}  # the others are written as text


def digest(filters: Mapping[str, Any]) -> str:
    """Return a short name of a list's filters and sort."""
    text = json.canonical({name: str(value) for name, value in filters.items()})
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def encode(values: Sequence[Any], digest: str) -> str:
    """Return the cursor that stands after a row with these sort values."""
    return urlsafe_b64encode(json.dumps([digest, *values])).rstrip(b"=").decode()


def decode(cursor: str, digest: str, kinds: Sequence[type]) -> list[Any]:
    """Return the sort values that a cursor stands after.

    Args:
        kinds: the type of each value: str, int (not below 0), float, UUID or datetime (with a zone).

    Raises:
        Invalid: it was not made here, or for other filters.
    """
    try:
        made_for, *values = orjson.loads(_unwrapped(cursor))
        found = [_typed(kind, value) for kind, value in zip(kinds, values, strict=True)]
    except (ValueError, TypeError, OverflowError) as error:
        raise Invalid("cursor", "It is not a cursor of this list.") from error
    if made_for != digest:
        raise Invalid("cursor", "It belongs to other filters or another sort.")
    return found


def _unwrapped(cursor: str) -> bytes:
    """Return the JSON in a cursor; unlike `urlsafe_b64decode`, take no character for nothing."""
    if len(cursor) > LONGEST or "=" in cursor:
        raise ValueError("not a cursor")
    return b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)


def _typed(kind: type, value: Any) -> Any:
    is_as_written: bool = type(value) is JSON_TYPES.get(kind, str)  # a bool is no number here
    if not is_as_written:
        raise TypeError("not what a list is sorted by")
    if kind is UUID:
        return UUID(value)
    if kind is datetime:
        return _time(value)
    if (kind is str and "\0" in value) or (kind is int and not 0 <= value <= LARGEST):
        raise ValueError("nothing that a list can be sorted by")
    return value


def _time(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError("a time without a zone")
    return found.astimezone(UTC)
