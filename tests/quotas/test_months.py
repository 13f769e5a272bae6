"""Generated items a month: counted in the tenant's time zone, whatever clocks do at the month's end."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.utils import timezone

from engarde.accounts.models import Tenant
from engarde.common.scopes import system_scope
from quotas import operations, reconciliation, reservations
from quotas.months import month_of
from quotas.operations import Limits
from quotas.refusals import GenerationQuotaExceeded
from tests import people
from tests.people import Person
from tests.quotas import house

LAST_OF_MONTH = datetime(2027, 1, 31, 23, 59, tzinfo=UTC)
FIRST_OF_NEXT = datetime(2027, 2, 1, 0, 1, tzinfo=UTC)


@pytest.fixture
def dora(database: None) -> Person:
    """Owner of a tenant that may generate 10 items a month."""
    person = people.new_owner("dora")
    limit(person, 10)
    return person


def limit(person: Person, items: int) -> None:
    with house.inside(person) as tenant_id:
        limits = Limits(generated_items=items, reason="A test.")
        operations.override_limits(tenant_id=tenant_id, limits=limits, now=timezone.now())


def move(person: Person, time_zone: str) -> None:
    with system_scope("a test moves a tenant"):
        Tenant.objects.filter(id=person.tenant_id).update(time_zone=time_zone)


def test_a_month_allows_exactly_its_limit(dora: Person) -> None:
    house.generate(dora, 9)
    house.store(dora, 10, generated=True)

    with pytest.raises(GenerationQuotaExceeded):
        house.generate(dora)
    with pytest.raises(GenerationQuotaExceeded):
        house.store(dora, 10, generated=True)

    assert house.month(dora).generated == 10
    assert dora.api.get("/api/content/quota").json()["usage"]["generated_this_month"] == 10
    assert dora.api.get("/api/content").json()["pagination"]["total"] == 1


def test_what_people_write_is_not_generated(dora: Person) -> None:
    dora.writes()

    assert house.month(dora).generated == 0


def test_the_next_month_begins_with_nothing(dora: Person) -> None:
    house.generate(dora, 10, now=LAST_OF_MONTH)

    house.generate(dora, 10, now=FIRST_OF_NEXT)

    assert house.month(dora, LAST_OF_MONTH).generated == house.month(dora, FIRST_OF_NEXT).generated == 10
    with pytest.raises(GenerationQuotaExceeded):
        house.generate(dora, 1, now=FIRST_OF_NEXT)


def test_a_clock_that_jumps_over_the_months_end_and_back_gives_nothing_away(dora: Person) -> None:
    house.generate(dora, 9, now=LAST_OF_MONTH)
    house.generate(dora, 2, now=FIRST_OF_NEXT)

    house.generate(dora, 1, now=LAST_OF_MONTH)
    with pytest.raises(GenerationQuotaExceeded):
        house.generate(dora, 1, now=LAST_OF_MONTH)

    assert (house.month(dora, LAST_OF_MONTH).generated, house.month(dora, FIRST_OF_NEXT).generated) == (10, 2)


@pytest.mark.parametrize(
    ("time_zone", "moment", "month"),
    [
        ("UTC", datetime(2027, 1, 31, 23, 59, 59, tzinfo=UTC), date(2027, 1, 1)),
        ("UTC", datetime(2027, 2, 1, tzinfo=UTC), date(2027, 2, 1)),
        ("Pacific/Auckland", datetime(2027, 1, 31, 11, 0, tzinfo=UTC), date(2027, 2, 1)),
        ("Pacific/Auckland", datetime(2027, 1, 31, 10, 59, tzinfo=UTC), date(2027, 1, 1)),
        ("America/Los_Angeles", datetime(2027, 2, 1, 7, 59, tzinfo=UTC), date(2027, 1, 1)),
        ("America/Los_Angeles", datetime(2027, 2, 1, 8, 0, tzinfo=UTC), date(2027, 2, 1)),
        # Summer time begins on 28 March 2027 and ends on 31 October 2027, an hour before the month does.
        ("Europe/Berlin", datetime(2027, 3, 31, 21, 59, tzinfo=UTC), date(2027, 3, 1)),
        ("Europe/Berlin", datetime(2027, 3, 31, 22, 0, tzinfo=UTC), date(2027, 4, 1)),
        ("Europe/Berlin", datetime(2027, 10, 31, 22, 59, tzinfo=UTC), date(2027, 10, 1)),
        ("Europe/Berlin", datetime(2027, 10, 31, 23, 0, tzinfo=UTC), date(2027, 11, 1)),
    ],
)
def test_a_month_begins_at_midnight_where_the_tenant_is(time_zone: str, moment: datetime, month: date) -> None:
    assert month_of(moment, time_zone) == month


def test_the_summary_says_when_the_month_ends_where_the_tenant_is(dora: Person) -> None:
    move(dora, "America/New_York")

    with time_machine.travel(datetime(2026, 12, 15, 12, tzinfo=UTC), tick=True):
        limits = dora.api.get("/api/content/quota").json()["limits"]

    assert (limits["generation_resets_at"], limits["monthly_generation_limit"]) == ("2027-01-01T05:00:00Z", 10)


def test_moving_to_another_time_zone_at_the_months_end_gives_nothing_away(dora: Person) -> None:
    moment = datetime(2027, 1, 31, 20, tzinfo=UTC)
    house.generate(dora, 10, now=moment)
    move(dora, "Pacific/Auckland")
    house.generate(dora, 10, now=moment)

    for time_zone in ("America/Los_Angeles", "UTC", "Pacific/Auckland"):
        move(dora, time_zone)
        with pytest.raises(GenerationQuotaExceeded):
            house.generate(dora, 1, now=moment)
    with pytest.raises(GenerationQuotaExceeded):
        house.generate(dora, 1, now=moment + timedelta(days=20))


def test_items_count_in_the_month_that_they_were_reserved_in(dora: Person) -> None:
    holder = house.reserve(dora, items=10, now=LAST_OF_MONTH)

    house.generate(dora, 4, now=FIRST_OF_NEXT, holder=holder)
    house.release(dora, holder)

    january, february = house.month(dora, LAST_OF_MONTH), house.month(dora, FIRST_OF_NEXT)
    assert (january.generated, january.reserved) == (4, 0)
    assert (february.generated, february.reserved) == (0, 0)
    assert reconciliation.reconcile(tenant_id=dora.tenant_id, now=timezone.now()).differences == {}


def test_a_reservation_that_expires_in_the_next_month_frees_its_own(dora: Person) -> None:
    house.reserve(dora, items=10, now=LAST_OF_MONTH, minutes=5)
    house.reserve(dora, items=10, now=FIRST_OF_NEXT, minutes=60)

    reservations.sweep(now=LAST_OF_MONTH + timedelta(minutes=10))

    assert house.month(dora, LAST_OF_MONTH).reserved == 0
    assert house.month(dora, FIRST_OF_NEXT).reserved == 10


def test_a_limit_lowered_below_what_was_generated_blocks_generation_only(dora: Person) -> None:
    house.generate(dora, 5)
    limit(dora, 3)

    with pytest.raises(GenerationQuotaExceeded):
        house.generate(dora)
    dora.writes()
    assert house.month(dora).remaining == 0


def test_an_unlimited_plan_generates_as_much_as_it_likes(database: None) -> None:
    person = people.new_owner(tier="enterprise")

    house.generate(person, 10**6)

    assert house.month(person).limit is None
    assert house.month(person).remaining is None


def test_days_know_what_was_generated_on_them(dora: Person) -> None:
    now = timezone.now()
    house.generate(dora, 3, now=now - timedelta(days=2))
    house.generate(dora, 2, now=now)
    house.store(dora, 10, generated=True)

    history: list[Any] = dora.api.get("/api/content/quota/history?days=4").json()["history"]

    assert [day["generated"] for day in history] == [0, 3, 0, 3]


def test_the_refusal_says_what_would_help(dora: Person) -> None:
    house.generate(dora, 8, now=LAST_OF_MONTH)
    house.reserve(dora, items=1, now=LAST_OF_MONTH)

    with pytest.raises(GenerationQuotaExceeded) as refused:
        house.generate(dora, 95, now=LAST_OF_MONTH)

    assert (refused.value.status, refused.value.code) == (403, "generation_quota_exceeded")
    assert refused.value.extra == {
        "current_usage_bytes": 0,
        "requested_bytes": 0,
        "reserved_bytes": 0,
        "limit_bytes": 1024**3,
        "plan_tier": "free",
        "upgrade_suggestion": {"tier": "starter", "storage_limit_bytes": 10 * 1024**3, "price_usd_month": "29.00"},
        "freeable": {"trash_bytes": 0, "old_version_bytes": 0},
        "requested_items": 95,
        "generated_this_month": 8,
        "reserved_items": 1,
        "monthly_generation_limit": 10,
        "resets_at": datetime(2027, 2, 1, tzinfo=UTC),
    }
