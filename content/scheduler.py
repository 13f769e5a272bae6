"""Publishing scheduled items when their time comes."""

from datetime import datetime
from uuid import UUID

import structlog

from content import operations
from content.models import ContentItem, Status
from engarde.common.problems import Problem
from engarde.common.scopes import system_scope

log = structlog.get_logger(__name__)

BATCH = 500


def publish_due(*, now: datetime) -> int:
    """Publish what is due and return how many items were; one that cannot be published now is tried next time."""
    with system_scope("find scheduled items"):
        due = ContentItem.objects.filter(status=Status.SCHEDULED, deleted_at=None, scheduled_at__lte=now)
        ids = list(due.order_by("scheduled_at").values_list("tenant_id", "id")[:BATCH])
    return sum(_publish(tenant_id, content_id, now) for tenant_id, content_id in ids)


def _publish(tenant_id: UUID, content_id: UUID, now: datetime) -> bool:
    try:
        return operations.publish_due(tenant_id=tenant_id, content_id=content_id, now=now)
    except Problem as problem:
        log.warning("scheduled item not published yet", content_id=str(content_id), reason=problem.detail)
        return False
