"""The weekly drill: a tenant, picked at random, comes back from the real backup into throw-away storage and is compared with the live one.

The backup is only read; nothing that the drill runs can write to the platform's own places (see `dr.scenarios.sampled`).
"""

import random
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog
from django.conf import settings
from django.db.models import Min

from content.models import Change
from dr.scenarios import rows, running, stage
from dr.scenarios.book import Differences
from dr.scenarios.databases import NoRoomForDrills
from dr.scenarios.places import NotThrowAway
from dr.scenarios.rows import Versions
from dr.scenarios.sampled import SAMPLED, VERSIONS_FILE
from engarde.common.scopes import system_scope, tenant_scope
from quotas.models import QuotaUsage

log = structlog.get_logger(__name__)

LONGEST_SECONDS = 1200.0  # its task has half an hour, of which migrating and cleaning up take a part
NOTHING: dict[str, Any] = {
    "name": SAMPLED,
    "ok": True,
    "items": 0,
    "seconds": 0,
    "rto_seconds": None,
    "rpo_seconds": None,
    "lost": 0,
    "mismatched": 0,
}


def run_drill(*, now: Callable[[], datetime]) -> dict[str, Any] | None:
    """Restore a sampled tenant from the real backup into throw-away storage, compare it, and keep the outcome in the history.

    The RTO is the time from the start of the restore until every item of the tenant was read. The RPO is the age of the
    tenant's oldest change that the backup does not have: what was written in that time would be lost.

    Returns:
        The outcome; None where the backup is off, as there is nothing to be proven then.
    """
    if not settings.BIGQUERY_SYNC_ENABLED:
        return None
    started_at = now()
    tenant_id = _pick()
    outcome = dict(NOTHING)
    if tenant_id is not None:
        outcome = _drill(tenant_id, now)
    running.note(outcome=outcome, started_at=started_at, finished_at=now(), scheduled=True, tenant_id=tenant_id)
    level = log.info if outcome["ok"] else log.error
    level("a drill has ended", **{name: outcome[name] for name in ("ok", "items", "lost", "mismatched", "rto_seconds")})
    return outcome


def _pick() -> UUID | None:
    """Return a tenant with content, of bearable size, or None when there is none."""
    most = settings.DR_DRILL_MAX_ITEMS
    with system_scope("pick a tenant for a drill"):
        usages = QuotaUsage.objects.filter(content_items__gte=1, content_items__lte=most)
        ids = list(usages.order_by("tenant_id").values_list("tenant_id", flat=True))
    return random.choice(ids) if ids else None  # noqa: S311 -- a sample, not a secret


def _drill(tenant_id: UUID, now: Callable[[], datetime]) -> dict[str, Any]:
    began_at, rpo = now(), unsaved_seconds(tenant_id=tenant_id, now=now())
    live = rows.versions(tenant_id=tenant_id, backed_up=began_at)
    try:
        with (
            stage.prepared(now=began_at, tell=_nobody) as ground,
            ground.place(SAMPLED, **_only_reading(tenant_id)) as place,
        ):
            found = place.folder / VERSIONS_FILE
            outcome = running.play(place=place, name=SAMPLED, items=0, tell=_nobody, longest=LONGEST_SECONDS)
            differences = (
                compare(tenant_id=tenant_id, live=live, restored=_versions(found)) if found.exists() else Differences()
            )
    except (NoRoomForDrills, NotThrowAway) as error:
        return NOTHING | {"ok": False, "error": str(error)}
    outcome["lost"] += len(differences.lost)
    outcome["mismatched"] += len(differences.mismatched)
    outcome["ok"] = outcome["ok"] and not differences
    return outcome | {"rpo_seconds": rpo, "examples": [*outcome.get("examples", ()), *differences.examples]}


def _only_reading(tenant_id: UUID) -> dict[str, str]:
    """Return the settings that let the child read the real backup, and no more: there is no ZeroDB, and no other way to a document."""
    return {
        "DRILL_TENANT": str(tenant_id),
        "DRILL_READS": settings.DR_ARCHIVE_OPTIONS["dataset"],
        "ZERODB_API_KEY": "",
        "ZERODB_PROJECT_ID": "",
        "CONTENT_READ_FALLBACK": "",
    }


def unsaved_seconds(*, tenant_id: UUID, now: datetime) -> float:
    """Return the age in seconds of a tenant's oldest change that the backup does not have; 0 when it has all."""
    with tenant_scope(tenant_id):
        waiting = Change.objects.filter(tenant_id=tenant_id, acked_at=None)
        oldest = waiting.aggregate(oldest=Min("changed_at"))["oldest"]
    return round(max(0.0, (now - oldest).total_seconds()), 3) if oldest else 0.0


def _versions(path: Path) -> Versions:
    found: Versions = {}
    with path.open() as file:
        for line in file:
            content_id, version, digest = line.split()
            found[UUID(content_id), int(version)] = bytes.fromhex(digest)
    return found


def compare(*, tenant_id: UUID, live: Versions, restored: Versions) -> Differences:
    """Note which versions that the backup had acknowledged did not come back as they are here; what was removed meanwhile is no loss."""
    differences = Differences()
    missing = live.keys() - restored.keys()
    there = rows.still_there(tenant_id=tenant_id, versions=missing)
    for content_id, version in there:
        differences.lose("content", content_id, f"version {version} did not come back")
    for name, digest in live.items():
        if name in restored and restored[name] != digest:
            differences.mismatch("content", name[0], f"version {name[1]} came back differently")
    return differences


def _nobody(_line: str) -> None:
    """Tell nobody: the log and the history say how it went."""
