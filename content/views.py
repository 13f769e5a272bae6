"""HTTP envelopes: parse, one call, answer."""

from collections.abc import Iterator
from typing import Any, ClassVar
from uuid import UUID

import orjson
from django.http import HttpResponse, StreamingHttpResponse
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from content import bulk, diffs, export, lists, operations, queries, serializers
from content.etags import Match
from content.items import Item
from content.operations import Written
from engarde.accounts.principal import caller
from engarde.accounts.roles import Scope
from engarde.common import idempotency, json
from engarde.common.fields import NoQuery, parse
from engarde.common.idempotency import Kept
from engarde.common.problems import NotFound
from quotas.views import QuotaView

IF_MATCH = OpenApiParameter("If-Match", str, OpenApiParameter.HEADER, description="412 when the item changed since.")
IF_NONE_MATCH = OpenApiParameter("If-None-Match", str, OpenApiParameter.HEADER, description="304 when still the same.")
IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key", str, OpenApiParameter.HEADER, description="Sent again within 24 h: the first answer again."
)


def if_match(request: Request) -> Match:
    """Return the caller's If-Match."""
    return Match.parse(request.headers.get("If-Match"))


class ItemView(QuotaView):
    """A call that answers with an item."""

    def answer(self, written: Written) -> Response:
        """Return the answer to a write."""
        self.usage = written.usage
        return item_response(written.item)

    def read(self, request: Request, content_id: UUID, version: int | None) -> HttpResponse:
        """Return the answer to a read: 304 without a body for a caller that has the version."""
        known = Match.parse(request.headers.get("If-None-Match"))
        try:
            found = queries.read_item(
                tenant_id=caller(request).require_tenant(), content_id=content_id, version=version, known=known
            )
        except queries.NotModified as same:
            return Response(status=304, headers={"ETag": same.etag, "Cache-Control": "private, no-cache"})
        self.usage = found.usage
        return item_response(found.item)


def item_response(item: Item, status: int = 200, **headers: str) -> Response:
    """Return an item under its entity tag; caches keep it for its reader only, and ask before they use it."""
    tags = {"ETag": item.etag, "Cache-Control": "private, no-cache"}
    return Response(serializers.show_item(item), status=status, headers={**tags, **headers})


def replayed(kept: Kept) -> Response:
    """Return the first answer under an idempotency key again."""
    headers = {**kept.headers, "Idempotency-Replayed": "true"}
    return Response(orjson.Fragment(kept.body), status=kept.status, headers=headers)


class ContentListView(ItemView):
    """The tenant's content."""

    scopes: ClassVar = {"GET": Scope.CONTENT_READ, "POST": Scope.CONTENT_WRITE}

    @extend_schema(operation_id="list_content", parameters=[serializers.ListQuery], responses=serializers.ContentPage)
    def get(self, request: Request) -> Response:
        """List items, newest first unless sorted otherwise; a search lists the best matches first."""
        listing = serializers.ListQuery.listing(request)
        page = lists.list_items(tenant_id=caller(request).require_tenant(), listing=listing)
        self.usage = page.usage
        rows = [serializers.show_listed(item, listing, page.omitted) for item in page.rows]
        return Response(page.envelope(rows))

    @extend_schema(
        operation_id="create_content",
        parameters=[IDEMPOTENCY_KEY],
        request=serializers.ContentInput,
        responses={201: serializers.ItemOutput},
    )
    def post(self, request: Request) -> Response:
        """Create an item."""
        tenant_id, now = caller(request).require_tenant(), timezone.now()
        fingerprint = idempotency.fingerprint_of("POST", request.path_info, request.data)
        key = idempotency.key_of(request)
        with idempotency.attempt(tenant_id=tenant_id, key=key, fingerprint=fingerprint, now=now) as attempt:
            if attempt.kept:
                return replayed(attempt.kept)
            written = operations.create_content(
                tenant_id=tenant_id,
                author_id=caller(request).id,
                fields=parse(serializers.ContentInput, request),
                now=now,
                last=lambda item: attempt.keep(status=201, headers=_created(item), body=serializers.show_item(item)),
            )
        self.usage = written.usage
        return item_response(written.item, 201, Location=f"/api/content/{written.item.id}")


def _created(item: Item) -> dict[str, str]:
    return {"Location": f"/api/content/{item.id}", "ETag": item.etag}


class ContentView(ItemView):
    """One item."""

    scopes: ClassVar = {"GET": Scope.CONTENT_READ, "PATCH": Scope.CONTENT_WRITE, "DELETE": Scope.CONTENT_WRITE}

    @extend_schema(
        operation_id="get_content",
        parameters=[serializers.ItemQuery, IF_NONE_MATCH],
        responses={200: serializers.ItemOutput, 304: None},
    )
    def get(self, request: Request, content_id: UUID) -> HttpResponse:
        """Return an item, or an older version of it."""
        return self.read(request, content_id, serializers.ItemQuery.parse(request).get("version"))

    @extend_schema(
        operation_id="update_content",
        parameters=[IF_MATCH],
        request=serializers.ContentInput,
        responses=serializers.ItemOutput,
    )
    def patch(self, request: Request, content_id: UUID) -> Response:
        """Change fields of an item; it becomes the next version unless nothing changes."""
        return self.answer(
            operations.update_content(
                tenant_id=caller(request).require_tenant(),
                author_id=caller(request).id,
                content_id=content_id,
                changes=parse(serializers.ContentInput, request, partial=True),
                now=timezone.now(),
                match=if_match(request),
            )
        )

    @extend_schema(operation_id="delete_content", parameters=[IF_MATCH], responses={200: serializers.DeletedOutput})
    def delete(self, request: Request, content_id: UUID) -> Response:
        """Move an item to the trash."""
        written = operations.delete_content(
            tenant_id=caller(request).require_tenant(),
            author_id=caller(request).id,
            content_id=content_id,
            now=timezone.now(),
            match=if_match(request),
        )
        self.usage = written.usage
        item = written.item
        return Response({"message": "Moved to the trash.", "id": item.id, "deleted_at": item.deleted_at})


