"""Files in the media storage and in the second one, and how bytes get from one to the other.

They go by way of a file on local disk that has no name: a storage's client may then go back and send a part again, a wrong
checksum shows before anything is stored, and a process that dies leaves nothing. No file is in memory as a whole.
"""

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, cast

from django.conf import settings
from django.core.files import File
from django.core.files.storage import storages

from content.media import images, kinds
from content.media.storages import CHUNK_BYTES, MediaStorage

FIRST, SECOND = "media", "media_backup"
NAMES = {FIRST: "the media storage", SECOND: "the second storage"}
MAX_DEPTH = 4

Beat = Callable[[], None]


class StorageAway(Exception):
    """A storage, or the local disk that bytes go by, does not do what is asked now; the same call may succeed later."""


class FileMissing(Exception):
    """The storage answers, but has no such file."""


class WrongBytes(Exception):
    """The bytes are not those of the checksum."""


class Interrupted(Exception):
    """Raised by a beat: whoever moves the bytes is to stop."""


class ListedStorage(MediaStorage, Protocol):
    """What else is asked of the backends; all of Django's have it."""

    def exists(self, name: str) -> bool:
        """Tell whether there is such a file."""

    def listdir(self, path: str) -> tuple[list[str], list[str]]:
        """Return the names of a folder's folders and files."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a file's bytes are to be."""

    size: int
    sha256: bytes


def go_on() -> None:
    """Be the beat of those whom nothing stops."""


def has_second() -> bool:
    """Tell whether there is a second storage (DR_MEDIA_STORAGE)."""
    return SECOND in settings.STORAGES


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A place for a file in one of the two storages.

    Attributes:
        alias: FIRST or SECOND.
    """

    alias: str
    key: str

    def size(self) -> int:
        """Return how many bytes it has.

        Raises:
            FileMissing, StorageAway: there is none, or nobody can tell.
        """
        with self._calling("read"):
            return int(_storage(self.alias).size(self.key))

    def chunks(self) -> Iterator[bytes]:
        """Yield its bytes.

        Raises:
            FileMissing, StorageAway: there is none, or it cannot be read.
        """
        with self._calling("read"):
            stream, _ = _storage(self.alias).open_at(self.key, 0)
        try:
            while chunk := self._next(stream):
                yield chunk
        finally:
            stream.close()

    def _next(self, stream: IO[bytes]) -> bytes:
        with self._calling("read"):
            return stream.read(CHUNK_BYTES)

    def is_intact(self, expected: Expected, *, beat: Beat = go_on) -> bool:
        """Tell whether it is there with the right bytes, reading all of them.

        Raises:
            StorageAway: nobody can tell.
        """
        try:
            return self.size() == expected.size and self.sha256(beat=beat) == expected.sha256
        except FileMissing:
            return False

    def sha256(self, *, beat: Beat = go_on) -> bytes:
        """Return the checksum of its bytes, reading all of them.

        Raises:
            FileMissing, StorageAway: there is none, or it cannot be read.
        """
        seen = hashlib.sha256()
        for chunk in self.chunks():
            seen.update(chunk)
            beat()
        return seen.digest()

    def put(self, file: IO[bytes], *, beat: Beat = go_on) -> None:
        """Store a local file's bytes under exactly this key, in place of what may be there.

        Raises:
            StorageAway: they cannot be stored.
        """
        with self._calling("stored"):
            storage = _storage(self.alias)
            if storage.exists(self.key):
                storage.delete(self.key)
            kept = storage.save(self.key, _Watched(file, self.key, beat))
            if kept != self.key:
                storage.delete(kept)
                raise StorageAway(f"{self} cannot be stored: somebody else stored it at the same time")

    def delete(self) -> None:
        """Delete it, if it is there.

        Raises:
            StorageAway: it cannot be deleted.
        """
        with self._calling("deleted"):
            _storage(self.alias).delete(self.key)

    @contextmanager
    def _calling(self, done: str) -> Iterator[None]:
        """Sort errors: each vendor's client raises its own, for what is missing too."""
        try:
            yield
        except (Interrupted, StorageAway):
            raise
        except FileNotFoundError as error:
            raise FileMissing(f"{self} is not there") from error
        except Exception as error:
            if not isinstance(error, OSError) and self._lacks():
                raise FileMissing(f"{self} is not there") from error
            raise StorageAway(f"{self} cannot be {done}: {type(error).__name__}: {error}"[:500]) from error

    def _lacks(self) -> bool:
        try:
            return not _storage(self.alias).exists(self.key)
        except Exception:  # noqa: BLE001 -- a vendor's own: it does not say that the file is missing
            return False

    def __str__(self) -> str:
        return f"{self.key} in {NAMES[self.alias]}"


