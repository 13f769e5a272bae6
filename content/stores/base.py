"""The document store as the platform sees it.

A document is one version's canonical JSON text. It never changes once written, so its key says what it must contain, and
a store can be asked for it without being trusted.
"""

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

DOCUMENTS = "content_items"
VERSIONS = "content_versions"
MEDIA = "content_media_files"
COLLECTIONS = (DOCUMENTS, VERSIONS, MEDIA)

KEYS_PER_CALL = 100
"""How many keys a store looks up in one call to its service."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class DocumentKey:
    """Names one document: the item it belongs to and the SHA-256 of its text, as 64 lower-case hexadecimal digits."""

    content_id: UUID
    sha256: str

    def __post_init__(self) -> None:
        if not _SHA256.fullmatch(self.sha256):
            raise ValueError("sha256 must be 64 lower-case hexadecimal digits.")

    def __str__(self) -> str:
        return f"{self.content_id}:{self.sha256}"

    @classmethod
    def parse(cls, text: str) -> "DocumentKey":
        """Return the key that `str` made this text of.

        Raises:
            ValueError: it is no such text.
        """
        content_id, _, sha256 = text.partition(":")
        return cls(UUID(content_id), sha256)

    @classmethod
    def of(cls, content_id: UUID, text: str) -> "DocumentKey":
        """Return the key under which `text` is kept for the item `content_id`."""
        return cls(content_id, sha256_of(text))

    def names(self, text: str) -> bool:
        """Tell whether `text` is the document this key stands for."""
        return sha256_of(text) == self.sha256


@dataclass(frozen=True, slots=True)
class Document:
    """A document on its way into a store; `text` is canonical JSON and is kept byte for byte."""

    tenant_id: UUID
    key: DocumentKey
    version: int
    text: str


@dataclass(frozen=True, slots=True)
class ScannedRow:
    """A row as a scan saw it; its text is not kept, so that scans take little memory.

    Attributes:
        key: our key in the row, "" for one without.
        intact: for documents, whether the text is what the key says; for records, whether the checksum beside it holds.
        created_at: when the store made it, None when it does not say.
    """

    row_id: str
    key: str
    tenant_id: str
    intact: bool
    created_at: datetime | None


@dataclass(frozen=True, slots=True)
class ScanPage:
    """All rows of some keys that follow each other.

    Attributes:
        next_after: where the next page begins; None after the last.
        is_crowded: one key has more rows than a page holds, and this page has some of them. `next_after` passes over
            the others; scanning from the same place again shows more of them once these are gone.
    """

    rows: Sequence[ScannedRow]
    next_after: str | None
    is_crowded: bool = False


class DocumentStore(Protocol):
    """Keeps documents under their keys, and records (small JSON objects) under keys of their own.

    Every method may raise `StoreUnavailable` or `StoreRejected`, and nothing else that comes from the service. Methods may
    be called from several threads at once.
    """

    def set_up(self) -> list[str]:
        """Create the collections that are missing and return their names."""
        ...

    def put(self, document: Document, *, maybe_stored: bool = False, can_wait: bool = False) -> str:
        """Store `document` and return the id of its row in the store.

        Storing the same document twice does no harm. Pass `maybe_stored` when an earlier put of it may have gone through
        without an answer: then it is looked for first, which costs one more call and saves a duplicate. `can_wait` says
        that others go first when requests are scarce.
        """
        ...

    def get_many(self, keys: Collection[DocumentKey]) -> dict[DocumentKey, str]:
        """Return the texts of the documents that are there and intact, in one call per `KEYS_PER_CALL` keys.

        A document whose text does not match its key is logged and left out, as if it were absent.
        """
        ...

    def find_row_ids(self, keys: Collection[DocumentKey]) -> dict[DocumentKey, str]:
        """Return the store's row ids of the documents that are there and intact."""
        ...

    def put_record(
        self, collection: str, key: str, *, tenant_id: UUID, record: Mapping[str, Any], maybe_stored: bool = False
    ) -> str:
        """Store a record under its key and return its row's id; with `maybe_stored` a row that is there is made equal."""
        ...

    def delete_rows(self, collection: str, keys: Collection[str]) -> int:
        """Remove every row of these keys and return how many there were; keys without a row do no harm."""
        ...

    def delete_row(self, collection: str, row_id: str) -> None:
        """Remove one row, if it is there."""
        ...

    def delete_tenant(self, collection: str, tenant_id: UUID) -> int:
        """Remove every row of a tenant, also those that nobody knows of any more, and return how many were found."""
        ...

    def scan(
        self, collection: str, *, after: str = "", limit: int = KEYS_PER_CALL, tenant_id: UUID | None = None
    ) -> ScanPage:
        """Return at most `limit` rows, of all or of one tenant, in the order of their keys, beginning behind the key `after`."""
        ...

    def rows_of(self, collection: str, key: str) -> Sequence[ScannedRow]:
        """Return the rows of one key, asked for alone: what a scan says is confirmed so before a row is removed."""
        ...

    def ping(self) -> None:
        """Return when the store can be reached, accepts our key and understands our queries; raise otherwise."""
        ...


class StoreUnavailable(Exception):
    """The store cannot answer now; the same call may succeed later.

    Attributes:
        retry_after: Seconds the store asks to wait before the next call, or None when it does not say.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NotAsked(StoreUnavailable):
    """The call was not made at all, to spare the store; so it changed nothing there."""


class StoreRejected(Exception):
    """The store refuses the call; repeating it as it is cannot help. The cause is our request or our configuration.

    Attributes:
        status: HTTP status of the refusal, or None when there was none.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class StoreMisconfigured(StoreRejected):
    """The store refuses every call of ours: the address, the key or its rights are wrong. A person must act."""


def sha256_of(text: str) -> str:
    """Return the SHA-256 of the text's UTF-8 bytes, as hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()
