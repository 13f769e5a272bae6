"""Mending what a verification found, from whichever tier has the right copy.

First what PostgreSQL lost and an intact record vouches for comes back, as everything else is judged by PostgreSQL. Then documents
are put in order in the spool and in ZeroDB, and what the backup lacks or has damaged is logged as a change once more, so that it
is shipped again and the newer record counts. What PostgreSQL and an intact record tell differently is left for a person.

What only the backup has is removed from it, by logging a purge, when nothing vouches for it: a damaged record beside which its
batch is whole, or one that no manifest counts. The last copy of something is never removed: a damaged record that its batch's
manifest does count stays, and so does a document of which the backup has any trace.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Any
from uuid import UUID

import structlog
from django.db import connection

from content import documents, spool, uploader
from content.models import Change, ContentItem, ContentVersion
from content.stores.base import DOCUMENTS, DocumentKey, DocumentStore
from dr import restore, sync
from dr.archives.base import CONTENT, Archive, BatchSum
from dr.models import SyncState
from dr.records import lanes_of
from dr.verification import media, postgres
from dr.verification.faults import (
    BIGQUERY,
    EXTRA,
    MEDIA,
    MISMATCHED,
    MISSING,
    PLATFORM,
    POSTGRES,
    SPOOL,
    ZERODB,
    Fault,
    FaultName,
)
from dr.verification.merging import in_chunks
from engarde.common import wake
from engarde.common.scopes import system_scope, tenant_scope

log = structlog.get_logger(__name__)

CHUNK = 200
DOCUMENT_KEYS = 20
MAX_PASSES = 1000
FEW_EXTRAS = 100
EXTRA_SHARE = 0.1
FIRST_DAY = datetime(2000, 1, 1, tzinfo=UTC)
TOLD_ANEW = 0
"""The transaction of a line that repeats an earlier one: it keeps that one's time, for restores to an earlier state, and says
nothing of how fast the backup is."""

AGAIN_CONTENT = """
INSERT INTO content_changes (xid, tenant_id, entity_type, entity_id, version, op, sha256, changed_at)
SELECT %(xid)s, version.tenant_id, 'content', version.content_id, version.version,
       CASE WHEN version.change_type = 'delete' THEN 'D' WHEN version.version = 1 THEN 'I' ELSE 'U' END,
       version.sha256, coalesce((
           SELECT max(line.changed_at) FROM content_changes AS line
           WHERE line.tenant_id = version.tenant_id AND line.entity_id = version.content_id
             AND line.version = version.version AND line.entity_type = 'content' AND line.op IN ('I', 'U', 'D')),
           version.created_at)
FROM content_versions AS version
JOIN unnest(%(ids)s::uuid[], %(versions)s::int[]) AS wanted (content_id, version)
  ON version.content_id = wanted.content_id AND version.version = wanted.version
WHERE version.tenant_id = %(tenant)s ORDER BY version.content_id, version.version FOR SHARE OF version"""
AGAIN_ROWS = """
INSERT INTO content_changes (xid, tenant_id, entity_type, entity_id, version, op, sha256, facts, changed_at)
SELECT %(xid)s, %(tenant)s, %(entity_type)s, copied.entity_id, 0, 'U', decode(copied.sha256, 'hex'), copied.facts, coalesce((
           SELECT max(line.changed_at) FROM content_changes AS line
           WHERE line.tenant_id = %(tenant)s AND line.entity_id = copied.entity_id
             AND line.entity_type = %(entity_type)s AND line.op IN ('I', 'U')), now())
