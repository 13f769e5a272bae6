"""Members: adding, inviting, changing and removing people."""

from typing import Any
from uuid import uuid4

import pytest
from django.core import mail

from engarde.accounts.models import Membership, User
from engarde.common.scopes import system_scope
from tests.accounts.mailbox import deliver, token_for
from tests.accounts.races import race
from tests.people import PASSWORD, JSONClient, Person, log_in, logged_in, new_colleague, new_owner

NEW = "a-battery-of-horses"


def address(name: str = "dora") -> str:
    return f"{name}-{uuid4().hex[:12]}@example.com"


def add(person: Person, email: str, role: str = "editor", **more: Any) -> Any:
    return person.api.post("/api/members", {"email": email, "role": role, **more})


def accept(email: str, password: str = NEW) -> None:
    token = token_for(email)
    answer = JSONClient().post("/api/auth/password-reset/confirm", {"token": token, "new_password": password})
    assert answer.status_code == 204, answer.content


def me(headers: dict[str, str], **more: str) -> Any:
    return JSONClient().get("/api/auth/me", **headers, **more)  # type: ignore[arg-type]


def memberships(tenant: Person) -> Any:
    return Membership.objects.filter(tenant_id=tenant.tenant_id)


def role_of(tenant: Person, member: Person) -> str | None:
    with system_scope("a test looks"):
        return memberships(tenant).filter(user_id=member.user_id).values_list("role", flat=True).first()


@pytest.fixture
def owner(alice: Person) -> Person:
    return logged_in(alice)


def test_it_lists_members_and_invitations_oldest_first(owner: Person, bob: Person) -> None:
    add(owner, address(), "viewer")

    answer = owner.api.get("/api/members")

    body = answer.json()
    assert answer.status_code == 200
    assert [(row["role"], row["status"]) for row in body["data"]] == [
        ("owner", "active"),
        ("editor", "active"),
        ("viewer", "invited"),
    ]
    assert set(body["data"][0]) == {"user_id", "email", "first_name", "last_name", "role", "status", "created_at"}
    assert body["data"][1]["email"] == bob.email
    assert body["data"][0]["created_at"].endswith("Z")
    assert body["pagination"] == {
        "page": 1,
        "pageSize": 20,
        "total": 3,
        "totalPages": 1,
        "hasNext": False,
        "hasPrevious": False,
        "nextCursor": None,
    }


def test_it_pages(owner: Person, bob: Person) -> None:
    second = owner.api.get("/api/members?page=2&pageSize=1").json()
    past = owner.api.get("/api/members?page=9&pageSize=1")

    assert [row["user_id"] for row in second["data"]] == [str(bob.user_id)]
    assert (second["pagination"]["hasNext"], second["pagination"]["hasPrevious"]) == (False, True)
    assert (past.status_code, past.json()["data"]) == (200, [])


def test_somebody_added_with_a_password_is_in_at_once(owner: Person) -> None:
    email = address()

    answer = add(owner, email.upper(), "viewer", password=NEW)

    assert answer.status_code == 201
    assert (answer.json()["email"], answer.json()["role"], answer.json()["status"]) == (email, "viewer", "active")
    assert me(log_in(email, NEW)).json()["active_tenant"]["tenant_id"] == str(owner.tenant_id)
    assert deliver(email) == []


def test_somebody_without_a_password_is_invited_by_mail_and_joins_by_its_link(owner: Person) -> None:
    email = address()

    answer = add(owner, email)

    assert (answer.status_code, answer.json()["status"]) == (201, "invited")
    assert "you are invited to" in deliver(email)[0]
    assert mail.outbox[-1].subject.startswith("You are invited to alice's studio")
    assert JSONClient().post("/api/auth/login", {"email": email, "password": ""}).status_code == 400
    accept(email)
    mine = me(log_in(email, NEW)).json()
    assert mine["active_tenant"] == {
        "tenant_id": str(owner.tenant_id),
        "tenant_name": mine["active_tenant"]["tenant_name"],
        "role": "editor",
        "status": "active",
    }
    assert [row["status"] for row in owner.api.get("/api/members").json()["data"]] == ["active", "active"]


