"""Old rows to content, a batch at a time, by the same operations as the API; what one row lacks never stops the others.

Rows are read a page at a time and written in batches of one tenant, each in one transaction; should that fail, row by row. How far
it got is kept after every page, and before it which items it is about to make: so a run that was killed goes on, and counts what it
had made as made.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import DataError, IntegrityError, connection, transaction

from content import documents, operations
from content.legacy import attachments, convert, ids
from content.legacy.attachments import Attachment
from content.legacy.convert import OldItem, Unusable
from content.legacy.owners import Owner, Owners
from content.legacy.source import ASSETS, ITEMS, Counts, Row, Selection, Source
from content.legacy.tally import Tally
from content.models import ContentItem, ContentVersion, LegacyProblem, LegacyRun
from content.operations import Origin
from content.stores.base import DocumentKey
from engarde.common.problems import Problem, explain
from engarde.common.scopes import system_scope, tenant_scope
from quotas import charging
from quotas import queries as quota_queries
from quotas.usage import Count

BATCHES_A_PAGE = 4  # a page has rows of several tenants, and a batch is of one
LOCK = 0x6C65676163  # "legac": of migrations, in PostgreSQL's numbers for advisory locks
MAX_NAMELESS = 1000
# Webhooks are about what happens here, not about what happened on another platform years ago.
UNANNOUNCED = "SELECT set_config('engarde.importing', 'on', true)"
MOST_DRY_PROBLEMS = 20_000  # a dry run keeps them in memory
MESSAGE_CHARACTERS = 500
QUOTA = charging.StorageQuotaExceeded.code
Clock = Callable[[], datetime]


class AlreadyRunning(Problem):
    """Another migration is at work."""

    status, code, title = 409, "migration_running", "Migration running"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a migration is to do.

    Attributes:
        batch_size: rows of a tenant that are written together, 1 to 1,000.
        limit: rows to look at; None for all.
        resume: go on behind the last completed batch of the last run of the same selection; of one that was finished, that is
            behind its last row.
        mend: bring rows over that the API would refuse, where nothing is lost by it.
        fetch: whether to fetch files; else all of them are recorded as external references.
    """

    selection: Selection
    batch_size: int = 100
    limit: int | None = None
    resume: bool = False
    dry_run: bool = False
    mend: bool = False
    fetch: bool = True


@dataclass(slots=True)
class Ready:
    """A row that is fit to be written.

    Attributes:
        attachment: its file, once that was looked at.
    """

    item: OldItem
    owner: Owner
    author_id: UUID | None = None
    attachment: Attachment | None = None


@dataclass(slots=True)
class Done:
    """A migration's outcome.

    Attributes:
        run: that was kept; not in the database after a dry run.
        dry_problems: of a dry run, which keeps none.
        finished: whether all rows were looked at.
    """

    run: LegacyRun
    tally: Tally
    counts: Counts
    resumed: bool = False
    finished: bool = False
    dry_problems: list[LegacyProblem] = field(default_factory=list)


def run(
    *, source: Source, wanted: Wanted, now: Clock, begin: Callable[[int], object], progress: Callable[[int], object]
) -> Done:
    """Migrate a selection of old rows.

    Args:
        begin: called with the number of rows that are left.
        progress: called with the number of rows looked at since the last call.

    Raises:
        NoLegacyData: there are no such tables, or they cannot be read.
        AlreadyRunning: another migration is at work.
    """
    counts = source.count(wanted.selection)
    with _alone():
        work = _Migration(source, wanted, counts, now)
        left = counts.rows - counts.nameless - work.looked_at
        begin(max(0, left if wanted.limit is None else min(left, wanted.limit)))
        for looked_at in work.batches():
            progress(looked_at)
    return work.done


@contextmanager
def _alone() -> Iterator[None]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [LOCK])
        if not cursor.fetchone()[0]:
            raise AlreadyRunning("Another migration is at work; wait until it is done.")
        try:
            yield
        finally:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [LOCK])


