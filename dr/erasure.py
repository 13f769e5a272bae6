"""Erasing a tenant, or one item, from every tier and the backup, and the certificate of it.

An erasure is a row that says what is done, so one that was killed, or met a tier that is away, goes on when it is asked for again.
Every step may run twice. While a tenant is erased its door is closed as for a restore, and each room removes its own rows: the
setting ERASERS names their modules, so that this room knows none that is not below it.

Two carriers may have something of it in hand: a document on its way to ZeroDB, a sealed batch on its way to the archive. Both are
emptied at once, then the carriers' leases are waited for, then both are emptied once more.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from importlib import import_module
from typing import Any
from uuid import UUID

import django
import structlog
from django.conf import settings
from django.db import connection
from django.db.models import Q

from content import documents, spool
from content import erasure as content_erasure
from content.erasure import ItemParts, Subject
from content.media.storages import MediaUnavailable
from content.stores.base import StoreRejected, StoreUnavailable
from dr import archives, media_copies, states, sync
from dr.archives.base import Archive, ArchiveRefused, ArchiveUnavailable
from dr.media_files import StorageAway
from dr.models import Drill, Erasure, Finding, Restore, Verification
from engarde.accounts import erasure as account_erasure
from engarde.accounts import queries as account_queries
from engarde.common import erasing, json
from engarde.common.scopes import system_scope, tenant_scope

log = structlog.get_logger(__name__)

Clock = Callable[[], datetime]
Progress = Callable[[int], object]

PLATFORM = UUID(int=0)
BESIDE_ROWS = {"files": "media", "cached_documents": "redis"}
ROWS_A_BATCH = 1000
ROUNDS = 3
DOOR_WITHIN_SECONDS = 10.0
DRAIN_WITHIN = timedelta(minutes=5)
LOOK_EVERY_SECONDS = 0.5
LONGEST_LOOK_SECONDS = 5.0
TIME_TRAVEL = timedelta(days=7)
FAIL_SAFE = timedelta(days=7)
KEPT_TABLE = Erasure._meta.db_table
AWAY = (StoreUnavailable, StoreRejected, ArchiveUnavailable, ArchiveRefused, MediaUnavailable, StorageAway)


class UnknownSubject(Exception):
    """There is no such tenant or item, in PostgreSQL or in the backup."""


class ErasureRefused(Exception):
    """A restore, or the same erasure, is running."""


class ErasureUnfinished(Exception):
    """A tier is away or did not let everything go; asked for again, the erasure goes on with what is left."""


# What would go


def foresee_tenant(*, tenant_id: UUID) -> dict[str, Any]:
    """Return how many rows an erasure would remove, by table, how many people with them, and how many bytes of content.

    Raises:
        UnknownSubject: there is no such tenant.
    """
    if account_queries.find_tenant(tenant_id=tenant_id) is None:
        raise UnknownSubject(f"There is no tenant {tenant_id}.")
    people = account_erasure.people_to_erase(tenant_id=tenant_id)
    return {
        "rows": _rows_of(tenant_id),
        "people": len(people),
        **content_erasure.size_of(tenant_id=tenant_id),
    }


def foresee_content(*, tenant_id: UUID, content_id: UUID) -> dict[str, Any]:
    """Return how many rows and media files an item's erasure would remove.

    Raises:
        UnknownSubject: there is no such item.
    """
    parts = content_erasure.parts_of(tenant_id=tenant_id, content_id=content_id)
    rows = content_erasure.count_rows_of(tenant_id=tenant_id, content_id=content_id)
    if not rows and not _is_archived(tenant_id, content_id):
        raise UnknownSubject(f"Tenant {tenant_id} has no item {content_id}.")
    return {"rows": rows, "files": len(parts.files)}


def _is_archived(tenant_id: UUID, content_id: UUID) -> bool:
    archive = archives.current()
    return archive is not None and bool(archive.history(tenant_id=tenant_id, entity_id=content_id))


def _rows_of(tenant_id: UUID) -> dict[str, int]:
    """Return a tenant's rows by table, but for those that tell of erasures, which stay."""
    rows = erasing.count_rows(tenant_id=tenant_id)
    return {table: count for table, count in rows.items() if table != KEPT_TABLE}


