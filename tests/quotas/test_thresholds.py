"""Warnings: each is sent exactly when the rules say, over weeks of usage that goes up and down."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import UUID

import pytest
from django.core import mail
from django.db import IntegrityError
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from engarde.common.scopes import system_scope
from quotas import alerts, courier, operations
from quotas.models import Alert, Plan, QuotaUsage
from quotas.operations import Limits
from quotas.tasks import look_at_thresholds
from quotas.thresholds import THRESHOLDS, look
from tests import people
from tests.people import Person
from tests.quotas import house

LIMIT = 1000
START = datetime(2027, 3, 1, 9, tzinfo=UTC)
DAY = timedelta(hours=24)


class Rules:
    """The rules as they are promised, for one tenant."""

    def __init__(self) -> None:
        self.is_armed = dict.fromkeys(THRESHOLDS, True)
        self.mailed_at: dict[int, datetime] = {}

    def mail(self, percent: float, now: datetime) -> int | None:
        """Return the threshold that a mail is due for."""
        for threshold in THRESHOLDS:
            if percent <= threshold - 5:
                self.is_armed[threshold] = True
        crossed = [threshold for threshold in THRESHOLDS if self.is_armed[threshold] and percent >= threshold]
        for threshold in crossed[:-1]:
            self.is_armed[threshold] = False  # the highest one's mail tells of them too
        if not crossed or now - self.mailed_at.get(crossed[-1], START - DAY) < DAY:
            return None
        self.is_armed[crossed[-1]] = False
        self.mailed_at[crossed[-1]] = now
        return crossed[-1]


class Weeks:
    """A tenant's usage over weeks, and every mail that its owner got."""

    def __init__(self, person: Person) -> None:
        self.person, self.now, self.used, self.limit = person, START, 0, LIMIT
        self.item: UUID = house.store(person, 0, now=START)
        self.rules, self.mails = Rules(), list[tuple[datetime, int]]()

    def wait(self, hours: float) -> None:
        self.now += timedelta(hours=hours)

    def use(self, size: int) -> None:
        if size == self.used:
            return  # a change that changes nothing writes nothing
        house.resize(self.person, self.item, size, now=self.now)
        self.used = size
        self.check()

    def set_limit(self, limit: int) -> None:
        with house.inside(self.person) as tenant_id:
            limits = Limits(storage_bytes=limit, reason="A test.")
            operations.override_limits(tenant_id=tenant_id, limits=limits, now=self.now)
        self.limit = limit
        self.check()

    def look(self) -> None:
        alerts.sweep(now=self.now)
        self.check()

    def check(self) -> None:
        """Compare what was sent with the rules."""
        before = len(mail.outbox)
        for _ in range(2):  # whatever runs twice sends once
            courier.run(now=lambda: self.now)
        sent = [
            next(threshold for threshold in THRESHOLDS[::-1] if said(str(message.subject), threshold))
            for message in mail.outbox[before:]
            if message.to == [self.person.email]
        ]
        due = self.rules.mail(self.used * 100 / self.limit, self.now)
        assert sent == ([due] if due else []), (self.used, self.limit, self.now)
        self.mails += [(self.now, threshold) for threshold in sent]


def said(subject: str, threshold: int) -> bool:
    return "is full" in subject if threshold == 100 else f"used {threshold} %" in subject


steps = st.one_of(
    st.tuples(st.just("use"), st.integers(0, 1000)),
    st.tuples(
        st.just("use"), st.sampled_from([0, 649, 650, 651, 699, 700, 800, 801, 849, 850, 900, 949, 950, 951, 999, 1000])
    ),
    st.tuples(st.just("limit"), st.integers(500, 2000)),
    st.tuples(st.just("wait"), st.sampled_from([1, 5, 12, 23, 24, 25, 72, 168])),
    st.tuples(st.just("look"), st.just(0)),
)


def live_through(sequence: list[tuple[str, int]]) -> None:
    weeks = Weeks(people.new_owner("dora", storage_limit=LIMIT))
    for step, number in sequence:
        if step == "use":
            weeks.use(min(number, max(weeks.limit, weeks.used)))
        elif step == "limit":
            weeks.set_limit(number)
        elif step == "wait":
            weeks.wait(number)
        else:
            weeks.look()
    for threshold in THRESHOLDS:
        times = [when for when, told in weeks.mails if told == threshold]
        assert all(later - earlier >= DAY for earlier, later in pairwise(times))


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@example(sequence=[("use", 700), ("use", 650), ("use", 700), ("wait", 25), ("look", 0)])
@example(sequence=[("use", 1000), ("use", 0), ("use", 960), ("use", 860), ("wait", 25), ("look", 0), ("use", 950)])
@given(sequence=st.lists(steps, min_size=5, max_size=25))
def test_each_mail_is_sent_exactly_when_the_rules_say(database: None, sequence: list[tuple[str, int]]) -> None:
    live_through(sequence)


