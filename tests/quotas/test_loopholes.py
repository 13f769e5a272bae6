"""The known ways around storage quotas: each is closed."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.conf import LazySettings
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.utils import timezone

from content import retention
from quotas import queries as quota_queries
from tests import people
from tests.content import media_files
from tests.people import Person
from tests.quotas import house
from tests.stored import stored_by

LIMIT = 1000


@pytest.fixture
def dora(database: None) -> Person:
    """Owner of a tenant that may store 1,000 bytes."""
    return people.new_owner("dora", storage_limit=LIMIT)


def check(person: Person, used: int) -> None:
    stored = stored_by(person.tenant_id)
    assert stored.counters_are_true, stored
    assert stored.counted_bytes == used


def refused(answer: Any) -> dict[str, Any]:
    assert (answer.status_code, answer.json()["code"]) == (403, "storage_quota_exceeded"), answer.content[:300]
    return dict(answer.json())


def post(person: Person, size: int) -> Any:
    return person.api.post("/api/content", {"title": "A title", "type": "post", "body": "x" * size})


def upload(person: Person, size: int, name: str = "a.bin") -> Any:
    file = SimpleUploadedFile(name, bytes(size))
    return person.api.post("/api/content/media", {"file": file}, format="multipart")


# Delete, fill up, take back out of the trash


def test_the_trash_does_not_let_a_tenant_store_twice_its_limit(dora: Person) -> None:
    first = post(dora, LIMIT).json()["id"]
    dora.api.delete(f"/api/content/{first}")
    second = post(dora, LIMIT).json()["id"]

    problem = refused(dora.api.post(f"/api/content/{first}/restore"))

    assert problem["freeable"] == {"trash_bytes": LIMIT, "old_version_bytes": 0}
    check(dora, LIMIT)
    dora.api.delete(f"/api/content/{second}")
    assert dora.api.post(f"/api/content/{first}/restore").status_code == 200
    check(dora, LIMIT)


def test_taking_out_of_the_trash_in_bulk_takes_what_fits(dora: Person) -> None:
    ids = [post(dora, size).json()["id"] for size in (400, 300, 300)]
    dora.api.post("/api/content/bulk", {"action": "delete", "ids": ids})
    post(dora, 350)

    results = dora.api.post("/api/content/bulk", {"action": "restore", "ids": ids}).json()["results"]

    assert [result["status"] for result in results] == [200, 403, 403]
    check(dora, 750)


# Versions


def test_going_back_to_a_longer_version_is_checked(dora: Person) -> None:
    item = post(dora, 900).json()["id"]
    dora.api.patch(f"/api/content/{item}", {"body": "x"})
    post(dora, 500)

    refused(dora.api.post(f"/api/content/{item}/versions/1/restore"))

    check(dora, 501)


def test_old_versions_are_bounded_in_number_and_by_retention(
    dora: Person, settings: LazySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.CONTENT_MAX_VERSIONS = 5
    monkeypatch.setattr(quota_queries, "retentions", lambda *, now: {dora.tenant_id: 30})  # and nobody else's
    item = post(dora, LIMIT).json()["id"]
    for number in range(12):
        assert dora.api.patch(f"/api/content/{item}", {"body": f"{number:04d}" * 250}).status_code == 200
    check(dora, LIMIT)
    assert stored_by(dora.tenant_id).versions == 5

    refusal = refused(post(dora, 1))
    assert refusal["freeable"]["old_version_bytes"] == 4 * LIMIT
    retention.purge(now=timezone.now() + timedelta(days=31))

    assert stored_by(dora.tenant_id).versions == 1
    check(dora, LIMIT)


# Uploads


def test_parallel_uploads_that_fit_one_by_one_do_not_fit_together(dora: Person) -> None:
    barrier = threading.Barrier(3)

    def send(number: int) -> int:
        barrier.wait()
        try:
            return int(upload(dora, 420, f"{number}.bin").status_code)
        finally:
            connection.close()

    with ThreadPoolExecutor(3) as pool:
        statuses = sorted(pool.map(send, range(3)))

    assert statuses == [201, 201, 403]
    check(dora, 840)


def test_equal_files_count_each_though_their_bytes_are_stored_once(dora: Person) -> None:
    assert [upload(dora, 500).status_code for _ in range(3)] == [201, 201, 403]

    check(dora, 1000)


@pytest.mark.parametrize("size", [LIMIT + 1, 200_000])
def test_a_refused_upload_leaves_nothing_behind(dora: Person, size: int) -> None:
    before = media_files.everything(dora.tenant_id)

    for _ in range(3):
        refused(upload(dora, size))

    assert media_files.everything(dora.tenant_id) == before
    check(dora, 0)


def test_an_upload_that_breaks_off_leaves_nothing_behind(dora: Person) -> None:
    before = media_files.everything(dora.tenant_id)
    body = media_files.part('name="file"; filename="a.bin"', bytes(400))

    answer = media_files.send(dora, body[:300])

    assert answer.status_code == 400
    assert media_files.everything(dora.tenant_id) == before
    check(dora, 0)


def test_media_of_content_in_the_trash_goes_on_counting(dora: Person) -> None:
    item = post(dora, 100).json()["id"]
    file = SimpleUploadedFile("a.bin", bytes(500))
    dora.api.post("/api/content/media", {"file": file, "content_id": item}, format="multipart")

    dora.api.delete(f"/api/content/{item}")

    check(dora, 500)
    refused(post(dora, 501))


# Editing, types, imports


def test_growing_in_small_steps_is_counted_to_the_byte(dora: Person) -> None:
    item = post(dora, 0).json()["id"]
    for size in range(100, 1001, 100):
        assert dora.api.patch(f"/api/content/{item}", {"body": "x" * size}).status_code == 200

    refused(dora.api.patch(f"/api/content/{item}", {"body": "x" * 1001}))

    check(dora, 1000)


def test_an_item_that_becomes_another_type_takes_its_bytes_along(dora: Person) -> None:
    item = post(dora, 400).json()["id"]
    post(dora, 100)

    dora.api.patch(f"/api/content/{item}", {"type": "article", "body": "x" * 450})

    by_type = dora.api.get("/api/content/quota").json()["usage"]["usage_by_type"]
    assert by_type == {"article": {"count": 1, "bytes": 450}, "post": {"count": 1, "bytes": 100}}
    check(dora, 550)


def test_a_clock_that_jumps_over_the_months_end_and_back_frees_no_bytes(dora: Person) -> None:
    before, after = datetime(2027, 1, 31, 23, 59, tzinfo=UTC), datetime(2027, 2, 1, 0, 1, tzinfo=UTC)
    for now in (before, after, before, after):
        house.store(dora, 250, now=now)

    refused(post(dora, 1))
    check(dora, 1000)