def test_somebody_with_an_account_joins_by_acting_for_the_tenant_and_not_before(owner: Person, charlie: Person) -> None:
    answer = add(owner, charlie.email)

    assert (answer.status_code, answer.json()["status"]) == (201, "invited")
    assert "you are invited to" in deliver(charlie.email)[-1]
    credentials = log_in(charlie.email)
    mine = me(credentials).json()
    assert mine["active_tenant"]["tenant_id"] == str(charlie.tenant_id), "an invitation makes no tenant ambiguous"
    assert {row["tenant_id"]: row["status"] for row in mine["memberships"]} == {
        str(charlie.tenant_id): "active",
        str(owner.tenant_id): "invited",
    }

    assert me({**credentials, "HTTP_X_TENANT_ID": str(owner.tenant_id)}).status_code == 200

    assert {row["status"] for row in me(credentials).json()["memberships"]} == {"active"}
    assert me(credentials).json()["active_tenant"] is None, "now there are two to pick from"


def test_of_somebody_who_was_only_invited_nothing_but_the_address_is_told(owner: Person, charlie: Person) -> None:
    User.objects.filter(id=charlie.user_id).update(first_name="Charlotte", last_name="Secret")

    told = add(owner, charlie.email).json()

    assert (told["first_name"], told["last_name"]) == ("", "")


def test_anybody_may_leave_and_viewers_remove_nobody_else(owner: Person) -> None:
    viewer, other = (new_colleague(owner, "viewer", name) for name in ("vera", "otto"))

    assert viewer.api.delete(f"/api/members/{other.user_id}").status_code == 403
    assert viewer.api.delete(f"/api/members/{viewer.user_id}").status_code == 204
    assert viewer.api.get("/api/content").status_code == 403


def test_a_key_cannot_make_a_member_who_may_do_more_than_itself(owner: Person) -> None:
    made = owner.api.post("/api/api-keys", {"name": "admin only", "scopes": ["admin"]}).json()["key"]
    key = JSONClient()
    key.credentials(HTTP_X_API_KEY=made)

    answer = key.post("/api/members", {"email": address(), "role": "viewer", "password": NEW})

    assert (answer.status_code, answer.json()["code"]) == (403, "permission_denied")


def test_somebody_who_knows_the_password_cannot_spoil_an_invitation_by_logging_in(
    owner: Person, charlie: Person
) -> None:
    email = address()
    charlie.api.post("/api/members", {"email": email, "role": "viewer", "password": PASSWORD})
    add(owner, email)
    token = token_for(email)

    log_in(email)

    answer = JSONClient().post("/api/auth/password-reset/confirm", {"token": token, "new_password": NEW})
    assert answer.status_code == 204


def test_whoever_made_the_account_first_does_not_get_in_by_it(owner: Person, charlie: Person) -> None:
    victim = address("victim")
    add(logged_in(charlie), victim, password="known-to-the-attacker")
    attacker = log_in(victim, "known-to-the-attacker")

    answer = add(owner, victim, "admin")

    assert answer.json()["status"] == "invited"
    assert [row["tenant_id"] for row in me(attacker).json()["memberships"]] == [str(charlie.tenant_id)]
    assert me(attacker, HTTP_X_TENANT_ID=str(owner.tenant_id)).status_code == 403
    accept(victim)
    assert me(attacker).status_code == 401
    assert (
        JSONClient().post("/api/auth/login", {"email": victim, "password": "known-to-the-attacker"}).status_code == 401
    )
    assert me(log_in(victim, NEW), HTTP_X_TENANT_ID=str(owner.tenant_id)).status_code == 200


def test_the_password_of_an_account_is_not_somebody_elses_to_set(owner: Person, charlie: Person) -> None:
    answer = add(owner, charlie.email, password=NEW)

    assert (answer.status_code, answer.json()["code"]) == (409, "user_exists")
    assert log_in(charlie.email)


def test_nobody_is_added_twice(owner: Person, bob: Person) -> None:
    email = address()
    add(owner, email)

    again, member = add(owner, email), add(owner, bob.email)

    assert (again.status_code, again.json()["status"]) == (201, "invited"), "the mail is sent again"
    assert (member.status_code, member.json()["code"]) == (409, "already_member")
    assert len(deliver(email)) == 2
    assert [row["email"] for row in owner.api.get("/api/members").json()["data"]].count(email) == 1


