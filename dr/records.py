"""Records: what of a change goes into the archive, and the hashes by which one wrong byte shows."""

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime
from uuid import UUID

import orjson

from content.changes import LoggedChange
from content.facts import VersionFacts
from dr.archives.base import CONTENT, ArchiveRecord

NO_FACTS = "null"  # of what is gone, or was before it was shipped
SEPARATOR = "|"  # stands in no id, number or hash; only facts, which come last, may have it
LANE_DIGITS = 10

Lanes = tuple[int, int, int]


def make_record(change: LoggedChange, *, document: str | None, epoch: int, batch_id: UUID) -> ArchiveRecord:
    """Return the archive's record of a change; the same for every repeat."""
    sha256, facts = change.sha256.hex(), change.facts or NO_FACTS
    entity = (change.tenant_id, change.entity_type, change.entity_id, change.version)
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
        size_bytes=change.size_bytes,
        facts=facts,
        document=document if change.has_document else None,
        row_hash=hash_of(*entity, change.op, sha256, facts),
        batch_id=batch_id,
    )


def hash_of(tenant_id: UUID, entity_type: str, entity_id: UUID, version: int, op: str, sha256: str, facts: str) -> str:
    """Return the hash of a record's meaning; the document is in it by its own checksum."""
    return _hash(tenant_id, entity_type, entity_id, version, op, sha256, facts)


def mark_of(tenant_id: UUID, entity_type: str, entity_id: UUID, version: int, sha256: str, facts: str) -> str:
    """Return the hash of what is in force, which PostgreSQL and the archive can both compute: how it came about is left out."""
    return _hash(tenant_id, entity_type, entity_id, version, sha256, facts)


def _hash(*parts: object) -> str:
    return hashlib.sha256(SEPARATOR.join(map(str, parts)).encode()).hexdigest()


def lanes_of(hashes: Iterable[str]) -> Lanes:
    """Return the sums of the first, second and third 40 bits of hashes.

    Sums, unlike XOR, show a row that is there twice; 40 bits keep them inside BigQuery's INT64 up to 8 million rows.
    """
    sums = [0, 0, 0]
    for one in hashes:
        for number in range(3):
            sums[number] += int(one[number * LANE_DIGITS : (number + 1) * LANE_DIGITS], 16)
    return sums[0], sums[1], sums[2]


def version_of(record: ArchiveRecord) -> VersionFacts:
    """Return the version that a record of content is a copy of.

    Raises:
        ValueError: the facts are damaged.
    """
    try:
        facts = orjson.loads(record.facts)
        return VersionFacts(
            content_id=record.entity_id,
            version=record.version,
            sha256=bytes.fromhex(record.sha256),
            size_bytes=facts["size_bytes"],
            change_type=facts["change_type"],
            changed_by=_id(facts["changed_by"]),
            created_at=_instant(facts["version_created_at"]),
            author_id=_id(facts["author_id"]),
            item_created_at=_instant(facts["item_created_at"]),
            changed_fields=tuple(facts.get("changed_fields") or ()),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"facts that cannot be read: {error}") from error


def _id(text: str | None) -> UUID | None:
    return UUID(text) if text else None


def _instant(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def is_intact(record: ArchiveRecord) -> bool:
    """Tell whether a record is byte for byte what was sent, its document included."""
    entity = (record.tenant_id, record.entity_type, record.entity_id, record.version)
    if hash_of(*entity, record.op, record.sha256, record.facts) != record.row_hash:
        return False
    if record.entity_type != CONTENT:
        return record.facts == NO_FACTS or hashlib.sha256(record.facts.encode()).hexdigest() == record.sha256
    needs_document = record.facts != NO_FACTS
    if record.document is None:
        return not needs_document
    return hashlib.sha256(record.document.encode()).hexdigest() == record.sha256
