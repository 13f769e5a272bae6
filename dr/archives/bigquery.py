"""The archive in BigQuery: rows go in through the Storage Write API, come back by queries.

Rows are only ever appended. The default stream delivers at least once; readers take the latest row per version, so a row
that arrived twice counts once.
"""

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime
from functools import wraps
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

import grpc
import pyarrow as pa
import requests
from google.api_core import exceptions as api
from google.api_core.client_options import ClientOptions
from google.auth.credentials import AnonymousCredentials, Credentials
from google.auth.exceptions import GoogleAuthError
from google.cloud import bigquery
from google.cloud.bigquery_storage_v1 import BigQueryWriteClient, types
from google.cloud.bigquery_storage_v1.services.big_query_write.transports import BigQueryWriteGrpcTransport
from google.oauth2 import service_account

from dr.archives.base import ArchiveRecord, ArchiveRefused, ArchiveUnavailable, BatchManifest

MAX_APPEND_BYTES = 8 * 1024**2  # the service takes 10 MB a request on older endpoints, 20 MB on newer ones
PAGE_ROWS = 200
CALL_SECONDS = 30.0
QUERY_SECONDS = 600.0
TRANSIENT_REASONS = {"rateLimitExceeded", "quotaExceeded", "backendError", "jobRateLimitExceeded"}

NO_RETRY: Any = None  # retries are scheduled in the database; the client's own would go on for minutes

CONTENT_TABLE = "content_storage_dr"
MEDIA_TABLE = "content_media_dr"
LOG_TABLE = "content_sync_log"

_CHANGE_FIELDS = (
    ("tenant_id", "STRING", "Whose it is."),
    ("entity_type", "STRING", "What kind of row this is a copy of."),
    ("entity_id", "STRING", "Its id."),
    ("version", "INT64", "Its version; 0 where there are none."),
    ("epoch", "INT64", "Raised by a restore to an earlier time; orders rows before change_seq."),
    ("change_seq", "INT64", "The change's number in PostgreSQL's log."),
    ("xid", "INT64", "The PostgreSQL transaction that made the change."),
    ("op", "STRING", "I insert, U update, D to the trash, P purged, T an old version removed."),
    ("changed_at", "TIMESTAMP", "When the change was made."),
    ("sha256", "STRING", "Of the document's canonical text."),
    ("size_bytes", "INT64", "Of the body, in UTF-8."),
    ("facts", "STRING", "Canonical JSON of what PostgreSQL knows beside the document."),
    ("document", "STRING", "The document's canonical text; null for D and P."),
    ("row_hash", "STRING", "SHA-256 over the row's meaning."),
    ("batch_id", "STRING", "The sealed batch that it came in."),
    ("ingested_at", "TIMESTAMP", "When it was sent."),
)
_LOG_FIELDS = (
    ("batch_id", "STRING", "The sealed batch."),
    ("rows", "INT64", "Changes in it."),
    ("bytes", "INT64", "Payload shipped."),
    ("first_seq", "INT64", "Its first change."),
    ("last_seq", "INT64", "Its last change."),
    ("horizon", "INT64", "Every PostgreSQL transaction below this had ended at the seal."),
    ("epoch", "INT64", "See the rows."),
    ("sealed_at", "TIMESTAMP", "When it was sealed."),
    ("ingested_at", "TIMESTAMP", "When the manifest was sent."),
)
TABLES = {CONTENT_TABLE: _CHANGE_FIELDS, MEDIA_TABLE: _CHANGE_FIELDS, LOG_TABLE: _LOG_FIELDS}
_ARROW = {"STRING": pa.string(), "INT64": pa.int64(), "TIMESTAMP": pa.timestamp("us", tz="UTC")}

P = ParamSpec("P")
T = TypeVar("T")


def named_errors(call: Callable[P, T]) -> Callable[P, T]:
    """Turn what Google's libraries raise into the port's two errors."""

    @wraps(call)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return call(*args, **kwargs)
        except (api.GoogleAPIError, GoogleAuthError, requests.RequestException, grpc.RpcError, OSError) as error:
            raise translate(error) from error

    return wrapper


def translate(error: Exception) -> ArchiveUnavailable | ArchiveRefused:
    """Return the port's error for one of Google's.

    A 403 means three things, told apart by its reason: rate limit and quota pass by themselves, access does not.
    """
    cause = getattr(error, "cause", None) if isinstance(error, api.RetryError) else error
    if isinstance(cause, GoogleAuthError):
        return ArchiveRefused(f"no usable Google credentials: {cause}", reason="credentials")
    reason = _reason(cause)
    if isinstance(cause, api.Forbidden | api.Unauthorized | api.NotFound) and reason not in TRANSIENT_REASONS:
        return ArchiveRefused(f"BigQuery refuses: {cause}", reason=reason or type(cause).__name__)
    return ArchiveUnavailable(f"BigQuery does not answer: {cause or error}")


