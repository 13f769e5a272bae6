"""What was written, remembered in a few bytes an item, and the comparison of that with what can be read now."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar
from uuid import UUID

from content import documents, queries
from content.items import Item
from content.models import ContentItem, ContentVersion
from content.stores.base import DocumentKey
from engarde.common import json
from engarde.common.scopes import tenant_scope

Name = TypeVar("Name")

CHUNK = 200
EXAMPLES = 20
SENT = ("title", "body", "type", "status", "tags", "platforms", "hashtags", "metadata", "media")


@dataclass(slots=True)
class Differences:
    """What is not as it was, each thing once: ids of what is gone, ids of what is wrong, and some examples in words."""

    lost: set[tuple[str, str]] = field(default_factory=set)
    mismatched: set[tuple[str, str]] = field(default_factory=set)
    examples: list[str] = field(default_factory=list)

    def lose(self, kind: str, name: object, problem: str) -> None:
        """Note that something is gone."""
        self._note(self.lost, kind, name, problem)

    def mismatch(self, kind: str, name: object, problem: str) -> None:
        """Note that something is wrong."""
        self._note(self.mismatched, kind, name, problem)

    def _note(self, found: set[tuple[str, str]], kind: str, name: object, problem: str) -> None:
        found.add((kind, str(name)))
        if len(self.examples) < EXAMPLES:
            self.examples.append(f"{kind} {name}: {problem}")

    def __bool__(self) -> bool:
        return bool(self.lost or self.mismatched)


@dataclass(frozen=True, slots=True)
class Entry:
    """An item as it was left: the hash of what was sent last, its version, and whether it is in the trash."""

    digest: bytes
    version: int
    trashed: bool


class Book:
    """What one tenant's items were sent as, and the checksum of each version's document."""

    def __init__(self, tenant_id: UUID) -> None:
        self.tenant_id = tenant_id
        self.entries: dict[UUID, Entry] = {}
        self._versions: dict[UUID, list[tuple[int, bytes]]] = {}

    def note(self, item: Item, sent: Mapping[str, Any] | None = None) -> None:
        """Remember a version that was written, and what was sent for it; None where it says what the one before said."""
        digest = self.entries[item.id].digest if sent is None else digest_of(sent)
        self.entries[item.id] = Entry(digest, item.version, item.deleted_at is not None)
        self._versions.setdefault(item.id, []).append((item.version, item.sha256))

    def copy(self) -> "Book":
        """Return a book that later writes do not change: for a restore to the time of now."""
        copied = Book(self.tenant_id)
        copied.entries = dict(self.entries)
        copied._versions = {name: list(versions) for name, versions in self._versions.items()}
        return copied

    def keys(self) -> Iterator[DocumentKey]:
        """Yield the keys of all documents, of old versions too."""
        for content_id, versions in self._versions.items():
            for sha256 in {sha256 for _, sha256 in versions}:
                yield documents.key_of(content_id, sha256)

    def live(self) -> list[UUID]:
        """Return the items that are not in the trash."""
        return [content_id for content_id, entry in self.entries.items() if not entry.trashed]

    def compare(self, *, exactly: bool, into: Differences) -> None:
        """Read every item, and with `exactly` every version, from whichever tier gives it, and note what is not as it was.

        Args:
            exactly: versions have to be the same; else only what they say, as after a restore to an earlier time.
        """
        documents.start_afresh()
        for chunk in chunks(self.entries):
            self._compare_items(chunk, exactly, into)
            if exactly:
                self._compare_versions(chunk, into)
        self._note_extra(into)

    def _compare_items(self, chunk: list[UUID], exactly: bool, into: Differences) -> None:  # noqa: FBT001 -- private
        with tenant_scope(self.tenant_id):
            found = queries.as_items(ContentItem.objects.filter(tenant_id=self.tenant_id, id__in=chunk))
        items = {item.id: item for item in queries.with_documents(tenant_id=self.tenant_id, items=found)}
        for content_id in chunk:
            item, entry = items.get(content_id), self.entries[content_id]
            if item is None:
                into.lose("content", content_id, "the item is gone")
            elif item.document is None:
                into.lose("content", content_id, "no tier gives its document")
            elif problem := _difference(item, entry, exactly=exactly):
                into.mismatch("content", content_id, problem)

    def _compare_versions(self, chunk: list[UUID], into: Differences) -> None:
        with tenant_scope(self.tenant_id):
            rows = ContentVersion.objects.filter(tenant_id=self.tenant_id, content_id__in=chunk)
            there = {(one, number): bytes(sha256) for one, number, sha256 in rows.values_list(*VERSION)}
        wanted = {(content_id, number): sha256 for content_id in chunk for number, sha256 in self._versions[content_id]}
        keys = {name: documents.key_of(name[0], sha256) for name, sha256 in wanted.items()}
        texts = documents.read_many(tenant_id=self.tenant_id, keys=keys.values())
        for (content_id, number), sha256 in wanted.items():
            text = texts.get(keys[content_id, number])
            if (content_id, number) not in there or text is None:
                into.lose("content", content_id, f"version {number} is gone or cannot be read")
            elif there[content_id, number] != sha256 or hashlib.sha256(text.text.encode()).digest() != sha256:
                into.mismatch("content", content_id, f"version {number} has another document")

    def _note_extra(self, into: Differences) -> None:
        with tenant_scope(self.tenant_id):
            live = ContentItem.objects.filter(tenant_id=self.tenant_id, deleted_at=None)
            for content_id in live.values_list("id", flat=True).iterator(CHUNK):
                if content_id not in self.entries:
                    into.mismatch("content", content_id, "the item was not there before")


VERSION = ("content_id", "version", "sha256")


def digest_of(fields: Mapping[str, Any]) -> bytes:
    """Return the hash of the fields that were sent, or of the same ones as they are read."""
    sent = {name: fields.get(name, []) for name in SENT}
    return hashlib.sha256(json.canonical(sent).encode()).digest()[:16]


def _difference(item: Item, entry: Entry, *, exactly: bool) -> str:
    if (item.deleted_at is not None) != entry.trashed:
        return "it is in the trash and was not" if item.deleted_at else "it was in the trash and is not"
    if digest_of(item.fields) != entry.digest:
        return "it does not say what was sent"
    if exactly and item.version != entry.version:
        return f"it is at version {item.version}, not {entry.version}"
    return ""


def chunks(names: Iterable[Name], size: int = CHUNK) -> Iterator[list[Name]]:
    """Yield names in runs of bounded size."""
    iterator = iter(names)
    while chunk := list(islice(iterator, size)):
        yield chunk
