"""Documents: one canonical JSON text a version, read from the nearest tier that has it and checked on every step.

A read goes from the cheap to the dear: this process's memory (no call), the spool (a query in the transaction that is open
anyhow; what was written just now is there and nowhere else), Redis (a call), ZeroDB (a call for a page), and the backup as last
resort. The spool comes before Redis because only what came from ZeroDB or the backup is shared there, so for fresh
writes Redis would be asked in vain.

What each step is for, to those who compose their own: `remembered` needs no call and no scope; `spooled` wants a scope;
`fetch` (Redis, ZeroDB, backup) and `read_many` (all of it) must be called outside one.
"""

import hashlib
import threading
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, cached_property
from typing import Any, Protocol, cast
from uuid import UUID

import orjson
import structlog
from cachetools import TTLCache
from django.conf import settings
from django.db import DatabaseError
from django.utils.module_loading import import_string

from content import cache as document_cache
from content import metrics, packing, sharing, spool
from content.models import SpooledDocument
from content.packing import DamagedDocument
from content.stores.base import DocumentKey, DocumentStore, StoreRejected, StoreUnavailable
from content.stores.breaker import CircuitBreaker
from engarde.common import json, wake
from engarde.common.scopes import tenant_scope

log = structlog.get_logger(__name__)

UPLOAD_TASK = "content.upload_documents"
REPAIR_AGAIN_SECONDS = 600.0
MAX_REMEMBERED_REPAIRS = 10_000

KEPT = ("content_id", "sha256", "document")

compress = packing.compress
decompress = packing.decompress


class DocumentReader(Protocol):
    """A tier of last resort: reads documents by key. `CONTENT_READ_FALLBACK` names a class that does."""

    def get_many(self, *, tenant_id: UUID, keys: Collection[DocumentKey], timeout: float) -> dict[DocumentKey, str]:
        """Return the texts that are there, within `timeout` seconds.

        Raises:
            StoreUnavailable: the tier is away; it is left alone for a while then.
        """
        ...


@dataclass(frozen=True)
class FoundDocument:
    """A document that was read and whose checksum holds.

    Attributes:
        tier: where this copy came from: "cache" (memory or Redis), "spool", "zerodb" or "backup". A cached copy does not
            say where the document is kept; the version's row does.
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


def key_of(content_id: UUID, sha256: bytes | memoryview) -> DocumentKey:
    """Return the key of a document."""
    return DocumentKey(content_id=content_id, sha256=bytes(sha256).hex())


def read_many(*, tenant_id: UUID, keys: Iterable[DocumentKey]) -> dict[DocumentKey, FoundDocument]:
    """Return the documents that any tier can give; a page that is wholly in memory costs no call at all.

    Call it outside a scope: it talks to other services.
    """
    wanted = set(keys)
    found = remembered(keys=wanted)
    if wanted - found.keys():
        with tenant_scope(tenant_id):
            found |= spooled(keys=wanted - found.keys())
    return found | fetch(tenant_id=tenant_id, keys=wanted - found.keys())


def remembered(*, keys: Collection[DocumentKey]) -> dict[DocumentKey, FoundDocument]:
    """Return the documents that this process's memory has; no call is made."""
    texts = document_cache.remembered(keys)
    metrics.count_lookups("memory", wanted=len(keys), found=len(texts))
    return {key: FoundDocument(text, "cache") for key, text in texts.items()}


def spooled(*, keys: Collection[DocumentKey]) -> dict[DocumentKey, FoundDocument]:
    """Inside a scope, return the documents that are in the spool."""
    if not keys:
        return {}
    rows = SpooledDocument.objects.filter(content_id__in={key.content_id for key in keys})
    rows = rows.filter(sha256__in={bytes.fromhex(key.sha256) for key in keys})
    # Items can have equal documents, so the rows may be more than the keys.
    kept = {key_of(content_id, sha256): bytes(document) for content_id, sha256, document in rows.values_list(*KEPT)}
    wanted = kept.keys() & set(keys)
    texts = {key: text for key in wanted if (text := _intact(key, kept[key])) is not None}
    document_cache.remember(texts)
    metrics.count_lookups("spool", wanted=len(keys), found=len(texts))
    return {key: FoundDocument(text, "spool") for key, text in texts.items()}


