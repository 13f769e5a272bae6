"""References: media files of which only the address is known, as an import could not fetch them. They take no bytes here."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from content.media.items import MediaFile
from content.models import Media
from engarde.common import wake
from engarde.common.problems import Invalid

MAX_URL = 2048
WEB_URL = re.compile(r"https?://[^ ]+", re.IGNORECASE)
CARRIERS = ("content.carry_records", "dr.sync")


@dataclass(frozen=True, slots=True)
class Reference:
    """A media file that is elsewhere.

    Attributes:
        content_id: the item that it came with.
        file_name: at most 255 characters, as `uploads.clean_name` makes it.
        mime_type: at most 127 characters; nobody looks whether the file is that.
        file_type: one of `FileType`.
        external_url: see `is_address`.
    """

    id: UUID
    content_id: UUID | None
    file_name: str
    mime_type: str
    file_type: str
    external_url: str
    uploaded_by: UUID | None
    created_at: datetime


def is_address(text: str) -> bool:
    """Return whether browsers may be sent there: http or https, at most 2,048 characters, none of them a blank or unseen."""
    return len(text) <= MAX_URL and text.isprintable() and WEB_URL.fullmatch(text) is not None


def write_references(*, tenant_id: UUID, references: Sequence[Reference]) -> list[MediaFile]:
    """Inside the tenant's scope, write references; the caller charges the quota, `Count(len(references), 0)` of media.

    Raises:
        Invalid: one has an address to which nobody may be sent; nothing is written.
        IntegrityError: an id is taken, or a file type is unknown.
    """
    for one in references:
        if not is_address(one.external_url):
            message = f"The media file {one.id} has no http or https address of at most {MAX_URL} characters."
            raise Invalid("external_url", message, "invalid_url")
    rows = Media.objects.bulk_create([_row(tenant_id, one) for one in references])
    for task in CARRIERS:
        wake.after_commit(task)
    return [MediaFile.of(row) for row in rows]


def _row(tenant_id: UUID, reference: Reference) -> Media:
    return Media(
        id=reference.id,
        tenant_id=tenant_id,
        blob=None,
        external_url=reference.external_url,
        content_id=reference.content_id,
        file_name=reference.file_name,
        file_type=reference.file_type,
        mime_type=reference.mime_type,
        size_bytes=0,
        uploaded_by=reference.uploaded_by,
        created_at=reference.created_at,
    )
