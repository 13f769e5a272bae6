"""Tells the backup of the rows that were there before the change log was told of them.

The plans of a new database are not told of: they are the platform's own, and must not count more than the backup's when everything is
lost.
"""

from typing import ClassVar

from django.db import migrations

LOG_EXISTING = """
SELECT engarde_log_existing('accounts_tenant', 'tenant', 'id', 'id', '', 'true');
SELECT engarde_log_existing('accounts_brand', 'brand', 'tenant_id', 'id', '', 'true');
SELECT engarde_log_existing('accounts_user', 'user', '', 'id', 'last_login', 'true');
SELECT engarde_log_existing('accounts_membership', 'membership', 'tenant_id', 'id', '', 'true');
SELECT engarde_log_existing('accounts_apikey', 'api_key', 'tenant_id', 'id', 'last_used_at', 'true');
SELECT engarde_log_existing('quotas_plan', 'plan', '', 'tier', '', 'EXISTS (SELECT FROM accounts_tenant)');
SELECT engarde_log_existing(
    'content_quota_usage', 'quota', 'tenant_id', 'tenant_id',
    'used_bytes,reserved_bytes,content_items,media_files,counted_on,disarmed_thresholds,updated_at', 'true');
SELECT engarde_log_existing('content_media_blobs', 'blob', 'tenant_id', 'id', 'unused_since', 'true');
SELECT engarde_log_existing('content_media', 'media', 'tenant_id', 'id', '', 'true');
"""


class Migration(migrations.Migration):
    """See the module."""

    dependencies: ClassVar = [
        ("dr", "0002_watched_and_proven"),
        ("accounts", "0005_back_up_rows"),
        ("quotas", "0006_back_up_rows"),
        ("content", "0007_back_up_rows"),
    ]
    operations: ClassVar = [migrations.RunSQL(LOG_EXISTING, migrations.RunSQL.noop)]
