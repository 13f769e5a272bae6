"""Receiving a file: a multipart body is read piece by piece into a file on disk, hashed and measured on the way.

The parser is `multipart`'s: Django's takes a body that breaks off for a complete one, and no file name over 1 KB.
"""

import hashlib
import re
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from uuid import UUID, uuid4

import structlog
from django.conf import settings
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from content.media.storages import CHUNK_BYTES, MediaUnavailable
from engarde.common.problems import Invalid, Problem, TooLarge

log = structlog.get_logger(__name__)

MAX_NAME = 255
DEFAULT_NAME = "file"
MAX_PARTS = 2
MAX_HEADER_BYTES, MAX_HEADERS = 4096 + 128, 4
OVERHEAD_BYTES = 64 * 1024  # what a body may have beside the file: it has at least its length less this
ABANDONED_SECONDS = 24 * 3600
BIDI_CONTROLS = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]")
ID = re.compile("[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")


class InvalidMultipart(Problem):
    """The body is not one multipart/form-data message, or not all of it came."""

    status, code, title = 400, "invalid_multipart", "Invalid multipart body"


class Readable(Protocol):
    """What a body is read from."""

    def read(self, size: int, /) -> bytes:
        """Return at most so many bytes, none at the end."""


@dataclass(frozen=True, slots=True)
class Received:
    """A file that came in whole; whoever has it deletes it.

    Attributes:
        path: where it is on local disk.
        content_id: the item that it is meant for.
    """

    path: Path
    file_name: str
    size_bytes: int
    sha256: bytes
    content_id: UUID | None

    def discard(self) -> None:
        """Delete it, unless it was moved into the storage."""
        self.path.unlink(missing_ok=True)


def least_file_size(content_length: int) -> int:
    """Return the size in bytes that a file in a body of this length has at least."""
    return max(0, content_length - OVERHEAD_BYTES)


def receive(*, stream: Readable, content_type: str, content_length: int) -> Received:
    """Read a body with one part `file` and perhaps one `content_id`.

    Raises:
        InvalidMultipart: it is malformed or breaks off.
        Invalid: a part is missing, unknown, there twice, or has a bad value.
        TooLarge: the file is over MEDIA_MAX_BYTES.
        MediaUnavailable: the disk does not take it.
    """
    drop_abandoned()
    body = _Body(_incoming() / str(uuid4()))
    try:
        _read(stream, content_type, content_length, body)
        return body.result(content_length)
    except MultipartError as error:
        raise InvalidMultipart(f"{error}.") from error
    finally:
        body.close()


def _read(stream: Readable, content_type: str, content_length: int, body: "_Body") -> None:
    _, options = parse_options_header(content_type)
    parser = PushMultipartParser(
        options.get("boundary", ""),
        content_length,
        max_header_size=MAX_HEADER_BYTES,
        max_header_count=MAX_HEADERS,
        max_segment_count=MAX_PARTS,
    )
    with parser:
        while not parser.closed:
            for event in parser.parse(_chunk_of(stream)):
                body.take(event)


def _chunk_of(stream: Readable) -> bytes:
    try:
        return stream.read(CHUNK_BYTES)
    except OSError as error:
        raise InvalidMultipart("The body broke off.") from error


