"""Writes: each is one PostgreSQL transaction that holds the metadata, the version, the document, the log and the quota."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError
from uuid_utils.compat import uuid7

from content import documents, queries, search, writing
from content.diffs import changed_fields
from content.documents import FoundDocument
from content.etags import ANY, Match
from content.items import Item
from content.models import ChangeType, ContentItem, Status
from content.writing import Draft
from engarde.accounts import queries as account_queries
from engarde.common.problems import Invalid, NotFound, Problem, TooLarge
from engarde.common.scopes import tenant_scope
from quotas import charging
from quotas.usage import Sized, Usage

TRIES_UNDER_CONTENTION = 10

EMPTY_FIELDS: Mapping[str, Any] = {
    "title": "",
    "body": "",
    "type": "post",
    "status": Status.DRAFT,
    "brand_id": None,
    "campaign_space_id": None,
    "platforms": [],
    "tags": [],
    "hashtags": [],
    "mentions": [],
    "media": [],
    "scheduled_at": None,
    "metadata": {},
    "ai_generation": None,
}
TRASHED = ("version", "updated_at", "deleted_at")
CHANGED = (
    "version",
    "updated_at",
    "brand_id",
    "campaign_space_id",
    "title",
    "content_type",
    "status",
    "size_bytes",
    "sha256",
    "scheduled_at",
)

Fields = Mapping[str, Any]
Changes = Fields | Callable[[Fields], Fields]


class Contended(Problem):
    """Others changed the item each time this change was about to be written."""

    status, code, title = 409, "edit_conflict", "Edit conflict"

    def __init__(self) -> None:
        super().__init__("The item is being changed by others; read it and try again.")


class ContentExists(Problem):
    """The id that was asked for is taken: by an item in the trash, or one that was made just now."""

    status, code, title = 409, "content_exists", "Content exists"


class NotDeleted(Problem):
    """The item is not in the trash."""

    status, code, title = 409, "not_deleted", "Not deleted"

    def __init__(self) -> None:
        super().__init__("The item is not in the trash, so there is nothing to restore.")


class PreconditionFailed(Problem):
    """The item is not any more what the caller's If-Match names."""

    status, code, title = 412, "precondition_failed", "Item changed meanwhile"


class _MovedOn(Exception):
    """The item has another version than the one that was read; the transaction must not commit."""


@dataclass(frozen=True, slots=True)
class Written:
    """What a write leaves behind.

    Attributes:
        usage: the tenant's usage after it; None when nothing was written.
    """

    item: Item
    usage: Usage | None


@dataclass(frozen=True, slots=True)
class Origin:
    """Who made an item elsewhere, and when: what an import keeps."""

    author_id: UUID | None
    created_at: datetime
    updated_at: datetime


def create_content(
    *,
    tenant_id: UUID,
    author_id: UUID | None,
    fields: Fields,
    now: datetime,
    content_id: UUID | None = None,
    last: Callable[[Item], None] | None = None,
    reservation_id: UUID | None = None,
    generated: bool = False,
) -> Written:
    """Create an item.

    Args:
        fields: the document's fields; the missing ones are empty.
        content_id: the id to give it, for imports that know it.
        last: called inside the transaction once all is written, before the quota is charged.
        reservation_id: a reservation of the quota to pay from, as far as it reaches.
        generated: whether it counts as one of the month's generated items.

    Raises:
        Invalid: the brand or a media file is not the tenant's, or a scheduled item has no time.
        TooLarge: the body is over CONTENT_MAX_BODY_BYTES.
        StorageQuotaExceeded, GenerationQuotaExceeded: it does not fit; nothing is stored.
        ContentExists: `content_id` is taken.
    """
    with named_conflicts(), tenant_scope(tenant_id):
        [item] = write_new(
            tenant_id=tenant_id, author_id=author_id, contents=[fields], now=now, ids=[content_id or uuid7()]
        )
        if last:
            last(item)
        usage = charging.charge(
            tenant_id=tenant_id,
            now=now,
            added=[sized(item)],
            reservation_id=reservation_id,
            generated=int(generated),
        )
    return Written(item, usage)


