"""Reading a snapshot ahead: what the reader gets, and how it ends when one side stops."""

import threading
from collections.abc import Iterator

import pytest

from dr import reading
from dr.archives.base import ArchiveUnavailable


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "reads a snapshot ahead"]


def test_it_gives_what_the_source_gives_in_order() -> None:
    assert list(reading.ahead(iter(range(100)))) == list(range(100))
    assert not readers()


def test_an_error_of_the_source_comes_where_its_pieces_are_used() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise ArchiveUnavailable("gone")

    got = reading.ahead(source())
    assert next(got) == 1
    with pytest.raises(ArchiveUnavailable, match="gone"):
        next(got)


def test_a_source_that_stands_still_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "STALL_SECONDS", 0.1)
    monkeypatch.setattr(reading, "JOIN_SECONDS", 0.1)
    released = threading.Event()

    def source() -> Iterator[int]:
        yield 1
        released.wait(30)

    got = reading.ahead(source())
    try:
        assert next(got) == 1
        with pytest.raises(ArchiveUnavailable, match="given nothing"):
            next(got)
    finally:
        released.set()


def test_it_reads_only_a_little_ahead_and_stops_when_nobody_wants_more() -> None:
    read: list[int] = []

    def source() -> Iterator[int]:
        for number in range(10_000):
            read.append(number)
            yield number

    got = reading.ahead(source())
    assert next(got) == 0
    got.close()  # type: ignore[attr-defined]

    assert len(read) <= reading.PIECES_AHEAD + 3
    assert not readers()
