"""A media file as it goes up to views: facts from PostgreSQL, and where its bytes are."""

from dataclasses import dataclass
from datetime import datetime
from typing import Self
from uuid import UUID

from content.models import Media


@dataclass(frozen=True, slots=True)
class MediaFile:
    """A tenant's media file.

    Attributes:
        content_id: the item it was uploaded for.
        sha256: empty of a reference, whose bytes are elsewhere.
        width, height: in pixels as it is shown (EXIF orientation applied); None for what is not a raster image.
        storage_key: of the bytes in the media storage; empty of a reference.
        thumbnail_key: of the thumbnail there; empty without one.
        external_url: of a reference, where the file is; else empty.
    """

    id: UUID
    tenant_id: UUID
    content_id: UUID | None
    file_name: str
    file_type: str
    mime_type: str
    size_bytes: int
    sha256: bytes
    width: int | None
    height: int | None
    uploaded_by: UUID | None
    created_at: datetime
    storage_key: str
    thumbnail_key: str
    external_url: str

    @classmethod
    def of(cls, row: Media) -> Self:
        """Return the media file of a row that came with its blob, if it has one."""
        blob = row.blob
        return cls(
            id=row.id,
            tenant_id=row.tenant_id,
            content_id=row.content_id,
            file_name=row.file_name,
            file_type=row.file_type,
            mime_type=row.mime_type,
            size_bytes=row.size_bytes,
            sha256=bytes(blob.sha256) if blob else b"",
            width=row.width,
            height=row.height,
            uploaded_by=row.uploaded_by,
            created_at=row.created_at,
            storage_key=blob.storage_key if blob else "",
            thumbnail_key=blob.thumbnail_key if blob else "",
            external_url=row.external_url,
        )
