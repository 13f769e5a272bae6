"""Charging: exact to the byte, under any concurrency, and always explained."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from django.db import IntegrityError, connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engarde.common.scopes import system_scope, tenant_scope
from quotas.charging import CHARGE
from quotas.models import Plan, QuotaUsage
from quotas.usage import Level, Usage
from tests import people
from tests.people import Person
from tests.stored import Stored, stored_by

GB = 1024**3
LIMIT = 1000


@pytest.fixture
def dora(database: None) -> Person:
    """Owner of a tenant that may store 1,000 bytes."""
    return people.new_owner("dora", storage_limit=LIMIT)


def post(person: Person, size: int, **fields: Any) -> Any:
    return person.api.post("/api/content", {"title": "A title", "type": "post", "body": "x" * size, **fields})


def set_limit(person: Person, limit: int | None) -> None:
    with tenant_scope(person.tenant_id):
        assert QuotaUsage.objects.update(storage_limit_override=limit, override_reason="A test.") == 1


def set_counters(person: Person, **counters: int) -> None:
    with tenant_scope(person.tenant_id):
        assert QuotaUsage.objects.update(**counters) == 1


def used(person: Person) -> int:
    stored = stored_by(person.tenant_id)
    assert stored.counters_are_true, stored
    return stored.counted_bytes


def refused(answer: Any) -> dict[str, Any]:
    assert (answer.status_code, answer.json()["code"]) == (403, "storage_quota_exceeded"), answer.content[:300]
    assert answer["Content-Type"] == "application/problem+json"
    return dict(answer.json())


# Up to the limit, and no further


def test_it_allows_exactly_the_limit(dora: Person) -> None:
    assert post(dora, LIMIT).status_code == 201
    assert used(dora) == LIMIT


def test_it_refuses_one_byte_more_and_stores_nothing(dora: Person) -> None:
    post(dora, 1)
    before = stored_by(dora.tenant_id)

    refused(post(dora, LIMIT))

    assert stored_by(dora.tenant_id) == before
    assert dora.api.get("/api/content").json()["pagination"]["total"] == 1


def test_it_counts_bytes_and_not_characters(dora: Person) -> None:
    refused(dora.api.post("/api/content", {"title": "A title", "type": "post", "body": "ä" * 501}))
    assert dora.api.post("/api/content", {"title": "ä" * 300, "type": "post", "body": "ä" * 500}).status_code == 201
    assert used(dora) == LIMIT


def test_it_explains_a_refusal_and_what_would_help(dora: Person) -> None:
    trashed = post(dora, 150).json()["id"]
    dora.api.delete(f"/api/content/{trashed}")
    changed = post(dora, 300).json()["id"]
    dora.api.patch(f"/api/content/{changed}", {"body": "x" * 400})
    set_counters(dora, reserved_bytes=50)

    problem = refused(post(dora, 551))

    assert {name: problem[name] for name in problem if name not in {"type", "title", "detail", "request_id"}} == {
        "status": 403,
        "code": "storage_quota_exceeded",
        "current_usage_bytes": 400,
        "requested_bytes": 551,
        "reserved_bytes": 50,
        "limit_bytes": LIMIT,
        "plan_tier": "free",
        "upgrade_suggestion": {"tier": "starter", "storage_limit_bytes": 10 * GB, "price_usd_month": "29.00"},
        "freeable": {"trash_bytes": 150, "old_version_bytes": 300},
    }
    assert post(dora, 550).status_code == 201


@pytest.mark.parametrize(
    ("tier", "in_use", "suggested"),
    [
        ("free", 1 * GB, {"tier": "starter", "storage_limit_bytes": 10 * GB, "price_usd_month": "29.00"}),
        ("free", 600 * GB, {"tier": "enterprise", "storage_limit_bytes": None, "price_usd_month": None}),
        ("business", 500 * GB, {"tier": "enterprise", "storage_limit_bytes": None, "price_usd_month": None}),
    ],
)
def test_it_suggests_the_smallest_plan_that_is_large_enough(
    database: None, tier: str, in_use: int, suggested: dict[str, Any]
) -> None:
    person = people.new_owner(tier=tier)
    set_counters(person, used_bytes=in_use)

    assert refused(post(person, 1))["upgrade_suggestion"] == suggested


def test_it_suggests_nothing_beyond_the_largest_plan(database: None) -> None:
    person = people.new_owner(tier="enterprise", storage_limit=10)

    assert refused(post(person, 11))["upgrade_suggestion"] is None


def test_it_allows_an_empty_item_when_full(dora: Person) -> None:
    post(dora, LIMIT)

    assert post(dora, 0).status_code == 201
    assert used(dora) == LIMIT


def test_it_counts_reservations_as_taken(dora: Person) -> None:
    set_counters(dora, reserved_bytes=600)

    refused(post(dora, 401))
    assert post(dora, 400).status_code == 201


# Growing, shrinking, freeing


def test_a_change_is_charged_for_its_growth_only(dora: Person) -> None:
    item = post(dora, 600).json()["id"]

    assert dora.api.patch(f"/api/content/{item}", {"body": "x" * LIMIT}).status_code == 200
    assert used(dora) == LIMIT


def test_a_change_that_grows_over_the_limit_changes_nothing(dora: Person) -> None:
    item = post(dora, 600).json()["id"]
    before = stored_by(dora.tenant_id)

    problem = refused(dora.api.patch(f"/api/content/{item}", {"body": "x" * (LIMIT + 1), "title": "Another"}))

    assert (problem["current_usage_bytes"], problem["requested_bytes"]) == (600, 401)
    assert stored_by(dora.tenant_id) == before
    unchanged = dora.api.get(f"/api/content/{item}").json()
    assert (unchanged["version"], unchanged["title"], len(unchanged["body"])) == (1, "A title", 600)


def test_a_change_that_shrinks_gives_bytes_back(dora: Person) -> None:
    item = post(dora, LIMIT).json()["id"]

    dora.api.patch(f"/api/content/{item}", {"body": "x"})

    assert used(dora) == 1
    assert post(dora, LIMIT - 1).status_code == 201


def test_a_change_that_adds_no_bytes_is_allowed_when_full(dora: Person) -> None:
    item = post(dora, LIMIT).json()["id"]

    assert dora.api.patch(f"/api/content/{item}", {"title": "A longer title", "tags": ["a"]}).status_code == 200
    assert dora.api.patch(f"/api/content/{item}", {"body": "y" * LIMIT}).status_code == 200
    assert used(dora) == LIMIT


def test_a_deletion_frees_its_bytes_once(dora: Person) -> None:
    item = post(dora, LIMIT).json()["id"]

    assert dora.api.delete(f"/api/content/{item}").status_code == 200
    assert dora.api.delete(f"/api/content/{item}").status_code == 404
    assert used(dora) == 0
    assert post(dora, LIMIT).status_code == 201


def test_a_limit_below_what_is_stored_blocks_growth_and_nothing_else(dora: Person) -> None:
    first, second = post(dora, 500).json()["id"], post(dora, 500).json()["id"]
    set_limit(dora, 100)

    assert dora.api.get(f"/api/content/{first}").status_code == 200
    assert dora.api.get("/api/content").status_code == 200
    refused(post(dora, 1))
    refused(dora.api.patch(f"/api/content/{first}", {"body": "x" * 501}))
    assert post(dora, 0).status_code == 201
    assert dora.api.patch(f"/api/content/{first}", {"body": "x" * 499}).status_code == 200
    refused(dora.api.patch(f"/api/content/{first}", {"body": "x" * 500}))
    assert dora.api.delete(f"/api/content/{second}").status_code == 200
    answer = dora.api.get("/api/content")
    assert used(dora) == 499
    assert (answer["X-Quota-Remaining"], answer["X-Quota-Percent"], answer["X-Quota-Warning"]) == (
        "0",
        "499.00",
        "exceeded",
    )


def test_a_raised_limit_counts_at_once(dora: Person) -> None:
    refused(post(dora, LIMIT + 1))

    set_limit(dora, LIMIT + 1)

    assert post(dora, LIMIT + 1).status_code == 201


def test_one_tenants_use_is_nothing_to_another(dora: Person, charlie: Person) -> None:
    post(dora, LIMIT)

    assert post(charlie, LIMIT).status_code == 201
    assert used(charlie) == LIMIT


# Headers

QUOTA_HEADERS = ("X-Quota-Used", "X-Quota-Limit", "X-Quota-Remaining", "X-Quota-Percent", "X-Quota-Warning")


def headers_of(answer: Any) -> tuple[str | None, ...]:
    return tuple(answer.headers.get(name) for name in QUOTA_HEADERS)


def test_every_answer_tells_the_state_after_the_call(dora: Person) -> None:
    created = post(dora, 333)
    item = f"/api/content/{created.json()['id']}"

    assert headers_of(created) == ("333", "1000", "667", "33.30", "normal")
    assert headers_of(dora.api.get(item)) == headers_of(dora.api.get("/api/content")) == headers_of(created)
    assert headers_of(dora.api.patch(item, {"body": "x" * 700})) == ("700", "1000", "300", "70.00", "warning")
    assert headers_of(dora.api.patch(item, {"body": "x" * 700})) == ("700", "1000", "300", "70.00", "warning")
    assert headers_of(dora.api.delete(item)) == ("0", "1000", "1000", "0.00", "normal")
    assert created["RateLimit-Policy"].startswith('"storage";q=1000')


def test_errors_tell_it_too(dora: Person) -> None:
    item = post(dora, 950).json()["id"]
    viewer = people.new_colleague(dora, "viewer")
    answers = [
        post(dora, 51),
        post(dora, 1, title=5),
        dora.api.get("/api/content?page=0"),
        dora.api.get("/api/content/01a204dc-5242-725b-8f16-7437be78a214"),
        dora.api.put("/api/content", {}),
        dora.api.generic("POST", "/api/content", "{", content_type="application/json"),
        dora.api.generic("POST", "/api/content", "{}", content_type="text/plain"),
        viewer.api.delete(f"/api/content/{item}"),
    ]

    assert [answer.status_code for answer in answers] == [403, 400, 400, 404, 405, 400, 415, 403]
    assert {headers_of(answer) for answer in answers} == {("950", "1000", "50", "95.00", "critical")}


def test_reserved_bytes_lower_what_remains_and_not_the_percentage(dora: Person) -> None:
    set_counters(dora, reserved_bytes=900)

    assert headers_of(post(dora, 100)) == ("100", "1000", "0", "10.00", "normal")


def test_an_unlimited_tenant_is_told_so_and_never_refused(database: None) -> None:
    person = people.new_owner(tier="enterprise")
    set_counters(person, used_bytes=10**15)

    answer = post(person, 5)

    assert answer.status_code == 201
    assert headers_of(answer) == (str(10**15 + 5), "unlimited", "unlimited", None, "normal")
    assert "RateLimit-Policy" not in answer


@pytest.mark.parametrize(
    ("used_bytes", "limit", "percent", "level"),
    [
        (0, 3, "0.00", "normal"),
        (1, 3, "33.33", "normal"),
        (2, 3, "66.66", "normal"),
        (69_999, 100_000, "69.99", "normal"),
        (70_000, 100_000, "70.00", "warning"),
        (84_999, 100_000, "84.99", "warning"),
        (85_000, 100_000, "85.00", "high"),
        (94_999, 100_000, "94.99", "high"),
        (95_000, 100_000, "95.00", "critical"),
        (99_999, 100_000, "99.99", "critical"),
        (100_000, 100_000, "100.00", "exceeded"),
        (150_000, 100_000, "150.00", "exceeded"),
        (500 * GB - 1, 500 * GB, "99.99", "critical"),
        (0, 0, "100.00", "exceeded"),
    ],
)
def test_percentage_and_level_are_rounded_down(used_bytes: int, limit: int, percent: str, level: str) -> None:
    usage = Usage(plan_tier="free", used_bytes=used_bytes, reserved_bytes=0, limit_bytes=limit)

    assert usage.headers()["X-Quota-Percent"] == percent
    assert usage.level == usage.headers()["X-Quota-Warning"] == Level(level)


@pytest.mark.parametrize(
    ("tier", "limit", "days", "price", "generated"),
    [
        ("free", 1 * GB, 30, 0, 100),
        ("starter", 10 * GB, 90, 29, 1_000),
        ("professional", 100 * GB, 365, 99, 10_000),
        ("business", 500 * GB, 1825, 299, 50_000),
        ("enterprise", None, None, None, None),
    ],
)
def test_the_plans_are_those_of_the_price_list(
    database: None, tier: str, limit: int | None, days: int | None, price: int | None, generated: int | None
) -> None:
    plan = Plan.objects.get(tier=tier)

    assert (plan.storage_limit_bytes, plan.retention_days, plan.price_usd_month) == (limit, days, price)
    assert plan.monthly_generation_limit == generated
    assert post(people.new_owner(tier=tier), 1)["X-Quota-Limit"] == ("unlimited" if limit is None else str(limit))


# Races


def race(person: Person, racers: int, *sizes: int) -> Stored:
    """Let processes store items of these sizes until none fits, and check that they were told the truth."""
    before = stored_by(person.tenant_id)
    command = [sys.executable, "-m", "tests.quotas.racer", str(person.tenant_id), *map(str, sizes)]
    with ExitStack() as stack:
        started = [stack.enter_context(started_racer(command)) for _ in range(racers)]
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in started:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        results = [process.communicate(timeout=120)[0].split() for process in started]
    stored = stored_by(person.tenant_id)
    assert stored.counters_are_true
    assert stored.items == stored.versions == stored.spooled == stored.changes == stored.live_items
    assert sum(int(size) for size, _ in results) == stored.counted_bytes - before.counted_bytes
    assert sum(int(items) for _, items in results) == stored.counted_items - before.counted_items
    return stored


@contextmanager
def started_racer(command: list[str]) -> Iterator["subprocess.Popen[str]"]:
    """Start a process, and end it in any case."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.soak
