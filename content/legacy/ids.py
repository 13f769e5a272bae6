"""Old ids: kept where they are UUIDs, else mapped, always to the same."""

import re
from uuid import NAMESPACE_URL, UUID, uuid5

SHAPE = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)


def is_uuid(old: str) -> bool:
    """Tell whether an old id is a UUID as it is usually written."""
    return bool(SHAPE.fullmatch(old))


def same(old: str) -> str:
    """Return an old id in the form in which equal ones are equal: UUIDs in lower case."""
    return old.lower() if is_uuid(old) else old


def new_id(table: str, old: str, *, keep: bool = True) -> UUID:
    """Return the id that a row has here.

    Args:
        keep: as it is, if it is a UUID; else mapped all the same, because something else has it.
    """
    return UUID(old) if keep and is_uuid(old) else uuid5(NAMESPACE_URL, f"engarde:legacy:{table}:{old}")
