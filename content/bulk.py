"""Bulk actions: many items in a constant number of statements, each with a result of its own; one never sinks the rest."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from content import lists, operations, queries, search, writing
from content.items import Item
from content.models import ContentItem, Status
from content.writing import Draft
from engarde.accounts import queries as account_queries
from engarde.common.converters import IdConverter
from engarde.common.problems import Invalid, NotFound, Problem
from engarde.common.scopes import tenant_scope
from quotas import charging

MAX_LABELS = 100
ID = re.compile(IdConverter.regex)


class Action(StrEnum):
    """What can be done to many items."""

    DELETE = "delete"
    RESTORE = "restore"
    PUBLISH = "publish"
    ARCHIVE = "archive"
    TAG = "tag"


STATUS_OF = {Action.PUBLISH: Status.PUBLISHED, Action.ARCHIVE: Status.ARCHIVED}


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one item: the HTTP status it would have had alone, and the problem's code if there was one."""

    id: UUID | str
    status: int = 200
    code: str | None = None

    @classmethod
    def of(cls, content_id: UUID | str, problem: Problem) -> "Result":
        """Return the result of an item that a problem stopped."""
        return cls(content_id, problem.status, problem.code)


def run(
    *, tenant_id: UUID, author_id: UUID, action: Action, ids: Sequence[str], tags: Sequence[str], now: datetime
) -> list[Result]:
    """Do something to each item; the results stand in the order of `ids`, of which one that is none is not found."""
    known = {one: UUID(one) for one in ids if ID.fullmatch(one)}
    wanted = list(dict.fromkeys(known.values()))
    if action in {Action.DELETE, Action.RESTORE}:
        done = _move(tenant_id, author_id, wanted, now, into_trash=action == Action.DELETE)
    else:
        done = _edit(tenant_id, author_id, wanted, now, _change(action, tags))
    return [done[known[one]] if one in known else Result.of(one, NotFound("content item")) for one in ids]


def _move(
    tenant_id: UUID, author_id: UUID, ids: Sequence[UUID], now: datetime, *, into_trash: bool
) -> dict[UUID, Result]:
    """Move items into the trash, or out of it as far as they fit."""
    with tenant_scope(tenant_id):
        here = queries.lock(tenant_id=tenant_id, content_ids=ids)
        results = {one: _may_move(one, here.get(one), into_trash=into_trash) for one in ids}
        items = [here[one] for one in ids if results[one].code is None]
        if not into_trash:
            sizes = [item.size_bytes for item in items]
            refused = charging.over_limit(tenant_id=tenant_id, sizes=sizes, now=now)
            results |= {items[at].id: Result(items[at].id, 403, "storage_quota_exceeded") for at in refused}
        items = sorted((item for item in items if results[item.id].code is None), key=lambda item: item.id)
        drafts = [operations.trash_draft(item, now=now, deleted_at=now if into_trash else None) for item in items]
        writing.write(tenant_id=tenant_id, author_id=author_id, drafts=drafts, columns=operations.TRASHED, now=now)
        moved = [operations.sized(item) for item in items]
        added, removed = ([], moved) if into_trash else (moved, [])
        charging.charge(tenant_id=tenant_id, now=now, added=added, removed=removed)
    return results


def _may_move(content_id: UUID, item: Item | None, *, into_trash: bool) -> Result:
    if item is None or (into_trash and item.deleted_at):
        return Result.of(content_id, NotFound("content item"))
    if not into_trash and item.deleted_at is None:
        return Result.of(content_id, operations.NotDeleted())
    return Result(content_id)


Change = Callable[[Mapping[str, Any]], dict[str, Any]]


def _change(action: Action, tags: Sequence[str]) -> Change:
    if action in STATUS_OF:
        return lambda fields: {"status": STATUS_OF[action]}
    return lambda fields: {"tags": _merged(fields["tags"], tags)}


def _merged(present: Iterable[str], added: Iterable[str]) -> list[str]:
    merged = list(present)
    merged += [tag for tag in dict.fromkeys(added) if tag not in merged]
    if len(merged) > MAX_LABELS:
        raise Invalid("tags", f"The item would have {len(merged)} tags; at most {MAX_LABELS} are allowed.")
    return merged


def _edit(tenant_id: UUID, author_id: UUID, ids: Sequence[UUID], now: datetime, change: Change) -> dict[UUID, Result]:
    """Change a field of items; those that others change meanwhile are read and changed anew."""
    done: dict[UUID, Result] = {}
    left = list(ids)
    for _ in range(operations.TRIES_UNDER_CONTENTION):
        with tenant_scope(tenant_id):
            rows = ContentItem.objects.filter(tenant_id=tenant_id, id__in=left, deleted_at=None)
            items, languages = (
                queries.as_items(rows.order_by("id")),
                account_queries.brand_languages(tenant_id=tenant_id),
            )
        found = {item.id for item in items}
        done |= {one: Result.of(one, NotFound("content item")) for one in left if one not in found}
        left = []
        for piece in lists.pieces(items):
            results, moved = _edit_piece(tenant_id, author_id, piece, languages, now, change)
            done |= results
            left += moved
        if not left:
            return done
    return done | {one: Result.of(one, operations.Contended()) for one in left}


def _edit_piece(
    tenant_id: UUID,
    author_id: UUID,
    piece: Sequence[Item],
    languages: Mapping[UUID, str],
    now: datetime,
    change: Change,
) -> tuple[dict[UUID, Result], list[UUID]]:
    """Return results, and the items that have another version by now."""
    results: dict[UUID, Result] = {}
    drafts: list[Draft] = []
    for item in queries.with_documents(tenant_id=tenant_id, items=piece):
        try:
            draft = _draft(item, languages, now, change)
        except Problem as problem:
            results[item.id] = Result.of(item.id, problem)
            continue
        results[item.id] = Result(item.id)
        drafts += [draft] if draft else []
    with operations.named_conflicts(), tenant_scope(tenant_id):
        versions = queries.lock_live(tenant_id=tenant_id, content_ids=[draft.row.id for draft in drafts])
        unmoved = [draft for draft in drafts if versions.get(draft.row.id) == draft.row.version - 1]
        writing.write(tenant_id=tenant_id, author_id=author_id, drafts=unmoved, columns=operations.CHANGED, now=now)
    moved = {draft.row.id for draft in drafts} - {draft.row.id for draft in unmoved}
    return {one: result for one, result in results.items() if one not in moved}, list(moved)


def _draft(item: Item, languages: Mapping[UUID, str], now: datetime, change: Change) -> Draft | None:
    if item.document is None:
        raise queries.DocumentUnavailable
    current = queries.as_written(item, item.document)
    fields = {**operations.EMPTY_FIELDS, **current.fields, **change(current.fields)}
    language = search.language_of(languages.get(current.brand_id, ""))
    return operations.next_draft(current, fields, language, None, now)