class UndeleteView(ItemView):
    """An item in the trash."""

    scopes: ClassVar = {"POST": Scope.CONTENT_WRITE}

    @extend_schema(operation_id="undelete_content", request=None, responses=serializers.ItemOutput)
    def post(self, request: Request, content_id: UUID) -> Response:
        """Take an item out of the trash; the quota is checked again."""
        return self.answer(
            operations.undelete_content(
                tenant_id=caller(request).require_tenant(),
                author_id=caller(request).id,
                content_id=content_id,
                now=timezone.now(),
            )
        )


class VersionsView(QuotaView):
    """An item's versions."""

    scopes: ClassVar = {"GET": Scope.CONTENT_READ}

    @extend_schema(operation_id="list_versions", responses=serializers.VersionsOutput)
    def get(self, request: Request, content_id: UUID) -> Response:
        """List an item's versions, newest first."""
        NoQuery.parse(request)
        rows, self.usage = queries.versions_of(tenant_id=caller(request).require_tenant(), content_id=content_id)
        return Response({"data": [serializers.show_version(row) for row in rows]})


class VersionView(ItemView):
    """One version of an item."""

    scopes: ClassVar = {"GET": Scope.CONTENT_READ}

    @extend_schema(
        operation_id="get_version", parameters=[IF_NONE_MATCH], responses={200: serializers.ItemOutput, 304: None}
    )
    def get(self, request: Request, content_id: UUID, version: int) -> HttpResponse:
        """Return an item as it was."""
        NoQuery.parse(request)
        return self.read(request, content_id, version)


class DiffView(QuotaView):
    """What differs between two versions."""

    scopes: ClassVar = {"GET": Scope.CONTENT_READ}

    @extend_schema(operation_id="diff_versions", parameters=[serializers.DiffQuery], responses=serializers.DiffOutput)
    def get(self, request: Request, content_id: UUID, version: int) -> Response:
        """Compare a version with the one before it, or with another one."""
        start = serializers.DiffQuery.parse(request).get("against", version - 1)
        tenant_id = caller(request).require_tenant()
        before, after = (
            queries.get_item(tenant_id=tenant_id, content_id=content_id, version=number).fields
            for number in (start, version)
        )
        names = (f"version {start}", f"version {version}")
        body_diff = diffs.body_diff(before["body"], after["body"], names)
        changes = diffs.changes(before, after)
        return Response({"from": start, "to": version, "changes": changes, "body_diff": body_diff})


class RestoreVersionView(ItemView):
    """An older version of an item."""

    scopes: ClassVar = {"POST": Scope.CONTENT_WRITE}

    @extend_schema(
        operation_id="restore_version", parameters=[IF_MATCH], request=None, responses=serializers.ItemOutput
    )
    def post(self, request: Request, content_id: UUID, version: int) -> Response:
        """Make an older version the newest again, as a version of its own."""
        return self.answer(
            operations.restore_version(
                tenant_id=caller(request).require_tenant(),
                author_id=caller(request).id,
                content_id=content_id,
                version=version,
                now=timezone.now(),
                match=if_match(request),
            )
        )


class BulkView(QuotaView):
    """Many items at once."""

    scopes: ClassVar = {"POST": Scope.CONTENT_WRITE}

    @extend_schema(operation_id="bulk_content", request=serializers.BulkInput, responses=serializers.BulkOutput)
    def post(self, request: Request) -> Response:
        """Delete, restore, publish, archive or tag up to 500 items; one bad item never sinks the rest."""
        wanted = parse(serializers.BulkInput, request)
        results = bulk.run(
            tenant_id=caller(request).require_tenant(),
            author_id=caller(request).id,
            action=bulk.Action(wanted["action"]),
            ids=wanted["ids"],
            tags=wanted.get("tags", []),
            now=timezone.now(),
        )
        return Response({"results": [serializers.show_result(result) for result in results]})


class NothingView(QuotaView):
    """Addresses below content's that lead nowhere, malformed ids among them."""

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Let in who may call, then say that nothing is here, whatever the method."""
        super().initial(request, *args, **kwargs)
        raise NotFound("content item")


class ExportView(QuotaView):
    """All live items as a stream."""

    scopes: ClassVar = {"GET": Scope.CONTENT_READ}

    @extend_schema(operation_id="export_content", responses={(200, "application/x-ndjson"): OpenApiTypes.STR})
    def get(self, request: Request) -> StreamingHttpResponse:
        """Stream the tenant's live items, oldest first, one JSON object a line."""
        NoQuery.parse(request)
        return StreamingHttpResponse(
            _lines(caller(request).require_tenant()),
            content_type="application/x-ndjson",
            headers={"Content-Disposition": 'attachment; filename="content.jsonl"', "Cache-Control": "no-store"},
        )


def _lines(tenant_id: UUID) -> Iterator[bytes]:
    for item in export.live_items(tenant_id=tenant_id):
        yield json.dumps(serializers.show_item(item)) + b"\n"
