"""SQLite away from the event loop: one writer thread that commits in groups, and a few reader threads.

An answered write is on disk: the file is in WAL mode with synchronous=FULL, and a write's caller is answered only after
the commit that carries it. Writes that arrive while a commit is under way share the next one, each in a savepoint.
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from engarde.embedded.zerodb.filters import matches_pattern

Result = TypeVar("Result")
Job = Callable[[sqlite3.Connection], Result]
Write = tuple[Job[Any], Future[Any]]

_READERS = 4
_LARGEST_GROUP = 200
_BUSY_SECONDS = 30.0


class Database:
    """One SQLite file. Jobs get a connection inside a transaction and must not keep it."""

    def __init__(self, path: Path, schema: str) -> None:
        """Open the file at `path`, creating it with the SQL script `schema` (which must bear being run again)."""
        self._path = path
        self._connections: list[sqlite3.Connection] = []
        self._thread = threading.local()
        self._writes: queue.SimpleQueue[Write | None] = queue.SimpleQueue()
        connection = self._connect()
        connection.executescript(f"PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; {schema}")
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="zerodb-reader")
        self._writer = threading.Thread(target=self._write_loop, args=(connection,), name="zerodb-writer")
        self._writer.start()

    async def read(self, job: Job[Result]) -> Result:
        """Run `job` on one consistent state of the data and return its result."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, job)

    async def write(self, job: Job[Result]) -> Result:
        """Run `job`, commit what it did and return its result; an exception undoes it and comes through."""
        future: Future[Result] = Future()
        self._writes.put((job, future))
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Finish the writes already accepted and close the file."""
        self._writes.put(None)
        self._writer.join()
        self._readers.shutdown()
        for connection in self._connections:
            connection.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, _BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA foreign_keys = ON")
        connection.create_function("matches_pattern", 2, matches_pattern, deterministic=True)
        self._connections.append(connection)
        return connection

    def _read(self, job: Job[Result]) -> Result:
        connection: sqlite3.Connection | None = getattr(self._thread, "connection", None)
        if connection is None:
            connection = self._thread.connection = self._connect()
        connection.execute("BEGIN")
        try:
            return job(connection)
        finally:
            connection.execute("ROLLBACK")

    def _write_loop(self, connection: sqlite3.Connection) -> None:
        running = True
        while running:
            group, running = self._next_group()
            _commit_together(connection, group)

    def _next_group(self) -> tuple[list[Write], bool]:
        group: list[Write] = []
        while write := self._writes.get():
            group.append(write)
            if len(group) == _LARGEST_GROUP or self._writes.empty():
                return group, True
        return group, False


def _commit_together(connection: sqlite3.Connection, group: list[Write]) -> None:
    # A caller that went away before its turn is left out; from here on nobody can cancel.
    group = [(job, future) for job, future in group if future.set_running_or_notify_cancel()]
    outcomes: list[tuple[Future[Any], Any, Exception | None]] = []
    try:
        connection.execute("BEGIN IMMEDIATE")
        outcomes = [(future, *_attempt(connection, job)) for job, future in group]
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        outcomes = [(future, None, error) for _, future in group]
    for future, result, failure in outcomes:
        if failure is None:
            future.set_result(result)
        else:
            future.set_exception(failure)


def _attempt(connection: sqlite3.Connection, job: Job[Any]) -> tuple[Any, Exception | None]:
    connection.execute("SAVEPOINT job")
    try:
        result = job(connection)
    except Exception as error:  # noqa: BLE001 - belongs to the caller, who gets it through the future
        connection.execute("ROLLBACK TO job")
        return None, error
    finally:
        connection.execute("RELEASE job")
    return result, None
