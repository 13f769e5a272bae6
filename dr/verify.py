"""The proof that all tiers agree, byte for byte: PostgreSQL, the spool, ZeroDB, the archive and the two storages of media.

Both sides sum hashes of what they have by tenant, type and day; only where the sums differ are rows read. Documents in ZeroDB are
all read in a deep verification and of tenants with few, else a sample. Memory does not grow with what is compared. What is on
its way from one tier to the next is no fault.
"""

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.conf import settings

from content import documents
from content.stores.base import StoreRejected, StoreUnavailable
from dr import erasing, repair
from dr.archives.base import CONTENT, Archive, ArchiveRefused, ArchiveUnavailable, BatchSum, GroupSum
from dr.door import DoorBusy
from dr.media_files import StorageAway
from dr.verification import archived, findings, media, postgres
from dr.verification.archived import Comparison
from dr.verification.faults import BATCH, BIGQUERY, EXTRA, MISMATCHED, MISSING, PLATFORM, Fault, Tally
from dr.verification.stored import Stored
from engarde.accounts import queries as account_queries

MAX_SHOWN = 1000
FIRST_DAY = datetime(2000, 1, 1, tzinfo=UTC)
AWAY = (ArchiveUnavailable, ArchiveRefused, StoreUnavailable, StoreRejected, StorageAway, DoorBusy)
"""What a tier that does not answer raises, and a restore that is in the way of a repair."""

Clock = Callable[[], datetime]
Progress = Callable[[int], object]


