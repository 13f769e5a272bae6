"""What kind of file something is, told by its bytes: neither its name nor what the sender says counts.

Signatures come from puremagic. It offers many candidates, some on two bytes; only those in KINDS are believed, weak
ones after a second look, and containers (zip, ISO media, EBML, Ogg) are looked into.
"""

import codecs
import csv
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import orjson
import puremagic

from content.models import FileType

SAMPLE_BYTES = 64 * 1024
MAX_JSON_BYTES = 8 * 1024**2
UNKNOWN = "application/octet-stream"
OFFICE = "application/vnd.openxmlformats-officedocument."

KINDS: Mapping[str, str] = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".bmp": "image/bmp",
    ".tif": "image/tiff",
    ".ico": "image/x-icon",
    ".psd": "image/vnd.adobe.photoshop",
    ".jp2": "image/jp2",
    ".wav": "audio/wav",
    ".mp3": "audio/mpeg",
    ".mpga": "audio/mpeg",
    ".flac": "audio/flac",
    ".aac": "audio/aac",
    ".mid": "audio/midi",
    ".avi": "video/x-msvideo",
    ".flv": "video/x-flv",
    ".mpg": "video/mpeg",
    ".pdf": "application/pdf",
    ".rtf": "application/rtf",
    ".doc": "application/x-ole-storage",
    ".gz": "application/gzip",
    ".7z": "application/x-7z-compressed",
    ".rar": "application/vnd.rar",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".ttf": "font/ttf",
    ".otf": "font/otf",
}
BRANDS: Mapping[bytes, str] = {
    b"avif": "image/avif",
    b"avis": "image/avif",
    b"heic": "image/heic",
    b"heix": "image/heic",
    b"mif1": "image/heif",
    b"msf1": "image/heif",
    b"M4A ": "audio/mp4",
    b"M4B ": "audio/mp4",
    b"qt  ": "video/quicktime",
    b"3gp4": "video/3gpp",
    b"3gp5": "video/3gpp",
}
DOCUMENTS = frozenset({"application/pdf", "application/rtf", "application/json", "application/epub+zip"})
DOCUMENTS |= {"application/x-ole-storage"}
CONTROL = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
# Possessive, so that no text makes them go back over it: `*+` and `(?>…)` never give up what they took.
PROLOGUE = r"\ufeff?(?>\s+|<\?xml[^>]*\?>|<!--.*?-->|<!DOCTYPE\s+svg[^>\[]*(?:\[.*?\]\s*)?>)*+"
SVG = re.compile(PROLOGUE + r"<svg[\s>/]", re.DOTALL)
HTML = re.compile(r"\ufeff?(?>\s+|<!--.*?-->)*+<(?:!doctype\s+html|html[\s>])", re.DOTALL | re.IGNORECASE)


def mime_type_of(path: Path) -> str:
    """Return the MIME type that a file's content shows; application/octet-stream when it shows none."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(SAMPLE_BYTES)
        file.seek(max(0, size - SAMPLE_BYTES))
        tail = file.read()
    if head.startswith(b"%PDF-"):
        return "application/pdf"
    if head.startswith(b"{\\rtf"):
        return "application/rtf"
    if head and _is_text(path):
        return _text_kind(path, size, head)
    return _container_kind(head, tail) or _signature_kind(path, head) or UNKNOWN


def file_type_of(mime_type: str) -> FileType:
    """Return which of the kinds of media files a MIME type belongs to."""
    family = mime_type.partition("/")[0]
    if family in {"image", "video", "audio"}:
        return FileType(family)
    is_office = mime_type.startswith((OFFICE, "application/vnd.oasis.opendocument."))
    return FileType.DOCUMENT if family == "text" or mime_type in DOCUMENTS or is_office else FileType.OTHER


# Text


def _is_text(path: Path) -> bool:
    """Tell whether all of a file is UTF-8 without control characters; bytes that are not show early."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with path.open("rb") as file:
            while chunk := file.read(SAMPLE_BYTES):
                if CONTROL.search(decoder.decode(chunk)):
                    return False
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _text_kind(path: Path, size: int, head: bytes) -> str:
    text = head.decode("utf-8", "ignore")
    if SVG.match(text):
        return "image/svg+xml"
    if HTML.match(text):
        return "text/html"
    if text.lstrip("\ufeff \t\r\n")[:1] in {"{", "["} and size <= MAX_JSON_BYTES and _is_json(path.read_bytes()):
        return "application/json"
    return "text/csv" if _is_csv(text, is_whole=size <= len(head)) else "text/plain"


