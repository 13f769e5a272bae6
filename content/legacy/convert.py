"""An old row to the fields of an item, by the rules of the API.

A row that the API would refuse is refused here, with a code and a reason. With `mend` it is made fit where nothing is lost by
it: what was cut, or said otherwise, is kept whole in the metadata.
"""

import html
import mimetypes
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import UUID

import orjson
from django.conf import settings
from django.utils.dateparse import parse_datetime
from rest_framework import serializers

from content.legacy import ids
from content.legacy.source import ASSETS, ITEMS, Row
from content.media import kinds, uploads
from content.models import ContentType, FileType, Status
from content.serializers import MAX_TITLE
from engarde.common.fields import MetadataField

LIST_FIELDS = ("platforms", "tags", "hashtags", "mentions")
MAX_ENTRIES = MAX_ENTRY = 100
LONGEST_ID = 255
PARTS = ("headline_text", "ad_copy_text", "description", "cta_text")
TEXT_ASSETS = frozenset({"ad_copy", "headline", "description", "document"})
FILE_ASSETS: Mapping[str, ContentType] = {"image": ContentType.IMAGE, "video": ContentType.VIDEO}
MARKUP = re.compile(r"<[^<>]*>")
TITLE_FROM = 2000  # characters of a body in which a title is looked for
UNTITLED = "Untitled"
MOST_OF_NAME = 255


