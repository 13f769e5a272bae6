"""The archive as the platform sees it: append records, read back what was there at a time, compare, and remove for good."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol
from uuid import UUID

CONTENT = "content"
"""The entity type of items, whose records are versions with documents; all others are rows as they were."""
MEDIA_TYPES = frozenset({"blob", "media"})
"""Entity types that are kept in the table of media."""


@dataclass(frozen=True, slots=True)
class ArchiveRecord:
    """One change as it is kept for ever.

    Attributes:
        tenant_id: zero for what belongs to the platform.
        version: of an item, from 1; 0 for rows of other types.
        epoch, change_seq: their order decides which of two records of an entity's version counts.
        op: I insert, U update, D to the trash, P purged, T an old version removed.
        sha256: of the document's canonical text, else of the facts; 64 hexadecimal digits.
        facts: JSON: of content what PostgreSQL knows of the version beside the document, of others the row; "null" for P and T.
        document: the document's canonical text; None where there is none.
        row_hash: SHA-256 over all that the record means; the document is in it by its checksum.
    """

    tenant_id: UUID
    entity_type: str
    entity_id: UUID
    version: int
    epoch: int
    change_seq: int
    xid: int
    op: str
    changed_at: datetime
    sha256: str
    size_bytes: int
    facts: str
    document: str | None
    row_hash: str
    batch_id: UUID


@dataclass(frozen=True, slots=True)
class BatchManifest:
    """What a batch holds, kept in the archive too, so that it can verify itself when PostgreSQL is gone.

    Attributes:
        lanes: sums of the first, second and third 40 bits of its rows' hashes.
    """

    batch_id: UUID
    rows: int
    bytes: int
    first_seq: int
    last_seq: int
    horizon: int
    epoch: int
    lanes: tuple[int, int, int]
    sealed_at: datetime


@dataclass(frozen=True, slots=True)
class CurrentRecord:
    """A record that was in force at a time.

    Attributes:
        is_current: the latest version of its entity then.
        highest: the highest version of the entity that the archive ever saw, later ones and purged ones too.
    """

    record: ArchiveRecord
    is_current: bool
    highest: int


@dataclass(frozen=True, slots=True)
class GroupSum:
    """What is in force of one tenant, entity type and day, in numbers that both sides can compute.

    Attributes:
        day: on which content's versions were made (UTC); None for other types.
        lanes: sums of three parts of the marks (see `dr.records.mark_of`).
        damaged: records whose hash, or whose document's hash, is not what it says.
    """

    tenant_id: UUID
    entity_type: str
    day: date | None
    rows: int
    lanes: tuple[int, int, int]
    damaged: int


@dataclass(frozen=True, slots=True)
class BatchSum:
    """What the archive holds of a batch, beside what its manifest says; equal when all is well."""

    batch_id: UUID
    rows: int
    lanes: tuple[int, int, int]
    manifest_rows: int
    manifest_lanes: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Removed:
    """What a removal took out of the archive."""

    rows: int
    batches: int


class Snapshot(Protocol):
    """What was in force at a time, held still while it is read."""

    def count(self, *, entity_type: str, is_current: bool | None = None) -> int:
        """Return how many records of a type there are."""
        ...

    def records(self, *, entity_type: str, is_current: bool | None = None) -> Iterator[CurrentRecord]:
        """Yield the records of a type, in no order; memory does not grow with their number."""
        ...


class Archive(Protocol):
    """Keeps records, append-only but for what is removed for good; a record that arrives twice counts once.

    Every method may raise `ArchiveUnavailable` or `ArchiveRefused`, those that send records `RecordsRejected` too.
    """

    def set_up(self) -> list[str]:
        """Create the dataset and tables that are missing, mend the settings of those that are there; return what was made."""
        ...

    def append(self, records: Sequence[ArchiveRecord], manifests: Sequence[BatchManifest]) -> None:
        """Return when the records of some batches, and their manifests, are kept: soon, and dear for many."""
        ...

    def load(self, records: Sequence[ArchiveRecord], manifests: Sequence[BatchManifest], *, job: str) -> None:
        """Do the same by a bulk load: cheap for many. A job's name is used once for the same records, however often it is tried.

        Raises:
            LoadFailed: the job of that name failed; the next try needs another name.
        """
        ...

    def highest_epoch(self) -> int:
        """Return the highest epoch of any record, 0 without one."""
        ...

    def latest_number(self, *, epoch: int) -> int:
        """Return the highest number of a change of an epoch, 0 without one."""
        ...

    def knows(self, *, tenant_id: UUID) -> bool:
        """Tell whether any record is a tenant's."""
        ...

    def snapshot(
        self, *, tenant_id: UUID | None = None, as_of: datetime | None = None
    ) -> AbstractContextManager[Snapshot]:
        """Hold still what is in force, or was at a time: of a tenant (with the platform's own rows), or of all."""
        ...

    def documents(
        self, *, tenant_id: UUID, keys: Collection[tuple[UUID, str]], timeout: float
    ) -> dict[tuple[UUID, str], str]:
        """Return the texts of documents by (entity id, sha256), within `timeout` seconds."""
        ...

    def history(
        self, *, tenant_id: UUID, entity_id: UUID, as_of: datetime | None = None, timeout: float | None = None
    ) -> list[CurrentRecord]:
        """Return what is in force of one item, or was at a time, oldest version first; within `timeout` seconds."""
        ...

    def sums(self, *, tenant_id: UUID | None, deep: bool) -> Iterator[GroupSum]:
        """Yield the sums of what is in force; `deep` has the documents' hashes computed anew in the archive."""
        ...

    def group(self, *, tenant_id: UUID, entity_type: str, day: date | None) -> Iterator[ArchiveRecord]:
        """Yield the records that one sum is over, by entity and version."""
        ...

    def batch_sums(self, *, since: datetime, changed_since: datetime | None = None) -> Iterator[BatchSum]:
        """Yield, for every batch sealed since a time, what is there and what its manifest says.

        Args:
            changed_since: no change of these batches is older, so no older partition need be read.
        """
        ...

    def remove_purged(self, *, before: datetime) -> Removed:
        """Remove records that a purge, or the removal of an old version, made needless before a time.

        It never removes what is in force. The removal logs counter-entries, which `batch_sums` subtracts; repeated, it
        goes on where it stopped.
        """
        ...

    def erase(self, *, tenant_id: UUID, entity_id: UUID | None = None) -> Removed:
        """Remove all that is there of a tenant, or of one of its items, whatever its age."""
        ...

    def ping(self) -> None:
        """Return when the archive can be reached and lets us in."""
        ...


class ArchiveUnavailable(Exception):
    """The archive cannot answer now; the same call may succeed later."""


class ArchiveRefused(Exception):
    """The archive does not let us in, or what we need there is missing; a person must act.

    Attributes:
        reason: the service's own word, such as accessDenied.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class LoadFailed(ArchiveUnavailable):
    """A load job ended in an error; its name is spent."""


class RecordsRejected(Exception):
    """The archive takes some records not, for what is in them; sending them again cannot help."""
