"""What a tenant is told of its quota: the summary, the history without holes, the forecast and the check."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.utils import timezone

from quotas import forecast
from quotas.models import DailyUsage
from tests import people
from tests.people import Person
from tests.quotas import house

GB = 1024**3
LIMIT = 1000
NOON = datetime(2027, 5, 20, 12, tzinfo=UTC)


@pytest.fixture
def dora(database: None) -> Person:
    """Owner of a tenant that may store 1,000 bytes."""
    return people.new_owner("dora", storage_limit=LIMIT)


def summary(person: Person) -> dict[str, Any]:
    answer = person.api.get("/api/content/quota")
    assert answer.status_code == 200, answer.content
    return dict(answer.json())


def history(person: Person, days: int, now: datetime) -> list[dict[str, Any]]:
    with time_machine.travel(now, tick=False):
        answer = person.api.get(f"/api/content/quota/history?days={days}")
    assert answer.status_code == 200, answer.content
    assert (answer.json()["tenant_id"], answer.json()["days"]) == (str(person.tenant_id), days)
    return list(answer.json()["history"])


# The summary


def test_a_new_tenant_has_everything_before_it(database: None) -> None:
    person = people.new_owner("dora")

    found = summary(person)

    assert found.pop("last_calculated_at").endswith("Z")
    assert found["limits"].pop("generation_resets_at").endswith("Z")
    assert found == {
        "tenant_id": str(person.tenant_id),
        "plan_tier": "free",
        "usage": {
            "total_content_items": 0,
            "total_media_files": 0,
            "total_storage_bytes": 0,
            "total_storage_gb": 0,
            "content_bytes": 0,
            "media_bytes": 0,
            "reserved_bytes": 0,
            "generated_this_month": 0,
            "reserved_generations": 0,
            "usage_by_type": {},
        },
        "limits": {
            "storage_limit_bytes": GB,
            "storage_limit_gb": 1,
            "available_bytes": GB,
            "usage_percent": 0,
            "retention_days": 30,
            "monthly_generation_limit": 100,
            "is_unlimited": False,
        },
        "warning_level": "normal",
        "is_blocked": False,
        "upgrade_suggestion": None,
        "forecast_full_on": None,
    }


def test_it_tells_what_is_used_type_by_type(dora: Person) -> None:
    for kind, size in (("post", 100), ("post", 50), ("article", 300), ("tweet", 1)):
        dora.writes(type=kind, body="x" * size)
    trashed = dora.writes(type="story", body="x" * 90)["id"]
    dora.api.delete(f"/api/content/{trashed}")
    dora.api.post("/api/content/media", {"file": _file(249)}, format="multipart")
    house.reserve(dora, size=100, items=3)
    house.generate(dora, 2)

    found = summary(dora)

    assert found["usage"] == {
        "total_content_items": 4,
        "total_media_files": 1,
        "total_storage_bytes": 700,
        "total_storage_gb": 700 / GB,
        "content_bytes": 451,
        "media_bytes": 249,
        "reserved_bytes": 100,
        "generated_this_month": 2,
        "reserved_generations": 3,
        "usage_by_type": {
            "article": {"count": 1, "bytes": 300},
            "post": {"count": 2, "bytes": 150},
            "tweet": {"count": 1, "bytes": 1},
        },
    }
    assert (found["limits"]["available_bytes"], found["limits"]["usage_percent"]) == (200, 70.0)
    assert (found["warning_level"], found["is_blocked"]) == ("warning", False)
    assert found["upgrade_suggestion"] == {
        "tier": "starter",
        "storage_limit_bytes": 10 * GB,
        "price_usd_month": "29.00",
    }


def _file(size: int) -> Any:
    from django.core.files.uploadedfile import SimpleUploadedFile

    return SimpleUploadedFile("a.bin", bytes(size))


def test_a_full_tenant_is_blocked_by_what_is_used_and_by_what_is_reserved(dora: Person) -> None:
    house.store(dora, 600)
    holder = house.reserve(dora, size=400)
    assert (summary(dora)["is_blocked"], summary(dora)["warning_level"]) == (True, "normal")

    house.release(dora, holder)
    assert summary(dora)["is_blocked"] is False


def test_an_unlimited_tenant_has_nulls_for_limits(database: None) -> None:
    person = people.new_owner(tier="enterprise")
    house.store(person, 100)

    found = summary(person)

    limits = found["limits"]
    assert {limits[name] for name in limits if name not in {"is_unlimited", "generation_resets_at"}} == {None}
    assert limits["is_unlimited"] is True
    assert (found["warning_level"], found["is_blocked"], found["upgrade_suggestion"]) == ("normal", False, None)
    assert found["forecast_full_on"] is None


def test_overrides_replace_the_plans_limits(dora: Person) -> None:
    from quotas import operations
    from quotas.operations import Limits

    with house.inside(dora) as tenant_id:
        limits = Limits(storage_bytes=5000, generated_items=7, retention_days=45, reason="A good customer.")
        operations.override_limits(tenant_id=tenant_id, limits=limits, now=timezone.now())

    found = summary(dora)["limits"]

    assert (found["storage_limit_bytes"], found["monthly_generation_limit"], found["retention_days"]) == (5000, 7, 45)


@pytest.mark.parametrize("path", ["quota", "quota/history", "quota/check"])
def test_quota_calls_need_the_scope_to_read_quotas(dora: Person, path: str) -> None:
    answer = dora.api.post("/api/api-keys", {"name": "content only", "scopes": ["content:read", "content:write"]})
    other = people.Person(
        dora.email, dora.user_id, dora.tenant_id, dora.brand_id, {"HTTP_X_API_KEY": answer.json()["key"]}
    )
    viewer = people.new_colleague(dora, "viewer")
    url = f"/api/content/{path}"

    def call(person: Person) -> Any:
        return person.api.post(url, {"content_size_bytes": 1}) if path == "quota/check" else person.api.get(url)

    assert call(other).status_code == 403
    assert call(viewer).status_code == 200
    assert people.JSONClient().get(url).status_code == 401
    assert call(viewer)["X-Quota-Limit"] == str(LIMIT)


def test_nobody_is_told_of_another_tenant(dora: Person, charlie: Person) -> None:
    house.store(dora, 500)

    assert summary(charlie)["usage"]["total_storage_bytes"] == 0
    assert history(charlie, 1, timezone.now())[0]["total_bytes"] == 0
    colleague = people.new_colleague(dora, "owner")
    answer = colleague.api.get("/api/content/quota", HTTP_X_TENANT_ID=str(charlie.tenant_id))
    assert answer.status_code == 403


# The history


def test_history_has_a_row_a_day_and_no_holes(dora: Person) -> None:
    house.begin_on(dora, date(2027, 5, 1))
    item = house.store(dora, 100, now=NOON - timedelta(days=9))
    house.store(dora, 50, now=NOON - timedelta(days=9))
    house.resize(dora, item, 300, now=NOON - timedelta(days=6))
    house.store(dora, 10, now=NOON - timedelta(days=2))

    rows = history(dora, 12, NOON)

    assert [row["date"] for row in rows] == [str(NOON.date() - timedelta(days=back)) for back in range(11, -1, -1)]
    assert [row["total_bytes"] for row in rows] == [0, 0, 150, 150, 150, 350, 350, 350, 350, 360, 360, 360]
    assert [row["total_items"] for row in rows] == [0, 0, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3]
    assert history(dora, 2, NOON) == rows[-2:]


def test_a_days_row_is_what_it_was_when_the_day_ended(dora: Person) -> None:
    yesterday = NOON - timedelta(days=1)
    item = house.store(dora, 900, now=yesterday)
    house.resize(dora, item, 20, now=yesterday + timedelta(hours=1))
    house.resize(dora, item, 30, now=datetime(2027, 5, 19, 23, 59, 59, tzinfo=UTC))
    house.resize(dora, item, 40, now=datetime(2027, 5, 20, tzinfo=UTC))

    assert [row["total_bytes"] for row in history(dora, 2, NOON)] == [30, 40]


def test_todays_row_is_of_now(dora: Person) -> None:
    dora.writes(body="x" * 77)

    assert history(dora, 1, timezone.now())[0]["total_bytes"] == 77


@pytest.mark.parametrize("days", [1, 365])
def test_history_takes_as_many_days_as_promised(dora: Person, days: int) -> None:
    assert len(history(dora, days, NOON)) == days


def test_history_has_thirty_days_unless_told_otherwise(dora: Person) -> None:
    assert len(dora.api.get("/api/content/quota/history").json()["history"]) == 30


def test_a_clock_that_went_ahead_leaves_no_history_of_days_to_come(dora: Person) -> None:
    house.begin_on(dora, date(2027, 5, 1))
    item = house.store(dora, 100, now=NOON)
    house.resize(dora, item, 200, now=NOON + timedelta(days=40))
    house.resize(dora, item, 300, now=NOON)
    house.resize(dora, item, 400, now=NOON + timedelta(days=3))

    assert [row["total_bytes"] for row in history(dora, 4, NOON + timedelta(days=3))] == [300, 300, 300, 400]
    assert history(dora, 1, NOON + timedelta(days=2))[0]["total_bytes"] == 400
    assert [row["total_bytes"] for row in history(dora, 2, NOON + timedelta(days=41))] == [400, 400]
    house.resize(dora, item, 500, now=NOON + timedelta(days=42))
    assert [row["total_bytes"] for row in history(dora, 4, NOON + timedelta(days=42))] == [400, 400, 400, 500]


@pytest.mark.parametrize("query", ["days=0", "days=366", "days=-1", "days=ten", "days=", "days=1&days=2", "day=3"])
def test_history_refuses_other_queries(dora: Person, query: str) -> None:
    answer = dora.api.get(f"/api/content/quota/history?{query}")

    assert (answer.status_code, answer.json()["code"]) == (400, "validation_error")
    assert answer["X-Quota-Used"] == "0"


# The forecast


def test_the_forecast_goes_by_the_trend_of_the_last_days() -> None:
    today = date(2027, 5, 20)

    assert forecast.full_on(sizes=[100, 200, 300, 400], limit_bytes=1000, today=today) == date(2027, 5, 26)
    assert forecast.full_on(sizes=[100, 200, 300, 401], limit_bytes=1000, today=today) == date(2027, 5, 26)
    assert forecast.full_on(sizes=[0, 1], limit_bytes=1000, today=today) == today + timedelta(days=999)


@pytest.mark.parametrize(
    ("sizes", "limit", "expected"),
    [
        ([], 1000, None),
        ([500], 1000, None),
        ([500, 500, 500], 1000, None),
        ([900, 500, 100], 1000, None),
        ([0, 1], 10**9, None),
        ([0, 10**12], None, None),
        ([1000], 1000, date(2027, 5, 20)),
        ([0, 0], 0, date(2027, 5, 20)),
        ([10**17, 2 * 10**17], 10**18, date(2027, 5, 28)),
    ],
)
def test_the_forecast_says_nothing_where_there_is_nothing_to_say(
    sizes: list[int], limit: int | None, expected: date | None
) -> None:
    assert forecast.full_on(sizes=sizes, limit_bytes=limit, today=date(2027, 5, 20)) == expected


def test_the_summary_forecasts_from_the_tenants_own_history(dora: Person) -> None:
    house.begin_on(dora, NOON.date() - timedelta(days=5))
    for back in (5, 4, 3, 2, 1, 0):
        house.store(dora, 100, now=NOON - timedelta(days=back))

    with time_machine.travel(NOON, tick=False):
        assert summary(dora)["forecast_full_on"] == "2027-05-24"


def test_days_before_the_tenants_first_do_not_count_for_the_forecast(dora: Person) -> None:
    house.begin_on(dora, NOON.date())
    house.store(dora, 500, now=NOON)

    with time_machine.travel(NOON, tick=False):
        assert summary(dora)["forecast_full_on"] is None


# The check


def check(person: Person, **body: Any) -> dict[str, Any]:
    answer = person.api.post("/api/content/quota/check", body)
    assert answer.status_code == 200, answer.content
    return dict(answer.json())


def test_the_check_says_yes_to_what_fits(dora: Person) -> None:
    house.store(dora, 300)

    assert check(dora, content_size_bytes=700) == {
        "can_store": True,
        "reason": None,
        "detail": None,
        "current_bytes": 300,
        "projected_bytes": 1000,
        "limit_bytes": 1000,
        "usage_percent": 100.0,
        "warning_level": "exceeded",
        "upgrade_suggestion": None,
    }
    assert check(dora, content_size_bytes=1)["usage_percent"] == 30.1


def test_the_check_says_no_as_the_write_would(dora: Person) -> None:
    house.store(dora, 300)
    house.reserve(dora, size=200)

    found = check(dora, content_size_bytes=501)

    assert (found["can_store"], found["reason"]) == (False, "storage_quota_exceeded")
    assert (found["projected_bytes"], found["usage_percent"]) == (801, 80.1)
    assert found["upgrade_suggestion"]["tier"] == "starter"
    answer = dora.api.post("/api/content", {"title": "t", "type": "post", "body": "x" * 501})
    assert answer.json()["code"] == found["reason"]
    assert check(dora, content_size_bytes=500)["can_store"] is True


def test_the_check_looks_at_generated_items_too(dora: Person) -> None:
    house.generate(dora, 90)

    assert check(dora, content_size_bytes=10, items=10)["can_store"] is True
    found = check(dora, content_size_bytes=10, items=11)

    assert (found["can_store"], found["reason"]) == (False, "generation_quota_exceeded")
    assert found["upgrade_suggestion"]["tier"] == "starter"


def test_the_check_holds_nothing(dora: Person) -> None:
    for _ in range(3):
        assert check(dora, content_size_bytes=1000)["can_store"] is True

    assert summary(dora)["limits"]["available_bytes"] == 1000


def test_nothing_at_all_always_fits(dora: Person) -> None:
    house.store(dora, 1000)

    assert check(dora, content_size_bytes=0)["can_store"] is True


def test_an_unlimited_tenant_may_store_anything(database: None) -> None:
    found = check(people.new_owner(tier="enterprise"), content_size_bytes=10**15, items=10**9)

    assert (found["can_store"], found["limit_bytes"], found["usage_percent"]) == (True, None, None)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "content_size_bytes"),
        ({"content_size_bytes": -1}, "content_size_bytes"),
        ({"content_size_bytes": None}, "content_size_bytes"),
        ({"content_size_bytes": "5"}, "content_size_bytes"),
        ({"content_size_bytes": 1.5}, "content_size_bytes"),
        ({"content_size_bytes": True}, "content_size_bytes"),
        ({"content_size_bytes": 2**53}, "content_size_bytes"),
        ({"content_size_bytes": 1, "items": -1}, "items"),
        ({"content_size_bytes": 1, "items": "1"}, "items"),
        ({"content_size_bytes": 1, "bytes": 1}, "bytes"),
    ],
)
def test_the_check_refuses_other_bodies(dora: Person, body: dict[str, Any], field: str) -> None:
    answer = dora.api.post("/api/content/quota/check", body)

    assert (answer.status_code, answer.json()["code"]) == (400, "validation_error")
    assert [error["field"] for error in answer.json()["errors"]] == [field]


def test_wrong_methods_and_unknown_paths_are_refused_with_the_headers(dora: Person) -> None:
    answers = [
        dora.api.delete("/api/content/quota"),
        dora.api.get("/api/content/quota/check"),
        dora.api.post("/api/content/quota/history", {}),
        dora.api.get("/api/content/quota/nothing"),
        dora.api.get("/api/content/quota?a=b"),
    ]

    assert [answer.status_code for answer in answers] == [405, 405, 405, 404, 400]
    assert {answer["X-Quota-Limit"] for answer in answers} == {str(LIMIT)}


def test_a_trailing_slash_is_the_same(dora: Person) -> None:
    assert dora.api.get("/api/content/quota/").json() == dora.api.get("/api/content/quota").json()


def test_rows_of_days_are_the_tenants_own(dora: Person, charlie: Person) -> None:
    house.store(dora, 10, now=NOON)
    house.store(dora, 10, now=NOON + timedelta(days=1))

    with house.inside(charlie):
        assert not DailyUsage.objects.exists()
