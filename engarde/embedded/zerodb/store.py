"""Tables and rows in SQLite, and the objects that the API answers with.

A row's data is kept as JSON text. Looking rows up by the fields in `filters.INDEXED_FIELDS` (and ordering by them) stays
fast with any number of rows: a generated column holds the field where it is text, and an index covers it.
"""

import sqlite3
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import orjson

from engarde.embedded.zerodb.database import Database
from engarde.embedded.zerodb.errors import Refused
from engarde.embedded.zerodb.filters import EVERYTHING, INDEXED_FIELDS, Condition, compile_sort
from engarde.embedded.zerodb.updates import apply_update

Result = TypeVar("Result")

UNCONFIRMED_ROWS = 100
"""How many rows a bulk call may touch without `confirm_large_operation`."""

_FILE_NAME = "zerodb.sqlite3"
_ROW_COLUMNS = "seq, row_id, created_at, updated_at, row_data"
_ROWS_OF_TABLE = "FROM data_row WHERE table_id = ? AND"
_COLUMNS = "".join(
    f""",
    text_of_{field} TEXT GENERATED ALWAYS AS (
        CASE json_type(row_data, '$."{field}"') WHEN 'text' THEN json_extract(row_data, '$."{field}"') END) VIRTUAL"""
    for field in INDEXED_FIELDS
)
_INDEXES = "".join(
    f"CREATE INDEX IF NOT EXISTS row_by_{field} ON data_row (table_id, text_of_{field});" for field in INDEXED_FIELDS
)
SCHEMA = f"""
CREATE TABLE IF NOT EXISTS data_table (
    table_id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    description TEXT,
    schema TEXT NOT NULL,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS data_row (
    seq INTEGER PRIMARY KEY,
    row_id TEXT NOT NULL UNIQUE,
    table_id TEXT NOT NULL REFERENCES data_table ON DELETE CASCADE,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    row_data TEXT NOT NULL{_COLUMNS}
);
CREATE INDEX IF NOT EXISTS row_by_table ON data_row (table_id);
{_INDEXES}
"""


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the objects that match, and how many match in all."""

    total: int
    items: list[dict[str, Any]]


class Store:
    """The emulator's data: runs jobs on `Tables` away from the event loop."""

    def __init__(self, folder: Path, project_id: str) -> None:
        """Open (or create) the data file in `folder`, which is created when missing."""
        folder.mkdir(parents=True, exist_ok=True)
        self._database = Database(folder / _FILE_NAME, SCHEMA)
        self._project_id = project_id

    async def read(self, job: Callable[["Tables"], Result]) -> Result:
        """Run `job`, which must only read."""
        return await self._database.read(lambda connection: job(Tables(connection, self._project_id)))

    async def write(self, job: Callable[["Tables"], Result]) -> Result:
        """Run `job` and return once what it wrote is on disk; an exception undoes all of it."""
        return await self._database.write(lambda connection: job(Tables(connection, self._project_id)))

    def close(self) -> None:
        """Finish accepted writes and close the file."""
        self._database.close()