def test_two_processes_fill_a_quota_to_the_last_byte_and_no_further(database: None) -> None:
    person = people.new_owner("racer", storage_limit=3333)

    assert race(person, 2, 50, 7, 1).counted_bytes == 3333


def test_processes_that_race_for_the_last_bytes_get_them_once(database: None) -> None:
    person = people.new_owner("racer", storage_limit=LIMIT + 10)
    post(person, LIMIT)

    assert race(person, 3, 10).counted_items == 2


# Whatever happens

sizes = st.integers(0, 400)
steps = st.one_of(
    st.tuples(st.just("create"), sizes),
    st.tuples(st.just("change"), sizes),
    st.tuples(st.just("retitle"), sizes),
    st.tuples(st.just("delete"), st.just(0)),
    st.tuples(st.just("limit"), st.integers(0, 1500)),
)


def check_sequence(sequence: list[tuple[str, int]], choices: st.DataObject) -> None:
    """Do the steps, and compare each answer and the counters with a model of one dictionary."""
    person, limit = people.new_owner("model", storage_limit=LIMIT), LIMIT
    model: dict[str, int] = {}
    for step, number in sequence:
        chosen = choices.draw(st.sampled_from(sorted(model))) if model else None
        free = limit - sum(model.values())
        if step == "limit":
            set_limit(person, limit := number)
        elif step == "create":
            answer = post(person, number)
            assert answer.status_code == (201 if number == 0 or number <= free else 403)
            if answer.status_code == 201:
                model[answer.json()["id"]] = number
        elif chosen and step == "change":
            growth = number - model[chosen]
            answer = person.api.patch(f"/api/content/{chosen}", {"body": "y" * number})
            assert answer.status_code == (200 if growth <= 0 or growth <= free else 403)
            if answer.status_code == 200:
                model[chosen] = number
        elif chosen and step == "retitle":
            assert person.api.patch(f"/api/content/{chosen}", {"title": f"Title {number}"}).status_code == 200
        elif chosen:
            assert person.api.delete(f"/api/content/{chosen}").status_code == 200
            del model[chosen]
        stored = stored_by(person.tenant_id)
        assert stored.counters_are_true
        assert (stored.counted_bytes, stored.counted_items) == (sum(model.values()), len(model))


