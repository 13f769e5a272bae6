"""HTTP envelopes: parse, one call, answer."""

from collections.abc import Sequence
from typing import IO, Any, ClassVar
from uuid import UUID

from django.conf import settings
from django.http.response import HttpResponseBase
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from orjson import Fragment
from rest_framework.authentication import BaseAuthentication
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.response import Response

from content.media import delivery, links, operations, queries, serializers, storages, uploads
from content.media.delivery import Delivery
from content.media.items import MediaFile
from content.media.uploads import Received
from engarde.accounts.principal import caller
from engarde.accounts.roles import Scope
from engarde.common import idempotency
from engarde.common.fields import NoQuery
from engarde.common.idempotency import Attempt, Kept
from engarde.common.problems import Invalid, NotFound
from quotas import charging
from quotas.views import QuotaView

RANGE = OpenApiParameter("Range", str, OpenApiParameter.HEADER, description="One byte range: 206 with a part of it.")
IF_NONE_MATCH = OpenApiParameter("If-None-Match", str, OpenApiParameter.HEADER, description="304 when it is the same.")
IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key", str, OpenApiParameter.HEADER, description="Sent again within 24 h: the first answer again."
)


class FileParser(BaseParser):
    """Reads a multipart body into a file on disk; `request.data` is then a `Received`."""

    media_type = "multipart/form-data"

    def parse(  # type: ignore[override]  # what it returns is `request.data`, whatever that is
        self, stream: IO[Any], media_type: str | None = None, parser_context: Any = None
    ) -> Received:
        """Return the file that came in.

        Raises:
            InvalidMultipart, Invalid, TooLarge, MediaUnavailable: see `uploads.receive`.
        """
        length = _content_length(parser_context["request"])
        return uploads.receive(stream=stream, content_type=media_type or "", content_length=length)


def _content_length(request: Request) -> int:
    declared = str(request.META.get("CONTENT_LENGTH") or "")
    return int(declared) if declared.isdecimal() else 0


class MediaListView(QuotaView):
    """The tenant's media files."""

    scopes: ClassVar = {"GET": Scope.CONTENT_READ, "POST": Scope.CONTENT_WRITE}
    parser_classes = [FileParser]

    @extend_schema(operation_id="list_media", parameters=[serializers.MediaQuery], responses=serializers.MediaPage)
    def get(self, request: Request) -> Response:
        """List media files, newest first."""
        query, now = serializers.MediaQuery.parse(request), timezone.now()
        page = queries.list_media(
            tenant_id=caller(request).require_tenant(),
            page=query["page"],
            size=query["pageSize"],
            content_id=query.get("content_id"),
            file_type=query.get("file_type"),
        )
        return Response(page.envelope([serializers.show_media(media, now=now) for media in page.rows]))

    @extend_schema(
        operation_id="upload_media",
        parameters=[IDEMPOTENCY_KEY],
        request=serializers.UPLOAD_INPUT,
        responses={201: serializers.MediaOutput},
    )
    def post(self, request: Request) -> Response:
        """Store a file; it is streamed to disk and told by its content, not by its name."""
        NoQuery.parse(request)
        tenant_id, key = caller(request).require_tenant(), idempotency.key_of(request)
        if key is None:
            return self._receive(request, None)
        claimed = idempotency.claim(tenant_id=tenant_id, key=key, fingerprint=None, now=timezone.now())
        if isinstance(claimed, Kept):
            return _replay(request, claimed)
        with idempotency.released(claimed):
            return self._receive(request, claimed)

    def _receive(self, request: Request, claimed: idempotency.Claim | None) -> Response:
        least = uploads.least_file_size(_content_length(request))
        if least > settings.MEDIA_MAX_BYTES:
            raise uploads.too_large()
        tenant_id = caller(request).require_tenant()
        charging.require_room(tenant_id=tenant_id, size_bytes=least, now=timezone.now())
        received = _received(request)
        try:
            return self._store(request, received, Attempt(_fingerprint(request, received), claim=claimed))
        finally:
            received.discard()

    def _store(self, request: Request, received: Received, attempt: Attempt) -> Response:
        now = timezone.now()
        stored = operations.store_media(
            tenant_id=caller(request).require_tenant(),
            author_id=caller(request).id,
            received=received,
            now=now,
            last=lambda media: attempt.keep(
                status=201, headers=_created(media), body=serializers.show_media(media, now=now)
            ),
        )
        self.usage = stored.usage
        body = serializers.show_media(stored.media, now=now)
        return Response(body, status=201, headers=_created(stored.media))


def _created(media: MediaFile) -> dict[str, str]:
    return {"Location": f"/api/content/media/{media.id}"}


