"""Byte ranges (RFC 9110, section 14): which part of a file a request wants."""

import re
from dataclasses import dataclass

from engarde.common.problems import Problem

ONE_RANGE = re.compile(r"bytes[ \t]*=[ \t]*(\d{0,300})-(\d{0,300})[ \t]*", re.ASCII | re.IGNORECASE)


class RangeNotSatisfiable(Problem):
    """The range lies outside the file."""

    status, code, title = 416, "range_not_satisfiable", "Range not satisfiable"

    def __init__(self, size: int) -> None:
        super().__init__(f"The file has {size} bytes.", headers={"Content-Range": f"bytes */{size}"})


@dataclass(frozen=True, slots=True)
class Span:
    """A run of bytes: `length` of them from `start` on."""

    start: int
    length: int

    def content_range(self, size: int) -> str:
        """Return the header that tells which bytes of a file these are."""
        return f"bytes {self.start}-{self.start + self.length - 1}/{size}"


def wanted(header: str | None, size: int) -> Span | None:
    """Return the range that a Range header asks for; None for the whole file.

    A header that is malformed or asks for several ranges is ignored, as a server may.

    Raises:
        RangeNotSatisfiable: it begins behind the end.
    """
    match = ONE_RANGE.fullmatch(header.strip()) if header else None
    if match is None or not any(match.groups()):
        return None
    first, last = match.groups()
    if not first:
        return _span(max(0, size - int(last)), size - 1, size) if int(last) else _refuse(size)
    if last and int(last) < int(first):
        return None
    return _span(int(first), min(int(last), size - 1) if last else size - 1, size)


def _span(first: int, last: int, size: int) -> Span:
    return Span(first, last - first + 1) if first < size else _refuse(size)


def _refuse(size: int) -> Span:
    raise RangeNotSatisfiable(size)


def is_current(if_range: str | None, etag: str, last_modified: str) -> bool:
    """Tell whether a part may be sent: the caller's If-Range names this very file, or there is none."""
    return if_range is None or if_range.strip() in {etag, last_modified}
