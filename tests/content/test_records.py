"""The carrier of records: one row a key in ZeroDB, none for what was removed, whatever happens on the way."""

from collections.abc import Callable
from typing import Any
from unittest.mock import ANY
from uuid import UUID

import pytest
from django.conf import settings
from django.db import connection
from django.utils import timezone

from content import documents, records, uploader
from content.models import Blob, ContentVersion, Media, SpooledRecord
from content.stores.base import Document, StoreUnavailable
from content.stores.zerodb import ZeroDBStore
from engarde.common.scopes import system_scope
from tests import crash, switches, tiers
from tests.people import Person

CARRY = "from content import tasks; tasks.carry_records()"


@pytest.fixture
def carry(database: None) -> Callable[[], records.Pass]:
    """Carry records until none is due and return what was done in all."""

    def run() -> records.Pass:
        total = records.Pass()
        while not (done := run_pass()).is_idle:
            total = records.Pass(
                total.put + done.put,
                total.removed + done.removed,
                total.dropped + done.dropped,
                total.failed + done.failed,
            )
            if done.failed or done.untried:
                break
        return total

    run()
    return run


def run_pass() -> records.Pass:
    store = documents.document_store()
    assert store is not None
    return records.run_pass(store=store, now=timezone.now)


def in_zerodb(collection: str, content_id: str) -> list[dict[str, Any]]:
    """Return the rows of an item in one of ZeroDB's collections, by key."""
    answer = tiers.zerodb("POST", "/query", collection=collection, filter={"content_id": content_id}, limit=1000)
    return sorted(answer["data"], key=lambda row: row["row_data"]["key"])


def versions_in_zerodb(content_id: str) -> list[int]:
    return [row["row_data"]["version"] for row in in_zerodb("content_versions", content_id)]


def make_due(content_id: str) -> None:
    with system_scope("a test moves the clock"):
        SpooledRecord.objects.filter(key__startswith=content_id).update(next_attempt_at=timezone.now())


def thin(content_id: str, version: int) -> None:
    """Remove a version for good."""
    with system_scope("a test removes a version"):
        ContentVersion.objects.filter(content_id=UUID(content_id), version=version).delete()


def bring_back(content_id: str, version: int, like: int) -> None:
    """Add a version with the document of another one, which is spooled, as a write does."""
    with system_scope("a test writes a version"), connection.cursor() as cursor:
        cursor.execute(
            """INSERT INTO content_versions SELECT (jsonb_populate_record(old, jsonb_build_object(
                   'version', %s, 'zerodb_row_id', NULL, 'backed_up_at', NULL))).*
               FROM content_versions AS old WHERE content_id = %s AND version = %s""",
            [version, content_id, like],
        )


def test_every_change_is_recorded_once(alice: Person, carry: Callable[[], records.Pass]) -> None:
    item_id = alice.writes()["id"]
    alice.api.patch(f"/api/content/{item_id}", {"body": "B", "title": "T"})
    alice.api.delete(f"/api/content/{item_id}")

    assert carry().put == 2

    second, third = in_zerodb("content_versions", item_id)
    assert second["row_data"] == {
        "key": f"{item_id}:2",
        "tenant_id": str(alice.tenant_id),
        "content_id": item_id,
        "version": 2,
        "change_type": "update",
        "changed_by": ANY,
        "changed_fields": ["body", "title"],
        "size_bytes": 1,
        "sha256": ANY,
        "created_at": ANY,
        "checksum": ANY,
    }
    assert third["row_data"]["change_type"] == "delete"
    assert tiers.records(item_id) == []


def test_a_removed_version_takes_its_document_and_record_along(
    alice: Person, upload: Callable[[], int], carry: Callable[[], records.Pass]
) -> None:
    item_id = alice.writes(body="A")["id"]
    for body in ("B", "C"):
        alice.api.patch(f"/api/content/{item_id}", {"body": body})
    upload()
    carry()

    thin(item_id, 2)
    assert carry().removed == 2

    assert versions_in_zerodb(item_id) == [3]
    assert sorted(row["row_data"]["version"] for row in tiers.zerodb_rows(item_id)) == [1, 3]
    assert tiers.records(item_id) == []


