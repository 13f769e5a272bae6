"""What follows from a version that comes or goes, and from a media file, is done by triggers: no path can forget it."""

from typing import ClassVar

from django.db import migrations

# The key of a document in ZeroDB is "<item>:<SHA-256>", that of a change record "<item>:<version>", of a media file its id.
SPOOL_REMOVAL = """
CREATE FUNCTION content_spool_removal(collection text, key text, tenant uuid, not_before timestamptz DEFAULT NULL)
RETURNS void LANGUAGE sql AS $$
    INSERT INTO content_record_spool (collection, key, tenant_id, record, attempts, next_attempt_at)
    VALUES (collection, key, tenant, NULL, 0, greatest(not_before, now()))
    ON CONFLICT (collection, key) DO UPDATE
    SET record = NULL, attempts = 0,
        next_attempt_at = greatest(content_record_spool.next_attempt_at, excluded.next_attempt_at);
$$;
"""
# A put in place of a removal that is not done yet must look for what is there: hence at least one attempt.
# The webhooks' rows are locked against deletion: their foreign key is checked at the commit, and a write must not fail then.
# A version that a restore brings back is marked as backed up from the start: nobody is told of it anew.
VERSION_CAME = """
CREATE FUNCTION content_version_came() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    happened text := CASE NEW.change_type WHEN 'create' THEN 'content.created' WHEN 'publish' THEN 'content.published'
                     WHEN 'archive' THEN 'content.archived' WHEN 'delete' THEN 'content.deleted'
                     WHEN 'restore' THEN 'content.restored' ELSE 'content.updated' END;
BEGIN
    INSERT INTO content_webhook_deliveries (id, tenant_id, webhook_id, event, content_id, version, occurred_at)
    SELECT gen_random_uuid(), NEW.tenant_id, hook.id, happened, NEW.content_id, NEW.version, NEW.created_at
    FROM content_webhooks AS hook
    WHERE hook.tenant_id = NEW.tenant_id AND hook.is_active AND (hook.events = '{}' OR happened = ANY(hook.events))
    FOR KEY SHARE;
    IF NEW.version > 1 THEN
        INSERT INTO content_record_spool (collection, key, tenant_id, record, attempts)
        VALUES ('content_versions', NEW.content_id || ':' || NEW.version, NEW.tenant_id, jsonb_build_object(
            'content_id', NEW.content_id, 'version', NEW.version, 'change_type', NEW.change_type,
            'changed_by', NEW.changed_by, 'changed_fields', to_jsonb(NEW.changed_fields),
            'size_bytes', NEW.size_bytes, 'sha256', encode(NEW.sha256, 'hex'), 'created_at', NEW.created_at
        ), 0)
        ON CONFLICT (collection, key) DO UPDATE
        SET record = excluded.record, attempts = greatest(content_record_spool.attempts, 1);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER content_version_came AFTER INSERT ON content_versions
FOR EACH ROW WHEN (NEW.backed_up_at IS NULL) EXECUTE FUNCTION content_version_came();
"""
# A removal waits for the end of the lease under which the document may just be on its way up.
# A removed item says so itself in the change log, so its versions need not: they go after it.
VERSION_WENT = """
CREATE FUNCTION content_version_went() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    busy_until timestamptz;
BEGIN
    IF EXISTS (SELECT FROM content_storage_metadata WHERE id = OLD.content_id) THEN
        INSERT INTO content_changes (xid, tenant_id, entity_type, entity_id, version, op, sha256, changed_at)
        VALUES (pg_current_xact_id()::text::bigint, OLD.tenant_id, 'content', OLD.content_id, OLD.version, 'T',
                OLD.sha256, clock_timestamp());
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
CREATE TRIGGER content_version_went AFTER DELETE ON content_versions
FOR EACH ROW EXECUTE FUNCTION content_version_went();
"""
MEDIA_CHANGED = """
CREATE FUNCTION content_media_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        PERFORM content_spool_removal('content_media_files', OLD.id::text, OLD.tenant_id);
        RETURN NULL;
    END IF;
    INSERT INTO content_record_spool (collection, key, tenant_id, record, attempts)
    SELECT 'content_media_files', NEW.id::text, NEW.tenant_id, jsonb_build_object(
        'content_id', NEW.content_id, 'file_name', NEW.file_name, 'file_type', NEW.file_type,
        'mime_type', NEW.mime_type, 'size_bytes', NEW.size_bytes, 'sha256', encode(blob.sha256, 'hex'),
        'storage_key', blob.storage_key, 'width', NEW.width, 'height', NEW.height,
        'uploaded_by', NEW.uploaded_by, 'created_at', NEW.created_at
    ), 0
    FROM content_media_blobs AS blob WHERE blob.id = NEW.blob_id
    ON CONFLICT (collection, key) DO UPDATE
        SET record = excluded.record, attempts = greatest(content_record_spool.attempts, 1);
    RETURN NULL;
END $$;
CREATE TRIGGER content_media_changed AFTER INSERT OR DELETE ON content_media
FOR EACH ROW EXECUTE FUNCTION content_media_changed();
"""
FORGET = """
DROP TRIGGER content_media_changed ON content_media;
DROP TRIGGER content_version_went ON content_versions;
DROP TRIGGER content_version_came ON content_versions;
DROP FUNCTION content_media_changed();
DROP FUNCTION content_version_went();
DROP FUNCTION content_version_came();
DROP FUNCTION content_spool_removal(text, text, uuid, timestamptz);
"""
# Words as they stand beside their stems: the prefix of a word need not be a prefix of its stem ("runni", "run").
WORDS = """
CREATE FUNCTION content_words(language text, title text, body text) RETURNS tsvector LANGUAGE plpgsql STABLE AS $$
DECLARE
    stems tsvector := setweight(to_tsvector(language::regconfig, title), 'A');
    forms tsvector := setweight(to_tsvector('simple', title), 'D');
BEGIN
    BEGIN
        stems := stems || setweight(to_tsvector(language::regconfig, body), 'B');
        forms := forms || setweight(to_tsvector('simple', body), 'D');
        RETURN stems || ts_delete(strip(forms), tsvector_to_array(stems));
    EXCEPTION WHEN program_limit_exceeded THEN
        RETURN setweight(to_tsvector(language::regconfig, title), 'A');
    END;
END $$;
"""
FORGET_WORDS = "DROP FUNCTION content_words(text, text, text);"


class Migration(migrations.Migration):
    """Adds the triggers and the function that makes search entries."""

    dependencies: ClassVar = [("content", "0003_store_in_full")]
    operations: ClassVar = [
        migrations.RunSQL(SPOOL_REMOVAL + VERSION_CAME + VERSION_WENT + MEDIA_CHANGED, FORGET),
        migrations.RunSQL(WORDS, FORGET_WORDS),
    ]
