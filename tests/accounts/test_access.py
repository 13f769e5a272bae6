"""What every call of this room has in common: credentials, methods, ids, bodies and query parameters."""

from typing import Any
from uuid import uuid4

import pytest
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.test import APIRequestFactory
from rest_framework.views import APIView

from engarde.accounts.models import User
from engarde.accounts.permissions import IsStaff
from tests.people import JSONClient, Person, log_in, new_colleague

SOME_ID = "0191d5a0-7c1e-7e3a-9d2b-5f8a6c4b3e21"
CALLS = {
    "/api/auth/login": {"POST"},
    "/api/auth/refresh": {"POST"},
    "/api/auth/logout": {"POST"},
    "/api/auth/me": {"GET"},
    "/api/auth/password": {"POST"},
    "/api/auth/password-reset": {"POST"},
    "/api/auth/password-reset/confirm": {"POST"},
    "/api/members": {"GET", "POST"},
    f"/api/members/{SOME_ID}": {"PATCH", "DELETE"},
    "/api/brands": {"GET", "POST"},
    f"/api/brands/{SOME_ID}": {"GET", "PATCH", "DELETE"},
    "/api/api-keys": {"GET", "POST"},
    f"/api/api-keys/{SOME_ID}": {"DELETE"},
    f"/api/api-keys/{SOME_ID}/rotate": {"POST"},
}
PUBLIC = {path for path in CALLS if path.startswith("/api/auth/")} - {"/api/auth/me", "/api/auth/password"}
WITH_BODY = [(path, method) for path, methods in CALLS.items() for method in sorted(methods & {"POST", "PATCH"})]
LISTS = ["/api/members", "/api/brands", "/api/api-keys"]


def is_problem(answer: Any, status: int) -> bool:
    """Tell whether an answer is a complete problem document with a status."""
    assert answer.status_code == status, (answer.request["PATH_INFO"], answer.content)
    assert answer["Content-Type"] == "application/problem+json"
    body = answer.json()
    return body["status"] == status and {"type", "title", "detail", "code", "request_id"} <= set(body)


@pytest.mark.parametrize("path", sorted(set(CALLS) - PUBLIC))
def test_it_asks_for_credentials(database: None, path: str) -> None:
    for method in CALLS[path]:
        answer = JSONClient().generic(method, path)
        assert is_problem(answer, 401)
        assert answer["WWW-Authenticate"] == 'Bearer realm="engarde"'


@pytest.mark.parametrize("path", sorted(CALLS))
def test_it_says_which_methods_there_are(alice: Person, path: str) -> None:
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE"} - CALLS[path]:
        answer = alice.api.generic(method, path)
        assert is_problem(answer, 405)
        assert {name.strip() for name in answer["Allow"].split(",")} - {"OPTIONS", "HEAD"} == CALLS[path]


@pytest.mark.parametrize(
    "path", ["/api/members/{}", "/api/brands/{}", "/api/api-keys/{}", "/api/api-keys/{}/rotate", "/api/auth/{}"]
)
def test_a_malformed_id_leads_nowhere(alice: Person, path: str) -> None:
    for junk in ("1", "not-an-id", SOME_ID[:-1], SOME_ID + "0", SOME_ID.replace("-", ""), "%00", "é"):
        for method in ("GET", "PATCH", "DELETE"):
            assert is_problem(alice.api.generic(method, path.format(junk)), 404)


@pytest.mark.parametrize(("path", "method"), WITH_BODY)
def test_it_takes_only_json_objects_with_known_fields(alice: Person, path: str, method: str) -> None:
    client = alice.api

    def send(body: bytes, content_type: str = "application/json") -> Any:
        return client.generic(method, path, body, content_type=content_type)  # type: ignore[arg-type]

    assert is_problem(send(b"a=b", "application/x-www-form-urlencoded"), 415)
    assert is_problem(send(b"{}", "text/plain"), 415)
    for broken in (b"{", b"{'a': 1}", b'{"a": NaN}', b'{"a": "\\ud800"}', b"\xff\xfe", b'{"a":1}x', b"[" * 100_000):
        answer = send(broken)
        assert is_problem(answer, 400)
        assert answer.json()["code"] == "invalid_json"
    for shape in (b"[]", b"null", b'"text"', b"1"):
        assert is_problem(send(shape), 400)
    unknown = send(b'{"surprise": 1}')
    assert is_problem(unknown, 400)
    assert {"field": "surprise", "message": "Unknown field.", "code": "unknown_field"} in unknown.json()["errors"]


@pytest.mark.parametrize("path", LISTS)
def test_a_query_parameter_is_refused_and_not_ignored(alice: Person, path: str) -> None:
    for name, values in {
        "page": ["0", "-1", "x", "", "1.5", "1&page=2"],
        "pageSize": ["0", "101", "1e1"],
        "sort": ["name"],
        "q": ["1"],
    }.items():
        for value in values:
            answer = alice.api.get(f"{path}?{name}={value}")
            assert is_problem(answer, 400)
            assert answer.json()["code"] == "validation_error"
            assert [error["field"] for error in answer.json()["errors"]] == [name]


@pytest.mark.parametrize("path", LISTS)
def test_a_page_past_the_end_is_empty(alice: Person, path: str) -> None:
    answer = alice.api.get(f"{path}?page=1000&pageSize=100")

    assert (answer.status_code, answer.json()["data"]) == (200, [])


@pytest.mark.parametrize("role", ["viewer", "editor"])
def test_readers_and_writers_manage_nothing(alice: Person, role: str) -> None:
    person = new_colleague(alice, role)

    for path in ("/api/members", "/api/api-keys", f"/api/members/{SOME_ID}", f"/api/api-keys/{SOME_ID}/rotate"):
        for method in CALLS[path]:
            answer = person.api.generic(method, path, "{}", content_type="application/json")
            assert is_problem(answer, 403)
            assert answer.json()["code"] == "permission_denied"


def test_only_staff_pass_the_door_for_staff(alice: Person) -> None:
    class StaffView(APIView):
        permission_classes: list[type[BasePermission]] = [IsStaff]

        def get(self, request: Request) -> Response:
            return Response({})

    def ask(headers: dict[str, Any]) -> int:
        return int(StaffView.as_view()(APIRequestFactory().get("/", **headers)).status_code)

    email = f"staff-{uuid4().hex}@example.com"
    User.objects.create_user(email, "staff-password-1", is_staff=True)

    assert ask({}) == 401
    assert ask(dict(alice.credentials)) == 403, "a key with every scope"
    assert ask(log_in(alice.email)) == 403, "an owner"
    assert ask(log_in(email, "staff-password-1")) == 200


@pytest.mark.parametrize("path", sorted(CALLS))
def test_a_slash_at_the_end_changes_nothing(alice: Person, path: str) -> None:
    for method in CALLS[path]:
        plain, slashed = alice.api.generic(method, path), alice.api.generic(method, f"{path}/")
        assert plain.status_code == slashed.status_code
        assert plain["Content-Type"] == slashed["Content-Type"]