def test_a_document_that_another_version_has_too_stays(
    alice: Person, upload: Callable[[], int], carry: Callable[[], records.Pass]
) -> None:
    item_id = alice.writes(body="A")["id"]
    for body in ("B", "A"):
        alice.api.patch(f"/api/content/{item_id}", {"body": body})
    upload()

    thin(item_id, 1)
    carry()

    assert len(tiers.zerodb_rows(item_id)) == 2


@pytest.mark.parametrize("instead", ["drop", "error", "empty"])
def test_a_put_whose_answer_got_lost_leaves_one_row(
    alice: Person, carry: Callable[[], records.Pass], instead: str
) -> None:
    item_id = alice.writes()["id"]
    alice.api.patch(f"/api/content/{item_id}", {"body": "B"})

    with switches.switched_on(settings.ZERODB_BASE_URL, "lost_answer", instead=instead):
        run_pass()
    make_due(item_id)
    carry()

    assert versions_in_zerodb(item_id) == [2]
    assert tiers.records(item_id) == []


@pytest.mark.parametrize(
    ("target", "moment"),
    [
        pytest.param("content.stores.zerodb.ZeroDBStore.put_record", "before", marks=pytest.mark.soak),
        ("content.stores.zerodb.ZeroDBStore.put_record", "after"),
        ("content.records._finish", "before"),
        pytest.param("content.records._finish", "after", marks=pytest.mark.soak),
        pytest.param("content.records._claim", "after", marks=pytest.mark.soak),
    ],
)
def test_a_carrier_killed_anywhere_leaves_one_row_a_record(
    alice: Person, carry: Callable[[], records.Pass], target: str, moment: str
) -> None:
    item_id = alice.writes()["id"]
    alice.api.patch(f"/api/content/{item_id}", {"body": "B"})

    crash.kill_at(target, moment, CARRY)
    make_due(item_id)
    carry()

    assert versions_in_zerodb(item_id) == [2]
    assert tiers.records(item_id) == []


@pytest.mark.parametrize(
    ("target", "moment"),
    [
        ("content.stores.zerodb.ZeroDBStore.delete_rows", "before"),
        ("content.stores.zerodb.ZeroDBStore.delete_rows", "after"),
        ("content.records._finish", "before"),
    ],
)
def test_a_carrier_killed_anywhere_removes_what_is_to_go(
    alice: Person, upload: Callable[[], int], carry: Callable[[], records.Pass], target: str, moment: str
) -> None:
    item_id = alice.writes(body="A")["id"]
    alice.api.patch(f"/api/content/{item_id}", {"body": "B"})
    upload()
    carry()
    thin(item_id, 1)

    crash.kill_at(target, moment, CARRY)
    make_due(item_id)
    carry()

    assert [row["row_data"]["version"] for row in tiers.zerodb_rows(item_id)] == [2]
    assert tiers.records(item_id) == []


def test_a_removal_is_dropped_when_the_document_is_there_again(
    alice: Person, upload: Callable[[], int], carry: Callable[[], records.Pass]
) -> None:
    item_id = alice.writes(body="A")["id"]
    alice.api.patch(f"/api/content/{item_id}", {"body": "B"})
    upload()
    carry()
    thin(item_id, 1)
    alice.api.patch(f"/api/content/{item_id}", {"body": "A"})

    assert run_pass().dropped == 1
    upload()
    carry()

    assert len(tiers.zerodb_rows(item_id)) == 2
    assert tiers.records(item_id) == []
    row_ids = {row["row_id"] for row in tiers.zerodb_rows(item_id)}
    assert {version.zerodb_row_id for version in tiers.versions(item_id)} == row_ids


