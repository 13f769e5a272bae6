"""Plans and what replaces their limits: with a reason, at once, and never at the cost of what is stored."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from engarde.common.problems import Invalid
from engarde.common.scopes import system_scope
from quotas import operations, queries
from quotas.models import Plan, QuotaUsage
from quotas.operations import Limits
from quotas.refusals import StorageQuotaExceeded
from tests import people
from tests.people import Person
from tests.quotas import house
from tests.stored import stored_by


@pytest.fixture
def dora(database: None) -> Person:
    """Owner of a tenant on the starter plan."""
    return people.new_owner("dora", tier="starter")


def override(person: Person, **limits: Any) -> None:
    with house.inside(person) as tenant_id:
        operations.override_limits(
            tenant_id=tenant_id, limits=Limits(**{"reason": "A test.", **limits}), now=timezone.now()
        )


def change_plan(person: Person, tier: str) -> None:
    with house.inside(person) as tenant_id:
        operations.change_plan(tenant_id=tenant_id, tier=tier, now=timezone.now())


def retention(person: Person, days_later: float = 0) -> int | None:
    with system_scope("a test reads retentions"):
        return queries.retentions(now=timezone.now() + timedelta(days=days_later))[person.tenant_id]


def limits_of(person: Person) -> dict[str, Any]:
    return dict(person.api.get("/api/content/quota").json()["limits"])


def test_another_plan_counts_at_once(dora: Person) -> None:
    change_plan(dora, "enterprise")

    assert (limits_of(dora)["is_unlimited"], limits_of(dora)["monthly_generation_limit"]) == (True, None)
    change_plan(dora, "free")
    assert limits_of(dora)["storage_limit_bytes"] == 1024**3


def test_an_unknown_plan_is_refused(dora: Person) -> None:
    with pytest.raises(Invalid, match="not valid") as refused:
        change_plan(dora, "platinum")

    assert "free, starter, professional, business, enterprise" in refused.value.extra["errors"][0]["message"]


def test_a_limit_below_what_is_stored_takes_nothing_away(dora: Person) -> None:
    item = house.store(dora, 500)
    override(dora, storage_bytes=100)

    with pytest.raises(StorageQuotaExceeded):
        house.store(dora, 1)
    house.resize(dora, item, 400, now=timezone.now())
    assert dora.api.get(f"/api/content/{item}").status_code == 200
    assert dora.api.delete(f"/api/content/{item}").status_code == 200
    assert stored_by(dora.tenant_id).counted_bytes == 0


def test_overrides_need_a_reason(dora: Person) -> None:
    for reason in ("", "  "):
        with pytest.raises(Invalid):
            override(dora, storage_bytes=1, reason=reason)

    assert limits_of(dora)["storage_limit_bytes"] == 10 * 1024**3


@pytest.mark.parametrize(
    "limits",
    [
        {"storage_bytes": -1},
        {"storage_bytes": 2**63},
        {"generated_items": -1},
        {"generated_items": 2**31},
        {"retention_days": 2**31},
    ],
)
def test_overrides_are_numbers_that_can_be(dora: Person, limits: dict[str, int]) -> None:
    with pytest.raises(Invalid):
        override(dora, **limits)


def test_going_back_to_the_plan_needs_no_reason(dora: Person) -> None:
    override(dora, storage_bytes=100, generated_items=1, retention_days=3)

    override(dora, reason="")

    found = limits_of(dora)
    assert (found["storage_limit_bytes"], found["monthly_generation_limit"], found["retention_days"]) == (
        10 * 1024**3,
        1000,
        90,
    )
    with house.inside(dora):
        assert QuotaUsage.objects.get().override_reason == ""


def test_a_limit_of_zero_lets_nothing_in_but_what_is_empty(dora: Person) -> None:
    override(dora, storage_bytes=0, generated_items=0)

    house.store(dora, 0)
    with pytest.raises(StorageQuotaExceeded):
        house.store(dora, 1)
    assert limits_of(dora)["usage_percent"] == 100


# Retention


def test_a_shorter_retention_takes_effect_thirty_days_later(dora: Person) -> None:
    override(dora, retention_days=10)

    assert [retention(dora, days) for days in (0, 29.9, 30.1)] == [90, 90, 10]
    assert limits_of(dora)["retention_days"] == 10


def test_a_longer_retention_takes_effect_at_once(dora: Person) -> None:
    override(dora, retention_days=400)

    assert retention(dora) == 400


def test_an_overrides_end_that_shortens_waits_too(dora: Person) -> None:
    override(dora, retention_days=400)
    override(dora, reason="")

    assert [retention(dora, days) for days in (0, 31)] == [400, 90]


def test_a_plan_that_keeps_less_does_not_touch_a_tenant_with_its_own_retention(database: None) -> None:
    plan = Plan.objects.create(tier="test-keeps", rank=98, retention_days=100)
    with_override, without = (people.new_owner(name, tier="test-keeps") for name in ("with", "without"))
    override(with_override, retention_days=50)
    with house.inside(with_override):
        QuotaUsage.objects.update(retention_shortened_at=None)

    Plan.objects.filter(tier=plan.tier).update(retention_days=20)

    assert [retention(person) for person in (with_override, without)] == [50, 100]
    assert [retention(person, 31) for person in (with_override, without)] == [50, 20]
    with system_scope("a test puts a plan away"):
        QuotaUsage.objects.filter(plan=plan).update(plan="free")
    plan.delete()
