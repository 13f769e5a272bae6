"""Rows of tables that the backup keeps as they are: which ones, and putting them back."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import orjson
from django.db import connection
from django.db.models import ForeignKey, Model

from dr.archives.base import ArchiveRecord
from engarde.accounts.models import User
from engarde.common.constraints import BackedUp, backed_up_tables, columns_of

OVERWRITTEN = frozenset({"tenant", "brand", "plan", "quota"})
"""Types whose rows may be made equal to their copies: never those that say who may get in."""
LETS_IN = frozenset({"user", "membership", "api_key"})
AFTER_CONTENT = ("job", "job_item")
"""Types that point to content, or are pointed to by nothing that content needs."""
INSERT = """
INSERT INTO {table} ({columns}) SELECT {columns} FROM jsonb_populate_recordset(NULL::{table}, %s::jsonb) AS kept
WHERE {parents} ON CONFLICT DO NOTHING RETURNING {name}"""
OVERWRITE = """
UPDATE {table} AS there SET ({columns}) = ROW({values})
FROM jsonb_populate_recordset(NULL::{table}, %s::jsonb) AS kept
WHERE {same} AND ({there}) IS DISTINCT FROM ({values}) RETURNING {name}"""
MISSING = """
SELECT {name} FROM jsonb_populate_recordset(NULL::{table}, %s::jsonb) AS kept
WHERE NOT EXISTS (SELECT FROM {table} AS there WHERE {same})"""


@dataclass(slots=True)
class Put:
    """What putting rows back did.

    Attributes:
        made: entity ids of rows that were missing, or would be made.
        changed: of those that were made equal to their copies.
        refused: of those that could not be made: something with the same unique value is there, or a parent is missing.
    """

    made: list[UUID] = field(default_factory=list)
    changed: list[UUID] = field(default_factory=list)
    refused: list[UUID] = field(default_factory=list)


class Table:
    """A table of which the backup keeps the rows."""

    def __init__(self, model: type[Model], rule: BackedUp) -> None:
        self.rule, self.model = rule, model
        self.name = f'"{model._meta.db_table}"'
        self.columns = columns_of(model)
        self._key = rule.key
        self._defaults = {
            item.column: item.get_default()
            for item in model._meta.concrete_fields
            if item.column in rule.left_out and item.has_default()
        }

    @property
    def is_of_platform(self) -> bool:
        """Whether its rows belong to no tenant."""
        return not self.rule.tenant

    def entity(self, row: str) -> str:
        """Return the SQL for the id by which the backup knows a kept."""
        return f"engarde_entity_id(to_jsonb({row}), '{','.join(self._key)}')"

    def put(self, records: Sequence[ArchiveRecord], *, overwrite: bool, dry_run: bool) -> Put:
        """Inside a system scope, insert the rows that are missing, and have the others equal their copies if so asked."""
        rows = [{**self._defaults, **orjson.loads(record.facts)} for record in records]
        done = Put()
        for alike in _by_columns(rows):
            put = self._put(alike, overwrite=overwrite, dry_run=dry_run)
            done.made += put.made
            done.changed += put.changed
            done.refused += put.refused
        return done

    def _put(self, rows: Sequence[dict[str, Any]], *, overwrite: bool, dry_run: bool) -> Put:
        text = json.dumps(rows, default=str)
        missing = self._ids(MISSING, text)
        if dry_run:
            return Put(made=missing)
        there = sorted(set(self.columns) & rows[0].keys())
        made = self._ids(INSERT, text, columns=_quoted(there), parents=self._parents_exist())
        changed = self._overwrite(text, there) if overwrite else []
        return Put(made, changed, sorted(set(missing) - set(made)))

    def _overwrite(self, text: str, columns: Sequence[str]) -> list[UUID]:
        kept = [one for one in columns if one not in self.rule.left_out and one not in self._key]
        values, there = (", ".join(f'{side}."{one}"' for one in kept) for side in ("kept", "there"))
        return self._ids(OVERWRITE, text, columns=_quoted(kept), values=values, there=there)

    def _ids(self, statement: str, text: str, **parts: str) -> list[UUID]:
        same = " AND ".join(f'there."{one}" = kept."{one}"' for one in self._key)
        named = "there" if statement is OVERWRITE else self.name if statement is INSERT else "kept"
        with connection.cursor() as cursor:
            cursor.execute(statement.format(table=self.name, same=same, name=self.entity(named), **parts), [text])
            return [entity_id for (entity_id,) in cursor.fetchall()]

    def _parents_exist(self) -> str:
        """Return the condition that every row that a row points to is there: one that is missing must not stop the others."""
        conditions = [
            f'(kept."{item.column}" IS NULL OR EXISTS (SELECT FROM "{item.related_model._meta.db_table}" AS parent '
            f'WHERE parent."{item.target_field.column}" = kept."{item.column}"))'
            for item in self.model._meta.concrete_fields
            if isinstance(item, ForeignKey)
        ]
        return " AND ".join(conditions) or "true"


def _by_columns(rows: Iterable[dict[str, Any]]) -> Iterable[list[dict[str, Any]]]:
    """Return rows in groups of the same columns: those from before a column came get its default, as others have a value."""
    groups: dict[frozenset[str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(frozenset(row), []).append(row)
    return groups.values()


def _quoted(columns: Sequence[str]) -> str:
    return ", ".join(f'"{column}"' for column in columns)


def tables() -> dict[str, Table]:
    """Return the tables by entity type, in the order in which they are filled."""
    return {entity_type: Table(model, rule) for entity_type, (model, rule) in backed_up_tables().items()}


def make_room(*, records: Sequence[ArchiveRecord]) -> int:
    """Inside a system scope, remove people whose addresses come back from the backup and who are nobody's members.

    A new database has such a one: the first member of staff, whom `make up` makes. Their logins go with them.
    """
    emails = [orjson.loads(record.facts)["email"] for record in records]
    others = User.objects.filter(email__in=emails, memberships=None)
    return others.exclude(id__in=[record.entity_id for record in records]).delete()[0]
