"""The archive in BigQuery: rows go in through the Storage Write API or by load jobs, come back through the Storage Read API.

Rows are only ever appended, but for what is removed for good. The default stream delivers at least once; readers take the latest
row per version, so a row that arrived twice counts once.
"""

import io
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from operator import attrgetter
from typing import Any
from uuid import UUID, uuid4

import grpc
import pyarrow as pa
import pyarrow.parquet as parquet
from google.api_core import exceptions as api
from google.api_core.client_options import ClientOptions
from google.auth.credentials import AnonymousCredentials, Credentials
from google.cloud import bigquery
from google.cloud.bigquery_storage_v1 import BigQueryReadClient, BigQueryWriteClient, types
from google.cloud.bigquery_storage_v1.services.big_query_read.transports import BigQueryReadGrpcTransport
from google.cloud.bigquery_storage_v1.services.big_query_write.transports import BigQueryWriteGrpcTransport
from google.oauth2 import service_account

from dr.archives import bigquery_sql as sql
from dr.archives.base import (
    MEDIA_TYPES,
    ArchiveRecord,
    ArchiveRefused,
    BatchManifest,
    BatchSum,
    CurrentRecord,
    GroupSum,
    RecordsRejected,
    Removed,
)
from dr.archives.bigquery_errors import load_failed, named_errors, translate
from dr.archives.bigquery_tables import (
    CLUSTERED_BY,
    CONTENT_TABLE,
    DESCRIPTIONS,
    LABELS,
    LOG_TABLE,
    MEDIA_TABLE,
    PARTITIONED_BY,
    RECORD_FIELDS,
    TABLES,
    names_of,
    size_of,
)

__all__ = ["CONTENT_TABLE", "LOG_TABLE", "MAX_APPEND_BYTES", "MEDIA_TABLE", "BigQueryArchive", "translate"]

MAX_APPEND_BYTES = 8 * 1024**2  # the service takes 10 MB a request on older endpoints, 20 MB on newer ones
MAX_MESSAGE_BYTES = 256 * 1024**2
AHEAD_BYTES = 4 * 1024**2
"""What a stream may send before it is read."""
PAGE_ROWS = 200
CALL_SECONDS = 30.0
LOAD_SECONDS = 300.0
QUERY_SECONDS = 600.0
SCRATCH_KEPT = timedelta(days=1)
IDS = ("tenant_id", "entity_id", "batch_id")

NO_RETRY: Any = None  # retries are scheduled in the database; the client's own would go on for minutes

