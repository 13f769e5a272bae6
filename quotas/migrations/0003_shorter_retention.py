"""A change to a shorter retention is noted by a trigger, so that none takes effect at once by accident."""

from typing import ClassVar

from django.db import migrations, models

NOTE = """
CREATE FUNCTION quotas_note_shorter_retention() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    before integer := (SELECT retention_days FROM quotas_plan WHERE tier = OLD.plan_id);
    after integer := (SELECT retention_days FROM quotas_plan WHERE tier = NEW.plan_id);
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
CREATE TRIGGER quotas_plan_changed BEFORE UPDATE OF plan_id ON content_quota_usage
FOR EACH ROW WHEN (OLD.plan_id IS DISTINCT FROM NEW.plan_id) EXECUTE FUNCTION quotas_note_shorter_retention();

CREATE FUNCTION quotas_note_shorter_plan() RETURNS trigger LANGUAGE plpgsql AS $$
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
    WHERE plan_id = NEW.tier;
    PERFORM set_config('engarde.system', scope, true);
    RETURN NULL;
END $$;
CREATE TRIGGER quotas_plan_shortened AFTER UPDATE OF retention_days ON quotas_plan
FOR EACH ROW WHEN (NEW.retention_days < coalesce(OLD.retention_days, 2147483647))
EXECUTE FUNCTION quotas_note_shorter_plan();
"""
FORGET = """
DROP TRIGGER quotas_plan_shortened ON quotas_plan;
DROP FUNCTION quotas_note_shorter_plan();
DROP TRIGGER quotas_plan_changed ON content_quota_usage;
DROP FUNCTION quotas_note_shorter_retention();
"""


class Migration(migrations.Migration):
    """Adds the two columns and the triggers."""

    dependencies: ClassVar = [("quotas", "0002_plans")]
    operations: ClassVar = [
        migrations.AddField(
            "quotausage",
            "earlier_retention_days",
            models.PositiveIntegerField(
                blank=True, null=True, help_text="Before the last change to a shorter one; holds for 30 days more."
            ),
        ),
        migrations.AddField(
            "quotausage",
            "retention_shortened_at",
            models.DateTimeField(blank=True, null=True, help_text="Set by a trigger."),
        ),
        migrations.RunSQL(NOTE, FORGET),
    ]
