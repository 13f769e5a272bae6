"""Removing rows for good and unnoticed: what the rooms' erasers have in common.

An erasure writes nothing into the change log and passes the door that is closed while it runs, as a restore does: what was
erased must not be told to the backup, not even by its id.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from django.apps import apps
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.db.models import CompositePrimaryKey, Model

from engarde.common.constraints import RowSecurity
from engarde.common.scopes import tenant_scope

ERASED = "(erased)"
DROP = """
DELETE FROM {table} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {table} WHERE {column} = %s LIMIT %s FOR UPDATE))
RETURNING {key}"""


@contextmanager
def erasing_scope(tenant_id: UUID) -> Iterator[None]:
    """Run one transaction that removes a tenant's rows unnoticed.

    Raises:
        ScopeError: a scope is open already.
    """
    with tenant_scope(tenant_id):
        silence()
        yield


def silence() -> None:
    """Inside a scope, keep the change log from hearing of what the transaction does, and pass a closed door."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('engarde.restoring', 'on', true)")


def tenant_tables() -> dict[str, str]:
    """Return every table with rows of tenants, and the column that names the tenant."""
    found = {}
    for model in apps.get_models():
        secured = [one.column for one in model._meta.constraints if isinstance(one, RowSecurity)]
        columns = secured or ["tenant_id" for one in model._meta.local_fields if one.attname == "tenant_id"]
        if columns:
            found[model._meta.db_table] = columns[0]
    return found


def count_rows(*, tenant_id: UUID) -> dict[str, int]:
    """Return how many rows a tenant has, by table; tables without one are left out."""
    counts = {}
    with tenant_scope(tenant_id, one_moment=True), connection.cursor() as cursor:
        for table, column in tenant_tables().items():
            cursor.execute(f"SELECT count(*) FROM {table} WHERE {column} = %s", [tenant_id])  # noqa: S608 -- names of ours
            counts[table] = cursor.fetchone()[0]
    return {table: count for table, count in counts.items() if count}


def erase_rows(models: Sequence[type[Model]], *, tenant_id: UUID, limit: int) -> dict[str, int]:
    """In one transaction remove at most `limit` of a tenant's rows, table by table in the order that is given.

    Returns:
        Rows by table; empty once nothing is left.
    """
    removed: dict[str, int] = {}
    with erasing_scope(tenant_id):
        for model in models:
            left = limit - sum(removed.values())
            count = drop(model, tenant_id=tenant_id, limit=left) if left else 0
            if count:
                removed[model._meta.db_table] = count
    return removed


def drop(model: type[Model], *, tenant_id: UUID, limit: int, column: str = "tenant_id") -> int:
    """Inside an erasing scope, remove at most `limit` of a table's rows; return how many there were."""
    is_named = not isinstance(model._meta.pk, CompositePrimaryKey)
    key = str(model._meta.pk.column) if is_named else column
    with connection.cursor() as cursor:
        cursor.execute(DROP.format(table=model._meta.db_table, column=column, key=key), [tenant_id, limit])
        keys = [value for (value,) in cursor.fetchall()]
    if keys and is_named:
        forget_names(model, keys)
    return len(keys)


def forget_names(model: type[Model], keys: Sequence[Any]) -> None:
    """Have the admin's log tell that staff changed these rows, and when, but not what they were called."""
    entries = LogEntry.objects.filter(content_type__app_label=model._meta.app_label)
    entries = entries.filter(content_type__model=model._meta.model_name, object_id__in=[str(key) for key in keys])
    entries.update(object_repr=ERASED, change_message="")
