"""The document store as the platform sees it.

A document is one version's canonical JSON text. It never changes once written, so its key says what it must contain, and
a store can be asked for it without being trusted.
"""

import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

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


class DocumentStore(Protocol):
    """Keeps documents under their keys.

    Every method may raise `StoreUnavailable` or `StoreRejected`, and nothing else that comes from the service. Methods may
    be called from several threads at once.
    """

    def set_up(self) -> list[str]:
        """Create the collections that are missing and return their names."""
        ...

    def put(self, document: Document, *, maybe_stored: bool = False) -> str:
        """Store `document` and return the id of its row in the store.

        Storing the same document twice does no harm. Pass `maybe_stored` when an earlier put of it may have gone through
        without an answer: then it is looked for first, which costs one more call and saves a duplicate.
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

    def ping(self) -> None:
        """Return when the store can be reached and accepts our key; raise otherwise."""
        ...


class StoreUnavailable(Exception):
    """The store cannot answer now; the same call may succeed later.

    Attributes:
        retry_after: Seconds the store asks to wait before the next call, or None when it does not say.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class StoreRejected(Exception):
    """The store refuses the call; repeating it as it is cannot help. The cause is our request or our configuration.

    Attributes:
        status: HTTP status of the refusal, or None when there was none.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


def sha256_of(text: str) -> str:
    """Return the SHA-256 of the text's UTF-8 bytes, as hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()
