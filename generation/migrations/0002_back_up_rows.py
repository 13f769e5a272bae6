"""Has the change log, and so the backup, told of jobs and of items that finished."""

from typing import ClassVar

from django.db import migrations

import engarde.common.constraints


class Migration(migrations.Migration):
    """See the module."""

    dependencies: ClassVar = [
        ("common", "0002_log_row"),
        ("content", "0007_back_up_rows"),
        ("accounts", "0005_back_up_rows"),
        ("generation", "0001_initial"),
    ]

    operations: ClassVar = [
        migrations.AddConstraint(
            model_name="job",
            constraint=engarde.common.constraints.BackedUp(
                comparable="status NOT IN ('pending', 'running', 'paused')",
                entity_type="job",
                events=("INSERT", "UPDATE", "DELETE"),
                key=("id",),
                left_out=("touched_at", "not_before", "last_seq"),
                name="job_backed_up",
                noticed=("status", "max_cost_usd", "concurrency"),
                tenant="tenant_id",
                when="",
            ),
        ),
        migrations.AddConstraint(
            model_name="jobitem",
            constraint=engarde.common.constraints.BackedUp(
                comparable="status IN ('completed', 'failed', 'cancelled')",
                entity_type="job_item",
                events=("UPDATE",),
                key=("job_id", "index"),
                left_out=("lease", "lease_until", "next_attempt_at"),
                name="job_item_backed_up",
                noticed=(),
                tenant="tenant_id",
                when="NEW.status IN ('completed', 'failed', 'cancelled') AND OLD.status IS DISTINCT FROM NEW.status",
            ),
        ),
        migrations.RunSQL(
            """
            SELECT engarde_log_existing('content_generation_jobs', 'job', 'tenant_id', 'id',
                                        'touched_at,not_before,last_seq', 'true');
            SELECT engarde_log_existing('content_generation_items', 'job_item', 'tenant_id', 'job_id,index',
                                        'lease,lease_until,next_attempt_at',
                                        $$status IN ('completed', 'failed', 'cancelled')$$);
            """,
            migrations.RunSQL.noop,
        ),
    ]
