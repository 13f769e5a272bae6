"""The way back from the archive: rows and content into PostgreSQL, documents through the spool into ZeroDB.

To the latest state, it writes only what is missing or older here, so it can be stopped and started again, and over equal data it
changes nothing; what is newer here stays. To an earlier time, it then brings back what was there and is gone, makes a new version of
what differs, above the highest number ever used, and moves what was made later to the trash; nothing is overwritten for good.

What was in force is held still in the archive (a snapshot), streamed, checked byte for byte, and written in pieces of bounded
size, each a transaction, while the next ones are read.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
import structlog
from django.conf import settings
from django.db import connection
from django.db.models import Q
from django.utils.module_loading import import_string

from content import changes, documents, indexing, recovery, search, spool, uploader
from content import records as record_carrier
from content.models import SpooledDocument
from content.recovery import Copy
from content.stores.base import DocumentStore
from dr import door, epochs, erasing, media_files, media_recovery, reading, rows, sync
from dr.archives.base import CONTENT, Archive, ArchiveRecord, CurrentRecord, Snapshot
from dr.models import Restore
from dr.records import is_intact
from engarde.accounts import queries as account_queries
from engarde.common.scopes import system_scope, tenant_scope
from quotas import reconciliation

log = structlog.get_logger(__name__)

TIERS = frozenset({"postgres", "zerodb"})
KEPT_ERRORS = 1000
TRASHED_AT_ONCE = 100
BACK_UP_FIRST_SECONDS = 120.0
# Which items were seen, and which differed, is kept in PostgreSQL, so that memory does not grow with their number.
FORGET = """
CREATE TEMP TABLE IF NOT EXISTS restore_seen (id uuid PRIMARY KEY);
CREATE TEMP TABLE IF NOT EXISTS restore_changed (id uuid PRIMARY KEY);
TRUNCATE restore_seen, restore_changed"""
NOTE = "INSERT INTO {table} SELECT * FROM unnest(%s::uuid[]) ON CONFLICT DO NOTHING"
UNSEEN = """
SELECT tenant_id, id FROM content_storage_metadata AS item
WHERE deleted_at IS NULL AND (%(tenant)s::uuid IS NULL OR tenant_id = %(tenant)s)
  AND NOT EXISTS (SELECT FROM restore_seen WHERE restore_seen.id = item.id)
ORDER BY tenant_id, id LIMIT %(limit)s"""
NOTE_UNSEEN = """
INSERT INTO restore_changed SELECT id FROM content_storage_metadata AS item
WHERE deleted_at IS NULL AND (%(tenant)s::uuid IS NULL OR tenant_id = %(tenant)s)
  AND NOT EXISTS (SELECT FROM restore_seen WHERE restore_seen.id = item.id)
