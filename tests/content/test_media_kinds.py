"""What a file is, told by its content; and what is read out of images."""

import gzip
import random
import time
import wave
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import pytest
from django.conf import LazySettings
from PIL import Image

from content.media import images, kinds
from tests.content.media_files import picture

OFFICE = "application/vnd.openxmlformats-officedocument."


def zipped(*names: str, **contents: str) -> bytes:
    written = BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name in names:
            archive.writestr(name, contents.get(name, "<x/>"))
    return written.getvalue()


def sound() -> bytes:
    written = BytesIO()
    with wave.open(written, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(1000))
    return written.getvalue()


def iso(brand: str, compatible: str = "isom") -> bytes:
    return b"\0\0\0\x20ftyp" + brand.encode() + b"\0\0\2\0" + compatible.encode() + bytes(100)


def ebml(doctype: str) -> bytes:
    return (
        b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\xf7\x81\x01\x42\xf2\x81\x04\x42\xf3\x81\x08\x42\x82\x84"
        + doctype.encode()
        + bytes(50)
    )


BINARY: Mapping[str, tuple[bytes, str, str]] = {
    "png": (picture("PNG"), "image/png", "image"),
    "jpeg": (picture("JPEG"), "image/jpeg", "image"),
    "gif": (picture("GIF"), "image/gif", "image"),
    "webp": (picture("WEBP"), "image/webp", "image"),
    "avif": (picture("AVIF"), "image/avif", "image"),
    "bmp": (picture("BMP"), "image/bmp", "image"),
    "tiff": (picture("TIFF"), "image/tiff", "image"),
    "ico": (picture("ICO"), "image/x-icon", "image"),
    "jp2": (picture("JPEG2000"), "image/jp2", "image"),
    "heic": (iso("heic", "mif1"), "image/heic", "image"),
    "avif by another brand": (iso("mif1", "avif"), "image/avif", "image"),
    "psd": (b"8BPS\0\1" + bytes(50), "image/vnd.adobe.photoshop", "image"),
    "mp4": (iso("isom"), "video/mp4", "video"),
    "mp4 of a newer brand": (iso("iso6"), "video/mp4", "video"),
    "mov": (iso("qt  ", "qt  "), "video/quicktime", "video"),
    "3gp": (iso("3gp4"), "video/3gpp", "video"),
    "webm": (ebml("webm"), "video/webm", "video"),
    "mkv": (ebml("matroska"), "video/x-matroska", "video"),
    "avi": (b"RIFF\x24\0\0\0AVI LIST" + bytes(50), "video/x-msvideo", "video"),
    "mpeg": (b"\0\0\1\xba" + b"\x44" * 50, "video/mpeg", "video"),
    "ogg video": (b"OggS\0\2" + bytes(22) + b"\x80theora" + bytes(50), "video/ogg", "video"),
    "ogg": (b"OggS\0\2" + bytes(22) + b"\x01vorbis" + bytes(50), "audio/ogg", "audio"),
    "m4a": (iso("M4A "), "audio/mp4", "audio"),
    "wav": (sound(), "audio/wav", "audio"),
    "mp3 with tags": (b"ID3\x03\0\0\0\0\0\x21" + bytes(100), "audio/mpeg", "audio"),
    "mp3": (b"\xff\xfb\x90\x64" + bytes(413) + b"\xff\xfb\x90\x64" + bytes(100), "audio/mpeg", "audio"),
    "flac": (b"fLaC\0\0\0\x22" + bytes(50), "audio/flac", "audio"),
    "pdf": (b"%PDF-1.7\n\xe2\xe3\xcf\xd3\n" + bytes(50), "application/pdf", "document"),
    "docx": (zipped("[Content_Types].xml", "word/document.xml"), OFFICE + "wordprocessingml.document", "document"),
    "xlsx": (zipped("[Content_Types].xml", "xl/workbook.xml"), OFFICE + "spreadsheetml.sheet", "document"),
    "pptx": (zipped("[Content_Types].xml", "ppt/presentation.xml"), OFFICE + "presentationml.presentation", "document"),
    "odt": (
        zipped("mimetype", mimetype="application/vnd.oasis.opendocument.text"),
        "application/vnd.oasis.opendocument.text",
        "document",
    ),
    "epub": (zipped("mimetype", mimetype="application/epub+zip"), "application/epub+zip", "document"),
    "doc": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500), "application/x-ole-storage", "document"),
    "zip": (zipped("a.txt"), "application/zip", "other"),
    "zip that names a type": (zipped("mimetype", mimetype="text/html"), "application/zip", "other"),
    "gzip": (gzip.compress(b"x"), "application/gzip", "other"),
    "font": (b"wOF2" + bytes(50), "font/woff2", "other"),
    "program": (b"MZ\x90\0\3\0\0\0" + bytes(200), "application/octet-stream", "other"),
    "zeros": (bytes(500), "application/octet-stream", "other"),
    "ones": (b"\xff" * 500, "application/octet-stream", "other"),
    "utf-16": ("hello".encode("utf-16"), "application/octet-stream", "other"),
    "text with a zero": (b"hello\0world", "application/octet-stream", "other"),
    "empty": (b"", "application/octet-stream", "other"),
}
TEXT: Mapping[str, tuple[str, str, str]] = {
    "plain": ("hello world\n", "text/plain", "document"),
    "like a bitmap": ("BMW is a car\n", "text/plain", "document"),
    "like an archive": ("PK is a name\n", "text/plain", "document"),
    "prose with commas": ("Hello, world\nGood, bye, now\n", "text/plain", "document"),
    "other letters": ("größe €\n", "text/plain", "document"),
    "markdown": ("# Title\n\n<b>bold</b>\n", "text/plain", "document"),
    "xml": ("<?xml version='1.0'?><a/>", "text/plain", "document"),
    "csv": ("name,size\na,1\nb,2\n", "text/csv", "document"),
    "csv with quotes": ('a;b\n"x;1";2\n', "text/csv", "document"),
    "json": ('{"a": [1, 2]}', "application/json", "document"),
    "broken json": ('{"a": [1, 2}', "text/plain", "document"),
    "deep json": ("[" * 100_000, "text/plain", "document"),
    "html": ("\ufeff\n<!-- a --><!DOCTYPE html><p>", "text/html", "document"),
    "html without a doctype": ("<HTML lang=en>", "text/html", "document"),
    "svg": ("<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml", "image"),
    "svg after a prologue": (
        '<?xml version="1.0"?>\n<!-- c --><!DOCTYPE svg PUBLIC "a" "b">\n<svg/>',
        "image/svg+xml",
        "image",
    ),
    "text about svg": ("The <svg> element", "text/plain", "document"),
    "rtf": ("{\\rtf1\\ansi hello}", "application/rtf", "document"),
    "pdf": ("%PDF-1.4\n%%EOF\n", "application/pdf", "document"),
}
ALL: Mapping[str, tuple[bytes, str, str]] = {
    **BINARY,
    **{name: (text.encode(), mime, kind) for name, (text, mime, kind) in TEXT.items()},
}