def _reason(error: Any) -> str | None:
    errors = getattr(error, "errors", None) or []
    first = errors[0] if errors else None
    return first.get("reason") if isinstance(first, dict) else None


class BigQueryArchive:
    """Keeps records in one dataset."""

    def __init__(
        self,
        *,
        project: str,
        dataset: str,
        location: str = "US",
        credentials_json: str = "",
        emulator_host: str = "",
        emulator_grpc_host: str = "",
    ) -> None:
        """Prepare; nothing is sent yet.

        Args:
            credentials_json: a service account's key; empty for the environment's own credentials.
            emulator_host: base URL of a BigQuery emulator's REST API, asked without credentials.
            emulator_grpc_host: host:port of its gRPC API.
        """
        self.project, self.dataset, self.location = project, dataset, location
        self._emulator_host, self._emulator_grpc_host = emulator_host, emulator_grpc_host
        self._credentials = _credentials(credentials_json, is_emulator=bool(emulator_host))
        self._client: bigquery.Client | None = None
        self._writer: BigQueryWriteClient | None = None

    @named_errors
    def set_up(self) -> list[str]:
        """Create the dataset and the tables that are missing; running again changes nothing."""
        client = self._rest()
        existing = {table.table_id for table in client.list_tables(self._make_dataset(client), timeout=CALL_SECONDS)}
        missing = [name for name in TABLES if name not in existing]
        for name in missing:
            client.create_table(self._table(name), exists_ok=True, timeout=CALL_SECONDS)
        return missing

    @named_errors
    def append(self, records: Sequence[ArchiveRecord], manifest: BatchManifest) -> None:
        """Send the records and then the manifest that vouches for them."""
        now = datetime.now(UTC)
        for chunk in _chunks([_row(record, now) for record in records]):
            self._append(CONTENT_TABLE, chunk)
        self._append(LOG_TABLE, [_manifest_row(manifest, now)])

    def latest(self, *, tenant_id: UUID | None = None) -> Iterator[ArchiveRecord]:
        """Yield each version's latest record, page by page."""
        condition = "WHERE tenant_id = @tenant_id" if tenant_id else ""
        sql = f"""
            SELECT * EXCEPT(ingested_at) FROM `{self.project}.{self.dataset}.{CONTENT_TABLE}` {condition}
            QUALIFY ROW_NUMBER() OVER (
                PARTITION BY tenant_id, entity_type, entity_id, version ORDER BY epoch DESC, change_seq DESC
            ) = 1
            ORDER BY tenant_id, entity_type, entity_id, version"""  # noqa: S608 -- names come from the settings
        parameters = [bigquery.ScalarQueryParameter("tenant_id", "STRING", str(tenant_id))] if tenant_id else []
        rows = iter(self._query(sql, parameters, timeout=QUERY_SECONDS))
        while (row := self._next(rows)) is not None:
            yield _record(row)

    def documents(
        self, *, tenant_id: UUID, keys: Collection[tuple[UUID, str]], timeout: float
    ) -> dict[tuple[UUID, str], str]:
        """Return the texts of documents by (entity id, sha256)."""
        sql = f"""
            SELECT entity_id, sha256, ANY_VALUE(document) AS document
            FROM `{self.project}.{self.dataset}.{CONTENT_TABLE}`
            WHERE tenant_id = @tenant_id AND entity_id IN UNNEST(@ids) AND sha256 IN UNNEST(@hashes)
              AND document IS NOT NULL
            GROUP BY entity_id, sha256"""  # noqa: S608 -- names come from the settings
        parameters = [
            bigquery.ScalarQueryParameter("tenant_id", "STRING", str(tenant_id)),
            bigquery.ArrayQueryParameter("ids", "STRING", sorted({str(entity_id) for entity_id, _ in keys})),
            bigquery.ArrayQueryParameter("hashes", "STRING", sorted({sha256 for _, sha256 in keys})),
        ]
        rows = self._query(sql, parameters, timeout=timeout)
        return {(UUID(row["entity_id"]), row["sha256"]): row["document"] for row in rows}

    @named_errors
    def ping(self) -> None:
        """Ask for the dataset."""
        self._rest().get_dataset(f"{self.project}.{self.dataset}", retry=NO_RETRY, timeout=CALL_SECONDS)

    @named_errors
    def _query(self, sql: str, parameters: list[Any], *, timeout: float) -> Any:
        config = bigquery.QueryJobConfig(query_parameters=parameters, use_query_cache=False)
        job = self._rest().query(
            sql, job_config=config, location=self.location, timeout=timeout, retry=NO_RETRY, job_retry=None
        )
        return job.result(page_size=PAGE_ROWS, timeout=timeout, retry=NO_RETRY, job_retry=None)

    @named_errors
    def _next(self, rows: Iterator[Any]) -> Any:
        return next(rows, None)

    def _append(self, table: str, rows: list[dict[str, Any]]) -> None:
        schema = pa.schema([(name, _ARROW[kind]) for name, kind, _ in TABLES[table]])
        batch = pa.RecordBatch.from_pylist(rows, schema=schema)
        stream = f"projects/{self.project}/datasets/{self.dataset}/tables/{table}/streams/_default"
        request = types.AppendRowsRequest(
            write_stream=stream,
            arrow_rows=types.AppendRowsRequest.ArrowData(
                writer_schema=types.ArrowSchema(serialized_schema=schema.serialize().to_pybytes()),
                rows=types.ArrowRecordBatch(serialized_record_batch=batch.serialize().to_pybytes()),
            ),
        )
        routing = (("x-goog-request-params", f"write_stream={stream}"),)
        answers = self._write().append_rows(iter([request]), metadata=routing, timeout=CALL_SECONDS, retry=None)
        for answer in answers:
            _require_appended(answer)

    def _rest(self) -> bigquery.Client:
        if self._client is None:
            options = ClientOptions(api_endpoint=self._emulator_host) if self._emulator_host else None
            self._client = bigquery.Client(
                project=self.project, credentials=self._credentials, client_options=options, location=self.location
            )
        return self._client

    def _write(self) -> BigQueryWriteClient:
        if self._writer is None:
            transport = None
            if self._emulator_grpc_host:
                channel = grpc.insecure_channel(self._emulator_grpc_host)
                transport = BigQueryWriteGrpcTransport(channel=channel)
            self._writer = BigQueryWriteClient(  # type: ignore[no-untyped-call]
                transport=transport, credentials=None if transport else self._credentials
            )
        return self._writer

    def _make_dataset(self, client: bigquery.Client) -> str:
        dataset = bigquery.Dataset(f"{self.project}.{self.dataset}")
        dataset.location = self.location
        dataset.description = "En Garde's disaster recovery copy: append-only, read the latest row per version."
        client.create_dataset(dataset, exists_ok=True, timeout=CALL_SECONDS)
        return f"{self.project}.{self.dataset}"

    def _table(self, name: str) -> bigquery.Table:
        schema = [bigquery.SchemaField(field, kind, description=text) for field, kind, text in TABLES[name]]
        table = bigquery.Table(f"{self.project}.{self.dataset}.{name}", schema=schema)
        partitioned_by = "sealed_at" if name == LOG_TABLE else "changed_at"
        table.time_partitioning = bigquery.TimePartitioning(field=partitioned_by)
        table.clustering_fields = ["batch_id"] if name == LOG_TABLE else ["tenant_id", "entity_type", "entity_id"]
        table.labels = {"application": "engarde"}
        return table


