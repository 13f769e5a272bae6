"""The database wrapper: Django's own, but for the schema editor."""

from typing import Any, Self

from django.db.backends.postgresql import base
from django.db.backends.postgresql.schema import DatabaseSchemaEditor


class SystemScopedSchemaEditor(DatabaseSchemaEditor):
    """Runs each migration in a system scope: with FORCE row-level security a data migration would see no rows."""

    def __enter__(self) -> Self:
        super().__enter__()
        self._set_system("on")
        return self

    def __exit__(self, exc_type: Any, exc_value: Any, traceback: Any) -> None:
        super().__exit__(exc_type, exc_value, traceback)
        if not self.atomic_migration or self.connection.in_atomic_block:
            self._set_system("")

    def _set_system(self, value: str) -> None:
        if not self.collect_sql:
            with self.connection.cursor() as cursor:
                cursor.execute("SELECT set_config('engarde.system', %s, %s)", [value, self.atomic_migration])


class DatabaseWrapper(base.DatabaseWrapper):
    """PostgreSQL through psycopg 3."""

    SchemaEditorClass = SystemScopedSchemaEditor
