"""Bodies, names and contents that are broken or mean harm: refused with a problem that says why, or made harmless."""

import itertools
import struct
import time
import zlib
from io import BytesIO
from typing import Any

import pytest
from django.conf import LazySettings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from content.media import uploads
from content.media.uploads import InvalidMultipart
from engarde.common.problems import Problem
from tests.content.media_files import (
    BOUNDARY,
    END,
    MULTIPART,
    URL,
    body_of,
    everything,
    part,
    picture,
    rows,
    send,
    stored_bytes,
    upload,
    uploaded,
)
from tests.people import Person

FILE = 'name="file"; filename="a.bin"'
TEXT = b"hello"


def refused(answer: Any, status: int, code: str) -> dict[str, Any]:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.content
    assert answer["Content-Type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    return problem


@pytest.fixture
def nothing_kept(alice: Person) -> Any:
    """Check that the test left nothing behind: no rows, no bytes, no half of a file."""
    before = everything(alice.tenant_id)
    yield
    assert everything(alice.tenant_id) == before


leaves_nothing = pytest.mark.usefixtures("nothing_kept")


# Bodies


@leaves_nothing
@pytest.mark.parametrize(
    ("body", "field", "code"),
    [
        (END, "file", "required"),
        (part('name="content_id"', b"01a204dc-5242-725b-8f16-7437be78a210") + END, "file", "required"),
        (part('name="file"', TEXT) + END, "file", "invalid"),
        (part('name="file"; filename=""', b"") + END, "file", "required"),
        (part(FILE, TEXT) + part(FILE, TEXT) + END, "file", "invalid"),
        (part('name="content_id"', b"x") + part('name="content_id"', b"x") + END, "content_id", "invalid"),
        (part(FILE, TEXT) + part('name="other"', b"x") + END, "other", "unknown_field"),
        (part('name="Other"; filename="x"', b"x") + END, "Other", "unknown_field"),
        (part("nothing", b"x") + END, "non_field_errors", "unknown_field"),
        (part(FILE, TEXT) + part('name="content_id"', b"") + END, "content_id", "invalid"),
        (part(FILE, TEXT) + part('name="content_id"', b"5") + END, "content_id", "invalid"),
        (part(FILE, TEXT) + part('name="content_id"', b"\xff" * 36) + END, "content_id", "invalid"),
        (part(FILE, TEXT) + part('name="content_id"', b"x" * 70_000) + END, "content_id", "invalid"),
        (part(FILE, b"aGVsbG8=", "Content-Transfer-Encoding: base64") + END, "file", "invalid"),
        (part(f'name="file"; filename="{"x" * 256}"', TEXT) + END, "file", "max_length"),
    ],
)
def test_it_refuses_fields_that_are_missing_unknown_or_bad(alice: Person, body: bytes, field: str, code: str) -> None:
    [error] = refused(send(alice, body), 400, "validation_error")["errors"]

    assert (error["field"] or "non_field_errors", error["code"]) == (field, code)


@leaves_nothing
@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (part(FILE, TEXT), MULTIPART),  # no end
        (part(FILE, TEXT)[:-4], MULTIPART),
        (part(FILE, TEXT) + f"--{BOUNDARY}".encode(), MULTIPART),
        (f"--{BOUNDARY}\r\n".encode(), MULTIPART),
        (b"nothing of the kind", MULTIPART),
        (b"\0" * 100_000, MULTIPART),
        (part(FILE, TEXT) + END, "multipart/form-data; boundary=another"),
        (part(FILE, TEXT) + END, "multipart/form-data"),
        (part(FILE, TEXT) + END, 'multipart/form-data; boundary=""'),
        (part(FILE, TEXT, "X" * 10_000 + ": y") + END, MULTIPART),
        (part(FILE, TEXT, *["A: b"] * 20) + END, MULTIPART),
        (part(FILE, TEXT, "no colon") + END, MULTIPART),
        (part(f'name="file"; filename="{"x" * 10_000}"', TEXT) + END, MULTIPART),
        (part('name="file"; filename="', TEXT).replace(b'filename="', b'filename="\xff"') + END, MULTIPART),
        (part(FILE, TEXT) + part('name="content_id"', b"x") + part('name="c"', b"x") + END, MULTIPART),
        (b"preamble\r\n" * 10_000 + part(FILE, TEXT) + END, MULTIPART),
    ],
)
def test_it_refuses_a_body_that_is_no_multipart_message(alice: Person, body: bytes, content_type: str) -> None:
    answer = send(alice, body, content_type)

    assert answer.status_code == 400
    assert answer.json()["code"] in {"invalid_multipart", "validation_error"}


