"""PostgreSQL against ZeroDB and the spool: every document is where PostgreSQL says it is, byte for byte, and nothing else is there.

What one reading shows may have changed before the other was made. So a fault counts only when PostgreSQL says the same before
and after ZeroDB was asked about this one key again.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any
from uuid import UUID

from django.db import connection

from content import documents
from content.models import SpooledRecord
from content.stores.base import DOCUMENTS, DocumentKey, DocumentStore, ScannedRow, StoreUnavailable
from dr.archives.base import CONTENT
from dr.verification.faults import EXTRA, MISMATCHED, MISSING, SPOOL, ZERODB, Fault, Tally
from dr.verification.merging import in_chunks, side_by_side
from engarde.common.scopes import tenant_scope

SCANNED_ROWS = 50
EXPECTED_KEYS = 500
SAMPLED_KEYS = 20
SPOOLED_KEYS = 16
SUSPECT_KEYS = 100
NO_ID = UUID(int=0)

EXPECTED = """
SELECT version.content_id, encode(version.sha256, 'hex'), min(version.version), bool_or(version.zerodb_row_id IS NOT NULL),
       EXISTS (SELECT FROM content_body_spool AS spooled
               WHERE spooled.content_id = version.content_id AND spooled.sha256 = version.sha256),
       EXISTS (SELECT FROM content_body_spool AS spooled
               WHERE spooled.content_id = version.content_id AND spooled.sha256 = version.sha256
                 AND spooled.uploaded_at IS NULL)
FROM content_versions AS version
WHERE version.tenant_id = %(tenant)s AND {condition}
GROUP BY version.content_id, version.sha256"""
AFTER = """version.content_id >= %(id)s
  AND (version.content_id, version.sha256) > (%(id)s, decode(%(sha256)s, 'hex'))"""
IN_ORDER = " ORDER BY version.content_id, version.sha256 LIMIT %(limit)s"
AT_RANDOM = " ORDER BY random() LIMIT %(limit)s"
OF_KEYS = """(version.content_id, version.sha256) IN (
    SELECT id, decode(sha256, 'hex') FROM unnest(%(ids)s::uuid[], %(hashes)s::text[]) AS wanted (id, sha256))"""


@dataclass(frozen=True, slots=True)
class Expected:
    """What PostgreSQL says of a document.

    Attributes:
        version: the lowest that has it.
        is_uploaded: some version names its row in ZeroDB.
        is_spooled: it is in the spool too; `is_pending` while ZeroDB is still to get it.
        is_intact: its copy in the spool, if there is one, is what its checksum says.
    """

    key: DocumentKey
    version: int
    is_uploaded: bool
    is_spooled: bool
    is_pending: bool
    is_intact: bool = True


@dataclass(frozen=True, slots=True)
class Held:
    """All rows that ZeroDB has of a key."""

    key: str
    rows: Sequence[ScannedRow]


class Stored:
    """The comparison of one tenant's documents with ZeroDB and the spool."""

    def __init__(self, *, store: DocumentStore | None, tenant_id: UUID, tally: Tally) -> None:
        """Prepare; nothing is read yet. Without a store, all documents have to be in the spool."""
        self._store = store
        self._tenant_id = tenant_id
        self._tally = tally

    def compare_all(
        self, *, after: str = "", go_on: Callable[[], bool] = lambda: True, progress: Callable[[int], object]
    ) -> str | None:
        """Compare all documents behind a key; return the key where it stopped, or None at the end.

        Args:
            go_on: asked now and then.
            progress: called with the number of documents compared since the last call.

        Raises:
            StoreUnavailable, StoreRejected: ZeroDB does not answer.
        """
        held, expected = self._held(after), self._expected(after)
        pairs = side_by_side(held, expected, lambda one: one.key, lambda one: str(one.key))
        for chunk in in_chunks(pairs, EXPECTED_KEYS):
            self._judge({_key_of(*pair): pair for pair in chunk})
            progress(sum(one is not None for _, one in chunk))
            if not go_on():
                return _key_of(*chunk[-1])
        return None

    def compare_sample(self, *, size: int, progress: Callable[[int], object]) -> None:
        """Compare some documents taken at random.

        Raises:
            StoreUnavailable, StoreRejected: ZeroDB does not answer.
        """
        with tenant_scope(self._tenant_id, one_moment=True):
            sample = self._read("true", AT_RANDOM, limit=size)
        for chunk in in_chunks(iter(sample), SAMPLED_KEYS):
            self._require_store(chunk)
            found = self._store.get_many([one.key for one in chunk if one.is_uploaded]) if self._store else {}
            suspects = [one for one in chunk if not one.is_intact or not (one.is_pending or one.key in found)]
            self._confirm([str(one.key) for one in suspects], absent=())
            progress(len(chunk))

    def _held(self, after: str) -> Iterator[Held]:
        place: str | None = after
        while place is not None and self._store is not None:
            page = self._store.scan(DOCUMENTS, after=place, limit=SCANNED_ROWS, tenant_id=self._tenant_id)
            rows = sorted(page.rows, key=lambda row: row.key)
            for key, group in groupby(rows, key=lambda row: row.key):
                yield Held(key, list(group))
            place = page.next_after

    def _expected(self, after: str) -> Iterator[Expected]:
        content_id, sha256 = _place_of(after)
        while True:
            with tenant_scope(self._tenant_id, one_moment=True):
                page = self._read(AFTER, IN_ORDER, id=content_id, sha256=sha256, limit=EXPECTED_KEYS)
            yield from page
            if len(page) < EXPECTED_KEYS:
                return
            content_id, sha256 = page[-1].key.content_id, page[-1].key.sha256

    def _read(self, condition: str, order: str = "", **values: Any) -> list[Expected]:
        """Inside a scope, return what PostgreSQL says of documents, their copies in the spool read and hashed."""
        with connection.cursor() as cursor:
            cursor.execute(EXPECTED.format(condition=condition) + order, {"tenant": self._tenant_id, **values})
            rows = cursor.fetchall()
        found = [Expected(DocumentKey(content_id, sha256), *rest) for content_id, sha256, *rest in rows]
        kept = [one.key for one in found if one.is_spooled]
        intact = {key for some in in_chunks(iter(kept), SPOOLED_KEYS) for key in documents.spooled(keys=some)}
        return [replace(one, is_intact=not one.is_spooled or one.key in intact) for one in found]

    def _judge(self, pairs: dict[str, tuple[Held | None, Expected | None]]) -> None:
        """Find the suspects among the keys that were read."""
        self._require_store(expected for _, expected in pairs.values() if expected)
        rows = {key: held.rows if held else () for key, (held, _) in pairs.items()}
        suspects = [
            key
            for key, (_, expected) in pairs.items()
            if _faults(self._tenant_id, key, rows[key], expected, is_leaving=False)
        ]
        self._confirm(suspects, absent={key for key in suspects if not rows[key]})

    def _confirm(self, keys: Sequence[str], *, absent: Collection[str]) -> None:
        """Look at suspects once more, one by one, and note what is really wrong; `absent` had no rows before."""
        for some in in_chunks(iter(keys), SUSPECT_KEYS):
            before, leaving = self._known(some)
            rows = self._rows(some, absent)
            after, _ = self._known(some)
            for key in some:
                if before.get(key) == after.get(key):
                    known, is_leaving = after.get(key), key in leaving
                    self._tally.add(_faults(self._tenant_id, key, rows[key], known, is_leaving=is_leaving))

    def _require_store(self, expected: Iterable[Expected]) -> None:
        if self._store is None and any(one.is_uploaded for one in expected):
            raise StoreUnavailable(
                "PostgreSQL names documents in ZeroDB, and there is no key for it: set ZERODB_API_KEY."
            )

    def _known(self, keys: Collection[str]) -> tuple[dict[str, Expected], set[str]]:
        """Return what PostgreSQL says of some keys, and which of them are to be removed from ZeroDB or are on their way."""
        ours = [key for text in keys if (key := _parsed(text))]
        with tenant_scope(self._tenant_id, one_moment=True):
            known = self._read(OF_KEYS, ids=[key.content_id for key in ours], hashes=[key.sha256 for key in ours])
            leaving = SpooledRecord.objects.filter(collection=DOCUMENTS, key__in=list(keys), record__isnull=True)
            return {str(one.key): one for one in known}, set(leaving.values_list("key", flat=True))

    def _rows(self, keys: Collection[str], absent: Collection[str]) -> dict[str, Sequence[ScannedRow]]:
        """Return each key's rows; that some still have none is found out in one call."""
        if self._store is None:
            return dict.fromkeys(keys, ())
        without = {key for key in keys if key in absent}
        parsed = {key for text in without if (key := _parsed(text))}
        came = {str(key) for key in self._store.find_row_ids(parsed)} if parsed else set()
        return {key: () if key in without - came else self._store.rows_of(DOCUMENTS, key) for key in keys}


