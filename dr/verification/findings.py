"""What is kept of verifications: when they ran, what they counted, and each fault until it is mended."""

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import F, Q

from dr.models import Finding, Verification
from dr.verification.faults import (
    BATCH,
    BIGQUERY,
    EXTRA,
    MEDIA,
    MISMATCHED,
    MISSING,
    POSTGRES,
    SPOOL,
    ZERODB,
    Fault,
    Tally,
)
from dr.verification.merging import in_chunks
from engarde.common.scopes import system_scope

CHUNK = 500
MAX_FINDINGS = 10_000
"""So many findings of a run are kept; the others are only counted."""

Name = tuple[str, str, str, UUID, int]


def begin(*, tenant_id: UUID | None, deep: bool, repair: bool, now: datetime) -> UUID:
    """Note that a verification of a tenant, or of all, begins, and return its id."""
    with system_scope("note a verification"):
        return Verification.objects.create(tenant_id=tenant_id, deep=deep, repair=repair, started_at=now).id


def finish(*, verification_id: UUID, now: datetime, error: str = "") -> None:
    """Note that a verification ended, and why if it could not be carried through."""
    with system_scope("note a verification"):
        Verification.objects.filter(id=verification_id).update(finished_at=now, error=error[:1000])


def add(*, verification_id: UUID, tally: Tally, repaired: int = 0) -> None:
    """Add a tenant's counts to those of a verification."""
    counts = {kind: F(kind) + tally.count(kind) for kind in (MISSING, MISMATCHED, EXTRA)}
    with system_scope("note a verification"):
        Verification.objects.filter(id=verification_id).update(
            checked=F("checked") + tally.checked, repaired=F("repaired") + repaired, **counts
        )


def keep(*, verification_id: UUID, faults: Sequence[Fault], now: datetime) -> int:
    """Keep what was found, up to a number a run, and return how many that are; what is known goes over to this run."""
    with system_scope("keep findings"):
        room = MAX_FINDINGS - Finding.objects.filter(verification_id=verification_id).count()
    kept = faults[: max(room, 0)]
    for chunk in in_chunks(iter(kept), CHUNK):
        with system_scope("keep findings"):
            _keep(verification_id, chunk, now)
    return len(kept)


def _keep(verification_id: UUID, faults: Sequence[Fault], now: datetime) -> None:
    known = {
        _name_of(finding): finding.id
        for finding in Finding.objects.filter(
            tenant_id__in={fault.tenant_id for fault in faults},
            entity_id__in={fault.entity_id for fault in faults},
            repaired_at=None,
        )
    }
    again = [known[_name(fault)] for fault in faults if _name(fault) in known]
    Finding.objects.filter(id__in=again).update(verification_id=verification_id)
    new = {_name(fault): fault for fault in faults if _name(fault) not in known}
    Finding.objects.bulk_create([_finding(verification_id, fault, now) for fault in new.values()])


def settle(
    *, verification_id: UUID, tenant_id: UUID, mended: Collection[Fault], covered: Collection[str], now: datetime
) -> None:
    """Close findings: those of this run that were mended, and those of earlier runs that were not found again.

    Args:
        covered: the tiers in which any fault would have been found again.
    """
    with system_scope("close findings"):
        rows = Finding.objects.filter(tenant_id=tenant_id, repaired_at=None).exclude(entity_type=BATCH)
        # Whatever is looked at: what PostgreSQL or the backup lacks shows in the sums.
        seen = Q(tier__in=covered) | Q(tier=POSTGRES) | (Q(tier=BIGQUERY) & ~Q(kind=MISMATCHED))
        rows.filter(seen).exclude(verification_id=verification_id).update(repaired_at=now)
        for chunk in in_chunks(iter(mended), CHUNK):
            names = {_name(fault) for fault in chunk}
            these = rows.filter(verification_id=verification_id, entity_id__in={name[3] for name in names})
            ids = [finding.id for finding in these if _name_of(finding) in names]
            Finding.objects.filter(id__in=ids).update(repaired_at=now)


def covered(*, deep: bool, is_thorough: bool) -> frozenset[str]:
    """Return the tiers in which any fault would have been found."""
    if not is_thorough:
        return frozenset()
    return frozenset({SPOOL, ZERODB, BIGQUERY, MEDIA} if deep else {SPOOL, ZERODB, BIGQUERY})


def explain_batches(*, verification_id: UUID) -> bool:
    """Tell whether something was found in the backup since the batches were looked at before: it explains how they differ."""
    with system_scope("look for what was found in the backup"):
        before = Verification.objects.filter(deep=True, tenant_id=None, error="", finished_at__isnull=False)
        last = before.exclude(id=verification_id).order_by("-started_at").values_list("started_at", flat=True).first()
        rows = Finding.objects.filter(tier=BIGQUERY).exclude(entity_type=BATCH)
        return (rows.filter(found_at__gte=last) if last else rows).exists()


def close_batches(*, verification_id: UUID, now: datetime) -> None:
    """Close a run's findings of batches that are explained."""
    with system_scope("close findings"):
        rows = Finding.objects.filter(verification_id=verification_id, entity_type=BATCH, repaired_at=None)
        rows.update(repaired_at=now)


def batches_known() -> set[UUID]:
    """Return the batches of which it is known that they differ from their manifests, and why."""
    with system_scope("look which batches are known"):
        rows = Finding.objects.filter(entity_type=BATCH, repaired_at__isnull=False)
        return set(rows.values_list("entity_id", flat=True)[: MAX_FINDINGS * 10])


def of_run(verification_id: UUID) -> Iterator[dict[str, Any]]:
    """Yield the findings of a run for an export, oldest first."""
    last: UUID | None = None
    while True:
        with system_scope("export findings"):
            rows = Finding.objects.filter(verification_id=verification_id)
            page = list((rows.filter(id__gt=last) if last else rows).order_by("id")[:CHUNK])
        yield from (_as_json(finding) for finding in page)
        if len(page) < CHUNK:
            return
        last = page[-1].id


def _name(fault: Fault) -> Name:
    return fault.kind, fault.tier, fault.entity_type, fault.entity_id, fault.version


def _name_of(finding: Finding) -> Name:
    return finding.kind, finding.tier, finding.entity_type, finding.entity_id, finding.version


def _finding(verification_id: UUID, fault: Fault, now: datetime) -> Finding:
    return Finding(
        verification_id=verification_id,
        tenant_id=fault.tenant_id,
        entity_type=fault.entity_type,
        entity_id=fault.entity_id,
        version=fault.version,
        tier=fault.tier,
        kind=fault.kind,
        problem=fault.problem,
        found_at=now,
    )


def _as_json(finding: Finding) -> dict[str, Any]:
    return {
        "tenant_id": str(finding.tenant_id),
        "entity_type": finding.entity_type,
        "id": str(finding.entity_id),
        "version": finding.version,
        "tier": finding.tier,
        "kind": finding.kind,
        "problem": finding.problem,
        "found_at": finding.found_at.isoformat(),
        "repaired_at": finding.repaired_at.isoformat() if finding.repaired_at else None,
    }
