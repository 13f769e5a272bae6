"""Starts bqemulator 1.4.0 with the repairs that a backup needs, and with faults on request.

Runs inside the emulator's own virtual environment, so it imports nothing of this project. Each `repair_` function mends
one thing in which the stock emulator differs from BigQuery; `docs/decisions/` and the emulator's tests say how that was found.

    python launcher.py --rest-port P --grpc-port P --persistent --data-dir DIR --project NAME

`POST /__fault {"code": 403, "reason": "quotaExceeded", "left": 2, "match": "/upload/", "method": "POST", "delay": 0}`
makes the next `left` matching requests fail (or, without a code, only wait). `GET /__fault` tells what is set.
"""

import asyncio
import contextvars
import json
import re
import sys
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import bqemulator.grpc_api.read_servicer as read_servicer
import bqemulator.jobs.executor as executor
import bqemulator.server as server
from bqemulator.api.routes import upload
from bqemulator.cli import main as emulator_cli
from bqemulator.domain.errors import AlreadyExistsError
from bqemulator.domain.events import TableDataChanged
from bqemulator.storage.engine import DuckDBEngine
from bqemulator.versioning.snapshots import SnapshotManager
from starlette.middleware import Middleware

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

API_PATHS = "^/(upload/)?bigquery/"
INSERT_JOB_PATH = re.compile("^/bigquery/v2/projects/([^/]+)/jobs$")
LOOPBACK = ("127.0.0.1", "::1")
ROWS_A_MESSAGE = 1000
STATUS_NAMES = {403: "PERMISSION_DENIED", 409: "ALREADY_EXISTS", 429: "RESOURCE_EXHAUSTED"}


def main() -> None:
    """Mend the emulator and run it until SIGTERM or SIGINT."""
    repair_offline_start()
    repair_write_cost()
    repair_media_type()
    repair_parquet_columns()
    repair_message_size()
    repair_job_ids()
    sys.argv = ["bqemulator", "start", *sys.argv[1:]]
    emulator_cli()


def repair_offline_start() -> None:
    """Do without DuckDB's spatial extension: it is downloaded at start, and only GEOGRAPHY needs it."""
    DuckDBEngine._load_spatial = lambda self: None


def repair_write_cost() -> None:
    """Leave out the copy of the whole table that the emulator makes after every write, for time travel."""

    def record_change(self: SnapshotManager, project_id: str, dataset_id: str, table_id: str) -> None:
        self._events.publish(TableDataChanged(project_id, dataset_id, table_id))

    SnapshotManager.record_change = record_change


def repair_media_type() -> None:
    """Accept `*/*`, the content type under which Google's Python client uploads a file."""
    upload._PERMITTED_MEDIA_CONTENT_TYPES += ("*/*",)


def repair_parquet_columns() -> None:
    """Match Parquet columns by name, as BigQuery does; the emulator goes by position and swaps them silently."""

    def load_parquet(path: str, target_ref: str, ctx: Any) -> None:
        ctx.engine.execute(f"INSERT INTO {target_ref} BY NAME SELECT * FROM read_parquet(?)", [path])  # noqa: S608

    executor._load_parquet = load_parquet
    executor._LOAD_FORMAT_HANDLERS["PARQUET"] = load_parquet


def repair_message_size() -> None:
    """Stream rows in messages of a thousand; the emulator puts 65,536 into one, which are hundreds of megabytes of documents."""
    stream_of = read_servicer.get_stream_data

    def stream_in_small_chunks(session_name: str, stream_name: str) -> Any:
        table = stream_of(session_name, stream_name)
        if table is None:
            return None
        return type(table).from_batches(table.to_batches(max_chunksize=ROWS_A_MESSAGE), table.schema)

    read_servicer.get_stream_data = stream_in_small_chunks


# Job ids: BigQuery takes the client's id and refuses a second job under it, which is what makes a retry harmless.


class JobIds:
    """The job ids in flight. A finished job's id is in the catalog, a job that broke off with a 5xx frees its id."""

    def __init__(self) -> None:
        self._taken: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def take(self, ctx: Any, project: str, job_id: str) -> None:
        """Reserve an id.

        Raises:
            AlreadyExistsError: a job of that id ran or is running.
        """
        with self._lock:
            if (project, job_id) in self._taken or ctx.catalog.get_job(project, job_id) is not None:
                raise AlreadyExistsError(f"Already Exists: Job {project}:US.{job_id}")
            self._taken.add((project, job_id))

    def free(self, project: str, job_id: str) -> None:
        """Let an id be used again; call it only for a job that left no trace."""
        with self._lock:
            self._taken.discard((project, job_id))


JOB_IDS = JobIds()
UPLOAD_JOB_ID: contextvars.ContextVar[str | None] = contextvars.ContextVar("upload_job_id", default=None)


def repair_job_ids() -> None:
    """Honour the client's job id on uploads, and answer 409 to every id that was used before."""
    _keep_job_id_of_uploads()
    _run_uploads_under_their_id()
    _wrap_application()


