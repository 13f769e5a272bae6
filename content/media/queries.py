"""Reads of media files."""

from uuid import UUID

from content.media.items import MediaFile
from content.models import Media
from engarde.common.paging import Page
from engarde.common.problems import NotFound
from engarde.common.scopes import tenant_scope


def get_media(*, tenant_id: UUID, media_id: UUID) -> MediaFile:
    """Return a media file.

    Raises:
        NotFound: the tenant has no such file.
    """
    with tenant_scope(tenant_id):
        row = Media.objects.select_related("blob").filter(tenant_id=tenant_id, id=media_id).first()
    if row is None:
        raise NotFound("media file")
    return MediaFile.of(row)


def list_media(
    *, tenant_id: UUID, page: int, size: int, content_id: UUID | None = None, file_type: str | None = None
) -> Page[MediaFile]:
    """Return a page of a tenant's media files, newest first.

    Args:
        content_id: only those that were uploaded for this item.
        file_type: only those of this kind.
    """
    wanted = {"content_id": content_id, "file_type": file_type}
    rows = Media.objects.filter(tenant_id=tenant_id, **{name: value for name, value in wanted.items() if value})
    start = (page - 1) * size
    with tenant_scope(tenant_id):
        newest = list(rows.select_related("blob").order_by("-created_at", "-id")[start : start + size])
        total = rows.count()
    return Page(rows=[MediaFile.of(row) for row in newest], number=page, size=size, total=total)