def _received(request: Request) -> Received:
    data: Any = request.data
    if not isinstance(data, Received):  # an empty body is never given to the parser
        raise Invalid("file", "No file was sent.", "required")
    return data


def _fingerprint(request: Request, received: Received) -> bytes:
    content_id = received.content_id and str(received.content_id)
    return idempotency.fingerprint_of("POST", request.path_info, received.sha256.hex(), received.file_name, content_id)


def _replay(request: Request, kept: Kept) -> Response:
    """Return the first answer again, once the whole file was read and found to be the same."""
    received = _received(request)
    received.discard()
    idempotency.require_same(kept, _fingerprint(request, received))
    headers = {**kept.headers, "Idempotency-Replayed": "true"}
    return Response(Fragment(kept.body), status=kept.status, headers=headers)


class MediaView(QuotaView):
    """One media file."""

    scopes: ClassVar = {"GET": Scope.CONTENT_READ, "DELETE": Scope.CONTENT_WRITE}

    @extend_schema(operation_id="get_media", responses=serializers.MediaOutput)
    def get(self, request: Request, media_id: UUID) -> Response:
        """Return a media file's facts, with new links."""
        NoQuery.parse(request)
        media = queries.get_media(tenant_id=caller(request).require_tenant(), media_id=media_id)
        return Response(serializers.show_media(media, now=timezone.now()))

    @extend_schema(operation_id="delete_media", responses={204: None})
    def delete(self, request: Request, media_id: UUID) -> Response:
        """Delete a media file that no live content uses."""
        NoQuery.parse(request)
        self.usage = operations.delete_media(
            tenant_id=caller(request).require_tenant(), media_id=media_id, now=timezone.now()
        )
        return Response(status=204)


class BytesView(QuotaView):
    """Bytes, for a caller with credentials or with a signed link; a link's token is asked before any credentials."""

    scopes: ClassVar = {"GET": Scope.CONTENT_READ}

    def _has_token(self) -> bool:
        request = getattr(self, "request", None)
        return request is not None and "token" in request.GET

    def get_authenticators(self) -> list[BaseAuthentication]:
        """Return who looks at credentials: nobody, where there is a token."""
        return [] if self._has_token() else super().get_authenticators()

    def get_permissions(self) -> Sequence[Any]:
        """Return who lets a caller in: the token itself, where there is one."""
        return [] if self._has_token() else super().get_permissions()

    def media(self, request: Request, media_id: UUID) -> MediaFile:
        """Return the media file that a request is for.

        Raises:
            LinkRefused: the token does not open it.
            NotFound: there is none.
        """
        token = serializers.LinkQuery.parse(request).get("token")
        if token is None:
            tenant_id = caller(request).require_tenant()
        else:
            tenant_id = links.tenant_of(token=token, media_id=media_id, now=timezone.now())
        return queries.get_media(tenant_id=tenant_id, media_id=media_id)


class DownloadView(BytesView):
    """A media file's bytes."""

    @extend_schema(
        operation_id="download_media",
        parameters=[serializers.LinkQuery, RANGE, IF_NONE_MATCH],
        responses={
            (200, "*/*"): OpenApiTypes.BINARY,
            (206, "*/*"): OpenApiTypes.BINARY,
            304: None,
            302: OpenApiResponse(
                description="The bytes are elsewhere: `Location` has the address of an external file."
            ),
        },
    )
    def get(self, request: Request, media_id: UUID) -> HttpResponseBase:
        """Stream the file, or a part of it; an external file's address is answered as a redirect."""
        media = self.media(request, media_id)
        if media.external_url:
            return delivery.elsewhere(media.external_url)
        wanted = Delivery(
            key=media.storage_key,
            size=media.size_bytes,
            etag=f'"{media.sha256.hex()}"',
            mime_type=media.mime_type,
            file_name=media.file_name,
            changed_at=media.created_at,
        )
        return delivery.answer(request._request, wanted)


class ThumbnailView(BytesView):
    """A raster image's thumbnail."""

    @extend_schema(
        operation_id="get_media_thumbnail",
        parameters=[serializers.LinkQuery, IF_NONE_MATCH],
        responses={(200, "image/webp"): OpenApiTypes.BINARY, 304: None},
    )
    def get(self, request: Request, media_id: UUID) -> HttpResponseBase:
        """Return the thumbnail: WebP, at most 512 pixels wide and high."""
        media = self.media(request, media_id)
        if not media.thumbnail_key:
            raise NotFound("thumbnail")
        wanted = Delivery(
            key=media.thumbnail_key,
            size=storages.size_of(key=media.thumbnail_key),
            etag=f'"{media.sha256.hex()}-thumbnail"',
            mime_type="image/webp",
            file_name=f"{media.file_name[:240]}.webp",
            changed_at=media.created_at,
        )
        return delivery.answer(request._request, wanted)
