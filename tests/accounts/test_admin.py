"""The admin's pages for this room, for staff who log in with an address and a password."""

from typing import Any
from uuid import uuid4

import pytest
from django.test import Client

from engarde.accounts.models import ApiKey, Membership, Tenant, User
from engarde.common.scopes import system_scope
from tests.people import PASSWORD, JSONClient, Person, log_in

STAFF_PASSWORD = "staff-password-1"


@pytest.fixture
def staff(database: None) -> Client:
    """A browser in which a member of staff has logged in by the form."""
    email = f"staff-{uuid4().hex[:12]}@example.com"
    User.objects.create_superuser(email, STAFF_PASSWORD)
    browser = Client()
    answer = browser.post("/admin/login/?next=/admin/", {"username": email, "password": STAFF_PASSWORD})
    assert (answer.status_code, answer["Location"]) == (302, "/admin/")
    return browser


def fields_of(answer: Any) -> dict[str, Any]:
    """Return what a browser would send back from a change page."""
    form = answer.context["adminform"].form
    forms = [form, *(row for inline in answer.context["inline_admin_formsets"] for row in inline.formset.forms)]
    managers = [inline.formset.management_form for inline in answer.context["inline_admin_formsets"]]
    values = {field.html_name: field.value() for each in [*forms, *managers] for field in each}
    return {name: value for name, value in values.items() if value is not None and value is not False}


def test_the_front_page_lists_this_room(staff: Client) -> None:
    page = staff.get("/admin/").content.decode()

    for name in ("People", "Tenants", "API keys"):
        assert name in page


@pytest.mark.parametrize("model", ["user", "tenant", "apikey"])
def test_a_list_can_be_looked_at_and_searched(staff: Client, alice: Person, model: str) -> None:
    listed = staff.get(f"/admin/accounts/{model}/")
    found = staff.get(f"/admin/accounts/{model}/", {"q": "alice"})

    assert (listed.status_code, found.status_code) == (200, 200)


def test_a_tenant_is_found_by_its_id(staff: Client, alice: Person, charlie: Person) -> None:
    page = staff.get("/admin/accounts/tenant/", {"q": str(alice.tenant_id)}).content.decode()

    assert str(alice.tenant_id) in page
    assert str(charlie.tenant_id) not in page


def test_every_object_has_a_page(staff: Client, alice: Person) -> None:
    with system_scope("a test looks"):
        key = ApiKey.objects.get(tenant_id=alice.tenant_id)

    pages = [
        staff.get(f"/admin/accounts/user/{alice.user_id}/change/"),
        staff.get(f"/admin/accounts/tenant/{alice.tenant_id}/change/"),
        staff.get(f"/admin/accounts/apikey/{key.id}/change/"),
        staff.get(f"/admin/accounts/user/{alice.user_id}/password/"),
        staff.get(f"/admin/accounts/user/{alice.user_id}/history/"),
        staff.get(f"/admin/accounts/user/{alice.user_id}/delete/"),
        staff.get("/admin/accounts/user/add/"),
        staff.get(f"/admin/accounts/tenant/{alice.tenant_id}/delete/"),
    ]

    assert [page.status_code for page in pages] == [200] * 8
    assert bytes(key.secret_hash).hex() not in pages[2].content.decode()
    assert "secret" not in pages[2].content.decode().lower()


def test_a_user_is_added_whatever_the_case_of_the_address(staff: Client) -> None:
    email = f"Frank-{uuid4().hex[:12]}@Example.com"

    answer = staff.post(
        "/admin/accounts/user/add/",
        {"email": email, "password1": PASSWORD, "password2": PASSWORD, "usable_password": "true"},
    )

    assert answer.status_code == 302, answer.context["adminform"].form.errors
    assert log_in(email.lower())


def test_a_second_account_with_the_same_address_is_refused_politely(staff: Client, alice: Person) -> None:
    answer = staff.post(
        "/admin/accounts/user/add/",
        {"email": alice.email.upper(), "password1": PASSWORD, "password2": PASSWORD, "usable_password": "true"},
    )

    assert answer.status_code == 200
    assert "email" in answer.context["adminform"].form.errors


