"""What generation has of a tenant, removed for good: jobs with their items and events, provider keys and their trail."""

from uuid import UUID

from engarde.common.erasing import erase_rows
from generation.models import Job, JobEvent, JobItem, LLMKey, LLMKeyEvent

ROWS = (JobEvent, JobItem, Job, LLMKeyEvent, LLMKey)


def erase_tenant(*, tenant_id: UUID, limit: int) -> dict[str, int]:
    """Remove at most `limit` rows in one transaction; return how many by table, nothing once there are none."""
    return erase_rows(ROWS, tenant_id=tenant_id, limit=limit)
