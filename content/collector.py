"""Tidying ZeroDB: rows that are there twice, damaged, or for nothing. Nothing makes a key unique there, so some come to be.

A collection is scanned by its keys, a page at a time. Of each key, the row stays that PostgreSQL names, else the one with the
lowest id among the intact; the others go. A damaged row goes once an intact one is there; until then the document is
spooled anew. What is on its way at that moment is left alone.

A row whose key PostgreSQL does not know (an orphan) may be left over from a removal, or be all that is left after the loss of
PostgreSQL. So orphans are only counted and named, unless somebody asks for their removal; then too only those over a day
old, and none at all when there are so many that PostgreSQL may have been put back to an earlier state. Their removal is
left to the carrier of records, which looks once more whether PostgreSQL knows them.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any
from uuid import UUID

import structlog
from django.db import connection

from content import documents, records, spool
from content.models import ContentVersion, SpooledDocument, SpooledRecord
from content.stores.base import DOCUMENTS, VERSIONS, DocumentKey, DocumentStore, ScannedRow, ScanPage
from engarde.accounts import queries as account_queries
from engarde.common import wake
from engarde.common.scopes import system_scope

log = structlog.get_logger(__name__)

PAGE_ROWS = 50
ORPHAN_AGE = timedelta(days=1)
MAX_NAMED = 100
FEW_ORPHANS = 100
ORPHAN_SHARE = 0.1
RECORDS_TASK = "content.carry_records"
REMOVE = "SELECT content_spool_removal(%s, %s, %s)"


@dataclass(slots=True)
class Collected:
    """What was found in a collection and done about it.

    Attributes:
        foreign: rows that are not ours to judge: without a key of our making.
        surplus: intact rows beside the one that stays.
        damaged: rows that are not what their key or checksum says.
        orphans: keys that PostgreSQL does not know, for more than a day.
        removed: rows that were removed.
        repointed: keys whose versions now name the row that stays.
        repairs: documents that were spooled anew; `unrepaired` had no intact copy in any tier.
        place: the key up to which it was done; None at the collection's end.
    """

    rows: int = 0
    keys: int = 0
    foreign: int = 0
    surplus: int = 0
    damaged: int = 0
    orphans: int = 0
    removed: int = 0
    repointed: int = 0
    repairs: int = 0
    unrepaired: int = 0
    orphan_keys: list[str] = field(default_factory=list)
    place: str | None = ""

    def as_json(self) -> dict[str, Any]:
        """Return it for a report."""
        return {name: value for name, value in asdict(self).items() if name != "place"}


@dataclass(frozen=True, slots=True)
class Known:
    """What PostgreSQL knows of a key.

    Attributes:
        named: ids of the rows that versions name; for documents only.
        is_busy: it is spooled, so that a carrier may be changing its rows just now.
    """

    is_known: bool
    is_busy: bool
    named: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Group:
    """All rows of one key, and what PostgreSQL knows of it."""

    key: str
    rows: Sequence[ScannedRow]
    known: Known

    @property
    def kept(self) -> ScannedRow | None:
        """The row that stays: named by PostgreSQL if one is, else that of the lowest id; None without an intact one."""
        intact = sorted((row for row in self.rows if row.intact), key=lambda row: row.row_id)
        named = (row for row in intact if row.row_id in self.known.named)
        return next(named, intact[0] if intact else None)

    @property
    def superfluous(self) -> list[ScannedRow]:
        """The rows that can go."""
        kept = self.kept
        return [row for row in self.rows if row.row_id != kept.row_id] if kept else []

    @property
    def needs_work(self) -> bool:
        """Whether something is to be done about a document's rows, or a record's."""
        return self.kept is None or bool(self.superfluous) or (self.needs_pointing and bool(self.known.named))

    @property
    def needs_pointing(self) -> bool:
        """Whether some version does not name the row that stays."""
        return self.kept is not None and self.known.named != {self.kept.row_id}


def run(
    *,
    store: DocumentStore,
    collection: str,
    now: datetime,
    dry_run: bool = False,
    remove_orphans: bool = False,
    collected: Collected | None = None,
    go_on: Callable[[], bool] = lambda: True,
    progress: Callable[[int], object] = lambda _rows: None,
) -> Collected:
    """Tidy one collection to its end and return what was done.

    Args:
        dry_run: only look.
        remove_orphans: have those removed that are over a day old; ask `refusal` first.
        collected: counts to add to, and the place to begin at.
        go_on: asked after each page; `place` tells where it stopped.
        progress: called with the number of rows of each page.

    Raises:
        StoreUnavailable, StoreRejected: ZeroDB does not answer; what was done so far is done, up to `place`.
    """
    done, seen = collected or Collected(), None
    while done.place is not None:
        page = store.scan(collection, after=done.place, limit=PAGE_ROWS)
        is_news = page.rows != seen
        if is_news:
            _tidy(store, collection, page, done, now, dry_run=dry_run, remove_orphans=remove_orphans)
            progress(len(page.rows))
        if not (page.is_crowded and is_news):  # else more rows of the same key may come to light here
            done.place = page.next_after
        seen = page.rows
        if not go_on():
            break
    return done


def refusal(*, found: Collected) -> str:
    """Return why the orphans that a dry run found must not be removed, or nothing."""
    with system_scope("see whether PostgreSQL has content"):
        is_empty = not ContentVersion.objects.exists()
    if is_empty:
        return "PostgreSQL has no content at all: restore it first."
    if found.orphans > max(FEW_ORPHANS, found.keys * ORPHAN_SHARE):
        return (
            f"PostgreSQL does not know {found.orphans} of {found.keys} keys: it may be in an earlier state. "
            "Restore what is missing first (restore_from_bigquery)."
        )
    return ""


def _tidy(
    store: DocumentStore,
    collection: str,
    page: ScanPage,
    done: Collected,
    now: datetime,
    *,
    dry_run: bool,
    remove_orphans: bool,
) -> None:
    groups = _groups(collection, page.rows)
    _count(page.rows, groups, done)
    orphans = [group for group in groups if _is_orphan(group, now)]
    done.orphans += len(orphans)
    done.orphan_keys += [group.key for group in orphans][: MAX_NAMED - len(done.orphan_keys)]
    if dry_run:
        return
    ours = _confirmed(
        store, collection, [group for group in groups if group.known.is_known and not group.known.is_busy]
    )
    if collection == DOCUMENTS:
        _point(ours, done)
        _repair([group for group in ours if group.kept is None], done)
    for group in ours:
        for row in group.superfluous:
            store.delete_row(collection, row.row_id)
            done.removed += 1
    if remove_orphans:
        _queue_removals(collection, orphans, done)


def _confirmed(store: DocumentStore, collection: str, groups: Sequence[Group]) -> list[Group]:
    """Return the groups that need work, each as the service shows it when asked for its key alone.

    A service that gives the rows of one answer each other's data would otherwise have us remove what another key needs.
    """
    untidy = [group for group in groups if group.needs_work]
    looked_up = [replace(group, rows=store.rows_of(collection, group.key)) for group in untidy]
    return [group for group in looked_up if group.rows]


def _groups(collection: str, rows: Sequence[ScannedRow]) -> list[Group]:
    """Return the rows of each key of ours, with what PostgreSQL knows of it."""
    ours = sorted((row for row in rows if _is_ours(collection, row)), key=lambda row: row.key)
    by_key = {key: list(group) for key, group in groupby(ours, key=lambda row: row.key)}
    if not by_key:
        return []
    with system_scope("compare ZeroDB's rows with PostgreSQL"):
        known = _known(collection, list(by_key))
    return [Group(key, by_key[key], known[key]) for key in by_key]


def _is_ours(collection: str, row: ScannedRow) -> bool:
    """Tell whether a row's key and tenant are of our making."""
    try:
        UUID(row.tenant_id)
        if collection == DOCUMENTS:
            DocumentKey.parse(row.key)
        else:
            UUID(row.key.partition(":")[0])
    except ValueError:
        return False
    return True


