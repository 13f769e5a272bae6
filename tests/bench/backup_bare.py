"""The baselines of backup and restore: plain loops over the same clients and queries, in pieces of the same size.

They move, hash and write the same rows; they seal and lease nothing, keep no manifest, acknowledge nothing, compare nothing,
close no door, count nothing again, and break off at the first error.
"""

import hashlib
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

import orjson
import pyarrow as pa
import pyarrow.parquet as parquet
import zstandard
from django.db import connection
from django.utils import timezone
from google.cloud import bigquery
from google.cloud.bigquery_storage_v1 import types

from content import recovery
from dr import sync
from dr.archives.bigquery import BigQueryArchive, BigQuerySnapshot
from dr.archives.bigquery_tables import CONTENT_TABLE, RECORD_FIELDS, TABLES
from dr.reading import PIECE_RECORDS
from engarde.common.scopes import system_scope

LOAD_ROWS = 100 * sync.PACK_BATCHES
NEXT = """
SELECT change.seq, change.xid, change.tenant_id, change.entity_id, change.version, change.op, change.sha256,
       change.changed_at, content_version_facts(made, item.author_id, item.created_at), made.size_bytes
FROM content_changes AS change
JOIN content_storage_metadata AS item ON item.id = change.entity_id
JOIN content_versions AS made ON made.content_id = change.entity_id AND made.version = change.version
WHERE change.tenant_id = %s AND change.entity_type = 'content' AND change.seq > %s ORDER BY change.seq LIMIT %s"""
DOCUMENTS = "SELECT content_id, sha256, document FROM content_body_spool WHERE content_id = ANY(%s)"
ITEMS = """
INSERT INTO content_storage_metadata (
    id, tenant_id, brand_id, campaign_space_id, author_id, title, content_type, status, version, size_bytes, sha256,
    scheduled_at, created_at, updated_at)
SELECT * FROM unnest(
    %s::uuid[], %s::uuid[], %s::uuid[], %s::uuid[], %s::uuid[], %s::text[], %s::text[], %s::text[], %s::int[],
    %s::int[], %s::bytea[], %s::timestamptz[], %s::timestamptz[], %s::timestamptz[])"""
VERSIONS = """
INSERT INTO content_versions (
    tenant_id, content_id, version, size_bytes, sha256, change_type, changed_by, created_at, changed_fields, backed_up_at)
SELECT copy.tenant_id, id, number, size, hash, kind, author, made, '{}', now()
FROM unnest(%s::uuid[], %s::uuid[], %s::int[], %s::int[], %s::bytea[], %s::text[], %s::uuid[], %s::timestamptz[])
     AS copy (tenant_id, id, number, size, hash, kind, author, made)"""
SPOOL = """
INSERT INTO content_body_spool (content_id, version, tenant_id, sha256, document, attempts, next_attempt_at, last_error)
SELECT id, number, copy.tenant_id, hash, document, 1, now(), ''
FROM unnest(%s::uuid[], %s::int[], %s::uuid[], %s::bytea[], %s::bytea[]) AS copy (id, number, tenant_id, hash, document)"""
LABELS = "INSERT INTO {table} (tenant_id, name, content_id) SELECT * FROM unnest(%s::uuid[], %s::text[], %s::uuid[])"


class Damaged(RuntimeError):
    """A row or a document is not what its hash says."""


# Backup


@contextmanager
def table(archive: BigQueryArchive) -> Iterator[str]:
    """Make a table like that of the backup for as long as the block lasts, and yield its name."""
    name = f"{archive.project}.{archive.dataset}.bench_{uuid4().hex}"
    schema = [bigquery.SchemaField(field, kind) for field, kind, _ in TABLES[CONTENT_TABLE]]
    archive._rest().create_table(bigquery.Table(name, schema=schema))
    try:
        yield name
    finally:
        archive._rest().delete_table(name, not_found_ok=True)


def back_up(archive: BigQueryArchive, tenant_id: UUID, target: str) -> int:
    """Read a tenant's changes and documents, load them into a table, and return how many there were."""
    seq = total = 0
    while changes := _changes(tenant_id, seq):
        _load(archive, target, changes)
        seq, total = changes[-1][0], total + len(changes)
    return total


def _changes(tenant_id: UUID, seq: int) -> list[tuple[Any, ...]]:
    with system_scope("bare loop"), connection.cursor() as cursor:
        cursor.execute(NEXT, [tenant_id, seq, LOAD_ROWS])
        changes = cursor.fetchall()
        cursor.execute(DOCUMENTS, [[change[3] for change in changes]])
        kept = {(content_id, bytes(sha256)): document for content_id, sha256, document in cursor.fetchall()}
    return [(*change, _text(kept, change[3], bytes(change[6]))) for change in changes]


def _text(kept: dict[Any, Any], content_id: UUID, sha256: bytes) -> str:
    text = zstandard.decompress(bytes(kept[content_id, sha256]))
    if hashlib.sha256(text).digest() != sha256:
        raise Damaged(f"{content_id} is damaged")
    return text.decode()


