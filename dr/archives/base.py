"""The archive as the platform sees it: append records, read the latest ones back."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID


@dataclass(frozen=True, slots=True)
class ArchiveRecord:
    """One change as it is kept for ever.

    Attributes:
        epoch, change_seq: their order decides which of two records of an entity's version counts.
        op: I, U, D or P; D and P carry no document.
        sha256: of the document's canonical text, 64 hexadecimal digits.
        facts: canonical JSON of what PostgreSQL knows of the version beside the document.
        document: the document's canonical text, None for D and P.
        row_hash: SHA-256 over all of the above, so that one wrong byte anywhere shows.
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
    """What a batch holds, kept in the archive too, so that it can verify itself when PostgreSQL is gone."""

    batch_id: UUID
    rows: int
    bytes: int
    first_seq: int
    last_seq: int
    horizon: int
    epoch: int
    sealed_at: datetime


class Archive(Protocol):
    """Keeps records, append-only; a record that arrives twice counts once.

    Every method may raise `ArchiveUnavailable` or `ArchiveRefused`.
    """

    def set_up(self) -> list[str]:
        """Create the dataset and tables that are missing and return their names."""
        ...

    def append(self, records: Sequence[ArchiveRecord], manifest: BatchManifest) -> None:
        """Return when the records of one batch, and its manifest, are kept."""
        ...

    def latest(self, *, tenant_id: UUID | None = None) -> Iterator[ArchiveRecord]:
        """Yield each version's latest record, by tenant, entity and version; memory does not grow with their number."""
        ...

    def documents(
        self, *, tenant_id: UUID, keys: Collection[tuple[UUID, str]], timeout: float
    ) -> dict[tuple[UUID, str], str]:
        """Return the texts of documents by (entity id, sha256), within `timeout` seconds."""
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