def _known(collection: str, keys: list[str]) -> dict[str, Known]:
    waiting = SpooledRecord.objects.filter(collection=collection, key__in=keys)
    busy = set(waiting.values_list("key", flat=True))
    if collection == DOCUMENTS:
        named = _named(keys)
        busy |= _spooled(keys)
        return {key: Known(key in named, key in busy, frozenset(named.get(key, ()))) for key in keys}
    find = records.versions_known if collection == VERSIONS else records.media_known
    there = find(keys)
    return {key: Known(key in there, key in busy) for key in keys}


def _named(keys: Iterable[str]) -> dict[str, set[str]]:
    """Return the row ids that versions name, by the documents' keys; "" stands for a version that names none."""
    rows = _of_keys(ContentVersion.objects, keys).values_list("content_id", "sha256", "zerodb_row_id")
    named: dict[str, set[str]] = {}
    for content_id, sha256, row_id in rows:
        named.setdefault(str(documents.key_of(content_id, sha256)), set()).add(row_id or "")
    return named


def _spooled(keys: Iterable[str]) -> set[str]:
    """Return the keys of documents that ZeroDB is still to get."""
    waiting = _of_keys(SpooledDocument.objects.filter(uploaded_at=None), keys)
    return {str(documents.key_of(*row)) for row in waiting.values_list("content_id", "sha256")}


