"""Reading the archive as whole items, in pieces of bounded size."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from uuid import UUID

from content.models import Change
from content.recovery import ItemCopy
from dr.archives.base import Archive, ArchiveRecord
from dr.records import NO_FACTS, is_intact, version_of

PIECE_ITEMS = 50
PIECE_BYTES = 16 * 1024**2


@dataclass(frozen=True, slots=True)
class ArchivedItem:
    """An item in the archive: its latest records, oldest version first.

    Attributes:
        damaged: versions whose record is not what was sent.
    """

    tenant_id: UUID
    id: UUID
    records: tuple[ArchiveRecord, ...]
    damaged: tuple[int, ...]

    @property
    def size(self) -> int:
        """Characters of all documents, for bounding memory."""
        return sum(len(record.document or "") for record in self.records)

    def copy(self) -> ItemCopy:
        """Return the item for a recovery, without damaged records."""
        good = [record for record in self.records if record.version not in self.damaged]
        texts = {bytes.fromhex(record.sha256): record.document for record in good if record.document is not None}
        return ItemCopy(id=self.id, versions=[version_of(record) for record in good], texts=texts)


def items(archive: Archive, *, tenant_id: UUID | None) -> Iterator[ArchivedItem]:
    """Yield the archive's items by tenant and id, without those that were removed for good."""
    records = archive.latest(tenant_id=tenant_id)
    for (owner, entity_id), group in groupby(records, key=lambda record: (record.tenant_id, record.entity_id)):
        found = _since_purge(tuple(group))
        if found:
            damaged = tuple(record.version for record in found if not is_intact(record))
            yield ArchivedItem(owner, entity_id, found, damaged)


def _since_purge(records: tuple[ArchiveRecord, ...]) -> tuple[ArchiveRecord, ...]:
    """Return the versions after the last purge (an item may be made again under its old id) that were not thinned out."""
    purges = [(record.epoch, record.change_seq) for record in records if record.op == Change.Op.PURGE]
    last = max(purges, default=(0, 0))
    there = [record for record in records if record.op != Change.Op.THIN and record.facts != NO_FACTS]
    return tuple(record for record in there if (record.epoch, record.change_seq) > last)


def pieces(found: Iterator[ArchivedItem]) -> Iterator[list[ArchivedItem]]:
    """Yield runs of items of one tenant, each of bounded number and size."""
    piece: list[ArchivedItem] = []
    size = 0
    for item in found:
        full = len(piece) >= PIECE_ITEMS or size + item.size > PIECE_BYTES
        if piece and (full or piece[0].tenant_id != item.tenant_id):
            yield piece
            piece, size = [], 0
        piece.append(item)
        size += item.size
    if piece:
        yield piece
