"""Raster images: decoded once, under limits, for their size and a thumbnail. What cannot be decoded is refused."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import structlog
from django.conf import settings
from PIL import Image, ImageOps

from engarde.common.problems import Problem

log = structlog.get_logger(__name__)

# Other kinds of images (HEIC, SVG, PSD …) are stored as they are: nothing here decodes them.
DECODED: Mapping[str, str] = {
    "image/png": "PNG",
    "image/jpeg": "JPEG",
    "image/gif": "GIF",
    "image/webp": "WEBP",
    "image/avif": "AVIF",
    "image/bmp": "BMP",
    "image/tiff": "TIFF",
}
THUMBNAIL_SIDE = 512
TURNED = {5, 6, 7, 8}  # values of EXIF's orientation that swap width and height
ORIENTATION = 0x0112
SCAN, MAX_SCANS = b"\xff\xda", 100
CHUNK_BYTES = 1024**2
LARGE_PIXELS, LARGE_BYTES = 16 * 10**6, 16 * 1024**2
WAIT_SECONDS = 30.0

Image.MAX_IMAGE_PIXELS = None  # MEDIA_MAX_PIXELS takes its place: Pillow's own limit warns before it refuses
_one_large_image = threading.Lock()


class InvalidImage(Problem):
    """By its content it is an image, but it cannot be decoded."""

    status, code, title = 400, "invalid_image", "Invalid image"

    def __init__(self) -> None:
        super().__init__("The image cannot be decoded: it is damaged or not complete.")


class ImageTooLarge(Problem):
    """The image has more pixels or bytes than are decoded here."""

    status, code, title = 400, "image_too_large", "Image too large"


class Busy(Problem):
    """Other large images are being decoded."""

    status, code, title = 503, "busy", "Busy"


@dataclass(frozen=True, slots=True)
class Picture:
    """What an image shows.

    Attributes:
        width, height: in pixels, with EXIF's orientation applied.
        thumbnail: WebP, at most 512 pixels wide and high, without metadata; of an animation the first frame.
    """

    width: int
    height: int
    thumbnail: bytes


def decode(*, path: Path, mime_type: str) -> Picture:
    """Return what an image of a kind in DECODED shows.

    Raises:
        ImageTooLarge: over MEDIA_MAX_PIXELS or MEDIA_MAX_IMAGE_BYTES.
        InvalidImage: it cannot be decoded.
        Busy: it is large and others are before it.
    """
    size = path.stat().st_size
    if size > settings.MEDIA_MAX_IMAGE_BYTES:
        raise ImageTooLarge(f"The image has {size} bytes; at most {settings.MEDIA_MAX_IMAGE_BYTES} are decoded.")
    if mime_type == "image/jpeg" and _scans(path) > MAX_SCANS:
        raise InvalidImage
    alone = _alone() if size > LARGE_BYTES else nullcontext()
    with alone, _as_invalid(), path.open("rb") as file, Image.open(file, formats=[DECODED[mime_type]]) as image:
        return _decode(image, is_alone=size > LARGE_BYTES)


def _scans(path: Path) -> int:
    """Count a JPEG's scans: each costs a pass over all pixels, however few bytes it has; real ones have some ten."""
    count, last = 0, b""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            count += (last + chunk).count(SCAN)
            last = chunk[-1:]
    return count


def _decode(image: Image.Image, *, is_alone: bool) -> Picture:
    width, height = image.size
    if width * height > settings.MEDIA_MAX_PIXELS:
        raise ImageTooLarge(
            f"The image has {width} by {height} pixels; at most {settings.MEDIA_MAX_PIXELS} are allowed."
        )
    with _alone() if width * height > LARGE_PIXELS and not is_alone else nullcontext():
        thumbnail = _thumbnail(image)
    if image.getexif().get(ORIENTATION) in TURNED:  # asked after loading: a TIFF turns itself then
        width, height = height, width
    return Picture(width, height, thumbnail)


def _thumbnail(image: Image.Image) -> bytes:
    image.draft("RGB", (2 * THUMBNAIL_SIDE, 2 * THUMBNAIL_SIDE))  # a JPEG is then decoded at a fraction of its size
    image.load()
    mode = "RGBA" if image.has_transparency_data else "RGB"
    small = image.convert(mode) if image.mode != mode else image
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    written = BytesIO()
    ImageOps.exif_transpose(small).save(written, "WEBP", quality=80)
    return written.getvalue()


@contextmanager
def _alone() -> Iterator[None]:
    """Hold back other large images: each may take four bytes a pixel."""
    if not _one_large_image.acquire(timeout=WAIT_SECONDS):
        raise Busy("Other large images are being decoded; try again soon.", headers={"Retry-After": "30"})
    try:
        yield
    finally:
        _one_large_image.release()


@contextmanager
def _as_invalid() -> Iterator[None]:
    try:
        yield
    except Problem:
        raise
    except Exception as error:  # Pillow's decoders raise whatever broken bytes lead them to
        log.info("an image cannot be decoded", error=f"{type(error).__name__}: {error}")
        raise InvalidImage from error
