"""The uploader: spooled documents reach ZeroDB, each once, whatever happens on the way."""

import secrets
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.conf import LazySettings
from django.conf import settings as django_settings
from django.db import connection
from django.utils import timezone
from limits.storage import MemoryStorage
from rest_framework.test import APIClient

from content import documents, spool, tasks, uploader, writing
from content.models import SpooledDocument
from content.stores.base import Document, StoreMisconfigured, StoreRejected, StoreUnavailable
from content.stores.budget import BudgetSpent, HourlyBudget
from content.stores.zerodb import ZeroDBStore
from engarde import health
from engarde.common.scopes import system_scope
from tests import crash, switches, tiers
from tests.content.test_plans import nodes
from tests.people import Person


def test_it_uploads_a_document_once_and_drops_it_when_the_backup_has_it_too(
    alice: Person, upload: Callable[[], int], back_up: Callable[[], int]
) -> None:
    item_id = alice.writes()["id"]

    upload()
    assert [bool(row.uploaded_at) for row in tiers.spooled(item_id)] == [True]
    back_up()

    assert tiers.spooled(item_id) == []
    assert len(tiers.zerodb_rows(item_id)) == 1


def test_a_claim_never_joins_what_waits_with_what_waits(alice: Person) -> None:
    """Whether it does is up to the statistics, which of a queue are always of another moment: so it must not be able to."""
    values: dict[str, Any] = {"now": timezone.now(), "lease_end": timezone.now() + spool.LEASE, "limit": 10}

    with system_scope("a test asks for a plan"), connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (FORMAT JSON) {uploader.CLAIM}", values)
        [[told]] = cursor.fetchall()

    found = list(nodes(told[0]["Plan"]))
    assert [node for node in found if node.get("Join Type") == "Anti"] == []
    assert {"content_body_spool", "content_record_spool"} <= {node.get("Relation Name") for node in found}


def test_it_points_at_a_document_that_an_earlier_version_stored(alice: Person, upload: Callable[[], int]) -> None:
    item_id = alice.writes(body="A")["id"]
    for body in ("B", "A"):
        upload()
        alice.api.patch(f"/api/content/{item_id}", {"body": body})
    upload()

    first, second, third = tiers.versions(item_id)
    assert first.zerodb_row_id == third.zerodb_row_id != second.zerodb_row_id
    assert len(tiers.zerodb_rows(item_id)) == 2


def test_a_deleted_item_keeps_pointing_at_its_document(alice: Person, upload: Callable[[], int]) -> None:
    item_id = alice.writes()["id"]
    alice.api.delete(f"/api/content/{item_id}")

    upload()

    created, deleted = tiers.versions(item_id)
    assert created.zerodb_row_id == deleted.zerodb_row_id is not None


