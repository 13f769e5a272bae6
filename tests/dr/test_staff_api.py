"""The staff's API of the backup: who is let in, what the calls answer, and what monitors read."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.utils import timezone

from dr import figures, states
from dr.models import DailyFigures, Drill, Finding, Restore, Run, SyncState, Verification
from engarde.accounts.models import User
from engarde.common import wake
from engarde.common.middleware import WakeAfterWritesMiddleware
from engarde.common.scopes import system_scope
from tests.dr import backup_house as house
from tests.people import JSONClient, Person, logged_in, new_colleague

ROOT = "/api/admin/bigquery-sync"
READS = ["health", "metrics", "runs", "findings", "verifications", "drills", "restores"]
LISTS = READS[2:]
WRITES = ["trigger", "pause", "resume"]
CALLS = [*(("GET", name) for name in READS), *(("POST", name) for name in WRITES)]
AHEAD = datetime(2095, 1, 1, tzinfo=UTC)  # rows of these tests are the newest


@pytest.fixture(autouse=True)
def _well(database: None, settings: Any) -> Iterator[None]:
    settings.BIGQUERY_SYNC_ENABLED = True
    house.make_well()
    yield
    house.make_well()
    with system_scope("a test tidies up"):
        for model in (Run, Verification, Drill, Restore):
            model.objects.filter(started_at__gte=AHEAD - timedelta(days=1)).delete()
        Finding.objects.filter(found_at__gte=AHEAD - timedelta(days=1)).delete()


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Have the oldest change wait for so many seconds, whatever other tests left in the log."""

    def set_to(seconds: float | None) -> None:
        at = None if seconds is None else timezone.now() - timedelta(seconds=seconds)
        monkeypatch.setattr(states, "oldest_waiting_at", lambda: at)

    set_to(None)
    return set_to