def test_a_document_waits_for_the_removal_of_its_like(
    alice: Person, upload: Callable[[], int], carry: Callable[[], records.Pass], monkeypatch: pytest.MonkeyPatch
) -> None:
    item_id = alice.writes(body="A")["id"]
    alice.api.patch(f"/api/content/{item_id}", {"body": "B"})
    upload()
    carry()
    thin(item_id, 1)
    seen = {}
    delete_rows = ZeroDBStore.delete_rows

    def meanwhile(self: ZeroDBStore, collection: str, keys: Any) -> int:
        """While the removal is on its way the document comes back, and the uploader finds it."""
        alice.api.patch(f"/api/content/{item_id}", {"body": "A"})
        seen["uploaded"] = upload()
        return delete_rows(self, collection, keys)

    monkeypatch.setattr(ZeroDBStore, "delete_rows", meanwhile)
    run_pass()

    assert seen["uploaded"] == 0
    assert tiers.versions(item_id)[-1].zerodb_row_id is None
    assert upload() == 1
    assert len(tiers.zerodb_rows(item_id)) == 2
    assert tiers.versions(item_id)[-1].zerodb_row_id is not None


def test_a_removal_waits_for_the_document_that_is_on_its_way(
    alice: Person, upload: Callable[[], int], carry: Callable[[], records.Pass], monkeypatch: pytest.MonkeyPatch
) -> None:
    upload()
    item_id = alice.writes(body="A")["id"]
    put = ZeroDBStore.put

    def meanwhile(self: ZeroDBStore, document: Document, **options: Any) -> str:
        """While the document is on its way its version goes, and the carrier of records looks for work."""
        alice.api.patch(f"/api/content/{item_id}", {"body": "B"})
        thin(item_id, 1)
        run_pass()
        return put(self, document, **options)

    with monkeypatch.context() as patch:
        patch.setattr(ZeroDBStore, "put", meanwhile)
        assert uploader.run_pass(store=_store(), now=timezone.now).uploaded == 1
    assert [row.record for row in tiers.records(item_id) if row.collection == "content_items"] == [None]

    upload()
    make_due(item_id)
    carry()

    assert [row["row_data"]["version"] for row in tiers.zerodb_rows(item_id)] == [2]
    assert tiers.records(item_id) == []


def test_a_document_whose_version_went_while_the_uploader_died_leaves_no_row(
    alice: Person, upload: Callable[[], int], carry: Callable[[], records.Pass]
) -> None:
    upload()
    item_id = alice.writes(body="A")["id"]
    crash.kill_at("content.uploader._mark_sent", "before", "from content import tasks; tasks.upload_documents()")
    assert len(tiers.zerodb_rows(item_id)) == 1

    alice.api.patch(f"/api/content/{item_id}", {"body": "B"})
    thin(item_id, 1)
    make_due(item_id)
    upload()
    carry()

    assert [row["row_data"]["version"] for row in tiers.zerodb_rows(item_id)] == [2]


SLOW_UPLOAD = """
from django.utils import timezone
from content import documents, records, tasks
from content.models import ContentVersion
from content.stores.zerodb import ZeroDBStore
from engarde.common.scopes import system_scope

put = ZeroDBStore.put

def meanwhile(self, document, **options):
    with system_scope("a test removes a version"):
        ContentVersion.objects.filter(content_id="{item_id}", version=1).delete()
    records.run_pass(store=documents.document_store(), now=timezone.now)
    return put(self, document, **options)

ZeroDBStore.put = meanwhile
tasks.upload_documents()
"""


def test_a_removal_waits_even_for_an_uploader_that_will_die(
    alice: Person, upload: Callable[[], int], carry: Callable[[], records.Pass]
) -> None:
    upload()
    item_id = alice.writes(body="A")["id"]

    crash.kill_at("content.uploader._mark_sent", "before", SLOW_UPLOAD.format(item_id=item_id))
    assert len(tiers.zerodb_rows(item_id)) == 1
    make_due(item_id)
    carry()

    assert tiers.zerodb_rows(item_id) == []


