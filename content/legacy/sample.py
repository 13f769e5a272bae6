"""Old data to rehearse the migration on, in a schema of its own beside whatever else the database holds.

What the schema holds is made here and marked, so that it can be made anew; a schema without the mark, and a database with
the old platform's own tables, are left alone.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import psycopg
from django.conf import settings
from psycopg import sql

from content.legacy import source
from engarde.common.problems import Problem

MARK = "Sample data of load_legacy_sample: it may be dropped and made anew."
CONNECT_SECONDS = 10
ID = "varchar(36) PRIMARY KEY"
TABLES: Mapping[str, Mapping[str, str]] = {
    "tenants": {"id": ID, "name": "text", "plan_tier": "text"},
    "brands": {"id": ID, "tenant_id": "varchar(36)", "name": "text"},
    "users": {"id": ID, "email": "text", "first_name": "text", "last_name": "text"},
    "content_items": {
        "id": ID,
        "tenant_id": "varchar(36)",
        "brand_id": "varchar(36)",
        "user_id": "varchar(36)",
        "title": "text",
        "content_body": "text",
        "content_type": "text",
        "status": "text",
        "content_metadata": "text",  # not json: it has to be able to be invalid
        "created_at": "timestamp",
        "updated_at": "timestamp",
    },
    "campaign_assets": {
        "id": ID,
        "tenant_id": "varchar(36)",
        "brand_id": "varchar(36)",
        "campaign_space_id": "varchar(36)",
        "user_id": "varchar(36)",
        "asset_name": "text",
        "asset_type": "text",
        "headline_text": "text",
        "ad_copy_text": "text",
        "description": "text",
        "cta_text": "text",
        "file_url": "text",
        "public_url": "text",
        "mime_type": "text",
        "file_size_bytes": "bigint",
        "external_asset_id": "text",
        "tags": "text",
        "created_at": "timestamp",
        "updated_at": "timestamp",
        "deleted_at": "timestamp",
    },
}

Row: TypeAlias = Mapping[str, str | int | None]  # columns that are not in it are NULL


class SampleRefused(Problem):
    """The schema is not the sample's to make, or the database does not take it."""

    status, code, title = 409, "sample_refused", "Sample refused"


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows for each table.

    Attributes:
        kinds: what is wrong with a row, by table and id; "good" where nothing is. Empty for samples without dirt.
    """

    rows: Mapping[str, Iterable[Row]]
    kinds: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def load(sample: Sample, *, replace: bool, progress: Callable[[], object] = lambda: None) -> dict[str, Any]:
    """Make the schema with a sample in it, all or nothing, and return how many rows each table has.

    Args:
        replace: whether a sample that is there may be dropped.
        progress: called for each row that was sent.

    Raises:
        SampleRefused: the schema is there and may not be dropped, or the database does not take it.
    """
    schema = settings.LEGACY_SCHEMA
    with _connected() as connection:
        _require_no_old_tables(connection)
        _make_room(connection, schema, replace=replace)
        counts = {
            table: _fill(connection, sql.Identifier(schema, table), columns, sample.rows.get(table, ()), progress)
            for table, columns in TABLES.items()
        }
    return {
        "schema": schema,
        **{
            table: {"rows": rows} | ({"kinds": sample.kinds[table]} if table in sample.kinds else {})
            for table, rows in counts.items()
        },
    }


@contextmanager
def _connected() -> "Iterator[psycopg.Connection[Any]]":
    """Connect beside Django, for one transaction."""
    try:
        with psycopg.connect(
            settings.LEGACY_DATABASE_URL or source.own_url(), connect_timeout=CONNECT_SECONDS
        ) as connection:
            yield connection
    except psycopg.Error as error:
        raise SampleRefused(f"The database does not take the sample: {error}") from error


def _require_no_old_tables(connection: "psycopg.Connection[Any]") -> None:
    """Keep a sample from hiding what it is a sample of: migrations look into LEGACY_SCHEMA first."""
    for table in ("content_items", "campaign_assets"):
        if connection.execute("SELECT to_regclass(%s)", [f"public.{table}"]).fetchone() != (None,):
            raise SampleRefused(
                f"This database has a table public.{table}: it is the old platform's. Rehearse on another database: "
                "set LEGACY_DATABASE_URL to it, or leave it empty for our own."
            )


def _make_room(connection: "psycopg.Connection[Any]", schema: str, *, replace: bool) -> None:
    found = connection.execute(
        "SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = %s", [schema]
    ).fetchone()
    name = sql.Identifier(schema)
    if found is not None:
        if found != (MARK,):
            raise SampleRefused(
                f"There is a schema {schema} that load_legacy_sample did not make; it is left as it is. "
                "Set LEGACY_SCHEMA to a name that is free."
            )
        if not replace:
            raise SampleRefused(
                f"There is a sample in the schema {schema} already; --replace drops it and makes a new one."
            )
        connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(name))
    connection.execute(sql.SQL("CREATE SCHEMA {}").format(name))
    connection.execute(sql.SQL("COMMENT ON SCHEMA {} IS {}").format(name, sql.Literal(MARK)))


def _fill(
    connection: "psycopg.Connection[Any]",
    table: sql.Identifier,
    columns: Mapping[str, str],
    rows: Iterable[Row],
    progress: Callable[[], object],
) -> int:
    """Make a table, copy rows into it one after the other, and return how many."""
    definitions = [sql.Identifier(name) + sql.SQL(f" {kind}") for name, kind in columns.items()]
    connection.execute(sql.SQL("CREATE TABLE {} ({})").format(table, sql.SQL(", ").join(definitions)))
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    count = 0
    with connection.cursor() as cursor:
        with cursor.copy(sql.SQL("COPY {} ({}) FROM STDIN").format(table, names)) as copy:
            for row in rows:
                copy.write_row([row.get(name) for name in columns])
                count += 1
                progress()
        cursor.execute(sql.SQL("ANALYZE {}").format(table))
    return count


def body_of_asset(row: Row) -> str:
    """Return an asset's texts as the migration puts them together."""
    texts: Sequence[str | int | None] = [
        row.get(name) for name in ("headline_text", "ad_copy_text", "description", "cta_text")
    ]
    return "\n\n".join(str(text) for text in texts if text)
