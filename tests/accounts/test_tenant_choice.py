"""Which tenant a call acts for, and what /api/auth/me says of it."""

from uuid import uuid4

import pytest

from engarde.accounts.models import User
from tests.people import JSONClient, Person, log_in, logged_in, new_colleague


@pytest.fixture
def double(alice: Person, charlie: Person) -> Person:
    """Charlie, who owns one tenant and is a viewer in alice's."""
    answer = logged_in(alice).api.post("/api/members", {"email": charlie.email, "role": "viewer"})
    assert answer.json()["status"] == "invited"
    both = logged_in(charlie)
    assert both.api.get("/api/auth/me", headers={"X-Tenant-ID": str(alice.tenant_id)}).status_code == 200
    return both


def test_one_membership_is_implied(bob: Person) -> None:
    body = bob.api.get("/api/auth/me").json()

    assert body["active_tenant"]["tenant_id"] == str(bob.tenant_id)
    assert body["memberships"] == [body["active_tenant"]]
    assert (body["authenticated_by"], body["is_staff"]) == ("jwt", False)
    assert body["user"] == {
        "id": str(bob.user_id),
        "email": bob.email,
        "first_name": "",
        "last_name": "",
        "role": "editor",
        "tenant_id": str(bob.tenant_id),
    }
    assert body["scopes"] == ["content:read", "content:write", "generate", "quota:read"]


@pytest.mark.parametrize(
    ("role", "scopes"),
    [
        ("viewer", {"content:read", "quota:read"}),
        ("admin", {"content:read", "content:write", "generate", "quota:read", "admin"}),
        ("owner", {"content:read", "content:write", "generate", "quota:read", "admin"}),
    ],
)
def test_a_role_implies_its_scopes(alice: Person, role: str, scopes: set[str]) -> None:
    assert set(new_colleague(alice, role).api.get("/api/auth/me").json()["scopes"]) == scopes


def test_an_api_key_acts_for_its_tenant(alice: Person) -> None:
    body = alice.api.get("/api/auth/me").json()

    assert (body["user"], body["memberships"], body["authenticated_by"]) == (None, [], "api_key")
    assert body["active_tenant"]["tenant_id"] == str(alice.tenant_id)
    assert body["active_tenant"]["role"] is None


def test_somebody_in_several_tenants_has_to_pick(double: Person, alice: Person) -> None:
    refused = double.api.get("/api/brands")
    everybody = double.api.get("/api/auth/me")

    assert (refused.status_code, refused.json()["code"]) == (403, "tenant_required")
    assert "X-Tenant-ID" in refused.json()["detail"]
    assert everybody.status_code == 200
    assert everybody.json()["active_tenant"] is None
    assert everybody.json()["scopes"] == []
    assert {row["tenant_id"]: row["role"] for row in everybody.json()["memberships"]} == {
        str(double.tenant_id): "owner",
        str(alice.tenant_id): "viewer",
    }


def test_the_header_picks_the_tenant_and_the_role_there(double: Person, alice: Person) -> None:
    own = double.api.get("/api/brands", HTTP_X_TENANT_ID=str(double.tenant_id))
    other = double.api.get("/api/brands", HTTP_X_TENANT_ID=str(alice.tenant_id).upper())

    assert [row["id"] for row in own.json()["data"]] == [str(double.brand_id)]
    assert [row["id"] for row in other.json()["data"]] == [str(alice.brand_id)]
    new = {"name": "x"}
    assert double.api.post("/api/brands", new, HTTP_X_TENANT_ID=str(double.tenant_id)).status_code == 201
    assert double.api.post("/api/brands", new, HTTP_X_TENANT_ID=str(alice.tenant_id)).status_code == 403
    path = f"/api/brands/{alice.brand_id}"
    assert double.api.get(path, HTTP_X_TENANT_ID=str(double.tenant_id)).status_code == 404, "not of the tenant picked"


@pytest.mark.parametrize("wanted", ["foreign", "unknown", "not an id", "é"])
def test_a_tenant_that_is_not_the_callers_is_refused(alice: Person, bob: Person, charlie: Person, wanted: str) -> None:
    named = {"foreign": str(charlie.tenant_id), "unknown": str(uuid4())}.get(wanted, wanted)

    for caller in (alice, bob):
        for path in ("/api/brands", "/api/auth/me"):
            answer = caller.api.get(path, HTTP_X_TENANT_ID=named)
            assert (answer.status_code, answer.json()["code"]) == (403, "tenant_required")


def test_naming_the_only_tenant_is_fine(alice: Person, bob: Person) -> None:
    for caller in (alice, bob):
        assert caller.api.get("/api/brands", HTTP_X_TENANT_ID=str(alice.tenant_id)).status_code == 200


def test_an_invitation_is_no_membership(alice: Person) -> None:
    email = f"dora-{uuid4().hex}@example.com"
    logged_in(alice).api.post("/api/members", {"email": email, "role": "admin"})
    user = User.objects.get(email=email)
    user.set_password("set by other means")
    user.save()
    headers = log_in(email, "set by other means")

    assert JSONClient().get("/api/auth/me", **headers).json()["memberships"] == []  # type: ignore[arg-type]
    for more in ({}, {"HTTP_X_TENANT_ID": str(alice.tenant_id)}):
        assert JSONClient().get("/api/members", **headers, **more).status_code == 403  # type: ignore[arg-type]


def test_staff_log_in_without_a_tenant(database: None) -> None:
    email = f"staff-{uuid4().hex}@example.com"
    User.objects.create_superuser(email, "staff-password-1")

    answer = JSONClient().post("/api/auth/login", {"email": email, "password": "staff-password-1"})

    assert (answer.json()["user"]["role"], answer.json()["user"]["tenant_id"]) == (None, None)
    headers = {"HTTP_AUTHORIZATION": f"Bearer {answer.json()['access_token']}"}
    body = JSONClient().get("/api/auth/me", **headers).json()  # type: ignore[arg-type]
    assert (body["is_staff"], body["active_tenant"]) == (True, None)
    refused = JSONClient().get("/api/brands", **headers)  # type: ignore[arg-type]
    assert (refused.status_code, refused.json()["code"]) == (403, "tenant_required")


def test_the_login_of_somebody_in_several_tenants_suggests_the_oldest(double: Person) -> None:
    answer = JSONClient().post("/api/auth/login", {"email": double.email, "password": "correct-horse-battery"})

    assert answer.json()["user"]["tenant_id"] == str(double.tenant_id)
    assert answer.json()["user"]["role"] == "owner"
