"""Do media files' bytes lie where they should, in the media storage and in the second one; and mending either from the other."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import structlog
from django.utils import timezone

from content.models import Blob
from dr import media_copies, media_files
from dr.media_files import FIRST, SECOND, Expected, FileMissing, StorageAway, StoredFile, WrongBytes
from dr.models import MediaCopy
from engarde.common import request_ids
from engarde.common.problems import Problem
from engarde.common.scopes import system_scope, tenant_scope

log = structlog.get_logger(__name__)

PAGE = 200
THREADS = 4
MAX_ERRORS = 1000
GRACE = timedelta(minutes=15)
FAILURES = (FileMissing, WrongBytes, StorageAway)


@dataclass(frozen=True, slots=True)
class MediaFault:
    """A media file of which one of the two storages lacks the right bytes.

    Attributes:
        entity_id: of the blob.
        kind: missing or mismatched.
        place: the storage in question, media_files.FIRST or SECOND.
    """

    entity_id: UUID
    kind: str
    place: str
    problem: str
    tier: str = "media"


@dataclass(slots=True)
class Brought:
    """What came back from the second storage.

    Attributes:
        checked: files that were looked at.
        bytes: of the files that came back.
        thumbnails: that were made anew.
        errors: {"tenant_id", "id", "message"} of the first thousand files that could not be brought back.
    """

    checked: int = 0
    files: int = 0
    bytes: int = 0
    thumbnails: int = 0
    failed: int = 0
    errors: list[dict[str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _File:
    """A blob and what is known of its copy.

    Attributes:
        copy_key: where its copy is or will be.
        is_copied: whether it was, as far as is known.
        error: of the last try to copy it.
    """

    id: UUID
    tenant_id: UUID
    key: str
    thumbnail_key: str
    created_at: datetime
    expected: Expected
    copy_key: str
    is_copied: bool = False
    error: str = field(default="", compare=False)

    @property
    def first(self) -> StoredFile:
        return StoredFile(FIRST, self.key)

    @property
    def copies(self) -> list[StoredFile]:
        """Where a copy may be."""
        return [StoredFile(SECOND, key) for key in dict.fromkeys((self.copy_key, self.key))]


def verify_tenant(*, tenant_id: UUID, deep: bool, now: datetime) -> list[MediaFault]:
    """Return which of a tenant's files lack their bytes in the media storage, or a copy.

    A file that is younger than 15 minutes may be without a copy yet.

    Args:
        deep: read all bytes and compare checksums, in place of sizes.

    Raises:
        StorageAway: a storage does not answer.
    """
    found: list[MediaFault] = []
    with request_ids.threads(THREADS) as pool:
        for page in _pages(tenant_id):
            faults = dict(zip(page, pool.map(partial(_faults, deep=deep, now=now), page), strict=True))
            suspects = [file for file in page if faults[file]]
            still = _again(suspects)
            found += [fault for file in suspects if file in still for fault in faults[file]]
    return found


def repair(*, tenant_id: UUID, faults: Collection[MediaFault]) -> list[MediaFault]:
    """Mend files in either storage from the other and return the faults that are mended.

    What is lost in both is not, nor what a storage that is away should take: repeat it then.
    """
    wanted = [fault.entity_id for fault in faults]
    mended: set[tuple[UUID, str]] = set()
    for start in range(0, len(wanted), PAGE):
        for file in _read(_scope(tenant_id), id__in=wanted[start : start + PAGE], tenant_id=tenant_id):
            mended |= {(file.id, place) for place in _mend(file)}
    return [fault for fault in faults if (fault.entity_id, fault.place) in mended]


def bring_back(*, tenant_id: UUID | None, now: datetime, progress: Callable[[int], object]) -> Brought:
    """Copy back all bytes that the media storage lacks, checking each file, and make lost thumbnails anew.

    It goes by the blobs' rows, so restore these first; rows about copies are not needed. Repeated, it goes on where it
    stopped. One thread for each of four files at a time; memory does not grow with their size.

    Args:
        tenant_id: None for all.
        now: copies that turned out intact count as checked then.
        progress: called with the number of files after each run of them.

    Raises:
        StorageAway: there is no second storage, or a storage does not answer for a whole run of files.
    """
    if not media_files.has_second():
        raise StorageAway(media_copies.OFF)
    done = Brought()
    with request_ids.threads(THREADS) as pool:
        for page in _pages(tenant_id):
            _keep(page)
            results = list(pool.map(_bring, page))
            _require_answers(results)
            _note(done, page, results, now)
            progress(len(page))
    return done


# Reading rows


def _scope(tenant_id: UUID | None) -> Callable[[], AbstractContextManager[None]]:
    """Return what opens a scope for one tenant's files, or all."""
    return partial(tenant_scope, tenant_id) if tenant_id else partial(system_scope, "look at media files")