class _Migration:
    """One run on its way."""

    def __init__(self, source: Source, wanted: Wanted, counts: Counts, now: Clock) -> None:
        self._source, self._wanted, self._now = source, wanted, now
        self._owners = Owners(source, mend=wanted.mend)
        self._files = attachments.Files(fetch=wanted.fetch and not wanted.dry_run, mend=wanted.mend)
        self._left: dict[UUID, int | None] = {}  # bytes that fit into a tenant's storage, for dry runs
        self._problems: list[LegacyProblem] = []
        name = source.name_of(wanted.selection.table)
        row = _newest(wanted.selection, name) if wanted.resume and not wanted.dry_run else None
        self._in_hand = frozenset(row.in_hand) if row else frozenset()
        self._run = row or LegacyRun(table=wanted.selection.table, tenant=wanted.selection.tenant_id, source=name)
        self._tally = Tally.of(self._run.counts)
        self.done = Done(self._run, self._tally, counts, resumed=row is not None, dry_problems=[])
        self.looked_at = self._tally.total - min(self._tally.total, counts.nameless) if row else 0
        if row is None:
            self._refuse_nameless(counts.nameless)
            self._keep()

    def batches(self) -> Iterator[int]:
        """Migrate page after page, and yield the number of rows of each."""
        looked_at = 0
        while self._wanted.limit is None or looked_at < self._wanted.limit:
            most = self._wanted.batch_size * BATCHES_A_PAGE
            if self._wanted.limit is not None:
                most = min(most, self._wanted.limit - looked_at)
            rows = self._source.page(self._wanted.selection, after=self._run.last_id, limit=most)
            if not rows:
                self.done.finished, self._run.finished_at = True, self._now()
                self._keep()
                return
            self._batch(rows)
            self._run.last_id = rows[-1]["id"]
            self._keep()
            looked_at += len(rows)
            yield len(rows)

    def _batch(self, rows: Sequence[Row]) -> None:
        names, table = [str(row["id"]) for row in rows], self._wanted.selection
        shared = self._source.also_in(ITEMS, names) if table.table == ASSETS else set()
        doubled = self._source.doubled(table, names) if self.done.counts.has_doubles else {}
        ready: dict[UUID, list[Ready]] = {}
        for row in rows:
            if str(row["id"]) in doubled:
                continue
            self._tally.total += 1
            try:
                one = self._ready(row, keep_id=ids.same(str(row["id"])) not in shared)
            except Unusable as problem:
                self._fail(str(row["id"]), problem.code, str(problem), self._owners.known(row["tenant_id"]), row)
            else:
                ready.setdefault(one.owner.id, []).append(one)
        self._refuse_doubled({name: doubled[name] for name in dict.fromkeys(names) if name in doubled})
        self._settle([one for mine in ready.values() for one in mine])

    def _ready(self, row: Row, *, keep_id: bool) -> Ready:
        """Judge a row; nothing is written for it."""
        item = convert.convert(
            self._wanted.selection.table, row, keep_id=keep_id, mend=self._wanted.mend, now=self._now()
        )
        self._files.judge(item)
        owner = self._owners.of(item)
        item.fields["brand_id"] = str(self._owners.brand_of(owner, item))
        return Ready(item, owner)

    def _refuse_doubled(self, doubled: Mapping[str, int]) -> None:
        """Refuse all rows of ids that more than one has, at their first sight: pages go by the id, and know no second row."""
        for name, rows in doubled.items():
            self._tally.total += rows
            for _ in range(rows):
                self._fail(
                    name, "doubled_id", "More than one row has this id; UUIDs are one in upper and lower case.", None
                )

    # Rows that are fit

    def _settle(self, ready: Sequence[Ready]) -> None:
        """Write what is not here, a tenant at a time, and count what is."""
        owned = _owners_of([one.item.id for one in ready])
        new: dict[UUID, list[Ready]] = {}
        for one in ready:
            if one.item.id not in owned:
                new.setdefault(one.owner.id, []).append(one)
            elif owned[one.item.id] != one.owner.id:
                self._fail(one.item.old_id, "content_exists", "An item of another tenant has its id here.", one.owner)
        if self._wanted.dry_run:
            for mine in new.values():
                self._foresee(mine[0].owner, mine)
        elif new:
            self._write(new)
        self._recognise([one for one in ready if owned.get(one.item.id) == one.owner.id])

    def _recognise(self, known: Sequence[Ready]) -> None:
        """Count rows whose items are here; an item of that id that did not come from that row is another's."""
        first = _first_fields(known)
        for one in known:
            fields = first.get(one.item.id)
            if fields is not None and not _came_from(fields, one.item):
                message = "An item that is not this row's has its id here."
                self._fail(one.item.old_id, "id_taken_here", message, one.owner)
                continue
            if one.item.id in self._in_hand:  # made by the batch that was broken off
                one.attachment = self._files.kept(one.item, tenant_id=one.owner.id)
                self._owners.author_of(one.owner, one.item, bring=False)
                self._count_created(one)
            else:
                self._tally.unchanged += 1
                self._tally.tenant(one.owner.id, one.owner.name).unchanged += 1
            if fields is not None:
                self._compare(one, fields, is_new=False)

    def _foresee(self, owner: Owner, new: Sequence[Ready]) -> None:
        """Say what would be created, as far as it fits into the tenant's storage."""
        for one in new:
            size = len(one.item.text.encode())
            left = self._left.setdefault(owner.id, _room(owner))
            if left is not None and size > left:
                self._fail(one.item.old_id, QUOTA, f"It has {size} bytes, and {left} are left.", owner)
                continue
            self._left[owner.id] = None if left is None else left - size
            one.attachment = self._files.foreseen(one.item)
            self._owners.author_of(owner, one.item, bring=False)
            self._count_created(one)

    def _write(self, new: Mapping[UUID, Sequence[Ready]]) -> None:
        """Write new items in batches of one tenant each, and read them back."""
        self._hold([one for mine in new.values() for one in mine])
        made: list[Ready] = []
        for mine in new.values():
            self._owners.bring(mine[0].owner)
            for start in range(0, len(mine), self._wanted.batch_size):
                made += self._write_batch(mine[0].owner, mine[start : start + self._wanted.batch_size])
        first = _first_fields(made)
        for one in made:
            self._count_created(one)
            if one.item.id in first:
                self._compare(one, first[one.item.id], is_new=True)

    def _write_batch(self, owner: Owner, batch: Sequence[Ready]) -> Sequence[Ready]:
        """Write items together, or if that fails each by itself, to know which one is at fault; return what was written."""
        staged = [one for one in batch if self._stage(one)]
        try:
            return self._create(owner, staged)
        except (Problem, IntegrityError, DataError) as problem:
            _raise_if_passing(problem)
        return [one for one in staged if self._created_alone(owner, one)]

    def _stage(self, one: Ready) -> bool:
        """Find a row's author, fetch and store its file, if it has one, and tell whether the row can be written."""
        try:
            one.author_id = self._owners.author_of(one.owner, one.item, bring=True)
            one.attachment = self._files.attach(
                one.item, tenant_id=one.owner.id, author_id=one.author_id, now=self._now()
            )
        except (Problem, Unusable, IntegrityError, DataError) as problem:
            _raise_if_passing(problem)
            self._fail_for(one, problem)
            return False
        return True

    def _created_alone(self, owner: Owner, one: Ready) -> bool:
        try:
            self._create(owner, [one])
        except (Problem, IntegrityError, DataError) as problem:
            _raise_if_passing(problem)
            self._files.detach(one.attachment, tenant_id=owner.id, now=self._now())
            self._fail_for(one, problem)
            return False
        return True

    def _create(self, owner: Owner, ready: Sequence[Ready]) -> Sequence[Ready]:
        if not ready:
            return ready
        now = self._now()
        contents = [{**one.item.fields, "media": one.attachment.ids if one.attachment else []} for one in ready]
        origins = [Origin(one.author_id, one.item.created_at, one.item.updated_at) for one in ready]
        with operations.named_conflicts(), tenant_scope(owner.id), connection.cursor() as cursor:
            cursor.execute(UNANNOUNCED)
            external = attachments.write(tenant_id=owner.id, items=[(one.item, one.attachment) for one in ready])
            made = operations.write_new(
                tenant_id=owner.id,
                author_id=None,
                contents=contents,
                now=now,
                ids=[one.item.id for one in ready],
                origins=origins,
            )
            charging.charge(
                tenant_id=owner.id, now=now, added=[operations.sized(item) for item in made], media=Count(external, 0)
            )
        return ready

    def _compare(self, one: Ready, fields: Mapping[str, Any], *, is_new: bool) -> None:
        """Compare a body that was read back with the old one; the document's own checksum was checked on the way."""
        self._tally.compared += 1
        if fields["body"] == one.item.text:
            self._tally.equal += 1
        elif is_new:
            self._warn(one.item.old_id, "differs", "What can be read here is not what the old table has.", one.owner.id)
        else:
            self._warn(
                one.item.old_id, "source_changed", "The old text has changed since it was brought over.", one.owner.id
            )

    # Counting

    def _count_created(self, one: Ready) -> None:
        size, attached = len(one.item.text.encode()), one.attachment
        mine = self._tally.tenant(one.owner.id, one.owner.name)
        for part in (self._tally, mine):
            part.created += 1
            part.bytes += size
            part.media += bool(attached)
        self._tally.fetched += bool(attached and attached.is_stored)
        for code, message in [*one.item.warnings, *one.owner.warnings]:
            self._warn(one.item.old_id, code, message, one.owner.id)
        one.owner.warnings.clear()

    def _fail_for(self, one: Ready, problem: Exception) -> None:
        if isinstance(problem, Problem):
            self._fail(one.item.old_id, problem.code, explain(problem), one.owner)
        elif isinstance(problem, Unusable):
            self._fail(one.item.old_id, problem.code, str(problem), one.owner)
        else:
            self._fail(one.item.old_id, "refused", f"The database refuses it: {problem}", one.owner)

    def _fail(self, old_id: str, code: str, message: str, owner: Owner | None, row: Row | None = None) -> None:
        self._tally.failed += 1
        self._tally.reasons[code] += 1
        if owner is not None:
            mine = self._tally.tenant(owner.id, owner.name)
            mine.failed += 1
            mine.quota_exceeded += code == QUOTA
        old_tenant = ((row or {}).get("tenant_id") or "").strip()
        of_tenant = owner.id if owner else ids.new_id("tenants", old_tenant) if old_tenant else None
        self._note(LegacyProblem.Kind.ERROR, old_id, code, message, of_tenant)

    def _warn(self, old_id: str, code: str, message: str, of_tenant: UUID) -> None:
        self._tally.notices[code] += 1
        self._note(LegacyProblem.Kind.WARNING, old_id, code, message, of_tenant)

    def _note(self, kind: str, old_id: str, code: str, message: str, of_tenant: UUID | None = None) -> None:
        text = message[:MESSAGE_CHARACTERS].encode("utf-8", "replace").decode().replace("\0", "")
        clean = old_id[: convert.LONGEST_ID].encode("utf-8", "replace").decode()
        if self._wanted.dry_run and len(self.done.dry_problems) + len(self._problems) >= MOST_DRY_PROBLEMS:
            return
        self._problems.append(
            LegacyProblem(run=self._run, kind=kind, of_tenant=of_tenant, old_id=clean, code=code, message=text)
        )

    def _refuse_nameless(self, number: int) -> None:
        self._tally.total += number
        self._tally.failed += number
        if number:
            self._tally.reasons["no_id"] += number
        for _ in range(min(number, MAX_NAMELESS)):
            self._note(LegacyProblem.Kind.ERROR, "", "no_id", "A row without an id.")

    # Keeping

    def _hold(self, new: Sequence[Ready]) -> None:
        """Note which items and tenants are about to be made."""
        self._in_hand = self._in_hand.union(one.item.id for one in new)
        self._run.in_hand = list(self._in_hand)
        coming = {one.owner.id for one in new if not one.owner.is_here}
        self._run.brought = [*self._run.brought, *coming.difference(self._run.brought)]
        self._run.save(update_fields=["in_hand", "brought"])

    def _keep(self) -> None:
        """Keep how far it got."""
        problems, self._problems = self._problems, []
        if self._wanted.dry_run:
            self.done.dry_problems += problems
            return
        self._in_hand = frozenset()
        self._run.in_hand, self._run.counts = [], self._tally.as_dict()
        with transaction.atomic():
            self._run.save()
            LegacyProblem.objects.bulk_create(problems)