ON CONFLICT DO NOTHING"""
NOT_KEPT = (
    "provider keys (each tenant's admins, under /api/llm-keys)",
    "webhooks and their secrets (each tenant's admins)",
    "alert targets (each tenant's admins)",
    "logins (everybody logs in again)",
)
Clock = Callable[[], datetime]
Progress = Callable[[int], object]
Write = Callable[[Sequence[Copy]], recovery.Recovered | None]


class NothingThen(Exception):
    """The backup knows nothing of the time that is asked for."""


class NewerHere(Exception):
    """Changes are here that the backup does not have; going back in time would bury them."""


@dataclass(slots=True)
class Restored:
    """What a restore did, or in a dry run would do.

    Attributes:
        checked: records in the archive that were looked at.
        items: content items that differed in any tier.
        rows: rows of other types that came back, by type.
        turned_back, trashed: items, of a restore to an earlier time.
        respooled: documents that ZeroDB lacked.
        records: what ZeroDB is told anew of versions and media files.
        indexed: items that searches find again.
        media_files: files whose bytes came back from the second storage.
        uploaded: documents that went to ZeroDB at the end; what failed stays in the spool.
        newer: items that are newer here than in the archive, and were left alone.
        enter_again: what is in no backup, and who has to enter it again.
        errors: {"id", "code", "message"} for what could not be brought back, of which the first thousand are kept.
        failed: how many could not.
        seconds: how long each phase took.
    """

    checked: int = 0
    items: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    turned_back: int = 0
    trashed: int = 0
    respooled: int = 0
    records: int = 0
    uploaded: int = 0
    indexed: int = 0
    media_files: int = 0
    newer: int = 0
    failed: int = 0
    enter_again: Sequence[str] = ()
    errors: list[dict[str, str]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def changed(self) -> int:
        """Items and rows that differed in any tier."""
        return self.items + sum(self.rows.values())

    def fail(self, entity_id: object, code: str, message: str) -> None:
        """Note what could not be brought back."""
        self.failed += 1
        if len(self.errors) < KEPT_ERRORS:
            self.errors.append({"id": str(entity_id), "code": code, "message": message})

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Measure a phase."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] = round(self.seconds.get(phase, 0.0) + time.perf_counter() - begun, 3)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a restore is to do.

    Attributes:
        tenant_id: None for all, and what belongs to the platform.
        as_of: None for the latest state.
        force: have rows equal their copies though they are here, and go back in time over changes that the backup lacks.
        refill: wait until ZeroDB has the documents and searches find them; else the carriers see to it.
    """

    tenant_id: UUID | None
    tiers: frozenset[str] = TIERS
    as_of: datetime | None = None
    force: bool = False
    dry_run: bool = False
    refill: bool = True


def run(*, archive: Archive, wanted: Wanted, now: Clock, progress: Progress) -> Restored:
    """Restore a tenant, or all.

    Args:
        progress: called with the number of records looked at since the last call.

    Raises:
        ArchiveUnavailable, ArchiveRefused: the archive does not give its records.
        StoreUnavailable, StoreRejected: ZeroDB does not say what it has.
        DoorBusy: another restore is running.
        NewerHere: see there.
    """
    work = _Restore(archive, wanted, now, progress)
    shut: AbstractContextManager[None] = nullcontext() if wanted.dry_run else door.closed(tenant_id=wanted.tenant_id)
    with shut:
        if wanted.as_of and not wanted.dry_run:
            _back_up_first(wanted, now)
        work.restore()
    if not wanted.dry_run:
        work.finish()
    return work.done


def _back_up_first(wanted: Wanted, now: Clock) -> None:
    """Have the backup know all that is here before anything is turned back; others write on meanwhile, and are not waited for."""
    deadline = time.monotonic() + BACK_UP_FIRST_SECONDS
    while (waiting := _unknown_to_backup(wanted)) and time.monotonic() < deadline:
        if not sync.run_pass(now=now, is_probe=True).shipped:
            time.sleep(0.2)  # another worker has it in hand, or nothing can be shipped
    if waiting and not wanted.force:
        raise NewerHere(
            f"{waiting} changes are here that the backup does not have yet. Run sync_to_bigquery --until-empty first, "
            "or go back over them with --force; they stay as older versions."
        )


def _unknown_to_backup(wanted: Wanted) -> int:
    with system_scope("look what the backup lacks"):
        return changes.backlog(tenant_id=wanted.tenant_id)


def _was_interrupted(wanted: Wanted) -> bool:
    """Tell whether an earlier restore of the same, or of all, did not end well: what it touched is not known any more."""
    with system_scope("look how the last restore ended"):
        earlier = Restore.objects.filter(Q(tenant_id=wanted.tenant_id) | Q(tenant_id=None), dry_run=False)
        ends = list(earlier.order_by("-started_at").values_list("ok", flat=True)[:2])  # the first is this one
    return any(ok is not True for ok in ends[1:])