def _intact(key: DocumentKey, kept: bytes) -> str | None:
    try:
        text = decompress(kept)
    except DamagedDocument:
        text = ""
    if key.names(text):
        return text
    log.error("a spooled document does not match its checksum", content_id=str(key.content_id))
    metrics.DAMAGED.labels("spool").inc()
    _repairs().note_damaged_spool(key)
    return None


def fetch(*, tenant_id: UUID, keys: Collection[DocumentKey]) -> dict[DocumentKey, FoundDocument]:
    """Return the documents that memory, Redis, ZeroDB, or else the backup can give.

    What does not match its checksum counts as absent. Where a tier turns out to lack a document that another has, a repair
    is queued, in a scope of its own. Call it outside a scope: it talks to other services.
    """
    wanted = set(keys)
    if not wanted:
        return {}
    found = _again_remembered(wanted)
    found |= _shared(wanted - found.keys())
    stored, absent = _from_store(wanted - found.keys())
    last = _from_fallback(tenant_id, wanted - found.keys() - stored.keys())
    fresh = stored | last
    document_cache.remember(fresh)
    document_cache.share(fresh)
    found |= {key: FoundDocument(text, "zerodb") for key, text in stored.items()}
    found |= {key: FoundDocument(text, "backup") for key, text in last.items()}
    _repairs().queue(tenant_id, lost={key: last[key] for key in absent & last.keys()}, found=found)
    return found


def _again_remembered(keys: Collection[DocumentKey]) -> dict[DocumentKey, FoundDocument]:
    """Return what memory has: callers mostly looked there already, so only hits are counted."""
    texts = document_cache.remembered(keys)
    metrics.count_lookups("memory", wanted=len(texts), found=len(texts))
    return {key: FoundDocument(text, "cache") for key, text in texts.items()}


def _shared(keys: Collection[DocumentKey]) -> dict[DocumentKey, FoundDocument]:
    if not keys:
        return {}
    texts = document_cache.shared(keys)
    document_cache.remember(texts)
    metrics.count_lookups("redis", wanted=len(keys), found=len(texts))
    return {key: FoundDocument(text, "cache") for key, text in texts.items()}


def _from_store(keys: Collection[DocumentKey]) -> tuple[dict[DocumentKey, str], set[DocumentKey]]:
    """Return what ZeroDB gives, and what it says it does not have; nothing is known while it does not answer."""
    store = document_store()
    if store is None or not keys:
        return {}, set()
    try:
        texts = {key: text for key, text in store.get_many(keys).items() if key.names(text)}
    except (StoreUnavailable, StoreRejected) as error:
        log.warning("ZeroDB gave no documents", wanted=len(keys), error=str(error))
        return {}, set()
    metrics.count_lookups("zerodb", wanted=len(keys), found=len(texts))
    return texts, set(keys) - texts.keys()


def _from_fallback(tenant_id: UUID, keys: Collection[DocumentKey]) -> dict[DocumentKey, str]:
    reader = last_resort()
    if reader is None or not keys:
        return {}
    texts = reader.get_many(tenant_id, keys)
    found = {key: text for key, text in texts.items() if key.names(text)}
    if len(found) < len(texts):
        metrics.DAMAGED.labels("backup").inc(len(texts) - len(found))
        log.error("the backup gave documents that do not match their checksums", count=len(texts) - len(found))
    metrics.count_lookups("backup", wanted=len(keys), found=len(found))
    return found


def repair(*, tenant_id: UUID, keys: Collection[DocumentKey]) -> int:
    """Have documents stored in ZeroDB anew, from whichever other tier has them; return how many had an intact copy.

    Call it outside a scope: it talks to other services.
    """
    with tenant_scope(tenant_id):
        found = {key: document.text for key, document in spooled(keys=keys).items()}
    found |= document_cache.shared(set(keys) - found.keys())
    found |= _from_fallback(tenant_id, set(keys) - found.keys())
    if found:
        with tenant_scope(tenant_id):
            spool.respool(texts=found)
            wake.after_commit(UPLOAD_TASK)
        metrics.REPAIRS.labels("zerodb").inc(len(found))
    return len(found)


