"""The backup's state, its figures, and what staff are told by mail."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.core import mail
from django.db import connection, transaction
from django.utils import timezone
from uuid_utils.compat import uuid7

from content.models import Change
from dr import alerts, figures, keeping, queries, states
from dr.models import Batch, DailyFigures, Drill, Finding, Run, SyncState, Verification
from engarde.accounts import operations as account_operations
from engarde.accounts.models import Mail, User
from engarde.common import wake
from engarde.common.middleware import WakeAfterWritesMiddleware
from engarde.common.scopes import system_scope
from tests.accounts.mailbox import deliver
from tests.accounts.races import race
from tests.dr import backup_house as house
from tests.people import Person

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _well(database: None, settings: Any) -> Iterator[None]:
    settings.BIGQUERY_SYNC_ENABLED = True
    house.make_well()
    yield
    house.make_well()


@pytest.fixture
def wakes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tasks that were woken."""
    woken: list[str] = []
    monkeypatch.setattr(wake, "after_commit", woken.append)
    monkeypatch.setattr(WakeAfterWritesMiddleware, "__call__", lambda self, request: self.get_response(request))
    return woken


def health(**waited: float) -> states.BackupHealth:
    """Return how the backup is once the oldest change has waited for so long."""
    return states.current(now=house.after(**waited))


def fail(at: datetime, status: str = "failing", reason: str = "BigQuery is away", probe_at: Any = None) -> None:
    states.note_failure(status=status, reason=reason, now=at, probe_at=probe_at)


# States


def test_it_is_healthy_while_the_oldest_change_is_young(alice: Person) -> None:
    found = health(seconds=300)

    assert (found.status, found.reason, found.lag_seconds) == ("healthy", "", 300)
    assert found.backlog > 0
    assert (found.rpo_target_seconds, found.is_past_target, states.http_status(found)) == (900, False, 200)


def test_without_a_backlog_there_is_no_lag(alice: Person) -> None:
    with house.nothing_waits():
        found = states.current_in_scope(now=timezone.now() + timedelta(days=1))

    assert (found.status, found.lag_seconds, found.backlog) == ("healthy", 0, 0)
    assert health(seconds=1).backlog > 0


def test_the_lag_is_that_of_the_oldest_change_which_waits(alice: Person) -> None:
    with house.nothing_waits():
        times = [NOW - timedelta(seconds=seconds) for seconds in (70, 50)]
        seqs = list(Change.objects.order_by("-seq").values_list("seq", flat=True)[:2])
        for seq, at in zip(sorted(seqs), times, strict=True):
            Change.objects.filter(seq=seq).update(acked_at=None, changed_at=at)
        found = states.current_in_scope(now=NOW)

    assert (found.lag_seconds, found.backlog) == (70, 2)


def test_it_is_lagging_when_the_oldest_change_has_waited_for_long(alice: Person) -> None:
    found = health(seconds=301)

    assert (found.status, found.since) == ("lagging", house.oldest())
    assert "301 s" in found.reason


@pytest.mark.parametrize(("waited", "answer"), [(899, 200), (900, 200), (901, 503)])
def test_a_lag_past_the_target_is_a_fault_for_monitors(alice: Person, waited: float, answer: int) -> None:
    found = health(seconds=waited)

    assert found.status == "lagging"
    assert (states.http_status(found), found.is_past_target) == (answer, answer == 503)


def test_the_target_is_a_setting(alice: Person, settings: Any) -> None:
    settings.DR_RPO_TARGET_SECONDS = 60

    assert (health(seconds=61).is_past_target, health(seconds=61).rpo_target_seconds) == (True, 60)
    assert not health(seconds=59).is_past_target


