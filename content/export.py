"""Export: all of a tenant's live items as a stream, in pieces of bounded size."""

from collections.abc import Iterator
from uuid import UUID

from content import lists, queries
from content.items import Item
from content.models import ContentItem
from engarde.common.scopes import tenant_scope

CHUNK = 100


def live_items(*, tenant_id: UUID) -> Iterator[Item]:
    """Yield a tenant's live items by id, which is the order they were made in, each with its document.

    An item whose document no tier can give has none. No transaction is open between two items.
    """
    last: UUID | None = None
    while chunk := _chunk(tenant_id, last):
        for piece in lists.pieces(chunk):
            yield from _read(tenant_id, piece)
        last = chunk[-1].id


def _chunk(tenant_id: UUID, last: UUID | None) -> list[Item]:
    rows = ContentItem.objects.filter(tenant_id=tenant_id, deleted_at=None)
    with tenant_scope(tenant_id):
        return queries.as_items((rows.filter(id__gt=last) if last else rows).order_by("id")[:CHUNK])


def _read(tenant_id: UUID, piece: list[Item]) -> Iterator[Item]:
    for item in queries.with_documents(tenant_id=tenant_id, items=piece):
        yield queries.as_written(item, item.document) if item.document else item