def _of_keys(rows: Any, keys: Iterable[str]) -> Any:
    parsed = [DocumentKey.parse(key) for key in keys]
    rows = rows.filter(content_id__in={key.content_id for key in parsed})
    return rows.filter(sha256__in={bytes.fromhex(key.sha256) for key in parsed})


def _count(rows: Sequence[ScannedRow], groups: Sequence[Group], done: Collected) -> None:
    done.rows += len(rows)
    done.keys += len(groups)
    done.foreign += len(rows) - sum(len(group.rows) for group in groups)
    done.damaged += sum(not row.intact for group in groups for row in group.rows)
    done.surplus += sum(row.intact for group in groups for row in group.superfluous)


def _is_orphan(group: Group, now: datetime) -> bool:
    if group.known.is_known or group.known.is_busy:
        return False
    return all(row.created_at is not None and row.created_at < now - ORPHAN_AGE for row in group.rows)


def _point(groups: Sequence[Group], done: Collected) -> None:
    """Have versions name the rows that stay, before the others go."""
    wrong = [group for group in groups if group.needs_pointing]
    rows = [(DocumentKey.parse(group.key), group.kept.row_id) for group in wrong if group.kept]
    if rows:
        with system_scope("point versions at the rows that stay"):
            spool.point_versions(rows=rows)
        done.repointed += len(rows)


def _repair(groups: Sequence[Group], done: Collected) -> None:
    """Spool documents anew of which ZeroDB has damaged rows only."""
    by_tenant = sorted(groups, key=lambda group: group.rows[0].tenant_id)
    for tenant_id, same in groupby(by_tenant, key=lambda group: group.rows[0].tenant_id):
        keys = {DocumentKey.parse(group.key) for group in same}
        repaired = documents.repair(tenant_id=UUID(tenant_id), keys=keys)
        done.repairs += repaired
        done.unrepaired += len(keys) - repaired


def _queue_removals(collection: str, orphans: Sequence[Group], done: Collected) -> None:
    tenants = {str(tenant_id) for tenant_id in account_queries.tenant_ids()}
    with system_scope("remove orphans from ZeroDB"), connection.cursor() as cursor:
        for group in orphans:
            if group.rows[0].tenant_id in tenants:
                cursor.execute(REMOVE, [collection, group.key, group.rows[0].tenant_id])
                done.removed += len(group.rows)
    wake.after_commit(RECORDS_TASK)