def test_a_failed_try_makes_it_failing_until_one_succeeds(alice: Person) -> None:
    fail(NOW)
    fail(NOW + timedelta(minutes=1), reason="BigQuery is still away")

    found = health(seconds=1)
    assert (found.status, found.reason, found.since) == ("failing", "BigQuery is still away", NOW)
    assert states.http_status(found) == 503

    states.note_success(now=NOW + timedelta(minutes=2))

    found, row = health(seconds=1), house.row()
    assert (found.status, found.reason) == ("healthy", "")
    assert (row.failing_since, row.next_probe_at) == (None, None)
    assert found.last_success_at == NOW + timedelta(minutes=2)


@pytest.mark.parametrize(("waited", "answer"), [(900, 200), (901, 503)])
def test_a_refusal_disables_it_with_a_reason(alice: Person, waited: float, answer: int) -> None:
    fail(NOW, status="disabled", reason="no access", probe_at=NOW + timedelta(minutes=1))

    found = health(seconds=waited)

    assert (found.status, found.reason, found.since, found.is_off) == ("disabled", "no access", NOW, False)
    assert states.http_status(found) == answer
    assert house.row().next_probe_at == NOW + timedelta(minutes=1)


def test_switched_off_by_setting_it_is_no_fault_whatever_waits(alice: Person, settings: Any) -> None:
    settings.BIGQUERY_SYNC_ENABLED = False
    fail(NOW)

    found = health(days=2)

    assert (found.status, found.reason) == ("disabled", "BIGQUERY_SYNC_ENABLED is off.")
    assert (found.is_off, found.is_past_target, states.http_status(found)) == (True, False, 200)
    assert found.backlog > 0


@pytest.mark.parametrize(("waited", "answer"), [(900, 200), (901, 503)])
def test_paused_it_is_a_fault_once_the_target_is_passed(alice: Person, waited: float, answer: int) -> None:
    states.pause(by=uuid4(), now=NOW)

    found = health(seconds=waited)

    assert (found.status, found.paused_at, found.since) == ("paused", NOW, NOW)
    assert "2026-03-02 12:00 UTC" in found.reason
    assert states.http_status(found) == answer


def test_batches_that_are_set_aside_make_it_failing(alice: Person) -> None:
    batch = house.batch(set_aside_at=NOW, last_error="rows rejected: too large")

    found = health(seconds=1)
    Batch.objects.filter(id=batch.id).update(acked_at=NOW)

    assert (found.status, found.set_aside, found.since) == ("failing", 1, NOW)
    assert "rows rejected: too large" in found.reason
    assert states.http_status(found) == 503
    assert health(seconds=1).status == "healthy"


def test_a_refusal_shows_before_a_pause_and_a_pause_before_a_failure(alice: Person) -> None:
    fail(NOW)
    states.pause(by=None, now=NOW)
    assert health(days=1).status == "paused"

    fail(NOW, status="disabled")
    assert health(days=1).status == "disabled"


# Writers


def test_a_failure_that_is_older_than_the_last_success_changes_nothing() -> None:
    states.note_success(now=NOW)

    fail(NOW - timedelta(seconds=1))

    assert (house.row().status, house.row().failing_since) == ("healthy", None)


def test_a_success_that_is_older_than_the_failure_changes_nothing() -> None:
    fail(NOW)

    states.note_success(now=NOW - timedelta(seconds=1))

    assert (house.row().status, house.row().last_success_at) == ("failing", None)


def test_the_last_success_never_goes_back() -> None:
    states.note_success(now=NOW)
    states.note_success(now=NOW - timedelta(seconds=5))

    assert house.row().last_success_at == NOW


def test_a_status_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="lagging"):
        fail(NOW, status="lagging")


def test_it_keeps_a_bounded_reason() -> None:
    fail(NOW, reason="x" * 100_000)

    assert len(house.row().reason) == states.LONGEST_REASON


def test_pausing_twice_keeps_the_first_pause(wakes: list[str]) -> None:
    first, second = uuid4(), uuid4()

    assert states.pause(by=first, now=NOW)
    assert not states.pause(by=second, now=NOW + timedelta(hours=1))

    assert (house.row().paused_by, house.row().paused_at) == (first, NOW)
    assert wakes == []