class _Watched(File):  # type: ignore[type-arg]  # generic in the stubs only
    """A file of which each read is told: a storage's client takes its time between."""

    def __init__(self, file: IO[bytes], name: str, beat: Beat) -> None:
        super().__init__(file, name)
        self._source = file
        self._beat = beat

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        self._beat()
        return self._source.read(size)


def copy(*, source: StoredFile, target: StoredFile, expected: Expected, beat: Beat = go_on) -> None:
    """Copy a file's bytes and read back what was stored.

    Args:
        beat: called often meanwhile; what it raises ends the copying.

    Raises:
        FileMissing: the source is not there.
        WrongBytes: the source's bytes are wrong, and nothing was stored; or what was stored reads wrongly.
        StorageAway: one of the storages does not answer.
    """
    with _local_disk(), tempfile.TemporaryFile(dir=_folder()) as file:
        fetch(source=source, file=file, expected=expected, beat=beat)
        file.seek(0)
        beat()
        target.put(file, beat=beat)
    if not target.is_intact(expected, beat=beat):
        raise WrongBytes(f"{target} reads otherwise than it was stored")


def fetch(*, source: StoredFile, file: IO[bytes], expected: Expected, beat: Beat = go_on) -> None:
    """Write a file's bytes into a local one.

    Raises:
        FileMissing, StorageAway: they cannot be had.
        WrongBytes: they are not the right ones.
    """
    seen, size = hashlib.sha256(), 0
    for chunk in source.chunks():
        size += len(chunk)
        if size > expected.size:
            raise WrongBytes(f"{source} has more than the {expected.size} bytes that it should have")
        seen.update(chunk)
        file.write(chunk)
        beat()
    if (size, seen.digest()) != (expected.size, expected.sha256):
        raise WrongBytes(f"{source} has other bytes than those that were uploaded")
    file.flush()


def make_thumbnail(*, source: StoredFile, target: StoredFile, expected: Expected) -> None:
    """Make an image's thumbnail anew from its bytes: thumbnails are not copied.

    Raises:
        FileMissing, WrongBytes, StorageAway: the bytes cannot be had, or the thumbnail cannot be stored.
        Problem: the image cannot be decoded now.
    """
    with _local_disk(), tempfile.NamedTemporaryFile(dir=_folder()) as file:
        fetch(source=source, file=file, expected=expected)
        path = Path(file.name)
        picture = images.decode(path=path, mime_type=kinds.mime_type_of(path))
    with _local_disk(), tempfile.TemporaryFile(dir=_folder()) as thumbnail:
        thumbnail.write(picture.thumbnail)
        thumbnail.seek(0)
        target.put(thumbnail)


def keys_below(*, alias: str, folder: str, depth: int = MAX_DEPTH) -> Iterator[str]:
    """Yield the keys of all files in a folder of a storage, one of its folders at a time.

    Raises:
        StorageAway: the storage does not list them.
    """
    folders, names = _listed(alias, folder)
    yield from (f"{folder}/{name}" for name in names if name)
    for inner in folders if depth else []:
        yield from keys_below(alias=alias, folder=f"{folder}/{inner}", depth=depth - 1)


def _listed(alias: str, folder: str) -> tuple[list[str], list[str]]:
    try:
        return _storage(alias).listdir(folder)
    except FileNotFoundError:
        return [], []
    except Exception as error:
        raise StorageAway(f"{NAMES[alias]} does not list {folder}: {type(error).__name__}: {error}"[:500]) from error


def answers(alias: str) -> bool:
    """Tell whether a storage answers at all, be it that it has no such file."""
    try:
        _storage(alias).exists("is-there-anybody")
    except Exception:  # noqa: BLE001 -- each vendor's client raises its own
        return False
    return True


def _storage(alias: str) -> ListedStorage:
    return cast("ListedStorage", cast("Any", storages[alias]))


def _folder() -> str:
    """Return where files wait that are on their way: on a real disk, where uploads have room too."""
    folder = Path(settings.MEDIA_INCOMING_DIR)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return str(folder)


@contextmanager
def _local_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:  # a full disk, most likely
        raise StorageAway(f"the disk of MEDIA_INCOMING_DIR does not take a file: {error}") from error
