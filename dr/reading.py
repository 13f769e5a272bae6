"""Reading a snapshot ahead of those who write it: pieces of bounded size, each record checked byte for byte."""

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, as_completed, wait
from contextlib import suppress
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import TypeVar

from django.db import connection

from content.recovery import Copy
from dr.archives.base import ArchiveUnavailable, CurrentRecord
from dr.records import is_intact, version_of
from engarde.common import request_ids

PIECE_RECORDS = 500
PIECE_CHARACTERS = 8 * 1024**2
PIECES_AHEAD = 1
POLL_SECONDS = 0.2
STALL_SECONDS = 300.0
JOIN_SECONDS = 10.0
HANDS = 2

T = TypeVar("T")
R = TypeVar("R")
Damage = Callable[[CurrentRecord, str], None]
Piece = tuple[int, list[Copy]]
"""How many records were read, and the copies among them that are intact."""


def pieces(records: Iterator[CurrentRecord]) -> Iterator[list[CurrentRecord]]:
    """Yield runs of records of bounded number and size."""
    piece: list[CurrentRecord] = []
    size = 0
    for one in records:
        length = len(one.record.document or one.record.facts)
        if piece and (len(piece) >= PIECE_RECORDS or size + length > PIECE_CHARACTERS):
            yield piece
            piece, size = [], 0
        piece.append(one)
        size += length
    if piece:
        yield piece


def ahead(source: Iterator[T]) -> Iterator[T]:
    """Yield what a source yields, which a thread reads a little ahead; the thread ends when the reader stops."""
    queue: Queue[tuple[bool, T | BaseException | None]] = Queue(PIECES_AHEAD)
    stopped = Event()
    thread = Thread(target=_read, args=(source, queue, stopped), name="reads a snapshot ahead", daemon=True)
    thread.start()
    try:
        while True:
            is_one, got = _next(queue)
            if is_one:
                yield got  # type: ignore[misc]  # the flag says that it is one of the source's
            elif isinstance(got, BaseException):
                raise got
            else:
                return
    finally:
        stopped.set()
        with suppress(Empty):
            while True:
                queue.get_nowait()
        thread.join(JOIN_SECONDS)


def _next(queue: "Queue[tuple[bool, T | BaseException | None]]") -> tuple[bool, T | BaseException | None]:
    try:
        return queue.get(timeout=STALL_SECONDS)
    except Empty:
        raise ArchiveUnavailable(f"The backup has given nothing for {STALL_SECONDS:g} s.") from None


def _read(source: Iterator[T], queue: "Queue[tuple[bool, T | BaseException | None]]", stopped: Event) -> None:
    end: BaseException | None = None
    try:
        for one in source:
            if not _put(queue, (True, one), stopped):
                return
    except BaseException as error:  # noqa: BLE001 -- raised again where the pieces are used
        end = error
    _put(queue, (False, end), stopped)


def _put(queue: "Queue[tuple[bool, T | BaseException | None]]", item: object, stopped: Event) -> bool:
    while not stopped.is_set():
        with suppress(Full):
            queue.put(item, timeout=POLL_SECONDS)  # type: ignore[arg-type]
            return True
    return False


def spread(write: Callable[[list[Copy]], R], pieces: Iterator[Piece]) -> Iterator[tuple[int, list[Copy], R | None]]:
    """Have some threads write pieces, each with a connection of its own; yield each with what came of it, in no order.

    While one waits for PostgreSQL, another prepares what it sends. The first error is raised once those under way have ended.
    """
    with request_ids.threads(HANDS, "writes pieces") as pool:
        under_way: set[Future[tuple[int, list[Copy], R | None]]] = set()
        for piece in pieces:
            under_way.add(pool.submit(_written, write, piece))
            if len(under_way) >= HANDS:
                ended, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                yield from (one.result() for one in ended)
        yield from (one.result() for one in as_completed(under_way))


def _written(write: Callable[[list[Copy]], R], piece: Piece) -> tuple[int, list[Copy], R | None]:
    count, copies = piece
    try:
        return count, copies, write(copies) if copies else None
    finally:
        connection.close()  # threads come and go


def copies(piece: list[CurrentRecord], damaged: Damage) -> list[Copy]:
    """Return the versions that records of content are copies of, without those that are not what was sent."""
    found = []
    for one in piece:
        record = one.record
        if not is_intact(record) or record.document is None:
            damaged(one, f"version {record.version} is not what was backed up")
            continue
        facts = version_of(record)
        found.append(Copy(record.tenant_id, facts, record.document, one.is_current, one.highest))
    return found