def test_two_who_pause_at_once_pause_it_once() -> None:
    house.row()
    people = [uuid4(), uuid4()]

    changed = race([partial(states.pause, by=who, now=NOW) for who in people], at=SyncState.objects.filter(id=1))

    assert sorted(changed) == [False, True]
    assert house.row().paused_by == people[changed.index(True)]


def test_resuming_wakes_it_once(wakes: list[str]) -> None:
    states.pause(by=None, now=NOW)

    assert states.resume(now=NOW)
    assert not states.resume(now=NOW)

    assert (house.row().paused_at, house.row().paused_by, wakes) == (None, None, ["dr.sync"])


def test_a_trigger_wakes_it_and_asks_for_access_again(wakes: list[str]) -> None:
    fail(NOW, status="disabled", probe_at=NOW + timedelta(minutes=1))

    states.trigger(now=NOW + timedelta(seconds=5))

    assert wakes == ["dr.sync"]
    assert (house.row().status, house.row().next_probe_at) == ("disabled", NOW + timedelta(seconds=5))


def test_a_trigger_has_what_was_put_off_tried_but_not_what_is_being_shipped_or_set_aside(wakes: list[str]) -> None:
    put_off = house.batch(last_error="away", attempts=3)
    others = [house.batch(attempts=1), house.batch(last_error="too large", set_aside_at=NOW)]
    ids = [batch.id for batch in (put_off, *others)]

    states.trigger(now=NOW)

    due = list(Batch.objects.filter(id__in=ids, next_try_at__lte=NOW))
    Batch.objects.filter(id__in=ids).delete()
    assert due == [put_off]


@pytest.mark.parametrize("how", ["trigger", "try_again", "ship_again"])
def test_batches_are_locked_in_the_order_in_which_the_sync_locks_them(wakes: list[str], how: str) -> None:
    """Whoever waits for the first holds no other: the sync, which holds it, can have them all."""
    ids = [uuid7() for _ in range(3)]
    cases: dict[str, tuple[dict[str, Any], Callable[[], Any]]] = {
        "trigger": ({"last_error": "away"}, lambda: states.trigger(now=NOW)),
        "try_again": ({"set_aside_at": NOW}, lambda: states.try_again(batch_ids=ids[::-1], now=NOW)),
        "ship_again": ({"acked_at": NOW}, lambda: ship_again(ids[::-1])),
    }
    fields, act = cases[how]
    for one in reversed(ids):
        house.batch(id=one, **fields)

    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            Batch.objects.select_for_update().get(id=ids[0])
            doing = pool.submit(elsewhere, act)
            wait_for_a_waiter()
            free = Batch.objects.select_for_update(nowait=True).filter(id__in=ids[1:])
            assert set(free.values_list("id", flat=True)) == set(ids[1:])
        doing.result(30)

    tried = Batch.objects.filter(id__in=ids, acked_at=None, next_try_at__lte=timezone.now()).count()
    Batch.objects.filter(id__in=ids).delete()
    assert tried == 3


def ship_again(ids: list[UUID]) -> None:
    with system_scope("a test ships batches again"), connection.cursor() as cursor:
        cursor.execute(keeping.SHIP_AGAIN, [[str(one) for one in ids]])


def elsewhere(act: Callable[[], Any]) -> None:
    try:
        act()
    finally:
        connection.close()


def wait_for_a_waiter() -> None:
    with connection.cursor() as cursor:
        for _ in range(2000):
            cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
            if cursor.fetchone()[0]:
                return
            time.sleep(0.005)
    raise AssertionError("nobody waits")


def test_a_trigger_while_it_is_paused_is_refused(wakes: list[str]) -> None:
    states.pause(by=None, now=NOW)

    with pytest.raises(states.BackupPaused):
        states.trigger(now=NOW)

    assert wakes == []


