"""System checks: what would make a promise of the platform untrue."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, register
from django.core.checks import Warning as Doubt
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


@register(Tags.security, deploy=True)
def check_production(**_: Any) -> list[CheckMessage]:
    """What works without, and should not be left so in production."""
    found: list[CheckMessage] = []
    if not settings.ENCRYPTION_KEYS:
        why = "Stored secrets (provider keys, webhook secrets) are encrypted under a key derived from SECRET_KEY."
        hint = "Set ENCRYPTION_KEYS, so that SECRET_KEY can be replaced without losing them."
        found.append(Doubt(why, hint=hint, id="engarde.W001"))
    if urlsplit(settings.PUBLIC_URL).hostname in ("127.0.0.1", "localhost"):
        why = "PUBLIC_URL names this machine, so links in mails lead nowhere."
        found.append(Doubt(why, hint="Set PUBLIC_URL, such as https://content.example.com.", id="engarde.W002"))
    if not settings.METRICS_TOKEN:
        why = "METRICS_TOKEN is empty, so /metrics tells whoever reaches it what the platform counts."
        found.append(Doubt(why, hint="Set METRICS_TOKEN, and give it to Prometheus.", id="engarde.W003"))
    return found
