"""Writes: each is one PostgreSQL transaction that holds the metadata, the version, the document, the log and the quota."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError
from uuid_utils.compat import uuid7

from content import documents, queries
from content.documents import FoundDocument
from content.items import Item
from content.models import ChangeType, ContentItem, ContentVersion, SpooledDocument, Status
from engarde.accounts import queries as account_queries
from engarde.common import wake
from engarde.common.problems import Invalid, NotFound, Problem, TooLarge
from engarde.common.scopes import tenant_scope
from quotas import operations as quota_operations
from quotas.usage import Usage

UPLOAD_TASK = "content.upload_documents"
BACKUP_TASK = "dr.sync"
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


class Contended(Problem):
    """Others changed the item each time this change was about to be written."""

    status, code, title = 409, "edit_conflict", "Edit conflict"


class ContentExists(Problem):
    """The id that was asked for is taken: by an item in the trash, or one that was made just now."""

    status, code, title = 409, "content_exists", "Content exists"


@dataclass(frozen=True, slots=True)
class Written:
    """What a write leaves behind.

    Attributes:
        usage: the tenant's usage after it; None when nothing was written.
    """

    item: Item
    usage: Usage | None


def create_content(
    *,
    tenant_id: UUID,
    author_id: UUID | None,
    fields: Mapping[str, Any],
    now: datetime,
    content_id: UUID | None = None,
) -> Written:
    """Create an item.

    Args:
        fields: the document's fields; the missing ones are empty.
        content_id: the id to give it, for imports that know it.

    Raises:
        Invalid: the brand is not the tenant's, or a scheduled item has no time.
        TooLarge: the body is over CONTENT_MAX_BODY_BYTES.
        StorageQuotaExceeded: it does not fit; nothing is stored.
        ContentExists: `content_id` is taken.
    """
    document_fields = {**EMPTY_FIELDS, **fields}
    check_fields(document_fields)
    with _named_conflicts(), tenant_scope(tenant_id):
        document_fields["brand_id"] = _brand(tenant_id, fields.get("brand_id"))
        text, sha256 = documents.encode(document_fields)
        row = ContentItem(
            id=content_id or uuid7(),
            tenant_id=tenant_id,
            author_id=author_id,
            version=1,
            created_at=now,
            updated_at=now,
            **_columns(document_fields, sha256),
        )
        row.save(force_insert=True)
        version = _insert_version(row, ChangeType.CREATE, author_id, now)
        _spool(row, text, now)
        usage = quota_operations.charge(tenant_id=tenant_id, size_bytes=row.size_bytes, items=1)
        _wake_carriers()
    return Written(queries.make_item(row, version, FoundDocument(text, "spool")), usage)


def update_content(
    *, tenant_id: UUID, author_id: UUID | None, content_id: UUID, changes: Mapping[str, Any], now: datetime
) -> Written:
    """Change fields of an item; a change that changes nothing keeps the version.

    The document is read outside any transaction; if the item moved on meanwhile, the change is applied anew.

    Raises:
        NotFound: the tenant has no such live item.
        Invalid, TooLarge, StorageQuotaExceeded: as for `create_content`.
        DocumentUnavailable: the current document cannot be read now.
        Contended: others were faster every time.
    """
    for _ in range(TRIES_UNDER_CONTENTION):
        current = queries.get_item(tenant_id=tenant_id, content_id=content_id)
        fields = {**EMPTY_FIELDS, **current.fields, **changes}
        check_fields(fields)
        written = _write_update(current, fields, author_id, now)
        if written:
            return written
    raise Contended("The item is being changed by others; read it and try again.")


def _write_update(current: Item, fields: dict[str, Any], author_id: UUID | None, now: datetime) -> Written | None:
    """Write the next version unless the item has moved on from `current`; None when it has."""
    tenant_id = current.tenant_id
    with _named_conflicts(), tenant_scope(tenant_id):
        fields["brand_id"] = _brand(tenant_id, fields["brand_id"])
        text, sha256 = documents.encode(fields)
        if current.document and text == current.document.text:
            return Written(current, None)
        columns = _columns(fields, sha256) | {"version": current.version + 1, "updated_at": now}
        row = _advance(current, columns)
        if row is None:
            return None
        version = _insert_version(row, _change_type(current.status, row.status), author_id, now)
        _spool(row, text, now)
        growth = row.size_bytes - current.size_bytes
        usage = quota_operations.charge(tenant_id=tenant_id, size_bytes=growth, items=0)
        _wake_carriers()
    return Written(queries.make_item(row, version, FoundDocument(text, "spool")), usage)


def delete_content(*, tenant_id: UUID, author_id: UUID, content_id: UUID, now: datetime) -> Written:
    """Move an item to the trash; its bytes are free at once.

    Raises:
        NotFound: the tenant has no such live item.
    """
    with tenant_scope(tenant_id):
        live = ContentItem.objects.select_for_update().filter(tenant_id=tenant_id, id=content_id, deleted_at=None)
        row = live.first()
        if row is None:
            raise NotFound("content item")
        previous = queries.version_of(row)
        row.version, row.updated_at, row.deleted_at = row.version + 1, now, now
        row.save(update_fields=["version", "updated_at", "deleted_at"])
        version = _insert_version(row, ChangeType.DELETE, author_id, now, zerodb_row_id=previous.zerodb_row_id)
        usage = quota_operations.charge(tenant_id=tenant_id, size_bytes=-row.size_bytes, items=-1)
        _wake_carriers()
    return Written(queries.make_item(row, version, None), usage)


def publish_due(*, tenant_id: UUID, content_id: UUID, now: datetime) -> bool:
    """Publish an item whose time has come; False when somebody changed it meanwhile.

    Raises:
        NotFound, DocumentUnavailable: it is gone, or cannot be read now; the next sweep tries again.
    """
    current = queries.get_item(tenant_id=tenant_id, content_id=content_id)
    if current.status != Status.SCHEDULED or current.scheduled_at is None or current.scheduled_at > now:
        return False
    return _write_update(current, {**current.fields, "status": Status.PUBLISHED}, None, now) is not None


@contextmanager
def _named_conflicts() -> Iterator[None]:
    """Name what the database refuses because somebody else was faster."""
    try:
        yield
    except IntegrityError as error:
        constraint = getattr(getattr(error.__cause__, "diag", None), "constraint_name", "")
        if constraint == "content_storage_metadata_pkey":
            raise ContentExists("There is an item with this id already, perhaps in the trash.") from error
        if constraint == "content_brand_of_tenant":
            raise Invalid("brand_id", "The brand was deleted just now.", "unknown_brand") from error
        raise


def check_fields(fields: Mapping[str, Any]) -> None:
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


def _brand(tenant_id: UUID, brand_id: Any) -> UUID:
    wanted = UUID(str(brand_id)) if brand_id else None
    brand = account_queries.brand_for_content(tenant_id=tenant_id, brand_id=wanted)
    if brand is None:
        message = "The tenant has no such brand." if wanted else "The tenant has no brand; create one first."
        raise Invalid("brand_id", message, "unknown_brand")
    return brand


def _columns(fields: Mapping[str, Any], sha256: bytes) -> dict[str, Any]:
    """Return the columns of an item that repeat what is in its document."""
    return {
        "brand_id": fields["brand_id"],
        "campaign_space_id": fields["campaign_space_id"],
        "title": fields["title"],
        "content_type": fields["type"],
        "status": fields["status"],
        "size_bytes": len(fields["body"].encode()),
        "sha256": sha256,
        "scheduled_at": fields["scheduled_at"],
    }


def _advance(current: Item, columns: dict[str, Any]) -> ContentItem | None:
    unmoved = ContentItem.objects.filter(
        tenant_id=current.tenant_id, id=current.id, version=current.version, deleted_at=None
    )
    return ContentItem.objects.get(id=current.id) if unmoved.update(**columns) else None


def _insert_version(
    row: ContentItem, change_type: str, author_id: UUID | None, now: datetime, zerodb_row_id: str | None = None
) -> ContentVersion:
    return ContentVersion.objects.create(
        tenant_id=row.tenant_id,
        content_id=row.id,
        version=row.version,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        change_type=change_type,
        changed_by=author_id,
        created_at=now,
        zerodb_row_id=zerodb_row_id,
    )


def _spool(row: ContentItem, text: str, now: datetime) -> None:
    SpooledDocument.objects.create(
        tenant_id=row.tenant_id,
        content_id=row.id,
        version=row.version,
        sha256=row.sha256,
        document=documents.compress(text),
        next_attempt_at=now,
    )


def _change_type(before: str, after: str) -> str:
    if before != after and after == Status.PUBLISHED:
        return ChangeType.PUBLISH
    if before != after and after == Status.ARCHIVED:
        return ChangeType.ARCHIVE
    return ChangeType.UPDATE


def _wake_carriers() -> None:
    wake.after_commit(UPLOAD_TASK)
    wake.after_commit(BACKUP_TASK)
