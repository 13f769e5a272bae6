"""HTTP envelopes: parse, one call, answer."""

from typing import ClassVar
from uuid import UUID

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from content import operations, queries, serializers
from engarde.accounts.principal import caller
from engarde.accounts.roles import Scope
from engarde.common.fields import NoQuery, parse
from engarde.common.paging import PageQuery
from quotas.views import QuotaView


class ContentListView(QuotaView):
    """The tenant's content."""

    scopes: ClassVar = {"GET": Scope.CONTENT_READ, "POST": Scope.CONTENT_WRITE}

    @extend_schema(operation_id="list_content", parameters=[PageQuery], responses=serializers.ContentPage)
    def get(self, request: Request) -> Response:
        """List items, newest first."""
        query = PageQuery.parse(request)
        page = queries.list_items(
            tenant_id=caller(request).require_tenant(), page=query["page"], size=query["pageSize"]
        )
        return Response(page.envelope([serializers.show_summary(item) for item in page.rows]))

    @extend_schema(
        operation_id="create_content", request=serializers.ContentInput, responses={201: serializers.ItemOutput}
    )
    def post(self, request: Request) -> Response:
        """Create an item."""
        written = operations.create_content(
            tenant_id=caller(request).require_tenant(),
            author_id=caller(request).id,
            fields=parse(serializers.ContentInput, request),
            now=timezone.now(),
        )
        self.usage = written.usage
        location = f"/api/content/{written.item.id}"
        return Response(serializers.show_item(written.item), status=201, headers={"Location": location})


class ContentView(QuotaView):
    """One item."""

    scopes: ClassVar = {"GET": Scope.CONTENT_READ, "PATCH": Scope.CONTENT_WRITE, "DELETE": Scope.CONTENT_WRITE}

    @extend_schema(operation_id="get_content", responses=serializers.ItemOutput)
    def get(self, request: Request, content_id: UUID) -> Response:
        """Return an item."""
        NoQuery.parse(request)
        item = queries.get_item(tenant_id=caller(request).require_tenant(), content_id=content_id)
        return Response(serializers.show_item(item))

    @extend_schema(operation_id="update_content", request=serializers.ContentInput, responses=serializers.ItemOutput)
    def patch(self, request: Request, content_id: UUID) -> Response:
        """Change fields of an item; it becomes the next version unless nothing changes."""
        written = operations.update_content(
            tenant_id=caller(request).require_tenant(),
            author_id=caller(request).id,
            content_id=content_id,
            changes=parse(serializers.ContentInput, request, partial=True),
            now=timezone.now(),
        )
        self.usage = written.usage
        return Response(serializers.show_item(written.item))

    @extend_schema(operation_id="delete_content", responses=serializers.DeletedOutput)
    def delete(self, request: Request, content_id: UUID) -> Response:
        """Move an item to the trash."""
        written = operations.delete_content(
            tenant_id=caller(request).require_tenant(),
            author_id=caller(request).id,
            content_id=content_id,
            now=timezone.now(),
        )
        self.usage = written.usage
        item = written.item
        return Response({"message": "Moved to the trash.", "id": item.id, "deleted_at": item.deleted_at})
