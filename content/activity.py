"""Who did what: a tenant's versions, newest first, by cursor."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Q, QuerySet

from content.models import ContentVersion
from engarde.accounts import queries as account_queries
from engarde.accounts.queries import Actor
from engarde.common import cursors
from engarde.common.scopes import tenant_scope

FILTERS = {"content_id": "content_id", "actor_id": "changed_by", "action": "change_type"}


@dataclass(frozen=True, slots=True)
class Act:
    """One thing that somebody did to an item.

    Attributes:
        actor: None for the platform itself.
        title: the item's as it is now, and so its content type.
        changed_fields: against the version before it.
    """

    at: datetime
    actor_id: UUID | None
    actor: Actor | None
    action: str
    content_id: UUID
    version: int
    title: str
    content_type: str
    changed_fields: Sequence[str]


@dataclass(frozen=True, slots=True)
class Activity:
    """A page of acts, newest first.

    Attributes:
        next_cursor: where the next page goes on; None on the last one.
    """

    acts: Sequence[Act]
    next_cursor: str | None


def list_activity(*, tenant_id: UUID, filters: Mapping[str, Any], size: int, cursor: str | None = None) -> Activity:
    """Return a page of what was done in a tenant; what was removed for good is not in it.

    Args:
        filters: any of content_id, actor_id and action.

    Raises:
        Invalid: the cursor was not made here, or for other filters.
    """
    digest = cursors.digest({"list": "activity", **filters})
    place = cursors.decode(cursor, digest, (datetime, UUID, int)) if cursor else None
    with tenant_scope(tenant_id):
        rows = list(_versions(tenant_id, filters, place)[: size + 1])
        shown = rows[:size]
        actors = account_queries.names_of(tenant_id=tenant_id, ids={row.changed_by for row in shown if row.changed_by})
    more = len(rows) > size
    last = shown[-1] if more else None
    next_cursor = cursors.encode([last.created_at, last.content_id, last.version], digest) if last else None
    return Activity([_act(row, actors) for row in shown], next_cursor)


def _versions(tenant_id: UUID, filters: Mapping[str, Any], place: Sequence[Any] | None) -> QuerySet[ContentVersion]:
    """Return the versions after a place, in the order of their index: newest first, then by item and version."""
    rows = ContentVersion.objects.filter(tenant_id=tenant_id)
    rows = rows.filter(**{FILTERS[name]: value for name, value in filters.items()})
    if place:
        at, content_id, version = place
        same_time = Q(created_at=at)
        later = Q(content_id__gt=content_id) | Q(content_id=content_id, version__gt=version)
        # The first condition follows from the second, but only it bounds the walk through the index.
        rows = rows.filter(Q(created_at__lt=at) | same_time & later, created_at__lte=at)
    return rows.select_related("content").order_by("-created_at", "content_id", "version")


def _act(row: ContentVersion, actors: Mapping[UUID, Actor]) -> Act:
    return Act(
        at=row.created_at,
        actor_id=row.changed_by,
        actor=actors[row.changed_by] if row.changed_by else None,
        action=row.change_type,
        content_id=row.content_id,
        version=row.version,
        title=row.content.title,
        content_type=row.content.content_type,
        changed_fields=row.changed_fields,
    )