def last_of(*, tenant_id: UUID, content_id: UUID | None = None) -> Erasure | None:
    """Return the newest erasure of a tenant or item, finished or not."""
    with tenant_scope(tenant_id):
        rows = Erasure.objects.filter(tenant_id=tenant_id, content_id=content_id)
        return rows.order_by("-requested_at").first()


# Carrying it out


def erase_tenant(
    *,
    tenant_id: UUID,
    now: Clock,
    reason: str = "",
    requested_by: UUID | None = None,
    progress: Progress = lambda _rows: None,
) -> dict[str, Any]:
    """Remove a tenant, its people who are nobody else's, its content and its files from every tier, and return the certificate.

    Args:
        progress: called with the number of rows removed since the last call.

    Raises:
        UnknownSubject: there is no such tenant, nor an erasure of it that goes on.
        ErasureRefused: a restore, or another run of this erasure, is under way.
        ErasureUnfinished: ask again.
    """
    with _alone(tenant_id, None):
        run = _begin(tenant_id, None, reason, requested_by, now, progress)
        tiers: dict[str, Callable[[_Run], None]] = {
            "postgres": _erase_rows,
            "media_copies": _erase_copies,
            "zerodb": lambda run: _erase_documents(run, None),
            "bigquery": lambda run: _erase_archive(run, _subjects(run)),
            "reports": _erase_reports,
        }
        return _complete(run, tiers, lambda: _rows_of(tenant_id))


def erase_content(
    *,
    tenant_id: UUID,
    content_id: UUID,
    now: Clock,
    reason: str = "",
    requested_by: UUID | None = None,
    progress: Progress = lambda _rows: None,
) -> dict[str, Any]:
    """Remove an item, all its versions and the media files that are its own from every tier, and return the certificate.

    The tenant goes on working meanwhile. A job that generated the item keeps the item's id.

    Raises:
        UnknownSubject: the tenant has no such item in PostgreSQL or the backup.
        ArchiveUnavailable, ArchiveRefused: PostgreSQL has no such item, and the backup does not say whether it has.
        ErasureRefused: a restore, or another run of this erasure, is under way.
        ErasureUnfinished: ask again.
    """
    with _alone(tenant_id, content_id):
        run = _begin(tenant_id, content_id, reason, requested_by, now, progress)
        parts = run.parts()
        tiers: dict[str, Callable[[_Run], None]] = {
            "postgres": lambda run: _erase_item(run, parts),
            "media_copies": lambda run: run.note(
                "media_copies", {"files": media_copies.erase_blobs(tenant_id=tenant_id, blob_ids=_gone(run, parts))}
            ),
            "zerodb": lambda run: _erase_documents(run, [content_id, *parts.media]),
            "bigquery": lambda run: _erase_archive(run, [Subject(tenant_id, tuple(_gone(run, parts)))]),
            "reports": _erase_reports,
        }
        return _complete(run, tiers, lambda: content_erasure.count_rows_of(tenant_id=tenant_id, content_id=content_id))


@contextmanager
def _alone(tenant_id: UUID, content_id: UUID | None) -> Iterator[None]:
    """Keep restores out, and other runs of the same erasure; while a tenant goes, writers too.

    The locks belong to a session of their own, so they end with this process, however it ends.
    """
    session = connection.copy()
    try:
        _lock(session, "engarde restore", shared=True)
        _lock(session, f"engarde restore {tenant_id}", shared=content_id is not None)
        _lock(session, f"engarde erasure {tenant_id} {content_id or ''}", shared=False)
        yield
    finally:
        session.close()