def write_new(
    *,
    tenant_id: UUID,
    author_id: UUID | None,
    contents: Sequence[Fields],
    now: datetime,
    ids: Sequence[UUID],
    origins: Sequence[Origin] = (),
) -> list[Item]:
    """Inside the tenant's scope, write new items in a constant number of statements.

    The caller charges the quota for them, last in its transaction, and names conflicts (`named_conflicts`).

    Args:
        contents: each document's fields; the missing ones are empty.
        ids: one for each of them.
        origins: one for each of them; by default the author makes them now.

    Raises:
        Invalid: a brand or a media file is not the tenant's, or a scheduled item has no time.
        TooLarge: a body is over CONTENT_MAX_BODY_BYTES.
    """
    brands: dict[Any, tuple[UUID, str]] = {}
    drafts = []
    origins = origins or [Origin(author_id, now, now)] * len(ids)
    for content_id, fields, origin in zip(ids, contents, origins, strict=True):
        document_fields = {**EMPTY_FIELDS, **fields}
        check_fields(document_fields)
        wanted = fields.get("brand_id")
        if wanted not in brands:
            brands[wanted] = brand_of(tenant_id, wanted)
        document_fields["brand_id"], language = brands[wanted]
        text, sha256 = documents.encode(document_fields)
        row = ContentItem(
            id=content_id,
            tenant_id=tenant_id,
            author_id=origin.author_id,
            version=1,
            created_at=origin.created_at,
            updated_at=origin.updated_at,
            **writing.columns_of(document_fields, sha256),
        )
        document = FoundDocument(text, "spool")
        changed = tuple(document_fields)
        drafts.append(Draft(row, ChangeType.CREATE, None, document, language, changed, author_id=origin.author_id))
    return writing.write(tenant_id=tenant_id, author_id=author_id, drafts=drafts, columns=(), now=now)


def update_content(
    *,
    tenant_id: UUID,
    author_id: UUID | None,
    content_id: UUID,
    changes: Changes,
    now: datetime,
    match: Match = ANY,
    first: Callable[[], None] | None = None,
    last: Callable[[Item], None] | None = None,
) -> Written:
    """Change fields of an item; a change that changes nothing keeps the version.

    The document is read outside any transaction; if the item moved on meanwhile, the change is applied anew.

    Args:
        changes: the fields to change, or a function that returns them from the current ones.
        match: the caller's If-Match.
        first: called inside the transaction before anything is written.
        last: called inside the transaction once all is written, before the quota is charged.

    Raises:
        NotFound: the tenant has no such live item.
        PreconditionFailed: the item is not what `match` names.
        Invalid, TooLarge, StorageQuotaExceeded: as for `create_content`.
        DocumentUnavailable: the current document cannot be read now.
        Contended: others were faster every time.
    """
    for _ in range(TRIES_UNDER_CONTENTION):
        current = queries.get_item(tenant_id=tenant_id, content_id=content_id)
        require_match(current, match)
        wanted = changes(current.fields) if callable(changes) else changes
        fields = {**EMPTY_FIELDS, **current.fields, **wanted}
        try:
            return _write_update(current, fields, author_id, now, first=first, last=last)
        except _MovedOn:
            continue
    raise Contended


def _write_update(
    current: Item,
    fields: dict[str, Any],
    author_id: UUID | None,
    now: datetime,
    *,
    change_type: str | None = None,
    first: Callable[[], None] | None = None,
    last: Callable[[Item], None] | None = None,
) -> Written:
    """Write the next version.

    Args:
        change_type: what to call it, also when nothing changes; None to keep the version then.

    Raises:
        _MovedOn: the item has another version than `current`.
    """
    check_fields(fields)
    tenant_id = current.tenant_id
    with named_conflicts(), tenant_scope(tenant_id):
        if first:
            first()
        fields["brand_id"], language = brand_of(tenant_id, fields["brand_id"])
        draft = next_draft(current, fields, language, change_type, now)
        if draft is None:
            return Written(current, None)
        if queries.lock_live(tenant_id=tenant_id, content_ids=[current.id]) != {current.id: current.version}:
            raise _MovedOn
        [item] = writing.write(tenant_id=tenant_id, author_id=author_id, drafts=[draft], columns=CHANGED, now=now)
        if last:
            last(item)
        usage = charging.charge(tenant_id=tenant_id, now=now, added=[sized(item)], removed=[sized(current)])
    return Written(item, usage)


