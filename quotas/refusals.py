"""What is said when something does not fit: which limit, what is used, what would free space, which plan is large enough."""

from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.utils.module_loading import import_string

from engarde.common.problems import Problem
from quotas import metrics, months, queries


class QuotaExceeded(Problem):
    """The tenant's plan does not allow it; nothing was stored."""

    status = 403


class StorageQuotaExceeded(QuotaExceeded):
    """The write would take the tenant over its storage limit; nothing was stored."""

    code, title = "storage_quota_exceeded", "Storage quota exceeded"


class GenerationQuotaExceeded(QuotaExceeded):
    """The month's generated items would be more than the plan has; nothing was generated."""

    code, title = "generation_quota_exceeded", "Generation quota exceeded"


def storage(*, tenant_id: UUID, size_bytes: int) -> StorageQuotaExceeded:
    """Inside the tenant's scope, explain why so many bytes do not fit."""
    metrics.REFUSALS.labels("storage").inc()
    usage = queries.usage_in_scope(tenant_id=tenant_id)
    needed = usage.used_bytes + usage.reserved_bytes + size_bytes
    return StorageQuotaExceeded(
        f"Storing {size_bytes} bytes needs more than the {usage.remaining_bytes} bytes that are left. "
        "Delete content or choose a larger plan.",
        **_facts(tenant_id, size_bytes),
        upgrade_suggestion=queries.suggest_upgrade(usage=usage, needed_bytes=needed),
        freeable=freeable(tenant_id=tenant_id),
    )


def generation(*, tenant_id: UUID, items: int, size_bytes: int, now: datetime) -> GenerationQuotaExceeded:
    """Inside the tenant's scope, explain why so many items cannot be generated this month."""
    metrics.REFUSALS.labels("generation").inc()
    usage, month = queries.usage_in_scope(tenant_id=tenant_id), months.this_month(tenant_id=tenant_id, now=now)
    return GenerationQuotaExceeded(
        f"Generating {items} items needs more than the {month.remaining} that are left until "
        f"{month.resets_at:%Y-%m-%d}. Wait until then, or choose a larger plan.",
        **_facts(tenant_id, size_bytes),
        upgrade_suggestion=queries.suggest_upgrade(
            usage=usage, needed_bytes=usage.used_bytes, needed_items=month.generated + month.reserved + items
        ),
        freeable=freeable(tenant_id=tenant_id),
        requested_items=items,
        generated_this_month=month.generated,
        reserved_items=month.reserved,
        monthly_generation_limit=month.limit,
        resets_at=month.resets_at,
    )


def _facts(tenant_id: UUID, size_bytes: int) -> dict[str, Any]:
    usage = queries.usage_in_scope(tenant_id=tenant_id)
    return {
        "current_usage_bytes": usage.used_bytes,
        "requested_bytes": size_bytes,
        "reserved_bytes": usage.reserved_bytes,
        "limit_bytes": usage.limit_bytes,
        "plan_tier": usage.plan_tier,
    }


def freeable(*, tenant_id: UUID) -> dict[str, int]:
    """Inside the tenant's scope, return `{"trash_bytes", "old_version_bytes"}`, as the content room counts them."""
    found: dict[str, int] = import_string(settings.QUOTA_FREEABLE_SOURCE)(tenant_id=tenant_id)
    return found