class _Body:
    """Takes the parser's events: a part's head, its bytes, and None at its end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IncomingFile | None = None
        self._content_id: bytearray | None = None
        self._take_bytes: Callable[[bytes | bytearray], None] = self._take_id

    def take(self, event: MultipartSegment | bytes | bytearray | None) -> None:
        if isinstance(event, MultipartSegment):
            self._begin(event)
        elif event is not None:
            self._take_bytes(event)

    def _begin(self, part: MultipartSegment) -> None:
        name = str(part.name)
        if part.header("Content-Transfer-Encoding", "binary").lower() not in {"binary", "8bit", "7bit"}:
            raise Invalid(name, "Send it without a Content-Transfer-Encoding.")
        if name == "file" and self._file is None:
            self._begin_file(part.filename)
        elif name == "content_id" and self._content_id is None:
            self._content_id, self._take_bytes = bytearray(), self._take_id
        elif name in {"file", "content_id"}:
            raise Invalid(name, "Give it once.")
        else:
            raise Invalid(name[:100], "Unknown field.", "unknown_field")

    def _begin_file(self, name: str | None) -> None:
        if name is None:
            raise Invalid("file", "Send it as a file, with a file name.")
        self._file = IncomingFile(self._path, name)
        self._take_bytes = self._file.write

    def _take_id(self, chunk: bytes | bytearray) -> None:
        if self._content_id is None or len(self._content_id) + len(chunk) > OVERHEAD_BYTES:
            raise Invalid("content_id", "Must be a valid UUID.")
        self._content_id += chunk

    def result(self, content_length: int) -> Received:
        """Return the file, which is then the caller's."""
        file = self._file
        if file is None or (not file.name and not file.size):  # a form in which no file was chosen
            raise Invalid("file", "No file was sent.", "required")
        if content_length - file.size > OVERHEAD_BYTES:
            raise InvalidMultipart(f"The body has more than {OVERHEAD_BYTES} bytes beside the file.")
        return file.finish(self._id())

    def _id(self) -> UUID | None:
        if self._content_id is None:
            return None
        text = self._content_id.decode("ascii", "replace")
        if not ID.fullmatch(text):
            raise Invalid("content_id", "Must be a valid UUID.")
        return UUID(text)

    def close(self) -> None:
        """Delete the file, unless it is the caller's."""
        if self._file:
            self._file.close()


@contextmanager
def incoming(name: str) -> "Iterator[IncomingFile]":
    """Give a file to write to that is deleted unless it was finished.

    Raises:
        MediaUnavailable: the disk does not take it.
    """
    file = IncomingFile(_incoming() / str(uuid4()), name)
    try:
        yield file
    finally:
        file.close()


class IncomingFile:
    """A file that is written to disk, hashed and measured as it comes."""

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        self.size = 0
        self._hash = hashlib.sha256()
        self._path = path
        self._is_finished = False
        with _on_disk():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = path.open("xb")

    def write(self, chunk: bytes | bytearray) -> None:
        """Append to it.

        Raises:
            TooLarge: it is over MEDIA_MAX_BYTES.
            MediaUnavailable: the disk does not take it.
        """
        self.size += len(chunk)
        if self.size > settings.MEDIA_MAX_BYTES:
            raise too_large()
        self._hash.update(chunk)
        with _on_disk():
            self._file.write(chunk)

    def finish(self, content_id: UUID | None = None) -> Received:
        """Return it; from now on it is the caller's.

        Raises:
            Invalid: its name is too long.
            MediaUnavailable: the disk does not take it.
        """
        name = clean_name(self.name)
        with _on_disk():
            self._file.close()
        self._is_finished = True
        return Received(self._path, name, self.size, self._hash.digest(), content_id)

    def close(self) -> None:
        """Delete it, unless it was finished."""
        if not self._is_finished:
            self._path.unlink(missing_ok=True)
            with suppress(OSError):  # what could not be written is not needed
                self._file.close()


@contextmanager
def _on_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:  # a full disk, most likely
        log.exception("a file that is coming in cannot be written")
        raise MediaUnavailable("The file cannot be stored") from error


def too_large() -> TooLarge:
    """Return the error of a file over MEDIA_MAX_BYTES."""
    return TooLarge(f"A media file may have at most {settings.MEDIA_MAX_BYTES} bytes.")


def clean_name(sent: str) -> str:
    """Return a file name without its path and without characters that are not shown.

    Raises:
        Invalid: it is over 255 characters.
    """
    name = re.split(r"[/\\]", sent)[-1]
    name = "".join(one for one in name if unicodedata.category(one) not in {"Cc", "Cs", "Zl", "Zp"})
    name = BIDI_CONTROLS.sub("", name).strip()
    if len(name) > MAX_NAME:
        raise Invalid("file", f"A file name may have at most {MAX_NAME} characters.", "max_length")
    return DEFAULT_NAME if name in {"", ".", ".."} else name


def _incoming() -> Path:
    """Return the folder of files that are coming in: on the storage's disk, so that it can move them."""
    return Path(settings.MEDIA_INCOMING_DIR)


def drop_abandoned() -> None:
    """Delete files here that a process left when it died; other machines see to theirs."""
    with suppress(FileNotFoundError):
        for path in _incoming().iterdir():
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < time.time() - ABANDONED_SECONDS:
                    path.unlink()
