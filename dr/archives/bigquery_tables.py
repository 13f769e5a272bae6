"""The backup's tables in BigQuery."""

from typing import Any

CONTENT_TABLE = "content_storage_dr"
MEDIA_TABLE = "content_media_dr"
LOG_TABLE = "content_sync_log"

Field = tuple[str, str, str]

CHANGE_FIELDS: tuple[Field, ...] = (
    ("tenant_id", "STRING", "Whose it is; zeros for what belongs to the platform."),
    ("entity_type", "STRING", "What kind of row this is a copy of."),
    ("entity_id", "STRING", "Its id."),
    ("version", "INT64", "Its version; 0 where there are none."),
    ("epoch", "INT64", "Raised by a restore and a new database; orders rows before change_seq."),
    ("change_seq", "INT64", "The change's number in PostgreSQL's log."),
    ("xid", "INT64", "The PostgreSQL transaction that made the change."),
    ("op", "STRING", "I insert, U update, D to the trash, P purged, T an old version removed."),
    ("changed_at", "TIMESTAMP", "When the transaction that made the change began."),
    ("sha256", "STRING", "Of the document's canonical text, or else of the facts."),
    ("size_bytes", "INT64", "Of the body, in UTF-8."),
    ("facts", "STRING", "JSON: of content what PostgreSQL knows beside the document, of others the row."),
    ("document", "STRING", "The document's canonical text; null where there is none."),
    ("row_hash", "STRING", "SHA-256 over the row's meaning."),
    ("batch_id", "STRING", "The sealed batch that it came in."),
    ("ingested_at", "TIMESTAMP", "When it was sent."),
)
LOG_FIELDS: tuple[Field, ...] = (
    ("batch_id", "STRING", "The sealed batch."),
    ("entry", "STRING", "'manifest', or the removal that took rows of the batch away; 'done' once it has."),
    ("rows", "INT64", "Changes in it; below zero for a removal."),
    ("bytes", "INT64", "Payload shipped."),
    ("first_seq", "INT64", "Its first change."),
    ("last_seq", "INT64", "Its last change."),
    ("horizon", "INT64", "Every PostgreSQL transaction below this had ended at the seal."),
    ("epoch", "INT64", "See the rows."),
    ("s1", "INT64", "Sum of the first 40 bits of its rows' hashes."),
    ("s2", "INT64", "Of the second."),
    ("s3", "INT64", "Of the third."),
    ("sealed_at", "TIMESTAMP", "When it was sealed."),
    ("ingested_at", "TIMESTAMP", "When the entry was sent."),
)
TABLES: dict[str, tuple[Field, ...]] = {
    CONTENT_TABLE: CHANGE_FIELDS,
    MEDIA_TABLE: CHANGE_FIELDS,
    LOG_TABLE: LOG_FIELDS,
}
DESCRIPTIONS = {
    CONTENT_TABLE: "Every change of content and of the rows around it; append-only, the latest row per version counts.",
    MEDIA_TABLE: "Every change of media files' rows; the bytes themselves are in DR_MEDIA_STORAGE.",
    LOG_TABLE: "A manifest for every batch, and a counter-entry for every removal.",
}
PARTITIONED_BY = {CONTENT_TABLE: "changed_at", MEDIA_TABLE: "changed_at", LOG_TABLE: "sealed_at"}
CLUSTERED_BY = {
    CONTENT_TABLE: ["tenant_id", "entity_type", "entity_id"],
    MEDIA_TABLE: ["tenant_id", "entity_type", "entity_id"],
    LOG_TABLE: ["batch_id"],
}
LABELS = {"application": "engarde", "purpose": "disaster-recovery"}
RECORD_FIELDS = tuple(name for name, *_ in CHANGE_FIELDS if name != "ingested_at")


def names_of(table: str) -> list[str]:
    """Return a table's columns."""
    return [name for name, *_ in TABLES[table]]


def size_of(row: dict[str, Any]) -> int:
    """Return about how many bytes a row takes in a request."""
    return len((row.get("document") or "").encode()) + len(row.get("facts") or "") + 1000
