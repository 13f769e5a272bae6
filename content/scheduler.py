"""Publishing scheduled items when their time comes."""

from datetime import datetime
from typing import Any
from uuid import UUID

import structlog

from content import operations
from content.models import ContentItem, Status
from engarde.common.problems import Problem
from engarde.common.scopes import system_scope

log = structlog.get_logger(__name__)

BATCH = 500

Due = tuple[datetime, UUID, UUID]


def publish_due(*, now: datetime) -> int:
    """Publish what is due and return how many items were; one that cannot be published now holds up no other."""
    published, last = 0, None
    while due := _due(now, last):
        published += sum(_publish(tenant_id, content_id, now) for _, content_id, tenant_id in due)
        last = due[-1]
    return published


def _due(now: datetime, last: Due | None) -> list[Due]:
    """Return the items that are due, from the earliest on, behind the last one looked at."""
    rows = ContentItem.objects.filter(status=Status.SCHEDULED, deleted_at=None, scheduled_at__lte=now)
    if last:
        rows = rows.filter(scheduled_at__gte=last[0]).exclude(scheduled_at=last[0], id__lte=last[1])
    with system_scope("find scheduled items"):
        due: Any = rows.order_by("scheduled_at", "id").values_list("scheduled_at", "id", "tenant_id")
        return list(due[:BATCH])


def _publish(tenant_id: UUID, content_id: UUID, now: datetime) -> bool:
    try:
        return operations.publish_due(tenant_id=tenant_id, content_id=content_id, now=now)
    except Problem as problem:
        log.warning("scheduled item not published yet", content_id=str(content_id), reason=problem.detail)
    except Exception:
        log.exception("scheduled item not published yet", content_id=str(content_id))
    return False