def _faults(
    tenant_id: UUID, key: str, rows: Sequence[ScannedRow], expected: Expected | None, *, is_leaving: bool
) -> list[Fault]:
    """Return what is wrong with a document, given its rows in ZeroDB and what PostgreSQL says."""
    if expected is None:
        is_extra = bool(rows) and not is_leaving
        return [_fault(tenant_id, key, 0, EXTRA, ZERODB, "PostgreSQL has no such document")] if is_extra else []
    found = []
    if not expected.is_intact:
        found.append((MISMATCHED, SPOOL, "the spooled document is not what its checksum says"))
    if not all(row.intact for row in rows):
        found.append((MISMATCHED, ZERODB, "the document is not what its checksum says"))
    elif any(row.tenant_id != str(tenant_id) for row in rows):
        found.append((MISMATCHED, ZERODB, "the row names another tenant"))
    elif not rows and not expected.is_pending:
        found.append(_absence(expected))
    return [_fault(tenant_id, key, expected.version, *one) for one in found]


def _absence(expected: Expected) -> tuple[str, str, str]:
    if expected.is_uploaded:
        return MISSING, ZERODB, "the document is not there"
    return MISSING, SPOOL, "the document is neither in the spool nor in ZeroDB"


def _fault(tenant_id: UUID, key: str, version: int, kind: str, tier: str, problem: str) -> Fault:
    parsed = _parsed(key)
    content_id = parsed.content_id if parsed else NO_ID
    return Fault(kind, tier, tenant_id, CONTENT, content_id, version, problem, key=key)


def _parsed(text: str) -> DocumentKey | None:
    """Return the document key that a text is, if it is one of our making."""
    try:
        return DocumentKey.parse(text)
    except ValueError:
        return None


def _place_of(after: str) -> tuple[UUID, str]:
    key = _parsed(after)
    return (key.content_id, key.sha256) if key else (NO_ID, "")


def _key_of(held: Held | None, expected: Expected | None) -> str:
    return held.key if held is not None else str(expected.key) if expected is not None else ""
