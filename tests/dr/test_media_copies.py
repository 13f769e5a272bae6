"""Copies of media files in the second storage: made once, checked, mended, brought back, and gone when they should be."""

import hashlib
import json
import shutil
import threading
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings as django_settings
from django.core.management import CommandError, call_command
from django.db import connections
from django.utils import timezone

from content.media import storages
from content.media.storages import FileStorage
from content.media.sweep import run_pass as sweep_media
from content.models import Blob
from dr import media_copies, media_files, media_recovery
from dr.media_files import FIRST, SECOND, StorageAway, StoredFile
from dr.models import MediaCopy
from engarde.common.scopes import system_scope
from tests import crash
from tests.content import test_media_clouds as clouds
from tests.content.media_files import URL, age, body_of, picture, uploaded
from tests.people import Person

s3, gcs = clouds.s3, clouds.gcs
FILE = b"The quick brown fox jumps over the lazy dog. " * 20_000  # several chunks
OTHER = b"x" * len(FILE)
SCRIPT = """
from django.conf import settings
from django.utils import timezone
settings.STORAGES = dict(settings.STORAGES, media_backup={storage!r})
from dr import media_copies, media_recovery
from uuid import UUID
{call}
"""


@pytest.fixture(autouse=True)
def _nothing_due(database: None, settings: Any, tmp_path: Path) -> None:
    """What other tests left to be copied is in no test's way here."""
    settings.STORAGES = {**settings.STORAGES, SECOND: _folder_storage(tmp_path / "of-others")}
    copy_all()
    with system_scope("a test tidies up"):
        MediaCopy.objects.filter(copied_at=None).update(copied_at=timezone.now(), checked_at=timezone.now())


@pytest.fixture
def second(settings: Any, tmp_path: Path) -> Path:
    """The second storage: a folder of the test's own."""
    folder = tmp_path / "second"
    settings.STORAGES = {**settings.STORAGES, SECOND: _folder_storage(folder)}
    return folder


@pytest.fixture(params=["s3", "gcs"])
def cloud(request: Any, settings: Any) -> None:
    """The second storage: a bucket."""
    made = request.getfixturevalue(request.param)
    settings.STORAGES = {**settings.STORAGES, SECOND: made["media"]}


def _folder_storage(folder: Path) -> dict[str, Any]:
    return {"BACKEND": "content.media.storages.FileStorage", "OPTIONS": {"location": str(folder)}}


def copy_all() -> media_copies.Pass:
    """Run passes until nothing is due, whichever tests left it."""
    done = media_copies.run_pass(now=timezone.now)
    while done.copied or done.failed:
        done = media_copies.run_pass(now=timezone.now)
    return done


def blobs(person: Person) -> list[Blob]:
    with system_scope("a test looks"):
        return list(Blob.objects.filter(tenant_id=person.tenant_id).order_by("id"))


def blob(person: Person) -> Blob:
    [only] = blobs(person)
    return only


def row(person: Person) -> MediaCopy:
    with system_scope("a test looks"):
        return MediaCopy.objects.get(tenant_id=person.tenant_id)


def change_rows(person: Person, **values: Any) -> None:
    with system_scope("a test moves the clock"):
        MediaCopy.objects.filter(tenant_id=person.tenant_id).update(**values)


def make_due(person: Person) -> None:
    change_rows(person, next_try_at=timezone.now() - timedelta(days=1))


def is_copied(person: Person, content: bytes = FILE) -> bool:
    """Tell whether the row says so and the bytes are there."""
    copy = row(person)
    return copy.copied_at is not None and b"".join(StoredFile(SECOND, copy.storage_key).chunks()) == content


def first_path(person: Person) -> Path:
    return Path(django_settings.MEDIA_ROOT) / blob(person).storage_key


def lose_first(person: Person) -> None:
    shutil.rmtree(Path(django_settings.MEDIA_ROOT) / str(person.tenant_id))