def test_switching_a_user_off_ends_the_users_sessions(staff: Client, bob: Person) -> None:
    page = f"/admin/accounts/user/{bob.user_id}/change/"
    fields = fields_of(staff.get(page))
    del fields["is_active"]

    assert staff.post(page, fields).status_code == 302

    assert bob.api.get("/api/auth/me").status_code == 401


def test_a_password_that_staff_set_ends_the_users_sessions(staff: Client, bob: Person) -> None:
    answer = staff.post(
        f"/admin/accounts/user/{bob.user_id}/password/",
        {"password1": "set-by-staff-1", "password2": "set-by-staff-1", "usable_password": "true"},
    )

    assert answer.status_code == 302
    assert bob.api.get("/api/auth/me").status_code == 401
    assert log_in(bob.email, "set-by-staff-1")


def test_a_tenant_is_renamed_and_its_members_changed(staff: Client, alice: Person, bob: Person) -> None:
    page = f"/admin/accounts/tenant/{alice.tenant_id}/change/"
    fields = fields_of(staff.get(page))
    roles = {name: value for name, value in fields.items() if name.endswith("-role")}
    assert sorted(roles.values()) == ["editor", "owner"]
    bobs = next(name for name, value in roles.items() if value == "editor")

    answer = staff.post(page, {**_split_times(fields), "name": "Renamed", bobs: "admin"})

    assert answer.status_code == 302, answer.content
    with system_scope("a test looks"):
        assert Tenant.objects.get(id=alice.tenant_id).name == "Renamed"
        assert Membership.objects.get(user_id=bob.user_id).role == "admin"


def _split_times(fields: dict[str, Any]) -> dict[str, Any]:
    """Send times as the admin's two inputs do."""
    sent: dict[str, Any] = {}
    for name, value in fields.items():
        if hasattr(value, "date"):
            sent |= {f"{name}_0": f"{value:%Y-%m-%d}", f"{name}_1": f"{value:%H:%M:%S}"}
        else:
            sent[name] = value
    return sent


def test_keys_and_tenants_are_not_made_here(staff: Client, alice: Person) -> None:
    assert staff.get("/admin/accounts/apikey/add/").status_code == 403
    assert staff.get("/admin/accounts/tenant/add/").status_code == 403


def test_others_are_kept_out(alice: Person) -> None:
    browser = Client()

    assert browser.get("/admin/").status_code == 302
    answer = browser.post("/admin/login/?next=/admin/", {"username": alice.email, "password": PASSWORD})
    assert answer.status_code == 200
    assert browser.get("/admin/accounts/user/").status_code == 302
    assert JSONClient().get("/admin/accounts/user/", **alice.credentials).status_code == 302  # type: ignore[arg-type]


def test_somebody_with_a_wrong_password_stays_outside(database: None) -> None:
    email = f"staff-{uuid4().hex[:12]}@example.com"
    User.objects.create_superuser(email, STAFF_PASSWORD)

    answer = Client().post("/admin/login/?next=/admin/", {"username": email, "password": "wrong"})

    assert answer.status_code == 200


@pytest.mark.usefixtures("three_tries")
def test_nobody_guesses_on_and_on_at_either_door(alice: Person) -> None:
    email = f"staff-{uuid4().hex[:12]}@example.com"
    User.objects.create_superuser(email, STAFF_PASSWORD)

    def log_in_here(password: str) -> Any:
        return Client().post("/admin/login/?next=/admin/", {"username": email, "password": password})

    assert [log_in_here(f"guess {number}").status_code for number in range(3)] == [200] * 3
    refused = log_in_here(STAFF_PASSWORD)
    by_api = JSONClient().post("/api/auth/login", {"email": email, "password": STAFF_PASSWORD})

    assert (refused.status_code, by_api.status_code) == (200, 429)
    assert "Too many tries" in refused.content.decode()
