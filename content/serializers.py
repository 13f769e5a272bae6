"""Shapes of requests and answers."""

from collections.abc import Container
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

from rest_framework import serializers

from content.bulk import Action, Result
from content.items import Item
from content.lists import RELEVANCE, SORTS, Listing
from content.models import ChangeType, ContentType, ContentVersion, Status
from content.preview import preview_of
from engarde.common import cursors
from engarde.common.fields import (
    MetadataField,
    QueryIntegerField,
    QuerySerializer,
    QueryTimeField,
    StrictSerializer,
    TextField,
    TextListField,
    start_of,
)
from engarde.common.paging import MAX_PAGE, PageQuery, PaginationOutput

MAX_TITLE = 300
MAX_SEARCH = 200


class ContentInput(StrictSerializer):
    """An item to create, or (in part) to change; `content_type` is another spelling of `type`."""

    title = TextField(max_length=MAX_TITLE)
    body = TextField(allow_blank=True, required=False)
    type = serializers.ChoiceField(choices=ContentType.choices, required=False)
    content_type = serializers.ChoiceField(choices=ContentType.choices, required=False, write_only=True)
    status = serializers.ChoiceField(choices=Status.choices, required=False)
    brand_id = serializers.UUIDField(required=False)
    campaign_space_id = serializers.UUIDField(required=False, allow_null=True)
    platforms = TextListField(required=False)
    tags = TextListField(required=False)
    hashtags = TextListField(required=False)
    mentions = TextListField(required=False)
    media = serializers.ListField(child=serializers.UUIDField(), max_length=100, required=False)
    scheduled_at = serializers.DateTimeField(required=False, allow_null=True)
    metadata = MetadataField(required=False)

    def to_internal_value(self, data: Any) -> Any:
        """Return the validated values.

        Raises:
            ValidationError: one error a field, a missing type included.
        """
        if isinstance(data, dict) and not self.partial and "content_type" not in data:
            self.fields["type"].required = True
        return super().to_internal_value(data)

    def validate_media(self, value: list[UUID]) -> list[str]:
        """Return ids as documents keep them."""
        return [str(one) for one in value]

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Settle the two spellings of the type."""
        other = attrs.pop("content_type", None)
        if other and attrs.setdefault("type", other) != other:
            raise serializers.ValidationError({"content_type": "It contradicts type; send one of them."})
        return attrs


class ListQuery(PageQuery):
    """Filters, sort and page of a list of items."""

    page = QueryIntegerField(min_value=1, max_value=MAX_PAGE, required=False, help_text="From 1; not with a cursor.")
    cursor = TextField(required=False, max_length=cursors.LONGEST)
    content_type = serializers.ChoiceField(choices=ContentType.choices, required=False)
    status = serializers.ChoiceField(choices=Status.choices, required=False)
    brand_id = serializers.UUIDField(required=False)
    campaign_space_id = serializers.UUIDField(required=False)
    tags = serializers.ListField(
        child=TextField(max_length=100), max_length=20, required=False, help_text="Repeatable; all of them must match."
    )
    platform = TextField(max_length=100, required=False)
    search = TextField(
        max_length=MAX_SEARCH,
        allow_blank=True,
        required=False,
        help_text="Words of title and body; the last may be begun.",
    )
    date_from = QueryTimeField(required=False, help_text="Of created_at, inclusive.")
    date_to = QueryTimeField(required=False, help_text="Of created_at, inclusive; a bare date means all of that day.")
    deleted = serializers.ChoiceField(choices=["true", "false"], required=False, help_text="true: the trash.")
    sort = serializers.ChoiceField(choices=[*SORTS, RELEVANCE], required=False)
    count = serializers.ChoiceField(choices=["exact", "estimated", "none"], required=False)
    include = serializers.ChoiceField(choices=["body"], required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuse what contradicts itself."""
        if "cursor" in attrs and "page" in attrs:
            raise serializers.ValidationError({"page": "Give a page or a cursor, not both."})
        if attrs.get("sort") == RELEVANCE and "search" not in attrs:
            raise serializers.ValidationError({"sort": "Only a search can be sorted by relevance."})
        return attrs

    @classmethod
    def listing(cls, request: Any) -> Listing:
        """Return what a request asks for.

        Raises:
            ValidationError: naming each bad parameter.
        """
        if not request.query_params:
            return Listing()  # the most frequent list of all
        query = cls.parse(request)
        until = query.get("date_to")
        return Listing(
            page=None if "cursor" in query else query.get("page", 1),
            size=query["pageSize"],
            cursor=query.get("cursor"),
            sort=query.get("sort") or (RELEVANCE if "search" in query else "-created_at"),
            count=query.get("count"),
            with_body=query.get("include") == "body",
            content_type=query.get("content_type"),
            status=query.get("status"),
            brand_id=query.get("brand_id"),
            campaign_space_id=query.get("campaign_space_id"),
            tags=tuple(query.get("tags", ())),
            platform=query.get("platform"),
            search=query.get("search"),
            since=start_of(query["date_from"]) if "date_from" in query else None,
            until=until if isinstance(until, datetime) else None,
            before=_day_after(until) if until and not isinstance(until, datetime) else None,
            deleted=query.get("deleted") == "true",
        )


