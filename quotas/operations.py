"""Writes to the counters: exact under any concurrency because one conditional UPDATE decides."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import connection
from django.db.models.functions import Now
from django.utils.module_loading import import_string

from engarde.accounts import operations as account_operations
from engarde.accounts.models import Brand, Tenant, User
from engarde.accounts.roles import ALL_SCOPES
from engarde.common.problems import Invalid, Problem
from engarde.common.scopes import system_scope, tenant_scope
from quotas import queries
from quotas.models import Plan, QuotaUsage
from quotas.usage import Usage

CHARGE = """
UPDATE content_quota_usage AS usage
SET used_bytes = used_bytes + %(bytes)s, content_items = content_items + %(items)s,
    media_files = media_files + %(media_files)s, updated_at = now()
FROM quotas_plan AS plan
WHERE usage.tenant_id = %(tenant)s AND plan.tier = usage.plan_id
  AND (%(bytes)s <= 0
       OR coalesce(storage_limit_override, storage_limit_bytes) IS NULL
       OR used_bytes + reserved_bytes + %(bytes)s <= coalesce(storage_limit_override, storage_limit_bytes))
RETURNING plan.tier, used_bytes, reserved_bytes, coalesce(storage_limit_override, storage_limit_bytes),
          content_items"""


class StorageQuotaExceeded(Problem):
    """The write would take the tenant over its storage limit; nothing was stored."""

    status, code, title = 403, "storage_quota_exceeded", "Storage quota exceeded"


def charge(*, tenant_id: UUID, size_bytes: int, items: int = 0, media_files: int = 0) -> Usage:
    """Count bytes, items and media files for a tenant, and return the usage after it.

    Call it last in the tenant's scope: the row lock is then held for microseconds. Negative numbers give back; a
    charge that adds no bytes is never refused.

    Raises:
        StorageQuotaExceeded: used + reserved + size_bytes would be over the limit.
    """
    with connection.cursor() as cursor:
        counts: dict[str, Any] = {"tenant": tenant_id, "bytes": size_bytes, "items": items, "media_files": media_files}
        cursor.execute(CHARGE, counts)
        row = cursor.fetchone()
    if row is None:
        raise _explain(tenant_id, size_bytes)
    return Usage(*row)


def over_limit(*, tenant_id: UUID, sizes: Sequence[int]) -> set[int]:
    """Inside the tenant's scope, lock its usage and tell which of several writes would not fit, by their position.

    They are taken in order, and one that does not fit leaves its room to those after it.
    """
    lock_usage(tenant_id=tenant_id)
    left = queries.usage_in_scope(tenant_id=tenant_id).remaining_bytes
    refused: set[int] = set()
    for position, size in enumerate(sizes):
        if left is not None and size > left:
            refused.add(position)
        elif left is not None:
            left -= size
    return refused


def require_room(*, tenant_id: UUID, size_bytes: int) -> None:
    """Refuse early what does not fit now; whether it really fits, `charge` decides.

    Raises:
        StorageQuotaExceeded: used + reserved + size_bytes would be over the limit.
    """
    with tenant_scope(tenant_id):
        left = queries.usage_in_scope(tenant_id=tenant_id).remaining_bytes
        if left is not None and size_bytes > left:
            raise _explain(tenant_id, size_bytes)


def lock_usage(*, tenant_id: UUID) -> None:
    """Inside the tenant's scope, keep its counters as they are until the transaction ends.

    Lock first and sum in a second statement: one statement beside a concurrent writer would make the drift it looks for.
    """
    QuotaUsage.objects.select_for_update().get(tenant_id=tenant_id)


def set_counters(*, tenant_id: UUID, used_bytes: int, items: int, media_files: int) -> None:
    """Inside the tenant's scope, with the usage locked, set the counters to the real sums, whatever the limit."""
    QuotaUsage.objects.filter(tenant_id=tenant_id).update(
        used_bytes=used_bytes, content_items=items, media_files=media_files, updated_at=Now()
    )


def _explain(tenant_id: UUID, size_bytes: int) -> StorageQuotaExceeded:
    usage = queries.usage_in_scope(tenant_id=tenant_id)
    needed = usage.used_bytes + usage.reserved_bytes + size_bytes
    return StorageQuotaExceeded(
        f"Storing {size_bytes} bytes needs more than the {usage.remaining_bytes} bytes that are left. "
        "Delete content or choose a larger plan.",
        current_usage_bytes=usage.used_bytes,
        requested_bytes=size_bytes,
        reserved_bytes=usage.reserved_bytes,
        limit_bytes=usage.limit_bytes,
        plan_tier=usage.plan_tier,
        upgrade_suggestion=queries.suggest_upgrade(usage=usage, needed_bytes=needed),
        freeable=import_string(settings.QUOTA_FREEABLE_SOURCE)(tenant_id=tenant_id),
    )


@dataclass(frozen=True, slots=True)
class NewTenant:
    """A tenant that was just made, with its owner, first brand and a key that has every scope."""

    tenant: Tenant
    brand: Brand
    owner: User
    api_key: str


def create_tenant(
    *, name: str, tier: str, email: str, password: str, brand_name: str, storage_limit: int | None, now: datetime
) -> NewTenant:
    """Create a tenant on a plan.

    Args:
        storage_limit: bytes, in place of the plan's limit.

    Raises:
        Invalid: there is no such plan, or the limit is negative.
        UserExists: the address has an account with another password.
    """
    if storage_limit is not None and storage_limit < 0:
        raise Invalid("storage_limit", "A limit is 0 bytes or more.")
    with system_scope("create a tenant"):
        plan = Plan.objects.filter(tier=tier).first()
        if plan is None:
            known = ", ".join(Plan.objects.values_list("tier", flat=True))
            raise Invalid("tier", f"There is no plan {tier!r}; there are: {known}.")
        tenant, brand, owner = account_operations.create_tenant(
            name=name, email=email, password=password, brand_name=brand_name, now=now
        )
        QuotaUsage.objects.create(tenant=tenant, plan=plan, storage_limit_override=storage_limit)
        _, text = account_operations.insert_api_key(tenant_id=tenant.id, name="First key", scopes=ALL_SCOPES)
    return NewTenant(tenant=tenant, brand=brand, owner=owner, api_key=text)
