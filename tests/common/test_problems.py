"""Errors as RFC 9457 problems, whatever raises them."""

from typing import Any

import pytest
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.http import Http404
from django.test import RequestFactory
from rest_framework import exceptions
from rest_framework.test import APIClient

from engarde.common import problems
from engarde.common.exceptions import exception_handler
from engarde.common.problems import Forbidden, Invalid, NotFound, Problem, TooLarge, explain
from tests.people import Person

MEMBERS = {"type", "title", "status", "detail", "code", "request_id"}


class Teapot(Problem):
    """A room's own error."""

    status, code, title = 418, "teapot", "I am a teapot"


def handled(error: Exception) -> Any:
    answer = exception_handler(error, {})
    assert answer is not None
    assert answer.content_type == "application/problem+json"
    assert answer.data.keys() >= MEMBERS
    assert answer.data["status"] == answer.status_code
    assert answer.data["type"] == f"urn:engarde:problem:{answer.data['code']}"
    return answer


def test_it_keeps_a_rooms_members_and_headers() -> None:
    answer = handled(Teapot("Short and stout.", headers={"Retry-After": "7"}, spout=None, handle=1))

    assert (answer.status_code, answer["Retry-After"]) == (418, "7")
    assert answer.data["detail"] == "Short and stout."
    assert (answer.data["spout"], answer.data["handle"]) == (None, 1)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (NotFound("brand"), 404, "not_found"),
        (Http404("with a hint that stays inside"), 404, "not_found"),
        (Forbidden("no"), 403, "permission_denied"),
        (PermissionDenied("no"), 403, "permission_denied"),
        (TooLarge("big"), 413, "content_too_large"),
        (exceptions.NotAuthenticated(), 401, "not_authenticated"),
        (exceptions.AuthenticationFailed(), 401, "authentication_failed"),
        (exceptions.MethodNotAllowed("PUT"), 405, "method_not_allowed"),
        (exceptions.UnsupportedMediaType("text/csv"), 415, "unsupported_media_type"),
        (exceptions.ParseError("bad", code="invalid_json"), 400, "invalid_json"),
    ],
)
def test_it_gives_each_error_its_status_and_code(error: Exception, status: int, code: str) -> None:
    answer = handled(error)

    assert (answer.status_code, answer.data["code"]) == (status, code)
    assert "hint" not in answer.data["detail"]


@pytest.mark.parametrize(("wait", "header"), [(0.0, "1"), (0.2, "1"), (2.0, "2"), (2.1, "3"), (3.0, "3")])
def test_it_says_in_whole_seconds_when_to_come_back(wait: float, header: str) -> None:
    error: Any = exceptions.Throttled()
    error.wait = wait

    assert handled(error)["Retry-After"] == header


def test_it_names_each_bad_field_by_its_path() -> None:
    detail: Any = {"tags": {0: ["Too long."]}, "a": {"b": ["Bad."]}, "c": ["1", "2"]}

    answer = handled(exceptions.ValidationError(detail))

    assert answer.data["code"] == "validation_error"
    assert [(error["field"], error["message"]) for error in answer.data["errors"]] == [
        ("tags.0", "Too long."),
        ("a.b", "Bad."),
        ("c", "1"),
        ("c", "2"),
    ]
    assert {error["code"] for error in answer.data["errors"]} == {"invalid"}


def test_it_says_when_no_single_field_is_to_blame() -> None:
    [error] = handled(exceptions.ValidationError("Nonsense.")).data["errors"]

    assert error["field"] == "non_field_errors"


def test_it_leaves_a_bug_to_django_so_that_it_is_logged_and_reported() -> None:
    assert exception_handler(KeyError("a bug"), {}) is None


def test_it_explains_a_problem_at_a_terminal() -> None:
    assert explain(Teapot("Short and stout.")) == "Short and stout."
    assert explain(Invalid("tier", "There is no such plan.")) == "tier: There is no such plan."


# Django's own error pages


@pytest.mark.parametrize(
    ("page", "status", "code"),
    [
        (lambda request: problems.bad_request(request, SuspiciousOperation("secret")), 400, "bad_request"),
        (lambda request: problems.permission_denied(request, PermissionDenied("secret")), 403, "permission_denied"),
        (lambda request: problems.not_found(request, Http404("secret")), 404, "not_found"),
        (problems.server_error, 500, "internal_error"),
    ],
)
def test_it_has_no_html_among_djangos_pages(page: Any, status: int, code: str) -> None:
    answer = page(RequestFactory().get("/"))

    assert answer.status_code == status
    assert answer["Content-Type"] == "application/problem+json"
    assert f'"code":"{code}"'.encode() in answer.content
    assert b"secret" not in answer.content


@pytest.mark.parametrize("path", ["/api/nothing", "/api", "/nothing/"])
def test_it_answers_an_unknown_address_with_a_problem(path: str) -> None:
    answer = APIClient().get(path)

    assert (answer.status_code, answer["Content-Type"]) == (404, "application/problem+json")
    assert answer.json().keys() == MEMBERS
    assert answer.json()["request_id"] == answer["X-Request-ID"]


def test_it_answers_a_foreign_host_with_a_problem() -> None:
    answer = APIClient().get("/api/content", HTTP_HOST="evil.example")

    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
    assert APIClient().get("/health/live", HTTP_HOST="10.0.0.7").status_code == 200, "probes come by address"


def test_it_answers_a_bug_with_a_500_that_tells_nothing_but_the_request_id(
    alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug(**_: Any) -> None:
        raise KeyError("a secret detail")

    monkeypatch.setattr("content.lists.list_items", bug)
    client = alice.api
    client.raise_request_exception = False

    answer = client.get("/api/content")

    assert (answer.status_code, answer["Content-Type"]) == (500, "application/problem+json")
    assert answer.json().keys() == MEMBERS
    assert answer.json()["code"] == "internal_error"
    assert answer.json()["request_id"] == answer["X-Request-ID"]
    assert b"secret detail" not in answer.content


def test_it_says_which_methods_there_are(alice: Person) -> None:
    answer = alice.api.put("/api/content", {})

    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert {"GET", "POST"} <= set(answer["Allow"].split(", "))


def test_it_answers_with_a_slash_at_the_end_as_without(alice: Person) -> None:
    item_id = alice.writes()["id"]

    assert alice.api.get(f"/api/content/{item_id}/").json() == alice.api.get(f"/api/content/{item_id}").json()
    assert alice.api.post("/api/content/", {"title": "A", "type": "post"}).status_code == 201


@pytest.mark.parametrize(("path", "to"), [("/", "/api/docs"), ("/admin", "/admin/")])
def test_it_leads_people_from_bare_addresses_to_pages(path: str, to: str) -> None:
    answer = APIClient().get(path)

    assert (answer.status_code, answer["Location"]) == (302, to)