def next_draft(current: Item, fields: Fields, language: str, change_type: str | None, now: datetime) -> Draft | None:
    """Return the version after `current` with these fields; None when nothing changes and no change type asks for it."""
    text, sha256 = documents.encode(dict(fields))
    if change_type is None and current.document and text == current.document.text:
        return None
    row = ContentItem(
        id=current.id,
        tenant_id=current.tenant_id,
        version=current.version + 1,
        created_at=current.created_at,
        updated_at=now,
        **writing.columns_of(fields, sha256),
    )
    kind = change_type or _change_type(current.status, row.status)
    document = FoundDocument(text, "spool")
    return Draft(row, kind, current, document, language, changed_fields(current.fields, document.fields))


def delete_content(*, tenant_id: UUID, author_id: UUID, content_id: UUID, now: datetime, match: Match = ANY) -> Written:
    """Move an item to the trash; its bytes are free at once.

    Raises:
        NotFound: the tenant has no such live item.
        PreconditionFailed: the item is not what `match` names.
    """
    with tenant_scope(tenant_id):
        current = queries.lock(tenant_id=tenant_id, content_ids=[content_id]).get(content_id)
        if current is None or current.deleted_at:
            raise NotFound("content item")
        _require_match_in_scope(current, match)
        draft = trash_draft(current, now=now, deleted_at=now)
        [item] = writing.write(tenant_id=tenant_id, author_id=author_id, drafts=[draft], columns=TRASHED, now=now)
        usage = charging.charge(tenant_id=tenant_id, now=now, removed=[sized(current)])
    return Written(item, usage)


def undelete_content(*, tenant_id: UUID, author_id: UUID, content_id: UUID, now: datetime) -> Written:
    """Take an item out of the trash. Where no tier can give its document now, it comes back without one in the answer.

    Raises:
        NotFound: the tenant has no such item.
        NotDeleted: it is not in the trash.
        StorageQuotaExceeded: it does not fit any more.
    """
    try:
        written = _undelete(tenant_id, author_id, content_id, now)
    except charging.StorageQuotaExceeded as refused:
        # Inside the transaction the item was out of the trash already, so it was missing from what can be freed.
        charging.require_room(tenant_id=tenant_id, size_bytes=refused.extra["requested_bytes"], now=now)
        raise
    [item] = queries.with_documents(tenant_id=tenant_id, items=[written.item])
    return Written(item, written.usage)


def _undelete(tenant_id: UUID, author_id: UUID, content_id: UUID, now: datetime) -> Written:
    with tenant_scope(tenant_id):
        current = queries.lock(tenant_id=tenant_id, content_ids=[content_id]).get(content_id)
        if current is None:
            raise NotFound("content item")
        if current.deleted_at is None:
            raise NotDeleted
        draft = trash_draft(current, now=now, deleted_at=None)
        [item] = writing.write(tenant_id=tenant_id, author_id=author_id, drafts=[draft], columns=TRASHED, now=now)
        usage = charging.charge(tenant_id=tenant_id, now=now, added=[sized(item)])
    return Written(item, usage)


def trash_draft(current: Item, *, now: datetime, deleted_at: datetime | None) -> Draft:
    """Return the version that moves an item into the trash, or out of it with no `deleted_at`."""
    row = ContentItem(
        id=current.id,
        tenant_id=current.tenant_id,
        brand_id=current.brand_id,
        campaign_space_id=current.campaign_space_id,
        title=current.title,
        content_type=current.content_type,
        status=current.status,
        version=current.version + 1,
        size_bytes=current.size_bytes,
        sha256=current.sha256,
        scheduled_at=current.scheduled_at,
        created_at=current.created_at,
        updated_at=now,
        deleted_at=deleted_at,
    )
    return Draft(row, ChangeType.DELETE if deleted_at else ChangeType.RESTORE, current)


def restore_version(
    *, tenant_id: UUID, author_id: UUID, content_id: UUID, version: int, now: datetime, match: Match = ANY
) -> Written:
    """Make an old version the newest again, as a version of its own. The document of the current one is not needed.

    Media files that were deleted since are left out. A brand that was deleted since stays the current one.

    Raises:
        NotFound: the tenant has no such live item, or it has no such version.
        PreconditionFailed: the item is not what `match` names.
        StorageQuotaExceeded: it does not fit.
        DocumentUnavailable: the old version's document cannot be read now.
        Contended: others were faster every time.
    """
    for _ in range(TRIES_UNDER_CONTENTION):
        current = queries.find_item(tenant_id=tenant_id, content_id=content_id)
        require_match(current, match)
        old = queries.get_item(tenant_id=tenant_id, content_id=content_id, version=version)
        fields = _restorable(current, {**EMPTY_FIELDS, **old.fields})
        try:
            return _write_update(current, fields, author_id, now, change_type=ChangeType.RESTORE)
        except _MovedOn:
            continue
    raise Contended


