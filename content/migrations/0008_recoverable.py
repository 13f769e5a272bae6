"""What backup and restore need of the change log: times of transactions, silence and a closed door while a restore writes."""

from typing import ClassVar

from django.db import migrations

# All changes of a transaction have its time, so that a restore to any time takes all of them or none.
LOG_CHANGE = """
CREATE OR REPLACE FUNCTION content_log_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    item content_storage_metadata%ROWTYPE;
BEGIN
    IF current_setting('engarde.restoring', true) = 'on' THEN RETURN NULL; END IF;
    IF TG_OP = 'DELETE' THEN item := OLD; ELSE item := NEW; END IF;
    INSERT INTO content_changes (xid, tenant_id, entity_type, entity_id, version, op, sha256, changed_at)
    VALUES (
        pg_current_xact_id()::text::bigint, item.tenant_id, 'content', item.id, item.version,
        CASE WHEN TG_OP = 'DELETE' THEN 'P'
             WHEN item.deleted_at IS NOT NULL THEN 'D'
             WHEN TG_OP = 'INSERT' THEN 'I'
             ELSE 'U' END,
        item.sha256, now()
    );
    RETURN NULL;
END $$;
"""
VERSION_WENT = """
CREATE OR REPLACE FUNCTION content_version_went() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    busy_until timestamptz;
BEGIN
    IF EXISTS (SELECT FROM content_storage_metadata WHERE id = OLD.content_id) THEN
        INSERT INTO content_changes (xid, tenant_id, entity_type, entity_id, version, op, sha256, changed_at)
        VALUES (pg_current_xact_id()::text::bigint, OLD.tenant_id, 'content', OLD.content_id, OLD.version, 'T',
                OLD.sha256, now());
    END IF;
    IF NOT EXISTS (SELECT FROM content_versions WHERE content_id = OLD.content_id AND sha256 = OLD.sha256) THEN
        WITH gone AS (
            DELETE FROM content_body_spool WHERE content_id = OLD.content_id AND sha256 = OLD.sha256
            RETURNING uploaded_at, attempts, next_attempt_at
        )
        SELECT max(next_attempt_at) INTO busy_until FROM gone WHERE uploaded_at IS NULL AND attempts > 0;
        PERFORM content_spool_removal('content_items', OLD.content_id || ':' || encode(OLD.sha256, 'hex'),
                                      OLD.tenant_id, least(coalesce(busy_until, now()), now() + interval '1 minute'));
    END IF;
    IF OLD.version > 1 THEN
        PERFORM content_spool_removal('content_versions', OLD.content_id || ':' || OLD.version, OLD.tenant_id);
    END IF;
    RETURN NULL;
END $$;
"""
# What the backup keeps of a version beside its document. Times are in UTC whatever the session's zone, so that the text is the same.
VERSION_FACTS = """
CREATE FUNCTION content_version_facts(version content_versions, author_id uuid, item_created_at timestamptz)
RETURNS text LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object(
        'author_id', author_id, 'item_created_at', item_created_at AT TIME ZONE 'UTC',
        'change_type', version.change_type, 'changed_by', version.changed_by,
        'changed_fields', version.changed_fields, 'version_created_at', version.created_at AT TIME ZONE 'UTC',
        'size_bytes', version.size_bytes)::text
$$;
"""
# Advisory locks end with the process that holds them, so a restore that was killed leaves no door closed.
CLOSED_DOOR = """
CREATE FUNCTION content_door_is_open(tenant uuid) RETURNS boolean LANGUAGE sql VOLATILE AS $$
    SELECT pg_try_advisory_xact_lock_shared(hashtextextended('engarde restore', 0))
       AND pg_try_advisory_xact_lock_shared(hashtextextended('engarde restore ' || tenant, 0))
$$;
CREATE FUNCTION content_refuse_while_restoring() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF coalesce(current_setting('engarde.restoring', true), '') NOT IN ('on', 'aloud')
       AND NOT content_door_is_open(CASE WHEN TG_OP = 'DELETE' THEN OLD.tenant_id ELSE NEW.tenant_id END) THEN
        RAISE EXCEPTION 'a restore is running' USING ERRCODE = 'EG503';
    END IF;
    RETURN CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
END $$;
CREATE TRIGGER content_closed_come_or_go BEFORE INSERT OR DELETE ON content_storage_metadata
FOR EACH ROW EXECUTE FUNCTION content_refuse_while_restoring();
CREATE TRIGGER content_closed_change BEFORE UPDATE ON content_storage_metadata
FOR EACH ROW WHEN (OLD.version IS DISTINCT FROM NEW.version OR OLD.deleted_at IS DISTINCT FROM NEW.deleted_at)
EXECUTE FUNCTION content_refuse_while_restoring();
CREATE TRIGGER content_closed_media BEFORE INSERT OR DELETE ON content_media
FOR EACH ROW EXECUTE FUNCTION content_refuse_while_restoring();
"""
OPEN = """
DROP TRIGGER content_closed_media ON content_media;
DROP TRIGGER content_closed_change ON content_storage_metadata;
DROP TRIGGER content_closed_come_or_go ON content_storage_metadata;
DROP FUNCTION content_refuse_while_restoring();
DROP FUNCTION content_door_is_open(uuid);
DROP FUNCTION content_version_facts(content_versions, uuid, timestamptz);
"""


class Migration(migrations.Migration):
    """See the module. What it replaces is not brought back: the older functions are right, but for times and restores."""

    dependencies: ClassVar = [("content", "0007_back_up_rows")]
    operations: ClassVar = [migrations.RunSQL(LOG_CHANGE + VERSION_WENT + VERSION_FACTS + CLOSED_DOOR, OPEN)]