@pytest.mark.parametrize("name", ALL)
def test_a_file_is_what_its_content_shows(tmp_path: Path, name: str) -> None:
    content, mime_type, file_type = ALL[name]
    path = tmp_path / "a.misleading.html"
    path.write_bytes(content)

    assert kinds.mime_type_of(path) == mime_type
    assert kinds.file_type_of(mime_type) == file_type


def test_text_is_text_only_to_its_very_end(tmp_path: Path) -> None:
    path = tmp_path / "long"
    path.write_bytes("ü".encode() * 200_000)
    assert kinds.mime_type_of(path) == "text/plain"

    path.write_bytes("ü".encode() * 200_000 + b"\xc3")
    assert kinds.mime_type_of(path) == "application/octet-stream"


def test_noise_is_hardly_ever_taken_for_something(tmp_path: Path) -> None:
    chance = random.Random(1)
    path = tmp_path / "noise"
    taken = 0
    for _ in range(300):
        path.write_bytes(chance.randbytes(300))
        taken += kinds.mime_type_of(path) != "application/octet-stream"

    assert taken <= 2


@pytest.mark.parametrize(
    "text",
    [
        " " * 65536,
        "<!-- a -->" * 6500,
        "<!--" * 16000,
        "<!DOCTYPE svg [" + "] " * 32000,
        "<?xml " + "?" * 60000,
        '"' * 65535,
    ],
)
def test_no_text_takes_long_to_tell(tmp_path: Path, text: str) -> None:
    path = tmp_path / "text"
    path.write_text(text)
    started = time.perf_counter()

    kinds.mime_type_of(path)

    assert time.perf_counter() - started < 1