def _lock(session: Any, name: str, *, shared: bool) -> None:
    """Wait for writes that are under way, which are over soon; a restore is not."""
    function = "pg_try_advisory_lock_shared" if shared else "pg_try_advisory_lock"
    until = time.monotonic() + DOOR_WITHIN_SECONDS
    with session.cursor() as cursor:
        while True:
            cursor.execute(f"SELECT {function}(hashtextextended(%s, 0))", [name])
            if cursor.fetchone()[0]:
                return
            if time.monotonic() > until:
                raise ErasureRefused("A restore, or the same erasure, is running: try again when it is over.")
            time.sleep(LOOK_EVERY_SECONDS)


class _Run:
    """An erasure under way; what it did is kept in its row at once."""

    def __init__(self, row: Erasure, now: Clock, progress: Progress) -> None:
        self.row, self.now, self._progress = row, now, progress
        self.steps: dict[str, Any] = row.steps
        self.tenant_id = row.tenant_id

    def save(self) -> None:
        """Keep what is done."""
        with tenant_scope(self.tenant_id):
            self.row.save(update_fields=["steps", "certificate", "finished_at"])

    def note(self, tier: str, removed: Mapping[str, int]) -> None:
        """Add to what was removed from a tier."""
        sums = self.steps.setdefault("removed", {}).setdefault(tier, {})
        for kind, count in removed.items():
            sums[kind] = sums.get(kind, 0) + count
        self.save()
        self._progress(sum(removed.values()))

    def is_done(self, tier: str) -> bool:
        """Tell whether nothing is left to do in a tier."""
        return tier in self.steps.setdefault("done", [])

    def finish(self, tier: str) -> None:
        """Note that nothing is left to do in a tier."""
        self.steps.setdefault("done", []).append(tier)
        self.save()

    def reopen(self) -> None:
        """Have all be done again."""
        self.steps["done"] = []
        self.save()

    def people(self) -> list[UUID]:
        """Return who belonged to the tenant alone when the erasure began."""
        return [UUID(one) for one in self.steps.get("people", [])]

    def parts(self) -> ItemParts:
        """Return what belonged to the item when the erasure began."""
        noted = self.steps["parts"]
        media, blobs = (tuple(UUID(one) for one in noted[name]) for name in ("media", "blobs"))
        return ItemParts(noted["exists"], media, blobs, tuple(noted["files"]))

    def certify(self) -> dict[str, Any]:
        """Close the erasure: the certificate stays, the names of what went do not."""
        finished_at = self.now()
        certificate = _certificate(self.row, finished_at)
        self.row.certificate, self.row.finished_at = certificate, finished_at
        self.row.steps = {"done": self.steps["done"], "removed": self.steps.get("removed", {})}
        self.save()
        log.info("erased", erasure_id=str(self.row.id), tenant_id=str(self.tenant_id))
        return certificate


def _begin(
    tenant_id: UUID, content_id: UUID | None, reason: str, requested_by: UUID | None, now: Clock, progress: Progress
) -> _Run:
    """Go on with an erasure that is unfinished, or begin one by noting what is there."""
    with tenant_scope(tenant_id):
        row = Erasure.objects.filter(tenant_id=tenant_id, content_id=content_id, finished_at=None).first()
    if row is None:
        row = Erasure(tenant_id=tenant_id, content_id=content_id, reason=reason, requested_by=requested_by)
        row.requested_at, row.steps = now(), _first_steps(tenant_id, content_id)
        with tenant_scope(tenant_id):
            row.save(force_insert=True)
    return _Run(row, now, progress)


def _first_steps(tenant_id: UUID, content_id: UUID | None) -> dict[str, Any]:
    if content_id is None:
        people = [str(one) for one in account_erasure.people_to_erase(tenant_id=tenant_id)]
        return {"found": foresee_tenant(tenant_id=tenant_id), "people": people}
    parts = asdict(content_erasure.parts_of(tenant_id=tenant_id, content_id=content_id))
    found = foresee_content(tenant_id=tenant_id, content_id=content_id)
    plain = {name: value if name == "exists" else [str(one) for one in value] for name, value in parts.items()}
    return {"found": found, "parts": plain}


