"""Alerts: written by the transaction that crosses a threshold, sent after it by `quotas.courier`.

The database decides that one goes out once: the usage row is locked by whoever changes it, and of two alerts for one
threshold within 24 hours an exclusion constraint takes one. A crossing within the 24 hours stays open: it is looked at
again at each write and each sweep, and alerts when the time is over if usage is still there.
"""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from django.db import DatabaseError, connection
from django.db.models import F, Q
from django.db.models.functions import Coalesce
from uuid_utils.compat import uuid7

from engarde.common import wake
from engarde.common.scopes import system_scope, tenant_scope
from quotas.models import QuotaUsage
from quotas.thresholds import THRESHOLDS, look
from quotas.usage import Usage, hundredths_of

log = structlog.get_logger(__name__)

QUIET = timedelta(hours=24)
SENDER = "quotas.send_alerts"
RECORD = """
INSERT INTO content_quota_alerts (id, tenant_id, threshold, used_bytes, limit_bytes, plan_tier, created_at, quiet_until)
VALUES (%(id)s, %(tenant)s, %(threshold)s, %(used)s, %(limit)s, %(tier)s, %(now)s, %(quiet_until)s)
ON CONFLICT DO NOTHING"""


def note(*, tenant_id: UUID, usage: Usage, disarmed: Collection[int], now: datetime) -> int | None:
    """Inside a scope, with the usage locked, alert if a threshold was crossed, and return which."""
    found = look(usage.percent_hundredths, disarmed)
    after, told = found.disarmed, found.crossed
    if told is not None and not _record(tenant_id, told, usage, now):
        after, told = after - {told}, None
    if after != set(disarmed):
        QuotaUsage.objects.filter(tenant_id=tenant_id).update(disarmed_thresholds=sorted(after))
    return told


def _record(tenant_id: UUID, threshold: int, usage: Usage, now: datetime) -> bool:
    """Write an alert; False when the threshold alerted within 24 hours."""
    values: dict[str, Any] = {
        "id": uuid7(),
        "tenant": tenant_id,
        "threshold": threshold,
        "used": usage.used_bytes,
        "limit": usage.limit_bytes,
        "tier": usage.plan_tier,
        "now": now,
        "quiet_until": now + QUIET,
    }
    with connection.cursor() as cursor:
        cursor.execute(RECORD, values)
        is_new = bool(cursor.rowcount)
    if is_new:
        wake.after_commit(SENDER)
    return is_new


def look_again(*, tenant_id: UUID, now: datetime) -> int | None:
    """Inside a scope, lock a tenant's usage and alert if it crossed a threshold, whatever moved it or the limit."""
    row = QuotaUsage.objects.select_for_update(of=("self",)).select_related("plan").get(tenant_id=tenant_id)
    limit = row.plan.storage_limit_bytes if row.storage_limit_override is None else row.storage_limit_override
    usage = Usage(row.plan_id, row.used_bytes, row.reserved_bytes, limit)
    return note(tenant_id=tenant_id, usage=usage, disarmed=row.disarmed_thresholds, now=now)


def sweep(*, now: datetime) -> int:
    """Look at every tenant whose thresholds do not say what its usage is, and return how many alerts that made."""
    with system_scope("look at usage and thresholds"):
        tenants = [tenant_id for tenant_id, *state in _suspects() if _has_moved(*state)]
    made = 0
    for tenant_id in tenants:
        try:
            with tenant_scope(tenant_id):
                made += look_again(tenant_id=tenant_id, now=now) is not None
        except DatabaseError:
            log.exception("a tenant's thresholds were not looked at", tenant_id=str(tenant_id))
    return made


def _suspects() -> Any:
    """Return tenants near a limit or with a threshold that is not armed; of the others there is nothing to tell."""
    limit = Coalesce("storage_limit_override", "plan__storage_limit_bytes")
    rows = QuotaUsage.objects.annotate(limit=limit).order_by("tenant_id")
    near = Q(limit__isnull=False, used_bytes__gte=F("limit") / 100 * THRESHOLDS[0])
    told = Q(disarmed_thresholds__len__gt=0)
    return rows.filter(near | told).values_list("tenant_id", "used_bytes", "limit", "disarmed_thresholds").iterator()


def _has_moved(used: int, limit: int | None, disarmed: Collection[int]) -> bool:
    found = look(None if limit is None else hundredths_of(used, limit), disarmed)
    return found.crossed is not None or found.disarmed != set(disarmed)
