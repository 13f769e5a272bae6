"""Shapes of requests and answers about media files."""

from datetime import datetime
from typing import Any

from rest_framework import serializers

from content.media import links
from content.media.items import MediaFile
from content.models import FileType
from engarde.common.fields import QuerySerializer
from engarde.common.paging import PageQuery, PaginationOutput

UPLOAD_INPUT = {
    "multipart/form-data": {
        "type": "object",
        "required": ["file"],
        "additionalProperties": False,
        "properties": {
            "file": {"type": "string", "format": "binary"},
            "content_id": {
                "type": "string",
                "format": "uuid",
                "description": "An item to whose media it is appended, as a new version.",
            },
        },
    }
}


class MediaQuery(PageQuery):
    """Filters and page of a list of media files."""

    content_id = serializers.UUIDField(required=False, help_text="Those that were uploaded for this item.")
    file_type = serializers.ChoiceField(choices=FileType.choices, required=False)


class LinkQuery(QuerySerializer):
    """A signed link's token."""

    token = serializers.CharField(required=False, max_length=300, help_text="In place of credentials; part of `url`.")


class MediaOutput(serializers.Serializer[Any]):
    """A media file."""

    id = serializers.UUIDField()
    content_id = serializers.UUIDField(allow_null=True)
    file_name = serializers.CharField()
    file_type = serializers.ChoiceField(choices=FileType.choices)
    mime_type = serializers.CharField(help_text="Told by its content; of an external file, as its sender said.")
    size_bytes = serializers.IntegerField(help_text="0 of an external file.")
    sha256 = serializers.CharField(allow_null=True, help_text="In hexadecimal digits; null of an external file.")
    url = serializers.CharField(
        help_text="A path that needs no credentials, good for about an hour; of an external file, its address elsewhere."
    )
    external = serializers.BooleanField(
        required=False, help_text="True of a file whose bytes are not stored here; absent of all others."
    )
    thumbnail_url = serializers.CharField(required=False, help_text="Likewise; of raster images.")
    width = serializers.IntegerField(required=False, help_text="Of raster images, in pixels as they are shown.")
    height = serializers.IntegerField(required=False)
    created_at = serializers.DateTimeField()


class MediaPage(serializers.Serializer[Any]):
    """A page of media files."""

    data = MediaOutput(many=True)  # type: ignore[assignment]  # the contract's name; DRF has an attribute of it
    pagination = PaginationOutput()


def show_media(media: MediaFile, *, now: datetime) -> dict[str, Any]:
    """Return a media file with links that are good from now on."""
    shown: dict[str, Any] = {
        "id": media.id,
        "content_id": media.content_id,
        "file_name": media.file_name,
        "file_type": media.file_type,
        "mime_type": media.mime_type,
        "size_bytes": media.size_bytes,
        "sha256": media.sha256.hex() or None,
        "url": media.external_url or _link(media, "download", now),
    }
    if media.external_url:
        shown["external"] = True
    if media.thumbnail_key:
        shown["thumbnail_url"] = _link(media, "thumbnail", now)
    if media.width and media.height:
        shown |= {"width": media.width, "height": media.height}
    return shown | {"created_at": media.created_at}


def _link(media: MediaFile, part: str, now: datetime) -> str:
    return links.path(tenant_id=media.tenant_id, media_id=media.id, part=part, now=now)