@leaves_nothing
@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "application/x-www-form-urlencoded"])
def test_it_takes_files_in_multipart_bodies_only(alice: Person, content_type: str) -> None:
    refused(send(alice, b"{}", content_type), 415, "unsupported_media_type")


@leaves_nothing
def test_a_request_without_a_body_has_no_file(alice: Person) -> None:
    refused(send(alice, b""), 400, "validation_error")


@leaves_nothing
def test_it_refuses_a_file_over_the_limit(alice: Person, settings: LazySettings) -> None:
    settings.MEDIA_MAX_BYTES = 1000

    assert upload(alice, b"x" * 1001).status_code == 413  # counted while it comes
    answer = send(alice, b"never read", CONTENT_LENGTH="9999999")  # known beforehand
    refused(answer, 413, "content_too_large")


def test_a_file_of_just_the_limit_is_taken(alice: Person, settings: LazySettings) -> None:
    settings.MEDIA_MAX_BYTES = 1000

    assert uploaded(alice, b"x" * 1000)["size_bytes"] == 1000


@leaves_nothing
def test_query_parameters_are_refused(alice: Person) -> None:
    answer = send(alice, part(FILE, TEXT) + END, QUERY_STRING="x=1")

    refused(answer, 400, "validation_error")


@pytest.mark.parametrize("body", [part(FILE, TEXT) + END + b"epilogue", b"\r\n" + part(FILE, TEXT) + END[:-2]])
def test_it_takes_what_the_standard_lets_stand_around_the_parts(alice: Person, body: bytes) -> None:
    answer = send(alice, body)

    assert answer.status_code == 201, answer.content
    assert answer.json()["size_bytes"] == 5


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_body_that_breaks_off_or_is_damaged_is_never_taken_for_another_file(
    data: st.DataObject, tmp_path: Any
) -> None:
    content = b"line\r\n--a-bound\r\n" * 20
    whole = part(FILE, content) + part('name="content_id"', b"01a204dc-5242-725b-8f16-7437be78a210") + END
    cut = data.draw(st.integers(0, len(whole) - 5))  # the last two bytes, CRLF, may be missing

    with pytest.raises((InvalidMultipart, Problem)):
        uploads.receive(stream=BytesIO(whole[:cut]), content_type=MULTIPART, content_length=len(whole))


@given(pieces=st.lists(st.integers(1, 40), min_size=1, max_size=20))
@settings(max_examples=50, deadline=None)
def test_the_file_is_the_same_however_the_body_comes(pieces: list[int]) -> None:
    content = b"\r\n--a-boundar\r\n-\r\r\n" * 7
    body = part(FILE, content) + END

    class Trickle(BytesIO):
        sizes = itertools.cycle(pieces)

        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(next(self.sizes))

    received = uploads.receive(stream=Trickle(body), content_type=MULTIPART, content_length=len(body))
    try:
        assert received.path.read_bytes() == content
    finally:
        received.discard()


# Names


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("photo.png", "photo.png"),
        ("../../etc/passwd", "passwd"),
        ("..\\..\\windows\\system32", "system32"),
        ("C:\\fakepath\\a.txt", "a.txt"),
        ("/", "file"),
        ("..", "file"),
        (".", "file"),
        (" a b ", "a b"),
        ("a\x00b\x01\x7f.txt", "ab.txt"),
        ("a\u202egnp.exe", "agnp.exe"),
        ("a\u2028b", "ab"),
        ("größe.txt", "größe.txt"),
        ("\N{GRINNING FACE}" * 255, "\N{GRINNING FACE}" * 255),
        ("x" * 255, "x" * 255),
        ("'; DROP TABLE content_media; --", "'; DROP TABLE content_media; --"),
        ("<img src=x onerror=alert(1)>", "<img src=x onerror=alert(1)>"),
        ("%2e%2e%2fa", "%2e%2e%2fa"),
        ("CON", "CON"),
    ],
)
def test_a_name_is_kept_without_path_and_what_cannot_be_seen(alice: Person, sent: str, kept: str) -> None:
    answer = send(alice, part(f'name="file"; filename="{sent}"', TEXT) + END)

    media = answer.json()
    assert (answer.status_code, media["file_name"]) == (201, kept)
    fetched = alice.api.get(f"{URL}/{media['id']}/download")
    assert "\n" not in fetched["Content-Disposition"]
    assert body_of(fetched) == TEXT


def test_quotation_marks_in_a_name_arrive_and_leave_whole(alice: Person) -> None:
    media = send(alice, part('name="file"; filename="a %22b%22.txt"', TEXT) + END).json()

    assert media["file_name"] == 'a "b".txt'
    fetched = alice.api.get(f"{URL}/{media['id']}/download")
    assert fetched["Content-Disposition"] == 'attachment; filename="a \\"b\\".txt"'


