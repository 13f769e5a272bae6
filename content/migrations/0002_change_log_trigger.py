"""The change log is written by a trigger, so that no path (the admin, raw SQL) can forget it."""

from typing import ClassVar

from django.db import migrations

LOG_CHANGE = """
CREATE FUNCTION content_log_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    item content_storage_metadata%ROWTYPE;
BEGIN
    IF TG_OP = 'DELETE' THEN item := OLD; ELSE item := NEW; END IF;
    INSERT INTO content_changes (xid, tenant_id, entity_type, entity_id, version, op, sha256, changed_at)
    VALUES (
        pg_current_xact_id()::text::bigint, item.tenant_id, 'content', item.id, item.version,
        CASE WHEN TG_OP = 'DELETE' THEN 'P'
             WHEN item.deleted_at IS NOT NULL THEN 'D'
             WHEN TG_OP = 'INSERT' THEN 'I'
             ELSE 'U' END,
        item.sha256, clock_timestamp()
    );
    RETURN NULL;
END $$;

CREATE TRIGGER content_log_insert_or_delete AFTER INSERT OR DELETE ON content_storage_metadata
FOR EACH ROW EXECUTE FUNCTION content_log_change();

CREATE TRIGGER content_log_update AFTER UPDATE ON content_storage_metadata
FOR EACH ROW WHEN (OLD.version IS DISTINCT FROM NEW.version OR OLD.deleted_at IS DISTINCT FROM NEW.deleted_at)
EXECUTE FUNCTION content_log_change();
"""
FORGET = """
DROP TRIGGER content_log_update ON content_storage_metadata;
DROP TRIGGER content_log_insert_or_delete ON content_storage_metadata;
DROP FUNCTION content_log_change();
"""


class Migration(migrations.Migration):
    """Adds the trigger. It fires for version, deletion and purge only: the carriers' own marks never feed back."""

    dependencies: ClassVar = [("content", "0001_initial")]
    operations: ClassVar = [migrations.RunSQL(LOG_CHANGE, FORGET)]
