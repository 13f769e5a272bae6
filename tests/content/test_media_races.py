"""Media files under races, and processes killed between any two steps: bytes are neither lost nor left."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connections
from django.utils import timezone

from content import tasks
from content.media import operations, sweep
from content.models import Blob, Media
from engarde.common.scopes import system_scope
from tests import people
from tests.content.media_files import (
    LONG_AGO,
    URL,
    age,
    body_of,
    counted,
    everything,
    incoming,
    picture,
    rows,
    stored_bytes,
    upload,
    uploaded,
)
from tests.crash import kill_at
from tests.people import Person

TEXT = b"The quick brown fox jumps over the lazy dog."


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Make calls at the same time, each on a connection of its own, and return what they return."""

    def run(call: Callable[[], Any]) -> Any:
        try:
            return call()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def is_whole(person: Person) -> bool:
    """Tell whether every media file can be fetched and the storage has nothing beside their bytes."""
    media = person.api.get(URL, {"pageSize": 100}).json()["data"]
    for one in media:
        answer = person.api.get(one["url"])
        if answer.status_code != 200 or len(body_of(answer)) != one["size_bytes"]:
            return False
    with system_scope("a test looks"):
        blobs = list(Blob.objects.filter(tenant_id=person.tenant_id))
    files = sum(1 + bool(blob.thumbnail_key) for blob in blobs)
    sizes = sum(one["size_bytes"] for one in media)
    return stored_bytes(person.tenant_id) == files and counted(person.tenant_id) == (sizes, len(media))


# Races


def test_equal_files_at_once_share_their_bytes_and_count_each(alice: Person) -> None:
    answers = at_once(*[lambda: upload(alice, picture())] * 6)

    assert [answer.status_code for answer in answers] == [201] * 6
    assert len({answer.json()["id"] for answer in answers}) == 6
    assert rows(alice.tenant_id) == (6, 1, 0)
    assert stored_bytes(alice.tenant_id) == 2  # the picture and its thumbnail
    assert counted(alice.tenant_id) == (6 * len(picture()), 6)
    assert is_whole(alice)


def test_no_race_for_the_last_bytes_has_too_many_winners(database: None) -> None:
    tight = people.new_owner(storage_limit=4 * 1000)
    contents = [bytes([number]) * 1000 for number in range(8)]

    answers = at_once(*[lambda content=content: upload(tight, content) for content in contents])

    assert sorted(answer.status_code for answer in answers) == [201] * 4 + [403] * 4
    assert counted(tight.tenant_id) == (4000, 4)
    assert rows(tight.tenant_id) == (4, 4, 0)
    assert incoming() == []
    assert is_whole(tight)


@pytest.mark.parametrize("_round", range(5))
def test_deleting_beside_an_upload_of_equal_bytes_loses_nothing(alice: Person, _round: int) -> None:
    old = uploaded(alice, TEXT)["id"]

    deleted, sent = at_once(lambda: alice.api.delete(f"{URL}/{old}"), lambda: upload(alice, TEXT))

    assert (deleted.status_code, sent.status_code) == (204, 201)
    with system_scope("a test looks"):
        assert Blob.objects.get(tenant_id=alice.tenant_id).unused_since is None
    age(alice.tenant_id)
    tasks.sweep_media()
    assert is_whole(alice)


@pytest.mark.parametrize("_round", range(5))
def test_sweeping_beside_an_upload_of_equal_bytes_loses_nothing(alice: Person, _round: int) -> None:
    alice.api.delete(f"{URL}/{uploaded(alice, TEXT)['id']}")
    age(alice.tenant_id)

    _, sent = at_once(tasks.sweep_media, lambda: upload(alice, TEXT))

    assert sent.status_code == 201
    tasks.sweep_media()
    assert is_whole(alice)


