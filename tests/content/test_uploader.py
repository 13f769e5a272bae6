"""The uploader: spooled documents reach ZeroDB, each once, whatever happens on the way."""

from collections.abc import Callable
from typing import Any

import pytest
from django.utils import timezone

from content import documents, uploader
from content.models import SpooledDocument
from engarde.common.scopes import system_scope
from tests import crash, tiers
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


@pytest.mark.parametrize("moment", ["before", "after"])
def test_an_uploader_killed_around_its_send_leaves_each_document_once(
    alice: Person, upload: Callable[[], int], moment: str
) -> None:
    upload()
    item_id = alice.writes()["id"]

    crash.kill_at(
        "content.stores.zerodb.ZeroDBStore.put", moment, "from content import tasks; tasks.upload_documents()"
    )
    assert tiers.versions(item_id)[0].zerodb_row_id is None
    assert len(tiers.zerodb_rows(item_id)) == (moment == "after")
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

    item = alice.api.get(f"/api/content/{item_id}").json()

    assert (item["body"], item["storage"]["tier"]) == ("the truth", "backup")


def test_without_any_tier_that_has_the_document_get_says_so_and_lists_still_answer(
    alice: Person, upload: Callable[[], int], back_up: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    item_id = alice.writes()["id"]
    upload()
    back_up()

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