_ARROW = {"STRING": pa.string(), "INT64": pa.int64(), "TIMESTAMP": pa.timestamp("us", tz="UTC")}


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
        scratch_dataset: str = "",
        read_only: bool = False,
    ) -> None:
        """Prepare; nothing is sent yet.

        Args:
            credentials_json: a service account's key; empty for the environment's own credentials.
            emulator_host: base URL of a BigQuery emulator's REST API, asked without credentials.
            emulator_grpc_host: host:port of its gRPC API.
            scratch_dataset: where snapshots are held for the time of a restore; by default in the same dataset.
            read_only: refuse whatever would change the dataset.
        """
        self.project, self.dataset, self.location = project, dataset, location
        self.scratch_dataset = scratch_dataset or dataset
        self.read_only = read_only
        self._emulator_host, self._emulator_grpc_host = emulator_host, emulator_grpc_host
        self._key = credentials_json
        self._known_credentials: Credentials | None = None
        self._client: bigquery.Client | None = None
        self._writer: BigQueryWriteClient | None = None
        self._reader: BigQueryReadClient | None = None

    # Making it

    @named_errors
    def set_up(self) -> list[str]:
        """Create the dataset and the tables that are missing, and the columns that newer versions added."""
        self._require_writable()
        client = self._rest()
        for name in {self.dataset, self.scratch_dataset}:
            self._make_dataset(client, name)
        there = {table.table_id for table in client.list_tables(f"{self.project}.{self.dataset}", timeout=CALL_SECONDS)}
        for name in TABLES.keys() & there:
            self._mend_table(client, name)
        missing = [name for name in TABLES if name not in there]
        for name in missing:
            client.create_table(self._table(name), exists_ok=True, timeout=CALL_SECONDS)
        return missing

    @named_errors
    def ping(self) -> None:
        """Ask for the dataset and its tables."""
        client = self._rest()
        client.get_dataset(f"{self.project}.{self.dataset}", retry=NO_RETRY, timeout=CALL_SECONDS)
        client.get_table(self._name(CONTENT_TABLE), retry=NO_RETRY, timeout=CALL_SECONDS)

    def _make_dataset(self, client: bigquery.Client, name: str) -> None:
        """Create a dataset unless it is there: creating asks for a right that the writer need not keep."""
        dataset = bigquery.Dataset(f"{self.project}.{name}")
        with suppress(api.NotFound):
            client.get_dataset(dataset.reference, timeout=CALL_SECONDS)
            return
        dataset.location = self.location
        dataset.description = "En Garde's disaster recovery copy: append-only, read the latest row per version."
        dataset.labels = LABELS
        client.create_dataset(dataset, exists_ok=True, timeout=CALL_SECONDS)

    def _table(self, name: str) -> bigquery.Table:
        schema = [bigquery.SchemaField(field, kind, description=text) for field, kind, text in TABLES[name]]
        table = bigquery.Table(self._name(name), schema=schema)
        table.time_partitioning = bigquery.TimePartitioning(field=PARTITIONED_BY[name])
        table.clustering_fields = CLUSTERED_BY[name]
        table.description = DESCRIPTIONS[name]
        table.labels = LABELS
        return table

    def _mend_table(self, client: bigquery.Client, name: str) -> None:
        """Add columns that are missing, and take back an expiration: it would remove the only copy of what did not change."""
        table = client.get_table(self._name(name), timeout=CALL_SECONDS)
        there = {field.name for field in table.schema}
        new = [
            bigquery.SchemaField(field, kind, description=text)
            for field, kind, text in TABLES[name]
            if field not in there
        ]
        if new:
            table.schema = [*table.schema, *new]
            client.update_table(table, ["schema"], timeout=CALL_SECONDS)
        if table.time_partitioning and table.time_partitioning.expiration_ms:
            table.time_partitioning._properties["expirationMs"] = None  # one that is left out would be kept
            client.update_table(table, ["time_partitioning"], timeout=CALL_SECONDS)

    # Records in

    @named_errors
    def append(self, records: Sequence[ArchiveRecord], manifests: Sequence[BatchManifest]) -> None:
        """Send the records and then the manifests that vouch for them."""
        self._require_writable()
        now = datetime.now(UTC)
        for table, some in _by_table(records).items():
            self._append(table, [_row(record, now) for record in some])
        self._append(LOG_TABLE, [_manifest_row(manifest, now) for manifest in manifests])

    @named_errors
    def load(self, records: Sequence[ArchiveRecord], manifests: Sequence[BatchManifest], *, job: str) -> None:
        """Have the records loaded by a job a table, and then send the manifests that vouch for them."""
        self._require_writable()
        now = datetime.now(UTC)
        for table, some in _by_table(records).items():
            self._load(table, _columns(table, some, now), f"{job}-{table}")
        self._append(LOG_TABLE, [_manifest_row(manifest, now) for manifest in manifests])

    def _load(self, table: str, columns: pa.Table, job_id: str) -> None:
        file = io.BytesIO()
        parquet.write_table(columns, file, compression="zstd")
        size = file.tell()
        file.seek(0)
        config = bigquery.LoadJobConfig(
            source_format=bigquery.SourceFormat.PARQUET,
            write_disposition=bigquery.WriteDisposition.WRITE_APPEND,
            create_disposition=bigquery.CreateDisposition.CREATE_NEVER,
            schema=[bigquery.SchemaField(name, kind) for name, kind, _ in TABLES[table]],
            labels=LABELS,
        )
        client: Any = self._rest()
        try:
            started = client.load_table_from_file(
                file,
                self._name(table),
                size=size,
                job_id=job_id,
                job_config=config,
                location=self.location,
                num_retries=0,
                timeout=CALL_SECONDS,
            )
        except api.Conflict:  # an earlier try of the same job was accepted
            started = client.get_job(job_id, location=self.location, retry=NO_RETRY, timeout=CALL_SECONDS)
        try:
            started.result(timeout=LOAD_SECONDS, retry=NO_RETRY)
        except api.GoogleAPIError as error:
            if started.state == "DONE" and started.error_result:
                raise load_failed(error) from error
            raise

    def _append(self, table: str, rows: list[dict[str, Any]]) -> None:
        for chunk in _chunks(rows):
            self._append_chunk(table, chunk)

    def _append_chunk(self, table: str, rows: list[dict[str, Any]]) -> None:
        schema = _schema(table)
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

    # Records out

    def highest_epoch(self) -> int:
        """Return the highest epoch of any record, 0 without one."""
        parts = " UNION ALL ".join(
            f"SELECT MAX(epoch) AS epoch FROM `{table}` WHERE changed_at <= @as_of"  # noqa: S608 -- our own names
            for table in self._record_tables()
        )
        [row] = self._query(f"SELECT IFNULL(MAX(epoch), 0) AS epoch FROM ({parts})", _as_of(None))  # noqa: S608
        return int(row["epoch"])

    def latest_number(self, *, epoch: int) -> int:
        """Return the highest number of a change of an epoch, 0 without one."""
        parts = " UNION ALL ".join(
            f"SELECT MAX(change_seq) AS seq FROM `{table}` WHERE changed_at <= @as_of AND epoch = @epoch"  # noqa: S608
            for table in self._record_tables()
        )
        parameters = [*_as_of(None), bigquery.ScalarQueryParameter("epoch", "INT64", epoch)]
        [row] = self._query(f"SELECT IFNULL(MAX(seq), 0) AS seq FROM ({parts})", parameters)  # noqa: S608
        return int(row["seq"])

    def knows(self, *, tenant_id: UUID) -> bool:
        """Tell whether any record is a tenant's."""
        table = self._name(CONTENT_TABLE)
        statement = f"SELECT 1 FROM `{table}` WHERE changed_at <= @as_of AND tenant_id = @tenant_id LIMIT 1"  # noqa: S608
        return bool(list(self._query(statement, [*_as_of(None), _text("tenant_id", tenant_id)])))

    @contextmanager
    def snapshot(self, *, tenant_id: UUID | None = None, as_of: datetime | None = None) -> Iterator["BigQuerySnapshot"]:
        """Hold still, in a table of its own that expires by itself, what is or was in force."""
        name = f"{self.project}.{self.scratch_dataset}.restore_{uuid4().hex}"
        where, parameters = _of_tenant(tenant_id, with_platform=True)
        expires = (datetime.now(UTC) + SCRATCH_KEPT).strftime("%Y-%m-%d %H:%M:%S UTC")
        statement = sql.snapshot(name, self._record_tables(), where, expires)
        self._query(statement, [*_as_of(as_of), *parameters], timeout=QUERY_SECONDS)
        try:
            yield BigQuerySnapshot(self, name)
        finally:
            self._drop(name)

    @named_errors
    def _drop(self, name: str) -> None:
        self._rest().delete_table(name, not_found_ok=True, retry=NO_RETRY, timeout=CALL_SECONDS)

    def documents(
        self, *, tenant_id: UUID, keys: Collection[tuple[UUID, str]], timeout: float
    ) -> dict[tuple[UUID, str], str]:
        """Return the texts of documents by (entity id, sha256)."""
        statement = f"""
            SELECT entity_id, sha256, ANY_VALUE(document) AS document FROM `{self._name(CONTENT_TABLE)}`
            WHERE changed_at <= @as_of AND tenant_id = @tenant_id AND entity_type = 'content'
              AND entity_id IN UNNEST(@ids) AND sha256 IN UNNEST(@hashes)
              AND document IS NOT NULL AND TO_HEX(SHA256(document)) = sha256
            GROUP BY entity_id, sha256"""  # noqa: S608 -- names come from the settings
        parameters = [
            *_as_of(None),
            _text("tenant_id", tenant_id),
            bigquery.ArrayQueryParameter("ids", "STRING", sorted({str(entity_id) for entity_id, _ in keys})),
            bigquery.ArrayQueryParameter("hashes", "STRING", sorted({sha256 for _, sha256 in keys})),
        ]
        rows = self._query(statement, parameters, timeout=timeout)
        return {(UUID(row["entity_id"]), row["sha256"]): row["document"] for row in rows}

    def history(
        self, *, tenant_id: UUID, entity_id: UUID, as_of: datetime | None = None, timeout: float | None = None
    ) -> list[CurrentRecord]:
        """Return what is in force of one item, or was at a time, oldest version first."""
        where = "tenant_id = @tenant_id AND entity_type = 'content' AND entity_id = @entity_id"
        inner = sql.in_force([self._name(CONTENT_TABLE)], sql.COLUMNS, where)
        highest = f"SELECT MAX(version) FROM `{self._name(CONTENT_TABLE)}` WHERE {where}"  # noqa: S608
        statement = f"SELECT * EXCEPT (highest), ({highest}) AS highest FROM ({inner}) ORDER BY version"  # noqa: S608
        parameters = [*_as_of(as_of), _text("tenant_id", tenant_id), _text("entity_id", entity_id)]
        return [_current(row) for row in self._pages(statement, parameters, timeout=timeout or QUERY_SECONDS)]

    # Comparing

    def sums(self, *, tenant_id: UUID | None, deep: bool) -> Iterator[GroupSum]:
        """Yield the sums of what is in force, computed in BigQuery."""
        where, parameters = _of_tenant(tenant_id, with_platform=False)
        statement = sql.sums(self._record_tables(), where, deep=deep)
        for row in self._pages(statement, [*_as_of(None), *parameters]):
            lanes = (int(row["s1"]), int(row["s2"]), int(row["s3"]))
            yield GroupSum(
                _id(row["tenant_id"]), row["entity_type"], row["day"], row["n"], lanes, int(row["damaged"] or 0)
            )

    def group(self, *, tenant_id: UUID, entity_type: str, day: date | None) -> Iterator[ArchiveRecord]:
        """Yield the records that one sum is over, by entity and version."""
        where = "tenant_id = @tenant_id AND entity_type = @entity_type"
        parameters = [
            *_as_of(None),
            _text("tenant_id", tenant_id),
            _text("entity_type", entity_type),
            _text("day", day.isoformat() if day else ""),
        ]
        table = MEDIA_TABLE if entity_type in MEDIA_TYPES else CONTENT_TABLE
        for row in self._pages(sql.group([self._name(table)], where), parameters):
            yield _record(row)

    def batch_sums(self, *, since: datetime, changed_since: datetime | None = None) -> Iterator[BatchSum]:
        """Yield what is there of each batch and what its manifest says."""
        floor = changed_since or datetime(1970, 1, 1, tzinfo=UTC)
        times = {"since": since, "floor": floor}
        parameters = _as_of(None) + [bigquery.ScalarQueryParameter(name, "TIMESTAMP", at) for name, at in times.items()]
        for row in self._pages(sql.batch_sums(self._record_tables(), self._name(LOG_TABLE)), parameters):
            held, told = (row["s1"], row["s2"], row["s3"]), (row["told_s1"], row["told_s2"], row["told_s3"])
            yield BatchSum(_id(row["batch_id"]), row["n"], held, row["told_n"], told)

    # Removing

    @named_errors
    def remove_purged(self, *, before: datetime) -> Removed:
        """Remove what purges and removals of old versions made needless before a time."""
        self._require_writable()
        total = Removed(0, 0)
        for table in (CONTENT_TABLE, MEDIA_TABLE):
            condition = sql.needless(self._name(table))
            total = self._remove(table, condition, [], f"purge:{table}:{_iso(before)}", total)
        return total

    @named_errors
    def erase(self, *, tenant_id: UUID, entity_id: UUID | None = None) -> Removed:
        """Remove all that was sent until now of a tenant, or of one of its items."""
        self._require_writable()
        total, now = Removed(0, 0), datetime.now(UTC)
        condition = "kept.changed_at <= @as_of AND kept.tenant_id = @tenant_id AND kept.ingested_at <= @before"
        parameters = [_text("tenant_id", tenant_id)]
        if entity_id:
            condition += " AND kept.entity_id = @entity_id"
            parameters.append(_text("entity_id", entity_id))
        for table in (CONTENT_TABLE, MEDIA_TABLE):
            name = f"erase:{table}:{tenant_id}:{entity_id or ''}:{_iso(now)}"
            total = self._remove(table, condition, parameters, name, total)
        return total

    def _remove(self, table: str, condition: str, parameters: list[Any], name: str, total: Removed) -> Removed:
        """Log what a removal takes, take it, log that it is done; what an earlier one left undone is done first."""
        scope = name[: -len(_iso(datetime.now(UTC)))]
        for entry in self._undone(scope):
            self._delete(table, condition, parameters, entry)
        rows = batches = 0
        values = [*_as_of(None), *parameters, _before(name)]
        entries: list[dict[str, Any]] = []
        for row in self._pages(sql.removal_sums(self._name(table), condition), values):
            entries.append(_counter_entry(row, name))
            rows, batches = rows + row["n"], batches + 1
            if len(entries) >= PAGE_ROWS * 10:
                self._append(LOG_TABLE, entries)
                entries = []
        self._append(LOG_TABLE, entries)
        if batches:
            self._delete(table, condition, parameters, name)
        return Removed(total.rows + rows, total.batches + batches)

    def _undone(self, scope: str) -> list[str]:
        """Return the names of removals that were logged, and perhaps not carried out."""
        statement = f"""
            SELECT DISTINCT entry FROM `{self._name(LOG_TABLE)}` WHERE STARTS_WITH(entry, @scope)
            AND entry NOT IN (SELECT batch_id FROM `{self._name(LOG_TABLE)}` WHERE entry = 'done')"""  # noqa: S608
        return [row["entry"] for row in self._query(statement, [_text("scope", scope)])]

    def _delete(self, table: str, condition: str, parameters: list[Any], name: str) -> None:
        values = [*_as_of(None), *parameters, _before(name)]
        self._query(sql.removal(self._name(table), condition), values, timeout=QUERY_SECONDS)
        now = datetime.now(UTC)
        zeros = {"rows": 0, "bytes": 0, "s1": 0, "s2": 0, "s3": 0}
        self._append(LOG_TABLE, [{"batch_id": name, "entry": "done", **zeros, "sealed_at": now, "ingested_at": now}])

    # Clients

    @named_errors
    def _query(self, statement: str, parameters: list[Any], *, timeout: float = QUERY_SECONDS) -> Any:
        config = bigquery.QueryJobConfig(query_parameters=parameters, use_query_cache=False, labels=LABELS)
        job = self._rest().query(
            statement,
            job_config=config,
            location=self.location,
            timeout=min(timeout, CALL_SECONDS),
            retry=NO_RETRY,
            job_retry=None,
        )
        return job.result(page_size=PAGE_ROWS, timeout=timeout, retry=NO_RETRY, job_retry=None)

    def _pages(self, statement: str, parameters: list[Any], *, timeout: float = QUERY_SECONDS) -> Iterator[Any]:
        rows = iter(self._query(statement, parameters, timeout=timeout))
        while (row := self._next(rows)) is not None:
            yield row

    @named_errors
    def _next(self, rows: Iterator[Any]) -> Any:
        return next(rows, None)

    def _require_writable(self) -> None:
        if self.read_only:
            raise ArchiveRefused(
                "BIGQUERY_READ_ONLY is set: this process may not change the backup.", reason="readOnly"
            )

    def _name(self, table: str) -> str:
        return f"{self.project}.{self.dataset}.{table}"

    def _record_tables(self) -> list[str]:
        return [self._name(CONTENT_TABLE), self._name(MEDIA_TABLE)]

    def _rest(self) -> bigquery.Client:
        if self._client is None:
            options = ClientOptions(api_endpoint=self._emulator_host) if self._emulator_host else None
            self._client = bigquery.Client(
                project=self.project, credentials=self._credentials(), client_options=options, location=self.location
            )
        return self._client

    def _write(self) -> BigQueryWriteClient:
        if self._writer is None:
            self._writer = self._storage_client(BigQueryWriteClient, BigQueryWriteGrpcTransport)
        return self._writer

    def _read(self) -> BigQueryReadClient:
        if self._reader is None:
            self._reader = self._storage_client(BigQueryReadClient, BigQueryReadGrpcTransport)
        return self._reader

    def _storage_client(self, client: Callable[..., Any], transport: Callable[..., Any]) -> Any:
        if not self._emulator_grpc_host:
            return client(credentials=self._credentials())
        limits = [
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.http2.bdp_probe", 0),  # else the window grows while the stream is fast, to 70 MB within a minute
            ("grpc.http2.lookahead_bytes", AHEAD_BYTES),
        ]
        return client(transport=transport(channel=grpc.insecure_channel(self._emulator_grpc_host, options=limits)))

    def _credentials(self) -> Credentials | None:
        if self._known_credentials is None:
            self._known_credentials = _credentials(self._key, is_emulator=bool(self._emulator_host))
        return self._known_credentials