def _pages(tenant_id: UUID | None) -> Iterator[list[_File]]:
    wanted: dict[str, Any] = {"tenant_id": tenant_id} if tenant_id else {}
    last = media_copies.LOWEST
    while page := _read(_scope(tenant_id), **wanted, id__gt=last):
        yield page
        last = page[-1].id


def _read(scope: Callable[[], AbstractContextManager[None]], **wanted: Any) -> list[_File]:
    with scope():
        blobs = list(Blob.objects.filter(**wanted).order_by("id")[:PAGE])
        copies = MediaCopy.objects.in_bulk([blob.id for blob in blobs])
    return [_file(blob, copies.get(blob.id)) for blob in blobs]


def _file(blob: Blob, copy: MediaCopy | None) -> _File:
    return _File(
        id=blob.id,
        tenant_id=blob.tenant_id,
        key=blob.storage_key,
        thumbnail_key=blob.thumbnail_key,
        created_at=blob.created_at,
        expected=Expected(blob.size_bytes, bytes(blob.sha256)),
        copy_key=copy.storage_key if copy else blob.storage_key,
        is_copied=bool(copy and copy.copied_at),
        error=copy.last_error if copy else "",
    )


def _again(suspects: Sequence[_File]) -> set[_File]:
    """Return the files of which nothing changed since they were read: others were deleted, moved or copied meanwhile."""
    ids = [file.id for file in suspects]
    return set(suspects) & set(_read(_scope(None), id__in=ids)) if ids else set()


# Verifying


def _faults(file: _File, *, deep: bool, now: datetime) -> list[MediaFault]:
    found = [_fault(file, file.first, deep=deep)]
    if media_files.has_second() and file.is_copied:
        found.append(_fault(file, file.copies[0], deep=deep))
    elif media_files.has_second() and file.created_at < now - GRACE:
        found.append(MediaFault(file.id, "missing", SECOND, f"it is not copied yet. {file.error}".strip()))
    return [fault for fault in found if fault]


def _fault(file: _File, place: StoredFile, *, deep: bool) -> MediaFault | None:
    fault = partial(MediaFault, file.id, place=place.alias)
    try:
        if place.size() != file.expected.size:
            return fault(kind="mismatched", problem=f"{place} has another size")
        if deep and place.sha256() != file.expected.sha256:
            return fault(kind="mismatched", problem=f"{place} has other bytes")
    except FileMissing as error:
        return fault(kind="missing", problem=str(error))
    except StorageAway as error:
        if not media_files.answers(place.alias):
            raise
        return fault(kind="missing", problem=str(error))
    return None


# Mending


def _mend(file: _File) -> Iterator[str]:
    """Mend both places of a file and yield those that are intact now."""
    try:
        if file.first.is_intact(file.expected) or _fetch_back(file):
            _make_thumbnail(file)
            yield FIRST
    except FAILURES as error:
        log.error("a media file cannot be mended", id=str(file.id), error=str(error))
    if media_files.has_second() and media_copies.copy_blob(blob_id=file.id, now=timezone.now):
        yield SECOND