def test_only_batches_that_are_set_aside_are_tried_again(wakes: list[str]) -> None:
    aside, waiting = house.batch(set_aside_at=NOW), house.batch()

    assert states.try_again(batch_ids=[aside.id, waiting.id], now=NOW) == 1
    assert states.try_again(batch_ids=[waiting.id], now=NOW) == 0

    due = list(Batch.objects.filter(id__in=[aside.id, waiting.id], next_try_at__lte=NOW))
    Batch.objects.filter(id__in=[aside.id, waiting.id]).delete()
    assert due == [aside]
    assert wakes == ["dr.sync"]


# Figures


@pytest.fixture
def old_days() -> Iterator[None]:
    """Days long ago, that are the test's own, and no row for what is older."""
    DailyFigures.objects.filter(date__lt=date(2020, 1, 1)).delete()
    yield
    DailyFigures.objects.filter(date__lt=date(2020, 1, 1)).delete()


LONG_AGO = datetime(2001, 5, 5, 23, 59, tzinfo=UTC)


def day_of(at: datetime) -> figures.Day:
    [day] = figures.summary(now=at, days=1).days
    return day


def test_notes_of_a_day_add_up(old_days: None) -> None:
    for _ in range(2):
        figures.note(
            now=LONG_AGO,
            rows=3,
            bytes=100,
            batches=1,
            loads=1,
            retries=2,
            failures=1,
            seconds=0.25,
            ages=[0.2, 4.0, 100_000.0],
        )
    figures.note(now=LONG_AGO, failures=1)

    day, row = day_of(LONG_AGO), DailyFigures.objects.get(date=LONG_AGO.date())
    assert (day.rows, day.bytes, day.batches, day.loads, day.retries) == (6, 200, 2, 2, 4)
    assert (day.failures, day.seconds, day.rpo_max_seconds) == (3, 0.5, 100_000.0)
    assert [(number, count) for number, count in enumerate(row.rpo_counts) if count] == [(0, 2), (4, 2), (23, 2)]
    assert len(row.rpo_counts) == len(figures.RPO_BOUNDS) + 1


def test_days_are_those_of_utc(old_days: None) -> None:
    early = datetime(2001, 5, 5, 20, 30, tzinfo=timezone.get_fixed_timezone(-300))  # half past one in UTC, a day later
    figures.note(now=early, rows=1, ages=[1])
    figures.note(now=LONG_AGO, rows=2, ages=[1, 1])

    first, second = figures.summary(now=early, days=2).days

    assert [(day.date.day, day.rows) for day in (first, second)] == [(5, 2), (6, 1)]


def test_many_who_note_at_once_lose_nothing(old_days: None) -> None:
    figures.note(now=LONG_AGO, rows=1, ages=[7])

    race(
        [lambda: figures.note(now=LONG_AGO, rows=1, ages=[7])] * 4,
        at=DailyFigures.objects.filter(date=LONG_AGO.date()),
    )

    assert (day_of(LONG_AGO).rows, sum(DailyFigures.objects.get(date=LONG_AGO.date()).rpo_counts)) == (5, 5)


def test_a_note_in_a_transaction_that_fails_counts_nothing(old_days: None) -> None:
    def fail_later() -> None:
        with system_scope("a test fails"):
            figures.note(now=LONG_AGO, rows=1, ages=[1])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_later()

    assert day_of(LONG_AGO).rows == 0


def test_days_without_work_are_told_too(old_days: None) -> None:
    figures.note(now=LONG_AGO - timedelta(days=2), rows=5, ages=[1] * 5)

    days = figures.summary(now=LONG_AGO, days=4).days

    assert [day.rows for day in days] == [0, 5, 0, 0]
    assert [day.date.day for day in days] == [2, 3, 4, 5]
    assert (days[0].rpo_p50_seconds, days[1].rpo_p50_seconds) == (None, 0.75)