def flip(path: Path) -> None:
    """Change one byte."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def files_of(folder: Path, person: Person) -> list[Path]:
    return [path for path in (folder / str(person.tenant_id)).rglob("*") if path.is_file()]


def faults_of(person: Person, *, deep: bool = False) -> list[tuple[UUID, str, str]]:
    found = media_recovery.verify_tenant(tenant_id=person.tenant_id, deep=deep, now=timezone.now())
    assert all(fault.tier == "media" and fault.problem for fault in found)
    return [(fault.entity_id, fault.kind, fault.place) for fault in found]


def mend(person: Person) -> list[media_recovery.MediaFault]:
    found = media_recovery.verify_tenant(tenant_id=person.tenant_id, deep=True, now=timezone.now())
    return media_recovery.repair(tenant_id=person.tenant_id, faults=found)


def bring_back(person: Person) -> media_recovery.Brought:
    return media_recovery.bring_back(tenant_id=person.tenant_id, now=timezone.now(), progress=lambda _files: None)


# Copying


def test_a_file_is_copied_once_under_its_own_key(alice: Person, second: Path) -> None:
    uploaded(alice, FILE)

    copy_all()

    assert is_copied(alice)
    copy, of = row(alice), blob(alice)
    assert (copy.storage_key, bytes(copy.sha256), copy.size_bytes) == (of.storage_key, bytes(of.sha256), len(FILE))
    assert (second / of.storage_key).read_bytes() == FILE
    assert (copy.last_error, copy.attempts, copy.checked_at) == ("", 0, copy.copied_at)
    assert copy_all().copied == 0


@pytest.mark.soak
def test_a_quick_look_finds_a_new_file_too(alice: Person, second: Path) -> None:
    uploaded(alice, FILE)

    done = media_copies.run_pass(now=timezone.now, thorough=False)

    assert done.bytes >= len(FILE)
    assert is_copied(alice)


@pytest.mark.soak
def test_a_file_that_came_long_ago_is_found_by_a_thorough_look(alice: Person, second: Path) -> None:
    uploaded(alice, FILE)
    later = timezone.now() + media_copies.RECENT + timedelta(minutes=1)

    media_copies.run_pass(now=lambda: later, thorough=False)
    with system_scope("a test looks"):
        assert not MediaCopy.objects.filter(tenant_id=alice.tenant_id).exists()
    media_copies.run_pass(now=lambda: later)

    assert is_copied(alice)


@pytest.mark.soak
def test_an_empty_file_is_copied(alice: Person, second: Path) -> None:
    uploaded(alice, b"", "empty.txt")

    copy_all()

    assert is_copied(alice, b"")


@pytest.mark.soak
def test_without_a_second_storage_nothing_happens(alice: Person, settings: Any) -> None:
    settings.STORAGES = {name: made for name, made in settings.STORAGES.items() if name != SECOND}
    uploaded(alice, FILE)

    assert media_copies.run_pass(now=timezone.now) == media_copies.Pass("off", media_copies.OFF)
    assert media_copies.check_pass(now=timezone.now).checked == 0
    assert faults_of(alice, deep=True) == []
    with pytest.raises(StorageAway, match="DR_MEDIA_STORAGE"):
        bring_back(alice)


def test_wrong_bytes_in_the_first_storage_never_become_a_copy(alice: Person, second: Path) -> None:
    uploaded(alice, FILE)
    flip(first_path(alice))

    copy_all()

    copy = row(alice)
    assert copy.copied_at is None
    assert "other bytes" in copy.last_error
    assert copy.next_try_at > timezone.now()
    assert files_of(second, alice) == []
    assert media_copies.state().failed >= 1


@pytest.mark.soak
@pytest.mark.parametrize("content", [FILE[:-1], FILE + b"more"])
def test_a_file_of_another_size_never_becomes_a_copy(alice: Person, second: Path, content: bytes) -> None:
    uploaded(alice, FILE)
    first_path(alice).write_bytes(content)

    copy_all()

    assert row(alice).copied_at is None
    assert files_of(second, alice) == []


@pytest.mark.soak
def test_a_missing_file_is_reported_and_copied_once_it_is_there(alice: Person, second: Path) -> None:
    uploaded(alice, FILE)
    path = first_path(alice)
    path.unlink()

    copy_all()
    assert "is not there" in row(alice).last_error

    path.write_bytes(FILE)
    make_due(alice)
    copy_all()

    assert is_copied(alice)
    assert row(alice).last_error == ""


@pytest.mark.soak
def test_broken_files_do_not_hold_up_others(alice: Person, charlie: Person, second: Path) -> None:
    for number in range(5):
        uploaded(alice, bytes([number]) * 1000)
    lose_first(alice)
    uploaded(charlie, FILE)

    done = media_copies.run_pass(now=timezone.now)

    assert (done.status, done.away) == ("failing", 0)
    assert str(alice.tenant_id) in done.reason
    assert is_copied(charlie)


def test_bytes_that_the_second_storage_keeps_wrongly_are_no_copy(
    alice: Person, second: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploaded(alice, FILE)
    put = StoredFile.put

    def put_badly(self: StoredFile, *args: Any, **kwargs: Any) -> None:
        put(self, *args, **kwargs)
        flip(second / self.key)

    with monkeypatch.context() as patch:
        patch.setattr(StoredFile, "put", put_badly)
        copy_all()
    assert row(alice).copied_at is None
    assert "reads otherwise" in row(alice).last_error

    make_due(alice)
    copy_all()

    assert is_copied(alice)


@pytest.mark.soak
def test_a_second_storage_that_is_away_is_tried_again_soon(alice: Person, settings: Any, tmp_path: Path) -> None:
    (tmp_path / "a-file").write_bytes(b"")
    settings.STORAGES = {**settings.STORAGES, SECOND: _folder_storage(tmp_path / "a-file" / "below")}
    uploaded(alice, FILE)

    copy_all()

    copy = row(alice)
    assert copy.copied_at is None
    assert "in the second storage cannot be" in copy.last_error
    assert copy.next_try_at <= timezone.now() + 1.25 * media_copies.LONGEST_WAIT_AWAY

    settings.STORAGES = {**settings.STORAGES, SECOND: _folder_storage(tmp_path / "second")}
    make_due(alice)
    copy_all()
    assert is_copied(alice)


@pytest.mark.soak
def test_a_pass_stops_early_while_a_storage_is_away(alice: Person, settings: Any, tmp_path: Path) -> None:
    (tmp_path / "a-file").write_bytes(b"")
    settings.STORAGES = {**settings.STORAGES, SECOND: _folder_storage(tmp_path / "a-file")}
    for number in range(5):
        uploaded(alice, bytes([number]) * 100)

    media_copies.run_pass(now=timezone.now)

    with system_scope("a test looks"):
        tried = MediaCopy.objects.filter(tenant_id=alice.tenant_id, attempts__gt=0).count()
    assert tried == media_copies.MAX_AWAY_IN_A_ROW


@pytest.mark.soak
def test_half_a_copy_that_a_dead_process_left_is_replaced(alice: Person, second: Path) -> None:
    uploaded(alice, FILE)
    path = second / blob(alice).storage_key
    path.parent.mkdir(parents=True)
    path.write_bytes(FILE[:1000])

    copy_all()

    assert is_copied(alice)
    assert files_of(second, alice) == [path]


@pytest.mark.soak
def test_a_copy_that_is_there_already_is_not_stored_again(
    alice: Person, second: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploaded(alice, FILE)
    path = second / blob(alice).storage_key
    path.parent.mkdir(parents=True)
    path.write_bytes(FILE)
    copied = _spy(monkeypatch)

    copy_all()

    assert is_copied(alice)
    assert blob(alice).storage_key not in copied


@pytest.mark.soak
def test_the_copy_follows_when_equal_bytes_were_stored_under_another_key(alice: Person, second: Path) -> None:
    uploaded(alice, FILE)
    copy_all()
    old_key = blob(alice).storage_key
    first_path(alice).unlink()
    uploaded(alice, FILE)  # finds that the bytes are lost, and stores its own
    assert blob(alice).storage_key != old_key

    copy_all()

    assert is_copied(alice)
    assert row(alice).storage_key == blob(alice).storage_key
    assert files_of(second, alice) == [second / blob(alice).storage_key]


@pytest.mark.soak
def test_a_large_file_is_never_in_memory_as_a_whole(alice: Person, second: Path, tmp_path: Path) -> None:
    size, path = 64 * 1024**2, tmp_path / "large"
    with path.open("wb") as file:
        for number in range(64):
            file.write(bytes([number]) * 1024**2)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").digest()
    key = storages.new_key(alice.tenant_id)
    storages.save_file(key=key, path=path)
    with system_scope("a test stores a file"):
        Blob.objects.create(tenant_id=alice.tenant_id, sha256=sha256, size_bytes=size, storage_key=key)

    tracemalloc.start()
    try:
        done = media_copies.run_pass(now=timezone.now)
        lose_first(alice)
        brought = bring_back(alice)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert (row(alice).copied_at is not None, done.bytes, brought.bytes) == (True, size, size)
    assert peak < 8 * 1024**2


# Several workers, and death


def _spy(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the keys that are stored from now on in the second storage."""
    stored: list[str] = []
    put = StoredFile.put

    def watched(self: StoredFile, *args: Any, **kwargs: Any) -> None:
        stored.append(self.key)
        put(self, *args, **kwargs)

    monkeypatch.setattr(StoredFile, "put", watched)
    return stored


