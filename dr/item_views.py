"""One item back from the backup, for the tenant's own admins: parse, one call, answer."""

from typing import Any, ClassVar
from uuid import UUID

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from content.serializers import ItemOutput
from content.views import ItemView
from dr import items
from engarde.accounts.principal import caller
from engarde.accounts.roles import Scope
from engarde.common.fields import StrictSerializer, parse


class RestoreFromBackupInput(StrictSerializer):
    """Which state of an item: of a time, a version, or a version that was there at a time."""

    as_of = serializers.DateTimeField(required=False, help_text="A time in the past.")
    version = serializers.IntegerField(required=False, min_value=1, max_value=2**31 - 1)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Ask for one of the two, and for a time in the past.

        Raises:
            ValidationError: none is given, or the time is to come.
        """
        if not attrs:
            raise serializers.ValidationError({"as_of": "Give as_of, version or both."}, code="required")
        if attrs.get("as_of") and attrs["as_of"] > timezone.now():
            raise serializers.ValidationError({"as_of": "This time is in the future."}, code="in_the_future")
        return attrs


class RestoreFromBackupView(ItemView):
    """An item as the backup has it."""

    scopes: ClassVar = {"POST": Scope.ADMIN}

    @extend_schema(operation_id="restore_from_backup", request=RestoreFromBackupInput, responses=ItemOutput)
    def post(self, request: Request, content_id: UUID) -> Response:
        """Make an item, live, trashed or removed for good, what the backup has of a time, as a new version."""
        wanted = parse(RestoreFromBackupInput, request)
        return self.answer(
            items.restore_item(
                tenant_id=caller(request).require_tenant(),
                author_id=caller(request).id,
                content_id=content_id,
                as_of=wanted.get("as_of"),
                version=wanted.get("version"),
                now=timezone.now(),
            )
        )
