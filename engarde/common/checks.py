"""System checks: what would make a promise of the platform untrue."""

from collections.abc import Sequence
from typing import Any

from django.apps import apps
from django.core.checks import CheckMessage, Error, Tags, register
from django.db import DEFAULT_DB_ALIAS, connection

from engarde.common.constraints import RowSecurity


@register(Tags.models)
def check_row_security(**_: Any) -> list[CheckMessage]:
    """Every table with a tenant has row-level security, or its model says why not in `without_row_security`."""
    return [
        Error(f"{model._meta.label} has a tenant but no RowSecurity constraint.", obj=model, id="engarde.E001")
        for model in apps.get_models()
        if not getattr(model, "without_row_security", "")
        and any(field.attname == "tenant_id" for field in model._meta.local_fields)
        and not any(isinstance(constraint, RowSecurity) for constraint in model._meta.constraints)
    ]


@register(Tags.database)
def check_database_role(*, databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """The database user cannot pass row-level security by."""
    if DEFAULT_DB_ALIAS not in (databases or ()):
        return []
    with connection.cursor() as cursor:
        cursor.execute("SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user")
        passes_by = cursor.fetchone()[0]
    message = "The database user is a superuser or has BYPASSRLS, so tenants are not kept apart."
    return (
        [Error(message, hint="Connect as an ordinary owner of the database.", id="engarde.E002")] if passes_by else []
    )
