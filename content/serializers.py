"""Shapes of requests and answers."""

from typing import Any

from rest_framework import serializers

from content.items import Item
from content.models import ContentType, Status
from content.preview import preview_of
from engarde.common.fields import MetadataField, StrictSerializer, TextField, TextListField
from engarde.common.paging import PaginationOutput

MAX_TITLE = 300


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

    def validate_media(self, value: list[Any]) -> list[Any]:
        """Refuse media that the tenant does not have."""
        if value:
            raise serializers.ValidationError("There is no such media file.", code="unknown_media")
        return value

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Settle the two spellings of the type."""
        other = attrs.pop("content_type", None)
        if other and attrs.setdefault("type", other) != other:
            raise serializers.ValidationError({"content_type": "It contradicts type; send one of them."})
        return attrs


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


class ItemOutput(SummaryOutput):
    """An item."""

    body = serializers.CharField()
    preview = None  # type: ignore[assignment]


class ContentPage(serializers.Serializer[Any]):
    """A page of items."""

    data = SummaryOutput(many=True)  # type: ignore[assignment]
    pagination = PaginationOutput()


class DeletedOutput(serializers.Serializer[Any]):
    """What went to the trash."""

    message = serializers.CharField()
    id = serializers.UUIDField()
    deleted_at = serializers.DateTimeField()


def show_item(item: Item) -> dict[str, Any]:
    """Return an item with its body."""
    return _show(item) | {"body": item.fields["body"]}


def show_summary(item: Item) -> dict[str, Any]:
    """Return an item for a list; without its document, `preview` is null and the lists are empty."""
    return _show(item) | {"preview": preview_of(item.fields["body"]) if item.document else None}


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
        "tier": item.document.tier if item.document else ("zerodb" if item.in_zerodb else "spool"),
        "available": item.document is not None,
        "zerodb_id": item.in_zerodb,
        "bigquery_backed_up": item.backed_up_at is not None,
        "bigquery_last_sync_at": item.backed_up_at,
    }
