"""The media storage: `STORAGES["media"]`, whose backends also keep what they acknowledged and give any part of a file.

Keys are "<tenant>/<2 hex>/<uuid>": never anything that a user chose.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol, cast
from uuid import UUID, uuid4

import structlog
from django.core.files import File
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage, storages

from engarde.common.problems import Problem

log = structlog.get_logger(__name__)

CHUNK_BYTES = 256 * 1024


class MediaUnavailable(Problem):
    """The storage does not give or take the bytes now: it is away, or they are missing there."""

    status, code, title = 503, "media_unavailable", "Media unavailable"

    def __init__(self, what: str = "The file cannot be read") -> None:
        super().__init__(f"{what} right now; try again later.", headers={"Retry-After": "30"})


class MediaStorage(Protocol):
    """What is asked of a backend beyond Django's storage."""

    def save(self, name: str | None, content: Any, max_length: int | None = None) -> str:
        """Store a file."""

    def delete(self, name: str) -> None:
        """Delete a file; one that is not there is no error."""

    def size(self, name: str) -> int:
        """Return a file's size in bytes."""

    def open_at(self, name: str, start: int) -> tuple[IO[bytes], int]:
        """Return a stream that begins at a byte, and the whole file's size."""


class FileStorage(FileSystemStorage):
    """A folder on local disk. What is saved outlives a loss of power, as PostgreSQL's commits do."""

    def _save(self, name: str, content: "File[bytes]") -> str:
        name = super()._save(name, content)  # type: ignore[misc]  # Django's hook, absent from the stubs
        path = Path(self.path(name))
        for one in (path, *path.parents[:3]):  # the folders too: they may be new
            _flush(one)
        return name

    def open_at(self, name: str, start: int) -> tuple[IO[bytes], int]:
        """Return a stream that begins at a byte, and the whole file's size."""
        stream = Path(self.path(name)).open("rb")  # noqa: SIM115 -- the caller closes it
        stream.seek(start)
        return stream, os.fstat(stream.fileno()).st_size


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class LocalFile(File):  # type: ignore[type-arg]  # generic in the stubs only
    """A file on local disk that a storage on the same disk may move instead of copying it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.open("rb"), str(path))

    def temporary_file_path(self) -> str:
        """Return where it is; Django's FileSystemStorage asks."""
        return str(self.name)


class Part:
    """A run of a stored file's bytes, read piece by piece."""

    def __init__(self, stream: IO[bytes], length: int) -> None:
        self._stream = stream
        self._length = length

    def __iter__(self) -> Iterator[bytes]:
        left = self._length
        while left:
            chunk = self._stream.read(min(CHUNK_BYTES, left))
            if not chunk:
                raise OSError(f"a stored file ended {left} bytes early")
            left -= len(chunk)
            yield chunk

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()


def new_key(tenant_id: UUID) -> str:
    """Return a key that nothing has."""
    name = str(uuid4())
    return f"{tenant_id}/{name[:2]}/{name}"


def save_file(*, key: str, path: Path) -> None:
    """Store a local file, which may be moved.

    Raises:
        MediaUnavailable: the storage does not take it.
    """
    with _named("The file cannot be stored", key), LocalFile(path) as file:
        _storage().save(key, file)


def save_bytes(*, key: str, content: bytes) -> None:
    """Store bytes.

    Raises:
        MediaUnavailable: the storage does not take them.
    """
    with _named("The file cannot be stored", key):
        _storage().save(key, ContentFile(content))


def open_part(*, key: str, size: int, start: int, length: int) -> Part:
    """Return `length` bytes of a file of `size` bytes, from `start` on.

    Raises:
        MediaUnavailable: the storage does not give them, or has a file of another size.
    """
    with _named("The file cannot be read", key):
        stream, actual = _storage().open_at(key, start)
        if actual != size:
            stream.close()
            raise OSError(f"it has {actual} bytes in place of {size}")
    return Part(stream, length)


def size_of(*, key: str) -> int:
    """Return a file's size in bytes.

    Raises:
        MediaUnavailable: the storage does not know it.
    """
    with _named("The file cannot be read", key):
        return int(_storage().size(key))


def require(*, key: str, size: int) -> None:
    """Make sure of a file.

    Raises:
        MediaUnavailable: the storage does not answer, has none, or one of another size.
    """
    if not has(key=key, size=size):
        raise MediaUnavailable


def has(*, key: str, size: int | None = None) -> bool:
    """Tell whether the storage has a file, of this size if it is given; a storage that does not answer has nothing."""
    try:
        return size_of(key=key) == size or size is None
    except MediaUnavailable:
        return False


def delete(*, key: str) -> None:
    """Delete a file, if it is there.

    Raises:
        MediaUnavailable: the storage does not do it.
    """
    with _named("The file cannot be deleted", key):
        _storage().delete(key)


def _storage() -> MediaStorage:
    return cast("MediaStorage", storages["media"])


@contextmanager
def _named(what: str, key: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # Each vendor's client raises errors of its own; all mean that the bytes cannot be had now.
        log.exception("the media storage failed", what=what, key=key)
        raise MediaUnavailable(what) from error
