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
    (SELECT count(*) FROM content_changes WHERE tenant_id = %(tenant)s AND entity_type = 'content'),
    (SELECT count(*) FROM content_storage_metadata WHERE tenant_id = %(tenant)s AND deleted_at IS NULL),
    (SELECT coalesce(sum(size_bytes), 0)::bigint
     FROM content_storage_metadata WHERE tenant_id = %(tenant)s AND deleted_at IS NULL),
    (SELECT coalesce(sum(size_bytes), 0)::bigint FROM content_media WHERE tenant_id = %(tenant)s),
    (SELECT count(*)
     FROM (SELECT content_type, count(*) AS items, sum(size_bytes) AS bytes FROM content_storage_metadata
           WHERE tenant_id = %(tenant)s AND deleted_at IS NULL GROUP BY content_type) AS real
     FULL JOIN (SELECT content_type, items, bytes FROM content_quota_usage_by_type
                WHERE tenant_id = %(tenant)s AND (items, bytes) != (0, 0)) AS counted USING (content_type)
     WHERE (real.items, real.bytes) IS DISTINCT FROM (counted.items, counted.bytes)),
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
    media_bytes: int
    wrong_types: int
    counted_bytes: int
    reserved_bytes: int
    counted_items: int

    @property
    def counters_are_true(self) -> bool:
        """Whether the counters equal the sums."""
        really = (self.live_bytes + self.media_bytes, self.live_items, 0)
        return (self.counted_bytes, self.counted_items, self.wrong_types) == really


def stored_by(tenant_id: UUID) -> Stored:
    """Return what a tenant has stored now."""
    with system_scope("a test counts"), connection.cursor() as cursor:
        cursor.execute(COUNTS, {"tenant": tenant_id})
        return Stored(*cursor.fetchone())