def test_totals_stay_when_days_are_no_longer_kept(old_days: None) -> None:
    before = figures.summary(now=LONG_AGO).total
    figures.note(now=LONG_AGO - timedelta(days=500), rows=2, seconds=1, ages=[1, 50])
    figures.note(now=LONG_AGO - timedelta(days=450), rows=3, ages=[1, 1, 200])
    figures.note(now=LONG_AGO - timedelta(days=400), rows=4, ages=[1] * 4)
    figures.note(now=LONG_AGO, rows=1, ages=[1])

    kept = DailyFigures.objects.filter(date__lt=date(2020, 1, 1)).order_by("date")
    assert [(row.date, row.rows) for row in kept] == [
        (figures.BEFORE, 5),
        (date(2000, 3, 31), 4),
        (LONG_AGO.date(), 1),
    ]
    assert (sum(kept[0].rpo_counts), kept[0].rpo_max_seconds) == (5, 200)
    found = figures.summary(now=LONG_AGO)
    assert found.total.rows - before.rows == 10
    assert found.since == date(2000, 3, 31)


@pytest.mark.parametrize(
    ("ages", "share", "expected"),
    [
        ([], 0.5, 0.0),
        ([0.4], 1.0, 0.5),
        ([0.4], 0.5, 0.25),
        ([2.5] * 100, 0.5, 2.5),
        ([4.0] * 99 + [50.0], 0.99, 5.0),
        ([4.0] * 98 + [50.0] * 2, 0.99, 52.5),
        ([1_000_000.0], 0.99, 86400.0),
        ([-3.0], 1.0, 0.5),
    ],
)
def test_percentiles_are_linear_inside_a_bucket(ages: list[float], share: float, expected: float) -> None:
    assert figures.percentile(figures._counts(ages), share) == pytest.approx(expected)


def test_a_percentile_is_never_above_what_was_seen(old_days: None) -> None:
    figures.note(now=LONG_AGO, rows=1, ages=[0.02])

    day = day_of(LONG_AGO)
    assert (day.rpo_p50_seconds, day.rpo_p99_seconds, day.rpo_max_seconds) == (0.02, 0.02, 0.02)


def test_the_lag_of_the_past_is_that_of_runs_and_of_what_still_waits() -> None:
    hour = timedelta(hours=1)
    at = datetime(2001, 1, 1, 12, tzinfo=UTC)
    run = Run.objects.create(started_at=at - 2.5 * hour, status="failing", lag_seconds=77)
    try:
        with house.nothing_waits():
            quiet = queries.lag_of(now=at, step=hour, steps=4)
            seq = Change.objects.order_by("-seq").values_list("seq", flat=True)[0]
            Change.objects.filter(seq=seq).update(acked_at=None, changed_at=at - 1.5 * hour)
            waiting = queries.lag_of(now=at, step=hour, steps=4)
    finally:
        run.delete()

    assert quiet[:3] == [0, 77, 0]  # the last step has the runs of other tests
    assert waiting == [0, 77, 1800, 5400]


# Alerts


@pytest.fixture
def now(alice: Person, monkeypatch: pytest.MonkeyPatch) -> datetime:
    """A time at which nothing is wrong: a drill went well, and nothing waits or is found."""
    at = timezone.now().replace(microsecond=0)
    monkeypatch.setattr(states, "oldest_waiting_at", lambda: None)
    with system_scope("a test tidies up"):
        Finding.objects.filter(repaired_at=None).update(repaired_at=at)
    drill("zerodb_loss", at)
    return at


@pytest.fixture
def sam(now: datetime) -> User:
    """A member of staff."""
    return house.new_user("sam", is_staff=True)


def drill(scenario: str, at: datetime, **fields: Any) -> Drill:
    """Keep a drill that went well."""
    values = {"scheduled": True, "ok": True, "started_at": at, "finished_at": at, **fields}
    with system_scope("a test drills"):
        return Drill.objects.create(scenario=scenario, **values)