def _credentials(credentials_json: str, *, is_emulator: bool) -> Credentials | None:
    if is_emulator:
        return AnonymousCredentials()  # type: ignore[no-untyped-call]
    if not credentials_json:
        return None
    info = json.loads(credentials_json)
    return service_account.Credentials.from_service_account_info(info)  # type: ignore[no-untyped-call, no-any-return]


def _chunks(rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows in runs that fit one request."""
    chunk: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        row_size = len((row["document"] or "").encode()) + len(row["facts"]) + 1000
        if chunk and size + row_size > MAX_APPEND_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(row)
        size += row_size
    if chunk:
        yield chunk


def _row(record: ArchiveRecord, now: datetime) -> dict[str, Any]:
    row = {name: getattr(record, name) for name, *_ in _CHANGE_FIELDS if name != "ingested_at"}
    return {name: str(value) if isinstance(value, UUID) else value for name, value in row.items()} | {
        "ingested_at": now
    }


def _manifest_row(manifest: BatchManifest, now: datetime) -> dict[str, Any]:
    row = {name: getattr(manifest, name) for name, *_ in _LOG_FIELDS if name != "ingested_at"}
    return row | {"batch_id": str(manifest.batch_id), "ingested_at": now}


def _record(row: Any) -> ArchiveRecord:
    fields = {name: row[name] for name, *_ in _CHANGE_FIELDS if name != "ingested_at"}
    ids = {name: UUID(fields[name]) for name in ("tenant_id", "entity_id", "batch_id")}
    return ArchiveRecord(**{**fields, **ids})


def _require_appended(answer: types.AppendRowsResponse) -> None:
    if answer.row_errors:
        raise ArchiveUnavailable(f"BigQuery refused {len(answer.row_errors)} rows: {answer.row_errors[0].message}")
    if answer.error.code:
        raise api.from_grpc_status(answer.error.code, answer.error.message)  # type: ignore[no-untyped-call]
