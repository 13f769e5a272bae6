"""Bytes change and rows come and go behind everybody's back: verification names exactly these, and repair mends them."""

import time
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid4

from content import documents
from content.stores.base import DocumentKey
from dr.models import Finding
from dr.scenarios import rows, world
from dr.scenarios.scene import Scene, expect, run_command
from dr.scenarios.world import Inhabitant
from engarde.common.scopes import system_scope

FLIP_DOCUMENT = """
UPDATE {{table}} SET document = CONCAT(SUBSTR(document, 1, 200), '#', SUBSTR(document, 202))
WHERE entity_type = 'content' AND entity_id = '{entity_id}' AND document IS NOT NULL"""
FLIP_FACTS = """
UPDATE {{table}} SET facts = REPLACE(facts, 'create', 'update')
WHERE entity_type = 'content' AND entity_id = '{entity_id}' AND version = 1"""
LOSE = "DELETE FROM {{table}} WHERE entity_type = 'content' AND entity_id = '{entity_id}'"
ADD_STRAY = """
INSERT INTO {{table}}
SELECT * REPLACE ('{stray_id}' AS entity_id) FROM {{table}}
WHERE entity_type = 'content' AND entity_id = '{entity_id}' AND version = 1"""
MISMATCHED, MISSING, EXTRA = Finding.Kind.MISMATCHED, Finding.Kind.MISSING, Finding.Kind.EXTRA
ZERODB, BIGQUERY = Finding.Tier.ZERODB, Finding.Tier.BIGQUERY
NEEDED_ITEMS = 6
BATCH = "batch"


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault as a finding tells of it."""

    entity_id: UUID
    tier: str
    kind: str


def silent_corruption(scene: Scene) -> None:
    """Change a byte of a document in ZeroDB, of one in BigQuery and of facts there; lose and add a row in each.

    The RTO is the time from the damage until a verification has found it, repaired it, and a second one is clean.
    """
    made = world.create(scene)
    before, began = rows.fingerprints(), world.database_time()
    disaster = time.monotonic()
    with scene.step("DISASTER: seven faults that nobody notices"):
        faults = _damage(scene, made.main)
        documents.start_afresh()
    with scene.step("verification names exactly these"):
        passed, report = run_command("verify_backup_integrity", "--deep")
        expect(not passed, "the verification found nothing")
        scene.measures["found"] = {name: report[name] for name in ("mismatched", "missing", "extra")}
        _require_found(faults, _findings(began))
    with scene.step("repair"):
        run_command("verify_backup_integrity", "--deep", "--repair")
        world.drain(scene)
    with scene.step("a second verification is clean"):
        scene.verify()
    scene.measures["rto_seconds"] = round(time.monotonic() - disaster, 3)
    with scene.step("compare with what was written"):
        rows.compare(before=before, after=rows.fingerprints(), into=scene.differences)
        for who in (made.main, made.other):
            who.book.compare(exactly=True, into=scene.differences)


def _damage(scene: Scene, who: Inhabitant) -> set[Fault]:
    """Do the damage, each fault to another item of one version, and return what it is."""
    plain = [one for one in who.book.live() if who.book.entries[one].version == 1]
    expect(len(plain) >= NEEDED_ITEMS, f"this scenario needs more items: {NEEDED_ITEMS} that never changed")
    in_zerodb, lost_there, in_backup, in_facts, lost_in_backup, copied = plain[:NEEDED_ITEMS]
    keys = _keys(who, [in_zerodb, lost_there])
    scene.store.flip_byte(keys[in_zerodb], tenant_id=who.tenant_id, version=1)
    scene.store.lose([keys[lost_there]])
    stray_there, stray_in_backup = uuid4(), uuid4()
    scene.store.add_stray(tenant_id=who.tenant_id, content_id=stray_there)
    scene.archive.run(FLIP_DOCUMENT.format(entity_id=in_backup))
    scene.archive.run(FLIP_FACTS.format(entity_id=in_facts))
    scene.archive.run(LOSE.format(entity_id=lost_in_backup))
    scene.archive.run(ADD_STRAY.format(entity_id=copied, stray_id=stray_in_backup))
    return {
        Fault(in_zerodb, ZERODB, MISMATCHED),
        Fault(lost_there, ZERODB, MISSING),
        Fault(stray_there, ZERODB, EXTRA),
        Fault(in_backup, BIGQUERY, MISMATCHED),
        Fault(in_facts, BIGQUERY, MISMATCHED),
        Fault(lost_in_backup, BIGQUERY, MISSING),
        Fault(stray_in_backup, BIGQUERY, EXTRA),
    }


def _keys(who: Inhabitant, ids: list[UUID]) -> dict[UUID, DocumentKey]:
    return {item.id: item.key for item in world.documents_of(who, ids)}


def _findings(since: datetime) -> set[Fault]:
    """Return what was found of rows; what is said of whole batches tells of the same rows again."""
    with system_scope("read the findings"):
        found = Finding.objects.filter(found_at__gte=since).exclude(entity_type=BATCH)
        return {Fault(*one) for one in found.values_list("entity_id", "tier", "kind")}


def _require_found(faults: set[Fault], found: set[Fault]) -> None:
    expect(not faults - found, f"not found: {sorted(map(str, faults - found))}; found: {sorted(map(str, found))}")
    expect(not found - faults, f"found, though nothing was done there: {sorted(map(str, found - faults))}")
