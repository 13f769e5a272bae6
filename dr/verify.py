"""The proof that all tiers agree: every version in PostgreSQL, ZeroDB and the archive, by checksum.

Both sides are read in the same order and merged, so memory does not grow with their number.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from django.utils import timezone

from content import documents, facts
from content.facts import VersionFacts
from content.stores.base import DocumentKey
from dr import copies
from dr.archives.base import Archive, ArchiveRecord
from dr.copies import ArchivedItem
from dr.records import facts_of
from engarde.common.scopes import tenant_scope

MAX_FINDINGS = 1000


@dataclass(slots=True)
class Verified:
    """What a verification found, in items; an item with several faults counts once a kind.

    Attributes:
        checked: items of PostgreSQL that were compared.
        mismatched: of which a copy differs.
        missing: of which a copy is not there.
        extra: items that only the archive has, though nothing removed them.
        findings: {"tenant_id", "id", "version", "tier", "problem"} of the first thousand faults.
    """

    checked: int = 0
    versions: int = 0
    mismatched: int = 0
    missing: int = 0
    extra: int = 0
    findings: list[dict[str, object]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of one version of an item."""

    kind: str
    version: int
    tier: str
    problem: str


def run(*, archive: Archive, tenant_id: UUID, found: Verified, progress: Callable[[int], object]) -> None:
    """Compare one tenant's content in all tiers, adding to `found`.

    Raises:
        ArchiveUnavailable, ArchiveRefused: the archive does not give its rows.
        StoreUnavailable, StoreRejected: ZeroDB does not answer.
    """
    started = timezone.now()
    archived = _Ordered(copies.items(archive, tenant_id=tenant_id))
    for chunk in facts.iterate(tenant_id=tenant_id):
        unreadable = _unreadable(tenant_id, chunk)
        for item_id in sorted(chunk):
            _note_extras(found, archived.before(item_id))
            faults = [
                *_document_faults(chunk[item_id], unreadable),
                *_archive_faults(chunk[item_id], archived.at(item_id), started),
            ]
            _note(found, tenant_id, item_id, faults)
            found.versions += len(chunk[item_id])
        found.checked += len(chunk)
        progress(len(chunk))
    _note_extras(found, archived.rest())


class _Ordered:
    """The archive's items, taken in the order of their ids."""

    def __init__(self, items: Iterator[ArchivedItem]) -> None:
        self._items = items
        self._next = next(items, None)

    def before(self, item_id: UUID) -> Iterator[ArchivedItem]:
        """Yield the items up to an id."""
        while self._next is not None and self._next.id < item_id:
            yield self._take()

    def at(self, item_id: UUID) -> ArchivedItem | None:
        """Return the item of an id, if it is there."""
        return self._take() if self._next is not None and self._next.id == item_id else None

    def rest(self) -> Iterator[ArchivedItem]:
        """Yield what is left."""
        while self._next is not None:
            yield self._take()

    def _take(self) -> ArchivedItem:
        taken = self._next
        if taken is None:
            raise LookupError("nothing is left")
        self._next = next(self._items, None)
        return taken


def _unreadable(tenant_id: UUID, chunk: dict[UUID, list[VersionFacts]]) -> set[DocumentKey]:
    """Return the documents that neither the spool nor ZeroDB, whichever should have them, gives back intact."""
    versions = [version for group in chunk.values() for version in group]
    stored = {_key(version) for version in versions if version.zerodb_row_id}
    spooled = {_key(version) for version in versions} - stored
    with tenant_scope(tenant_id):
        in_spool = documents.spooled(keys=spooled).keys()
    store = documents.document_store()
    in_store = store.get_many(stored).keys() if store and stored else set()
    return (spooled - in_spool) | (stored - in_store)


def _key(version: VersionFacts) -> DocumentKey:
    return documents.key_of(version.content_id, version.sha256)


def _document_faults(versions: Sequence[VersionFacts], unreadable: set[DocumentKey]) -> Iterator[Fault]:
    for version in versions:
        if _key(version) in unreadable:
            tier = "zerodb" if version.zerodb_row_id else "spool"
            yield Fault("missing", version.version, tier, "the document is not there or not intact")


def _archive_faults(
    versions: Sequence[VersionFacts], archived: ArchivedItem | None, started: datetime
) -> Iterator[Fault]:
    records = {record.version: record for record in archived.records} if archived else {}
    damaged = archived.damaged if archived else ()
    for version in versions:
        record = records.pop(version.version, None)
        if record is None and _was_on_its_way(version, started):
            continue
        if record is None:
            yield Fault("missing", version.version, "bigquery", "the version is not backed up")
        elif version.version in damaged:
            yield Fault("mismatched", version.version, "bigquery", "the record is not what was sent")
        elif problem := _difference(version, record):
            yield Fault("mismatched", version.version, "bigquery", problem)
    for number in records:
        yield Fault("mismatched", number, "postgres", "the backup has a version that PostgreSQL lacks")


def _was_on_its_way(version: VersionFacts, started: datetime) -> bool:
    """Tell whether a version was made, or reached the archive, only after the archive had been read."""
    return version.created_at >= started or (version.backed_up_at is not None and version.backed_up_at >= started)


def _difference(version: VersionFacts, record: ArchiveRecord) -> str:
    if record.sha256 != version.sha256.hex():
        return "the checksums differ"
    return "" if record.facts == facts_of(version) else "the facts differ"


def _note(found: Verified, tenant_id: UUID, item_id: UUID, faults: Sequence[Fault]) -> None:
    kinds = {fault.kind for fault in faults}
    found.mismatched += "mismatched" in kinds
    found.missing += "missing" in kinds
    for fault in faults[: MAX_FINDINGS - len(found.findings)]:
        found.findings.append(
            {
                "tenant_id": str(tenant_id),
                "id": str(item_id),
                "version": fault.version,
                "tier": fault.tier,
                "problem": fault.problem,
            }
        )


def _note_extras(found: Verified, items: Iterator[ArchivedItem]) -> None:
    for item in items:
        found.extra += 1
        _note(
            found,
            item.tenant_id,
            item.id,
            [Fault("extra", item.records[-1].version, "postgres", "only the backup has it")],
        )
