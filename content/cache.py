"""Copies of documents that are quicker to reach than where they are kept: this process's memory, then Redis.

A document never changes under its key, so nothing is ever invalidated; a copy that is lost or left out costs one slower read.

- Memory holds texts whose checksum held when they came; a Python string cannot change afterwards. Bounded by
  CONTENT_CACHE_BYTES.
- Redis holds them compressed, each under a key with a TTL (CONTENT_CACHE_SECONDS), one call for a page. Others can write
  there, so each copy's checksum is checked after reading; a wrong one is removed. An absent Redis is a cache that is empty.
- Texts over CONTENT_CACHE_MAX_ENTRY_BYTES are kept in neither: a few of them would push out hundreds of others.
"""

import sys
import threading
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any

import structlog
from cachetools import LRUCache
from django.conf import settings

from content import metrics
from content.packing import DamagedDocument, compress, decompress
from content.stores.base import DocumentKey
from engarde.common import redis as redis_client

log = structlog.get_logger(__name__)

KEY_PREFIX = "engarde:document:"
ENTRY_OVERHEAD_BYTES = 600  # a key with its UUID and digits, and the cache's own bookkeeping
WRITE_BYTES = 4 * 1024**2  # one write's limit: sending more could take longer than Redis is waited for


class Memory:
    """The least recently used texts go first when their bytes are too many. Safe to use from several threads."""

    def __init__(self, max_bytes: int) -> None:
        self._texts: LRUCache[DocumentKey, str] = LRUCache(max_bytes, getsizeof=_bytes_of)
        self._lock = threading.Lock()

    def get_many(self, keys: Collection[DocumentKey]) -> dict[DocumentKey, str]:
        """Return the texts that are there."""
        with self._lock:
            return {key: text for key in keys if (text := self._texts.get(key)) is not None}

    def put_many(self, texts: Mapping[DocumentKey, str]) -> None:
        """Keep texts; one that alone is larger than the memory is left out."""
        with self._lock:
            for key, text in texts.items():
                if _bytes_of(text) <= self._texts.maxsize:
                    self._texts[key] = text
            metrics.MEMORY_BYTES.set(self._texts.currsize)

    @property
    def size(self) -> float:
        """Bytes that are kept."""
        return self._texts.currsize


def _bytes_of(text: str) -> int:
    return sys.getsizeof(text) + ENTRY_OVERHEAD_BYTES


@cache
def memory() -> Memory:
    """Return this process's memory."""
    return Memory(settings.CONTENT_CACHE_BYTES)


def remembered(keys: Collection[DocumentKey]) -> dict[DocumentKey, str]:
    """Return the texts that this process's memory has."""
    return memory().get_many(keys)


def remember(texts: Mapping[DocumentKey, str]) -> None:
    """Keep texts in this process's memory, after their checksums were checked."""
    memory().put_many(_small(texts))


def share(texts: Mapping[DocumentKey, str]) -> None:
    """Keep texts in Redis, after their checksums were checked."""
    copies = _within(WRITE_BYTES, {_name(key): compress(text) for key, text in _small(texts).items()})
    if copies:
        redis_client.attempt(lambda client: _write(client, copies), None)


def shared(keys: Collection[DocumentKey]) -> dict[DocumentKey, str]:
    """Return the texts that Redis has and whose checksum holds."""
    wanted = list(keys)
    names = [_name(key) for key in wanted]
    copies: list[Any] = redis_client.attempt(lambda client: client.mget(names), []) if names else []
    texts = {key: _unpacked(copy) for key, copy in zip(wanted, copies, strict=False) if copy is not None}
    found = {key: text for key, text in texts.items() if text is not None and key.names(text)}
    _remove_wrong(texts.keys() - found.keys())
    return found


def _small(texts: Mapping[DocumentKey, str]) -> dict[DocumentKey, str]:
    limit = settings.CONTENT_CACHE_MAX_ENTRY_BYTES
    return {key: text for key, text in texts.items() if sys.getsizeof(text) <= limit}


def _within(limit: int, copies: Mapping[str, bytes]) -> dict[str, bytes]:
    kept, total = {}, 0
    for name, copy in copies.items():
        total += len(copy)
        if total > limit:
            break
        kept[name] = copy
    return kept


def _write(client: Any, copies: Mapping[str, bytes]) -> None:
    with client.pipeline(transaction=False) as pipeline:
        for name, copy in copies.items():
            pipeline.set(name, copy, ex=settings.CONTENT_CACHE_SECONDS)
        pipeline.execute()


def _unpacked(copy: bytes) -> str | None:
    try:
        return decompress(copy)
    except DamagedDocument:
        return None


def _remove_wrong(keys: Collection[DocumentKey]) -> None:
    if not keys:
        return
    metrics.DAMAGED.labels("redis").inc(len(keys))
    log.error("copies in Redis do not match their checksums; removing them", keys=[str(key) for key in keys][:10])
    redis_client.attempt(lambda client: client.delete(*map(_name, keys)), 0)


def _name(key: DocumentKey) -> str:
    return f"{KEY_PREFIX}{key}"