class BigQuerySnapshot:
    """What was in force at a time, in a table of its own."""

    def __init__(self, archive: BigQueryArchive, table: str) -> None:
        self._archive, self._table = archive, table

    def count(self, *, entity_type: str, is_current: bool | None = None) -> int:
        """Return how many records of a type there are."""
        statement = f"SELECT COUNT(*) AS n FROM `{self._table}` WHERE {_selected(entity_type, is_current)}"  # noqa: S608
        [row] = self._archive._query(statement, [])
        return int(row["n"])

    def records(self, *, entity_type: str, is_current: bool | None = None) -> Iterator[CurrentRecord]:
        """Yield the records of a type, in no order, a message of the stream at a time."""
        for batch in self._batches(_selected(entity_type, is_current)):
            for start in range(0, batch.num_rows, PAGE_ROWS):  # a message may have tens of thousands
                for row in batch.slice(start, PAGE_ROWS).to_pylist():
                    yield _current(row)

    @named_errors
    def _session(self, condition: str) -> Any:
        project, dataset, table = self._table.split(".")
        options = types.ReadSession.TableReadOptions(
            selected_fields=[*RECORD_FIELDS, "is_current", "highest"], row_restriction=condition
        )
        wanted = types.ReadSession(
            table=f"projects/{project}/datasets/{dataset}/tables/{table}",
            data_format=types.DataFormat.ARROW,
            read_options=options,
        )
        return self._archive._read().create_read_session(
            parent=f"projects/{self._archive.project}", read_session=wanted, max_stream_count=1, timeout=CALL_SECONDS
        )

    def _batches(self, condition: str) -> Iterator[pa.RecordBatch]:
        session = self._session(condition)
        if not session.streams:
            return
        schema = pa.ipc.read_schema(pa.py_buffer(session.arrow_schema.serialized_schema))
        for stream in session.streams:
            messages = self._open(stream.name)
            while (message := self._archive._next(messages)) is not None:
                yield pa.ipc.read_record_batch(pa.py_buffer(message.arrow_record_batch.serialized_record_batch), schema)

    @named_errors
    def _open(self, stream: str) -> Iterator[Any]:
        return iter(self._archive._read().read_rows(stream))  # type: ignore[no-untyped-call]