def _restorable(current: Item, fields: dict[str, Any]) -> dict[str, Any]:
    with tenant_scope(current.tenant_id):
        media = writing.existing_media(
            tenant_id=current.tenant_id, media_ids={UUID(str(one)) for one in fields["media"]}
        )
        brands = account_queries.brand_languages(tenant_id=current.tenant_id)
    if UUID(str(fields["brand_id"])) not in brands:
        fields["brand_id"] = current.brand_id
    fields["media"] = [one for one in fields["media"] if UUID(str(one)) in media]
    return fields


def publish_due(*, tenant_id: UUID, content_id: UUID, now: datetime) -> bool:
    """Publish an item whose time has come; False when somebody changed it meanwhile.

    Raises:
        NotFound, DocumentUnavailable: it is gone, or cannot be read now; the next sweep tries again.
    """
    current = queries.get_item(tenant_id=tenant_id, content_id=content_id)
    if current.status != Status.SCHEDULED or current.scheduled_at is None or current.scheduled_at > now:
        return False
    try:
        _write_update(current, {**current.fields, "status": Status.PUBLISHED}, None, now)
    except _MovedOn:
        return False
    return True


def require_match(current: Item, match: Match) -> None:
    """Check a caller's If-Match.

    Raises:
        PreconditionFailed: the item is another version now.
    """
    if not match.allows(current.etag):
        with tenant_scope(current.tenant_id):
            _require_match_in_scope(current, match)


def _require_match_in_scope(current: Item, match: Match) -> None:
    if match.allows(current.etag):
        return
    known = match.versions_of(current.id)
    raise PreconditionFailed(
        f"The item is at version {current.version} now. Read it, apply your change to that, and send its ETag.",
        headers={"ETag": current.etag},
        current_version=current.version,
        current_etag=current.etag,
        changed_fields=queries.changed_since(content_id=current.id, version=known[-1]) if known else None,
    )


@contextmanager
def named_conflicts() -> Iterator[None]:
    """Name what the database refuses because somebody else was faster."""
    try:
        yield
    except IntegrityError as error:
        constraint = getattr(getattr(error.__cause__, "diag", None), "constraint_name", "")
        if constraint == "content_storage_metadata_pkey":
            raise ContentExists("There is an item with this id already, perhaps in the trash.") from error
        if constraint == "content_brand_of_tenant":
            raise Invalid("brand_id", "The brand was deleted just now.", "unknown_brand") from error
        if constraint == "media_use_of_tenants_media":
            raise Invalid("media", "A media file was deleted just now.", "unknown_media") from error
        raise


def check_fields(fields: Fields) -> None:
    """Check what a field's own shape does not show.

    Raises:
        Invalid: a scheduled item has no time.
        TooLarge: the body is over CONTENT_MAX_BODY_BYTES.
    """
    if fields["status"] == Status.SCHEDULED and not fields["scheduled_at"]:
        raise Invalid("scheduled_at", "A scheduled item needs the time to publish it.", "required")
    size = len(fields["body"].encode())
    if size > settings.CONTENT_MAX_BODY_BYTES:
        raise TooLarge(f"The body has {size} bytes; at most {settings.CONTENT_MAX_BODY_BYTES} are allowed.")


def brand_of(tenant_id: UUID, brand_id: Any) -> tuple[UUID, str]:
    """Inside the tenant's scope, return a brand, or the first one without an id, and its language for searches.

    Raises:
        Invalid: the tenant has no such brand.
    """
    wanted = UUID(str(brand_id)) if brand_id else None
    brand = account_queries.brand_for_content(tenant_id=tenant_id, brand_id=wanted)
    if brand is None:
        message = "The tenant has no such brand." if wanted else "The tenant has no brand; create one first."
        raise Invalid("brand_id", message, "unknown_brand")
    return brand[0], search.language_of(brand[1])


def sized(item: Item | ContentItem) -> Sized:
    """Return what the quota counts of an item."""
    return item.content_type, item.size_bytes


def _change_type(before: str, after: str) -> str:
    if before != after and after == Status.PUBLISHED:
        return ChangeType.PUBLISH
    if before != after and after == Status.ARCHIVED:
        return ChangeType.ARCHIVE
    return ChangeType.UPDATE