@pytest.mark.soak
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(sequence=st.lists(steps, min_size=10, max_size=60))
def test_each_mail_is_sent_exactly_when_the_rules_say_over_very_many_weeks(
    database: None, sequence: list[tuple[str, int]]
) -> None:
    live_through(sequence)


@pytest.fixture
def weeks(database: None) -> Weeks:
    """Weeks of a tenant that may store 1,000 bytes."""
    return Weeks(people.new_owner("dora", storage_limit=LIMIT))


def test_crossing_upward_mails_once_a_threshold(weeks: Weeks) -> None:
    for size in (699, 700, 701, 849, 850, 949, 950, 999, 1000, 1000):
        weeks.use(size)

    assert [threshold for _, threshold in weeks.mails] == [70, 85, 95, 100]


def test_several_thresholds_at_once_make_one_mail_for_the_highest(weeks: Weeks) -> None:
    weeks.use(960)
    weeks.use(1000)

    assert [threshold for _, threshold in weeks.mails] == [95, 100]


def test_it_is_armed_again_five_points_below_and_not_before(weeks: Weeks) -> None:
    for size in (700, 651, 700):
        weeks.use(size)
        weeks.wait(30)
    assert len(weeks.mails) == 1

    for size in (650, 700):
        weeks.use(size)
        weeks.wait(30)

    assert [threshold for _, threshold in weeks.mails] == [70, 70]


def test_a_second_crossing_within_a_day_waits_for_the_day_to_end_and_for_no_write(weeks: Weeks) -> None:
    weeks.use(700)
    weeks.wait(1)
    weeks.use(0)
    weeks.use(800)
    weeks.wait(22.9)
    weeks.look()
    assert len(weeks.mails) == 1

    weeks.wait(0.1)
    weeks.look()

    assert weeks.mails == [(START, 70), (START + DAY, 70)]


def test_a_second_crossing_that_is_over_when_the_day_ends_mails_nobody(weeks: Weeks) -> None:
    weeks.use(700)
    weeks.use(0)
    weeks.use(800)
    weeks.use(690)
    weeks.wait(25)

    weeks.look()

    assert len(weeks.mails) == 1


def test_a_limit_lowered_onto_usage_is_a_crossing(weeks: Weeks) -> None:
    weeks.use(500)

    weeks.set_limit(500)

    assert [threshold for _, threshold in weeks.mails] == [100]


def test_a_plan_that_shrinks_for_everybody_is_noticed_by_the_sweep(database: None) -> None:
    plan = Plan.objects.create(tier="test-plan", rank=99, storage_limit_bytes=LIMIT)
    person = people.new_owner("dora", tier="test-plan")
    house.store(person, 600)

    try:
        Plan.objects.filter(tier=plan.tier).update(storage_limit_bytes=800)
        look_at_thresholds.run()
        look_at_thresholds.run()
        assert [alert.threshold for alert in alerts_of(person)] == [70]
    finally:
        with system_scope("a test puts a plan away"):
            QuotaUsage.objects.filter(plan=plan).update(plan="free")
        plan.delete()


def test_a_write_that_is_refused_alerts_nobody(weeks: Weeks) -> None:
    from quotas.refusals import StorageQuotaExceeded

    weeks.use(600)
    with pytest.raises(StorageQuotaExceeded):
        house.store(weeks.person, 401, now=weeks.now)

    weeks.check()
    assert weeks.mails == []


def test_an_unlimited_tenant_crosses_nothing(database: None) -> None:
    person = people.new_owner(tier="enterprise")
    house.store(person, 1000)

    alerts.sweep(now=START)

    assert alerts_of(person) == []


def alerts_of(person: Person) -> list[Alert]:
    with house.inside(person) as tenant_id:
        return list(Alert.objects.filter(tenant_id=tenant_id).order_by("created_at"))


def test_the_database_itself_allows_one_alert_a_threshold_in_a_day(weeks: Weeks) -> None:
    weeks.use(700)
    [alert] = alerts_of(weeks.person)
    values = {"tenant_id": alert.tenant_id, "used_bytes": 1, "limit_bytes": 1, "plan_tier": "free"}

    def insert(threshold: int, after: timedelta) -> None:
        created_at = START + after
        with house.inside(weeks.person):
            Alert.objects.create(threshold=threshold, created_at=created_at, quiet_until=created_at + DAY, **values)

    for after in (timedelta(), timedelta(hours=23), timedelta(hours=-23)):
        with pytest.raises(IntegrityError, match="one_alert_a_threshold_in_a_day"):
            insert(70, after)
    insert(85, timedelta())
    insert(70, DAY)


@pytest.mark.parametrize("hundredths", [None, 0, 6999, 7000, 8499, 8500, 9500, 9999, 10_000, 25_000])
def test_looking_twice_finds_nothing_new(hundredths: int | None) -> None:
    first = look(hundredths, [])

    again = look(hundredths, first.disarmed)

    assert again.crossed is None
    assert again.disarmed == first.disarmed