def test_workers_at_once_copy_each_file_once(alice: Person, second: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(12):
        uploaded(alice, bytes([number]) * 1000)
    copied = _spy(monkeypatch)
    start = threading.Barrier(4)

    def work(_number: int) -> None:
        try:
            start.wait(timeout=30)
            media_copies.run_pass(now=timezone.now)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    mine = [key for key in copied if key.startswith(str(alice.tenant_id))]
    assert sorted(mine) == sorted(blob.storage_key for blob in blobs(alice))
    assert faults_of(alice, deep=True) == []


@pytest.mark.soak
def test_who_lost_his_lease_notes_nothing(alice: Person, second: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uploaded(alice, FILE)
    fetch = media_files.fetch

    def slowly(**kwargs: Any) -> None:
        fetch(**kwargs)
        change_rows(alice, attempts=7)  # somebody else took it over

    with monkeypatch.context() as patch:
        patch.setattr(media_files, "fetch", slowly)
        media_copies.run_pass(now=timezone.now)

    assert row(alice).last_error == ""
    assert (row(alice).copied_at, row(alice).attempts) == (None, 7)


@pytest.mark.soak
def test_a_slow_copy_keeps_its_lease(alice: Person, second: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uploaded(alice, FILE)
    clock = [timezone.now()]
    fetch = media_files.fetch

    def slowly(*, beat: Callable[[], None], **kwargs: Any) -> None:
        fetch(beat=beat, **kwargs)
        for _ in range(20):
            clock[0] += timedelta(minutes=1)
            beat()
        leased.append(row(alice).next_try_at > clock[0])

    leased: list[bool] = []
    monkeypatch.setattr(media_files, "fetch", slowly)

    media_copies.run_pass(now=lambda: clock[0])

    assert is_copied(alice)
    assert leased == [True]


STEPS = [
    ("dr.media_copies._find", "after"),
    ("dr.media_copies._lease", "after"),
    ("dr.media_files.fetch", "after"),
    ("dr.media_files.StoredFile.put", "before"),
    ("dr.media_files._Watched.read", "after"),
    ("dr.media_files.StoredFile.put", "after"),
    ("dr.media_copies._finish", "before"),
    ("dr.media_copies._finish", "after"),
]


@pytest.mark.soak
@pytest.mark.parametrize(("target", "moment"), STEPS)
def test_a_pass_killed_anywhere_is_made_good_by_the_next(alice: Person, second: Path, target: str, moment: str) -> None:
    uploaded(alice, FILE)

    _killed(target, moment, second, "media_copies.run_pass(now=timezone.now)")
    make_due(alice)
    copy_all()

    assert is_copied(alice)
    assert len(files_of(second, alice)) == 1


def _killed(target: str, moment: str, second: Path, call: str) -> None:
    crash.kill_at(target, moment, SCRIPT.format(storage=_folder_storage(second), call=call))


@pytest.mark.soak
def test_no_transaction_is_open_while_a_storage_is_called(
    alice: Person, second: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    media = [uploaded(alice, content) for content in (FILE, OTHER)]
    calls: list[str] = []

    def watch(name: str) -> None:
        call = getattr(FileStorage, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            assert not connections["default"].in_atomic_block, name
            calls.append(name)
            return call(*args, **kwargs)

        monkeypatch.setattr(FileStorage, name, watched)

    for name in ("save", "delete", "size", "open_at", "exists", "listdir"):
        watch(name)

    copy_all()
    old(alice)
    media_copies.check_pass(now=timezone.now, limit=2)
    lose_first(alice)
    mend(alice)
    lose_first(alice)
    bring_back(alice)
    _deleted(alice, media[0])
    copy_all()
    change_rows(alice, unneeded_since=timezone.now() - timedelta(days=31))
    copy_all()
    media_copies.erase_tenant(tenant_id=alice.tenant_id)

    assert set(calls) == {"save", "delete", "size", "open_at", "exists", "listdir"}


# Checking


def old(person: Person) -> None:
    """Let the copies be the ones that were checked longest ago."""
    change_rows(person, checked_at=timezone.now() - timedelta(days=9999))


@pytest.mark.soak
def test_a_check_reads_old_copies_once_in_a_while(alice: Person, second: Path) -> None:
    uploaded(alice, FILE)
    copy_all()
    old(alice)

    done = media_copies.check_pass(now=timezone.now, limit=1)

    assert done == media_copies.Checked(checked=1)
    assert timezone.now() - (row(alice).checked_at or timezone.now()) < timedelta(minutes=5)
    assert is_copied(alice)


@pytest.mark.soak
@pytest.mark.parametrize("damage", [flip, Path.unlink])
def test_a_check_mends_a_copy_that_is_not_intact(alice: Person, second: Path, damage: Callable[[Path], Any]) -> None:
    uploaded(alice, FILE)
    copy_all()
    damage(second / row(alice).storage_key)
    old(alice)

    done = media_copies.check_pass(now=timezone.now, limit=1)

    assert (done.checked, done.mended, done.broken) == (1, 1, 0)
    assert is_copied(alice)


@pytest.mark.soak
def test_a_copy_that_cannot_be_mended_is_a_copy_no_longer(alice: Person, second: Path) -> None:
    uploaded(alice, FILE)
    copy_all()
    flip(second / row(alice).storage_key)
    first_path(alice).unlink()
    old(alice)

    done = media_copies.check_pass(now=timezone.now, limit=1)

    assert (done.checked, done.mended, done.broken) == (1, 0, 1)
    assert row(alice).copied_at is None
    assert row(alice).last_error


@pytest.mark.soak
def test_a_check_killed_before_it_mends_leaves_the_copy_to_the_next_pass(alice: Person, second: Path) -> None:
    uploaded(alice, FILE)
    copy_all()
    flip(second / row(alice).storage_key)
    old(alice)

    _killed("dr.media_copies._try", "before", second, "media_copies.check_pass(now=timezone.now, limit=1)")
    assert row(alice).copied_at is None
    make_due(alice)
    copy_all()

    assert is_copied(alice)


# Verifying and mending


@pytest.mark.soak
def test_all_is_well_with_a_file_and_its_copy(alice: Person, second: Path) -> None:
    uploaded(alice, FILE)
    copy_all()

    assert faults_of(alice) == []
    assert faults_of(alice, deep=True) == []


def test_verification_names_exactly_what_is_wrong_and_repair_mends_it(alice: Person, second: Path) -> None:
    for number in range(6):
        uploaded(alice, bytes([number]) * 1000)
    copy_all()
    root, made = Path(django_settings.MEDIA_ROOT), blobs(alice)
    flip(root / made[0].storage_key)
    flip(second / made[1].storage_key)
    (root / made[2].storage_key).unlink()
    (second / made[3].storage_key).unlink()
    (root / made[4].storage_key).write_bytes(b"short")

    assert faults_of(alice) == [
        (made[2].id, "missing", FIRST),
        (made[3].id, "missing", SECOND),
        (made[4].id, "mismatched", FIRST),
    ]
    assert faults_of(alice, deep=True) == [
        (made[0].id, "mismatched", FIRST),
        (made[1].id, "mismatched", SECOND),
        (made[2].id, "missing", FIRST),
        (made[3].id, "missing", SECOND),
        (made[4].id, "mismatched", FIRST),
    ]

    assert len(mend(alice)) == 5
    assert faults_of(alice, deep=True) == []


@pytest.mark.soak
def test_what_is_lost_in_both_storages_is_not_called_mended(alice: Person, second: Path) -> None:
    uploaded(alice, FILE)
    copy_all()
    flip(first_path(alice))
    flip(second / row(alice).storage_key)

    assert mend(alice) == []
    assert [fault[2] for fault in faults_of(alice, deep=True)] == [FIRST]
    assert "other bytes" in row(alice).last_error


@pytest.mark.soak
def test_a_young_file_may_be_without_a_copy_and_an_old_one_may_not(alice: Person, second: Path) -> None:
    uploaded(alice, FILE)
    assert faults_of(alice) == []

    later = timezone.now() + media_recovery.GRACE + timedelta(minutes=1)
    found = media_recovery.verify_tenant(tenant_id=alice.tenant_id, deep=False, now=later)

    assert [(fault.kind, fault.place) for fault in found] == [("missing", SECOND)]
    assert len(media_recovery.repair(tenant_id=alice.tenant_id, faults=found)) == 1
    assert is_copied(alice)


@pytest.mark.soak
def test_a_file_that_is_deleted_while_it_is_verified_is_no_fault(
    alice: Person, second: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    media = uploaded(alice, FILE)
    copy_all()
    size = StoredFile.size

    def late(self: StoredFile) -> int:
        if self.alias == FIRST:
            self.delete()
        return size(self)

    def sweep_then_read(*args: Any, **wanted: Any) -> Any:
        if "id__in" in wanted:
            alice.api.delete(f"{URL}/{media['id']}")
            age(alice.tenant_id)
            sweep_media(now=timezone.now())
        return read(*args, **wanted)

    read = media_recovery._read
    monkeypatch.setattr(StoredFile, "size", late)
    monkeypatch.setattr(media_recovery, "_read", sweep_then_read)

    assert faults_of(alice) == []
    assert blobs(alice) == []


@pytest.mark.soak
def test_a_tenant_sees_no_faults_of_others(alice: Person, charlie: Person, second: Path) -> None:
    uploaded(alice, FILE)
    uploaded(charlie, FILE)
    copy_all()
    first_path(alice).unlink()

    assert faults_of(charlie, deep=True) == []


# Bringing back


def test_all_files_come_back_after_the_media_storage_was_lost(alice: Person, second: Path) -> None:
    media = [uploaded(alice, content) for content in (FILE, OTHER, picture("PNG", (600, 400)))]
    copy_all()
    lose_first(alice)
    assert alice.api.get(f"{URL}/{media[0]['id']}/download").status_code == 503

    brought = bring_back(alice)

    assert (brought.checked, brought.files, brought.thumbnails, brought.failed) == (3, 3, 1, 0)
    assert body_of(alice.api.get(f"{URL}/{media[0]['id']}/download")) == FILE
    assert body_of(alice.api.get(f"{URL}/{media[2]['id']}/thumbnail"))[:4] == b"RIFF"
    assert faults_of(alice, deep=True) == []
    again = bring_back(alice)
    assert (again.checked, again.files, again.bytes, again.thumbnails) == (3, 0, 0, 0)


@pytest.mark.soak
def test_files_come_back_though_nothing_tells_of_their_copies(alice: Person, second: Path) -> None:
    uploaded(alice, FILE)
    copy_all()
    lose_first(alice)
    with system_scope("a test loses rows"):
        MediaCopy.objects.filter(tenant_id=alice.tenant_id).delete()

    assert bring_back(alice).files == 1
    copy_all()

    assert first_path(alice).read_bytes() == FILE
    assert is_copied(alice)


@pytest.mark.soak
def test_a_damaged_copy_does_not_come_back(alice: Person, second: Path) -> None:
    uploaded(alice, FILE)
    uploaded(alice, OTHER)
    copy_all()
    bad, good = blobs(alice)
    flip(second / bad.storage_key)
    lose_first(alice)

    brought = bring_back(alice)

    assert (brought.files, brought.failed) == (1, 1)
    [error] = brought.errors
    assert (error["id"], error["tenant_id"]) == (str(bad.id), str(alice.tenant_id))
    assert "other bytes" in error["message"]
    assert files_of(Path(django_settings.MEDIA_ROOT), alice) == [Path(django_settings.MEDIA_ROOT) / good.storage_key]


@pytest.mark.soak
@pytest.mark.parametrize(
    ("target", "moment"),
    [
        ("dr.media_files.StoredFile.put", "before"),
        ("dr.media_files._Watched.read", "after"),
        ("dr.media_files.StoredFile.put", "after"),
        ("dr.media_recovery._note", "before"),
    ],
)
def test_bringing_back_goes_on_after_it_was_killed(alice: Person, second: Path, target: str, moment: str) -> None:
    uploaded(alice, FILE)
    uploaded(alice, OTHER)
    copy_all()
    lose_first(alice)

    call = f"media_recovery.bring_back(tenant_id=UUID('{alice.tenant_id}'), now=timezone.now(), progress=print)"
    _killed(target, moment, second, call)
    assert bring_back(alice).failed == 0

    assert faults_of(alice, deep=True) == []
    assert len(files_of(Path(django_settings.MEDIA_ROOT), alice)) == 2


@pytest.mark.soak
def test_a_second_storage_that_is_away_ends_bringing_back(
    alice: Person, second: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploaded(alice, FILE)
    copy_all()
    lose_first(alice)
    monkeypatch.setattr("content.media.storages.FileStorage.open_at", _refuse)

    with pytest.raises(StorageAway, match="no route"):
        bring_back(alice)


def _refuse(*_: object) -> None:
    raise ConnectionError("no route")


# Removing


def _deleted(person: Person, media: dict[str, Any]) -> None:
    """Delete a media file, and let its day go by."""
    assert person.api.delete(f"{URL}/{media['id']}").status_code == 204
    age(person.tenant_id)
    while any(one.unused_since for one in blobs(person)):
        sweep_media(now=timezone.now())


@pytest.mark.soak
def test_the_copy_of_a_deleted_file_is_kept_for_a_while_and_then_removed(alice: Person, second: Path) -> None:
    media = uploaded(alice, FILE)
    copy_all()
    _deleted(alice, media)

    copy_all()
    assert row(alice).unneeded_since
    assert len(files_of(second, alice)) == 1

    change_rows(alice, unneeded_since=timezone.now() - timedelta(days=29))
    copy_all()
    assert len(files_of(second, alice)) == 1

    change_rows(alice, unneeded_since=timezone.now() - timedelta(days=31))
    copy_all()
    assert files_of(second, alice) == []
    with system_scope("a test looks"):
        assert not MediaCopy.objects.filter(tenant_id=alice.tenant_id).exists()


@pytest.mark.soak
def test_a_copy_is_needed_again_when_its_blob_is_back(alice: Person, second: Path) -> None:
    media = uploaded(alice, FILE)
    copy_all()
    back = blob(alice)
    _deleted(alice, media)
    copy_all()
    change_rows(alice, unneeded_since=timezone.now() - timedelta(days=31))
    with system_scope("a test restores a row"):
        Blob.objects.bulk_create([back])

    copy_all()

    assert row(alice).unneeded_since is None
    assert is_copied(alice)
    assert bring_back(alice).files == 1
    assert first_path(alice).read_bytes() == FILE


@pytest.mark.soak
def test_a_blob_that_comes_back_while_its_copy_is_removed_is_copied_anew(
    alice: Person, second: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    media = uploaded(alice, FILE)
    copy_all()
    back = blob(alice)
    _deleted(alice, media)
    copy_all()
    change_rows(alice, unneeded_since=timezone.now() - timedelta(days=31))
    delete = StoredFile.delete

    def restore_and_delete(self: StoredFile) -> None:
        delete(self)
        with system_scope("a test restores a row"):
            Blob.objects.bulk_create([back], ignore_conflicts=True)
        first_path(alice).write_bytes(FILE)

    with monkeypatch.context() as patch:
        patch.setattr(StoredFile, "delete", restore_and_delete)
        media_copies.run_pass(now=timezone.now)
    copy_all()

    assert is_copied(alice)


@pytest.mark.soak
@pytest.mark.parametrize("moment", ["before", "after"])
def test_removing_killed_around_its_delete_is_finished_by_the_next(alice: Person, second: Path, moment: str) -> None:
    media = uploaded(alice, FILE)
    copy_all()
    _deleted(alice, media)
    copy_all()
    change_rows(alice, unneeded_since=timezone.now() - timedelta(days=31))

    _killed("dr.media_files.StoredFile.delete", moment, second, "media_copies.run_pass(now=timezone.now)")
    make_due(alice)
    copy_all()

    assert files_of(second, alice) == []
    with system_scope("a test looks"):
        assert not MediaCopy.objects.filter(tenant_id=alice.tenant_id).exists()


# Erasing


def test_erasing_a_tenant_removes_its_copies_and_nobody_elses(alice: Person, charlie: Person, second: Path) -> None:
    uploaded(alice, FILE)
    uploaded(alice, OTHER)
    uploaded(charlie, FILE)
    copy_all()
    unknown = second / str(alice.tenant_id) / "ab" / "left-behind"
    unknown.parent.mkdir(parents=True, exist_ok=True)
    unknown.write_bytes(b"by a process that died")

    assert media_copies.erase_tenant(tenant_id=alice.tenant_id) == 3
    assert media_copies.erase_tenant(tenant_id=alice.tenant_id) == 0

    assert files_of(second, alice) == []
    with system_scope("a test looks"):
        assert not MediaCopy.objects.filter(tenant_id=alice.tenant_id).exists()
    assert is_copied(charlie)


@pytest.mark.soak
@pytest.mark.parametrize("moment", ["before", "after"])
def test_erasing_killed_around_a_delete_is_finished_by_the_next(alice: Person, second: Path, moment: str) -> None:
    uploaded(alice, FILE)
    uploaded(alice, OTHER)
    copy_all()

    call = f"media_copies.erase_tenant(tenant_id=UUID('{alice.tenant_id}'))"
    _killed("dr.media_files.StoredFile.delete", moment, second, call)
    left = len(files_of(second, alice))

    assert left == (2 if moment == "before" else 1)
    assert media_copies.erase_tenant(tenant_id=alice.tenant_id) == left
    assert files_of(second, alice) == []


@pytest.mark.soak
def test_erasing_some_files_leaves_the_others(alice: Person, second: Path) -> None:
    uploaded(alice, FILE)
    uploaded(alice, OTHER)
    copy_all()
    gone, kept = blobs(alice)

    assert media_copies.erase_blobs(tenant_id=alice.tenant_id, blob_ids=[gone.id]) == 1

    assert files_of(second, alice) == [second / kept.storage_key]
    assert row(alice).blob_id == kept.id


@pytest.mark.soak
def test_what_is_erased_while_it_is_being_copied_does_not_stay(
    alice: Person, second: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploaded(alice, FILE)
    put = StoredFile.put

    def erase_and_put(self: StoredFile, *args: Any, **kwargs: Any) -> None:
        media_copies.erase_tenant(tenant_id=alice.tenant_id)
        put(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(StoredFile, "put", erase_and_put)
        media_copies.run_pass(now=timezone.now)

    assert files_of(second, alice) == []


@pytest.mark.soak
def test_copies_cannot_be_erased_while_their_storage_is_switched_off(
    alice: Person, second: Path, settings: Any
) -> None:
    uploaded(alice, FILE)
    copy_all()
    settings.STORAGES = {name: made for name, made in settings.STORAGES.items() if name != SECOND}

    with pytest.raises(StorageAway, match="can be erased"):
        media_copies.erase_tenant(tenant_id=alice.tenant_id)
    with system_scope("a test looks"):
        assert MediaCopy.objects.filter(tenant_id=alice.tenant_id).exists()


# Buckets


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_copies_live_in_a_bucket_too(alice: Person, cloud: None) -> None:
    uploaded(alice, FILE)
    uploaded(alice, OTHER)
    copy_all()
    kept, damaged = blobs(alice)
    assert all(StoredFile(SECOND, one.storage_key).size() == len(FILE) for one in (kept, damaged))
    with (Path(django_settings.MEDIA_ROOT) / kept.storage_key).open("rb") as other:
        StoredFile(SECOND, damaged.storage_key).put(other)

    assert faults_of(alice, deep=True) == [(damaged.id, "mismatched", SECOND)]
    assert len(mend(alice)) == 1
    StoredFile(SECOND, damaged.storage_key).delete()
    assert faults_of(alice) == [(damaged.id, "missing", SECOND)]
    assert len(mend(alice)) == 1
    lose_first(alice)
    assert bring_back(alice).files == 2
    assert faults_of(alice, deep=True) == []
    assert media_copies.erase_tenant(tenant_id=alice.tenant_id) == 2
    assert list(media_files.keys_below(alias=SECOND, folder=str(alice.tenant_id))) == []


# The command


def command(**options: Any) -> dict[str, Any]:
    out = StringIO()
    call_command("back_up_media", json=True, stdout=out, **options)
    return dict(json.loads(out.getvalue()))


@pytest.mark.soak
def test_the_command_copies_until_nothing_is_left(alice: Person, second: Path) -> None:
    uploaded(alice, FILE)

    report = command(until_empty=True)

    assert (report["status"], report["waiting"], report["until_empty"]) == ("healthy", 0, True)
    assert report["bytes"] >= len(FILE)
    assert is_copied(alice)


@pytest.mark.soak
def test_the_command_goes_on_past_what_fails(alice: Person, second: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media_copies, "MAX_FILES", 2)
    monkeypatch.setattr(media_copies, "MAX_FOUND", 3)
    for number in range(8):
        uploaded(alice, bytes([number]) * 1000)
    (Path(django_settings.MEDIA_ROOT) / blobs(alice)[0].storage_key).unlink()

    with pytest.raises(SystemExit):
        command(until_empty=True)

    with system_scope("a test looks"):
        copied = MediaCopy.objects.filter(tenant_id=alice.tenant_id, copied_at__isnull=False).count()
    assert copied == 7


@pytest.mark.soak
def test_the_command_checks_copies(alice: Person, second: Path) -> None:
    uploaded(alice, FILE)
    copy_all()
    with system_scope("a test tidies up"):
        MediaCopy.objects.exclude(tenant_id=alice.tenant_id).update(checked_at=timezone.now())
    flip(second / row(alice).storage_key)
    old(alice)

    report = command(check=True, until_empty=True)

    assert (report["checked"], report["mended"], report["broken"], report["reason"]) == (1, 1, 0, "")


@pytest.mark.soak
def test_the_command_fails_when_something_cannot_be_copied(alice: Person, second: Path) -> None:
    uploaded(alice, FILE)
    first_path(alice).unlink()

    with pytest.raises(SystemExit):
        command(until_empty=True)


@pytest.mark.soak
def test_the_command_says_what_to_set(database: None, settings: Any) -> None:
    settings.STORAGES = {name: made for name, made in settings.STORAGES.items() if name != SECOND}

    with pytest.raises(CommandError, match="set DR_MEDIA_STORAGE"):
        call_command("back_up_media")
