"""What a verification finds, and its counts."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from uuid import UUID

from dr.archives.base import ArchiveRecord
from dr.records import is_intact

PLATFORM = UUID(int=0)
"""Stands for a tenant in what belongs to the platform itself."""
BATCH = "batch"
MAX_FAULTS = 10_000
"""So many faults of a tenant are kept; the others are only counted."""

FaultName = tuple[str, str, str, UUID, int, str]

MISSING, MISMATCHED, EXTRA = "missing", "mismatched", "extra"
POSTGRES, SPOOL, ZERODB, BIGQUERY, MEDIA = "postgres", "spool", "zerodb", "bigquery", "media"


@dataclass(frozen=True, slots=True)
class Evidence:
    """Of a record in the archive, what tells whether it can be trusted."""

    batch_id: UUID
    epoch: int
    change_seq: int
    row_hash: str
    is_intact: bool

    @classmethod
    def of(cls, record: ArchiveRecord) -> "Evidence":
        """Return that of a record."""
        return cls(record.batch_id, record.epoch, record.change_seq, record.row_hash, is_intact(record))


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of one version of an item, or of one row of another type.

    Attributes:
        tier: where it is wrong.
        key: the document's key in ZeroDB or the spool; "" for faults elsewhere.
        evidence: the archive's record, where there is one.
    """

    kind: str
    tier: str
    tenant_id: UUID
    entity_type: str
    entity_id: UUID
    version: int
    problem: str
    key: str = ""
    evidence: Evidence | None = None

    @property
    def name(self) -> FaultName:
        """What tells it from others: equal in two verifications for the same fault."""
        return self.kind, self.tier, self.entity_type, self.entity_id, self.version, self.key

    def as_json(self) -> dict[str, object]:
        """Return it for a report."""
        return {
            "tenant_id": str(self.tenant_id),
            "entity_type": self.entity_type,
            "id": str(self.entity_id),
            "version": self.version,
            "tier": self.tier,
            "kind": self.kind,
            "problem": self.problem,
        }


@dataclass(slots=True)
class Tally:
    """What was found of one tenant. An item with several faults counts once a kind.

    Attributes:
        checked: items that were compared; `versions` and `rows` (of other types) likewise.
        waiting: versions and rows that differ because a change of theirs is on its way to the backup: no faults.
        faults: the first `MAX_FAULTS`.
    """

    checked: int = 0
    versions: int = 0
    rows: int = 0
    waiting: int = 0
    faults: list[Fault] = field(default_factory=list)
    is_cut: bool = False
    _entities: dict[str, set[int]] = field(default_factory=dict)

    def add(self, faults: Iterable[Fault]) -> None:
        """Count faults, and keep as many as there is room for."""
        for fault in faults:
            self._entities.setdefault(fault.kind, set()).add(fault.entity_id.int)
            if len(self.faults) < MAX_FAULTS:
                self.faults.append(fault)
            else:
                self.is_cut = True

    def count(self, kind: str) -> int:
        """Return how many items, or rows of other types, have a fault of this kind."""
        return len(self._entities.get(kind, ()))
