"""What a restore must not undo: removals, revocations, erasures; and what a killed one leaves to the next."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from django.core.management import CommandError
from django.utils import timezone

from content.models import ContentItem, SearchEntry
from dr import items, restores
from dr.models import Erasure
from dr.restore import Wanted
from engarde.accounts.models import Membership
from engarde.common.problems import NotFound
from engarde.common.scopes import system_scope
from tests import stored, tiers
from tests.dr.test_restore import restore
from tests.dr.test_restore_times import moment
from tests.people import Person


@pytest.fixture
def item(alice: Person, upload: Callable[[], int], back_up: Callable[[], int]) -> dict[str, Any]:
    """An item that all tiers have."""
    made = alice.writes(title="findable", body="kept")
    upload()
    back_up()
    return made


def test_removals_that_the_backup_has_not_heard_of_stand(
    alice: Person, bob: Person, item: dict[str, Any], back_up: Callable[[], int]
) -> None:
    back_up()
    assert bob.api.get("/api/content").status_code == 200
    with system_scope("a test removes a member and an item"):
        Membership.objects.filter(tenant_id=alice.tenant_id, user_id=bob.user_id).delete()
        ContentItem.objects.filter(id=item["id"]).delete()

    report = restore(alice)

    assert (report["changed"], report["failed"]) == (0, 0)
    assert bob.api.get("/api/content").status_code == 403
    assert alice.api.get(f"/api/content/{item['id']}").status_code == 404


def test_a_thinned_version_that_the_backup_has_not_heard_of_stays_away(
    alice: Person, item: dict[str, Any], upload: Callable[[], int], back_up: Callable[[], int]
) -> None:
    from content.models import ContentVersion

    alice.api.patch(f"/api/content/{item['id']}", {"body": "second"})
    upload()
    back_up()
    with system_scope("a test thins"):
        ContentVersion.objects.filter(content_id=item["id"], version=1).delete()

    assert restore(alice)["changed"] == 0
    assert [one.version for one in tiers.versions(item["id"])] == [2]


def test_going_back_does_not_let_in_who_was_put_out_even_when_forced(
    alice: Person, bob: Person, item: dict[str, Any], back_up: Callable[[], int]
) -> None:
    key = alice.api.post("/api/api-keys", {"name": "old", "scopes": ["content:read"]}).json()
    back_up()
    as_of = moment()
    assert alice.api.delete(f"/api/api-keys/{key['id']}").status_code == 204
    assert alice.api.delete(f"/api/members/{bob.user_id}").status_code == 204
    back_up()

    restore(alice, "--as-of", as_of, "--force")

    revoked = replace(alice, credentials={"HTTP_X_API_KEY": key["key"]})
    assert revoked.api.get("/api/content").status_code == 401
    assert bob.api.get("/api/content").status_code == 403


def test_what_is_being_erased_does_not_come_back(alice: Person, item: dict[str, Any]) -> None:
    with system_scope("a test begins an erasure"):
        Erasure.objects.create(tenant_id=alice.tenant_id, content_id=UUID(item["id"]), requested_at=timezone.now())
    tiers.lose_postgres_rows(item["id"])

    assert restore(alice)["changed"] == 0
    with pytest.raises(NotFound):
        items.restore_item(
            tenant_id=alice.tenant_id,
            author_id=alice.user_id,
            content_id=UUID(item["id"]),
            as_of=None,
            version=1,
            now=timezone.now(),
        )


def test_a_killed_restore_leaves_counters_and_searches_to_the_next(alice: Person, item: dict[str, Any]) -> None:
    tiers.lose_postgres_rows(item["id"])
    restores.begin(wanted=Wanted(tenant_id=alice.tenant_id), now=timezone.now())  # and never ended
    restore(alice)
    with system_scope("a test takes the search entry away"):
        SearchEntry.objects.filter(content_id=item["id"]).delete()
    restores.begin(wanted=Wanted(tenant_id=alice.tenant_id), now=timezone.now())

    restore(alice)

    assert [one["id"] for one in alice.api.get("/api/content?search=findable").json()["data"]] == [item["id"]]
    assert stored.stored_by(alice.tenant_id).counters_are_true


def test_a_time_before_anything_was_there_is_refused(alice: Person, item: dict[str, Any]) -> None:
    with pytest.raises(CommandError, match="nothing of that time"):
        restore(alice, "--as-of", "2001-01-01T00:00:00Z")
    assert alice.api.get(f"/api/content/{item['id']}").status_code == 200


def test_a_time_needs_the_tier_that_decides(alice: Person) -> None:
    with pytest.raises(CommandError, match="PostgreSQL"):
        restore(alice, "--as-of", moment(), "--tier", "zerodb")