def _is_json(content: bytes) -> bool:
    try:
        orjson.loads(content)
    except orjson.JSONDecodeError:
        return False
    return True


def _is_csv(text: str, *, is_whole: bool) -> bool:
    """Tell whether a text is a table: two or more rows, all with the same number of two or more columns."""
    lines = text.lstrip("\ufeff").splitlines()
    lines = lines if is_whole else lines[:-1]
    return any(_has_columns(lines, delimiter) for delimiter in ",;\t")


def _has_columns(lines: list[str], delimiter: str) -> bool:
    try:
        widths = [len(row) for row in csv.reader(lines, delimiter=delimiter, strict=True) if row]
    except csv.Error:
        return False
    return len(widths) > 1 and len(set(widths)) == 1 and widths[0] > 1


# Containers


def _container_kind(head: bytes, tail: bytes) -> str:
    """Return the kind of a file of which the signature only tells in what it is wrapped; empty for another file."""
    if head[4:8] == b"ftyp":
        return _iso_kind(head)
    if head.startswith(b"PK\x03\x04"):
        return _zip_kind(head, tail)
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "video/x-matroska" if b"matroska" in head[:64] else "video/webm"
    if head.startswith(b"OggS"):
        return "video/ogg" if b"theora" in head[:512] else "audio/ogg"
    return ""


def _iso_kind(head: bytes) -> str:
    kind = BRANDS.get(head[8:12], "video/mp4")
    return "image/avif" if kind == "image/heif" and b"avif" in head[16:64] else kind


def _zip_kind(head: bytes, tail: bytes) -> str:
    """Return the kind of a zip archive by the names of what is in it, without reading its whole directory."""
    if head[30:38] == b"mimetype":
        stored = re.match(rb"application/(?:epub\+zip|vnd\.oasis\.opendocument\.[a-z-]+)", head[38:138])
        return stored[0].decode() if stored else "application/zip"
    names = head + tail
    if b"[Content_Types].xml" in names:
        parts = {b"word/": "wordprocessingml.document", b"xl/": "spreadsheetml.sheet"}
        parts[b"ppt/"] = "presentationml.presentation"
        return next((OFFICE + kind for part, kind in parts.items() if part in names), "application/zip")
    return "application/zip"


# Signatures


def _signature_kind(path: Path, head: bytes) -> str:
    if not head:
        return ""
    try:
        with path.open("rb") as file:
            candidates = puremagic.magic_stream(file)
    except puremagic.PureError:
        return ""
    known = (one.extension for one in candidates if one.offset >= 0 and one.extension in KINDS)
    return next((KINDS[extension] for extension in known if _is_believed(extension, head)), "")


def _is_believed(extension: str, head: bytes) -> bool:
    second_look = SECOND_LOOKS.get(extension)
    return second_look is None or second_look(head)


def _is_bitmap(head: bytes) -> bool:
    """Tell whether the size of a BMP's second header, by which its versions differ, is one of those there are."""
    return int.from_bytes(head[14:18], "little") in {12, 16, 40, 52, 56, 64, 108, 124}


def _is_mpeg_audio(head: bytes) -> bool:
    """Tell whether the first frame's bit rate and sampling rate are none of the forbidden ones."""
    return head.startswith(b"ID3") or (len(head) > 3 and head[2] >> 4 not in {0, 15} and head[2] >> 2 & 3 != 3)


SECOND_LOOKS: Mapping[str, Callable[[bytes], bool]] = {
    ".bmp": _is_bitmap,
    ".mpga": _is_mpeg_audio,
    ".mp3": _is_mpeg_audio,
    ".aac": lambda head: len(head) > 3 and head[2] >> 2 & 15 < 13,
    ".ico": lambda head: head[4:6] != b"\0\0",
}
