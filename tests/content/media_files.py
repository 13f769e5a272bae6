"""Media files for tests: small ones of many kinds, and how a person sends and fetches them."""

import os
import time
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from django.conf import settings
from django.core.files.uploadedfile import SimpleUploadedFile
from django.utils import timezone
from PIL import Image

from content.media import references
from content.media.references import Reference
from content.models import Blob, Media, Upload
from engarde.common.scopes import system_scope, tenant_scope
from quotas import charging
from quotas.models import QuotaUsage
from quotas.usage import Count
from tests.people import Person

URL = "/api/content/media"
BOUNDARY = "a-boundary"


def picture(kind: str = "PNG", size: tuple[int, int] = (40, 30), mode: str = "RGB", **options: Any) -> bytes:
    """Return an image whose left half is red and whose right half is blue."""
    image = Image.new(mode, size, "red")
    image.paste("blue", (size[0] // 2, 0, size[0], size[1]))
    written = BytesIO()
    image.save(written, kind, **options)
    return written.getvalue()


def upload(person: Person, content: bytes, name: str = "file.bin", **fields: Any) -> Any:
    """Send a file and return the answer."""
    headers = {key: fields.pop(key) for key in list(fields) if key.startswith("HTTP_")}
    return person.api.post(URL, {"file": SimpleUploadedFile(name, content), **fields}, format="multipart", **headers)


def uploaded(person: Person, content: bytes, name: str = "file.bin", **fields: Any) -> dict[str, Any]:
    """Send a file that is taken and return what is said of it."""
    answer = upload(person, content, name, **fields)
    assert answer.status_code == 201, answer.content
    return answer.json()


def reference(url: str = "https://old.example/photo.png", **facts: Any) -> Reference:
    """Return a file that is elsewhere, as an import knows it."""
    known: dict[str, Any] = {
        "id": uuid4(),
        "content_id": None,
        "file_name": "photo.png",
        "mime_type": "image/png",
        "file_type": "image",
        "uploaded_by": None,
        "created_at": timezone.now(),
    }
    return Reference(external_url=url, **{**known, **facts})


def referenced(person: Person, url: str = "https://old.example/photo.png", **facts: Any) -> str:
    """Write a file that is elsewhere and charge it, as an import does; return its id."""
    with tenant_scope(person.tenant_id):
        [media] = references.write_references(tenant_id=person.tenant_id, references=[reference(url, **facts)])
        charging.charge(tenant_id=person.tenant_id, now=timezone.now(), media=Count(1, 0))
    return str(media.id)


def part(disposition: str, content: bytes, *headers: str) -> bytes:
    """Return one part of a multipart body."""
    lines = [f"--{BOUNDARY}", f"Content-Disposition: form-data; {disposition}", *headers, "", ""]
    return "\r\n".join(lines).encode() + content + b"\r\n"


LONG_AGO = timedelta(hours=25)
END = f"--{BOUNDARY}--\r\n".encode()
MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"


def send(person: Person, body: bytes, content_type: str = MULTIPART, **extra: Any) -> Any:
    """Send a raw body and return the answer."""
    client: Any = person.api  # the stubs know no bodies of bytes
    return client.generic("POST", URL, body, content_type=content_type, **extra)


def body_of(answer: Any) -> bytes:
    """Return a streamed answer's body."""
    content = b"".join(answer.streaming_content)
    answer.close()
    return content


def stored_bytes(tenant_id: UUID) -> int:
    """Return how many files the storage has of a tenant, thumbnails included."""
    folder = Path(settings.MEDIA_ROOT) / str(tenant_id)
    return sum(1 for path in folder.rglob("*") if path.is_file())


def incoming() -> list[Path]:
    """Return the files that are coming in, or were left."""
    folder = Path(settings.MEDIA_INCOMING_DIR)
    return list(folder.iterdir()) if folder.is_dir() else []


def rows(tenant_id: UUID) -> tuple[int, int, int]:
    """Return how many media files, blobs and unfinished uploads a tenant has."""
    with system_scope("a test counts"):
        models = (Media, Blob, Upload)
        media, blobs, uploads = (model.objects.filter(tenant_id=tenant_id).count() for model in models)
    return media, blobs, uploads


def counted(tenant_id: UUID) -> tuple[int, int]:
    """Return the bytes and media files that the quota counts."""
    with system_scope("a test counts"):
        usage = QuotaUsage.objects.get(tenant_id=tenant_id)
    return usage.used_bytes, usage.media_files


def everything(tenant_id: UUID) -> tuple[tuple[int, int, int], int, list[Path], tuple[int, int]]:
    """Return everything that a refused upload must leave as it was."""
    return rows(tenant_id), stored_bytes(tenant_id), incoming(), counted(tenant_id)


def age(tenant_id: UUID) -> None:
    """Let a day go by for what a tenant does not use and for uploads that were not finished."""
    before = timezone.now() - LONG_AGO
    with system_scope("a test moves the clock"):
        Blob.objects.filter(tenant_id=tenant_id, unused_since__isnull=False).update(unused_since=before)
        Upload.objects.filter(tenant_id=tenant_id).update(started_at=before)
    for path in incoming():
        os.utime(path, (time.time() - LONG_AGO.total_seconds(),) * 2)