def _complete(
    run: _Run, tiers: Mapping[str, Callable[[_Run], None]], rows_left: Callable[[], dict[str, int]]
) -> dict[str, Any]:
    """Empty all tiers, look whether anything came meanwhile, and certify."""
    for _ in range(ROUNDS):
        _carry_out(run, tiers)
        left = rows_left()
        if not left:
            return run.certify()
        run.reopen()
    raise ErasureUnfinished(f"Rows keep coming while they are removed: {left}. Run it again.")


def _carry_out(run: _Run, tiers: Mapping[str, Callable[[_Run], None]]) -> None:
    """Do what is left in each tier; one that is away does not keep the others from being emptied.

    Raises:
        ErasureUnfinished: naming the tiers that are away. Until the rows are gone no other tier is done for good.
    """
    problems = []
    for tier, work in tiers.items():
        if run.is_done(tier):
            continue
        try:
            work(run)
        except AWAY as error:
            problems.append(f"{tier}: {error}")
        else:
            if tier == "postgres" or run.is_done("postgres"):
                run.finish(tier)
    if problems:
        raise ErasureUnfinished(f"{' '.join(problems)} The rest is done; run it again and it goes on.")


# PostgreSQL and files


def _erase_rows(run: _Run) -> None:
    """Let nobody in any more, then have each room remove its rows, the highest first."""
    run.note("access", account_erasure.close_door(tenant_id=run.tenant_id, now=run.now()))
    for path in settings.ERASERS:
        erase = import_module(path).erase_tenant
        while removed := erase(tenant_id=run.tenant_id, limit=ROWS_A_BATCH):
            _note_rows(run, removed)


def _erase_item(run: _Run, parts: ItemParts) -> None:
    content_id = run.row.content_id
    if content_id is None:
        raise ValueError("it is the erasure of a tenant")
    _note_rows(run, content_erasure.erase_content(tenant_id=run.tenant_id, content_id=content_id))
    _note_rows(run, content_erasure.erase_files(tenant_id=run.tenant_id, parts=parts))


def _note_rows(run: _Run, removed: Mapping[str, int]) -> None:
    """Note what went: rows by table, and what else went with them by tier."""
    for kind, tier in BESIDE_ROWS.items():
        if kind in removed:
            run.note(tier, {kind: removed[kind]})
    run.note("postgres", {table: count for table, count in removed.items() if table not in BESIDE_ROWS})


def _gone(run: _Run, parts: ItemParts) -> list[UUID]:
    """Return what of an item is gone: it, and its media files that no other item took up meanwhile."""
    content_id = run.row.content_id
    if content_id is None:
        raise ValueError("it is the erasure of a tenant")
    return list(content_erasure.erased_entities(tenant_id=run.tenant_id, content_id=content_id, parts=parts))


def _erase_copies(run: _Run) -> None:
    run.note("media_copies", {"files": media_copies.erase_tenant(tenant_id=run.tenant_id)})


def _erase_reports(run: _Run) -> None:
    """Remove what restores, verifications and drills told of it; a drill stays in the history, without the tenant."""
    mine, content_id = Q(tenant_id=run.tenant_id), run.row.content_id
    with system_scope("erase reports of a tenant"):
        if content_id is not None:
            removed = {"findings": Finding.objects.filter(mine, entity_id=content_id).delete()[0]}
        else:
            removed = {
                "findings": Finding.objects.filter(mine).delete()[0],
                "verifications": Verification.objects.filter(mine).delete()[0],
                "restores": Restore.objects.filter(mine).delete()[0],
            }
            Drill.objects.filter(mine).update(tenant_id=None, report={})
    run.note("reports", {kind: count for kind, count in removed.items() if count})


