"""Tidying ZeroDB: one usable row a key stays, whatever came to be beside it, and nothing that may be needed goes."""

import json
from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.conf import LazySettings, settings
from django.core.management import call_command
from django.utils import timezone

from content import collector, documents, records, tasks
from content.collector import Collected
from content.models import ContentVersion
from content.stores.base import DOCUMENTS, VERSIONS, DocumentKey, StoreUnavailable
from content.stores.zerodb import ZeroDBStore
from engarde.common.scopes import system_scope
from tests import switches, tiers
from tests.people import Person

IN_TWO_DAYS = timedelta(days=2)


@pytest.fixture
def item_id(alice: Person, upload: Callable[[], int], back_up: Callable[[], int]) -> str:
    """An item of alice's that all tiers have; nothing else is spooled."""
    upload()
    item_id = str(alice.writes(body="the truth")["id"])
    upload()
    back_up()
    tiers.forget_copies()
    return item_id


@pytest.fixture
def carry(database: None) -> Callable[[], None]:
    """Carry records until none is due."""

    def run() -> None:
        store = documents.document_store()
        assert isinstance(store, ZeroDBStore)
        while not (done := records.run_pass(store=store, now=timezone.now)).is_idle:
            assert not done.failed

    run()
    return run


def sweep(item_id: str, collection: str = DOCUMENTS, **options: Any) -> Collected:
    """Tidy a collection from an item on; what later tests make is behind it, what earlier ones left before it."""
    store = documents.document_store()
    assert store is not None
    given = {"now": timezone.now(), **options}
    return collector.run(store=store, collection=collection, collected=Collected(place=item_id), **given)


def copy_of(row: dict[str, Any], collection: str = DOCUMENTS, **changes: Any) -> str:
    """Insert another row like this one and return its id."""
    made = tiers.zerodb("POST", "/rows", collection=collection, row_data={**row["row_data"], **changes})
    return str(made["row_id"])


def named(item_id: str) -> set[str | None]:
    return {version.zerodb_row_id for version in tiers.versions(item_id)}


def row_ids(item_id: str) -> list[str]:
    return sorted(row["row_id"] for row in tiers.zerodb_rows(item_id))


def test_surplus_rows_go_and_the_one_that_postgresql_names_stays(item_id: str) -> None:
    [row] = tiers.zerodb_rows(item_id)
    for _ in range(3):
        copy_of(row)

    done = sweep(item_id)

    assert (done.surplus, done.removed, done.repointed) == (3, 3, 0)
    assert row_ids(item_id) == [row["row_id"]]


def test_more_duplicates_than_a_page_holds_all_go(
    item_id: str, monkeypatch: pytest.MonkeyPatch, alice: Person, upload: Callable[[], int]
) -> None:
    monkeypatch.setattr(collector, "PAGE_ROWS", 4)
    next_item = alice.writes(body="after the crowd")["id"]
    upload()
    for one in (item_id, next_item):
        [row] = tiers.zerodb_rows(one)
        for _ in range(10):
            copy_of(row)

    assert sweep(item_id).removed == 20
    assert [len(tiers.zerodb_rows(one)) for one in (item_id, next_item)] == [1, 1]


def test_a_dry_run_counts_and_changes_nothing(item_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "PAGE_ROWS", 2)
    [row] = tiers.zerodb_rows(item_id)
    for _ in range(3):
        copy_of(row)
    copy_of(row, document="{}")

    done = sweep(item_id, dry_run=True)

    assert (done.rows, done.removed) == (2, 0)  # a key with more rows than a page is passed over
    assert len(row_ids(item_id)) == 5


def test_versions_are_pointed_at_an_intact_row_before_the_damaged_one_goes(item_id: str) -> None:
    [row] = tiers.zerodb_rows(item_id)
    good = copy_of(row)
    tiers.zerodb("PUT", f"/rows/{row['row_id']}", row_data={**row["row_data"], "document": "{}"})

    done = sweep(item_id)

    assert (done.damaged, done.repointed, done.removed) == (1, 1, 1)
    assert row_ids(item_id) == [good]
    assert named(item_id) == {good}


def test_a_damaged_row_stays_until_an_intact_one_is_there(item_id: str, upload: Callable[[], int]) -> None:
    [row] = tiers.zerodb_rows(item_id)
    tiers.zerodb("PUT", f"/rows/{row['row_id']}", row_data={**row["row_data"], "document": "{}"})

    done = sweep(item_id)
    assert (done.damaged, done.repairs, done.removed) == (1, 1, 0)
    assert named(item_id) == {None}
    assert sweep(item_id).removed == 0  # on its way now
    upload()
    assert sweep(item_id).removed == 1

    [row_id] = row_ids(item_id)
    assert named(item_id) == {row_id} != {row["row_id"]}