def _selected(entity_type: str, is_current: bool | None) -> str:  # noqa: FBT001 -- None for both
    chosen = "" if is_current is None else f" AND is_current = {str(is_current).lower()}"
    return f"entity_type = '{entity_type}'{chosen}"


def _credentials(key: str, *, is_emulator: bool) -> Credentials | None:
    """Return the credentials that the settings give; None for the environment's own.

    Raises:
        ArchiveRefused: the key cannot be read.
    """
    if is_emulator:
        return AnonymousCredentials()  # type: ignore[no-untyped-call]
    try:
        if key:
            return service_account.Credentials.from_service_account_info(json.loads(key))  # type: ignore[no-untyped-call, no-any-return]
    except ValueError as error:
        message = f"no usable Google credentials: {type(error).__name__} in the service account's key"
        raise ArchiveRefused(message, reason="credentials") from error
    return None


def _by_table(records: Sequence[ArchiveRecord]) -> dict[str, list[ArchiveRecord]]:
    tables: dict[str, list[ArchiveRecord]] = {}
    for record in records:
        name = MEDIA_TABLE if record.entity_type in MEDIA_TYPES else CONTENT_TABLE
        tables.setdefault(name, []).append(record)
    return tables


def _columns(table: str, records: Sequence[ArchiveRecord], now: datetime) -> pa.Table:
    """Return records as a table; by columns, which takes a fraction of the time of a dictionary a row."""
    columns: dict[str, list[Any]] = {name: list(map(attrgetter(name), records)) for name in RECORD_FIELDS}
    for name in IDS:
        columns[name] = list(map(str, columns[name]))
    return pa.table({**columns, "ingested_at": [now] * len(records)}, schema=_schema(table))


