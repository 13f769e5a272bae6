"""Reservations: held exactly, settled item by item, given back on any end, and gone when their holder dies."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engarde.common.scopes import tenant_scope
from quotas import operations, reconciliation, reservations
from quotas.models import QuotaUsage, Reservation
from quotas.operations import Limits
from quotas.refusals import GenerationQuotaExceeded, StorageQuotaExceeded
from quotas.tasks import sweep_reservations
from tests import people
from tests.people import Person
from tests.quotas import house
from tests.stored import stored_by

LIMIT = 1000


@pytest.fixture
def dora(database: None) -> Person:
    """Owner of a tenant that may store 1,000 bytes and generate 10 items a month."""
    person = people.new_owner("dora", storage_limit=LIMIT)
    with house.inside(person) as tenant_id:
        limits = Limits(storage_bytes=LIMIT, generated_items=10, reason="A test.")
        operations.override_limits(tenant_id=tenant_id, limits=limits, now=timezone.now())
    return person


def check(person: Person, *, used: int, reserved: int) -> None:
    stored = stored_by(person.tenant_id)
    assert stored.counters_are_true, stored
    assert (stored.counted_bytes, stored.reserved_bytes) == (used, reserved)
    assert house.held(person) == (reserved, reserved)


def test_what_is_held_is_not_to_be_had_by_others(dora: Person) -> None:
    house.reserve(dora, size=600)

    with pytest.raises(StorageQuotaExceeded) as refused:
        house.store(dora, 401)
    house.store(dora, 400)

    assert (refused.value.extra["reserved_bytes"], refused.value.extra["current_usage_bytes"]) == (600, 0)
    check(dora, used=400, reserved=600)


def test_what_does_not_fit_is_not_held(dora: Person) -> None:
    house.store(dora, 500)

    with pytest.raises(StorageQuotaExceeded):
        house.reserve(dora, size=501, items=1)
    with pytest.raises(GenerationQuotaExceeded):
        house.reserve(dora, size=1, items=11)

    check(dora, used=500, reserved=0)
    assert house.month(dora).reserved == 0
    house.reserve(dora, size=500, items=10)


@pytest.mark.parametrize(
    ("size", "items", "minutes"), [(-1, 0, 1), (0, -1, 1), (1, 1, 0), (1, 1, -5), (1, 1, 7 * 24 * 60 + 1)]
)
def test_nonsense_is_not_held(dora: Person, size: int, items: int, minutes: float) -> None:
    with pytest.raises(ValueError, match="a reservation holds"):
        house.reserve(dora, size=size, items=items, minutes=minutes)

    check(dora, used=0, reserved=0)


def test_a_holder_holds_once(dora: Person) -> None:
    holder = house.reserve(dora, size=100)

    with pytest.raises(reservations.AlreadyReserved):
        house.reserve(dora, size=100, holder=holder)

    check(dora, used=0, reserved=100)


def test_an_item_is_paid_from_the_reservation(dora: Person) -> None:
    holder = house.reserve(dora, size=600, items=2)
    house.store(dora, 400)

    house.store(dora, 250, reservation_id=holder, generated=True)

    check(dora, used=650, reserved=350)
    assert (house.month(dora).generated, house.month(dora).reserved) == (1, 1)


def test_an_item_larger_than_what_is_left_takes_the_rest_from_the_free_space(dora: Person) -> None:
    holder = house.reserve(dora, size=100)

    house.store(dora, 1000, reservation_id=holder)

    check(dora, used=1000, reserved=0)


def test_an_item_larger_than_reservation_and_free_space_is_refused_and_leaves_the_reservation(dora: Person) -> None:
    holder = house.reserve(dora, size=100, items=1)
    house.store(dora, 500)

    with pytest.raises(StorageQuotaExceeded):
        house.store(dora, 501, reservation_id=holder, generated=True)

    check(dora, used=500, reserved=100)
    assert (house.month(dora).generated, house.month(dora).reserved) == (0, 1)


def test_more_items_than_were_reserved_count_as_any_others(dora: Person) -> None:
    holder = house.reserve(dora, items=1)
    for _ in range(10):
        house.generate(dora, holder=holder)

    with pytest.raises(GenerationQuotaExceeded) as refused:
        house.generate(dora, holder=holder)

    assert (house.month(dora).generated, house.month(dora).reserved) == (10, 0)
    assert {
        name: refused.value.extra[name]
        for name in ("requested_items", "generated_this_month", "monthly_generation_limit")
    } == {
        "requested_items": 1,
        "generated_this_month": 10,
        "monthly_generation_limit": 10,
    }


def test_the_rest_is_given_back_once(dora: Person) -> None:
    holder = house.reserve(dora, size=600, items=5)
    house.store(dora, 100, reservation_id=holder, generated=True)

    assert [house.release(dora, holder) for _ in range(3)] == [True, False, False]

    check(dora, used=100, reserved=0)
    assert (house.month(dora).generated, house.month(dora).reserved) == (1, 0)


def test_a_reservation_of_another_tenant_pays_for_nothing(dora: Person, charlie: Person) -> None:
    holder = house.reserve(dora, size=600)

    house.store(charlie, 10, reservation_id=holder)
    assert house.release(charlie, holder) is False

    check(dora, used=0, reserved=600)
    check(charlie, used=10, reserved=0)


def test_an_expired_reservation_pays_for_nothing_and_is_swept(dora: Person) -> None:
    now = timezone.now()
    holder = house.reserve(dora, size=600, items=3, now=now)
    later = now + timedelta(minutes=10)

    house.store(dora, 300, reservation_id=holder, now=later)
    check(dora, used=300, reserved=600)
    reservations.sweep(now=later - timedelta(seconds=1))
    check(dora, used=300, reserved=600)
    assert reservations.sweep(now=later) >= 1

    check(dora, used=300, reserved=0)
    assert house.month(dora).reserved == 0


def test_an_extended_reservation_goes_on(dora: Person) -> None:
    now = timezone.now()
    holder = house.reserve(dora, size=600, now=now)
    with house.inside(dora) as tenant_id:
        until = now + timedelta(minutes=30)
        assert reservations.extend(tenant_id=tenant_id, reservation_id=holder, expires_at=until)
        assert not reservations.extend(tenant_id=tenant_id, reservation_id=uuid4(), expires_at=until)

    reservations.sweep(now=now + timedelta(minutes=20))

    check(dora, used=0, reserved=600)


@pytest.mark.parametrize("way", ["create", "generate", "reserve", "bulk", "require_room", "check"])
def test_nothing_is_refused_because_of_a_reservation_that_has_expired(dora: Person, way: str) -> None:
    trashed = house.store(dora, 900)
    assert dora.api.delete(f"/api/content/{trashed}").status_code == 200
    house.reserve(dora, size=900, items=10, now=timezone.now() - timedelta(minutes=11))

    if way == "create":
        house.store(dora, 900)
    elif way == "generate":
        house.generate(dora, 10)
    elif way == "check":
        answer = dora.api.post("/api/content/quota/check", {"content_size_bytes": 900, "items": 10})
        assert answer.json()["can_store"] is True
    elif way == "reserve":
        house.reserve(dora, size=900, items=10)
    elif way == "bulk":
        answer = dora.api.post("/api/content/bulk", {"action": "restore", "ids": [str(trashed)]})
        assert answer.json()["results"][0]["status"] == 200
    else:
        from quotas import charging

        charging.require_room(tenant_id=dora.tenant_id, size_bytes=900, now=timezone.now())


def test_the_sweep_runs_as_a_task(dora: Person) -> None:
    house.reserve(dora, size=600, now=timezone.now() - timedelta(minutes=11))

    sweep_reservations.run()

    check(dora, used=0, reserved=0)


# A worker that dies


def test_what_a_killed_worker_held_is_gone_after_its_expiry_and_nothing_else_changed(dora: Person) -> None:
    house.store(dora, 100)
    other = house.reserve(dora, size=50, items=1, minutes=60)
    before = timezone.now()
    command = [sys.executable, "-m", "tests.quotas.holder", str(dora.tenant_id), "600", "4", "30", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "stored 2\n"
        os.kill(worker.pid, signal.SIGKILL)
    stored = stored_by(dora.tenant_id)
    assert (stored.counted_bytes, stored.reserved_bytes) == (160, 590)

    reservations.sweep(now=before)
    assert stored_by(dora.tenant_id) == stored
    assert reservations.sweep(now=timezone.now() + timedelta(minutes=10)) >= 1

    check(dora, used=160, reserved=50)
    after = stored_by(dora.tenant_id)
    assert (after.items, after.versions, after.spooled, after.changes) == (3, 3, 3, 3)
    assert (house.month(dora).generated, house.month(dora).reserved) == (2, 1)
    with house.inside(dora):
        assert list(Reservation.objects.values_list("id", flat=True)) == [other]


# Races


def at_once(calls: Sequence[Any]) -> list[Any]:
    """Run calls in threads of their own, each with its own connection."""

    def run(call: Any) -> Any:
        try:
            return call()
        except (StorageQuotaExceeded, GenerationQuotaExceeded, reservations.AlreadyReserved) as error:
            return error
        finally:
            connection.close()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def test_of_many_who_reserve_at_once_as_many_get_it_as_fit(dora: Person) -> None:
    done = at_once([lambda: house.reserve(dora, size=90, items=1)] * 16)

    refused = [one for one in done if isinstance(one, Exception)]
    assert len(refused) == 6
    assert {type(one) for one in refused} == {GenerationQuotaExceeded}
    check(dora, used=0, reserved=900)


def test_of_two_who_use_one_id_one_gets_it(dora: Person) -> None:
    holder = uuid4()

    done = at_once([lambda: house.reserve(dora, size=100, holder=holder)] * 8)

    assert sum(isinstance(one, reservations.AlreadyReserved) for one in done) == 7
    check(dora, used=0, reserved=100)


def test_settling_releasing_and_sweeping_at_once_give_back_once(dora: Person) -> None:
    past = timezone.now() - timedelta(minutes=20)
    for _ in range(5):
        holder = house.reserve(dora, size=180, items=1, now=past)
        release = partial(house.release, dora, holder)

        at_once(
            [
                partial(house.store, dora, 10, reservation_id=holder),
                release,
                partial(reservations.sweep, now=timezone.now()),
                release,
            ]
        )

    check(dora, used=50, reserved=0)
    assert house.month(dora).reserved == 0


# Whatever happens

steps = st.one_of(
    st.tuples(st.just("reserve"), st.integers(0, 500), st.integers(0, 4)),
    st.tuples(st.just("settle"), st.integers(0, 300), st.integers(0, 1)),
    st.tuples(st.just("store"), st.integers(0, 300), st.just(0)),
    st.tuples(st.just("release"), st.just(0), st.just(0)),
    st.tuples(st.just("expire"), st.just(0), st.just(0)),
)


def live_through(sequence: list[tuple[str, int, int]], choices: st.DataObject) -> None:
    """Do the steps, and compare the counters with a model after each."""
    person, now = people.new_owner("model", storage_limit=LIMIT), timezone.now()
    used, model = 0, dict[Any, list[int]]()
    for step, size, items in sequence:
        now += timedelta(seconds=1)
        holder = choices.draw(st.sampled_from(sorted(model, key=str))) if model else None
        free = LIMIT - used - sum(held for held, _ in model.values())
        if step == "reserve":
            if size <= free:
                model[house.reserve(person, size=size, items=items, now=now)] = [size, items]
            else:
                with pytest.raises(StorageQuotaExceeded):
                    house.reserve(person, size=size, items=items, now=now)
        elif step in {"settle", "store"}:
            mine = model.get(holder, [0, 0]) if step == "settle" else [0, 0]
            drawn = min(mine[0], size)
            if size - drawn <= max(0, free) or size == drawn:
                options = {"reservation_id": holder, "generated": bool(items)} if step == "settle" else {}
                house.store(person, size, now=now, **options)
                used, mine[0], mine[1] = used + size, mine[0] - drawn, mine[1] - min(mine[1], items)
            else:
                with pytest.raises(StorageQuotaExceeded):
                    house.store(person, size, now=now, reservation_id=holder if step == "settle" else None)
        elif step == "release" and holder:
            assert house.release(person, holder)
            del model[holder]
        elif step == "expire" and model:
            now += timedelta(minutes=11)
            reservations.sweep(now=now)
            model.clear()
        check(person, used=used, reserved=sum(held for held, _ in model.values()))
        assert house.month(person, now).reserved == sum(items for _, items in model.values())
    assert reconciliation.reconcile(tenant_id=person.tenant_id, now=now).differences == {}


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(sequence=st.lists(steps, min_size=5, max_size=20), choices=st.data())
def test_counters_equal_reservations_after_any_sequence(
    database: None, sequence: list[tuple[str, int, int]], choices: st.DataObject
) -> None:
    live_through(sequence, choices)


@pytest.mark.soak
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(sequence=st.lists(steps, min_size=5, max_size=30), choices=st.data())
def test_counters_equal_reservations_after_very_many_sequences(
    database: None, sequence: list[tuple[str, int, int]], choices: st.DataObject
) -> None:
    live_through(sequence, choices)


def test_the_database_itself_refuses_what_is_below_zero(dora: Person) -> None:
    from django.db import IntegrityError

    holder = house.reserve(dora, size=10, items=1)
    with pytest.raises(IntegrityError, match="reservation_not_negative"), tenant_scope(dora.tenant_id):
        Reservation.objects.filter(id=holder).update(bytes=-1)
    with pytest.raises(IntegrityError, match="quota_override_has_reason"), tenant_scope(dora.tenant_id):
        QuotaUsage.objects.update(override_reason="")
