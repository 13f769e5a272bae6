"""DRF's exception handler: named errors of the rooms and DRF's own become RFC 9457 problems."""

import math
from collections.abc import Iterator
from typing import Any

import structlog
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError, InterfaceError, OperationalError
from django.http import Http404
from rest_framework import exceptions
from rest_framework.response import Response

from engarde.common.problems import PROBLEM_JSON, NotFound, Problem, document

log = structlog.get_logger(__name__)


def exception_handler(exc: Exception, context: dict[str, Any]) -> Response | None:
    """Turn an anticipated exception into a problem; anything else is Django's to report as a 500."""
    problem = _from_exception(exc)
    if problem is None:
        return None
    request = context.get("request")
    if request is not None and "_user" not in vars(request):
        request.user = None  # authentication raised a room's error: DRF would run it again for whoever asks
    body, headers = problem
    response = Response(body, status=body["status"], content_type=PROBLEM_JSON)
    for name, value in headers.items():
        response[name] = value
    return response


DATABASE_AWAY: dict[str, Any] = {
    "status": 503,
    "code": "database_unavailable",
    "title": "Database unavailable",
    "detail": "The database does not answer right now; try again soon.",
}
RESTORE_RUNNING: dict[str, Any] = {
    "status": 503,
    "code": "restore_running",
    "title": "Restore running",
    "detail": "This content is being restored from the backup and cannot be written right now; try again soon.",
}
DOOR_CLOSED = "EG503"  # what the trigger raises that keeps others from writing beside a restore


def _from_exception(exc: Exception) -> tuple[dict[str, Any], dict[str, str]] | None:
    if isinstance(exc, Problem):
        body = document(status=exc.status, code=exc.code, title=exc.title, detail=exc.detail, **exc.extra)
        return body, exc.headers
    if isinstance(exc, ConnectionResetError):  # the client went away while its request was read; nobody reads this
        return document(status=400, code="client_gone", title="Bad request", detail="The request broke off."), {}
    if isinstance(exc, Http404):
        exc = NotFound()
        return document(status=404, code=exc.code, title=exc.title, detail=exc.detail), {}
    if isinstance(exc, DatabaseError) and getattr(exc.__cause__, "sqlstate", None) == DOOR_CLOSED:
        return document(**RESTORE_RUNNING), {"Retry-After": "30"}
    if isinstance(exc, OperationalError | InterfaceError):
        log.error("the database does not answer", exc_info=exc)
        return document(**DATABASE_AWAY), {"Retry-After": "5"}
    if isinstance(exc, PermissionDenied):
        return document(status=403, code="permission_denied", title="Permission denied", detail="Not allowed."), {}
    if isinstance(exc, exceptions.ValidationError):
        return _validation_problem(exc), {}
    if isinstance(exc, exceptions.APIException):
        return _api_problem(exc), _api_headers(exc)
    return None


def _validation_problem(exc: exceptions.ValidationError) -> dict[str, Any]:
    return document(
        status=400,
        code="validation_error",
        title="Invalid input",
        detail="The request is not valid; see errors.",
        errors=list(_flatten(exc.get_full_details(), "")),
    )


def _flatten(details: Any, field: str) -> Iterator[dict[str, Any]]:
    """Yield {"field","message","code"} for each error; nested fields are joined by dots."""
    if isinstance(details, dict) and set(details) == {"message", "code"}:
        yield {"field": field or "non_field_errors", "message": str(details["message"]), "code": details["code"]}
    elif isinstance(details, dict):
        for name, value in details.items():
            yield from _flatten(value, f"{field}.{name}" if field else str(name))
    else:
        for value in details:
            yield from _flatten(value, field)


TITLES = {
    400: "Bad request",
    401: "Authentication needed",
    403: "Permission denied",
    404: "Not found",
    405: "Method not allowed",
    406: "Not acceptable",
    413: "Content too large",
    415: "Unsupported media type",
    429: "Too many requests",
}


def _api_problem(exc: exceptions.APIException) -> dict[str, Any]:
    code = exc.get_codes()
    return document(
        status=exc.status_code,
        code=code if isinstance(code, str) else "error",
        title=TITLES.get(exc.status_code, "Error"),
        detail=str(exc.detail),
    )


def _api_headers(exc: exceptions.APIException) -> dict[str, str]:
    headers = {}
    if auth_header := getattr(exc, "auth_header", None):
        headers["WWW-Authenticate"] = auth_header
    wait = getattr(exc, "wait", None) if isinstance(exc, exceptions.Throttled) else None
    if wait is not None:
        headers["Retry-After"] = str(max(1, math.ceil(wait)))
    return headers
