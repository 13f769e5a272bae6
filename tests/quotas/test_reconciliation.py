"""Reconciliation: what is wrong is found, repaired and reported, and nothing is made wrong while others write."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone
from rest_framework.test import APIClient

from content.models import ContentItem
from engarde.accounts import queries as account_queries
from quotas import reconciliation
from quotas.models import Drift, MonthlyGeneration, QuotaUsage, Reconciliation, TypeUsage
from quotas.tasks import reconcile
from tests import people
from tests.content import media_files
from tests.people import Person
from tests.quotas import house
from tests.quotas.storm import storm
from tests.stored import stored_by

LIMIT = 10_000


@pytest.fixture
def dora(database: None) -> Person:
    """Owner of a tenant that has three posts, an article, a file and a reservation."""
    person = people.new_owner("dora", storage_limit=LIMIT)
    for size in (100, 200, 300):
        house.store(person, size)
    person.writes(type="article", body="x" * 50)
    media_files.uploaded(person, bytes(400))
    house.reserve(person, size=70, items=2)
    return person


def state(person: Person) -> dict[str, Any]:
    with house.inside(person):
        row = QuotaUsage.objects.values("used_bytes", "reserved_bytes", "content_items", "media_files").get()
        types = {kind.content_type: (kind.items, kind.bytes) for kind in TypeUsage.objects.all()}
        return {**row, "types": types, "months": list(MonthlyGeneration.objects.values_list("reserved", flat=True))}


RIGHT = {
    "used_bytes": 1050,
    "reserved_bytes": 70,
    "content_items": 4,
    "media_files": 1,
    "types": {"post": (3, 600), "article": (1, 50)},
    "months": [2],
}


def command(*arguments: Any) -> dict[str, Any]:
    out = StringIO()
    call_command("backfill_storage_usage", *map(str, arguments), "--json", stdout=out)
    return dict(json.loads(out.getvalue()))


def drifts(person: Person) -> list[Drift]:
    with house.inside(person):
        return list(Drift.objects.order_by("found_at"))


def test_right_counters_are_left_alone(dora: Person) -> None:
    assert reconciliation.reconcile(tenant_id=dora.tenant_id, now=timezone.now()).differences == {}
    assert state(dora) == RIGHT
    assert drifts(dora) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"used_bytes": 0},
        {"used_bytes": 5000},
        {"reserved_bytes": 0},
        {"reserved_bytes": 9000},
        {"content_items": 1},
        {"media_files": 9},
        {"used_bytes": 1, "reserved_bytes": 2, "content_items": 3, "media_files": 4},
    ],
)
def test_wrong_counters_are_repaired_and_reported(dora: Person, wrong: dict[str, int]) -> None:
    house.change_usage(dora, **wrong)

    found = reconciliation.reconcile(tenant_id=dora.tenant_id, now=timezone.now())

    assert state(dora) == RIGHT
    assert found.differences == {name: {"counted": wrong[name], "real": RIGHT[name]} for name in wrong}
    [drift] = drifts(dora)
    assert (drift.differences, drift.repaired) == (found.differences, True)


def test_types_and_months_are_repaired_too(dora: Person) -> None:
    with house.inside(dora) as tenant_id:
        TypeUsage.objects.filter(content_type="post").update(items=7, bytes=1)
        TypeUsage.objects.filter(content_type="article").delete()
        TypeUsage.objects.create(tenant_id=tenant_id, content_type="reel", items=1, bytes=9)
        MonthlyGeneration.objects.update(reserved=50)

    found = reconciliation.reconcile(tenant_id=dora.tenant_id, now=timezone.now())

    assert state(dora) == RIGHT
    month = f"reserved in {timezone.now():%Y-%m}"
    assert found.differences == {
        "post items": {"counted": 7, "real": 3},
        "post bytes": {"counted": 1, "real": 600},
        "article items": {"counted": 0, "real": 1},
        "article bytes": {"counted": 0, "real": 50},
        "reel items": {"counted": 1, "real": 0},
        "reel bytes": {"counted": 9, "real": 0},
        month: {"counted": 50, "real": 2},
    }


def test_usage_above_the_limit_is_counted_as_it_is(dora: Person) -> None:
    house.change_usage(dora, storage_limit_override=500, override_reason="A test.", used_bytes=1)

    reconciliation.reconcile(tenant_id=dora.tenant_id, now=timezone.now())

    assert state(dora)["used_bytes"] == 1050


def test_a_tenant_without_usage_gets_it_on_the_smallest_plan(dora: Person) -> None:
    with house.inside(dora):
        QuotaUsage.objects.all().delete()

    command("--tenant", dora.tenant_id)

    assert {name: state(dora)[name] for name in ("used_bytes", "content_items")} == {
        "used_bytes": 1050,
        "content_items": 4,
    }
    assert dora.api.get("/api/content/quota").json()["plan_tier"] == "free"


def test_a_repair_that_crosses_a_threshold_alerts(database: None) -> None:
    from quotas.models import Alert

    person = people.new_owner("dora", storage_limit=1000)
    house.store(person, 600)
    with house.inside(person):
        ContentItem.objects.update(size_bytes=900)

    reconciliation.reconcile(tenant_id=person.tenant_id, now=timezone.now())

    with house.inside(person):
        assert list(Alert.objects.values_list("threshold", flat=True)) == [85]


# The command


def test_the_command_reports_and_repairs_one_tenant(dora: Person, tmp_path: Path) -> None:
    house.change_usage(dora, used_bytes=1000)
    file = tmp_path / "report.json"

    report = command("--tenant", dora.tenant_id, "--report", file)

    assert report == json.loads(file.read_text())
    assert report.pop("seconds") > 0
    assert report == {
        "dry_run": False,
        "total": 1,
        "changed": 1,
        "unchanged": 0,
        "failed": 0,
        "bytes": 1050,
        "drift_bytes": 50,
        "tenants": {
            str(dora.tenant_id): {
                "used_bytes": 1050,
                "content_items": 4,
                "media_files": 1,
                "drift": {"used_bytes": {"counted": 1000, "real": 1050}},
            }
        },
        "errors": [],
    }
    assert state(dora) == RIGHT
    assert command("--tenant", dora.tenant_id)["changed"] == 0


def test_a_dry_run_repairs_nothing(dora: Person) -> None:
    house.change_usage(dora, used_bytes=1000)

    report = command("--dry-run", "--tenant", dora.tenant_id)

    assert (report["dry_run"], report["changed"], report["drift_bytes"]) == (True, 1, 50)
    assert state(dora)["used_bytes"] == 1000
    assert [drift.repaired for drift in drifts(dora)] == [False]


def test_the_command_tells_people_what_it_found(dora: Person) -> None:
    house.change_usage(dora, used_bytes=1000)
    out = StringIO()

    call_command("backfill_storage_usage", "--tenant", str(dora.tenant_id), stdout=out)

    assert f"{dora.tenant_id}  used_bytes: counted 1000, really 1050" in out.getvalue()
    assert "1 tenant: 0 right, 1 repaired, 0 failed; 1.03 KB stored" in out.getvalue()


def test_the_command_refuses_an_unknown_tenant() -> None:
    with pytest.raises(CommandError, match="There is no tenant"):
        command("--tenant", uuid4())


def test_a_tenant_that_cannot_be_compared_stops_no_other(dora: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    other = people.new_owner("other")
    house.change_usage(other, used_bytes=77)
    real = reconciliation._real

    def fail(tenant_id: Any) -> Any:
        if tenant_id == dora.tenant_id:
            raise RuntimeError("the disk is on fire")
        return real(tenant_id)

    monkeypatch.setattr(reconciliation, "_real", fail)
    report = reconciliation.run(now=timezone.now(), tenant_ids=[dora.tenant_id, other.tenant_id])

    assert report.errors == {dora.tenant_id: "RuntimeError: the disk is on fire"}
    assert report.drifted == [other.tenant_id]
    with pytest.raises(SystemExit):
        command("--tenant", dora.tenant_id)


# The nightly run and its metrics


def metric(name: str) -> float:
    lines = APIClient().get("/metrics").content.decode().splitlines()
    return float(next(line for line in lines if line.startswith(f"{name} ")).split()[-1])


@pytest.fixture
def everybody(dora: Person, monkeypatch: pytest.MonkeyPatch) -> list[UUID]:
    """All the tenants there are; the many that other tests made would only take time."""
    found = sorted([dora.tenant_id, *(people.new_owner(f"other-{number}").tenant_id for number in range(2))])
    monkeypatch.setattr(account_queries, "tenant_ids", lambda: found)
    return found


def test_the_nightly_run_compares_everybody_and_exports_what_it_found(dora: Person, everybody: list[UUID]) -> None:
    command()
    house.change_usage(dora, used_bytes=1000)

    reconcile.run()

    assert state(dora) == RIGHT
    assert (metric("engarde_quota_drift_bytes"), metric("engarde_quota_drift_tenants")) == (50, 1)
    last = Reconciliation.objects.latest("started_at")
    assert last.tenants == len(everybody)
    assert metric("engarde_quota_reconciled_timestamp_seconds") == pytest.approx(last.finished_at.timestamp())  # type: ignore[union-attr]  # the run is over
    reconcile.run()
    assert metric("engarde_quota_drift_bytes") == 0


def test_a_long_run_goes_on_in_the_next_task(everybody: list[UUID], monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, str]] = []
    monkeypatch.setattr("quotas.tasks.LONGEST_RUN_SECONDS", 0.0)
    monkeypatch.setattr(reconcile, "apply_async", lambda *, kwargs: calls.append(kwargs))
    before = Reconciliation.objects.count()

    reconcile.run()
    while calls:
        reconcile.run(**calls.pop())

    assert Reconciliation.objects.count() == before + 1
    last = Reconciliation.objects.latest("started_at")
    assert last.tenants == len(everybody)
    assert last.finished_at is not None


def test_old_records_are_forgotten_and_newer_ones_kept(dora: Person) -> None:
    now = timezone.now()
    old = Reconciliation.objects.create(started_at=now - timedelta(days=401))
    new = Reconciliation.objects.create(started_at=now - timedelta(days=399))

    assert reconciliation.forget_old(now=now) >= 1

    kept = set(Reconciliation.objects.values_list("id", flat=True))
    assert (old.id in kept, new.id in kept) == (False, True)


def test_refusals_are_counted(dora: Person) -> None:
    name = 'engarde_quota_refusals_total{limit="storage"}'
    dora.api.post("/api/content", {"title": "t", "type": "post", "body": "x" * (LIMIT + 1)})
    before = metric(name)

    dora.api.post("/api/content", {"title": "t", "type": "post", "body": "x" * (LIMIT + 1)})

    assert metric(name) == before + 1


# While others write


@pytest.mark.soak
def test_comparing_makes_and_finds_no_drift_while_others_write(database: None) -> None:
    person = people.new_owner("dora", storage_limit=3000)
    compare_during_storm(person, writers=4, steps=15)


@pytest.mark.soak
def test_comparing_makes_and_finds_no_drift_while_very_many_write(database: None) -> None:
    person = people.new_owner("dora", storage_limit=50_000)
    compare_during_storm(person, writers=16, steps=100)


def compare_during_storm(person: Person, *, writers: int, steps: int) -> None:
    over = threading.Event()

    def compare() -> int:
        rounds = 0
        try:
            while not over.is_set():
                assert reconciliation.reconcile(tenant_id=person.tenant_id, now=timezone.now()).differences == {}
                with house.inside(person) as tenant_id:
                    found = reconciliation.recalculate(tenant_id=tenant_id, now=timezone.now())
                assert found.differences == {}
                rounds += 1
            return rounds
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        comparing = pool.submit(compare)
        try:
            storm(person, writers=writers, steps=steps)
        finally:
            over.set()
        assert comparing.result() > 3
    assert stored_by(person.tenant_id).counters_are_true
    assert drifts(person) == []