def test_counters_equal_what_is_stored_after_any_sequence(database: None) -> None:
    run_sequences(examples=12)


@pytest.mark.soak
def test_counters_equal_what_is_stored_after_very_many_sequences(database: None) -> None:
    run_sequences(examples=300)


def run_sequences(*, examples: int) -> None:
    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(sequence=st.lists(steps, min_size=5, max_size=20), choices=st.data())
    def run(sequence: list[tuple[str, int]], choices: st.DataObject) -> None:
        check_sequence(sequence, choices)

    run()


def test_the_database_itself_refuses_negative_counters(dora: Person) -> None:
    for counter in ("used_bytes", "reserved_bytes", "content_items", "media_files", "storage_limit_override"):
        with pytest.raises(IntegrityError, match="quota_"):
            set_counters(dora, **{counter: -1})


def test_a_charge_outside_the_tenants_scope_changes_nothing(dora: Person, charlie: Person) -> None:
    with system_scope("a test"):
        assert QuotaUsage.objects.filter(tenant_id=dora.tenant_id).exists()
    with tenant_scope(charlie.tenant_id), connection.cursor() as cursor:
        values: dict[str, Any] = {"bytes": 1, "held": 0, "items": 1, "media_files": 0, "today": "2026-11-25"}
        cursor.execute(CHARGE, {"tenant": dora.tenant_id, **values})
        assert cursor.rowcount == 0
    assert used(dora) == 0