def finding(at: datetime) -> Finding:
    with system_scope("a test finds"):
        verification = Verification.objects.create(started_at=at, finished_at=at, checked=9, missing=1)
        return Finding.objects.create(
            verification_id=verification.id,
            tenant_id=uuid4(),
            entity_type="content",
            entity_id=uuid4(),
            tier="zerodb",
            kind="missing",
            problem="gone",
            found_at=at,
        )


def mails_to(user: User) -> list[str]:
    return list(Mail.objects.filter(user=user).order_by("created_at").values_list("kind", flat=True))


def test_nothing_is_told_while_all_is_well(sam: User, now: datetime) -> None:
    assert not alerts.look(now=now)
    assert mails_to(sam) == []


def test_a_failure_is_told_after_five_minutes_once_and_again_after_a_day(sam: User, now: datetime) -> None:
    fail(now)

    told = [alerts.look(now=now + wait) for wait in map(_minutes, (4, 5, 6, 1444, 1445, 1446))]

    assert told == [False, True, False, False, True, False]
    assert mails_to(sam) == ["backup_trouble"] * 2


def _minutes(number: int) -> timedelta:
    return timedelta(minutes=number)


def test_the_end_is_told_once(sam: User, now: datetime) -> None:
    fail(now)
    alerts.look(now=now + _minutes(6))
    states.note_success(now=now + _minutes(7))

    assert [alerts.look(now=now + _minutes(minutes)) for minutes in (8, 9)] == [True, False]

    assert mails_to(sam) == ["backup_trouble", "backup_well"]
    assert (house.row().alerted, house.row().alerted_at is None) == ("", False)


def test_a_failure_that_comes_again_is_told_again(sam: User, now: datetime) -> None:
    for start in (0, 30):
        fail(now + _minutes(start))
        alerts.look(now=now + _minutes(start + 6))
        states.note_success(now=now + _minutes(start + 7))
        alerts.look(now=now + _minutes(start + 8))

    assert mails_to(sam) == ["backup_trouble", "backup_well"] * 2


def test_a_short_failure_is_not_told(sam: User, now: datetime) -> None:
    fail(now)
    alerts.look(now=now + _minutes(4))
    states.note_success(now=now + _minutes(4))

    assert not alerts.look(now=now + _minutes(10))
    assert mails_to(sam) == []


def test_a_refusal_is_told_at_once_with_what_to_do(sam: User, now: datetime) -> None:
    fail(now, status="disabled", reason="403: bigquery.tables.updateData denied\non engarde_dr")

    assert alerts.look(now=now)

    [text] = deliver(sam.email)
    subject = next(message.subject for message in mail.outbox if message.to == [sam.email])
    assert subject == "En Garde's backup needs you: access is refused"
    for expected in ("updateData denied", f"{now:%Y-%m-%d %H:%M} UTC", "docs/dr/runbook.md#access-refused", "roles"):
        assert expected in text, expected


def test_the_end_names_when_it_was_told(sam: User, now: datetime) -> None:
    fail(now, status="disabled", reason="no")
    alerts.look(now=now)
    states.note_success(now=now + _minutes(1))
    alerts.look(now=now + _minutes(1))

    text = deliver(sam.email)[-1]
    assert "well again" in text
    assert f"{now:%Y-%m-%d %H:%M} UTC" in text
    assert "healthy" in text


@pytest.mark.parametrize(("waited", "told"), [(900, False), (901, True)])
def test_more_at_risk_than_promised_is_told_even_while_it_is_paused(
    sam: User, now: datetime, monkeypatch: pytest.MonkeyPatch, waited: int, told: bool
) -> None:
    states.pause(by=None, now=now)
    monkeypatch.setattr(states, "oldest_waiting_at", lambda: now - timedelta(seconds=waited))

    assert alerts.look(now=now) is told

    assert mails_to(sam) == ["backup_trouble"] * told
    if told:
        assert "#past-the-rpo-target" in deliver(sam.email)[0]


