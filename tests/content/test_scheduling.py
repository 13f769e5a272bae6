"""Scheduled items are published when their time comes, and brands that vanish meanwhile are named."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.utils import timezone

from content import operations, scheduler
from content.models import ChangeType
from engarde.accounts import operations as account_operations
from engarde.common.problems import Invalid
from tests import tiers
from tests.people import Person


def test_a_scheduled_item_is_published_when_its_time_has_come(alice: Person) -> None:
    soon = datetime.now(UTC) + timedelta(minutes=5)
    item_id = alice.writes(status="scheduled", scheduled_at=soon.isoformat())["id"]

    scheduler.publish_due(now=soon - timedelta(seconds=1))
    assert alice.api.get(f"/api/content/{item_id}").json()["status"] == "scheduled"
    scheduler.publish_due(now=soon)
    scheduler.publish_due(now=soon)

    item = alice.api.get(f"/api/content/{item_id}").json()
    assert (item["status"], item["version"]) == ("published", 2)
    published = tiers.versions(item_id)[-1]
    assert (published.change_type, published.changed_by) == (ChangeType.PUBLISH, None)


def test_a_trashed_or_postponed_item_is_not_published(alice: Person) -> None:
    soon = datetime.now(UTC) + timedelta(minutes=5)
    trashed, postponed = (alice.writes(status="scheduled", scheduled_at=soon.isoformat())["id"] for _ in range(2))
    alice.api.delete(f"/api/content/{trashed}")
    later = (soon + timedelta(hours=1)).isoformat()
    alice.api.patch(f"/api/content/{postponed}", {"scheduled_at": later})

    scheduler.publish_due(now=soon)

    assert alice.api.get(f"/api/content/{postponed}").json()["status"] == "scheduled"
    assert len(tiers.versions(trashed)) == 2


def test_a_brand_that_is_deleted_while_content_is_written_is_an_error_of_the_input(
    alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = alice.api.post("/api/brands", {"name": "Short-lived"}).json()["id"]
    find = operations.brand_of

    def find_then_lose(tenant_id: UUID, brand_id: Any) -> tuple[UUID, str]:
        brand = find(tenant_id, brand_id)
        with ThreadPoolExecutor(1) as elsewhere:
            elsewhere.submit(_delete_brand, alice, brand[0]).result()
        return brand

    monkeypatch.setattr(operations, "brand_of", find_then_lose)

    with pytest.raises(Invalid, match="not valid"):
        operations.create_content(
            tenant_id=alice.tenant_id,
            author_id=None,
            fields={"title": "t", "brand_id": gone},
            now=timezone.now(),
        )
    assert alice.api.get("/api/content").json()["data"] == []


def _delete_brand(person: Person, brand_id: UUID) -> None:
    try:
        account_operations.delete_brand(tenant_id=person.tenant_id, brand_id=brand_id)
    finally:
        connection.close()


def test_items_that_cannot_be_published_hold_up_no_other(alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("content.scheduler.BATCH", 2)
    past = "2026-01-01T00:00:00Z"
    stuck = [alice.writes(status="scheduled", scheduled_at=past)["id"] for _ in range(3)]
    good = alice.writes(status="scheduled", scheduled_at="2026-01-02T00:00:00Z")["id"]
    publish = operations.publish_due

    def fail_for_the_stuck(*, content_id: UUID, **wanted: Any) -> bool:
        if str(content_id) in stuck:
            raise RuntimeError("a test's trouble")
        return publish(content_id=content_id, **wanted)

    monkeypatch.setattr(operations, "publish_due", fail_for_the_stuck)
    scheduler.publish_due(now=timezone.now())

    assert alice.api.get(f"/api/content/{good}").json()["status"] == "published"
