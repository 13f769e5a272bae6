"""Whole tiers are lost: the document store, the database, or both."""

import secrets
import time

from django.db import connections
from django.utils import timezone

from content import documents
from content.stores.base import MEDIA, VERSIONS
from dr.scenarios import databases, rows, world
from dr.scenarios.book import chunks
from dr.scenarios.scene import Scene, expect
from dr.scenarios.world import Inhabitant, World
from engarde.accounts.models import User
from quotas import reconciliation

SAMPLE = 20
STAFF = "first-of-staff@example.com"


def zerodb_loss(scene: Scene) -> None:
    """Lose all that is in ZeroDB; reads go on from the backup; bring the documents back and verify them.

    The RTO is the time until all documents are in ZeroDB again and verified. `reads_after_seconds` says when a sample of
    items had been answered correctly, from the other tiers.
    """
    made = world.create(scene)
    before, told = rows.fingerprints(), _records(scene)
    with scene.step("DISASTER: every row in ZeroDB is lost"):
        scene.measures["lost_rows"] = scene.store.empty()
    disaster = time.monotonic()
    with scene.step("reads go on without ZeroDB"):
        world.require_reads(made.main, made.main.book.live()[:SAMPLE])
        scene.measures["reads_after_seconds"] = _since(disaster)
    with scene.step("restore ZeroDB"):
        scene.restore("--tier", "zerodb")
        world.drain(scene)
    with scene.step("verify all tiers"):
        scene.verify()
    scene.measures["rto_seconds"] = _since(disaster)
    with scene.step("compare with what was written"):
        _require_in_zerodb(scene, made)
        _compare(scene, made, before)
        _require_records(scene, told)


def postgres_loss(scene: Scene) -> None:
    """Lose the database while ZeroDB keeps its documents; people log in and read again."""
    made = world.create(scene)
    before = rows.fingerprints()
    disaster = _lose_database(scene)
    with scene.step("restore PostgreSQL"):
        scene.restore("--tier", "postgres", "--no-refill")
    with scene.step("the owner logs in, the key is good, all is read"):
        _require_life(made)
        _compare(scene, made, before)
    scene.measures["rto_seconds"] = _since(disaster)
    _go_on(scene, made)


def full_loss(scene: Scene) -> None:
    """Lose the database and all that is in ZeroDB.

    The RTO counts until every read is answered correctly, from the spool too; `refill_seconds` is the time that ZeroDB
    took to fill up behind that. The new platform has begun to run meanwhile: somebody made its first member of staff, under the
    address of the one who was lost, and the backup knows both.
    """
    User.objects.create_superuser(STAFF, secrets.token_urlsafe())
    made = world.create(scene)
    before, told = rows.fingerprints(), _records(scene)
    with scene.step("DISASTER: every row in ZeroDB is lost"):
        scene.measures["lost_rows"] = scene.store.empty()
    disaster = _lose_database(scene)
    with scene.step("a new platform begins to run"):
        User.objects.create_superuser(STAFF, secrets.token_urlsafe())
        world.drain(scene)
    with scene.step("restore everything"):
        scene.restore("--tier", "all", "--no-refill")
    with scene.step("the owner logs in, the key is good, all is read"):
        _require_life(made)
        _compare(scene, made, before)
    scene.measures["rto_seconds"] = _since(disaster)
    refill = time.monotonic()
    with scene.step("ZeroDB fills up again"):
        world.drain(scene)
        _require_in_zerodb(scene, made)
        _require_records(scene, told)
    scene.measures["refill_seconds"] = _since(refill)
    _go_on(scene, made)


def _lose_database(scene: Scene) -> float:
    """Drop the database and put an empty, migrated one in its place; return when it was lost."""
    with scene.step("DISASTER: PostgreSQL's data is lost"):
        connections.close_all()
        databases.drop(server_url=scene.server_url, name=scene.place)
        disaster = time.monotonic()
        databases.create(server_url=scene.server_url, name=scene.place, template=scene.template)
        documents.start_afresh()
    return disaster


def _require_life(made: World) -> None:
    for who in (made.main, made.other):
        world.require_entry(who)
        world.require_reads(who, who.book.live()[:SAMPLE])


def _compare(scene: Scene, made: World, before: rows.Fingerprints) -> None:
    rows.compare(before=before, after=rows.fingerprints(), into=scene.differences)
    for who in (made.main, made.other):
        who.book.compare(exactly=True, into=scene.differences)
        _require_exact_quota(who)


def _require_exact_quota(who: Inhabitant) -> None:
    """See that the counters are the sums of what is stored.

    Raises:
        ScenarioFailed: they are not.
    """
    found = reconciliation.reconcile(tenant_id=who.tenant_id, now=timezone.now(), dry_run=True)
    expect(not found.differences, f"the quota's counters are wrong: {found.differences}")


def _require_in_zerodb(scene: Scene, made: World) -> None:
    for who in (made.main, made.other):
        for keys in chunks(who.book.keys()):
            for key in set(keys) - scene.store.get_many(keys).keys():
                scene.differences.lose("document", key, "ZeroDB has not got it back")


def _records(scene: Scene) -> set[tuple[str, str]]:
    """Return the keys of what ZeroDB has beside documents."""
    return {(collection, key) for collection in (VERSIONS, MEDIA) for key in scene.store.keys(collection)}


def _require_records(scene: Scene, told: set[tuple[str, str]]) -> None:
    for collection, key in told - _records(scene):
        scene.differences.lose(collection, key, "ZeroDB has not got it back")


def _go_on(scene: Scene, made: World) -> None:
    """Write again, and see that the backup takes it and all tiers agree: numbers of a new database begin anew."""
    with scene.step("work goes on, and all tiers agree"):
        world.write(made, made.main, 5)
        world.drain(scene)
        scene.verify()
        made.main.book.compare(exactly=True, into=scene.differences)


def _since(moment: float) -> float:
    return round(time.monotonic() - moment, 3)