def test_a_put_that_became_a_removal_on_its_way_is_followed_by_it(
    alice: Person, upload: Callable[[], int], carry: Callable[[], records.Pass], monkeypatch: pytest.MonkeyPatch
) -> None:
    item_id = alice.writes()["id"]
    alice.api.patch(f"/api/content/{item_id}", {"body": "B"})
    alice.api.patch(f"/api/content/{item_id}", {"body": "C"})
    put_record = ZeroDBStore.put_record

    def meanwhile(self: ZeroDBStore, collection: str, key: str, **options: Any) -> str:
        if key == f"{item_id}:2":
            thin(item_id, 2)
        return put_record(self, collection, key, **options)

    with monkeypatch.context() as patch:
        patch.setattr(ZeroDBStore, "put_record", meanwhile)
        run_pass()
    [waiting] = [row for row in tiers.records(item_id) if row.collection == "content_versions"]
    assert waiting.record is None
    carry()

    assert versions_in_zerodb(item_id) == [3]


def test_a_record_put_in_place_of_a_removal_looks_for_the_row_first(
    alice: Person, carry: Callable[[], records.Pass]
) -> None:
    item_id = alice.writes()["id"]
    alice.api.patch(f"/api/content/{item_id}", {"body": "B"})
    alice.api.patch(f"/api/content/{item_id}", {"body": "C"})
    carry()
    thin(item_id, 2)
    bring_back(item_id, version=2, like=3)

    carry()

    rows = in_zerodb("content_versions", item_id)
    assert [row["row_data"]["version"] for row in rows] == [2, 3]
    assert rows[0]["row_data"]["sha256"] == rows[1]["row_data"]["sha256"]
    tiers.give_up(item_id)


def test_records_wait_while_zerodb_is_away_and_catch_up(
    alice: Person, carry: Callable[[], records.Pass], monkeypatch: pytest.MonkeyPatch
) -> None:
    item_id = alice.writes()["id"]
    alice.api.patch(f"/api/content/{item_id}", {"body": "B"})

    with tiers.zerodb_away(monkeypatch):
        assert run_pass().failed == 1
    [waiting] = tiers.records(item_id)
    assert waiting.attempts == 1
    assert waiting.next_attempt_at > timezone.now()
    assert "ZeroDB" in waiting.last_error

    make_due(item_id)
    carry()
    assert versions_in_zerodb(item_id) == [2]


def test_what_was_not_even_tried_uses_up_no_attempt(
    alice: Person, carry: Callable[[], records.Pass], monkeypatch: pytest.MonkeyPatch
) -> None:
    item_id = alice.writes()["id"]
    alice.api.patch(f"/api/content/{item_id}", {"body": "B"})
    store = _store()
    for _ in range(5):
        with pytest.raises(StoreUnavailable), store._connection._breaker.guard():
            raise StoreUnavailable("down")

    assert run_pass().untried == 1

    [waiting] = tiers.records(item_id)
    assert waiting.attempts == 0
    documents.start_afresh()
    store._connection._breaker._board.pause(0)
    make_due(item_id)
    assert carry().put == 1


def test_the_record_of_a_media_file_comes_and_goes(alice: Person, carry: Callable[[], records.Pass]) -> None:
    with system_scope("a test adds a media file"):
        blob = Blob.objects.create(
            tenant_id=alice.tenant_id, sha256=b"\x01" * 32, size_bytes=3, storage_key=f"{alice.tenant_id}/x"
        )
        media = Media.objects.create(
            tenant_id=alice.tenant_id,
            blob=blob,
            content_id=UUID(int=7),
            file_name="a.txt",
            file_type="document",
            mime_type="text/plain",
            size_bytes=3,
            created_at=timezone.now(),
        )
    carry()
    [row] = [
        row for row in in_zerodb("content_media_files", str(UUID(int=7))) if row["row_data"]["key"] == str(media.id)
    ]
    assert (row["row_data"]["file_name"], row["row_data"]["sha256"]) == ("a.txt", "01" * 32)

    with system_scope("a test removes a media file"):
        media.delete()
        blob.delete()
    carry()

    assert str(row["row_data"]["key"]) not in {
        row["row_data"]["key"] for row in in_zerodb("content_media_files", str(UUID(int=7)))
    }


def _store() -> ZeroDBStore:
    store = documents.document_store()
    assert isinstance(store, ZeroDBStore)
    return store
