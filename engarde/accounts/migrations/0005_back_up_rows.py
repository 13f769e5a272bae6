"""Has the change log, and so the backup, told of tenants, brands, people, memberships and API keys."""

from typing import ClassVar

from django.db import migrations

import engarde.common.constraints


class Migration(migrations.Migration):
    """See the module."""

    dependencies: ClassVar = [
        ("common", "0002_log_row"),
        ("accounts", "0004_mail_details"),
        ("auth", "0012_alter_user_first_name_max_length"),
    ]

    operations: ClassVar = [
        migrations.AddConstraint(
            model_name="apikey",
            constraint=engarde.common.constraints.BackedUp(
                comparable="",
                entity_type="api_key",
                events=("INSERT", "UPDATE", "DELETE"),
                key=("id",),
                left_out=("last_used_at",),
                name="api_key_backed_up",
                noticed=(),
                tenant="tenant_id",
                when="",
            ),
        ),
        migrations.AddConstraint(
            model_name="brand",
            constraint=engarde.common.constraints.BackedUp(
                comparable="",
                entity_type="brand",
                events=("INSERT", "UPDATE", "DELETE"),
                key=("id",),
                left_out=(),
                name="brand_backed_up",
                noticed=(),
                tenant="tenant_id",
                when="",
            ),
        ),
        migrations.AddConstraint(
            model_name="membership",
            constraint=engarde.common.constraints.BackedUp(
                comparable="",
                entity_type="membership",
                events=("INSERT", "UPDATE", "DELETE"),
                key=("id",),
                left_out=(),
                name="membership_backed_up",
                noticed=(),
                tenant="tenant_id",
                when="",
            ),
        ),
        migrations.AddConstraint(
            model_name="tenant",
            constraint=engarde.common.constraints.BackedUp(
                comparable="",
                entity_type="tenant",
                events=("INSERT", "UPDATE", "DELETE"),
                key=("id",),
                left_out=(),
                name="tenant_backed_up",
                noticed=(),
                tenant="id",
                when="",
            ),
        ),
        migrations.AddConstraint(
            model_name="user",
            constraint=engarde.common.constraints.BackedUp(
                comparable="",
                entity_type="user",
                events=("INSERT", "UPDATE", "DELETE"),
                key=("id",),
                left_out=("last_login",),
                name="user_backed_up",
                noticed=(),
                tenant="",
                when="",
            ),
        ),
    ]
