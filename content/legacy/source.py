"""The old platform's tables, read and never written to, whatever types their columns have.

Everything is read as text: dirty rows are for `convert` to judge, not for a driver to fail on. Pages go by the id (keyset), so that
page 10,000 costs what the first one does, and end early where texts are large, so that memory stays bounded.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import psycopg
from django.conf import settings
from django.db import connection as own_connection
from psycopg import sql
from psycopg.adapt import Buffer, Loader
from psycopg.rows import dict_row

from content.legacy import ids
from engarde.common.problems import Problem

ITEMS, ASSETS = "content_items", "campaign_assets"
COLUMNS: Mapping[str, Sequence[str]] = {
    ITEMS: (
        "id",
        "tenant_id",
        "brand_id",
        "user_id",
        "title",
        "content_body",
        "content_type",
        "status",
        "content_metadata",
        "created_at",
        "updated_at",
    ),
    ASSETS: (
        "id",
        "tenant_id",
        "brand_id",
        "campaign_space_id",
        "user_id",
        "asset_name",
        "asset_type",
        "headline_text",
        "ad_copy_text",
        "description",
        "cta_text",
        "file_url",
        "public_url",
        "mime_type",
        "file_size_bytes",
        "external_asset_id",
        "tags",
        "created_at",
        "updated_at",
    ),
    "tenants": ("id", "name", "plan_tier"),
    "brands": ("id", "tenant_id", "name"),
    "users": ("id", "email", "first_name", "last_name"),
}
PAGE_BYTES = 16 * 1024**2
CUT_AFTER = 2 * 1024**2  # characters; a longer text is refused anyhow, and need not be read whole
LIBPQ = ("host", "port", "dbname", "user", "password", "sslmode", "sslrootcert", "sslcert", "sslkey", "channel_binding")
READ_ONLY = "-c default_transaction_read_only=on -c timezone=UTC -c datestyle=ISO -c statement_timeout=0"
WHOLE_NUMBERS = frozenset({"smallint", "integer", "bigint"})
# UUIDs are one whether they are written in upper or lower case.
SAME = sql.SQL(
    "CASE WHEN id::text ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN lower(id::text) ELSE id::text END"
)
CONNECT_SECONDS = 10
DIGITS = 18  # as many as fit 64 bits
FIND = """
SELECT attname, format_type(atttypid, NULL), attrelid::bigint FROM pg_attribute
WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped"""

Row = dict[str, str | None]


class NoLegacyData(Problem):
    """The old tables are not there, or cannot be read."""

    status, code, title = 409, "no_legacy_data", "No legacy data"


class LenientText(Loader):
    """Text whose bytes are not UTF-8 comes with lone surrogates in it, by which it is refused later; the rest of the page is fine."""

    def load(self, data: Buffer) -> str:
        """Return a text."""
        return bytes(data).decode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows of a table are wanted.

    Attributes:
        tenant_id: as the old platform writes it; empty for all.
    """

    table: str
    tenant_id: str = ""


@dataclass(frozen=True, slots=True)
class Counts:
    """How many rows a selection has.

    Attributes:
        deleted: that the old platform had deleted; they stay behind.
        nameless: without an id.
        has_doubles: whether some rows have the same id.
    """

    rows: int
    deleted: int
    nameless: int
    has_doubles: bool


@contextmanager
def opened() -> Iterator["Source"]:
    """Connect to LEGACY_DATABASE_URL, or else to our own database, for reading only.

    Raises:
        NoLegacyData: it cannot be reached.
    """
    try:
        wanted = psycopg.conninfo.conninfo_to_dict(settings.LEGACY_DATABASE_URL or own_url())
    except psycopg.Error:  # whose text has the whole address in it
        raise NoLegacyData(
            "LEGACY_DATABASE_URL is no address of a PostgreSQL database: postgres://reader:password@host:5432/name. "
            "Special characters in the password are percent-encoded."
        ) from None
    given: dict[str, Any] = {"connect_timeout": CONNECT_SECONDS, **wanted}
    given["options"] = f"{given.get('options', '')} {READ_ONLY}".strip()
    try:
        connection = psycopg.connect(**given, autocommit=True, client_encoding="utf8")
    except psycopg.Error as error:
        raise NoLegacyData(f"The old database cannot be reached: {error}") from error
    with connection:
        if connection.info.parameter_status("server_encoding") == "SQL_ASCII":
            connection.execute("SET client_encoding TO 'SQL_ASCII'")  # else one bad byte ends every query
        connection.adapters.register_loader("text", LenientText)
        yield Source(connection)


