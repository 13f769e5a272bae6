"""Media files whose bytes are elsewhere, and one function each for what ZeroDB is told of a version and of a media file."""

from typing import ClassVar

import django.db.models.deletion
from django.db import migrations, models

import engarde.common.constraints

RECORDS = """
CREATE FUNCTION content_version_record(version content_versions) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object(
        'content_id', version.content_id, 'version', version.version, 'change_type', version.change_type,
        'changed_by', version.changed_by, 'changed_fields', to_jsonb(version.changed_fields),
        'size_bytes', version.size_bytes, 'sha256', encode(version.sha256, 'hex'), 'created_at', version.created_at)
$$;
CREATE FUNCTION content_media_record(media content_media) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object(
        'content_id', media.content_id, 'file_name', media.file_name, 'file_type', media.file_type,
        'mime_type', media.mime_type, 'size_bytes', media.size_bytes, 'sha256', encode(blob.sha256, 'hex'),
        'storage_key', blob.storage_key, 'external_url', nullif(media.external_url, ''),
        'width', media.width, 'height', media.height,
        'uploaded_by', media.uploaded_by, 'created_at', media.created_at)
    FROM (SELECT media.blob_id) AS its (blob_id) LEFT JOIN content_media_blobs AS blob ON blob.id = its.blob_id
$$;
"""
FORGET_RECORDS = (
    "DROP FUNCTION content_media_record(content_media); DROP FUNCTION content_version_record(content_versions);"
)
# The triggers' functions as 0004 has them, but for how a record is made.
VERSION_CAME = """
CREATE OR REPLACE FUNCTION content_version_came() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    happened text := CASE NEW.change_type WHEN 'create' THEN 'content.created' WHEN 'publish' THEN 'content.published'
                     WHEN 'archive' THEN 'content.archived' WHEN 'delete' THEN 'content.deleted'
                     WHEN 'restore' THEN 'content.restored' ELSE 'content.updated' END;
BEGIN
    INSERT INTO content_webhook_deliveries (id, tenant_id, webhook_id, event, content_id, version, occurred_at)
    SELECT gen_random_uuid(), NEW.tenant_id, hook.id, happened, NEW.content_id, NEW.version, NEW.created_at
    FROM content_webhooks AS hook
    WHERE hook.tenant_id = NEW.tenant_id AND hook.is_active AND (hook.events = '{{}}' OR happened = ANY(hook.events))
      AND coalesce(current_setting('engarde.importing', true), '') != 'on'
    FOR KEY SHARE;
    IF NEW.version > 1 THEN
        INSERT INTO content_record_spool (collection, key, tenant_id, record, attempts)
        VALUES ('content_versions', NEW.content_id || ':' || NEW.version, NEW.tenant_id, {record}, 0)
        ON CONFLICT (collection, key) DO UPDATE
        SET record = excluded.record, attempts = greatest(content_record_spool.attempts, 1);
    END IF;
    RETURN NULL;
END $$;
"""
MEDIA_CHANGED = """
CREATE OR REPLACE FUNCTION content_media_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        PERFORM content_spool_removal('content_media_files', OLD.id::text, OLD.tenant_id);
        RETURN NULL;
    END IF;
    INSERT INTO content_record_spool (collection, key, tenant_id, record, attempts)
    SELECT 'content_media_files', NEW.id::text, NEW.tenant_id, {record}, 0{source}
    ON CONFLICT (collection, key) DO UPDATE
        SET record = excluded.record, attempts = greatest(content_record_spool.attempts, 1);
    RETURN NULL;
END $$;
"""
CALL = VERSION_CAME.format(record="content_version_record(NEW)") + MEDIA_CHANGED.format(
    record="content_media_record(NEW)", source=""
)
SPELL_OUT = VERSION_CAME.format(
    record="""jsonb_build_object(
            'content_id', NEW.content_id, 'version', NEW.version, 'change_type', NEW.change_type,
            'changed_by', NEW.changed_by, 'changed_fields', to_jsonb(NEW.changed_fields),
            'size_bytes', NEW.size_bytes, 'sha256', encode(NEW.sha256, 'hex'), 'created_at', NEW.created_at)"""
) + MEDIA_CHANGED.format(
    record="""jsonb_build_object(
        'content_id', NEW.content_id, 'file_name', NEW.file_name, 'file_type', NEW.file_type,
        'mime_type', NEW.mime_type, 'size_bytes', NEW.size_bytes, 'sha256', encode(blob.sha256, 'hex'),
        'storage_key', blob.storage_key, 'width', NEW.width, 'height', NEW.height,
        'uploaded_by', NEW.uploaded_by, 'created_at', NEW.created_at)""",
    source="\n    FROM content_media_blobs AS blob WHERE blob.id = NEW.blob_id",
)
# Their facts have one column more than the backup knows.
LOG_ANEW = "SELECT engarde_log_existing('content_media', 'media', 'tenant_id', 'id', '', 'true');"


def backed_up() -> engarde.common.constraints.BackedUp:
    """Return the constraint by which the backup is told of media files: its triggers name all columns that there are."""
    return engarde.common.constraints.BackedUp(
        comparable="",
        entity_type="media",
        events=("INSERT", "UPDATE", "DELETE"),
        key=("id",),
        left_out=(),
        name="media_backed_up",
        noticed=(),
        tenant="tenant_id",
        when="",
    )


class Migration(migrations.Migration):
    """See the module. It goes back only where there is no such media file: without an address a row would have nothing."""

    dependencies: ClassVar = [("content", "0008_recoverable")]

    operations: ClassVar = [
        migrations.RemoveConstraint(model_name="media", name="media_backed_up"),
        migrations.AddField(
            model_name="media",
            name="external_url",
            field=models.TextField(
                blank=True, db_default="", default="", help_text="Of a reference: where the file is."
            ),
        ),
        migrations.AlterField(
            model_name="media",
            name="blob",
            field=models.ForeignKey(
                db_constraint=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="media",
                to="content.blob",
            ),
        ),
        migrations.AddConstraint(
            model_name="media",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("blob__isnull", False), ("external_url", "")),
                    models.Q(models.Q(("external_url", ""), _negated=True), ("blob__isnull", True), ("size_bytes", 0)),
                    _connector="OR",
                ),
                name="media_has_bytes_or_url",
            ),
        ),
        migrations.AddConstraint(
            model_name="media",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("external_url", ""),
                    ("external_url__iregex", "^https?://[^[:space:][:cntrl:]]+$"),
                    _connector="OR",
                ),
                name="media_url_of_the_web",
            ),
        ),
        migrations.AddConstraint(model_name="media", constraint=backed_up()),
        migrations.RunSQL(RECORDS + CALL, SPELL_OUT + FORGET_RECORDS),
        migrations.RunSQL(LOG_ANEW, migrations.RunSQL.noop),
    ]