def _day_after(day: date) -> datetime | None:
    """Return where a day ends; None for the last one of the calendar, after which there is nothing to leave out."""
    return None if day == date.max else start_of(day) + timedelta(days=1)


class ItemQuery(QuerySerializer):
    """`version`, for an older one."""

    version = QueryIntegerField(min_value=1, max_value=2**31 - 1, required=False)


class DiffQuery(QuerySerializer):
    """`against`, the version to start from."""

    against = QueryIntegerField(min_value=1, max_value=2**31 - 1, required=False)


class BulkInput(StrictSerializer):
    """What to do to which items."""

    action = serializers.ChoiceField(choices=[action.value for action in Action])
    ids = serializers.ListField(child=TextField(max_length=100), min_length=1, max_length=500)
    tags = TextListField(required=False, help_text="For the action tag: added to those that the items have.")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Ask for tags with the action tag, and with no other."""
        if (attrs["action"] == Action.TAG) != bool(attrs.get("tags")):
            raise serializers.ValidationError({"tags": "Tags go with the action tag, which needs at least one."})
        return attrs


class BulkResultOutput(serializers.Serializer[Any]):
    """What became of one item."""

    id = serializers.CharField()
    ok = serializers.BooleanField()
    status = serializers.IntegerField(help_text="The HTTP status that the call would have had for this item alone.")
    code = serializers.CharField(required=False)


class BulkOutput(serializers.Serializer[Any]):
    """A result for each id, in the order of the ids."""

    results = BulkResultOutput(many=True)


class VersionOutput(serializers.Serializer[Any]):
    """A version of an item."""

    version = serializers.IntegerField()
    change_type = serializers.ChoiceField(choices=ChangeType.choices)
    changed_by = serializers.UUIDField(allow_null=True, help_text="User or API key; null for the platform.")
    changed_fields = serializers.ListField(child=serializers.CharField())
    size_bytes = serializers.IntegerField()
    created_at = serializers.DateTimeField()


class VersionsOutput(serializers.Serializer[Any]):
    """An item's versions, newest first."""

    data = VersionOutput(many=True)  # type: ignore[assignment]  # the contract's name; DRF has an attribute of it


class ChangeOutput(serializers.Serializer[Any]):
    """A field that differs."""

    field = serializers.CharField()
    before = serializers.JSONField(allow_null=True)
    after = serializers.JSONField(allow_null=True)


class DiffOutput(serializers.Serializer[Any]):
    """What differs between two versions."""

    changes = ChangeOutput(many=True)
    body_diff = serializers.CharField(allow_null=True, help_text="Unified diff; null over 1 MiB or 10,000 lines.")

    def get_fields(self) -> dict[str, Any]:
        """Add `from` and `to`, the first of which is a word of Python's."""
        numbers = {"from": serializers.IntegerField(), "to": serializers.IntegerField()}
        return {**numbers, **super().get_fields()}


class StorageOutput(serializers.Serializer[Any]):
    """Where an item's document is."""

    size_bytes = serializers.IntegerField()
    tier = serializers.ChoiceField(choices=["spool", "zerodb", "backup"])
    available = serializers.BooleanField()
    zerodb_id = serializers.CharField(allow_null=True)
    bigquery_backed_up = serializers.BooleanField()
    bigquery_last_sync_at = serializers.DateTimeField(allow_null=True)


