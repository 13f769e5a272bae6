"""What happens to every request before and after its view."""

import time
from collections.abc import Callable
from io import BytesIO
from typing import IO, cast

import structlog
from django.conf import settings
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest, HttpResponse, HttpResponsePermanentRedirect
from django.middleware.common import CommonMiddleware as DjangoCommonMiddleware

from engarde.common import metrics, problems, request_ids, wake
from engarde.common.scopes import system_scope

log = structlog.get_logger(__name__)

BACKUP = "dr.sync"
READING = ("GET", "HEAD", "OPTIONS")
FIRST_REFUSAL = 400
Handler = Callable[[HttpRequest], HttpResponse]


class RequestContextMiddleware:
    """Gives a request its id, echoes it as X-Request-ID, counts it, and writes one log line about it."""

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Serve a request under its id."""
        started = time.perf_counter()
        request_id = request_ids.accept_or_make(request.headers.get("X-Request-ID"))
        request_ids.begin(request_id)
        response = self.get_response(request)
        response["X-Request-ID"] = request_id
        seconds = time.perf_counter() - started
        metrics.note_request(request, status=response.status_code, seconds=seconds)
        milliseconds = round(seconds * 1000, 1)
        log.info("request", method=request.method, path=request.path, status=response.status_code, ms=milliseconds)
        return response


class WakeAfterWritesMiddleware:
    """Wakes the backup after each request that may have written: not only content is backed up within seconds."""

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Serve a request, and have what it wrote looked after."""
        response = self.get_response(request)
        if request.method not in READING and response.status_code < FIRST_REFUSAL:
            wake.after_commit(BACKUP)
        return response


class ChunkedBodyMiddleware:
    """Reads a body that comes in chunks, without a Content-Length: Django and DRF would take it for an empty one."""

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Serve a request whose body has a length; files must say theirs beforehand."""
        if request.META.get("CONTENT_LENGTH") or "chunked" not in request.headers.get("Transfer-Encoding", "").lower():
            return self.get_response(request)
        if request.content_type == "multipart/form-data":
            return problems.plain(411, "length_required", "Length required", "Send a Content-Length with files.")
        raw = _chunked_input(request).read(settings.REQUEST_MAX_BYTES + 1)
        if len(raw) > settings.REQUEST_MAX_BYTES:
            detail = f"A request may have at most {settings.REQUEST_MAX_BYTES} bytes."
            return problems.plain(413, "content_too_large", "Content too large", detail)
        request.META["CONTENT_LENGTH"] = str(len(raw))
        request._stream = BytesIO(raw)  # where Django and DRF read the body from
        return self.get_response(request)


def _chunked_input(request: HttpRequest) -> IO[bytes]:
    """Return the body as the server gives it; WSGI promises an end only with `wsgi.input_terminated`."""
    if isinstance(request, WSGIRequest):
        ends = request.environ.get("wsgi.input_terminated")
        return cast("IO[bytes]", request.environ["wsgi.input"]) if ends else BytesIO()
    return cast("IO[bytes]", request._stream)  # an ASGIRequest has no other name for it


class TrailingSlashMiddleware:
    """Makes an address with a slash at its end the same as one without; the admin keeps its slashes."""

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Serve a request without its last slash."""
        if request.path_info.endswith("/") and request.path_info.startswith(("/api/", "/health", "/metrics")):
            request.path_info = request.path_info.rstrip("/")
        return self.get_response(request)


class CommonMiddleware(DjangoCommonMiddleware):
    """Django's, but for probes: an orchestrator asks for health by an address that no ALLOWED_HOSTS can name."""

    def process_request(self, request: HttpRequest) -> HttpResponsePermanentRedirect | None:
        """Check the host, except for health and metrics."""
        if request.path_info.startswith(("/health", "/metrics")):
            return None
        return super().process_request(request)


class StaffScopeMiddleware:
    """Runs the admin in a system scope: staff see every tenant."""

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Serve a request, in the system scope if it is for the admin."""
        if not request.path.startswith("/admin"):
            return self.get_response(request)
        with system_scope("admin"):
            return self.get_response(request)