def own_url() -> str:
    """Return the address of our own database, for connections beside Django's."""
    parameters = own_connection.get_connection_params()
    return psycopg.conninfo.make_conninfo(**{name: parameters[name] for name in LIBPQ if parameters.get(name)})


class Source:
    """The old tables over one connection."""

    _tables: ClassVar[Mapping[str, Sequence[str]]] = COLUMNS

    def __init__(self, connection: "psycopg.Connection[Any]") -> None:
        self._connection = connection
        self._known: dict[str, dict[str, str]] = {}
        self._places: dict[str, sql.Identifier] = {}
        self._numbers: dict[str, int] = {}

    def name_of(self, table: str) -> str:
        """Return by what this very table is known: one that was dropped and made anew is another."""
        info, _ = self._connection.info, self._types(table)
        return f"{info.host}:{info.port}/{info.dbname}/{self._numbers.get(table, 0)}"

    def count(self, wanted: Selection) -> Counts:
        """Count a selection.

        Raises:
            NoLegacyData: there is no such table, it lacks a column that is needed, or it cannot be read.
        """
        types = self._types(wanted.table)
        if not types:
            raise NoLegacyData(
                f"There is no table {wanted.table} in the schemas {settings.LEGACY_SCHEMA} and public of the old database. "
                "Set LEGACY_DATABASE_URL and LEGACY_SCHEMA, or run load_legacy_sample to rehearse."
            )
        if missing := {"id", "tenant_id"} - types.keys():
            raise NoLegacyData(f"The table {wanted.table} has no column {min(missing)}.")
        live = self._live(wanted.table)
        place, where, values = self._places[wanted.table], *self._condition(wanted)
        counts = sql.SQL(
            "SELECT count(*) FILTER (WHERE {live}), count(*) FILTER (WHERE NOT ({live})),"
            " count(*) FILTER (WHERE {live} AND id IS NULL) FROM {place} WHERE {where}"
        ).format(live=live, place=place, where=where)
        doubles = sql.SQL(
            "SELECT 1 FROM {place} WHERE {where} AND {live} AND id IS NOT NULL GROUP BY {same} HAVING count(*) > 1 LIMIT 1"
        ).format(live=live, place=place, where=where, same=SAME)
        [(rows, deleted, nameless)] = self._ask(counts, values)
        if wanted.tenant_id and not rows and not deleted:
            raise NoLegacyData(f"The table {wanted.table} has no rows of the tenant {wanted.tenant_id!r}.")
        return Counts(rows, deleted, nameless, bool(self._ask(doubles, values)))

    def doubled(self, wanted: Selection, names: Sequence[str]) -> dict[str, int]:
        """Return those of some ids that more than one row has, UUIDs in either case, each with the number of its rows."""
        where, values = self._condition(wanted)
        query = sql.SQL(
            "SELECT id::text, count(*) FROM {place} WHERE {where} AND {live} AND {same} = ANY(%(ids)s) GROUP BY id"
        ).format(place=self._places[wanted.table], where=where, live=self._live(wanted.table), same=SAME)
        found = self._ask(query, {**values, "ids": list({ids.same(name) for name in names})})
        totals = Counter[str]()
        for name, rows in found:
            totals[ids.same(name)] += rows
        return {name: rows for name, rows in found if totals[ids.same(name)] > 1}

    def page(self, wanted: Selection, *, after: str | None, limit: int) -> list[Row]:
        """Return the next rows in the order of their ids, at most `limit` and about PAGE_BYTES.

        Raises:
            NoLegacyData: the database does not answer any more.
        """
        where, values = self._condition(wanted)
        columns = sql.SQL(", ").join(self._column(wanted.table, name) for name in self._tables[wanted.table])
        behind = sql.SQL("") if after is None else sql.SQL("AND id > %(after)s")
        query = sql.SQL(
            "SELECT {columns} FROM {place} WHERE {where} AND {live} AND id IS NOT NULL {behind} ORDER BY id LIMIT %(limit)s"
        ).format(
            columns=columns,
            place=self._places[wanted.table],
            where=where,
            live=self._live(wanted.table),
            behind=behind,
        )
        rows: list[Row] = []
        size = 0
        try:
            with self._connection.cursor(row_factory=dict_row) as cursor:
                for row in cursor.stream(query, {**values, "after": after, "limit": limit}):
                    rows.append(row)
                    size += sum(len(value) for value in row.values() if value)
                    if size > PAGE_BYTES:
                        break
        except psycopg.Error as error:
            raise NoLegacyData(f"The old database stopped answering: {error}") from error
        for row in rows:
            if not str(row["id"]).isprintable() and _has_surrogates(str(row["id"])):
                raise NoLegacyData(f"The id of a row behind {after!r} is not UTF-8: nothing can be sorted behind it.")
        return rows

    def also_in(self, table: str, names: Sequence[str]) -> set[str]:
        """Return those of some ids that a table has, too; UUIDs in lower case."""
        kind = self._types(table).get("id")
        wanted = {spelt for name in names for spelt in (name, ids.same(name), name.upper())}
        if kind == "uuid":
            wanted = {name for name in wanted if ids.is_uuid(name)}
        elif kind in WHOLE_NUMBERS:
            wanted = {name for name in wanted if name.isascii() and name.isdecimal() and len(name) <= DIGITS}
        if not kind or not wanted:
            return set()
        as_kind = "uuid[]" if kind == "uuid" else "bigint[]" if kind in WHOLE_NUMBERS else "text[]"
        query = sql.SQL("SELECT id::text FROM {place} WHERE id = ANY(%(ids)s::{kind})").format(
            place=self._places[table], kind=sql.SQL(as_kind)
        )
        return {ids.same(name) for (name,) in self._ask(query, {"ids": list(wanted)})}

    def find(self, table: str, *, column: str, value: str) -> list[Row]:
        """Return the rows of a small table (tenants, brands, users) whose column has a value; none without such a table."""
        types = self._types(table)
        if column not in types:
            return []
        query = sql.SQL(
            "SELECT {columns} FROM {place} WHERE lower({column}::text) = lower(%(value)s) ORDER BY id LIMIT 1000"
        ).format(
            columns=sql.SQL(", ").join(self._column(table, name) for name in self._tables[table]),
            place=self._places[table],
            column=sql.Identifier(column),
        )
        names = self._tables[table]
        return [dict(zip(names, row, strict=True)) for row in self._ask(query, {"value": value})]

    def _types(self, table: str) -> dict[str, str]:
        """Return a table's columns and their types; none where there is no such table."""
        if table not in self._known:
            self._known[table] = {}
            for schema in dict.fromkeys((settings.LEGACY_SCHEMA, "public")):
                place = sql.Identifier(schema, table)
                found = self._ask(sql.SQL(FIND), [place.as_string(self._connection)])
                if found:
                    self._places[table] = place
                    self._known[table] = {name: kind for name, kind, _ in found}
                    self._numbers[table] = found[0][2]
                    break
        return self._known[table]

    def _column(self, table: str, name: str) -> sql.Composable:
        """Return a column as text, None where the table lacks it; lists of PostgreSQL's own as JSON."""
        kind = self._types(table).get(name)
        if kind is None:
            return sql.SQL("NULL::text AS {}").format(sql.Identifier(name))
        text = sql.SQL("to_json({})::text" if kind.endswith("[]") else "{}::text").format(sql.Identifier(name))
        return sql.SQL("left({}, {}) AS {}").format(
            text, sql.Literal(max(CUT_AFTER, settings.CONTENT_MAX_BODY_BYTES + 1)), sql.Identifier(name)
        )

    def _live(self, table: str) -> sql.SQL:
        return sql.SQL("deleted_at IS NULL" if "deleted_at" in self._types(table) else "true")

    def _condition(self, wanted: Selection) -> tuple[sql.SQL, dict[str, Any]]:
        if not wanted.tenant_id:
            return sql.SQL("true"), {}
        return sql.SQL("lower(tenant_id::text) = lower(%(tenant)s)"), {"tenant": wanted.tenant_id}

    def _ask(self, query: sql.SQL | sql.Composed, values: Any) -> list[Any]:
        try:
            return self._connection.execute(query, values).fetchall()
        except psycopg.Error as error:
            raise NoLegacyData(f"The old database does not answer: {error}") from error


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= one <= "\udfff" for one in text)
