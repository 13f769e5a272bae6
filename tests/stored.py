"""What a tenant has stored, counted behind the platform's back."""

from dataclasses import dataclass
from uuid import UUID

from django.db import connection

from engarde.common.scopes import system_scope

COUNTS = """
SELECT
    (SELECT count(*) FROM content_storage_metadata WHERE tenant_id = %(tenant)s),
    (SELECT count(*) FROM content_versions WHERE tenant_id = %(tenant)s),
    (SELECT count(*) FROM content_body_spool WHERE tenant_id = %(tenant)s),
    (SELECT count(*) FROM content_changes WHERE tenant_id = %(tenant)s),
    (SELECT count(*) FROM content_storage_metadata WHERE tenant_id = %(tenant)s AND deleted_at IS NULL),
    (SELECT coalesce(sum(size_bytes), 0)::bigint
     FROM content_storage_metadata WHERE tenant_id = %(tenant)s AND deleted_at IS NULL),
    (SELECT used_bytes FROM content_quota_usage WHERE tenant_id = %(tenant)s),
    (SELECT reserved_bytes FROM content_quota_usage WHERE tenant_id = %(tenant)s),
    (SELECT content_items FROM content_quota_usage WHERE tenant_id = %(tenant)s)"""


@dataclass(frozen=True)
class Stored:
    """Rows and sums as they are, and the counters that claim to know them."""

    items: int
    versions: int
    spooled: int
    changes: int
    live_items: int
    live_bytes: int
    counted_bytes: int
    reserved_bytes: int
    counted_items: int

    @property
    def counters_are_true(self) -> bool:
        """Whether the counters equal the sums."""
        return (self.counted_bytes, self.counted_items) == (self.live_bytes, self.live_items)


def stored_by(tenant_id: UUID) -> Stored:
    """Return what a tenant has stored now."""
    with system_scope("a test counts"), connection.cursor() as cursor:
        cursor.execute(COUNTS, {"tenant": tenant_id})
        return Stored(*cursor.fetchone())