# ZeroDB


def _erase_documents(run: _Run, entity_ids: Sequence[UUID] | None) -> None:
    """Empty ZeroDB; then, until no carrier can be about to put something there, wait and do it again."""
    store, began = documents.document_store(), run.now()
    while True:
        before = run.now()
        if store is None:
            removed: dict[str, int] = {}
        elif entity_ids is None:
            removed = content_erasure.empty_store(store=store, tenant_id=run.tenant_id)
        else:
            removed = content_erasure.remove_from_store(store=store, tenant_id=run.tenant_id, entity_ids=entity_ids)
        run.note("zerodb", removed)
        # No lease that was given before the rows went ends later than this.
        is_over = store is None or before > began + spool.LEASE
        longest = timedelta() if is_over else began + spool.LEASE - before
        until = content_erasure.settle_removals(
            tenant_id=run.tenant_id, entity_ids=entity_ids, before=before, longest=longest
        )
        if until is None:
            return
        time.sleep(min(LONGEST_LOOK_SECONDS, max(LOOK_EVERY_SECONDS, (until - run.now()).total_seconds())))


# The archive


def _subjects(run: _Run) -> list[Subject]:
    """Return what of the backup is the tenant's: its own records, and those of its people, who are the platform's."""
    there = account_erasure.still_there(user_ids=run.people())
    people = tuple(one for one in run.people() if one not in there)
    return [Subject(run.tenant_id), *([Subject(PLATFORM, people)] if people else [])]


def _erase_archive(run: _Run, subjects: Sequence[Subject]) -> None:
    """Let go what the backup has not taken, remove what it has, wait for what is on its way, and remove that."""
    archive = archives.current()
    for subject in subjects:
        _drop_all(run, content_erasure.drop_unclaimed_lines, subject)
    if archive is not None:
        _remove(run, archive, subjects)
        _drain(run, subjects)
        _remove(run, archive, subjects)
    drop = content_erasure.drop_lines if archive is not None else content_erasure.forget_lines
    for subject in subjects:
        _drop_all(run, drop, subject)


def _drop_all(run: _Run, drop: Callable[..., int], subject: Subject) -> None:
    while count := drop(subject=subject, limit=ROWS_A_BATCH):
        run.note("postgres", {"content_changes": count})


def _remove(run: _Run, archive: Archive, subjects: Sequence[Subject]) -> None:
    rows = batches = 0
    for subject in subjects:
        for entity_id in (None,) if subject.entity_ids is None else subject.entity_ids:
            removed = archive.erase(tenant_id=subject.tenant_id, entity_id=entity_id)
            rows, batches = rows + removed.rows, batches + removed.batches
    passes = run.steps.setdefault("archive", [])
    passes.append({"at": _text(run.now()), "rows": rows, "batches": batches})
    run.note("bigquery", {"rows": rows})


def _drain(run: _Run, subjects: Sequence[Subject]) -> None:
    """Have sealed batches shipped that hold anything of it; documents are no longer in them.

    Raises:
        ArchiveUnavailable: the backup does not take them now.
    """
    deadline = run.now() + DRAIN_WITHIN
    while under_way := [one for subject in subjects for one in content_erasure.batches_under_way(subject=subject)]:
        states.try_again(batch_ids=under_way, now=run.now())
        done = sync.run_pass(now=run.now, is_probe=True)
        if done.shipped:
            continue
        if done.status in {"paused", "disabled"}:
            raise ArchiveUnavailable(f"The backup is {done.status}: {done.reason}")
        if run.now() > deadline:
            raise ArchiveUnavailable(f"{len(under_way)} sealed batches did not reach the backup: {done.reason}")
        time.sleep(LOOK_EVERY_SECONDS)


# The certificate