# Images


def colour_at(image: Image.Image, where: tuple[int, int]) -> tuple[int, ...]:
    colour = image.convert("RGB").getpixel(where)
    assert isinstance(colour, tuple)
    return colour


def decode(path: Path, content: bytes) -> images.Picture:
    path.write_bytes(content)
    return images.decode(path=path, mime_type=kinds.mime_type_of(path))


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        *((kind, "RGB") for kind in images.DECODED.values()),
        ("PNG", "RGBA"),
        ("PNG", "LA"),
        ("PNG", "P"),
        ("PNG", "1"),
        ("PNG", "I;16"),
        ("JPEG", "L"),
        ("JPEG", "CMYK"),
        ("GIF", "P"),
        ("TIFF", "F"),
        ("TIFF", "CMYK"),
        ("WEBP", "RGBA"),
    ],
)
def test_every_kind_of_image_gives_its_size_and_a_thumbnail(tmp_path: Path, kind: str, mode: str) -> None:
    written = BytesIO()
    Image.new(mode, (700, 350)).save(written, kind)

    shown = decode(tmp_path / "image", written.getvalue())

    assert (shown.width, shown.height) == (700, 350)
    thumbnail = Image.open(BytesIO(shown.thumbnail))
    assert (thumbnail.format, thumbnail.size) == ("WEBP", (512, 256))


@pytest.mark.parametrize(
    ("kind", "orientation"), [(kind, number) for kind in ("JPEG", "PNG", "TIFF", "WEBP") for number in (1, 3, 6, 8)]
)
def test_an_image_is_shown_as_it_was_meant(tmp_path: Path, kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation

    shown = decode(tmp_path / "image", picture(kind, (800, 600), exif=exif.tobytes()))

    turned = orientation in {6, 8}
    assert (shown.width, shown.height) == ((600, 800) if turned else (800, 600))
    thumbnail = Image.open(BytesIO(shown.thumbnail))
    assert thumbnail.size == ((384, 512) if turned else (512, 384))
    red_is_at = {1: (20, 192), 3: (490, 192), 6: (192, 20), 8: (192, 490)}[orientation]
    red, _, blue = colour_at(thumbnail, red_is_at)
    assert red > 200 > 100 > blue


def test_a_thumbnail_tells_nothing_of_where_a_photo_was_taken(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "secret place"
    exif[0x8825] = {1: "N", 2: (51.0, 30.0, 0.0)}

    content = picture(
        "JPEG", (800, 600), exif=exif.tobytes(), icc_profile=b"secret profile" * 20, comment=b"secret comment"
    )
    shown = decode(tmp_path / "image", content)

    assert b"secret place" in content
    assert not Image.open(BytesIO(shown.thumbnail)).info.keys() & {"exif", "icc_profile", "xmp"}
    assert b"secret" not in shown.thumbnail


def test_of_an_animation_the_first_frame_is_shown(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")]
    written = BytesIO()
    frames[0].save(written, "GIF", save_all=True, append_images=frames[1:])

    shown = decode(tmp_path / "image", written.getvalue())

    red, _, blue = colour_at(Image.open(BytesIO(shown.thumbnail)), (20, 15))
    assert red > 200 > 50 > blue


def test_what_is_transparent_stays_so(tmp_path: Path) -> None:
    shown = decode(tmp_path / "image", _half_clear())

    assert Image.open(BytesIO(shown.thumbnail)).mode == "RGBA"


def _half_clear() -> bytes:
    written = BytesIO()
    Image.new("RGBA", (40, 30), (255, 0, 0, 128)).save(written, "PNG")
    return written.getvalue()


def test_large_images_wait_for_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: LazySettings
) -> None:
    monkeypatch.setattr(images, "LARGE_PIXELS", 100)
    monkeypatch.setattr(images, "WAIT_SECONDS", 0.05)

    with images._alone():
        with pytest.raises(images.Busy):
            decode(tmp_path / "image", picture("PNG", (40, 30)))
        assert decode(tmp_path / "image", picture("PNG", (9, 9))).width == 9
    assert decode(tmp_path / "image", picture("PNG", (40, 30))).width == 40