@dataclass(slots=True)
class Verified:
    """What a verification found, in items (of content; rows of other types count likewise among the faults).

    Attributes:
        checked: items of PostgreSQL that were compared.
        versions, rows: of content, and of other types.
        mismatched: of which a copy differs.
        missing: of which a copy is not there.
        extra: of which there is a copy and nothing else, though nothing removed them.
        waiting: versions and rows of which a change is on its way to the backup: no faults.
        repaired: faults that were found and mended.
        found: how many faults are left; `findings` are the first thousand.
    """

    verification_id: UUID
    checked: int = 0
    versions: int = 0
    rows: int = 0
    mismatched: int = 0
    missing: int = 0
    extra: int = 0
    waiting: int = 0
    repaired: int = 0
    found: int = 0
    findings: list[dict[str, object]] = field(default_factory=list)

    def take(self, tally: Tally, *, repaired: int = 0) -> None:
        """Add what was found of a tenant."""
        for name in ("checked", "versions", "rows", "waiting"):
            setattr(self, name, getattr(self, name) + getattr(tally, name))
        for kind in (MISMATCHED, MISSING, EXTRA):
            setattr(self, kind, getattr(self, kind) + tally.count(kind))
        self.repaired += repaired
        self.found += len(tally.faults)
        self.findings += [fault.as_json() for fault in tally.faults[: MAX_SHOWN - len(self.findings)]]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a verification of all tenants goes on: at a tenant, and in it behind a document's key.

    Attributes:
        tenant_id: whose turn it is; None once all tenants are done and what is left is what has no tenant.
    """

    verification_id: UUID
    tenant_id: UUID | None
    after: str = ""

    def as_json(self) -> dict[str, str]:
        """Return it for a message."""
        return {
            "verification_id": str(self.verification_id),
            "tenant_id": str(self.tenant_id or ""),
            "after": self.after,
        }

    @classmethod
    def of(cls, *, verification_id: str, tenant_id: str, after: str) -> "Place":
        """Return the place that a message names."""
        return cls(UUID(verification_id), UUID(tenant_id) if tenant_id else None, after)


@dataclass(frozen=True, slots=True)
class Plan:
    """How one tenant is compared."""

    deep: bool
    after: str = ""
    go_on: Callable[[], bool] = lambda: True
    progress: Progress = lambda _documents: None


def run(
    *,
    archive: Archive,
    tenant_id: UUID | None,
    deep: bool = False,
    repair_too: bool = False,
    now: Clock,
    progress: Progress = lambda _documents: None,
) -> Verified:
    """Compare a tenant, or all and the platform's own rows, in all tiers; keep what is found.

    Args:
        tenant_id: None for all.
        deep: have every document hashed in every tier.
        repair_too: mend what can be mended, and report what is left.
        progress: called with the number of documents compared since the last call.

    Raises:
        ArchiveUnavailable, ArchiveRefused: the archive does not answer.
        StoreUnavailable, StoreRejected: ZeroDB does not answer.
        StorageAway: a storage of media does not answer.
        DoorBusy: a repair would restore something, and another restore is running.
    """
    started = now()
    verification_id = findings.begin(tenant_id=tenant_id, deep=deep, repair=repair_too, now=started)
    done, plan = Verified(verification_id), Plan(deep, progress=progress)
    try:
        for one in [tenant_id] if tenant_id else _everybody():
            _verify(archive, one, plan, done, now, repair_too=repair_too)
        if tenant_id is None:
            _verify_rest(archive, plan, done, now, repair_too=repair_too)
    except AWAY as error:
        findings.finish(verification_id=verification_id, now=now(), error=str(error))
        raise
    findings.finish(verification_id=verification_id, now=now())
    return done


def begin(*, deep: bool, now: datetime) -> Place:
    """Begin a verification of all that is done in parts, and return its first place."""
    verification_id = findings.begin(tenant_id=None, deep=deep, repair=False, now=now)
    return Place(verification_id, PLATFORM)


def run_part(*, archive: Archive, place: Place, deep: bool, now: Clock, go_on: Callable[[], bool]) -> Place | None:
    """Go on with a verification of all by one tenant, or by a part of a large one; return the next place, or None at the end.

    Args:
        go_on: asked between pages of a large tenant's documents.

    Raises:
        ArchiveUnavailable, ArchiveRefused, StoreUnavailable, StoreRejected, StorageAway: a tier does not answer; the same
            part can be tried again later, or `give_up` be called.
    """
    done = Verified(place.verification_id)
    if place.tenant_id is None:
        _verify_rest(archive, Plan(deep), done, now, repair_too=False)
        findings.finish(verification_id=place.verification_id, now=now())
        return None
    plan = Plan(deep, after=place.after, go_on=go_on)
    after = _verify(archive, place.tenant_id, plan, done, now, repair_too=False)
    return Place(place.verification_id, place.tenant_id, after) if after else _behind(place, _everybody())


def give_up(*, place: Place, now: datetime, error: str) -> None:
    """Note that a verification was not carried through, and why."""
    findings.finish(verification_id=place.verification_id, now=now, error=error)


def _behind(place: Place, everybody: Sequence[UUID]) -> Place:
    following = everybody[bisect_right(everybody, place.tenant_id or PLATFORM) :]
    return Place(place.verification_id, following[0] if following else None)


def _everybody() -> list[UUID]:
    return [PLATFORM, *sorted(account_queries.tenant_ids())]


def _verify(
    archive: Archive, tenant_id: UUID, plan: Plan, done: Verified, now: Clock, *, repair_too: bool
) -> str | None:
    """Compare one tenant and keep what is found; return the key where it stopped, or None at the end."""
    here = postgres.sums(tenant_id=tenant_id)
    tally = Tally()
    is_thorough = plan.deep or _versions(here) <= _sample_size()
    after = _compare(archive, tenant_id, here, tally, plan, now, is_thorough=is_thorough)
    left = tally
    if repair_too and tally.faults:
        documents_here = _versions(here)
        repair.mend(archive=archive, tenant_id=tenant_id, faults=tally.faults, documents_here=documents_here, now=now)
        left = Tally()
        again = Plan(plan.deep)
        _compare(archive, tenant_id, postgres.sums(tenant_id=tenant_id), left, again, now, is_thorough=is_thorough)
    covered = findings.covered(deep=plan.deep, is_thorough=is_thorough) if after is None else None
    _keep(done, tenant_id, tally, left, now(), covered=covered)
    return after


def _compare(
    archive: Archive,
    tenant_id: UUID,
    here: Sequence[GroupSum],
    tally: Tally,
    plan: Plan,
    now: Clock,
    *,
    is_thorough: bool,
) -> str | None:
    if not plan.after:
        _compare_rows(archive, tenant_id, here, tally, now(), deep=is_thorough)
    if tenant_id == PLATFORM:
        return None
    after = _compare_documents(tenant_id, here, tally, plan, is_thorough=is_thorough)
    if after is None:
        tally.add(media.compare(tenant_id=tenant_id, deep=plan.deep, now=now()))
    return after


def _compare_rows(
    archive: Archive, tenant_id: UUID, here: Sequence[GroupSum], tally: Tally, since: datetime, *, deep: bool
) -> None:
    tally.versions = _versions(here)
    tally.rows = sum(group.rows for group in here if group.entity_type != CONTENT)
    tally.checked = postgres.count_items(tenant_id=tenant_id) if tenant_id != PLATFORM else 0
    groups = archived.read_groups(archive=archive, tenant_id=tenant_id, deep=deep, here=here)
    Comparison(archive=archive, tenant_id=tenant_id, tally=tally, since=since).run(groups)


def _compare_documents(
    tenant_id: UUID, here: Sequence[GroupSum], tally: Tally, plan: Plan, *, is_thorough: bool
) -> str | None:
    stored = Stored(store=documents.document_store(), tenant_id=tenant_id, tally=tally)
    if is_thorough:
        return stored.compare_all(after=plan.after, go_on=plan.go_on, progress=plan.progress)
    stored.compare_sample(size=_sample_size(), progress=plan.progress)
    return None


def _keep(
    done: Verified, tenant_id: UUID, tally: Tally, left: Tally, now: datetime, *, covered: Collection[str] | None
) -> None:
    """Keep what was found of a tenant and what of it was mended; close what earlier verifications found and is no more.

    Args:
        covered: the tiers in which any fault would have been found; None while the tenant is not done.
    """
    remaining, known = {fault.name for fault in left.faults}, {fault.name for fault in tally.faults}
    mended = [fault for fault in tally.faults if fault.name not in remaining]
    faults = [*tally.faults, *(fault for fault in left.faults if fault.name not in known)]
    kept = findings.keep(verification_id=done.verification_id, faults=faults, now=now)
    if covered is not None and kept == len(faults) and not tally.is_cut:
        findings.settle(
            verification_id=done.verification_id, tenant_id=tenant_id, mended=mended, covered=covered, now=now
        )
    findings.add(verification_id=done.verification_id, tally=left, repaired=len(mended))
    done.take(left, repaired=len(mended))


def _verify_rest(archive: Archive, plan: Plan, done: Verified, now: Clock, *, repair_too: bool) -> None:
    """Look into what has no tenant here: the archive's other tenants, and in a deep verification its batches."""
    for tenant_id in list(_strangers(archive)):
        _verify(archive, tenant_id, plan, done, now, repair_too=repair_too)
    if plan.deep:
        _verify_batches(archive, done, now(), repair_too=repair_too)


