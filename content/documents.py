"""Documents: one canonical JSON text a version, kept in the spool, in ZeroDB and in the backup, checked on every read."""

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, cached_property
from typing import Any, Protocol, cast
from uuid import UUID

import orjson
import structlog
import zstandard
from django.conf import settings
from django.utils.module_loading import import_string

from content.models import SpooledDocument
from content.stores.base import DocumentKey, DocumentStore, StoreRejected, StoreUnavailable
from engarde.common import json
from engarde.common.scopes import tenant_scope

log = structlog.get_logger(__name__)

MAX_DOCUMENT_BYTES = 64 * 1024**2  # above anything the limits on input allow; bounds decompression


class DocumentReader(Protocol):
    """A tier of last resort: reads documents by key. `CONTENT_READ_FALLBACK` names a class that does."""

    def get_many(self, *, tenant_id: UUID, keys: Collection[DocumentKey]) -> dict[DocumentKey, str]:
        """Return the texts that are there; never raises for a tier that is away."""
        ...


@dataclass(frozen=True)
class FoundDocument:
    """A document that was read and whose checksum holds.

    Attributes:
        tier: "spool", "zerodb" or "backup".
    """

    text: str
    tier: str

    @cached_property
    def fields(self) -> dict[str, Any]:
        """The document's fields."""
        return cast("dict[str, Any]", orjson.loads(self.text))

    def shortened(self, length: int) -> "FoundDocument":
        """Return the document with the beginning of its body only, for lists that need no more."""
        fields = {**self.fields, "body": self.fields["body"][:length]}
        return FoundDocument(json.canonical(fields), self.tier)


def encode(fields: dict[str, Any]) -> tuple[str, bytes]:
    """Return a document's canonical text and the SHA-256 of it."""
    text = json.canonical({name: _plain(value) for name, value in fields.items()})
    return text, hashlib.sha256(text.encode()).digest()


def _plain(value: Any) -> Any:
    return value.astimezone(UTC) if isinstance(value, datetime) else value


def compress(text: str) -> bytes:
    """Return a document's text as the spool keeps it."""
    return zstandard.compress(text.encode(), level=3)


class DamagedDocument(Exception):
    """What the spool holds is not a document any more."""


def decompress(stored: bytes) -> str:
    """Return a document's text from the spool's form.

    Raises:
        DamagedDocument: it cannot be unpacked.
    """
    try:
        return zstandard.decompress(stored, max_output_size=MAX_DOCUMENT_BYTES).decode()
    except (zstandard.ZstdError, UnicodeDecodeError) as error:
        raise DamagedDocument(f"a spooled document cannot be unpacked: {error}") from error


def key_of(content_id: UUID, sha256: bytes | memoryview) -> DocumentKey:
    """Return the key of a document."""
    return DocumentKey(content_id=content_id, sha256=bytes(sha256).hex())


def read_many(*, tenant_id: UUID, keys: Iterable[DocumentKey]) -> dict[DocumentKey, FoundDocument]:
    """Return the documents that any tier can give: spool, then ZeroDB, then the backup as last resort.

    Call it outside a scope: it talks to other services.
    """
    wanted = set(keys)
    with tenant_scope(tenant_id):
        found = spooled(keys=wanted)
    return found | fetch(tenant_id=tenant_id, keys=wanted - found.keys())


def fetch(*, tenant_id: UUID, keys: Collection[DocumentKey]) -> dict[DocumentKey, FoundDocument]:
    """Return the documents that ZeroDB, or else the backup, can give; what does not match its checksum counts as absent.

    Call it outside a scope: it talks to other services.
    """
    found: dict[DocumentKey, FoundDocument] = {}
    for tier, read in (("zerodb", _from_store), ("backup", _from_fallback)):
        missing = set(keys) - found.keys()
        if missing:
            texts = read(tenant_id, missing)
            found |= {key: FoundDocument(text, tier) for key, text in texts.items() if key.names(text)}
    return found


def spooled(*, keys: Collection[DocumentKey]) -> dict[DocumentKey, FoundDocument]:
    """Inside a scope, return the documents that are in the spool."""
    if not keys:
        return {}
    rows = SpooledDocument.objects.filter(content_id__in={key.content_id for key in keys})
    rows = rows.filter(sha256__in={bytes.fromhex(key.sha256) for key in keys})
    found = {}
    for content_id, sha256, document in rows.values_list("content_id", "sha256", "document"):
        key = key_of(content_id, sha256)
        text = _intact(key, bytes(document))
        if text is not None:
            found[key] = FoundDocument(text, "spool")
    return found


def _intact(key: DocumentKey, stored: bytes) -> str | None:
    try:
        text = decompress(stored)
    except DamagedDocument:
        text = ""
    if key.names(text):
        return text
    log.error("a spooled document does not match its checksum", content_id=str(key.content_id))
    return None


def _from_store(_tenant_id: UUID, keys: Collection[DocumentKey]) -> dict[DocumentKey, str]:
    store = document_store()
    if store is None:
        return {}
    try:
        return store.get_many(keys)
    except (StoreUnavailable, StoreRejected) as error:
        log.warning("ZeroDB gave no documents", wanted=len(keys), error=str(error))
        return {}


def _from_fallback(tenant_id: UUID, keys: Collection[DocumentKey]) -> dict[DocumentKey, str]:
    reader = _fallback()
    return reader.get_many(tenant_id=tenant_id, keys=keys) if reader else {}


@cache
def document_store() -> DocumentStore | None:
    """Return the process's document store, or None without a key: the platform then runs on the spool alone."""
    if not settings.ZERODB_API_KEY:
        return None
    return cast("DocumentStore", import_string(settings.CONTENT_STORE)(**settings.CONTENT_STORE_OPTIONS))


@cache
def _fallback() -> DocumentReader | None:
    path = settings.CONTENT_READ_FALLBACK
    return cast("DocumentReader", import_string(path)()) if path else None