def test_a_damaged_row_stays_when_no_tier_has_the_document(
    item_id: str, settings: LazySettings, upload: Callable[[], int]
) -> None:
    settings.CONTENT_READ_FALLBACK = ""
    documents.start_afresh()
    [row] = tiers.zerodb_rows(item_id)
    tiers.zerodb("PUT", f"/rows/{row['row_id']}", row_data={**row["row_data"], "document": "{}"})

    done = sweep(item_id)

    assert (done.repairs, done.unrepaired, done.removed) == (0, 1, 0)
    assert named(item_id) == {row["row_id"]}
    tiers.zerodb("PUT", f"/rows/{row['row_id']}", row_data=row["row_data"])


def test_what_is_on_its_way_is_left_alone(alice: Person, item_id: str, upload: Callable[[], int]) -> None:
    [row] = tiers.zerodb_rows(item_id)
    copy_of(row)
    documents.repair(tenant_id=alice.tenant_id, keys=[key_of(item_id)])

    assert sweep(item_id).removed == 0
    upload()
    assert sweep(item_id).removed == 1


def key_of(item_id: str) -> Any:
    row = tiers.versions(item_id)[-1]
    return documents.key_of(row.content_id, row.sha256)


def orphan(item_id: str) -> dict[str, Any]:
    """Make a row of a document that PostgreSQL does not know."""
    [row] = [row for row in tiers.zerodb_rows(item_id) if row["row_data"]["document"] != "{}"]
    text = f'{{"body":"{uuid4()}"}}'
    key = str(DocumentKey.of(UUID(item_id), text))
    copy_of(row, key=key, sha256=key.partition(":")[2], document=text)
    return {"key": key}


def test_orphans_are_named_and_stay(item_id: str) -> None:
    lost = orphan(item_id)

    done = sweep(item_id, now=timezone.now() + IN_TWO_DAYS)

    assert (done.orphans, done.removed) == (1, 0)
    assert done.orphan_keys == [lost["key"]]
    assert len(row_ids(item_id)) == 2


def test_young_orphans_do_not_count(item_id: str) -> None:
    orphan(item_id)

    assert sweep(item_id, remove_orphans=True).orphans == 0
    assert len(row_ids(item_id)) == 2


def test_orphans_go_when_somebody_asks_for_it(item_id: str, carry: Callable[[], None]) -> None:
    orphan(item_id)

    assert sweep(item_id, now=timezone.now() + IN_TWO_DAYS, remove_orphans=True).removed == 1
    carry()

    assert row_ids(item_id) == sorted(named(item_id), key=str)


def test_an_orphan_that_came_back_meanwhile_stays(
    alice: Person, item_id: str, carry: Callable[[], None], upload: Callable[[], int]
) -> None:
    [row] = tiers.zerodb_rows(item_id)
    [version] = tiers.versions(item_id)
    tiers.lose_postgres_version(item_id, 1)
    sweep(item_id, now=timezone.now() + IN_TWO_DAYS, remove_orphans=True)
    with system_scope("a test restores the version"):
        version.save(force_insert=True)
    carry()

    assert row_ids(item_id) == [row["row_id"]]


def test_orphans_of_unknown_tenants_stay(item_id: str, carry: Callable[[], None]) -> None:
    [row] = tiers.zerodb_rows(item_id)
    text = "{}"
    key = str(DocumentKey.of(UUID(item_id), text))
    copy_of(row, key=key, document=text, tenant_id=str(uuid4()))

    done = sweep(item_id, now=timezone.now() + IN_TWO_DAYS, remove_orphans=True)
    carry()

    assert (done.orphans, done.removed) == (1, 0)
    assert len(row_ids(item_id)) == 2


def test_rows_that_are_not_ours_are_left_alone(item_id: str, carry: Callable[[], None]) -> None:
    [row] = tiers.zerodb_rows(item_id)
    copy_of(row, key=f"{item_id}-not-a-key")
    copy_of(row, tenant_id="nobody")

    done = sweep(item_id, now=timezone.now() + IN_TWO_DAYS, remove_orphans=True)

    assert (done.foreign, done.orphans, done.removed) == (2, 0, 0)


@pytest.mark.parametrize(
    ("keys", "orphans", "refused"), [(1000, 100, False), (1000, 101, True), (5000, 400, False), (5000, 501, True)]
)
def test_so_many_orphans_that_postgresql_may_be_the_older_one_stay(
    alice: Person, keys: int, orphans: int, refused: bool
) -> None:
    alice.writes()

    reason = collector.refusal(found=Collected(keys=keys, orphans=orphans))

    assert bool(reason) == refused
    assert not refused or "restore_from_bigquery" in reason