# Contents


def png_of(width: int, height: int) -> bytes:
    """Return a PNG of one colour that says how large it is in a few bytes: a bomb when it is unpacked."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    packer = zlib.compressobj(9)
    rows_of_zeros = b"".join(packer.compress(bytes(1 + width * 3)) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows_of_zeros) + chunk(b"IEND", b"")


@leaves_nothing
def test_an_image_that_unpacks_to_too_many_pixels_is_refused(alice: Person, settings: LazySettings) -> None:
    settings.MEDIA_MAX_PIXELS = 1_000_000

    refused(upload(alice, png_of(1001, 1000)), 400, "image_too_large")


def test_an_image_of_just_as_many_pixels_as_allowed_is_taken(alice: Person, settings: LazySettings) -> None:
    settings.MEDIA_MAX_PIXELS = 1_000_000

    assert uploaded(alice, png_of(1000, 1000))["width"] == 1000


@leaves_nothing
def test_an_image_with_a_header_that_lies_about_its_size_is_refused(alice: Person) -> None:
    honest = bytearray(png_of(10, 10))
    honest[16:24] = struct.pack(">II", 2**31 - 1, 2**31 - 1)
    honest[29:33] = struct.pack(">I", zlib.crc32(bytes(honest[12:29])))

    refused(upload(alice, bytes(honest)), 400, "image_too_large")


@leaves_nothing
def test_an_image_file_of_too_many_bytes_is_not_decoded(alice: Person, settings: LazySettings) -> None:
    settings.MEDIA_MAX_IMAGE_BYTES = 1000

    refused(upload(alice, picture("PNG") + bytes(1000)), 400, "image_too_large")


@leaves_nothing
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "AVIF"])
def test_an_image_that_is_cut_off_is_refused(alice: Person, kind: str) -> None:
    content = picture(kind, (300, 200))

    for share in (0.3, 0.7):
        answer = upload(alice, content[: max(40, int(len(content) * share))])
        refused(answer, 400, "invalid_image")


@leaves_nothing
@pytest.mark.parametrize(
    "content",
    [b"\x89PNG\r\n\x1a\n" + b"not a picture" * 10, b"\xff\xd8\xff\xe0" + b"\0" * 100, b"GIF89a" + b"\xff" * 50],
)
def test_what_begins_like_an_image_and_is_none_is_refused(alice: Person, content: bytes) -> None:
    refused(upload(alice, content, "photo.png"), 400, "invalid_image")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"]),
    where=st.integers(8, 400),
    what=st.binary(min_size=1, max_size=8),
)
def test_a_damaged_image_is_refused_or_decoded_and_never_a_failure(
    tmp_path_factory: pytest.TempPathFactory, kind: str, where: int, what: bytes
) -> None:
    from content.media import images

    content = bytearray(picture(kind, (60, 40)))
    content[where : where + len(what)] = what
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(content)

    try:
        shown = images.decode(path=path, mime_type=next(mime for mime, name in images.DECODED.items() if name == kind))
    except (images.InvalidImage, images.ImageTooLarge):
        return
    assert shown.thumbnail[:4] == b"RIFF"


@leaves_nothing
def test_a_jpeg_of_thousands_of_scans_is_refused_before_it_costs_time(alice: Person) -> None:
    content = picture("JPEG", (2000, 2000), progressive=True)
    last = content.rindex(b"\xff\xda")
    bomb = content[:last] + content[last:-2] * 5000 + content[-2:]
    started = time.monotonic()

    refused(upload(alice, bomb), 400, "invalid_image")

    assert time.monotonic() - started < 5


def test_a_page_behind_a_picture_is_a_picture(alice: Person) -> None:
    media = uploaded(alice, picture("GIF") + b"<script>alert(1)</script>", "page.html")

    answer = alice.api.get(f"{URL}/{media['id']}/download")
    assert (media["mime_type"], answer["Content-Type"]) == ("image/gif", "image/gif")
    assert answer["X-Content-Type-Options"] == "nosniff"


def test_what_the_sender_says_of_the_type_does_not_count(alice: Person) -> None:
    script = b"<html><script>alert(1)</script></html>"

    media = send(alice, part('name="file"; filename="a.png"', script, "Content-Type: image/png") + END).json()

    assert (media["mime_type"], media["file_type"]) == ("text/html", "document")


def test_many_refusals_leave_no_bytes_behind(alice: Person) -> None:
    for _ in range(5):
        upload(alice, picture()[:50])
        send(alice, part(FILE, TEXT))

    assert rows(alice.tenant_id) == (0, 0, 0)
    assert stored_bytes(alice.tenant_id) == 0