FROM ({source}) AS copied WHERE copied.entity_id = ANY(%(ids)s)"""


@dataclass(frozen=True, slots=True)
class Patient:
    """A tenant, or the platform, and what is wrong there."""

    archive: Archive
    tenant_id: UUID
    faults: Sequence[Fault]
    documents: int

    def having(self, tier: str, *kinds: str) -> list[Fault]:
        """Return the faults in a tier, of some kinds."""
        return [fault for fault in self.faults if fault.tier == tier and fault.kind in kinds]


def mend(
    *, archive: Archive, tenant_id: UUID, faults: Sequence[Fault], documents_here: int, now: Callable[[], datetime]
) -> None:
    """Mend what can be mended of a tenant; verify again to learn what is left.

    Args:
        documents_here: how many documents PostgreSQL knows of the tenant.

    Raises:
        ArchiveUnavailable, ArchiveRefused: the archive does not answer.
        StoreUnavailable, StoreRejected: ZeroDB does not answer.
    """
    patient = Patient(archive, tenant_id, faults, documents_here)
    _deal_with_records(patient, now)
    if tenant_id != PLATFORM:
        _mend_spool(patient)
        _mend_store(patient, now)
    _ship_again(patient)
    _sync(now)
    media.mend(tenant_id=tenant_id, faults=patient.having(MEDIA, MISSING, MISMATCHED))


def _deal_with_records(patient: Patient, now: Callable[[], datetime]) -> None:
    """Bring back what intact records vouch for; remove from the backup what nothing vouches for."""
    doubtful = [*patient.having(POSTGRES, EXTRA, MISSING), *patient.having(BIGQUERY, EXTRA)]
    if not doubtful:
        return
    unwanted = _unwanted(patient.archive, doubtful)
    _retire(patient.tenant_id, unwanted)
    gone = {fault.name for fault in unwanted}
    if any(fault.name not in gone for fault in patient.having(POSTGRES, EXTRA, MISSING)):
        _sync(now)
        _bring_back(patient, now)


def _bring_back(patient: Patient, now: Callable[[], datetime]) -> None:
    """Restore what PostgreSQL lacks; what it has stays as it is."""
    wanted = restore.Wanted(tenant_id=patient.tenant_id, tiers=frozenset({"postgres"}))
    done = restore.run(archive=patient.archive, wanted=wanted, now=now, progress=lambda _records: None)
    log.info("brought back what PostgreSQL lacked", tenant=str(patient.tenant_id), changed=done.changed)


def _unwanted(archive: Archive, faults: Sequence[Fault]) -> list[Fault]:
    """Return the faults whose records nothing vouches for."""
    logged = _logged(faults)
    unwanted = [fault for fault in faults if logged.get(fault.name) is False]
    rest = sorted((fault for fault in faults if fault.name not in logged), key=_batch_of)
    sums = _sums_of(archive, {_batch_of(fault) for fault in rest})
    for batch_id, group in groupby(rest, key=_batch_of):
        unwanted += _surplus(sums.get(batch_id), list(group))
    return unwanted


def _logged(faults: Sequence[Fault]) -> dict[FaultName, bool]:
    """Return whether the change log has the changes that records claim to be; only those that it can know."""
    numbers = {fault.evidence.change_seq for fault in faults if fault.evidence}
    with system_scope("compare records with the change log"):
        epoch = SyncState.objects.filter(id=1).values_list("epoch", flat=True).first()
        columns = ("entity_type", "entity_id", "version")
        lines = {seq: line for seq, *line in Change.objects.filter(seq__in=numbers).values_list("seq", *columns)}
    return {
        fault.name: lines[fault.evidence.change_seq] == [fault.entity_type, fault.entity_id, fault.version]
        for fault in faults
        if fault.evidence and fault.evidence.epoch == epoch and fault.evidence.change_seq in lines
    }


def _sums_of(archive: Archive, batch_ids: Collection[UUID]) -> dict[UUID, BatchSum]:
    if not batch_ids:
        return {}
    return {one.batch_id: one for one in archive.batch_sums(since=FIRST_DAY) if one.batch_id in batch_ids}


def _surplus(batch: BatchSum | None, faults: list[Fault]) -> list[Fault]:
    """Return the faults without whose records a batch is what its manifest says; all where there is no manifest."""
    if batch is None:
        return faults
    tries = [faults, *([fault] for fault in faults)]
    return next((some for some in tries if _is_whole_without(batch, some)), [])


def _is_whole_without(batch: BatchSum, faults: Sequence[Fault]) -> bool:
    lanes = lanes_of(fault.evidence.row_hash for fault in faults if fault.evidence)
    left = tuple(held - surplus for held, surplus in zip(batch.lanes, lanes, strict=True))
    return (batch.rows - len(faults), left) == (batch.manifest_rows, batch.manifest_lanes)


def _batch_of(fault: Fault) -> UUID:
    return fault.evidence.batch_id if fault.evidence else PLATFORM


def _retire(tenant_id: UUID, faults: Sequence[Fault]) -> None:
    """Log that what these records stand for is gone, unless PostgreSQL has it after all."""
    for chunk in in_chunks(iter(faults), CHUNK):
        with system_scope("remove records from the backup that nothing vouches for"), connection.cursor() as cursor:
            there = _items_there({fault.entity_id for fault in chunk if fault.entity_type == CONTENT})
            for fault in chunk:
                if not _is_there(fault):
                    op = Change.Op.THIN if fault.entity_id in there else Change.Op.PURGE
                    cursor.execute(*_line_of(tenant_id, fault, op))
    if faults:
        log.warning("removed records from the backup that nothing vouches for", count=len(faults))


def _line_of(tenant_id: UUID, fault: Fault, op: str) -> tuple[str, list[Any]]:
    statement = """
        INSERT INTO content_changes (xid, tenant_id, entity_type, entity_id, version, op, sha256, changed_at)
        VALUES (%s, %s, %s, %s, %s, %s, sha256(''), now())"""
    return statement, [TOLD_ANEW, tenant_id, fault.entity_type, fault.entity_id, fault.version, op]


def _items_there(content_ids: Collection[UUID]) -> set[UUID]:
    return set(ContentItem.objects.filter(id__in=content_ids).values_list("id", flat=True))


def _is_there(fault: Fault) -> bool:
    if fault.entity_type == CONTENT:
        return ContentVersion.objects.filter(content_id=fault.entity_id, version=fault.version).exists()
    key = fault.entity_id, fault.version
    found = postgres.rows_by_key(tenant_id=fault.tenant_id, entity_type=fault.entity_type, keys=[key])
    return key in found


def _mend_spool(patient: Patient) -> None:
    """Put intact documents in place of what the spool has damaged or lost."""
    for kind, put in ((MISMATCHED, spool.mend), (MISSING, spool.respool)):
        for some in in_chunks(iter(_keys(patient.having(SPOOL, kind))), DOCUMENT_KEYS):
            found = documents.fetch(tenant_id=patient.tenant_id, keys=some)
            with tenant_scope(patient.tenant_id):
                put(texts={key: document.text for key, document in found.items()})
                wake.after_commit(documents.UPLOAD_TASK)


def _mend_store(patient: Patient, now: Callable[[], datetime]) -> None:
    store = documents.document_store()
    wrong = patient.having(ZERODB, MISSING, MISMATCHED, EXTRA)
    if store is None or not wrong:
        return
    wanting = [fault for fault in wrong if fault.kind != EXTRA]
    for some in in_chunks(iter(_keys(wanting)), DOCUMENT_KEYS):
        documents.repair(tenant_id=patient.tenant_id, keys=some)
    for fault in wanting:
        _delete_damaged(store, patient.tenant_id, fault)
    for fault in _removable(patient):
        _delete_extra(store, fault)
    _upload(store, now)


def _delete_damaged(store: DocumentStore, tenant_id: UUID, fault: Fault) -> None:
    """Delete the damaged rows of a document that another tier has, or another row, intact."""
    rows = store.rows_of(DOCUMENTS, fault.key)
    wrong = [row for row in rows if not row.intact or row.tenant_id != str(tenant_id)]
    if len(wrong) < len(rows) or _is_spooled(tenant_id, DocumentKey.parse(fault.key)):
        for row in wrong:
            store.delete_row(DOCUMENTS, row.row_id)


def _is_spooled(tenant_id: UUID, key: DocumentKey) -> bool:
    with tenant_scope(tenant_id):
        return key in documents.spooled(keys=[key])


def _removable(patient: Patient) -> list[Fault]:
    """Return the rows for nothing that may go: few beside the others, and of nothing that PostgreSQL may have lost."""
    extras = patient.having(ZERODB, EXTRA)
    if not patient.documents or len(extras) > max(FEW_EXTRAS, patient.documents * EXTRA_SHARE):
        return []
    lost = {fault.entity_id for fault in patient.having(POSTGRES, EXTRA, MISSING)}
    lost |= {fault.entity_id for fault in patient.having(BIGQUERY, EXTRA)}
    return [fault for fault in extras if fault.entity_id not in lost]


def _delete_extra(store: DocumentStore, fault: Fault) -> None:
    key = _parsed(fault.key)
    if key is not None:
        with system_scope("look once more whether PostgreSQL knows a document"):
            rows = ContentVersion.objects.filter(content_id=key.content_id, sha256=bytes.fromhex(key.sha256))
            if rows.exists():
                return
    for row in store.rows_of(DOCUMENTS, fault.key):
        store.delete_row(DOCUMENTS, row.row_id)


def _ship_again(patient: Patient) -> None:
    """Log what the backup lacks or has damaged once more."""
    faults = sorted(patient.having(BIGQUERY, MISSING, MISMATCHED), key=lambda fault: fault.entity_type)
    for entity_type, group in groupby(faults, key=lambda fault: fault.entity_type):
        for chunk in in_chunks(group, CHUNK):
            with _scope(patient.tenant_id), connection.cursor() as cursor:
                cursor.execute(*_again(patient.tenant_id, entity_type, chunk))


def _scope(tenant_id: UUID) -> AbstractContextManager[None]:
    if tenant_id == PLATFORM:
        return system_scope("log the platform's rows once more")
    return tenant_scope(tenant_id)


def _again(tenant_id: UUID, entity_type: str, faults: Sequence[Fault]) -> tuple[str, dict[str, Any]]:
    values: dict[str, Any] = {
        "xid": TOLD_ANEW,
        "tenant": tenant_id,
        "entity_type": entity_type,
        "ids": [fault.entity_id for fault in faults],
        "versions": [fault.version for fault in faults],
    }
    if entity_type == CONTENT:
        return AGAIN_CONTENT, values
    return AGAIN_ROWS.format(source=postgres.source_of(entity_type)), values


def _sync(now: Callable[[], datetime]) -> None:
    """Ship what was logged, as far as the archive takes it."""
    for _ in range(MAX_PASSES):
        if not sync.run_pass(now=now).shipped:
            return


def _upload(store: DocumentStore, now: Callable[[], datetime]) -> None:
    """Send what was spooled; what fails stays there for the uploader."""
    for _ in range(MAX_PASSES):
        done = uploader.run_pass(store=store, now=now)
        if done.is_idle or done.failed:
            return


def _keys(faults: Iterable[Fault]) -> list[DocumentKey]:
    return [key for fault in faults if (key := _parsed(fault.key))]


def _parsed(text: str) -> DocumentKey | None:
    try:
        return DocumentKey.parse(text)
    except ValueError:
        return None
