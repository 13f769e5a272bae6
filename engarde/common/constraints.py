"""Constraints of tenant-owned tables, declared in `Meta.constraints` so that migrations carry them."""

from collections.abc import Sequence
from typing import Any

from django.apps import apps
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.models import BaseConstraint, Model

POLICY = """
ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
ALTER TABLE {table} FORCE ROW LEVEL SECURITY;
CREATE POLICY {name} ON {table} USING (
    {column} = (SELECT nullif(current_setting('engarde.tenant_id', true), '')::uuid)
    OR (SELECT current_setting('engarde.system', true) = 'on')
)"""
DROP_POLICY = """
DROP POLICY {name} ON {table};
ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY;
ALTER TABLE {table} DISABLE ROW LEVEL SECURITY"""
FOREIGN_KEY = """
ALTER TABLE {table} ADD CONSTRAINT {name} FOREIGN KEY (tenant_id, {column})
REFERENCES {target} (tenant_id, id) DEFERRABLE INITIALLY DEFERRED"""


class SQLConstraint(BaseConstraint):
    """A constraint that is made of plain statements once its table is there."""

    def constraint_sql(self, model: type[Model], schema_editor: BaseDatabaseSchemaEditor) -> None:  # type: ignore[override]
        """Have the statements run at the end of the migration that makes the table."""
        schema_editor.deferred_sql.append(self.create_sql(model, schema_editor))

    def create_sql(self, model: type[Model], schema_editor: BaseDatabaseSchemaEditor) -> str:  # type: ignore[override]
        """Return the statements that make the constraint."""
        raise NotImplementedError

    def remove_sql(self, model: type[Model], schema_editor: BaseDatabaseSchemaEditor) -> str:  # type: ignore[override]
        """Return the statements that drop the constraint."""
        name, table = schema_editor.quote_name(self.name), schema_editor.quote_name(model._meta.db_table)
        return f"ALTER TABLE {table} DROP CONSTRAINT {name}"

    def validate(self, *args: Any, **kwargs: Any) -> None:
        """Leave checking to the database, which alone knows the transaction's scope."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SQLConstraint) and self.deconstruct() == other.deconstruct()

    def __hash__(self) -> int:
        return hash(self.name)


class RowSecurity(SQLConstraint):
    """Row-level security, forced on the owner too: rows of the transaction's tenant, or all for the system.

    Settings are read with `nullif(…, '')` because an unset one is an empty string on a reused connection, and in
    sub-selects so that they are read once a query and not once a row.
    """

    def __init__(self, *, name: str, column: str = "tenant_id") -> None:
        super().__init__(name=name)
        self.column = column

    def deconstruct(self) -> tuple[str, Sequence[Any], dict[str, Any]]:
        """Return what a migration writes."""
        path, args, kwargs = super().deconstruct()
        return path, args, {**kwargs, "column": self.column}

    def create_sql(self, model: type[Model], schema_editor: BaseDatabaseSchemaEditor) -> str:  # type: ignore[override]
        """Return the statements that switch row security on."""
        return POLICY.format(
            table=schema_editor.quote_name(model._meta.db_table),
            name=schema_editor.quote_name(self.name),
            column=schema_editor.quote_name(self.column),
        )

    def remove_sql(self, model: type[Model], schema_editor: BaseDatabaseSchemaEditor) -> str:  # type: ignore[override]
        """Return the statements that switch row security off."""
        return DROP_POLICY.format(
            table=schema_editor.quote_name(model._meta.db_table), name=schema_editor.quote_name(self.name)
        )


class TenantForeignKey(SQLConstraint):
    """A foreign key on (tenant_id, column): a plain one would let a tenant attach another tenant's row by its id.

    Foreign-key checks ignore row security. The model's own ForeignKey field says `db_constraint=False`, and the target
    has a unique constraint on (tenant, id).
    """

    def __init__(self, *, name: str, column: str, to: str) -> None:
        super().__init__(name=name)
        self.column = column
        self.to = to

    def deconstruct(self) -> tuple[str, Sequence[Any], dict[str, Any]]:
        """Return what a migration writes."""
        path, args, kwargs = super().deconstruct()
        return path, args, {**kwargs, "column": self.column, "to": self.to}

    def create_sql(self, model: type[Model], schema_editor: BaseDatabaseSchemaEditor) -> str:  # type: ignore[override]
        """Return the statement that makes the foreign key."""
        target = apps.get_model(self.to)
        return FOREIGN_KEY.format(
            table=schema_editor.quote_name(model._meta.db_table),
            name=schema_editor.quote_name(self.name),
            column=schema_editor.quote_name(self.column),
            target=schema_editor.quote_name(target._meta.db_table),
        )