class SummaryOutput(serializers.Serializer[Any]):
    """An item in a list."""

    id = serializers.UUIDField()
    version = serializers.IntegerField()
    title = serializers.CharField()
    type = serializers.ChoiceField(choices=ContentType.choices)
    content_type = serializers.ChoiceField(choices=ContentType.choices)
    status = serializers.ChoiceField(choices=Status.choices)
    brand_id = serializers.UUIDField()
    campaign_space_id = serializers.UUIDField(allow_null=True)
    platforms = serializers.ListField(child=serializers.CharField())
    tags = serializers.ListField(child=serializers.CharField())
    hashtags = serializers.ListField(child=serializers.CharField())
    mentions = serializers.ListField(child=serializers.CharField())
    media = serializers.ListField(child=serializers.UUIDField())
    scheduled_at = serializers.DateTimeField(allow_null=True)
    metadata = serializers.DictField()
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()
    deleted_at = serializers.DateTimeField(allow_null=True)
    storage = StorageOutput()
    ai_generation = serializers.DictField(allow_null=True)
    preview = serializers.CharField(allow_null=True, help_text="The first 200 characters of the body as text.")
    body = serializers.CharField(allow_null=True, required=False, help_text="With include=body.")
    body_omitted = serializers.BooleanField(required=False, help_text="True where bodies beyond 16 MiB were left out.")


class ItemOutput(SummaryOutput):
    """An item."""

    body = serializers.CharField(
        allow_null=True, help_text="Null only after taking an item out of the trash whose document cannot be read now."
    )
    preview = None  # type: ignore[assignment]


class ContentPage(serializers.Serializer[Any]):
    """A page of items."""

    data = SummaryOutput(many=True)  # type: ignore[assignment]  # the contract's name; DRF has an attribute of it
    pagination = PaginationOutput()


class DeletedOutput(serializers.Serializer[Any]):
    """What went to the trash."""

    message = serializers.CharField()
    id = serializers.UUIDField()
    deleted_at = serializers.DateTimeField()


def show_item(item: Item) -> dict[str, Any]:
    """Return an item with its body; null where no tier can give the document now."""
    return _show(item) | {"body": item.fields.get("body")}


def show_summary(item: Item) -> dict[str, Any]:
    """Return an item for a list; without its document, `preview` is null and the lists are empty."""
    body = item.fields.get("body")
    return _show(item) | {"preview": None if body is None else preview_of(body)}


def show_listed(item: Item, listing: Listing, omitted: Container[UUID]) -> dict[str, Any]:
    """Return an item for a list, with its body where the list was asked for bodies and has room for this one."""
    shown = show_summary(item)
    if listing.with_body:
        is_omitted = item.id in omitted
        shown["body"] = None if is_omitted else item.fields.get("body")
        shown |= {"body_omitted": True} if is_omitted else {}
    return shown


def show_version(row: ContentVersion) -> dict[str, Any]:
    """Return a version for the list of versions."""
    names = ("version", "change_type", "changed_by", "changed_fields", "size_bytes", "created_at")
    return {name: getattr(row, name) for name in names}


def show_result(result: Result) -> dict[str, Any]:
    """Return what became of one item of a bulk action."""
    shown = {"id": result.id, "ok": result.code is None, "status": result.status}
    return shown if result.code is None else {**shown, "code": result.code}


def _show(item: Item) -> dict[str, Any]:
    fields = item.fields
    return {
        "id": item.id,
        "title": item.title,
        "type": item.content_type,
        "content_type": item.content_type,
        "status": item.status,
        "brand_id": item.brand_id,
        "campaign_space_id": item.campaign_space_id,
        **{name: fields.get(name, []) for name in ("platforms", "tags", "hashtags", "mentions", "media")},
        "scheduled_at": item.scheduled_at,
        "metadata": fields.get("metadata", {}),
        "version": item.version,
        "created_at": item.created_at,
        "updated_at": item.updated_at,
        "deleted_at": item.deleted_at,
        "storage": _show_storage(item),
        "ai_generation": fields.get("ai_generation"),
    }


def _show_storage(item: Item) -> dict[str, Any]:
    return {
        "size_bytes": item.size_bytes,
        "tier": item.tier,
        "available": item.document is not None,
        "zerodb_id": item.in_zerodb,
        "bigquery_backed_up": item.backed_up_at is not None,
        "bigquery_last_sync_at": item.backed_up_at,
    }