def test_an_invitation_can_be_taken_back_and_sent_again(owner: Person) -> None:
    email = address()
    user_id = add(owner, email).json()["user_id"]

    assert owner.api.delete(f"/api/members/{user_id}").status_code == 204
    accept(email)
    assert me(log_in(email, NEW)).json()["memberships"] == [], "taken back"

    assert add(owner, email).json()["status"] == "invited"
    assert me(log_in(email, NEW)).json()["active_tenant"]["tenant_id"] == str(owner.tenant_id)


def test_two_tenants_that_invite_one_new_person_at_once_make_one_account(owner: Person, charlie: Person) -> None:
    email, other = address(), logged_in(charlie)

    answers = race(
        [lambda: add(owner, email), lambda: add(other, email)],
        at=memberships(owner),  # nobody waits there; the calls run side by side
    )

    assert [answer.status_code for answer in answers] == [201, 201]
    assert User.objects.filter(email=email).count() == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"role": "editor"}, "email"),
        ({"email": "dora@example.com"}, "role"),
        ({"email": "dora", "role": "editor"}, "email"),
        ({"email": 1, "role": "editor"}, "email"),
        ({"email": "dora\0@example.com", "role": "editor"}, "email"),
        ({"email": "dora@example.com", "role": "boss"}, "role"),
        ({"email": "dora@example.com", "role": None}, "role"),
        ({"email": "dora@example.com", "role": ["owner"]}, "role"),
        ({"email": "new-dora@example.com", "role": "editor", "password": "short"}, "password"),
        ({"email": "dora@example.com", "role": "editor", "password": None}, "password"),
        ({"email": "dora@example.com", "role": "editor", "is_staff": True}, "is_staff"),
    ],
)
def test_it_names_the_field_that_is_wrong(owner: Person, body: dict[str, Any], field: str) -> None:
    answer = owner.api.post("/api/members", body)

    assert answer.status_code == 400
    assert {error["field"] for error in answer.json()["errors"]} == {field}


def test_an_address_that_grows_in_lower_case_is_still_too_long(owner: Person) -> None:
    longest = "a" * 60 + "@" + ".".join(["\u0130" * 30] * 6) + ".com"
    assert len(longest) < 254 < len(longest.lower())

    answer = add(owner, longest)

    assert answer.status_code == 400
    assert {error["field"] for error in answer.json()["errors"]} == {"email"}


def test_a_role_changes_what_somebody_may_do_at_once(owner: Person, bob: Person) -> None:
    assert bob.api.get("/api/members").status_code == 403

    answer = owner.api.patch(f"/api/members/{bob.user_id}", {"role": "admin"})

    assert (answer.status_code, answer.json()["role"]) == (200, "admin")
    assert bob.api.get("/api/members").status_code == 200


def test_somebody_who_is_removed_is_out_at_once(owner: Person, bob: Person) -> None:
    answer = owner.api.delete(f"/api/members/{bob.user_id}")

    assert (answer.status_code, answer.content) == (204, b"")
    refused = bob.api.get("/api/brands")
    assert (refused.status_code, refused.json()["code"]) == (403, "tenant_required")
    assert owner.api.delete(f"/api/members/{bob.user_id}").status_code == 404


def test_an_admin_neither_makes_nor_changes_nor_removes_an_owner(owner: Person, alice: Person, bob: Person) -> None:
    admin = new_colleague(owner, "admin")

    answers = [
        add(admin, address(), "owner"),
        admin.api.patch(f"/api/members/{bob.user_id}", {"role": "owner"}),
        admin.api.patch(f"/api/members/{admin.user_id}", {"role": "owner"}),
        admin.api.patch(f"/api/members/{alice.user_id}", {"role": "viewer"}),
        admin.api.delete(f"/api/members/{alice.user_id}"),
    ]

    assert [answer.status_code for answer in answers] == [403] * 5
    assert (role_of(owner, alice), role_of(owner, bob), role_of(owner, admin)) == ("owner", "editor", "admin")


def test_an_admin_manages_everybody_else(owner: Person, bob: Person) -> None:
    admin = new_colleague(owner, "admin")

    answers = [
        add(admin, address(), "admin"),
        admin.api.patch(f"/api/members/{bob.user_id}", {"role": "viewer"}),
        admin.api.delete(f"/api/members/{bob.user_id}"),
        admin.api.delete(f"/api/members/{admin.user_id}"),
    ]

    assert [answer.status_code for answer in answers] == [201, 200, 204, 204]


