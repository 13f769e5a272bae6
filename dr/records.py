"""Records: what of a change goes into the archive, and the hash by which one wrong byte shows."""

import hashlib
from datetime import datetime
from uuid import UUID

import orjson

from content.changes import LoggedChange
from content.facts import VersionFacts
from dr.archives.base import ArchiveRecord
from engarde.common import json

ENTITY_TYPE = "content"
NO_FACTS = "null"  # of a version that was gone before it was shipped
SEPARATOR = "\x1f"  # stands in no id, number, hash or JSON text (which escapes it)


def make_record(change: LoggedChange, *, document: str | None, epoch: int, batch_id: UUID) -> ArchiveRecord:
    """Return the archive's record of a change; the same for every repeat."""
    sha256, facts = change.sha256.hex(), facts_of(change.facts)
    text = document if change.has_document else None
    return ArchiveRecord(
        tenant_id=change.tenant_id,
        entity_type=change.entity_type,
        entity_id=change.entity_id,
        version=change.version,
        epoch=epoch,
        change_seq=change.seq,
        xid=change.xid,
        op=change.op,
        changed_at=change.changed_at,
        sha256=sha256,
        size_bytes=change.facts.size_bytes if change.facts else 0,
        facts=facts,
        document=text,
        row_hash=hash_of(change.tenant_id, change.entity_id, change.version, change.op, sha256, facts, text),
        batch_id=batch_id,
    )


def facts_of(version: VersionFacts | None) -> str:
    """Return canonical JSON of what PostgreSQL knows of a version beside its document; NO_FACTS once it is gone."""
    if version is None:
        return NO_FACTS
    return json.canonical(
        {
            "author_id": version.author_id,
            "item_created_at": version.item_created_at,
            "change_type": version.change_type,
            "changed_by": version.changed_by,
            "version_created_at": version.created_at,
            "size_bytes": version.size_bytes,
        }
    )


def version_of(record: ArchiveRecord) -> VersionFacts:
    """Return the version that a record is a copy of."""
    facts = orjson.loads(record.facts)
    return VersionFacts(
        content_id=record.entity_id,
        version=record.version,
        sha256=bytes.fromhex(record.sha256),
        size_bytes=facts["size_bytes"],
        change_type=facts["change_type"],
        changed_by=_id(facts["changed_by"]),
        created_at=datetime.fromisoformat(facts["version_created_at"]),
        author_id=_id(facts["author_id"]),
        item_created_at=datetime.fromisoformat(facts["item_created_at"]),
    )


def _id(text: str | None) -> UUID | None:
    return UUID(text) if text else None


def is_intact(record: ArchiveRecord) -> bool:
    """Tell whether a record is byte for byte what was sent, its document included."""
    expected = hash_of(
        record.tenant_id,
        record.entity_id,
        record.version,
        record.op,
        record.sha256,
        record.facts,
        record.document,
    )
    document_holds = record.document is None or hashlib.sha256(record.document.encode()).hexdigest() == record.sha256
    return expected == record.row_hash and document_holds


def hash_of(
    tenant_id: UUID, entity_id: UUID, version: int, op: str, sha256: str, facts: str, document: str | None
) -> str:
    """Return the hash of a row's meaning."""
    parts = [str(tenant_id), str(entity_id), str(version), op, sha256, facts, document or ""]
    return hashlib.sha256(SEPARATOR.join(parts).encode()).hexdigest()