@pytest.fixture
def wakes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tasks that were woken."""
    woken: list[str] = []
    monkeypatch.setattr(wake, "after_commit", woken.append)
    monkeypatch.setattr(WakeAfterWritesMiddleware, "__call__", lambda self, request: self.get_response(request))
    return woken


@pytest.fixture
def sam(database: None) -> User:
    """A member of staff."""
    return house.new_user("sam", is_staff=True)


@pytest.fixture
def staff(sam: User) -> JSONClient:
    """A client with the credentials of a member of staff."""
    return house.api_of(sam)


def ask(client: Any, method: str, name: str, query: str = "") -> Any:
    return client.generic(method, f"{ROOT}/{name}{query}", "{}" if method == "POST" else "")


def get(client: Any, name: str, query: str = "") -> Any:
    answer = ask(client, "GET", name, query)
    assert answer.status_code == 200, answer.content
    return answer.json()


# Who is let in


@pytest.mark.parametrize(("method", "name"), CALLS)
def test_nobody_without_credentials_is_let_in(alice: Person, wakes: list[str], method: str, name: str) -> None:
    answer = ask(JSONClient(), method, name)

    assert (answer.status_code, answer.json()["code"]) == (401, "not_authenticated")
    assert answer["WWW-Authenticate"].startswith("Bearer")
    assert (house.row().paused_at, wakes) == (None, [])


@pytest.mark.parametrize(("method", "name"), CALLS)
def test_no_tenants_people_or_keys_are_let_in(alice: Person, wakes: list[str], method: str, name: str) -> None:
    for person in (alice, logged_in(alice), new_colleague(alice, "admin")):
        answer = ask(person.api, method, name)

        assert (answer.status_code, answer.json()["code"]) == (403, "permission_denied")
    assert (house.row().paused_at, wakes) == (None, [])


@pytest.mark.parametrize(("method", "name"), CALLS)
def test_staff_are_let_in_and_other_methods_are_not(
    staff: JSONClient, waiting: Any, wakes: list[str], method: str, name: str
) -> None:
    other = "POST" if method == "GET" else "GET"

    assert ask(staff, method, name).status_code == (200 if method == "GET" else 202)
    answer = ask(staff, other, name)

    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert method in answer["Allow"]


@pytest.mark.parametrize(("method", "name"), CALLS)
def test_a_query_that_nobody_knows_is_refused(staff: JSONClient, wakes: list[str], method: str, name: str) -> None:
    answer = ask(staff, method, name, "?days_=1")

    assert (answer.status_code, answer.json()["code"]) == (400, "validation_error")
    assert (house.row().paused_at, wakes) == (None, [])


def test_somebody_who_left_the_staff_is_not_let_in(sam: User, staff: JSONClient) -> None:
    User.objects.filter(id=sam.id).update(is_staff=False)

    assert ask(staff, "GET", "health").status_code == 403


# Health


def test_health_says_that_all_is_well(staff: JSONClient, waiting: Any) -> None:
    states.note_success(now=AHEAD)

    found = get(staff, "health")

    assert set(found) == {
        *("status", "reason", "lag_seconds", "backlog", "last_success_at", "rpo_target_seconds", "set_aside"),
        "paused_at",
    }
    assert (found["status"], found["reason"], found["lag_seconds"]) == ("healthy", None, 0)
    assert (found["last_success_at"], found["rpo_target_seconds"]) == ("2095-01-01T00:00:00Z", 900)
    assert (found["set_aside"], found["paused_at"]) == (0, None)


def test_health_counts_what_waits(alice: Person, staff: JSONClient, waiting: Any) -> None:
    before = get(staff, "health")["backlog"]
    alice.writes()

    assert get(staff, "health")["backlog"] == before + 1


def fail(status: str = "failing") -> None:
    states.note_failure(status=status, reason="BigQuery said no", now=timezone.now(), probe_at=None)


@pytest.mark.parametrize(
    ("state", "waited", "status", "answer"),
    [
        ("well", 200, "healthy", 200),
        ("well", 400, "lagging", 200),
        ("well", 1000, "lagging", 503),
        ("failing", None, "failing", 503),
        ("refused", None, "disabled", 200),
        ("refused", 1000, "disabled", 503),
        ("paused", 800, "paused", 200),
        ("paused", 1000, "paused", 503),
        ("off", 100_000, "disabled", 200),
    ],
)
def test_health_answers_monitors(
    staff: JSONClient, waiting: Any, settings: Any, state: str, waited: float | None, status: str, answer: int
) -> None:
    waiting(waited)
    if state in {"failing", "refused"}:
        fail("failing" if state == "failing" else "disabled")
    if state == "paused":
        states.pause(by=None, now=timezone.now())
    settings.BIGQUERY_SYNC_ENABLED = state != "off"

    found = ask(staff, "GET", "health")

    assert (found.status_code, found.json()["status"]) == (answer, status)
    assert bool(found.json()["reason"]) == (status != "healthy")
    assert found["Content-Type"] == "application/json"
    assert found.json()["lag_seconds"] == pytest.approx(waited or 0, abs=30)


# Metrics


def test_metrics_tell_counters_since_the_start_and_per_day(staff: JSONClient) -> None:
    before = get(staff, "metrics", "?days=1")
    figures.note(
        now=timezone.now(),
        rows=4,
        bytes=1000,
        batches=2,
        loads=1,
        retries=1,
        failures=3,
        seconds=0.5,
        ages=[1, 1, 1, 700],
    )

    found = get(staff, "metrics", "?days=1")

    for name, more in {"rows": 4, "bytes": 1000, "batches": 2, "loads": 1, "retries": 1, "failures": 3}.items():
        assert found["since_start"][name] - before["since_start"][name] == more, name
        assert found["per_day"][0][name] - before["per_day"][0][name] == more, name
    assert found["since_start"]["seconds"] - before["since_start"]["seconds"] == pytest.approx(0.5)
    assert found["per_day"][0]["date"] == f"{timezone.now():%Y-%m-%d}"
    assert found["per_day"][0]["rpo_p50_seconds"] <= found["per_day"][0]["rpo_p99_seconds"]
    assert found["per_day"][0]["rpo_max_seconds"] >= 700
    assert found["since"] <= found["per_day"][0]["date"]


def test_metrics_tell_a_month_unless_asked_otherwise(staff: JSONClient) -> None:
    assert len(get(staff, "metrics")["per_day"]) == 30
    assert len(get(staff, "metrics", "?days=366")["per_day"]) == 366


@pytest.mark.parametrize("days", ["0", "367", "x", "-1", ""])
def test_metrics_of_no_possible_number_of_days_are_refused(staff: JSONClient, days: str) -> None:
    answer = ask(staff, "GET", "metrics", f"?days={days}")

    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "days")


# Lists


def make(name: str, number: int) -> list[UUID]:
    """Make rows that are the newest of a list, and return their ids, newest first."""
    times = [AHEAD + timedelta(hours=one) for one in range(number)]
    with system_scope("a test makes rows"):
        rows = [_made(name, at) for at in times]
    return [row.id for row in reversed(rows)]


def _made(name: str, at: datetime) -> Any:
    if name == "runs":
        values = {"status": "failing", "reason": "no", "rows": 3, "lag_seconds": 2.5}
        return Run.objects.create(started_at=at, finished_at=at + timedelta(seconds=9), **values)
    if name == "drills":
        return Drill.objects.create(started_at=at, scenario="full_loss", ok=True, rto_seconds=2, report={"x": 1})
    if name == "restores":
        return Restore.objects.create(started_at=at, tiers=["postgres"], report={"changed": 3}, ok=True)
    verification = Verification.objects.create(started_at=at, finished_at=at, checked=7, missing=1, error="")
    if name == "verifications":
        return verification
    fields = {"tenant_id": uuid4(), "entity_type": "content", "entity_id": uuid4(), "tier": "zerodb"}
    return Finding.objects.create(
        verification_id=verification.id, found_at=at, kind="missing", problem="gone", **fields
    )


@pytest.mark.parametrize("name", LISTS)
def test_lists_go_newest_first_by_pages_and_by_cursor(staff: JSONClient, name: str) -> None:
    ids = [str(one) for one in make(name, 5)]

    first = get(staff, name, "?pageSize=2")
    second = get(staff, name, "?pageSize=2&page=2")
    after = get(staff, name, f"?pageSize=2&cursor={first['pagination']['nextCursor']}")

    assert [row["id"] for row in first["data"]] == ids[:2]
    assert [row["id"] for row in second["data"]] == ids[2:4]
    assert after["data"] == second["data"]
    assert first["pagination"].keys() == {
        *("page", "pageSize", "total", "totalPages", "hasNext", "hasPrevious", "nextCursor")
    }
    assert (first["pagination"]["hasNext"], second["pagination"]["hasPrevious"]) == (True, True)
    assert first["pagination"]["total"] >= 5


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("page=0", "page"),
        ("pageSize=101", "pageSize"),
        ("page=x", "page"),
        ("cursor=x", "cursor"),
        ("page=1&cursor=x", "page"),
    ],
)
def test_lists_refuse_what_they_do_not_know(staff: JSONClient, name: str, query: str, field: str) -> None:
    answer = ask(staff, "GET", name, f"?{query}")

    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, field)


def test_a_cursor_of_another_list_is_refused(staff: JSONClient) -> None:
    make("runs", 2)
    make("drills", 2)
    cursor = get(staff, "runs", "?pageSize=1")["pagination"]["nextCursor"]

    assert ask(staff, "GET", "drills", f"?cursor={cursor}").status_code == 400


@pytest.mark.parametrize("name", LISTS)
def test_a_page_past_the_end_is_empty(staff: JSONClient, name: str) -> None:
    assert get(staff, name, "?page=1000000")["data"] == []


def test_a_run_tells_what_it_did(staff: JSONClient) -> None:
    make("runs", 1)

    [run] = get(staff, "runs", "?pageSize=1")["data"]

    assert (run["status"], run["reason"], run["rows"], run["lag_seconds"], run["seconds"]) == (
        "failing",
        "no",
        3,
        2.5,
        9,
    )
    assert run["started_at"] == "2095-01-01T00:00:00Z"


def test_a_verification_tells_whether_it_was_clean(staff: JSONClient) -> None:
    make("verifications", 1)

    [found] = get(staff, "verifications", "?pageSize=1")["data"]

    assert (found["checked"], found["missing"], found["error"], found["is_clean"]) == (7, 1, None, False)


def test_a_restore_has_its_report_and_a_drill_its_times(staff: JSONClient) -> None:
    make("restores", 1)
    make("drills", 1)

    assert get(staff, "restores", "?pageSize=1")["data"][0]["report"] == {"changed": 3}
    [drill] = get(staff, "drills", "?pageSize=1")["data"]
    assert (drill["scenario"], drill["ok"], drill["rto_seconds"], drill["rpo_seconds"]) == ("full_loss", True, 2, None)


def test_findings_are_filtered_by_whether_they_are_open(staff: JSONClient) -> None:
    newest, other, oldest = (str(one) for one in make("findings", 3))
    with system_scope("a test mends"):
        Finding.objects.filter(id=other).update(repaired_at=AHEAD)

    open_ones = [row["id"] for row in get(staff, "findings", "?open=true&pageSize=2")["data"]]
    mended = [row["id"] for row in get(staff, "findings", "?open=false&pageSize=1")["data"]]
    everything = [row["id"] for row in get(staff, "findings", "?pageSize=3")["data"]]

    assert (open_ones, mended, everything) == ([newest, oldest], [other], [newest, other, oldest])
    assert ask(staff, "GET", "findings", "?open=maybe").status_code == 400
    cursor = get(staff, "findings", "?open=true&pageSize=1")["pagination"]["nextCursor"]
    assert ask(staff, "GET", "findings", f"?cursor={cursor}").status_code == 400


# Trigger, pause, resume


def test_a_trigger_wakes_the_backup(staff: JSONClient, waiting: Any, wakes: list[str]) -> None:
    answer = ask(staff, "POST", "trigger")

    assert answer.status_code == 202
    assert answer.json() == {"status": "healthy", "changed": True, "detail": "The backup runs now."}
    assert wakes == ["dr.sync"]


def test_pause_and_resume_are_said_once_and_never_refused(
    sam: User, staff: JSONClient, waiting: Any, wakes: list[str]
) -> None:
    answers = [ask(staff, "POST", name) for name in ("pause", "pause", "resume", "resume")]

    assert [answer.status_code for answer in answers] == [202] * 4
    assert [(answer.json()["status"], answer.json()["changed"]) for answer in answers] == [
        ("paused", True),
        ("paused", False),
        ("healthy", True),
        ("healthy", False),
    ]
    assert wakes == ["dr.sync"]


def test_the_pause_remembers_who_made_it(sam: User, staff: JSONClient) -> None:
    ask(staff, "POST", "pause")

    assert house.row().paused_by == sam.id


def test_a_trigger_while_it_is_paused_is_a_conflict(staff: JSONClient, wakes: list[str]) -> None:
    ask(staff, "POST", "pause")

    answer = ask(staff, "POST", "trigger")

    assert (answer.status_code, answer.json()["code"]) == (409, "backup_paused")
    assert answer["Content-Type"] == "application/problem+json"
    assert wakes == []


# /health and /metrics, which need no credentials


@pytest.mark.parametrize("status", ["failing", "disabled"])
def test_the_platforms_health_tells_of_a_backup_that_is_not_well_but_not_why(database: None, status: str) -> None:
    fail(status)

    answer = JSONClient().get("/health")

    assert answer.json()["checks"]["bigquery"].startswith("degraded: ")
    assert answer.json()["status"] == "degraded"
    assert b"BigQuery said no" not in answer.content


def test_the_platforms_health_tells_of_a_pause(database: None) -> None:
    states.pause(by=None, now=timezone.now())

    assert JSONClient().get("/health").json()["checks"]["bigquery"] == "degraded: the backup is paused"


def test_monitors_read_how_the_backup_is(waiting: Any) -> None:
    waiting(1000)
    states.note_success(now=AHEAD)
    house.batch(set_aside_at=AHEAD)

    assert house.metric('engarde_backup_state{state="failing"}') == 1
    assert house.metric('engarde_backup_state{state="healthy"}') == 0
    assert house.metric("engarde_backup_lag_seconds") == pytest.approx(1000, abs=30)
    assert house.metric("engarde_backup_rpo_target_seconds") == 900
    assert house.metric("engarde_backup_set_aside_batches") == 1
    assert house.metric("engarde_backup_backlog_batches") >= 1
    assert house.metric("engarde_backup_last_success_timestamp_seconds") == AHEAD.timestamp()
    assert house.metric("engarde_backup_readable") == 1


def test_monitors_read_what_the_backup_did(waiting: Any) -> None:
    names = {f"engarde_backup_{name}_total": name for name in ("rows", "bytes", "batches", "failures")}
    before = {metric: house.metric(metric) for metric in names}
    figures.note(now=timezone.now(), rows=5, bytes=500, batches=2, failures=1, ages=[3] * 5)

    for metric, more in zip(names, (5, 500, 2, 1), strict=True):
        assert house.metric(metric) - before[metric] == more, metric
    day = DailyFigures.objects.get(date=timezone.now().date())
    assert 0 < house.metric("engarde_backup_rpo_p99_seconds") <= day.rpo_max_seconds


def test_monitors_read_of_verifications_and_drills(database: None) -> None:
    before = house.metric("engarde_backup_findings_open")
    make("findings", 2)
    with system_scope("a test drills"):
        Drill.objects.create(
            started_at=AHEAD,
            finished_at=AHEAD,
            scenario="full_loss",
            scheduled=True,
            ok=True,
            rto_seconds=12.5,
            rpo_seconds=3,
        )

    assert house.metric("engarde_backup_findings_open") == before + 2
    assert house.metric("engarde_backup_verified_timestamp_seconds") == (AHEAD + timedelta(hours=1)).timestamp()
    assert house.metric("engarde_backup_drill_timestamp_seconds") == AHEAD.timestamp()
    assert house.metric("engarde_backup_drill_rto_seconds") == 12.5
    assert house.metric("engarde_backup_drill_rpo_seconds") == 3


def test_no_label_names_a_tenant(alice: Person) -> None:
    text = JSONClient().get("/metrics").content.decode()

    lines = [line for line in text.splitlines() if line.startswith("engarde_backup_")]
    assert len(lines) > 20
    assert not [line for line in lines if "{" in line and not line.startswith("engarde_backup_state{state=")]
    assert SyncState.objects.count() <= 1
