"""Giving a file to a browser: conditional requests, byte ranges, and headers that keep it from being run as a page."""

from dataclasses import dataclass
from datetime import datetime

from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.utils.cache import get_conditional_response, patch_vary_headers
from django.utils.encoding import iri_to_uri
from django.utils.http import content_disposition_header, http_date

from content.media import ranges, storages
from engarde.common.problems import Problem

FRESH_SECONDS = 24 * 3600
SHOWN = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp", "image/avif", "image/bmp", "image/tiff"})


class PreconditionFailed(Problem):
    """The file is not the one that If-Match names."""

    status, code, title = 412, "precondition_failed", "Precondition failed"


@dataclass(frozen=True, slots=True)
class Delivery:
    """What is to be given.

    Attributes:
        key: of the bytes in the media storage.
        etag: a strong entity tag, quotation marks included.
    """

    key: str
    size: int
    etag: str
    mime_type: str
    file_name: str
    changed_at: datetime

    @property
    def is_shown(self) -> bool:
        """Whether browsers may show it: a raster image or a video, nothing in which a script can hide."""
        return self.mime_type in SHOWN or self.mime_type.startswith("video/")


def answer(request: HttpRequest, delivery: Delivery) -> HttpResponseBase:
    """Return the file or the part of it that a request wants, 304 for a caller that has it.

    Raises:
        PreconditionFailed: If-Match or If-Unmodified-Since is not met.
        RangeNotSatisfiable: the range lies outside the file.
        MediaUnavailable: the storage does not give it.
    """
    response = _conditional(request, delivery) or _content(request, delivery)
    for name, value in _headers(delivery).items():
        response[name] = value
    patch_vary_headers(response, ["Authorization", "X-API-Key", "X-Tenant-ID"])
    return response


def elsewhere(url: str) -> HttpResponse:
    """Return an answer that sends a browser to a file's address elsewhere, which it must not remember: it may change."""
    return HttpResponse(status=302, headers={"Location": iri_to_uri(url), "Cache-Control": "no-store"})


def _conditional(request: HttpRequest, delivery: Delivery) -> HttpResponse | None:
    changed = int(delivery.changed_at.timestamp())
    response = get_conditional_response(request, delivery.etag, changed)
    if response is not None and response.status_code == 412:
        raise PreconditionFailed("The file is not the one that the request names.")
    return response


def _content(request: HttpRequest, delivery: Delivery) -> HttpResponseBase:
    span = _span(request, delivery)
    length = span.length if span else delivery.size
    response: HttpResponseBase
    if request.method == "HEAD":
        storages.require(key=delivery.key, size=delivery.size)
        response = HttpResponse()
    else:
        part = storages.open_part(key=delivery.key, size=delivery.size, start=span.start if span else 0, length=length)
        response = StreamingHttpResponse(part, status=206 if span else 200)
    text = "; charset=utf-8" if delivery.mime_type.startswith("text/") else ""
    response["Content-Type"] = delivery.mime_type + text
    response["Content-Length"] = str(length)
    if span:
        response["Content-Range"] = span.content_range(delivery.size)
    return response


def _span(request: HttpRequest, delivery: Delivery) -> ranges.Span | None:
    """Return the range that is wanted; of GET only, as it means nothing with other methods."""
    modified = http_date(int(delivery.changed_at.timestamp()))
    if request.method != "GET" or not ranges.is_current(request.headers.get("If-Range"), delivery.etag, modified):
        return None
    return ranges.wanted(request.headers.get("Range"), delivery.size)


def _headers(delivery: Delivery) -> dict[str, str]:
    return {
        "ETag": delivery.etag,
        "Last-Modified": http_date(int(delivery.changed_at.timestamp())),
        "Accept-Ranges": "bytes",
        "Cache-Control": f"private, max-age={FRESH_SECONDS}, immutable",
        "Content-Disposition": content_disposition_header(not delivery.is_shown, delivery.file_name) or "inline",
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "X-Content-Type-Options": "nosniff",
    }