def _strangers(archive: Archive) -> Iterator[UUID]:
    """Yield the tenants that only the archive has."""
    known, last = set(_everybody()) | erasing.under_way().tenants, None
    for group in archive.sums(tenant_id=None, deep=False):
        if group.tenant_id not in known and group.tenant_id != last:
            last = group.tenant_id
            yield last


def _verify_batches(archive: Archive, done: Verified, now: datetime, *, repair_too: bool) -> None:
    """Compare batches with their manifests, and tell of a difference that nothing else found explains.

    What was damaged in a batch stays there, beside the newer record that counts. So a difference is explained once, or accepted by
    a repair, and then not told of again.
    """
    known = findings.batches_known()
    differing = [one for one in archive.batch_sums(since=FIRST_DAY) if _differs(one) and one.batch_id not in known]
    tally, left = Tally(), Tally()
    tally.add(_batch_fault(one) for one in differing)
    if not (repair_too or findings.explain_batches(verification_id=done.verification_id)):
        left = tally
    findings.keep(verification_id=done.verification_id, faults=tally.faults, now=now)
    if left is not tally:
        findings.close_batches(verification_id=done.verification_id, now=now)
    findings.add(verification_id=done.verification_id, tally=left)
    done.take(left)


def _differs(batch: BatchSum) -> bool:
    return (batch.rows, batch.lanes) != (batch.manifest_rows, batch.manifest_lanes)


def _batch_fault(batch: BatchSum) -> Fault:
    kind = MISSING if batch.rows < batch.manifest_rows else EXTRA if batch.rows > batch.manifest_rows else MISMATCHED
    problem = f"{batch.rows} records, the manifest says {batch.manifest_rows}; nothing that is in force is concerned"
    return Fault(kind, BIGQUERY, PLATFORM, BATCH, batch.batch_id, 0, problem)


def _sample_size() -> int:
    return int(settings.DR_VERIFY_SAMPLE)


def _versions(groups: Sequence[GroupSum]) -> int:
    return sum(group.rows for group in groups if group.entity_type == CONTENT)


def export(verification_id: UUID) -> Iterator[dict[str, Any]]:
    """Yield the findings that are kept of a verification, mended ones too."""
    return findings.of_run(verification_id)
