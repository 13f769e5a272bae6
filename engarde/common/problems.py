"""Errors as RFC 9457 problems: what the rooms raise, and Django's own error pages in the same shape."""

from typing import Any, ClassVar

from django.http import HttpRequest, HttpResponse

from engarde.common import json, request_ids

PROBLEM_JSON = "application/problem+json"
TYPE_PREFIX = "urn:engarde:problem:"
SERVER_ERROR_DETAIL = "Something went wrong on our side; quote the request_id when you ask about it."


class Problem(Exception):
    """An anticipated error that a caller can act on; a room's errors subclass it.

    Attributes:
        status: the HTTP status that an API answers with.
        code: stable name in snake_case for programs.
        title: the kind of problem, the same each time.
        detail: what happened this time and what to do.
        extra: further members of the problem document.
        headers: further headers of the answer.
    """

    status: ClassVar[int] = 400
    code: ClassVar[str] = "bad_request"
    title: ClassVar[str] = "Bad request"

    def __init__(self, detail: str, *, headers: dict[str, str] | None = None, **extra: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.extra = extra
        self.headers = headers or {}


class NotFound(Problem):
    """Nothing there, or nothing that the caller may know of."""

    status, code, title = 404, "not_found", "Not found"

    def __init__(self, what: str = "object") -> None:
        super().__init__(f"There is no such {what}.")


class TooLarge(Problem):
    """The request, or the body text in it, is over a limit."""

    status, code, title = 413, "content_too_large", "Content too large"


class Forbidden(Problem):
    """Authenticated, but not allowed."""

    status, code, title = 403, "permission_denied", "Permission denied"


class Invalid(Problem):
    """Input that breaks a rule which a serializer cannot know."""

    status, code, title = 400, "validation_error", "Invalid input"

    def __init__(self, field: str, message: str, code: str = "invalid") -> None:
        super().__init__("The request is not valid.", errors=[{"field": field, "message": message, "code": code}])


def explain(problem: Problem) -> str:
    """Return what a person at a terminal needs to know of a problem."""
    errors = [f"{error['field']}: {error['message']}" for error in problem.extra.get("errors", [])]
    return "; ".join(errors) or problem.detail


def document(*, status: int, code: str, title: str, detail: str, **extra: Any) -> dict[str, Any]:
    """Return a problem document; members whose value is None are left in, as they mean something to the caller."""
    return {
        "type": TYPE_PREFIX + code,
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": request_ids.current(),
        **extra,
    }


def plain(status: int, code: str, title: str, detail: str) -> HttpResponse:
    """Return a problem as an answer of Django's own, outside DRF."""
    body = json.dumps(document(status=status, code=code, title=title, detail=detail))
    return HttpResponse(body, status=status, content_type=PROBLEM_JSON)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer a request that Django itself refused (`handler400`)."""
    return plain(400, "bad_request", "Bad request", "The request is malformed.")


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer a refusal outside the API (`handler403`)."""
    return plain(403, "permission_denied", "Permission denied", "Not allowed.")


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Answer a form without its token (`CSRF_FAILURE_VIEW`)."""
    return plain(403, "csrf_failed", "Permission denied", "The form's token is missing or old; load the page again.")


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer an address that leads nowhere (`handler404`)."""
    return plain(404, "not_found", "Not found", "There is nothing at this address; see /api/docs.")


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer when an unexpected exception was raised (`handler500`); the log has the traceback."""
    return plain(500, "internal_error", "Internal error", SERVER_ERROR_DETAIL)