def _fetch_back(file: _File) -> bool:
    """Store a file's bytes from wherever an intact copy is.

    Raises:
        FileMissing, StorageAway: there is none, or it cannot be stored.
    """
    if not media_files.has_second():
        raise FileMissing(f"{file.first} is lost, and there is no second storage")
    problem = ""
    for copy in file.copies:
        try:
            media_files.copy(source=copy, target=file.first, expected=file.expected)
        except (FileMissing, WrongBytes) as error:
            problem = problem or str(error)
        else:
            return True
    raise FileMissing(f"{file.first} is lost, and {problem}")


# Bringing back


@dataclass(frozen=True, slots=True)
class _Result:
    came: bool = False
    has_new_thumbnail: bool = False
    error: Exception | None = None


def _bring(file: _File) -> _Result:
    """Bring a file back if the media storage lacks it or has another size; in a thread, without the database."""
    try:
        came = not _is_there(file) and _fetch_back(file)
    except FAILURES as error:
        return _Result(error=error)
    return _Result(came=came, has_new_thumbnail=_make_thumbnail(file))


def _is_there(file: _File) -> bool:
    try:
        return file.first.size() == file.expected.size
    except FileMissing:
        return False


def _make_thumbnail(file: _File) -> bool:
    """Make a thumbnail that is lost, if it can be made: without one the file itself is no worse."""
    thumbnail = StoredFile(FIRST, file.thumbnail_key)
    if not file.thumbnail_key:
        return False
    try:
        thumbnail.size()
    except FileMissing:
        return _made(file, thumbnail)
    except StorageAway as error:
        log.warning("a thumbnail cannot be looked at", id=str(file.id), error=str(error))
    return False


def _made(file: _File, thumbnail: StoredFile) -> bool:
    try:
        media_files.make_thumbnail(source=file.first, target=thumbnail, expected=file.expected)
    except (*FAILURES, Problem) as error:
        log.warning("a thumbnail cannot be made anew", id=str(file.id), error=str(error))
        return False
    return True


def _keep(page: Sequence[_File]) -> None:
    """Copies whose blobs are back are needed again."""
    with system_scope("keep copies that are needed again"):
        MediaCopy.objects.filter(blob_id__in=[file.id for file in page]).update(unneeded_since=None)


def _require_answers(results: Sequence[_Result]) -> None:
    errors = [result.error for result in results]
    away = [error for error in errors if isinstance(error, StorageAway)]
    if away and len(away) == len(errors):
        raise away[0]


def _note(done: Brought, page: Sequence[_File], results: Sequence[_Result], now: datetime) -> None:
    came = [file for file, result in zip(page, results, strict=True) if result.came]
    _drop_swept(came)
    with system_scope("note that copies are intact"):
        intact = MediaCopy.objects.filter(blob_id__in=[file.id for file in came], copied_at__isnull=False)
        intact.update(checked_at=now)
    done.checked += len(page)
    done.files += len(came)
    done.bytes += sum(file.expected.size for file in came)
    done.thumbnails += sum(result.has_new_thumbnail for result in results)
    for file, result in zip(page, results, strict=True):
        if result.error:
            _note_error(done, file, result.error)


def _note_error(done: Brought, file: _File, error: Exception) -> None:
    done.failed += 1
    if len(done.errors) < MAX_ERRORS:
        done.errors.append({"tenant_id": str(file.tenant_id), "id": str(file.id), "message": str(error)})


def _drop_swept(came: Sequence[_File]) -> None:
    """Delete again what came back for a blob that was swept, or whose bytes were moved, meanwhile."""
    if not came:
        return
    now_there = {(file.id, file.key) for file in _read(_scope(None), id__in=[file.id for file in came])}
    for file in came:
        if (file.id, file.key) not in now_there:
            file.first.delete()
