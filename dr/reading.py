"""Reading a snapshot ahead of who writes it: pieces of bounded size, each record checked byte for byte."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import TypeVar

from content.recovery import Copy
from dr.archives.base import CurrentRecord
from dr.records import is_intact, version_of

PIECE_RECORDS = 1000
PIECE_CHARACTERS = 8 * 1024**2
PIECES_AHEAD = 2
POLL_SECONDS = 0.2

T = TypeVar("T")
Damage = Callable[[CurrentRecord, str], None]


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
            is_one, got = queue.get()
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
        thread.join()


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