def _load(archive: BigQueryArchive, target: str, changes: Sequence[tuple[Any, ...]]) -> None:
    now, batch_id = timezone.now(), str(uuid4())
    seqs, xids, tenants, ids, versions, ops, hashes, times, facts, sizes, texts = zip(*changes, strict=True)
    hexes = [bytes(one).hex() for one in hashes]
    columns = {
        "tenant_id": [str(one) for one in tenants],
        "entity_type": ["content"] * len(changes),
        "entity_id": [str(one) for one in ids],
        "version": versions,
        "epoch": [1] * len(changes),
        "change_seq": seqs,
        "xid": xids,
        "op": ops,
        "changed_at": times,
        "sha256": hexes,
        "size_bytes": sizes,
        "facts": facts,
        "document": texts,
        "row_hash": list(map(_row_hash, tenants, ids, versions, ops, hexes, facts)),
        "batch_id": [batch_id] * len(changes),
        "ingested_at": [now] * len(changes),
    }
    file = io.BytesIO()
    parquet.write_table(pa.table(columns, schema=_schema()), file, compression="zstd")
    size = file.tell()
    file.seek(0)
    config = bigquery.LoadJobConfig(source_format=bigquery.SourceFormat.PARQUET, write_disposition="WRITE_APPEND")
    archive._rest().load_table_from_file(file, target, size=size, job_config=config).result()


def _schema() -> Any:
    kinds = {"STRING": pa.string(), "INT64": pa.int64(), "TIMESTAMP": pa.timestamp("us", tz="UTC")}
    return pa.schema([(name, kinds[kind]) for name, kind, _ in TABLES[CONTENT_TABLE]])


def _row_hash(tenant_id: object, content_id: object, version: int, op: str, sha256: str, facts: str) -> str:
    meaning = f"{tenant_id}|content|{content_id}|{version}|{op}|{sha256}|{facts}"
    return hashlib.sha256(meaning.encode()).hexdigest()


# Restore


def restore(archive: BigQueryArchive, tenant_id: UUID) -> int:
    """Bring a tenant's items back into emptied tables, and return how many there were."""
    total = 0
    with archive.snapshot(tenant_id=tenant_id) as snapshot:
        for rows in _pieces(archive, snapshot):
            _write([_checked(row) for row in rows])
            total += len(rows)
    return total


def _pieces(archive: BigQueryArchive, snapshot: BigQuerySnapshot) -> Iterator[list[dict[str, Any]]]:
    piece: list[dict[str, Any]] = []
    for batch in _batches(archive, snapshot):
        for row in batch.to_pylist():
            piece.append(row)
            if len(piece) >= PIECE_RECORDS:
                yield piece
                piece = []
    if piece:
        yield piece


def _batches(archive: BigQueryArchive, snapshot: BigQuerySnapshot) -> Iterator[Any]:
    project, dataset, name = snapshot._table.split(".")
    reader = archive._read()
    session = reader.create_read_session(
        parent=f"projects/{project}",
        read_session=types.ReadSession(
            table=f"projects/{project}/datasets/{dataset}/tables/{name}",
            data_format=types.DataFormat.ARROW,
            read_options=types.ReadSession.TableReadOptions(
                selected_fields=[*RECORD_FIELDS, "is_current", "highest"],
                row_restriction="entity_type = 'content' AND is_current = true",
            ),
        ),
        max_stream_count=1,
    )
    schema = pa.ipc.read_schema(pa.py_buffer(session.arrow_schema.serialized_schema))
    for stream in session.streams:
        for message in reader.read_rows(stream.name):
            yield pa.ipc.read_record_batch(pa.py_buffer(message.arrow_record_batch.serialized_record_batch), schema)


def _checked(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as it is written; its hash and that of its document hold."""
    parts = (row[name] for name in ("tenant_id", "entity_id", "version", "op", "sha256", "facts"))
    text = row["document"].encode()
    if _row_hash(*parts) != row["row_hash"] or hashlib.sha256(text).hexdigest() != row["sha256"]:
        raise Damaged(f"{row['entity_id']} is damaged")
    facts = orjson.loads(row["facts"])
    return {
        **row,
        "hash": bytes.fromhex(row["sha256"]),
        "fields": orjson.loads(text),
        "kept": zstandard.compress(text, level=3),
        "author_id": facts["author_id"],
        "kind": facts["change_type"],
        "by": facts["changed_by"],
        "item_at": f"{facts['item_created_at']}+00",
        "version_at": f"{facts['version_created_at']}+00",
    }


def _write(rows: Sequence[dict[str, Any]]) -> None:
    items = [_item(row) for row in rows]
    versions = [_version(row) for row in rows]
    spooled = [(row["entity_id"], row["version"], row["tenant_id"], row["hash"], row["kept"]) for row in rows]
    with system_scope("bare loop"):
        recovery.silence()
        with connection.cursor() as cursor:
            for statement, values in ((ITEMS, items), (VERSIONS, versions), (SPOOL, spooled)):
                cursor.execute(statement, list(map(list, zip(*values, strict=True))))
            for name, field in (("content_tags", "tags"), ("content_platforms", "platforms")):
                labels = [
                    (row["tenant_id"], label, row["entity_id"])
                    for row in rows
                    for label in row["fields"].get(field, ())
                ]
                if labels:
                    cursor.execute(LABELS.format(table=name), list(map(list, zip(*labels, strict=True))))


def _item(row: dict[str, Any]) -> tuple[Any, ...]:
    fields = row["fields"]
    return (
        row["entity_id"],
        row["tenant_id"],
        fields["brand_id"],
        fields.get("campaign_space_id"),
        row["author_id"],
        fields["title"],
        fields["type"],
        fields["status"],
        row["version"],
        row["size_bytes"],
        row["hash"],
        fields.get("scheduled_at"),
        row["item_at"],
        row["version_at"],
    )


def _version(row: dict[str, Any]) -> tuple[Any, ...]:
    return (
        row["tenant_id"],
        row["entity_id"],
        row["version"],
        row["size_bytes"],
        row["hash"],
        row["kind"],
        row["by"],
        row["version_at"],
    )
