"""A drill's own databases on the PostgreSQL server: made from a migrated one, dropped, found when left over."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
from environ import Env
from psycopg import sql
from psycopg.errors import InsufficientPrivilege

from dr.scenarios import places

CONNECT_SECONDS = 10


class NoRoomForDrills(Exception):
    """The database server does not let a drill make a database of its own."""


def url_of(server_url: str, name: str) -> str:
    """Return the URL of a drill's database on the same server."""
    return urlunsplit(urlsplit(server_url)._replace(path=f"/{places.require_throw_away(name)}"))


def create(*, server_url: str, name: str, template: str | None = None) -> None:
    """Make a database, a copy of a drill's other one if that is named.

    Raises:
        NoRoomForDrills: the role may not, or the server does not answer.
    """
    statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(places.require_throw_away(name)))
    if template is not None:
        statement += sql.SQL(" TEMPLATE {}").format(sql.Identifier(places.require_throw_away(template)))
    with _connected(server_url) as server:
        server.execute(statement)


def drop(*, server_url: str, name: str) -> None:
    """Drop a database, if it is there, and end the sessions in it.

    Raises:
        NoRoomForDrills: the role may not, or the server does not answer.
    """
    database = sql.Identifier(places.require_throw_away(name))
    with _connected(server_url) as server:
        server.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(database))


def left_over(*, server_url: str, now: datetime) -> list[str]:
    """Return the role's databases that drills left behind.

    Raises:
        NoRoomForDrills: the server does not answer.
    """
    with _connected(server_url) as server:
        rows = server.execute("SELECT datname FROM pg_database WHERE pg_has_role(datdba, 'USAGE')").fetchall()
    return [name for (name,) in rows if places.is_left_over(name, now=now)]


@contextmanager
def _connected(server_url: str) -> "Iterator[psycopg.Connection[Any]]":
    """Connect beside Django: such statements stand in no transaction."""
    try:
        with psycopg.connect(**parameters(server_url), autocommit=True, connect_timeout=CONNECT_SECONDS) as server:
            yield server
    except InsufficientPrivilege as error:
        raise NoRoomForDrills(
            f"{error} A drill needs a database of its own: give the role CREATEDB, or set DR_DRILL_DATABASE_URL to an "
            "address on which it may create databases."
        ) from error
    except psycopg.OperationalError as error:
        raise NoRoomForDrills(f"The database server for drills does not answer: {error}") from error


def parameters(server_url: str) -> dict[str, Any]:
    """Return what psycopg needs to connect."""
    found: dict[str, Any] = Env.db_url_config(server_url)
    named = {"dbname": "NAME", "user": "USER", "password": "PASSWORD", "host": "HOST", "port": "PORT"}
    given: dict[str, Any] = {ours: found[theirs] for ours, theirs in named.items() if found.get(theirs)}
    given |= found.get("OPTIONS", {})
    return given