def test_a_finding_is_told_until_it_is_mended(sam: User, now: datetime) -> None:
    found = finding(now)

    assert alerts.look(now=now)
    with system_scope("a test mends"):
        Finding.objects.filter(id=found.id).update(repaired_at=now)
    assert alerts.look(now=now + _minutes(1))

    first, last = deliver(sam.email)
    assert "1 finding is open" in first
    assert "#verification-findings" in first
    assert "well again" in last


def test_a_second_trouble_is_told_beside_the_first_and_the_end_of_one_is_not(sam: User, now: datetime) -> None:
    found = finding(now)
    alerts.look(now=now)
    fail(now)

    assert alerts.look(now=now + _minutes(5))
    states.note_success(now=now + _minutes(6))
    assert not alerts.look(now=now + _minutes(6))
    fail(now + _minutes(7))
    assert alerts.look(now=now + _minutes(12)), "it was over in between"

    texts = deliver(sam.email)
    assert [("it fails" in text, "faults" in text) for text in texts] == [(False, True), (True, True), (True, True)]
    with system_scope("a test tidies up"):
        Finding.objects.filter(id=found.id).delete()


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, False),
        ({"ok": False}, True),
        ({"scheduled": False}, True),
        ({"ok": None, "finished_at": None}, True),
    ],
)
def test_a_drill_has_to_go_well_every_fortnight(
    sam: User, now: datetime, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], told: bool
) -> None:
    monkeypatch.setattr(figures, "began_on", lambda: now.date() - timedelta(days=100))
    at = now + timedelta(days=15)
    last = drill("full_loss", at - timedelta(days=13), **fields)

    assert alerts.look(now=at) is told

    with system_scope("a test tidies up"):
        last.delete()
    if told:
        assert "#drill-overdue" in deliver(sam.email)[0]


@pytest.mark.parametrize(("days", "told"), [(None, False), (13, False), (16, True)])
def test_a_young_backup_needs_no_drill_yet(
    sam: User, now: datetime, monkeypatch: pytest.MonkeyPatch, days: int | None, told: bool
) -> None:
    monkeypatch.setattr(figures, "began_on", lambda: days and now.date() - timedelta(days=days))
    monkeypatch.setattr(queries, "last_good_drill", lambda: None)

    assert alerts.look(now=now) is told


def test_nothing_is_told_of_a_backup_that_is_switched_off(sam: User, now: datetime, settings: Any) -> None:
    fail(now, status="disabled")
    alerts.look(now=now)
    settings.BIGQUERY_SYNC_ENABLED = False

    assert not alerts.look(now=now + _minutes(1))

    assert mails_to(sam) == ["backup_trouble"]
    assert house.row().alerted == ""


def test_of_two_who_look_at_once_one_tells(sam: User, now: datetime) -> None:
    fail(now, status="disabled")

    told = race([lambda: alerts.look(now=now)] * 2, at=SyncState.objects.filter(id=1))

    assert sorted(told) == [False, True]
    assert mails_to(sam) == ["backup_trouble"]


def test_active_staff_alone_are_told(sam: User, now: datetime, alice: Person) -> None:
    gone = house.new_user("gone", is_staff=True, is_active=False)

    number = account_operations.mail_staff(kind=Mail.Kind.BACKUP_WELL, details={})

    assert number == Mail.objects.filter(kind="backup_well").count() >= 1
    assert mails_to(sam) == ["backup_well"]
    assert mails_to(gone) == []
    assert not Mail.objects.filter(user_id=alice.user_id).exists()


def test_what_is_decided_in_a_look_that_fails_is_not_told(
    sam: User, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(now, status="disabled")

    def die(**_: Any) -> int:
        raise OSError

    with monkeypatch.context() as patch:
        patch.setattr(account_operations, "mail_staff", die)
        with pytest.raises(OSError):  # noqa: PT011 -- the one above
            alerts.look(now=now)

    assert house.row().alerted == ""
    assert alerts.look(now=now)
    assert mails_to(sam) == ["backup_trouble"]