class LastResort:
    """The backup for reads: a short time-out, and after one failure nobody waits for it for a while."""

    OPEN_SECONDS = 15.0

    def __init__(self, reader: DocumentReader) -> None:
        self._reader = reader
        self._breaker = CircuitBreaker(threshold=1, open_seconds=self.OPEN_SECONDS)

    def get_many(self, tenant_id: UUID, keys: Collection[DocumentKey]) -> dict[DocumentKey, str]:
        """Return the texts that it gives, none while it is away; they are not checked yet."""
        seconds = settings.CONTENT_READ_FALLBACK_SECONDS
        try:
            with self._breaker.guard():
                return self._reader.get_many(tenant_id=tenant_id, keys=keys, timeout=seconds)
        except (StoreUnavailable, StoreRejected) as error:
            log.warning("the backup gave no documents", wanted=len(keys), error=str(error))
            return {}


class Repairs:
    """Remembers what is damaged and what was repaired, so that a tier that keeps lying is not repaired at every read."""

    def __init__(self) -> None:
        self._damaged: set[DocumentKey] = set()
        self._queued: TTLCache[DocumentKey, float] = TTLCache(MAX_REMEMBERED_REPAIRS, REPAIR_AGAIN_SECONDS)
        self._lock = threading.Lock()

    def note_damaged_spool(self, key: DocumentKey) -> None:
        """Remember a damaged row until another tier gives the document."""
        with self._lock:
            if len(self._damaged) < MAX_REMEMBERED_REPAIRS:
                self._damaged.add(key)

    def queue(
        self, tenant_id: UUID, *, lost: Mapping[DocumentKey, str], found: Mapping[DocumentKey, FoundDocument]
    ) -> None:
        """Spool what ZeroDB lost and mend what the spool has damaged: best effort, the read has its documents already.

        Args:
            lost: texts that ZeroDB answered it does not have, though it should.
            found: all that the read found.
        """
        lost, mended = self._new(lost), self._mendable(found)
        if not lost and not mended:
            return
        try:
            with tenant_scope(tenant_id):
                spool.mend(texts=mended)
                spool.respool(texts=lost)
                wake.after_commit(UPLOAD_TASK)
        except DatabaseError as error:
            log.warning("a repair was not queued; a later read tries again", error=str(error))
            self._forget(lost)
            return
        metrics.REPAIRS.labels("zerodb").inc(len(lost))
        metrics.REPAIRS.labels("spool").inc(len(mended))
        log.warning("repairs queued", zerodb=len(lost), spool=len(mended), tenant=str(tenant_id))

    def _new(self, lost: Mapping[DocumentKey, str]) -> dict[DocumentKey, str]:
        with self._lock:
            new = {key: text for key, text in lost.items() if key not in self._queued}
            self._queued.update(dict.fromkeys(new, time.time()))
        return new

    def _mendable(self, found: Mapping[DocumentKey, FoundDocument]) -> dict[DocumentKey, str]:
        if not self._damaged:
            return {}
        with self._lock:
            mended = {key: found[key].text for key in self._damaged & found.keys()}
            self._damaged -= mended.keys()
        return mended

    def _forget(self, keys: Collection[DocumentKey]) -> None:
        with self._lock:
            for key in keys:
                self._queued.pop(key, None)


@cache
def _repairs() -> Repairs:
    return Repairs()


@cache
def document_store() -> DocumentStore | None:
    """Return the process's document store, or None without a key: the platform then runs on the spool alone."""
    if not settings.ZERODB_API_KEY:
        return None
    make = import_string(settings.CONTENT_STORE)
    return cast("DocumentStore", make(**settings.CONTENT_STORE_OPTIONS, **sharing.store_options()))


@cache
def last_resort() -> LastResort | None:
    """Return the process's reader of the backup, or None when none is set."""
    path = settings.CONTENT_READ_FALLBACK
    return LastResort(import_string(path)()) if path else None


def start_afresh() -> None:
    """Forget what this process remembers of documents, tiers and their failures; the settings are read anew."""
    document_cache.memory.cache_clear()
    for made in (_repairs, document_store, last_resort):
        getattr(made, "cache_clear", lambda: None)()
