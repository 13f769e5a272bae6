"""The functions by which triggers of any room's tables write rows into the change log."""

from typing import ClassVar

from django.db import migrations

# Arguments: the entity's type, its tenant's column ("" for what belongs to the platform), the columns that name it, the columns
# that are not kept. It writes for the system, as a person's row changes in nobody's scope, and in UTC, so that equal rows make
# equal texts. A restore writes what the backup knows already.
LOG_ROW = r"""
CREATE FUNCTION engarde_log_row() RETURNS trigger LANGUAGE plpgsql
SET timezone = 'UTC' SET bytea_output = 'hex' AS $$
DECLARE
    before text := current_setting('engarde.system', true);
    kept jsonb := to_jsonb(CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END) - string_to_array(TG_ARGV[3], ',');
    facts text := CASE WHEN TG_OP = 'DELETE' THEN NULL ELSE kept::text END;
BEGIN
    IF current_setting('engarde.restoring', true) = 'on' THEN RETURN NULL; END IF;
    PERFORM set_config('engarde.system', 'on', true);
    INSERT INTO content_changes (xid, tenant_id, entity_type, entity_id, version, op, sha256, facts, changed_at)
    VALUES (
        pg_current_xact_id()::text::bigint,
        CASE TG_ARGV[1] WHEN '' THEN '00000000-0000-0000-0000-000000000000' ELSE (kept->>TG_ARGV[1])::uuid END,
        TG_ARGV[0], engarde_entity_id(kept, TG_ARGV[2]), 0,
        CASE TG_OP WHEN 'INSERT' THEN 'I' WHEN 'UPDATE' THEN 'U' ELSE 'P' END,
        sha256(convert_to(coalesce(facts, ''), 'UTF8')), facts, now()
    );
    PERFORM set_config('engarde.system', coalesce(before, ''), true);
    RETURN NULL;
END $$;
"""
# A row that has no UUID of its own is named by a hash of what names it.
ENTITY_ID = r"""
CREATE FUNCTION engarde_entity_id(kept jsonb, columns text) RETURNS uuid LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    name text := (SELECT string_agg(kept->>part, ':' ORDER BY place)
                  FROM string_to_table(columns, ',') WITH ORDINALITY AS parts (part, place));
BEGIN
    RETURN CASE WHEN name ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN name ELSE md5(name) END::uuid;
END $$;
"""
# What was there before its trigger was.
LOG_EXISTING = r"""
CREATE FUNCTION engarde_log_existing(rows_of regclass, entity_type text, tenant text, key text, left_out text, condition text)
RETURNS void LANGUAGE plpgsql SET timezone = 'UTC' SET bytea_output = 'hex' AS $$
BEGIN
    EXECUTE format($sql$
        INSERT INTO content_changes (xid, tenant_id, entity_type, entity_id, version, op, sha256, facts, changed_at)
        SELECT pg_current_xact_id()::text::bigint,
               CASE %L WHEN '' THEN '00000000-0000-0000-0000-000000000000' ELSE (kept->>%L)::uuid END,
               %L, engarde_entity_id(kept, %L), 0, 'I', sha256(convert_to(kept::text, 'UTF8')), kept::text, now()
        FROM %s AS source, LATERAL (SELECT to_jsonb(source) - string_to_array(%L, ',')) AS facts (kept)
        WHERE %s
    $sql$, tenant, tenant, entity_type, key, rows_of, left_out, condition);
END $$;
"""
FORGET = "DROP FUNCTION engarde_log_existing(regclass, text, text, text, text, text); DROP FUNCTION engarde_log_row(); DROP FUNCTION engarde_entity_id(jsonb, text);"


class Migration(migrations.Migration):
    """Adds the functions; the tables' own migrations add the triggers."""

    dependencies: ClassVar = [("common", "0001_initial")]
    operations: ClassVar = [migrations.RunSQL(ENTITY_ID + LOG_ROW + LOG_EXISTING, FORGET)]
