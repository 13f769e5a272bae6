"""The HTTP envelope of the activity feed: parse, one call, answer."""

from typing import Any, ClassVar

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from content import activity
from content.activity import Act
from content.models import ChangeType, ContentType
from engarde.accounts.principal import caller
from engarde.accounts.roles import Scope
from engarde.common.fields import QueryIntegerField, QuerySerializer, TextField
from engarde.common.paging import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE
from quotas.views import QuotaView

SHOWN = ("at", "action", "content_id", "version", "title", "content_type", "changed_fields")
PLATFORM = {"id": None, "type": "platform", "name": None}


class ActivityQuery(QuerySerializer):
    """What to show, and where to go on."""

    content_id = serializers.UUIDField(required=False, help_text="One item's history.")
    actor_id = serializers.UUIDField(required=False, help_text="What one person or API key did.")
    action = serializers.ChoiceField(choices=ChangeType.choices, required=False)
    cursor = TextField(
        max_length=2000, required=False, help_text="`nextCursor` of the page before, for the same filters."
    )
    pageSize = QueryIntegerField(min_value=1, max_value=MAX_PAGE_SIZE, default=DEFAULT_PAGE_SIZE)


class ActorOutput(serializers.Serializer[Any]):
    """Who did it; the platform itself has no id and no name, somebody who left no name."""

    id = serializers.UUIDField(allow_null=True)
    type = serializers.ChoiceField(choices=["user", "api_key", "platform"])
    name = serializers.CharField(allow_null=True)


class ActOutput(serializers.Serializer[Any]):
    """One thing that somebody did to an item; title and content type are the item's as it is now."""

    at = serializers.DateTimeField()
    actor = ActorOutput()
    action = serializers.ChoiceField(choices=ChangeType.choices)
    content_id = serializers.UUIDField()
    version = serializers.IntegerField(help_text="The version that it made.")
    title = serializers.CharField()
    content_type = serializers.ChoiceField(choices=ContentType.choices)
    changed_fields = serializers.ListField(child=serializers.CharField())


class CursorOutput(serializers.Serializer[Any]):
    """Where a list that is read by cursor goes on."""

    pageSize = serializers.IntegerField()
    nextCursor = serializers.CharField(allow_null=True)
    hasNext = serializers.BooleanField()


class ActivityOutput(serializers.Serializer[Any]):
    """A page of the feed."""

    data = ActOutput(many=True)  # type: ignore[assignment]  # the contract's name; DRF has an attribute of it
    pagination = CursorOutput()


class ActivityView(QuotaView):
    """Who did what."""

    scopes: ClassVar = {"GET": Scope.CONTENT_READ}

    @extend_schema(operation_id="list_activity", parameters=[ActivityQuery], responses=ActivityOutput)
    def get(self, request: Request) -> Response:
        """List what was done to the tenant's content, newest first."""
        query = ActivityQuery.parse(request)
        size, cursor = query.pop("pageSize"), query.pop("cursor", None)
        tenant_id = caller(request).require_tenant()
        page = activity.list_activity(tenant_id=tenant_id, filters=query, size=size, cursor=cursor)
        pagination = {"pageSize": size, "nextCursor": page.next_cursor, "hasNext": page.next_cursor is not None}
        return Response({"data": [_show(act) for act in page.acts], "pagination": pagination})


def _show(act: Act) -> dict[str, Any]:
    actor = {"id": act.actor_id, "type": act.actor.kind, "name": act.actor.name} if act.actor else PLATFORM
    return {"actor": actor, **{name: getattr(act, name) for name in SHOWN}}
