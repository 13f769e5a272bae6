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

LOG_ROWS = """
CREATE TRIGGER {name} AFTER {event} ON {table} FOR EACH ROW {when}
EXECUTE FUNCTION engarde_log_row({arguments})"""


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


class BackedUp(SQLConstraint):
    """A trigger that writes each change of the table's rows into the change log, so that the backup has them.

    What tables there are, the backup learns from these constraints; a room need not know of it.

    Args:
        entity_type: what the rows are called in the backup.
        tenant: the column with the tenant; empty for what belongs to the platform.
        key: the columns that name a row.
        left_out: columns that are not kept, such as counters.
        noticed: the columns of which a change is logged; empty for all that are kept.
        when: an SQL condition on NEW (and OLD) for updates to be logged.
        events: what is logged at all.
        comparable: an SQL condition under which a row has to equal its copy; empty for always.
    """

    def __init__(
        self,
        *,
        name: str,
        entity_type: str,
        tenant: str = "tenant_id",
        key: Sequence[str] = ("id",),
        left_out: Sequence[str] = (),
        noticed: Sequence[str] = (),
        when: str = "",
        events: Sequence[str] = ("INSERT", "UPDATE", "DELETE"),
        comparable: str = "",
    ) -> None:
        super().__init__(name=name)
        self.entity_type = entity_type
        self.tenant = tenant
        self.key = tuple(key)
        self.left_out = tuple(left_out)
        self.noticed = tuple(noticed)
        self.when = when
        self.events = tuple(events)
        self.comparable = comparable

    def deconstruct(self) -> tuple[str, Sequence[Any], dict[str, Any]]:
        """Return what a migration writes."""
        path, args, kwargs = super().deconstruct()
        given = {name: getattr(self, name) for name in ("entity_type", "tenant", "key", "left_out", "noticed")}
        given |= {name: getattr(self, name) for name in ("when", "events", "comparable")}
        return path, args, {**kwargs, **given}

    def create_sql(self, model: type[Model], schema_editor: BaseDatabaseSchemaEditor) -> str:  # type: ignore[override]
        """Return the statements that make the triggers: one for updates, which has a condition, one for the rest."""
        others = [event for event in self.events if event != "UPDATE"]
        made = [self._trigger(model, schema_editor, "rows", " OR ".join(others), "")] if others else []
        if "UPDATE" in self.events:
            made.append(self._trigger(model, schema_editor, "update", "UPDATE", f"WHEN ({self._condition(model)})"))
        return ";".join(made)

    def remove_sql(self, model: type[Model], schema_editor: BaseDatabaseSchemaEditor) -> str:  # type: ignore[override]
        """Return the statements that drop the triggers."""
        table = schema_editor.quote_name(model._meta.db_table)
        return ";".join(f"DROP TRIGGER IF EXISTS {self.name}_{part} ON {table}" for part in ("rows", "update"))

    def _trigger(
        self, model: type[Model], schema_editor: BaseDatabaseSchemaEditor, part: str, event: str, when: str
    ) -> str:
        arguments = (self.entity_type, self.tenant, ",".join(self.key), ",".join(self.left_out))
        return LOG_ROWS.format(
            name=f"{self.name}_{part}",
            event=event,
            table=schema_editor.quote_name(model._meta.db_table),
            when=when,
            arguments=", ".join(f"'{argument}'" for argument in arguments),
        )

    def _condition(self, model: type[Model]) -> str:
        if self.when:
            return self.when
        columns = self.noticed or [column for column in columns_of(model) if column not in self.left_out]
        return " OR ".join(f'OLD."{column}" IS DISTINCT FROM NEW."{column}"' for column in columns)


def columns_of(model: type[Model]) -> list[str]:
    """Return the names of a model's columns, in the order of its fields."""
    return [field.column for field in model._meta.concrete_fields if field.column]


def backed_up_tables() -> dict[str, tuple[type[Model], BackedUp]]:
    """Return the tables that the backup keeps row by row, by entity type, in the order in which a restore fills them."""
    found = {}
    for model in apps.get_models():
        for constraint in model._meta.constraints:
            if isinstance(constraint, BackedUp):
                found[constraint.entity_type] = (model, constraint)
    return found
