"""People and programs go wrong: a tenant's content is deleted and spoiled, and everything has been backed up since."""

import time
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from django.utils import timezone

from content import retention
from dr.scenarios import rows, world
from dr.scenarios.book import Book
from dr.scenarios.scene import Scene, expect
from dr.scenarios.world import Inhabitant, World
from engarde.common.scopes import tenant_scope
from quotas import operations as quota_operations
from quotas.operations import Limits

RETENTION_DAYS = 30
LATER_ITEMS = 3


def tenant_deletion(scene: Scene) -> None:
    """Delete, purge and spoil a tenant's content, then bring back what it was at a time before; the other tenant keeps every byte.

    What was made after that time has to be in the trash afterwards. The RTO is the time of the restore until all is read.
    """
    made = world.create(scene)
    before, as_of = made.main.book.copy(), world.database_time()
    with scene.step("DISASTER: content is deleted for good, spoiled, and all of that is backed up"):
        later = _go_wrong(made, before)
        world.drain(scene)
    untouched = rows.fingerprints(tenant_id=made.other.tenant_id)
    disaster = time.monotonic()
    with scene.step("restore the tenant to the time before"):
        scene.restore("--tenant", str(made.main.tenant_id), "--as-of", as_of.isoformat(), "--force")
    with scene.step("compare with what was written"):
        before.compare(exactly=False, into=scene.differences)
        _require_in_trash(scene, made.main, later)
    scene.measures["rto_seconds"] = round(time.monotonic() - disaster, 3)
    with scene.step("the other tenant is as it was"):
        rows.compare(before=untouched, after=rows.fingerprints(tenant_id=made.other.tenant_id), into=scene.differences)
        made.other.book.compare(exactly=True, into=scene.differences)
    with scene.step("all tiers agree again"):
        world.drain(scene)
        scene.verify()


def _go_wrong(made: World, before: Book) -> list[UUID]:
    """Delete a third for good, with what was in the trash; spoil every other item that is left; return what came new."""
    who, live = made.main, before.live()
    doomed, rest = live[: max(1, len(live) // 3)], live[max(1, len(live) // 3) :]
    for content_id in doomed:
        world.trash(who, content_id)
    with tenant_scope(who.tenant_id):
        limits = Limits(retention_days=RETENTION_DAYS, reason="A drill of a mistaken deletion")
        quota_operations.override_limits(tenant_id=who.tenant_id, limits=limits, now=timezone.now())
    purged = retention.purge(now=timezone.now() + timedelta(days=2 * RETENTION_DAYS))
    expect(purged.items >= len(doomed), f"{purged.items} items were purged and {len(doomed)} had been deleted")
    for content_id in rest[::2]:
        world.edit(who, content_id, {}, {"body": "Nothing to see here.", "title": "Spoiled"})
    return world.create_many(who, [world.draft(made.chance) for _ in range(LATER_ITEMS)])


def _require_in_trash(scene: Scene, who: Inhabitant, later: Sequence[UUID]) -> None:
    for item in world.documents_of(who, later):
        if item.deleted_at is None:
            scene.differences.mismatch("content", item.id, "it was made later and is not in the trash")
