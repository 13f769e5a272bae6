"""The emulator's HTTP side: routes, keys, answers.

Configured by the environment, read when the server starts:

- `ZERODB_EMULATOR_DATA`: folder for the data, created when missing.
- `ZERODB_EMULATOR_API_KEY`: the one key, taken in `X-API-Key` or as `Authorization: Bearer`.
- `ZERODB_EMULATOR_PROJECT_ID`: the one project.

The same tables answer under the four prefixes that the vendor documents and that were seen to work. All answers to known
routes are 200 or an error; the router's own 404 is the bare `{"detail": "Not Found"}`, as FastAPI's is. Other behaviour can be
switched on (see `control`).
"""

import hmac
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from engarde.embedded.zerodb import bodies, control
from engarde.embedded.zerodb.answers import json_answer
from engarde.embedded.zerodb.errors import Refused
from engarde.embedded.zerodb.faults import Endpoint
from engarde.embedded.zerodb.filters import BULK_OPERATORS, compile_filter
from engarde.embedded.zerodb.store import Page, Store
from engarde.embedded.zerodb.switches import Switches
from engarde.embedded.zerodb.updates import check_update

PREFIXES = (
    "/api/v1/projects/{project_id}",
    "/v1/projects/{project_id}",
    "/v1/public/{project_id}",
    "/v1/public/zerodb/{project_id}",
)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the emulator needs to know to start."""

    data: Path
    api_key: str
    project_id: str

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """Read the settings.

        Raises:
            RuntimeError: When a variable is missing or empty.
        """
        names = ("ZERODB_EMULATOR_DATA", "ZERODB_EMULATOR_API_KEY", "ZERODB_EMULATOR_PROJECT_ID")
        missing = [name for name in names if not environment.get(name)]
        if missing:
            raise RuntimeError(f"The ZeroDB emulator needs {', '.join(missing)}.")
        data, api_key, project_id = (environment[name] for name in names)
        return cls(Path(data), api_key, project_id)


def create_app(
    read_settings: Callable[[], Settings] = Settings.from_environment, middleware: Sequence[Middleware] = ()
) -> Starlette:
    """Return the ASGI application; settings are read and the data opened when the server starts it."""

    @asynccontextmanager
    async def lifespan(application: Starlette) -> AsyncIterator[None]:
        settings = read_settings()
        store = Store(settings.data, settings.project_id)
        application.state.settings, application.state.store = settings, store
        yield
        store.close()

    application = Starlette(
        routes=[
            Route("/health", health, methods=["GET"]),
            *control.routes(),
            *(route for prefix in PREFIXES for route in _table_routes(f"{prefix}/database/tables")),
        ],
        middleware=list(middleware),
        exception_handlers={Refused: _answer_error, HTTPException: _answer_error},
        lifespan=lifespan,
    )
    application.state.switches = Switches()
    return application


async def health(_request: Request) -> Response:
    """Answer that the process serves requests."""
    return json_answer({"status": "ok"})


async def create_table(request: Request) -> Response:
    """POST `` with a name, and optionally a description and a schema, which is kept and not enforced."""
    body = await bodies.read_body(request, bodies.NEW_TABLE)
    name = bodies.table_name_in(body)
    schema = body["schema"] or body["schema_definition"] or {}
    return json_answer(
        await _store(request).write(lambda tables: tables.create_table(name, body["description"], schema))
    )


async def list_tables(request: Request) -> Response:
    """GET `?skip&limit`."""
    page = bodies.read_query_string(request, bodies.PAGE)
    return json_answer(_envelope(await _store(request).read(lambda tables: tables.list_tables(**page)), **page))


async def get_table(request: Request) -> Response:
    """GET `/{table}`."""
    table = _table(request)
    return json_answer(await _store(request).read(lambda tables: tables.get_table(table)))


async def delete_table(request: Request) -> Response:
    """DELETE `/{table}`; the vendor's Python client confirms it in the body."""
    if not (await bodies.read_body(request, bodies.DELETION))["confirm"]:
        raise Refused(400, "Deletion is not confirmed")
    table = _table(request)
    await _store(request).write(lambda tables: tables.delete_table(table))
    return json_answer({"message": f"Table {table} deleted successfully"})


async def insert_row(request: Request) -> Response:
    """POST `/{table}/rows` with one row's data."""
    body = await bodies.read_body(request, bodies.ROW)
    table = _table(request)
    return json_answer(await _store(request).write(lambda tables: tables.insert_row(table, body["row_data"])))


async def list_rows(request: Request) -> Response:
    """GET `/{table}/rows?skip&limit`, in the order of insertion."""
    page = bodies.read_query_string(request, bodies.PAGE)
    condition, table = compile_filter({}), _table(request)
    until = _rows_until(request)
    found = await _store(request).read(lambda tables: tables.find_rows(table, condition, {}, **page, until=until))
    return json_answer(_envelope(found, **page))


