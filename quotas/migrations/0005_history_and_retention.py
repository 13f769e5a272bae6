"""Triggers: a day's last counters become its history, and a shorter retention is noted whichever way it came."""

from typing import ClassVar

from django.db import migrations

# A clock that went ahead and comes back leaves no history of days that are yet to come.
HISTORY = """
CREATE FUNCTION quotas_keep_day() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO content_quota_daily AS daily (tenant_id, date, total_items, total_bytes)
    VALUES (OLD.tenant_id, OLD.counted_on, OLD.content_items, OLD.used_bytes)
    ON CONFLICT (tenant_id, date)
    DO UPDATE SET total_items = excluded.total_items, total_bytes = excluded.total_bytes;
    RETURN NULL;
END $$;
CREATE TRIGGER quotas_day_is_over AFTER UPDATE OF counted_on ON content_quota_usage
FOR EACH ROW WHEN (NEW.counted_on > OLD.counted_on) EXECUTE FUNCTION quotas_keep_day();
"""
FORGET_HISTORY = """
DROP TRIGGER quotas_day_is_over ON content_quota_usage;
DROP FUNCTION quotas_keep_day();
"""
RETENTION = """
CREATE OR REPLACE FUNCTION quotas_note_shorter_retention() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    before integer := coalesce(
        OLD.retention_days_override, (SELECT retention_days FROM quotas_plan WHERE tier = OLD.plan_id));
    after integer := coalesce(
        NEW.retention_days_override, (SELECT retention_days FROM quotas_plan WHERE tier = NEW.plan_id));
BEGIN
    IF OLD.retention_shortened_at > now() - interval '30 days' THEN
        before := CASE WHEN OLD.earlier_retention_days IS NULL OR before IS NULL THEN NULL
                  ELSE greatest(before, OLD.earlier_retention_days) END;
    END IF;
    IF after < coalesce(before, 2147483647) THEN
        NEW.earlier_retention_days := before;
        NEW.retention_shortened_at := now();
    END IF;
    RETURN NEW;
END $$;
DROP TRIGGER quotas_plan_changed ON content_quota_usage;
CREATE TRIGGER quotas_plan_changed BEFORE UPDATE OF plan_id, retention_days_override ON content_quota_usage
FOR EACH ROW WHEN (OLD.plan_id IS DISTINCT FROM NEW.plan_id
                   OR OLD.retention_days_override IS DISTINCT FROM NEW.retention_days_override)
EXECUTE FUNCTION quotas_note_shorter_retention();

CREATE OR REPLACE FUNCTION quotas_note_shorter_plan() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    scope text := coalesce(current_setting('engarde.system', true), '');
BEGIN
    -- Whoever edits a plan, every tenant on it is meant; row security would hide them from somebody without a scope.
    PERFORM set_config('engarde.system', 'on', true);
    UPDATE content_quota_usage
    SET earlier_retention_days = CASE
            WHEN retention_shortened_at IS NULL OR retention_shortened_at <= now() - interval '30 days' THEN OLD.retention_days
            WHEN earlier_retention_days IS NULL OR OLD.retention_days IS NULL THEN NULL
            ELSE greatest(earlier_retention_days, OLD.retention_days) END,
        retention_shortened_at = now()
    WHERE plan_id = NEW.tier AND retention_days_override IS NULL;
    PERFORM set_config('engarde.system', scope, true);
    RETURN NULL;
END $$;
"""


class Migration(migrations.Migration):
    """Adds the history's trigger, and has retention know overrides."""

    dependencies: ClassVar = [("quotas", "0004_exact_and_explained")]
    operations: ClassVar = [
        migrations.RunSQL(HISTORY, FORGET_HISTORY),
        migrations.RunSQL(RETENTION, migrations.RunSQL.noop),
    ]