def _keep_job_id_of_uploads() -> None:
    read_envelope = upload._load_configuration_from_envelope

    def read_envelope_with_id(envelope: dict[str, Any]) -> dict[str, Any]:
        configuration = dict(read_envelope(envelope))
        job_id = (envelope.get("jobReference") or {}).get("jobId")
        return {**configuration, "_job_id": job_id} if job_id else configuration

    upload._load_configuration_from_envelope = read_envelope_with_id


def _run_uploads_under_their_id() -> None:
    run_load, new_job_id = upload._run_load, upload._new_job_id

    async def run_load_once(*, project_id: str, configuration: dict[str, Any], media_path: str, ctx: Any) -> Any:
        job_id = configuration.get("_job_id")
        plain = {name: value for name, value in configuration.items() if name != "_job_id"}
        UPLOAD_JOB_ID.set(job_id)
        if job_id:
            JOB_IDS.take(ctx, project_id, job_id)
        try:
            return await run_load(project_id=project_id, configuration=plain, media_path=media_path, ctx=ctx)
        finally:
            if job_id:
                JOB_IDS.free(project_id, job_id)

    upload._run_load = run_load_once
    upload._new_job_id = lambda: UPLOAD_JOB_ID.get() or new_job_id()


def _wrap_application() -> None:
    create_app = server.create_app

    def create_mended_app(context: Any) -> App:
        app = create_app(context)
        # The last one is the innermost: behind the emulator's own, which unzips bodies.
        app.user_middleware.append(Middleware(UniqueJobs, context=context))
        return Faults(app)

    server.create_app = create_mended_app


class UniqueJobs:
    """Answers 409 to `jobs.insert` with an id that was used before."""

    def __init__(self, app: App, context: Any) -> None:
        self.app, self.context = app, context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through once per job id."""
        match = INSERT_JOB_PATH.match(scope.get("path", ""))
        if not match or scope["method"] != "POST":
            return await self.app(scope, receive, send)
        body = await _read_body(receive)
        job_id = _client_job_id(body)
        if job_id is None:
            return await self.app(scope, _replay(body, receive), send)
        try:
            JOB_IDS.take(self.context, match[1], job_id)
        except AlreadyExistsError as error:
            return await _reply_error(send, 409, "duplicate", str(error))
        return await self._run(scope, _replay(body, receive), send, match[1], job_id)

    async def _run(self, scope: Scope, receive: Receive, send: Send, project: str, job_id: str) -> None:
        status = 500

        async def note_status(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self.app(scope, receive, note_status)
        finally:
            if status >= 500:
                JOB_IDS.free(project, job_id)


def _client_job_id(body: bytes) -> str | None:
    try:
        return (json.loads(body).get("jobReference") or {}).get("jobId") or None
    except (ValueError, AttributeError):
        return None


# Faults


@dataclass
class Fault:
    """What to do to the next `left` requests whose path matches; the emulator's own paths are never touched."""

    left: int = 0
    code: int | None = None
    reason: str = "backendError"
    message: str = "injected"
    match: str = API_PATHS
    method: str | None = None
    delay: float = 0

    def hits(self, path: str, method: str) -> bool:
        """Count one request down, if it is meant."""
        meant = bool(re.search(self.match, path)) and self.method in (None, method)
        if self.left <= 0 or not meant:
            return False
        self.left -= 1
        return True


class Faults:
    """The outermost application: injects what `/__fault` was told."""

    def __init__(self, app: App) -> None:
        self.app, self.fault = app, Fault()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Inject the fault that is set, or let the request through."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        if scope["path"] == "/__fault":
            return await self._control(scope, receive, send)
        fault = self.fault
        if fault.hits(scope["path"], scope["method"]):
            await asyncio.sleep(fault.delay)
            if fault.code:
                await _read_body(receive)
                return await _reply_error(send, fault.code, fault.reason, fault.message)
        return await self.app(scope, receive, send)

    async def _control(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (scope.get("client") or ("",))[0] not in LOOPBACK:
            return await _reply_error(send, 403, "accessDenied", "faults are set from this machine only")
        if scope["method"] == "POST":
            known = {field.name for field in fields(Fault)}
            given = json.loads(await _read_body(receive) or b"{}")
            if unknown := set(given) - known:
                return await _reply_error(send, 400, "invalid", f"unknown: {', '.join(sorted(unknown))}")
            self.fault = Fault(**given)
        return await _reply(send, 200, asdict(self.fault))


# ASGI helpers


async def _read_body(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> MutableMapping[str, Any]:
        return messages.pop() if messages else await receive()

    return receive_again


async def _reply_error(send: Send, code: int, reason: str, message: str) -> None:
    detail = {"domain": "global", "reason": reason, "message": message}
    status = STATUS_NAMES.get(code, "UNAVAILABLE")
    await _reply(send, code, {"error": {"code": code, "message": message, "errors": [detail], "status": status}})


async def _reply(send: Send, code: int, content: dict[str, Any]) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": code, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(content).encode()})


if __name__ == "__main__":
    main()