def test_an_empty_postgresql_makes_no_orphans(database: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ContentVersion, "objects", ContentVersion.objects.none())

    assert "restore" in collector.refusal(found=Collected(keys=10, orphans=1))


def test_records_are_tidied_too(alice: Person, carry: Callable[[], None]) -> None:
    item_id = str(alice.writes()["id"])
    alice.api.patch(f"/api/content/{item_id}", {"body": "B"})
    carry()
    [row] = in_versions(item_id)
    for _ in range(2):
        copy_of(row, VERSIONS)
    copy_of(row, VERSIONS, change_type="delete")

    done = sweep(item_id, VERSIONS)

    assert (done.surplus, done.damaged, done.removed) == (2, 1, 3)
    assert [kept["row_data"]["change_type"] for kept in in_versions(item_id)] == ["update"]


def in_versions(item_id: str) -> list[dict[str, Any]]:
    return list(tiers.zerodb("POST", "/query", collection=VERSIONS, filter={"content_id": item_id})["data"])


def test_it_goes_on_where_it_was_interrupted(
    item_id: str, alice: Person, upload: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector, "PAGE_ROWS", 4)
    ids = [item_id, *(alice.writes(body=str(number))["id"] for number in range(4))]
    upload()
    for one in ids:
        copy_of(tiers.zerodb_rows(one)[0])
    store, done = documents.document_store(), Collected(place=item_id)
    assert store is not None
    with (
        switches.switched_on(settings.ZERODB_BASE_URL, "server_error", path="*/query"),
        pytest.raises(StoreUnavailable),
    ):
        collector.run(store=store, collection=DOCUMENTS, now=timezone.now(), collected=done)
    assert done.place == item_id

    collector.run(store=store, collection=DOCUMENTS, now=timezone.now(), collected=done, go_on=lambda: False)
    assert done.as_json()["keys"] == 1
    end = collector.run(store=store, collection=DOCUMENTS, now=timezone.now(), collected=done).place

    assert end is None
    assert [len(tiers.zerodb_rows(one)) for one in ids] == [1] * len(ids)


def test_the_nightly_task_goes_through_all_collections(item_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(tasks.collect_duplicates, "apply_async", lambda **message: sent.append(message))
    [row] = tiers.zerodb_rows(item_id)
    copy_of(row)

    tasks.collect_duplicates(after=item_id)
    tasks.collect_duplicates(**sent[0]["kwargs"])
    tasks.collect_duplicates(**sent[1]["kwargs"])

    assert row_ids(item_id) == [row["row_id"]]
    assert [message["kwargs"]["collection"] for message in sent] == ["content_versions", "content_media_files"]


def test_the_nightly_task_waits_for_a_zerodb_that_is_away(database: None, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(tasks.collect_duplicates, "apply_async", lambda **message: sent.append(message))

    with tiers.zerodb_away(monkeypatch):
        tasks.collect_duplicates(after="somewhere")

    assert sent == [
        {
            "kwargs": {"collection": DOCUMENTS, "after": "somewhere", "failures": 1},
            "countdown": tasks.SWEEP_PAUSE_SECONDS,
        }
    ]


def test_the_command_reports_what_it_found(item_id: str) -> None:
    [row] = tiers.zerodb_rows(item_id)
    copy_of(row)
    out = StringIO()

    call_command("sweep_zerodb", "--dry-run", "--collection", "content_items", "--json", stdout=out)

    report = json.loads(out.getvalue())
    assert report["dry_run"]
    assert report["orphans_refused"] == ""
    assert report["collections"].keys() == {"content_items"}
    assert report["collections"]["content_items"]["surplus"] >= 1
    assert len(row_ids(item_id)) == 2


def test_the_command_fails_when_orphans_must_stay(item_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    orphan(item_id)
    monkeypatch.setattr(collector, "ORPHAN_AGE", -IN_TWO_DAYS)
    monkeypatch.setattr(collector, "FEW_ORPHANS", 0)
    monkeypatch.setattr(collector, "ORPHAN_SHARE", 0)
    out = StringIO()

    with pytest.raises(SystemExit) as stop:
        call_command("sweep_zerodb", "--orphans", "--collection", "content_items", "--json", "--dry-run", stdout=out)

    assert stop.value.code == 1
    assert "restore_from_bigquery" in json.loads(out.getvalue())["orphans_refused"]
