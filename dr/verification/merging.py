"""Streams: two ordered ones side by side, one in pieces."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, TypeVar

Left = TypeVar("Left")
Right = TypeVar("Right")


def side_by_side(
    left: Iterator[Left], right: Iterator[Right], left_key: Callable[[Left], Any], right_key: Callable[[Right], Any]
) -> Iterator[tuple[Left | None, Right | None]]:
    """Yield what the streams have under each key, in the order of the keys; None on the side that lacks it."""
    one, other = next(left, None), next(right, None)
    while one is not None or other is not None:
        if other is None or (one is not None and left_key(one) < right_key(other)):
            yield one, None
            one = next(left, None)
        elif one is None or right_key(other) < left_key(one):
            yield None, other
            other = next(right, None)
        else:
            yield one, other
            one, other = next(left, None), next(right, None)


def in_chunks(stream: Iterator[Left], size: int) -> Iterator[list[Left]]:
    """Yield the stream in lists of at most `size`."""
    while chunk := list(islice(stream, size)):
        yield chunk