class Tables:
    """What one request can do to the data, inside one transaction.

    Tables are found by name or by id alike, because the catalogue says id in some paths and name in others. Methods raise
    `Refused` with 404 for a table or row that is not there, in the service's own words.
    """

    def __init__(self, connection: sqlite3.Connection, project_id: str) -> None:
        self._connection = connection
        self._project_id = project_id

    def create_table(self, name: str, description: str | None, schema: Mapping[str, Any]) -> dict[str, Any]:
        """Create a table and return its object; 409 when the name is taken."""
        now = moment()
        values = (str(uuid.uuid4()), name, description, orjson.dumps(schema).decode(), now, now)
        try:
            self._connection.execute("INSERT INTO data_table VALUES (?, ?, ?, ?, ?, ?)", values)
        except sqlite3.IntegrityError as error:
            raise Refused(409, f"Table '{name}' already exists") from error
        return self.get_table(name)

    def list_tables(self, skip: int, limit: int) -> Page:
        """Return tables in the order they were made."""
        found = self._connection.execute("SELECT * FROM data_table ORDER BY rowid LIMIT ? OFFSET ?", (limit, skip))
        items = [self._table_object(table) for table in found.fetchall()]
        return Page(self._count("SELECT count(*) FROM data_table"), items)

    def get_table(self, table: str) -> dict[str, Any]:
        """Return a table's object."""
        return self._table_object(self._find_table(table))

    def delete_table(self, table: str) -> None:
        """Delete a table with its rows."""
        self._connection.execute("DELETE FROM data_table WHERE table_id = ?", (self._find_table(table)["table_id"],))

    def insert_row(self, table: str, row_data: Mapping[str, Any]) -> dict[str, Any]:
        """Add a row under a new id and return its object."""
        table_id = self._find_table(table)["table_id"]
        row_id, now = str(uuid.uuid4()), moment()
        self._connection.execute(
            "INSERT INTO data_row (row_id, table_id, created_at, updated_at, row_data) VALUES (?, ?, ?, ?, ?)",
            (row_id, table_id, now, now, orjson.dumps(row_data).decode()),
        )
        return self.get_row(table, row_id)

    def find_rows(
        self,
        table: str,
        condition: Condition,
        sort: Mapping[str, Any],
        skip: int,
        limit: int,
        until: str | None = None,
    ) -> Page:
        """Return the rows that match and were made by `until`, ordered by `sort`, then by insertion."""
        owner = self._find_table(table)
        if until is not None:
            condition = Condition(f"created_at <= ? AND {condition.sql}", (until, *condition.parameters))
        order = compile_sort(sort)
        matching = f"{_ROWS_OF_TABLE} {condition.sql}"
        total = self._count(f"SELECT count(*) {matching}", owner["table_id"], *condition.parameters)
        found = self._connection.execute(
            f"SELECT {_ROW_COLUMNS} {matching} ORDER BY {order.sql} LIMIT ? OFFSET ?",
            (owner["table_id"], *condition.parameters, *order.parameters, limit, skip),
        )
        return Page(total, [self._row_object(owner, row) for row in found])

    def get_row(self, table: str, row_id: str, until: str | None = None) -> dict[str, Any]:
        """Return a row's object, if the row was made by `until`."""
        owner = self._find_table(table)
        row = self._find_row(owner, row_id)
        if until is not None and row["created_at"] > until:
            raise Refused(404, "Row not found")
        return self._row_object(owner, row)

    def replace_row(
        self, table: str, row_id: str, row_data: Mapping[str, Any], *, merge: bool = False
    ) -> dict[str, Any]:
        """Put `row_data` in place of all the row's data, or only of the fields it names, and return its object."""
        row = self._find_row(self._find_table(table), row_id)
        self._write_row_data(row["seq"], {**orjson.loads(row["row_data"]), **row_data} if merge else row_data)
        return self.get_row(table, row_id)

    def delete_row(self, table: str, row_id: str) -> None:
        """Delete a row."""
        row = self._find_row(self._find_table(table), row_id)
        self._connection.execute("DELETE FROM data_row WHERE seq = ?", (row["seq"],))

    def update_rows(
        self, table: str, condition: Condition, update: Mapping[str, Any], *, confirmed: bool
    ) -> tuple[int, int]:
        """Apply `update` to all rows that match; return how many matched and how many changed by it."""
        modified = 0
        rows = self._rows_for_bulk(table, condition, confirmed=confirmed)
        for seq, text in rows:
            before = orjson.loads(text)
            after = apply_update(before, update)
            if after != before:
                self._write_row_data(seq, after)
                modified += 1
        return len(rows), modified

    def delete_rows(self, table: str, condition: Condition, *, confirmed: bool) -> int:
        """Delete all rows that match; return how many they were."""
        rows = self._rows_for_bulk(table, condition, confirmed=confirmed)
        self._connection.executemany("DELETE FROM data_row WHERE seq = ?", [(seq,) for seq, _ in rows])
        return len(rows)

    def _rows_for_bulk(self, table: str, condition: Condition, *, confirmed: bool) -> list[tuple[int, str]]:
        if condition == EVERYTHING:
            raise Refused(400, "Filter cannot be empty for bulk operations")
        table_id = self._find_table(table)["table_id"]
        found = self._connection.execute(
            f"SELECT seq, row_data {_ROWS_OF_TABLE} {condition.sql}", (table_id, *condition.parameters)
        )
        rows = [(row["seq"], row["row_data"]) for row in found]
        if len(rows) > UNCONFIRMED_ROWS and not confirmed:
            raise Refused(400, f"Operation affects {len(rows)} rows; set confirm_large_operation to true")
        return rows

    def _write_row_data(self, seq: int, row_data: Mapping[str, Any]) -> None:
        self._connection.execute(
            "UPDATE data_row SET row_data = ?, updated_at = ? WHERE seq = ?",
            (orjson.dumps(row_data).decode(), moment(), seq),
        )

    def _find_table(self, table: str) -> sqlite3.Row:
        found = self._connection.execute("SELECT * FROM data_table WHERE name = ?1 OR table_id = ?1", (table,))
        return _present(found.fetchone(), "Table")

    def _find_row(self, owner: sqlite3.Row, row_id: str) -> sqlite3.Row:
        found = self._connection.execute(
            f"SELECT {_ROW_COLUMNS} {_ROWS_OF_TABLE} row_id = ?", (owner["table_id"], row_id)
        )
        return _present(found.fetchone(), "Row")

    def _count(self, sql: str, *parameters: Any) -> int:
        count: int = self._connection.execute(sql, parameters).fetchone()[0]
        return count

    def _table_object(self, table: sqlite3.Row) -> dict[str, Any]:
        return {
            "table_id": table["table_id"],
            "table_name": table["name"],
            "project_id": self._project_id,
            "description": table["description"],
            "schema": orjson.Fragment(table["schema"]),
            "row_count": self._count("SELECT count(*) FROM data_row WHERE table_id = ?", table["table_id"]),
            "created_at": table["created_at"],
            "updated_at": table["updated_at"],
        }

    def _row_object(self, owner: sqlite3.Row, row: sqlite3.Row) -> dict[str, Any]:
        return {
            "row_id": row["row_id"],
            "project_id": self._project_id,
            "table_id": owner["table_id"],
            "table_name": owner["name"],
            "row_data": orjson.Fragment(row["row_data"]),
            "created_at": row["created_at"],
            "updated_at": row["updated_at"],
        }


def _present(found: sqlite3.Row | None, what: str) -> sqlite3.Row:
    if found is None:
        raise Refused(404, f"{what} not found")
    return found


def moment(ago: timedelta = timedelta()) -> str:
    """Return the time now, or some time ago, in the form of `created_at`; such texts order as times do."""
    return (datetime.now(UTC) - ago).isoformat(timespec="microseconds").replace("+00:00", "Z")
