"""Media files whose bytes are elsewhere: written by imports, listed, redirected to, used, counted, deleted, erased."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import ANY
from uuid import UUID, uuid4

import pytest
from django.db import IntegrityError
from django.utils import timezone

from content import erasure, recovery, retention
from content.media import operations, references
from content.media.references import MAX_URL, is_address
from content.media.uploads import Received
from content.models import Media, SpooledRecord
from engarde.common.problems import Invalid
from engarde.common.scopes import system_scope, tenant_scope
from quotas import reconciliation
from tests import tiers
from tests.content.media_files import (
    URL,
    body_of,
    counted,
    everything,
    picture,
    reference,
    referenced,
    rows,
    uploaded,
)
from tests.content.test_media import CALLS, problem
from tests.content.test_records import carry, in_zerodb  # noqa: F401 -- `carry` is a fixture
from tests.people import JSONClient, Person

ELSEWHERE = "https://old.example/a%20photo.png?size=large&token=x"


# Reading


def test_it_says_where_the_file_is(alice: Person) -> None:
    item_id, now = uuid4(), timezone.now()
    media_id = referenced(alice, ELSEWHERE, content_id=item_id, file_name="a photo.png", created_at=now)

    answer = alice.api.get(f"{URL}/{media_id}")

    assert answer.json() == {
        "id": media_id,
        "content_id": str(item_id),
        "file_name": "a photo.png",
        "file_type": "image",
        "mime_type": "image/png",
        "size_bytes": 0,
        "sha256": None,
        "url": ELSEWHERE,
        "external": True,
        "created_at": now.isoformat().replace("+00:00", "Z"),
    }
    assert alice.api.get(URL, {"content_id": str(item_id)}).json()["data"] == [answer.json()]


def test_it_is_listed_among_the_files_that_are_here(alice: Person) -> None:
    here, elsewhere = uploaded(alice, picture())["id"], referenced(alice)

    listed = alice.api.get(URL, {"file_type": "image"}).json()["data"]

    assert [(media["id"], media.get("external")) for media in listed] == [(elsewhere, True), (here, None)]


@pytest.mark.parametrize(
    ("url", "location"),
    [
        (ELSEWHERE, ELSEWHERE),
        ("http://old.example", "http://old.example"),
        ("HTTPS://old.example/größe.png", "HTTPS://old.example/gr%C3%B6%C3%9Fe.png"),
        ("https://old.example/" + "ü" * 2000, "https://old.example/" + "%C3%BC" * 2000),
    ],
)
@pytest.mark.parametrize("method", ["get", "head"])
def test_a_download_leads_there(alice: Person, url: str, location: str, method: str) -> None:
    answer = getattr(alice.api, method)(f"{URL}/{referenced(alice, url)}/download", HTTP_RANGE="bytes=0-3")

    assert (answer.status_code, answer["Location"], answer.content) == (302, location, b"")
    assert answer["Cache-Control"] == "no-store"


def test_it_has_no_thumbnail(alice: Person) -> None:
    problem(alice.api.get(f"{URL}/{referenced(alice)}/thumbnail"), 404, "not_found")


@pytest.mark.parametrize(("method", "path"), CALLS[1:])
def test_an_outsider_cannot_tell_it_from_none(alice: Person, charlie: Person, method: str, path: str) -> None:
    media_id = referenced(alice)

    theirs = getattr(charlie.api, method)(path.format(id=media_id), HTTP_X_REQUEST_ID="same")
    none = getattr(charlie.api, method)(path.format(id=uuid4()), HTTP_X_REQUEST_ID="same")

    problem(theirs, 404, "not_found")
    assert theirs.content == none.content
    assert alice.api.get(f"{URL}/{media_id}").status_code == 200
    assert charlie.api.get(URL).json()["data"] == []


def test_a_stranger_is_not_led_there(alice: Person) -> None:
    assert JSONClient().get(f"{URL}/{referenced(alice)}/download").status_code == 401


# Using and deleting


def test_an_item_may_use_it_and_then_it_stays(alice: Person) -> None:
    media_id = referenced(alice)
    item = alice.writes(media=[media_id])

    assert alice.api.get(f"/api/content/{item['id']}").json()["media"] == [media_id]
    assert problem(alice.api.delete(f"{URL}/{media_id}"), 409, "media_in_use")["content_ids"] == [item["id"]]
    alice.api.patch(f"/api/content/{item['id']}", {"media": []})
    assert alice.api.delete(f"{URL}/{media_id}").status_code == 204


def test_an_outsiders_cannot_be_used(alice: Person, charlie: Person) -> None:
    answer = charlie.api.post("/api/content", {"title": "t", "type": "post", "media": [referenced(alice)]})

    problem(answer, 400, "validation_error")


def test_it_counts_as_a_file_without_bytes_until_it_is_deleted(alice: Person) -> None:
    uploaded(alice, bytes(44))
    media_id = referenced(alice)
    assert counted(alice.tenant_id) == (44, 2)
    found = reconciliation.reconcile(tenant_id=alice.tenant_id, now=timezone.now())
    assert found.differences == {}

    answer = alice.api.delete(f"{URL}/{media_id}")

    assert (answer.status_code, answer["X-Quota-Used"]) == (204, "44")
    assert (rows(alice.tenant_id), counted(alice.tenant_id)) == ((1, 1, 0), (44, 1))
    problem(alice.api.get(f"{URL}/{media_id}/download"), 404, "not_found")
    assert reconciliation.reconcile(tenant_id=alice.tenant_id, now=timezone.now()).differences == {}


def test_an_erased_item_takes_its_own_along_and_leaves_what_others_use(alice: Person) -> None:
    gone, other = alice.writes()["id"], alice.writes()["id"]
    own, shared = (referenced(alice, content_id=UUID(gone)) for _ in range(2))
    here = uploaded(alice, bytes(9), content_id=gone)["id"]
    assert alice.api.patch(f"/api/content/{other}", {"media": [shared]}).status_code == 200
    parts = erasure.parts_of(tenant_id=alice.tenant_id, content_id=UUID(gone))
    assert (set(parts.media), len(parts.blobs)) == ({UUID(own), UUID(here)}, 1)

    removed = erasure.erase_content(tenant_id=alice.tenant_id, content_id=UUID(gone))

    assert (removed["content_media"], removed["content_media_blobs"]) == (2, 1)
    assert alice.api.get(f"{URL}/{own}").status_code == 404
    assert alice.api.get(f"{URL}/{shared}").status_code == 200
    assert counted(alice.tenant_id) == (len("A body"), 1)


def test_an_erased_tenant_has_none(alice: Person) -> None:
    referenced(alice)

    while erasure.erase_tenant(tenant_id=alice.tenant_id, limit=100):
        pass

    assert rows(alice.tenant_id) == (0, 0, 0)


def test_it_goes_with_an_item_that_is_purged_from_the_trash(alice: Person) -> None:
    item_id = uuid4()  # of an item that is gone
    referenced(alice, content_id=item_id)

    retention._purge_media(alice.tenant_id, timezone.now())

    assert (rows(alice.tenant_id), counted(alice.tenant_id)) == ((0, 0, 0), (0, 0))


# ZeroDB


def test_zerodb_is_told_of_it_and_told_anew(alice: Person, carry: Callable[[], Any]) -> None:  # noqa: F811
    item_id = uuid4()
    media_id = referenced(alice, ELSEWHERE, content_id=item_id)
    carry()

    [row] = in_zerodb("content_media_files", str(item_id))
    assert row["row_data"] == {
        "key": media_id,
        "tenant_id": str(alice.tenant_id),
        "content_id": str(item_id),
        "file_name": "photo.png",
        "file_type": "image",
        "mime_type": "image/png",
        "size_bytes": 0,
        "sha256": None,
        "storage_key": None,
        "external_url": ELSEWHERE,
        "width": None,
        "height": None,
        "uploaded_by": None,
        "created_at": ANY,
        "checksum": ANY,
    }
    tiers.zerodb("DELETE", f"/rows/{row['row_id']}", collection="content_media_files")
    assert recovery.recover_records(store=store(), tenant_id=alice.tenant_id) == 1
    carry()
    [again] = in_zerodb("content_media_files", str(item_id))
    assert again["row_data"] == row["row_data"]

    assert alice.api.delete(f"{URL}/{media_id}").status_code == 204
    carry()
    assert in_zerodb("content_media_files", str(item_id)) == []


def test_the_record_of_a_file_that_is_here_has_no_address(alice: Person) -> None:
    media = uploaded(alice, b"some text")

    with system_scope("a test looks"):
        record = SpooledRecord.objects.get(collection="content_media_files", key=media["id"]).record

    assert record
    assert (record["sha256"], record["external_url"]) == (media["sha256"], None)
    assert record["storage_key"].startswith(str(alice.tenant_id))


def store() -> Any:
    from content import documents

    return documents.document_store()


# What is refused


@pytest.mark.parametrize(
    "url",
    [
        "",
        "old.example/photo.png",
        "//old.example/photo.png",
        "/photo.png",
        "ftp://old.example/photo.png",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "data:text/html,x",
        "https://",
        "https:/old.example",
        " https://old.example",
        "https://old.example/a photo.png",
        "https://old.example/\r\nSet-Cookie: a=b",
        "https://old.example\n",
        "https://old.example/\0",
        "https://old.example/\u202egnp.exe",
        "https://old.example/\ud800",
        "https://old.example/" + "x" * MAX_URL,
    ],
)
def test_nobody_is_sent_anywhere_but_to_the_web(alice: Person, url: str) -> None:
    before = everything(alice.tenant_id)

    with pytest.raises(Invalid) as refused, tenant_scope(alice.tenant_id):
        references.write_references(tenant_id=alice.tenant_id, references=[reference(), reference(url)])

    assert refused.value.extra["errors"][0]["field"] == "external_url"
    assert not is_address(url)
    assert everything(alice.tenant_id) == before


@pytest.mark.parametrize(
    ("changes", "constraint"),
    [
        ({"external_url": ""}, "media_has_bytes_or_url"),
        ({"size_bytes": 5}, "media_has_bytes_or_url"),
        ({"external_url": "javascript:alert(1)"}, "media_url_of_the_web"),
        ({"external_url": "https://old.example/\nx"}, "media_url_of_the_web"),
        ({"external_url": "x https://old.example/"}, "media_url_of_the_web"),
    ],
)
def test_the_database_refuses_what_is_neither_here_nor_there(
    alice: Person, changes: dict[str, Any], constraint: str
) -> None:
    media_id = referenced(alice)

    with pytest.raises(IntegrityError, match=constraint), tenant_scope(alice.tenant_id):
        Media.objects.filter(id=media_id).update(**changes)


def test_the_database_refuses_what_is_both_here_and_there(alice: Person) -> None:
    media_id = uploaded(alice, b"")["id"]

    for changes in ({"external_url": ELSEWHERE}, {"blob": None}):
        with pytest.raises(IntegrityError, match="media_has_bytes_or_url"), tenant_scope(alice.tenant_id):
            Media.objects.filter(id=media_id).update(**changes)


def test_another_tenants_scope_takes_none(alice: Person, charlie: Person) -> None:
    with pytest.raises(Exception, match="row-level security"), tenant_scope(charlie.tenant_id):
        references.write_references(tenant_id=alice.tenant_id, references=[reference()])


def test_many_are_written_at_once(alice: Person, django_assert_num_queries: Any) -> None:
    many = [reference(f"https://old.example/{number}") for number in range(20)]

    with tenant_scope(alice.tenant_id), django_assert_num_queries(1):
        written = references.write_references(tenant_id=alice.tenant_id, references=many)

    assert [media.id for media in written] == [one.id for one in many]
    assert {media.tenant_id for media in written} == {alice.tenant_id}


# Imports of files that are here


def test_a_file_that_is_imported_keeps_its_id_and_nobody_uploaded_it(alice: Person, tmp_path: Path) -> None:
    media_id, path = uuid4(), tmp_path / "old.txt"
    path.write_bytes(b"from before")

    def store_it() -> operations.Stored:
        import hashlib

        path.write_bytes(b"from before")
        received = Received(path, "old.txt", 11, hashlib.sha256(b"from before").digest(), None)
        return operations.store_media(
            tenant_id=alice.tenant_id, author_id=None, received=received, now=timezone.now(), media_id=media_id
        )

    stored = store_it()

    assert (stored.media.id, stored.media.uploaded_by, stored.media.external_url) == (media_id, None, "")
    assert body_of(alice.api.get(f"{URL}/{media_id}/download")) == b"from before"
    before = everything(alice.tenant_id)
    with pytest.raises(IntegrityError):
        store_it()
    assert everything(alice.tenant_id) == before