def _newest(selection: Selection, name: str) -> LegacyRun | None:
    runs = LegacyRun.objects.filter(table=selection.table, tenant=selection.tenant_id, source=name)
    return runs.order_by("-started_at").first()


def _owners_of(content_ids: Sequence[UUID]) -> dict[UUID, UUID]:
    """Return whose the items of some ids are that are here."""
    with system_scope("look which old items are here"):
        return dict(ContentItem.objects.filter(id__any=content_ids).values_list("id", "tenant_id"))


def _first_fields(ready: Sequence[Ready]) -> dict[UUID, Mapping[str, Any]]:
    """Return what items' first versions say, as far as these are still there: from the spool, else tenant by tenant."""
    if not ready:
        return {}
    with system_scope("read back what came over"):
        rows = ContentVersion.objects.filter(content_id__any=[one.item.id for one in ready], version=1)
        keys = {documents.key_of(one, sha256): one for one, sha256 in rows.values_list("content_id", "sha256")}
        found = documents.spooled(keys=keys)
    missing: dict[UUID, list[DocumentKey]] = {}
    owners = {one.item.id: one.owner.id for one in ready}
    for key in keys.keys() - found.keys():
        missing.setdefault(owners[keys[key]], []).append(key)
    for tenant_id, mine in missing.items():
        found |= documents.fetch(tenant_id=tenant_id, keys=mine)
    return {keys[key]: document.fields for key, document in found.items()}


def _came_from(fields: Mapping[str, Any], item: OldItem) -> bool:
    known = fields.get("metadata", {})
    return (known.get("imported_from"), known.get("legacy_id")) == (item.table, item.old_id)


def _raise_if_passing(problem: Exception) -> None:
    """End the run for what is no row's fault and may be gone soon: --resume tries the batch again."""
    if isinstance(problem, Problem) and problem.status >= attachments.PASSING:
        raise problem


def _room(owner: Owner) -> int | None:
    """Return how many bytes fit into a tenant's storage, None for any number."""
    if not owner.is_here:
        return quota_queries.plan_limits()[owner.tier]
    with tenant_scope(owner.id):
        return quota_queries.usage_in_scope(tenant_id=owner.id).remaining_bytes