def test_an_api_key_is_no_owner_even_with_every_scope(alice: Person, bob: Person) -> None:
    answers = [
        add(alice, address(), "owner"),
        alice.api.patch(f"/api/members/{bob.user_id}", {"role": "owner"}),
        alice.api.delete(f"/api/members/{alice.user_id}"),
        add(alice, address(), "editor"),
    ]

    assert [answer.status_code for answer in answers] == [403, 403, 403, 201]


def test_an_outsider_finds_nobody(owner: Person, bob: Person, charlie: Person) -> None:
    outsider, unknown = logged_in(charlie), uuid4()

    for user_id in (bob.user_id, owner.user_id, unknown):
        answers = [
            outsider.api.patch(f"/api/members/{user_id}", {"role": "viewer"}),
            outsider.api.delete(f"/api/members/{user_id}"),
        ]
        assert [(answer.status_code, answer.json()["detail"]) for answer in answers] == [
            (404, "There is no such member.")
        ] * 2
    assert [row["user_id"] for row in outsider.api.get("/api/members").json()["data"]] == [str(charlie.user_id)]
    assert (role_of(owner, bob), role_of(owner, owner)) == ("editor", "owner")


def test_the_last_owner_stays(owner: Person) -> None:
    answers = [
        owner.api.delete(f"/api/members/{owner.user_id}"),
        owner.api.patch(f"/api/members/{owner.user_id}", {"role": "admin"}),
    ]

    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(409, "last_owner")] * 2
    assert owner.api.patch(f"/api/members/{owner.user_id}", {"role": "owner"}).status_code == 200
    assert role_of(owner, owner) == "owner"


def test_an_owner_may_leave_another_one_in_charge(owner: Person) -> None:
    successor = new_colleague(owner, "owner")

    assert owner.api.delete(f"/api/members/{owner.user_id}").status_code == 204

    assert role_of(owner, successor) == "owner"


def test_an_owner_who_has_not_accepted_or_is_switched_off_is_not_in_charge(owner: Person) -> None:
    add(owner, address(), "owner")
    away = new_colleague(owner, "owner")
    User.objects.filter(id=away.user_id).update(is_active=False)

    assert owner.api.delete(f"/api/members/{owner.user_id}").status_code == 409
    assert owner.api.delete(f"/api/members/{away.user_id}").status_code == 204


@pytest.mark.parametrize("how", ["remove", "demote", "leave"])
def test_two_owners_at_once_leave_one(how: str, owner: Person) -> None:
    other = new_colleague(owner, "owner", "erin")
    pairs = [(owner, owner), (other, other)] if how == "leave" else [(owner, other), (other, owner)]

    def act(who: Person, whom: Person) -> Any:
        path = f"/api/members/{whom.user_id}"
        return who.api.patch(path, {"role": "editor"}) if how == "demote" else who.api.delete(path)

    answers = race([lambda pair=pair: act(*pair) for pair in pairs], at=memberships(owner))  # type: ignore[misc]

    assert sorted(answer.status_code for answer in answers) in ([200, 409], [204, 409])
    with system_scope("a test looks"):
        assert memberships(owner).filter(role="owner").count() == 1


def test_two_requests_for_one_person_add_one(owner: Person, charlie: Person) -> None:
    answers = race([lambda: add(owner, charlie.email)] * 2, at=User.objects.filter(id=charlie.user_id))

    assert [answer.status_code for answer in answers] == [201, 201]
    assert [row["email"] for row in owner.api.get("/api/members").json()["data"]].count(charlie.email) == 1


def test_an_invitation_of_one_tenant_is_not_seen_by_another(owner: Person) -> None:
    email, third = address(), logged_in(new_owner("dave"))
    user_id = add(owner, email).json()["user_id"]

    assert third.api.delete(f"/api/members/{user_id}").status_code == 404
    assert email not in third.api.get("/api/members").content.decode()


def test_the_name_of_a_tenant_cannot_add_a_header_to_a_mail(database: None) -> None:
    sly = logged_in(new_owner("sly\r\nBcc: everybody@example.com"))
    email = address()
    add(sly, email)

    assert len(deliver(email)) == 1
    assert mail.outbox[-1].recipients() == [email]
    assert "\n" not in mail.outbox[-1].subject
