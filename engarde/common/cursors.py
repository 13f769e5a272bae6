"""Cursors: where a list goes on, opaque to its reader, good only for the filters and the sort that it came with."""

import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from engarde.common import json
from engarde.common.problems import Invalid

LONGEST = 2000


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
        kinds: the type of each value; a UUID or datetime is made from its text by its own constructor or parser.

    Raises:
        Invalid: it was not made here, or for other filters.
    """
    try:
        padding = "=" * (-len(cursor) % 4)
        made_for, *values = orjson.loads(urlsafe_b64decode(cursor[:LONGEST].encode("ascii") + padding.encode()))
        found = [_typed(kind, value) for kind, value in zip(kinds, values, strict=True)]
    except (ValueError, TypeError, AttributeError) as error:
        raise Invalid("cursor", "It is not a cursor of this list.") from error
    if made_for != digest:
        raise Invalid("cursor", "It belongs to other filters or another sort.")
    return found


def _typed(kind: type, value: Any) -> Any:
    parse = getattr(kind, "fromisoformat", None)
    found = parse(value) if parse else kind(value)
    if isinstance(found, str) and "\0" in found:
        raise ValueError("not a text that a list can be sorted by")
    return found