def _schema(table: str) -> pa.Schema:
    return pa.schema([(name, _ARROW[kind]) for name, kind, _ in TABLES[table]])


def _chunks(rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows in runs that fit one request."""
    chunk: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        row_size = size_of(row)
        if chunk and size + row_size > MAX_APPEND_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(row)
        size += row_size
    if chunk:
        yield chunk


def _row(record: ArchiveRecord, now: datetime) -> dict[str, Any]:
    row = {name: getattr(record, name) for name in RECORD_FIELDS}
    for name in IDS:
        row[name] = str(row[name])
    return {**row, "ingested_at": now}


def _manifest_row(manifest: BatchManifest, now: datetime) -> dict[str, Any]:
    given = {name: getattr(manifest, name, None) for name in names_of(LOG_TABLE)}
    lanes = dict(zip(("s1", "s2", "s3"), manifest.lanes, strict=True))
    return {**given, **lanes, "batch_id": str(manifest.batch_id), "entry": "manifest", "ingested_at": now}


def _counter_entry(row: Any, name: str) -> dict[str, Any]:
    now = datetime.now(UTC)
    taken = {"rows": -row["n"], "bytes": 0, "s1": -row["s1"], "s2": -row["s2"], "s3": -row["s3"]}
    return {"batch_id": row["batch_id"], "entry": name, **taken, "sealed_at": now, "ingested_at": now}


def _record(row: Any) -> ArchiveRecord:
    fields = {name: row[name] for name in RECORD_FIELDS}
    ids = {name: _id(fields[name]) for name in ("tenant_id", "entity_id", "batch_id")}
    return ArchiveRecord(**{**fields, **ids})


def _id(text: Any) -> UUID:
    """Return an id; zero for one that is damaged, whose record is then not intact."""
    try:
        return UUID(text)
    except (ValueError, AttributeError, TypeError):
        return UUID(int=0)


def _current(row: Any) -> CurrentRecord:
    return CurrentRecord(_record(row), bool(row["is_current"]), int(row["highest"]))


def _as_of(moment: datetime | None) -> list[Any]:
    return [bigquery.ScalarQueryParameter("as_of", "TIMESTAMP", moment or datetime.fromisoformat(sql.EVER))]


def _before(name: str) -> Any:
    """Return the parameter for the time that a removal's name ends with."""
    moment = datetime.strptime(name.rpartition(":")[2], "%Y%m%dT%H%M%S.%f%z")
    return bigquery.ScalarQueryParameter("before", "TIMESTAMP", moment)


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y%m%dT%H%M%S.%f%z")


def _text(name: str, value: object) -> Any:
    return bigquery.ScalarQueryParameter(name, "STRING", str(value))


def _of_tenant(tenant_id: UUID | None, *, with_platform: bool) -> tuple[str, list[Any]]:
    if tenant_id is None:
        return "TRUE", []
    platform = f" OR tenant_id = '{UUID(int=0)}'" if with_platform else ""
    return f"(tenant_id = @tenant_id{platform})", [_text("tenant_id", tenant_id)]


def _require_appended(answer: types.AppendRowsResponse) -> None:
    if answer.row_errors:
        raise RecordsRejected(f"BigQuery refused {len(answer.row_errors)} rows: {answer.row_errors[0].message}")
    if answer.error.code:
        raise api.from_grpc_status(answer.error.code, answer.error.message)  # type: ignore[no-untyped-call]