class _Restore:
    """One restore on its way."""

    def __init__(self, archive: Archive, wanted: Wanted, now: Clock, progress: Progress) -> None:
        self.archive, self.wanted, self.now, self.progress = archive, wanted, now, progress
        self.done = Restored()
        self.store: DocumentStore | None = documents.document_store() if "zerodb" in wanted.tiers else None
        self.to_postgres = "postgres" in wanted.tiers
        self.brands: set[UUID] = set()
        self.would_have: set[UUID] = set()
        self.members: set[UUID] = set()
        self.touched: set[UUID] = set()
        self.made: dict[str, list[tuple[UUID, UUID]]] = {}
        self.began = now()
        self.erased = erasing.under_way()
        self.is_new = False
        self.epoch = 0
        self.tenants_here: frozenset[UUID] = frozenset()
        self.is_aloud = False  # whether what comes back is news to the backup: an earlier state than its latest is

    def restore(self) -> None:
        """Do what holds the door closed."""
        if self.store is not None and not self.wanted.dry_run:
            self.store.set_up()
        self.is_new = self.wanted.tenant_id is None and epochs.awaits_restore(archive=self.archive)
        self.epoch = epochs.current(archive=self.archive)
        self.tenants_here = frozenset(account_queries.tenant_ids())
        if not self.wanted.dry_run and _was_interrupted(self.wanted):
            self.touched |= self.tenants_here if self.wanted.tenant_id is None else {self.wanted.tenant_id}
        with connection.cursor() as cursor:
            cursor.execute(FORGET)
        with self._held(None) as snapshot, self.done.timed("restore"):
            self._bring_back(snapshot)
        if self.wanted.as_of and self.to_postgres:
            self.is_aloud = True
            with self._held(self.wanted.as_of) as snapshot, self.done.timed("back in time"):
                self._require_anything(snapshot)
                self._bring_back(snapshot)
                for count, copies in self._pieces(snapshot, _ignored, is_current=True):
                    self._turn_back(copies)
                    self._count(count)
                self._trash_later()
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM restore_changed")
            self.done.items = cursor.fetchone()[0]
        with self.done.timed("count"):
            self._count_again()

    def _require_anything(self, snapshot: Snapshot) -> None:
        """Refuse a time before anything was there: all there is would go to the trash.

        Raises:
            NothingThen: the backup knows nothing of that time.
        """
        if not (snapshot.count(entity_type="tenant") or snapshot.count(entity_type=CONTENT)):
            raise NothingThen("The backup has nothing of that time: it is before the tenant, or the backup, was there.")

    @contextmanager
    def _held(self, as_of: datetime | None) -> Iterator[Snapshot]:
        with ExitStack() as stack:
            with self.done.timed("query"):
                held = self.archive.snapshot(tenant_id=self.wanted.tenant_id, as_of=as_of)
                snapshot = stack.enter_context(held)
            yield snapshot

    def _bring_back(self, snapshot: Snapshot) -> None:
        """Bring back what is missing, or older here."""
        if self.to_postgres:
            self._restore_rows(snapshot, [name for name in rows.tables() if name not in rows.AFTER_CONTENT])
        self._know_brands()
        self._stream(snapshot, self._write_items, is_current=True)
        self._stream(snapshot, self._write_versions, is_current=False)
        if self.to_postgres:
            self._restore_rows(snapshot, rows.AFTER_CONTENT)
            self._settle_rows()

    # Rows of other tables

    def _restore_rows(self, snapshot: Snapshot, types: Sequence[str]) -> None:
        known = rows.tables()
        if self.wanted.tenant_id and "membership" in types:
            self.members = {
                UUID(orjson.loads(one.record.facts)["user_id"]) for one in snapshot.records(entity_type="membership")
            }
        for name in types:
            if name in known:
                for piece in reading.pieces(snapshot.records(entity_type=name)):
                    self._put_rows(name, known[name], [one.record for one in piece])

    def _put_rows(self, name: str, table: rows.Table, records: Sequence[ArchiveRecord]) -> None:
        good = [record for record in records if self._is_wanted(name, record) and self._is_good(record)]
        good = self._without_removed(good)
        overwrite = name in rows.OVERWRITTEN and (self.wanted.force or self.is_new)
        if good and name == "user" and self.is_new and not self.wanted.dry_run:
            with system_scope("make room for people who come back"):
                recovery.silence(aloud=True)  # the backup may know whom a new database began with
                rows.make_room(records=good)
        if good:
            with system_scope("restore rows"):
                recovery.silence(aloud=self.is_aloud)
                put = table.put(good, overwrite=overwrite, dry_run=self.wanted.dry_run)
            self._note_rows(name, put, {record.entity_id: record for record in good})
        self.done.checked += len(records)
        self.progress(len(records))

    def _is_wanted(self, name: str, record: ArchiveRecord) -> bool:
        """Tell whether a row belongs to what is restored: of the platform's, a tenant needs the people who are its members.

        What is being erased stays away. So does, of an earlier time, what lets people into tenants that are here; and of a new
        database's own people what it knows best itself.
        """
        if self.erased.has(tenant_id=record.tenant_id, entity_id=record.entity_id):
            return False
        if name in rows.LETS_IN and self.is_aloud and self._is_here(record.tenant_id):
            return False
        if name == "user" and self.is_new and record.epoch >= self.epoch:
            return False
        is_theirs = self.wanted.tenant_id in (None, record.tenant_id)
        return is_theirs or (name == "user" and record.entity_id in self.members)

    def _is_here(self, tenant_id: UUID) -> bool:
        """Tell whether a tenant was here before; for the platform's own rows, whether the one that is restored was."""
        if tenant_id.int:
            return tenant_id in self.tenants_here
        return self.wanted.tenant_id is None or self.wanted.tenant_id in self.tenants_here

    def _without_removed(self, records: Sequence[ArchiveRecord]) -> list[ArchiveRecord]:
        """Leave out rows that were removed and of which the snapshot may not know."""
        if self.is_aloud or not records:
            return list(records)
        with system_scope("look what was removed"):
            removed = recovery.gone(entity_ids=[record.entity_id for record in records], since=self.began)
        return [record for record in records if (record.entity_id, 0) not in removed]

    def _is_good(self, record: ArchiveRecord) -> bool:
        if is_intact(record):
            return True
        self.done.fail(record.entity_id, "damaged_record", f"this {record.entity_type} is not what was backed up")
        return False

    def _note_rows(self, name: str, put: rows.Put, by_id: dict[UUID, ArchiveRecord]) -> None:
        if count := len(put.made) + len(put.changed):
            self.done.rows[name] = self.done.rows.get(name, 0) + count
        if name in settings.DR_AFTER_RESTORE:
            self.made.setdefault(name, []).extend((by_id[one].tenant_id, one) for one in put.made)
        self.touched |= {by_id[one].tenant_id for one in put.made if by_id[one].tenant_id.int}
        if self.wanted.dry_run and name == "brand":
            self.would_have |= set(put.made)
        for entity_id in put.refused:
            message = f"this {name} collides with one that is here, or what it belongs to is gone"
            self.done.fail(entity_id, "not_restored", message)

    def _settle_rows(self) -> None:
        """Have the rooms see to what came back of theirs, such as jobs that nobody has in hand any more."""
        made, self.made = self.made, {}
        for name, pairs in made.items() if not self.wanted.dry_run else ():
            settle = import_string(settings.DR_AFTER_RESTORE[name])
            by_tenant: dict[UUID, list[UUID]] = {}
            for tenant_id, entity_id in pairs:
                by_tenant.setdefault(tenant_id, []).append(entity_id)
            for tenant_id, ids in by_tenant.items():
                settle(tenant_id=tenant_id, ids=ids, now=self.now())

    # Content

    def _know_brands(self) -> None:
        with system_scope("look which brands there are"):
            brands = account_queries.brands_of_all_tenants()
            if self.wanted.tenant_id:
                brands = brands.filter(tenant_id=self.wanted.tenant_id)
            self.brands = set(brands.values_list("id", flat=True)) | self.would_have

    def _stream(self, snapshot: Snapshot, write: Write, *, is_current: bool) -> None:
        """Write what a snapshot has of content, by several hands at once; what came of it is noted by one."""
        for count, copies, found in reading.spread(write, self._pieces(snapshot, self._damaged, is_current=is_current)):
            if found is not None:
                self._note(copies, found)
            if self.is_aloud and is_current:
                _note("restore_seen", (copy.id for copy in copies))
            if copies:
                self._refill(copies)
            self._count(count)

    def _pieces(self, snapshot: Snapshot, damaged: reading.Damage, *, is_current: bool) -> Iterator[reading.Piece]:
        records = snapshot.records(entity_type=CONTENT, is_current=is_current)
        return reading.ahead((len(piece), self._copies(piece, damaged)) for piece in reading.pieces(records))

    def _copies(self, piece: list[CurrentRecord], damaged: reading.Damage) -> list[Copy]:
        found = reading.copies(piece, damaged)
        return [copy for copy in found if not self.erased.has(tenant_id=copy.tenant_id, entity_id=copy.id)]

    def _count(self, count: int) -> None:
        self.done.checked += count
        self.progress(count)

    def _damaged(self, one: CurrentRecord, problem: str) -> None:
        self.done.fail(one.record.entity_id, "damaged_record", problem)

    def _write_items(self, copies: Sequence[Copy]) -> recovery.Recovered | None:
        if not self.to_postgres:
            return None
        with system_scope("restore items"):
            recovery.silence(aloud=self.is_aloud)
            return recovery.recover_items(
                copies=copies,
                brands=self.brands,
                since=self.began,
                now=self.now(),
                aloud=self.is_aloud,
                dry_run=self.wanted.dry_run,
            )

    def _write_versions(self, copies: Sequence[Copy]) -> recovery.Recovered | None:
        if not self.to_postgres:
            return None
        with system_scope("restore versions"):
            recovery.silence(aloud=self.is_aloud)
            return recovery.recover_versions(
                copies=copies, since=self.began, now=self.now(), aloud=self.is_aloud, dry_run=self.wanted.dry_run
            )

    def _note(self, copies: Sequence[Copy], found: recovery.Recovered) -> None:
        _note("restore_changed", found.items)
        self.done.newer += len(found.newer)
        self.touched |= {copy.tenant_id for copy in copies if copy.id in found.items}
        for item_id, problem in found.failures.items():
            self.done.fail(item_id, "not_restored", problem)

    def _refill(self, copies: Sequence[Copy]) -> None:
        """Have ZeroDB sent what it lost, and versions point to where it has the rest."""
        if self.store is None:
            return
        with system_scope("look where documents are said to be"):
            said = recovery.stored_keys(copies=copies)
        there = self.store.find_row_ids(said) if said else {}
        texts = {documents.key_of(copy.id, copy.facts.sha256): copy for copy in copies}
        lost = {key: texts[key] for key in said if key not in there}
        moved = [(key, row_id) for key, row_id in there.items() if said[key] != row_id]
        _note("restore_changed", {key.content_id for key in lost} | {key.content_id for key, _ in moved})
        self.done.respooled += len(lost)
        if self.wanted.dry_run or not (lost or moved):
            return
        with system_scope("have ZeroDB filled again"):
            spool.point_versions(rows=sorted(moved, key=lambda pair: str(pair[0])))
            recovery.recover_documents(texts={key: copy.text for key, copy in lost.items()})

    # Back in time

    def _turn_back(self, copies: Sequence[Copy]) -> None:
        for tenant_id in {copy.tenant_id for copy in copies}:
            mine = [copy for copy in copies if copy.tenant_id == tenant_id]
            with tenant_scope(tenant_id):
                recovery.silence(aloud=True)
                languages = account_queries.brand_languages(tenant_id=tenant_id)
                tags = {brand_id: search.language_of(tag) for brand_id, tag in languages.items()}
                turned = recovery.turn_back(
                    tenant_id=tenant_id, copies=mine, languages=tags, now=self.now(), dry_run=self.wanted.dry_run
                )
            _note("restore_changed", turned)
            self.done.turned_back += len(turned)
            if turned:
                self.touched.add(tenant_id)

    def _trash_later(self) -> None:
        """Move to the trash what was made after the time that is restored."""
        values: dict[str, Any] = {"tenant": self.wanted.tenant_id, "limit": TRASHED_AT_ONCE}
        if self.wanted.dry_run:
            with system_scope("count what was made later"), connection.cursor() as cursor:
                cursor.execute(NOTE_UNSEEN, values)
                self.done.trashed = cursor.rowcount
            return
        while later := self._made_later(values):
            for tenant_id in {tenant_id for tenant_id, _ in later}:
                ids = [item_id for owner, item_id in later if owner == tenant_id]
                with tenant_scope(tenant_id):
                    recovery.silence(aloud=True)
                    self.done.trashed += recovery.trash(tenant_id=tenant_id, content_ids=ids, now=self.now())
                _note("restore_changed", ids)
                self.touched.add(tenant_id)

    def _made_later(self, values: dict[str, Any]) -> list[tuple[UUID, UUID]]:
        with system_scope("find what was made later"), connection.cursor() as cursor:
            cursor.execute(UNSEEN, values)
            return list(cursor.fetchall())

    # After

    def _count_again(self) -> None:
        """Set the counters of tenants to the sums of what is there now."""
        for tenant_id in sorted(self.touched) if not self.wanted.dry_run else ():
            with tenant_scope(tenant_id):
                reconciliation.recount(tenant_id=tenant_id, now=self.now())

    def finish(self) -> None:
        """Do what others need not wait for: order the backup anew, fill ZeroDB, index for searches."""
        if self.touched:
            epochs.begin_anew(archive=self.archive)
        if self.is_new and self.touched:
            self.done.enter_again = NOT_KEPT
        if self.store is not None:
            with self.done.timed("records"):
                self._recover_records(self.store)
        if self.to_postgres:
            with self.done.timed("media"):
                self._bring_back_media()
        if self.touched:
            with system_scope("have what came back indexed"):
                recovery.forget_indexed(tenant_ids=self.touched)
        if self.is_new and self.to_postgres and not self.done.failed:
            epochs.is_restored()
        if self.wanted.refill:
            with self.done.timed("refill"):
                self._upload_all()
            with self.done.timed("index"):
                self.done.indexed = indexing.index_changed_brands(now=self.now(), tenant_id=self.wanted.tenant_id)

    def _recover_records(self, store: DocumentStore) -> None:
        tenants = [self.wanted.tenant_id] if self.wanted.tenant_id else account_queries.tenant_ids()
        for tenant_id in tenants:
            self.done.records += recovery.recover_records(store=store, tenant_id=tenant_id)

    def _waits_in_spool(self) -> bool:
        """Tell whether documents of what was restored wait for ZeroDB: those of others are the uploader's."""
        with system_scope("look whether documents wait"):
            waiting = SpooledDocument.objects.filter(uploaded_at=None)
            return (waiting.filter(tenant_id=self.wanted.tenant_id) if self.wanted.tenant_id else waiting).exists()

    def _bring_back_media(self) -> None:
        """Copy back the bytes of media files that the first storage lacks."""
        if not media_files.has_second():
            return
        try:
            brought = media_recovery.bring_back(
                tenant_id=self.wanted.tenant_id, now=self.now(), progress=lambda count: None
            )
        except media_files.StorageAway as error:
            self.done.fail(self.wanted.tenant_id or "all", "media_not_restored", str(error))
            return
        self.done.media_files = brought.files
        for problem in brought.errors:
            self.done.fail(problem["id"], "media_not_restored", problem["message"])

    def _upload_all(self) -> None:
        """Send what was spooled; what fails stays there for the uploader."""
        store = documents.document_store()
        if store is None:
            return
        while self._waits_in_spool() and (done := uploader.run_pass(store=store, now=self.now)).got_on:
            self.done.uploaded += done.uploaded
        while record_carrier.run_pass(store=store, now=self.now).got_on:
            pass


def _note(table: str, ids: Iterable[UUID]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(NOTE.format(table=table), [list(ids)])


def _ignored(_one: CurrentRecord, _problem: str) -> None:
    """Say nothing: it was said when the record was first met."""