class Unusable(Exception):
    """A row that cannot be brought over.

    Attributes:
        code: stable, snake_case.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(slots=True)
class OldItem:
    """An old row as an item.

    Attributes:
        text: the body as the old tables have it, which must arrive byte for byte.
        fields: of the document; `brand_id` and `media` come later.
        file_url: where an asset's file is; empty without one.
        warnings: (code, message) of what was mended, or is to be known.
    """

    table: str
    old_id: str
    id: UUID
    old_tenant: str
    old_brand: str
    old_user: str
    text: str
    fields: dict[str, Any]
    created_at: datetime
    updated_at: datetime
    file_url: str = ""
    mime_type: str = ""
    file_name: str = ""
    warnings: list[tuple[str, str]] = field(default_factory=list)


class _Reading:
    """One row being read: what it says, what was kept of it, and what was mended."""

    def __init__(self, row: Row, *, mend: bool) -> None:
        self.row, self.mend = row, mend
        self.kept: dict[str, Any] = {}
        self.warnings: list[tuple[str, str]] = []

    def text(self, name: str) -> str:
        """Return a column's text, empty for NULL.

        Raises:
            Unusable: its bytes are no UTF-8, or it has characters that no text here may have.
        """
        value = self.row.get(name) or ""
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise Unusable("not_text", f"{name}: its bytes are not UTF-8.") from None
        return value

    def or_mended(self, code: str, message: str, mended: str) -> None:
        """Refuse the row, or note what was done instead.

        Raises:
            Unusable: nothing is to be mended.
        """
        if not self.mend:
            raise Unusable(code, message)
        self.warnings.append((code, f"{message} {mended}"))

    def warn(self, code: str, message: str) -> None:
        """Note what is to be known."""
        self.warnings.append((code, message))


def convert(table: str, row: Row, *, keep_id: bool, mend: bool, now: datetime) -> OldItem:
    """Return a row as an item.

    Args:
        keep_id: False where the other table has the same id.

    Raises:
        Unusable: the API would refuse it, and it is not to be mended, or cannot be.
    """
    reading = _Reading(row, mend=mend)
    old_id = reading.text("id")
    for name in ("id", "tenant_id", "brand_id", "user_id"):
        if len(reading.text(name)) > LONGEST_ID:
            raise Unusable("id_too_long", f"{name}: it has more than {LONGEST_ID} characters.")
    if not reading.text("tenant_id").strip():
        raise Unusable("no_tenant", "It belongs to no tenant: tenant_id is NULL.")
    fields, text = _item(reading, now) if table == ITEMS else _asset(reading)
    if len(text.encode()) > settings.CONTENT_MAX_BODY_BYTES:
        raise Unusable(
            "body_too_large", f"The body has more than the {settings.CONTENT_MAX_BODY_BYTES} bytes that one may have."
        )
    if not keep_id:
        reading.warn("id_taken", f"{ITEMS} has a row of the same id: this one gets another.")
    fields["title"] = _title(reading, fields["title"], text)
    fields["campaign_space_id"] = _space(reading)
    created_at, updated_at = _times(reading, now)
    fields["metadata"] = _metadata(fields["metadata"] | reading.kept | {"imported_from": table, "legacy_id": old_id})
    return OldItem(
        table=table,
        old_id=old_id,
        id=ids.new_id(table, old_id, keep=keep_id),
        old_tenant=reading.text("tenant_id").strip(),
        old_brand=reading.text("brand_id").strip(),
        old_user=reading.text("user_id").strip(),
        text=text,
        fields={**fields, "body": text},
        created_at=created_at,
        updated_at=updated_at,
        file_url=(reading.text("file_url") or reading.text("public_url")).strip() if table == ASSETS else "",
        mime_type=reading.text("mime_type").strip().lower() if table == ASSETS else "",
        file_name=reading.text("asset_name").strip() if table == ASSETS else "",
        warnings=reading.warnings,
    )


def _item(reading: _Reading, now: datetime) -> tuple[dict[str, Any], str]:
    known = _object(reading, "content_metadata")
    lists = {name: _list(reading, name, known.pop(name, None)) for name in LIST_FIELDS}
    status, scheduled_at = _status(reading, known, now)
    fields = {
        "title": reading.text("title"),
        "type": _choice(reading, "content_type", ContentType.values, ContentType.POST),
        "status": status,
        "scheduled_at": scheduled_at,
        **lists,
        "metadata": known,
    }
    return fields, reading.text("content_body")


def _asset(reading: _Reading) -> tuple[dict[str, Any], str]:
    kind = _choice(reading, "asset_type", [*TEXT_ASSETS, *FILE_ASSETS], "description")
    text = "\n\n".join(part for part in map(reading.text, PARTS) if part.strip())
    if not text and not (reading.text("file_url") or reading.text("public_url")).strip():
        raise Unusable("empty_asset", "It has neither text nor a file.")
    facts: dict[str, Any] = {"asset_type": kind, "external_asset_id": reading.text("external_asset_id")}
    size = reading.text("file_size_bytes").strip()
    if size.isdecimal() and len(size) <= 18:  # as many digits as fit 64 bits
        facts["file_size_bytes"] = int(size)
    fields = {
        "title": reading.text("asset_name").strip() or reading.text("headline_text"),
        "type": FILE_ASSETS.get(kind, ContentType.POST),
        "status": Status.DRAFT,
        "scheduled_at": None,
        "tags": _list(reading, "tags", _json_or_words(reading, "tags")),
        "metadata": {name: value for name, value in facts.items() if value != ""},
    }
    return fields, text


# Fields


def _title(reading: _Reading, title: str, body: str) -> str:
    if not title.strip():
        reading.or_mended("no_title", "It has no title.", "The first words of its text stand for it.")
        return _first_words(body)
    if len(title) > MAX_TITLE:
        message = f"The title has {len(title)} characters; at most {MAX_TITLE} are allowed."
        reading.or_mended("title_too_long", message, "It was cut, and is kept whole in metadata.legacy_title.")
        reading.kept["legacy_title"] = title
        return title[: MAX_TITLE - 1].rstrip() + "…"
    return title


def _first_words(body: str) -> str:
    words = html.unescape(MARKUP.sub(" ", body[:TITLE_FROM])).split()
    title = " ".join(words)[:80].strip()
    return title or UNTITLED


def _choice(reading: _Reading, column: str, choices: Sequence[str], otherwise: str) -> str:
    value = reading.text(column).strip()
    if value.lower() in choices:
        return value.lower()
    code, what = ("unknown_type", repr(value[:100])) if value else ("no_type", "NULL")
    reading.or_mended(code, f"{column}: {what} is not one of {', '.join(sorted(choices))}.", f"It became {otherwise}.")
    if value:
        reading.kept[f"legacy_{column}"] = value[:1000]
    return otherwise


def _status(reading: _Reading, metadata: dict[str, Any], now: datetime) -> tuple[str, datetime | None]:
    """Return the status, NULL being a draft, and for a scheduled one the time that the metadata say."""
    value = reading.text("status").strip().lower() or Status.DRAFT
    if value not in Status.values:
        message = f"status: {value[:100]!r} is not one of {', '.join(Status.values)}."
        reading.or_mended("unknown_status", message, "It became a draft.")
        reading.kept["legacy_status"] = value[:1000]
        return Status.DRAFT, None
    if value != Status.SCHEDULED:
        return value, None
    scheduled_at = _instant(str(metadata.get("scheduled_at") or ""))
    if scheduled_at is None or scheduled_at <= now:
        message = (
            "nothing says for when" if scheduled_at is None else "its time is past, so that it would be published now"
        )
        code = "no_time" if scheduled_at is None else "time_past"
        reading.or_mended(code, f"status: scheduled, and {message}.", "It became a draft.")
        reading.kept["legacy_status"] = value
        return Status.DRAFT, None
    metadata.pop("scheduled_at")
    return value, scheduled_at


def _space(reading: _Reading) -> UUID | None:
    old = reading.text("campaign_space_id").strip()
    return ids.new_id("campaign_spaces", old) if old else None


def _times(reading: _Reading, now: datetime) -> tuple[datetime, datetime]:
    """Return when it was made and last changed.

    Raises:
        Unusable: a time that is none.
    """
    created_at, updated_at = (_time(reading, name) for name in ("created_at", "updated_at"))
    if created_at is None:
        created_at = updated_at or now
        reading.warn("no_created_at", f"created_at is NULL: it counts as made at {created_at.isoformat()}.")
    if updated_at is not None and updated_at < created_at:
        reading.warn("updated_before_created", "updated_at is before created_at: it counts as last changed then.")
    return created_at, max(created_at, updated_at or created_at)


def _time(reading: _Reading, name: str) -> datetime | None:
    text = reading.text(name).strip()
    found = _instant(text)
    if text and found is None:
        raise Unusable("bad_time", f"{name}: {text[:50]!r} is no time that can be stored.")
    return found


def _instant(text: str) -> datetime | None:
    """Return a time, in UTC where none says otherwise; None for what is none."""
    try:
        found = parse_datetime(text)
        moment = found and (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return moment


# JSON in text columns


def _object(reading: _Reading, column: str) -> dict[str, Any]:
    text = reading.text(column)
    if not text.strip():
        return {}
    if len(text) > 2 * MetadataField.max_bytes:
        raise Unusable("bad_metadata", f"{column}: it has more than the {MetadataField.max_bytes} bytes allowed.")
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        found, problem = None, f"it is not JSON: {error}"
    else:
        problem = "it is not an object"
    if isinstance(found, dict):
        return found
    if found is None and text.strip() == "null":
        return {}
    reading.or_mended("bad_metadata", f"{column}: {problem}.", "Its text is kept in metadata.legacy_metadata.")
    reading.kept["legacy_metadata"] = text
    return {}


def _json_or_words(reading: _Reading, column: str) -> Any:
    """Return a list that is written as JSON, or as words with commas between them."""
    text = reading.text(column).strip()
    try:
        return orjson.loads(text) if text else None
    except orjson.JSONDecodeError:
        if text[0] in '[{"':
            reading.or_mended("bad_metadata", f"{column}: it is not JSON.", f"It is kept in metadata.legacy_{column}.")
            reading.kept[f"legacy_{column}"] = text
            return None
        return text


def _list(reading: _Reading, name: str, value: Any) -> list[str]:
    """Return a list of short texts; one text may have several with commas between them."""
    entries = [one.strip() for one in value.split(",") if one.strip()] if isinstance(value, str) else value
    if entries is None:
        return []
    problem = _problem_of(entries)
    if problem:
        reading.or_mended("bad_list", f"{name}: {problem}.", f"It is kept in metadata.legacy_{name}.")
        reading.kept[f"legacy_{name}"] = value
        return []
    return list(entries)


def _problem_of(entries: Any) -> str:
    if not isinstance(entries, list) or not all(isinstance(one, str) for one in entries):
        return "it is not a list of texts"
    if len(entries) > MAX_ENTRIES:
        return f"it has {len(entries)} entries; at most {MAX_ENTRIES} are allowed"
    if any(not one or len(one) > MAX_ENTRY for one in entries):
        return f"an entry has none, or more than {MAX_ENTRY} characters"
    return "an entry has a null character" if any("\0" in one for one in entries) else ""


def _metadata(value: dict[str, Any]) -> dict[str, Any]:
    try:
        checked: dict[str, Any] = CHECKED.run_validation(value)
    except serializers.ValidationError as error:
        raise Unusable("bad_metadata", f"metadata: {' '.join(map(str, error.detail))}") from error
    return checked


CHECKED: Any = MetadataField()


# Files

MIME = re.compile(r"[a-z0-9.+-]{1,60}/[a-z0-9.+-]{1,60}", re.ASCII)
UNKNOWN_MIME = "application/octet-stream"


def file_facts(item: OldItem) -> tuple[str, str, str]:
    """Return the name, MIME type and kind of a file that stays elsewhere, by what its row and its address say."""
    path = unquote(urlsplit(item.file_url).path)
    guessed = mimetypes.guess_type(path)[0] or UNKNOWN_MIME
    mime = item.mime_type if MIME.fullmatch(item.mime_type) else guessed
    kind = {ContentType.IMAGE: FileType.IMAGE, ContentType.VIDEO: FileType.VIDEO}.get(item.fields["type"])
    name = path.rpartition("/")[2] or item.file_name or str(item.id)
    return uploads.clean_name(name[-MOST_OF_NAME:]), mime, kind or kinds.file_type_of(mime)
