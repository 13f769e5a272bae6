"""Counts the live items that are there by type; from then on every charge does."""

from typing import ClassVar

from django.db import migrations

COUNT = """
INSERT INTO content_quota_usage_by_type (tenant_id, content_type, items, bytes)
SELECT tenant_id, content_type, count(*), sum(size_bytes)
FROM content_storage_metadata WHERE deleted_at IS NULL GROUP BY tenant_id, content_type
"""


class Migration(migrations.Migration):
    """Fills the quotas' table, which knows no content of its own."""

    dependencies: ClassVar = [("content", "0004_triggers"), ("quotas", "0005_history_and_retention")]
    operations: ClassVar = [migrations.RunSQL(COUNT, migrations.RunSQL.noop)]