def test_who_sends_equal_bytes_while_a_sweep_is_about_to_delete_them_keeps_his(
    alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice.api.delete(f"{URL}/{uploaded(alice, TEXT)['id']}")
    age(alice.tenant_id)
    remove = sweep._remove

    def late(claimed: Any) -> None:
        monkeypatch.setattr(sweep, "_remove", remove)
        assert upload(alice, TEXT).status_code == 201
        remove(claimed)

    monkeypatch.setattr(sweep, "_remove", late)
    tasks.sweep_media()

    assert rows(alice.tenant_id) == (1, 1, 0)
    assert is_whole(alice)


def test_who_was_about_to_share_bytes_that_a_sweep_took_stores_his_own(
    alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice.api.delete(f"{URL}/{uploaded(alice, TEXT)['id']}")
    age(alice.tenant_id)
    write = operations._write

    def late(*args: Any) -> Any:
        monkeypatch.setattr(operations, "_write", write)
        tasks.sweep_media()
        assert stored_bytes(alice.tenant_id) == 0
        return write(*args)

    monkeypatch.setattr(operations, "_write", late)

    assert upload(alice, TEXT).status_code == 201
    assert rows(alice.tenant_id) == (1, 1, 0)
    assert is_whole(alice)


def test_an_upload_that_a_sweep_took_for_dead_fails_and_leaves_nothing(
    alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, write = everything(alice.tenant_id), operations._write

    def late(*args: Any) -> Any:
        age(alice.tenant_id)
        tasks.sweep_media()
        return write(*args)

    monkeypatch.setattr(operations, "_write", late)
    answer = upload(alice, TEXT)

    assert (answer.status_code, answer.json()["code"]) == (503, "upload_lost")
    assert everything(alice.tenant_id) == before


@pytest.mark.parametrize("_round", range(5))
def test_a_file_is_either_deleted_or_used(alice: Person, _round: int) -> None:
    media = uploaded(alice, TEXT)["id"]
    item = alice.writes()["id"]

    deleted, changed = at_once(
        lambda: alice.api.delete(f"{URL}/{media}"),
        lambda: alice.api.patch(f"/api/content/{item}", {"media": [media]}),
    )

    assert (deleted.status_code, changed.status_code) in {(204, 400), (409, 200)}
    exists = alice.api.get(f"{URL}/{media}").status_code == 200
    assert exists == (alice.api.get(f"/api/content/{item}").json()["media"] == [media]) == (deleted.status_code == 409)


def test_files_for_one_item_at_once_are_all_in_it(alice: Person) -> None:
    item = alice.writes()["id"]

    answers = at_once(*[lambda n=n: upload(alice, bytes([n]) * 10, content_id=item) for n in range(5)])

    assert [answer.status_code for answer in answers] == [201] * 5
    now = alice.api.get(f"/api/content/{item}").json()
    assert now["version"] == 6
    assert set(now["media"]) == {answer.json()["id"] for answer in answers}


def test_one_key_at_once_stores_one_file(alice: Person) -> None:
    answers = at_once(*[lambda: upload(alice, TEXT, HTTP_IDEMPOTENCY_KEY="once")] * 5)

    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len({answer.json()["id"] for answer in answers if answer.status_code == 201}) == 1
    assert rows(alice.tenant_id) == (1, 1, 0)


# The sweep


def test_unused_bytes_stay_for_a_day_and_then_go(alice: Person) -> None:
    alice.api.delete(f"{URL}/{uploaded(alice, picture())['id']}")
    tasks.sweep_media()
    assert (rows(alice.tenant_id), stored_bytes(alice.tenant_id)) == ((0, 1, 0), 2)

    age(alice.tenant_id)
    tasks.sweep_media()

    assert (rows(alice.tenant_id), stored_bytes(alice.tenant_id)) == ((0, 0, 0), 0)


def test_bytes_that_are_used_again_stay(alice: Person) -> None:
    alice.api.delete(f"{URL}/{uploaded(alice, TEXT)['id']}")
    uploaded(alice, TEXT)
    age(alice.tenant_id)

    tasks.sweep_media()

    assert is_whole(alice)


def test_the_sweep_looks_again_before_it_takes_a_blob(alice: Person) -> None:
    media = uploaded(alice, TEXT)
    with system_scope("a test lies"):
        Blob.objects.filter(tenant_id=alice.tenant_id).update(unused_since=timezone.now() - LONG_AGO)

    tasks.sweep_media()

    assert body_of(alice.api.get(media["url"])) == TEXT
    with system_scope("a test looks"):
        assert Blob.objects.get(tenant_id=alice.tenant_id).unused_since is None


def test_the_sweep_takes_all_of_many(alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "BATCH", 2)
    for number in range(5):
        alice.api.delete(f"{URL}/{uploaded(alice, bytes([number]))['id']}")
    age(alice.tenant_id)

    tasks.sweep_media()

    assert (rows(alice.tenant_id), stored_bytes(alice.tenant_id)) == ((0, 0, 0), 0)


# Killed processes

SENDING = """
from django.core.files.uploadedfile import SimpleUploadedFile
from rest_framework.test import APIClient

client = APIClient()
client.credentials(**{credentials!r})
client.post({url!r}, {{"file": SimpleUploadedFile("a", {content!r}), **{fields!r}}}, format="multipart")
"""
STEPS = [
    ("content.media.uploads.receive", "after"),
    ("content.media.operations._save", "before"),
    ("content.media.storages.save_bytes", "after"),
    ("content.media.storages.save_file", "after"),
    ("content.media.operations._write", "before"),
    ("content.media.operations._blob", "after"),
    ("quotas.charging.charge", "after"),
    ("content.media.operations._write", "after"),
]


@pytest.mark.parametrize("is_for_item", [pytest.param(False, marks=pytest.mark.soak), True])
@pytest.mark.parametrize(("step", "moment"), STEPS)
def test_a_process_killed_while_it_stores_leaves_all_or_nothing(
    alice: Person, step: str, moment: str, is_for_item: bool
) -> None:
    item = alice.writes(body="")["id"]
    fields = {"content_id": item} if is_for_item else {}
    code = SENDING.format(credentials=dict(alice.credentials), url=URL, content=picture(), fields=fields)

    kill_at(step, moment, code)

    stored = (step, moment) == STEPS[-1]
    assert rows(alice.tenant_id)[0] == stored
    assert len(alice.api.get(f"/api/content/{item}").json()["media"]) == (stored and is_for_item)
    age(alice.tenant_id)
    tasks.sweep_media()
    assert rows(alice.tenant_id)[1:] == (stored, 0)
    assert incoming() == []
    assert is_whole(alice)
    assert upload(alice, picture()).status_code == 201


@pytest.mark.parametrize(
    ("step", "moment"),
    [
        ("content.media.sweep._take_unused", "after"),
        ("content.media.storages.delete", "before"),
        ("content.media.storages.delete", "after"),
        ("content.media.sweep._remove", "after"),
    ],
)
def test_a_process_killed_while_it_sweeps_leaves_nothing_for_good(alice: Person, step: str, moment: str) -> None:
    used = uploaded(alice, TEXT)
    alice.api.delete(f"{URL}/{uploaded(alice, picture())['id']}")
    age(alice.tenant_id)

    kill_at(step, moment, "from content import tasks; tasks.sweep_media()")

    age(alice.tenant_id)
    tasks.sweep_media()
    assert rows(alice.tenant_id) == (1, 1, 0)
    assert is_whole(alice)
    assert body_of(alice.api.get(used["url"])) == TEXT


def test_nothing_is_due_for_a_tenant_that_does_nothing(alice: Person) -> None:
    media = uploaded(alice, TEXT)
    age(alice.tenant_id)

    for _ in range(2):
        tasks.sweep_media()

    with system_scope("a test looks"):
        assert Media.objects.filter(id=media["id"]).exists()