def _certificate(row: Erasure, finished_at: datetime) -> dict[str, Any]:
    """Return what is certified. It names no person and quotes nothing; its hash is of its canonical text without the hash."""
    steps = row.steps
    passes = steps.get("archive", [])
    last_pass = datetime.fromisoformat(passes[-1]["at"]) if passes else None
    removed = steps.get("removed", {})
    body: dict[str, Any] = {
        "certificate": "erasure",
        "erasure_id": str(row.id),
        "subject": "tenant" if row.content_id is None else "content",
        "tenant_id": str(row.tenant_id),
        "content_id": str(row.content_id) if row.content_id else None,
        "requested_at": _text(row.requested_at),
        "finished_at": _text(finished_at),
        "found": steps["found"],
        "removed": removed,
        "left": {},  # else it would not be finished
        "bigquery": _leaving(passes, last_pass),
        "stays": _what_stays(row, finished_at),
        "last_copy_leaves_on": _last_day(last_pass, finished_at).isoformat(),
        "platform": _platform(),
    }
    return {**body, "sha256": hashlib.sha256(json.canonical(body).encode()).hexdigest()}


def is_genuine(certificate: Mapping[str, Any]) -> bool:
    """Tell whether a certificate is word for word what was written."""
    body = {name: value for name, value in certificate.items() if name != "sha256"}
    return hashlib.sha256(json.canonical(body).encode()).hexdigest() == certificate.get("sha256")


def _leaving(passes: Sequence[Mapping[str, Any]], last: datetime | None) -> dict[str, Any]:
    if last is None:
        return {"passes": [], "leaves_time_travel_on": None, "leaves_fail_safe_on": None}
    return {
        "passes": list(passes),
        "leaves_time_travel_on": (last + TIME_TRAVEL).date().isoformat(),
        "leaves_fail_safe_on": _last_day(last, last).isoformat(),
    }


def _last_day(last_pass: datetime | None, finished_at: datetime) -> date:
    """Return the day (UTC) after which no tier of the platform's can give a copy back."""
    return (last_pass + TIME_TRAVEL + FAIL_SAFE if last_pass else finished_at + timedelta(days=1)).date()


def _what_stays(row: Erasure, finished_at: datetime) -> list[dict[str, str]]:
    cached = finished_at + timedelta(seconds=settings.CONTENT_CACHE_SECONDS)
    stays = [
        _stay("this certificate", "proof of the erasure; it holds ids, counts and times", "kept"),
        _stay(
            "BigQuery's time travel and fail-safe", "the service keeps deleted rows; nobody reads them", "see bigquery"
        ),
        _stay("cached documents in Redis and in the memory of processes", "no credentials lead to them", _text(cached)),
        _stay("throttle counters and markers of jobs in Redis", "they hold ids; each has a time to live", "one day"),
        _stay("logs", "they hold ids and are redacted", "by the operator's retention of logs"),
        _stay("dumps and snapshots of the database", "the platform cannot reach them", "by the operator's retention"),
    ]
    if row.content_id is None:
        stays.append(_stay("people who are members of other tenants, and staff", "they are not this tenant's", "kept"))
        stays.append(_stay("generation figures of the platform", "sums that name nobody", "kept"))
    else:
        stays.append(_stay("the item's id in the job that made it", "the job's counts need it", "until the job goes"))
        stays.append(_stay("answers kept for repeated requests", "idempotency", _text(finished_at + timedelta(days=1))))
    if archives.current() is None:
        stays.append(_stay("what an earlier backup holds", "the backup is switched off and was not asked", "unknown"))
    return stays


def _stay(what: str, why: str, until: str) -> dict[str, str]:
    return {"what": what, "why": why, "until": until}


def _platform() -> dict[str, str]:
    with connection.cursor() as cursor:
        cursor.execute("SHOW server_version")
        postgresql = cursor.fetchone()[0]
    version = settings.SPECTACULAR_SETTINGS["VERSION"]
    return {"engarde": version, "django": django.get_version(), "postgresql": postgresql}


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