async def query_rows(request: Request) -> Response:
    """POST `/{table}/query` with filter, sort, skip and limit."""
    started = time.perf_counter()
    body = await bodies.read_body(request, bodies.QUERY)
    table, page = _table(request), {"skip": body["skip"], "limit": body["limit"]}
    condition, until = compile_filter(body["filter"]), _rows_until(request)
    found = await _store(request).read(
        lambda tables: tables.find_rows(table, condition, body["sort"], **page, until=until)
    )
    summary = {"filter_summary": {"fields": list(body["filter"])}, "execution_time_ms": _milliseconds_since(started)}
    return json_answer(_envelope(found, **page) | summary)


async def get_row(request: Request) -> Response:
    """GET `/{table}/rows/{row_id}`."""
    table, row_id, until = _table(request), request.path_params["row_id"], _rows_until(request)
    return json_answer(await _store(request).read(lambda tables: tables.get_row(table, row_id, until)))


async def replace_row(request: Request) -> Response:
    """PUT `/{table}/rows/{row_id}`: the new data takes the place of all the old."""
    body = await bodies.read_body(request, bodies.ROW)
    table, row_id = _table(request), request.path_params["row_id"]
    merge = getattr(request.state, "put_merges", False)
    return json_answer(
        await _store(request).write(lambda tables: tables.replace_row(table, row_id, body["row_data"], merge=merge))
    )


async def delete_row(request: Request) -> Response:
    """DELETE `/{table}/rows/{row_id}`."""
    await bodies.refuse_body(request)
    table, row_id = _table(request), request.path_params["row_id"]
    await _store(request).write(lambda tables: tables.delete_row(table, row_id))
    return json_answer({"message": f"Row {row_id} deleted successfully"})


async def update_rows(request: Request) -> Response:
    """PUT `/{table}/rows/bulk`: update operators on all rows that match, or on none."""
    started = time.perf_counter()
    body = await bodies.read_body(request, bodies.BULK_UPDATE)
    check_update(body["update"])
    table, condition = _table(request), compile_filter(body["filter"], BULK_OPERATORS)
    matched, modified = await _store(request).write(
        lambda tables: tables.update_rows(table, condition, body["update"], confirmed=body["confirm_large_operation"])
    )
    counts = {"matched_count": matched, "modified_count": modified, "update_operators": list(body["update"])}
    return json_answer(counts | _bulk_report(body, started))


async def delete_rows(request: Request) -> Response:
    """DELETE `/{table}/rows/bulk`: all rows that match, or none."""
    started = time.perf_counter()
    body = await bodies.read_body(request, bodies.BULK_DELETE)
    table, condition = _table(request), compile_filter(body["filter"], BULK_OPERATORS)
    deleted = await _store(request).write(
        lambda tables: tables.delete_rows(table, condition, confirmed=body["confirm_large_operation"])
    )
    return json_answer({"deleted_count": deleted} | _bulk_report(body, started))


_CALLS = (
    ("POST", "/", create_table),
    ("GET", "/", list_tables),
    ("GET", "/{table}", get_table),
    ("DELETE", "/{table}", delete_table),
    ("POST", "/{table}/query", query_rows),
    ("POST", "/{table}/rows", insert_row),
    ("GET", "/{table}/rows", list_rows),
    ("PUT", "/{table}/rows/bulk", update_rows),
    ("DELETE", "/{table}/rows/bulk", delete_rows),
    ("GET", "/{table}/rows/{row_id}", get_row),
    ("PUT", "/{table}/rows/{row_id}", replace_row),
    ("DELETE", "/{table}/rows/{row_id}", delete_row),
)


def _table_routes(root: str) -> list[Route]:
    return [
        Route(root + path.rstrip("/"), control.switched(f"{method} {path}", _guarded(endpoint)), methods=[method])
        for method, path, endpoint in _CALLS
    ]


def _guarded(endpoint: Endpoint) -> Endpoint:
    async def guarded(request: Request) -> Response:
        settings: Settings = request.app.state.settings
        if not hmac.compare_digest(_key_in(request).encode(), settings.api_key.encode()):
            raise Refused(401, "Invalid or missing API key")
        if request.path_params["project_id"] != settings.project_id:
            raise Refused(404, "Project not found")
        return await endpoint(request)

    return guarded


def _key_in(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    bearer = token if scheme.lower() == "bearer" else ""
    return request.headers.get("x-api-key") or bearer


def _store(request: Request) -> Store:
    store: Store = request.app.state.store
    return store


def _rows_until(request: Request) -> str | None:
    until: str | None = getattr(request.state, "rows_until", None)
    return until


def _table(request: Request) -> str:
    return str(request.path_params["table"])


def _envelope(page: Page, *, skip: int, limit: int) -> dict[str, Any]:
    has_more = skip + len(page.items) < page.total
    return {"total": page.total, "skip": skip, "limit": limit, "has_more": has_more, "data": page.items}


def _bulk_report(body: Mapping[str, Any], started: float) -> dict[str, Any]:
    return {"filter_used": body["filter"], "execution_time_ms": _milliseconds_since(started), "warnings": []}


def _milliseconds_since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 3)


def _answer_error(_request: Request, error: Exception) -> Response:
    if isinstance(error, Refused):
        return json_answer({"detail": error.detail}, error.status)
    if isinstance(error, HTTPException):
        return json_answer({"detail": error.detail}, error.status_code)
    raise error


app = create_app()