def test_writes_and_reads_go_on_while_zerodb_is_away_and_catch_up_by_themselves(
    alice: Person, upload: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with tiers.zerodb_away(monkeypatch):
        item_id = alice.writes(body="written in the dark")["id"]
        store = documents.document_store()
        assert store is not None
        assert uploader.run_pass(store=store, now=timezone.now).failed >= 1
        item = alice.api.get(f"/api/content/{item_id}").json()
        assert (item["body"], item["storage"]["tier"]) == ("written in the dark", "spool")
        assert alice.api.patch(f"/api/content/{item_id}", {"body": "changed"}).status_code == 200
    [first, _] = tiers.spooled(item_id)
    assert "127.0.0.1" in first.last_error or "ZeroDB" in first.last_error
    assert first.next_attempt_at > timezone.now()

    tiers.make_due(item_id)
    upload()

    assert all(version.zerodb_row_id for version in tiers.versions(item_id))
    assert len(tiers.zerodb_rows(item_id)) == 2


@pytest.mark.parametrize(
    ("target", "moment", "stored", "marked"),
    [
        pytest.param("content.uploader._claim", "before", 0, False, marks=pytest.mark.soak),
        ("content.uploader._claim", "after", 0, False),
        pytest.param("content.stores.zerodb.ZeroDBStore.put", "before", 0, False, marks=pytest.mark.soak),
        ("content.stores.zerodb.ZeroDBStore.put", "after", 1, False),
        ("content.uploader._mark_sent", "before", 1, False),
        pytest.param("content.spool.point_versions", "after", 1, False, marks=pytest.mark.soak),
        ("content.spool.drop_finished", "after", 1, False),
        pytest.param("content.uploader._mark_sent", "after", 1, True, marks=pytest.mark.soak),
    ],
)
def test_an_uploader_killed_anywhere_leaves_each_document_once(
    alice: Person, upload: Callable[[], int], target: str, moment: str, stored: int, marked: bool
) -> None:
    upload()
    item_id = alice.writes()["id"]

    crash.kill_at(target, moment, "from content import tasks; tasks.upload_documents()")
    assert (tiers.versions(item_id)[0].zerodb_row_id is not None) == marked
    assert len(tiers.zerodb_rows(item_id)) == stored
    tiers.make_due(item_id)
    upload()

    [row] = tiers.zerodb_rows(item_id)
    assert tiers.versions(item_id)[0].zerodb_row_id == row["row_id"]


def test_a_document_that_was_altered_in_zerodb_is_never_served(
    alice: Person, upload: Callable[[], int], back_up: Callable[[], int]
) -> None:
    item_id = alice.writes(body="the truth")["id"]
    upload()
    back_up()
    [row] = tiers.zerodb_rows(item_id)
    lie: dict[str, Any] = {**row["row_data"], "document": row["row_data"]["document"].replace("truth", "lie")}
    tiers.zerodb("PUT", f"/rows/{row['row_id']}", row_data=lie)
    tiers.forget_copies()

    item = alice.api.get(f"/api/content/{item_id}").json()

    assert (item["body"], item["storage"]["tier"]) == ("the truth", "backup")


def test_without_any_tier_that_has_the_document_get_says_so_and_lists_still_answer(
    alice: Person, upload: Callable[[], int], back_up: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    item_id = alice.writes()["id"]
    upload()
    back_up()
    tiers.forget_copies()

    with tiers.zerodb_away(monkeypatch), tiers.bigquery_away(monkeypatch):
        one, page = alice.api.get(f"/api/content/{item_id}"), alice.api.get("/api/content")

    assert (one.status_code, one.json()["code"]) == (503, "document_unavailable")
    assert int(one["Retry-After"]) > 0
    [summary] = page.json()["data"]
    assert (summary["preview"], summary["storage"]["available"]) == (None, False)


def test_a_document_that_zerodb_lost_is_sent_again_when_it_comes_back_as_a_later_version(
    alice: Person, upload: Callable[[], int], back_up: Callable[[], int]
) -> None:
    item_id = alice.writes(body="A")["id"]
    upload()
    alice.api.patch(f"/api/content/{item_id}", {"body": "B"})
    tiers.lose_zerodb_rows(alice.tenant_id)
    alice.api.patch(f"/api/content/{item_id}", {"body": "A"})

    upload()
    back_up()

    item = alice.api.get(f"/api/content/{item_id}").json()
    assert (item["body"], item["storage"]["tier"]) == ("A", "zerodb")
    assert item["storage"]["zerodb_id"] in {row["row_id"] for row in tiers.zerodb_rows(item_id)}


def test_two_uploaders_at_once_leave_each_document_once(alice: Person, upload: Callable[[], int]) -> None:
    upload()
    ids = [alice.writes(body=str(number))["id"] for number in range(12)]
    for item_id in ids[:4]:  # the same document twice in the spool, once as the first version and once as the third
        for body in ("between", str(ids.index(item_id))):
            alice.api.patch(f"/api/content/{item_id}", {"body": body})
    together = threading.Barrier(3)

    def work() -> None:
        together.wait(10)
        run_until_idle()
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for item_id in ids:
        assert len(tiers.zerodb_rows(item_id)) == len({bytes(row.sha256) for row in tiers.versions(item_id)})
        assert all(version.zerodb_row_id for version in tiers.versions(item_id))


def test_a_pass_takes_no_more_than_a_batch(alice: Person, upload: Callable[[], int], settings: LazySettings) -> None:
    upload()
    settings.CONTENT_UPLOAD_BATCH = 3
    for _ in range(7):
        alice.writes()

    assert [run_pass().uploaded for _ in range(4)] == [3, 3, 1, 0]


@pytest.mark.soak
def test_a_zerodb_that_fails_now_and_then_does_not_stop_the_others(
    alice: Person, upload: Callable[[], int], settings: LazySettings
) -> None:
    upload()
    settings.CONTENT_UPLOAD_BATCH = 5
    ids = [alice.writes()["id"] for _ in range(30)]

    with switches.switched_on(settings.ZERODB_BASE_URL, "server_error", rate=0.5, seed=5, path="*/rows"):
        tasks.upload_documents()

    assert sum(len(tiers.zerodb_rows(item_id)) for item_id in ids) > 15
    tiers.make_due(*ids)
    upload()
    assert all(len(tiers.zerodb_rows(item_id)) == 1 for item_id in ids)


def test_a_document_is_tried_again_within_half_a_minute_however_long_zerodb_was_away(
    alice: Person, upload: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    upload()
    item_id = alice.writes()["id"]
    with system_scope("a test has it fail for long"):
        SpooledDocument.objects.filter(content_id=item_id).update(attempts=200)

    with tiers.zerodb_away(monkeypatch):
        run_pass()

    [row] = tiers.spooled(item_id)
    assert row.attempts == 201
    assert row.next_attempt_at < timezone.now() + timedelta(seconds=38)
    tiers.make_due(item_id)
    upload()


def test_a_document_that_zerodb_refuses_waits_longer_in_the_end(alice: Person) -> None:
    refused, away = StoreRejected("too large", status=413), StoreRejected("no such address", status=404)

    assert spool.wait_after(attempts=1, error=refused) < timedelta(seconds=3)
    assert spool.wait_after(attempts=100, error=refused) > timedelta(minutes=5)
    assert spool.wait_after(attempts=100, error=away) < timedelta(seconds=40)
    assert spool.wait_after(attempts=1, error=StoreUnavailable("busy", retry_after=10)) == timedelta(seconds=10)
    assert spool.wait_after(attempts=1, error=StoreUnavailable("busy", retry_after=3600)) <= timedelta(seconds=30)


def test_what_the_document_is_not_to_blame_for_does_not_make_it_wait_long() -> None:
    assert spool.wait_after(attempts=100, error=StoreMisconfigured("the filter", status=422)) < timedelta(seconds=30)
    assert spool.wait_after(attempts=100, error=BudgetSpent("", retry_after=250)) == timedelta(seconds=250)


def test_documents_do_not_all_come_back_at_the_same_moment() -> None:
    waits = {spool.wait_after(attempts=5, error=StoreUnavailable("down")) for _ in range(20)}

    assert len(waits) == 20


def test_a_document_that_was_not_even_tried_uses_up_no_attempt(alice: Person, upload: Callable[[], int]) -> None:
    upload()
    item_id = alice.writes()["id"]
    store = documents.document_store()
    assert isinstance(store, ZeroDBStore)
    poor = ZeroDBStore(**settings_of_store(), budget=HourlyBudget(1, MemoryStorage(), attempt=lambda ask: ask()))
    poor.ping()

    assert uploader.run_pass(store=poor, now=timezone.now) == uploader.Pass(untried=1)

    [row] = tiers.spooled(item_id)
    assert (row.attempts, row.uploaded_at) == (0, None)
    tiers.make_due(item_id)
    upload()
    assert len(tiers.zerodb_rows(item_id)) == 1


def test_superseded_documents_wait_first_when_requests_are_scarce(alice: Person, upload: Callable[[], int]) -> None:
    upload()
    item_id = alice.writes(body="old")["id"]
    alice.api.patch(f"/api/content/{item_id}", {"body": "new"})
    budget = HourlyBudget(10, MemoryStorage(), attempt=lambda ask: ask())
    store = ZeroDBStore(**settings_of_store(), budget=budget)
    for _ in range(7):
        store.ping()

    done = uploader.run_pass(store=store, now=timezone.now)

    assert (done.uploaded, done.untried) == (1, 1)
    assert [row["row_data"]["version"] for row in tiers.zerodb_rows(item_id)] == [2]
    tiers.make_due(item_id)
    upload()


def test_a_row_that_was_claimed_long_ago_is_left_to_the_next_pass(
    alice: Person, upload: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    upload()
    item_id = alice.writes()["id"]
    monkeypatch.setattr(spool, "SEND_WITHIN", timedelta(seconds=-1))

    assert run_pass().untried == 1
    assert tiers.zerodb_rows(item_id) == []

    monkeypatch.undo()
    tiers.make_due(item_id)
    upload()


def test_a_late_uploader_leaves_the_next_ones_row_alone(
    alice: Person, upload: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    upload()
    item_id = alice.writes()["id"]

    def meanwhile(_self: ZeroDBStore, _document: Document, **_: Any) -> str:
        """The lease ends, and another worker claims the row."""
        tiers.make_due(item_id)
        uploader._claim(timezone.now())
        raise StoreUnavailable("too late")

    with monkeypatch.context() as patch:
        patch.setattr(ZeroDBStore, "put", meanwhile)
        run_pass()

    [row] = tiers.spooled(item_id)
    assert row.attempts == 2
    assert row.next_attempt_at > timezone.now() + timedelta(seconds=50)
    tiers.make_due(item_id)
    upload()


def test_a_document_stays_in_the_spool_until_every_version_with_it_is_backed_up(
    alice: Person, upload: Callable[[], int], back_up: Callable[[], int]
) -> None:
    item_id = alice.writes(body="A")["id"]
    upload()
    back_up()
    alice.api.patch(f"/api/content/{item_id}", {"body": "B"})
    alice.api.patch(f"/api/content/{item_id}", {"body": "A"})
    upload()
    assert sorted(row.version for row in tiers.spooled(item_id)) == [2, 3]

    back_up()

    assert tiers.spooled(item_id) == []


def test_what_nobody_dropped_goes_when_the_backup_is_switched_off(
    alice: Person, upload: Callable[[], int], settings: LazySettings
) -> None:
    item_id = alice.writes()["id"]
    upload()
    assert len(tiers.spooled(item_id)) == 1
    settings.BIGQUERY_SYNC_ENABLED = False

    tasks.sweep_spool()

    assert tiers.spooled(item_id) == []


def test_a_full_spool_lets_the_oldest_go_that_zerodb_has_and_health_says_so(
    alice: Person, upload: Callable[[], int], back_up: Callable[[], int], settings: LazySettings
) -> None:
    back_up()
    ids = [alice.writes(body=secrets.token_hex(20_000))["id"] for _ in range(4)]
    upload()
    unsent = alice.writes(body=secrets.token_hex(20_000))["id"]
    [row] = tiers.spooled(ids[0])
    settings.CONTENT_SPOOL_MAX_BYTES = int(len(row.document) * 2.5)

    tasks.sweep_spool()

    assert [len(tiers.spooled(item_id)) for item_id in (*ids, unsent)] == [0, 0, 1, 1, 1]
    settings.CONTENT_SPOOL_MAX_BYTES = int(len(row.document) * 2.1)
    assert health.check_zerodb().startswith("degraded: the spool is full")
    item = alice.api.get(f"/api/content/{ids[0]}").json()
    assert item["storage"]["bigquery_backed_up"] is False
    upload()
    back_up()
    assert health.check_zerodb() == "ok"


def test_metrics_tell_what_waits(alice: Person, upload: Callable[[], int], back_up: Callable[[], int]) -> None:
    upload()
    back_up()
    before = gauges()
    item_id = alice.writes(body="waiting")["id"]
    alice.api.patch(f"/api/content/{item_id}", {"body": "waiting too"})

    now = gauges()

    waiting = 'engarde_spool_documents{state="waiting_for_zerodb"}'
    assert now[waiting] - before[waiting] == 2
    assert now["engarde_records_backlog"] - before["engarde_records_backlog"] == 1
    assert now['engarde_spool_bytes{state="waiting_for_zerodb"}'] > 0
    oldest = "engarde_spool_oldest_seconds"
    assert 0 < now[oldest] < before[oldest] + 60
    upload()
    then = gauges()
    assert then[waiting] == before[waiting]
    assert then['engarde_spool_documents{state="waiting_for_backup"}'] >= 2


def gauges() -> dict[str, float]:
    lines = APIClient().get("/metrics").content.decode().splitlines()
    pairs = [line.rsplit(" ", 1) for line in lines if line and not line.startswith("#")]
    return {name: float(value) for name, value in pairs}


def run_pass() -> uploader.Pass:
    store = documents.document_store()
    assert store is not None
    return uploader.run_pass(store=store, now=timezone.now)


def run_until_idle() -> None:
    while not run_pass().is_idle:
        pass


def settings_of_store() -> dict[str, Any]:
    return dict(django_settings.CONTENT_STORE_OPTIONS)


def test_a_damaged_spool_row_holds_up_no_other(alice: Person, upload: Callable[[], int]) -> None:
    upload()
    bad, good = (alice.writes()["id"] for _ in range(2))
    with system_scope("a test damages the spool"):
        SpooledDocument.objects.filter(content_id=bad).update(document=b"not zstd")
    store = documents.document_store()
    assert store is not None

    uploader.run_pass(store=store, now=timezone.now)

    assert len(tiers.zerodb_rows(good)) == 1
    assert "cannot be unpacked" in tiers.spooled(bad)[0].last_error
    tiers.give_up(bad)


def test_a_delete_beside_the_uploader_leaves_no_version_without_its_row(
    alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    item_id = alice.writes()["id"]
    store, write, threads = documents.document_store(), writing.write, []
    assert store is not None

    def upload_elsewhere() -> None:
        try:
            uploader.run_pass(store=store, now=timezone.now)
        finally:
            connection.close()

    def write_while_the_uploader_marks(**wanted: Any) -> Any:
        threads.append(threading.Thread(target=upload_elsewhere))
        threads[0].start()
        threads[0].join(1)  # it waits for the item's row, or else is done before the new version is there
        return write(**wanted)

    monkeypatch.setattr(writing, "write", write_while_the_uploader_marks)
    assert alice.api.delete(f"/api/content/{item_id}").status_code == 200
    threads[0].join()

    row_ids = {version.zerodb_row_id for version in tiers.versions(item_id)}
    assert len(row_ids) == 1
    assert None not in row_ids
