"""Changing a password, and setting a forgotten one."""

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from django.core import mail

from engarde.accounts import operations, tokens
from engarde.accounts.models import Mail, Session, User
from engarde.accounts.principal import Principal
from engarde.common.problems import Invalid
from tests.accounts.mailbox import deliver, token_for
from tests.accounts.races import race
from tests.people import PASSWORD, JSONClient, Person, logged_in

NEW = "a-battery-of-horses"


def change(person: Person, current: str = PASSWORD, new: str = NEW) -> Any:
    return person.api.post("/api/auth/password", {"current_password": current, "new_password": new})


def ask(email: str) -> Any:
    return JSONClient().post("/api/auth/password-reset", {"email": email})


def confirm(token: str, new: str = NEW) -> Any:
    return JSONClient().post("/api/auth/password-reset/confirm", {"token": token, "new_password": new})


def log_in_status(email: str, password: str) -> int:
    return int(JSONClient().post("/api/auth/login", {"email": email, "password": password}).status_code)


def test_a_new_password_ends_the_other_sessions_and_not_this_one(bob: Person) -> None:
    elsewhere = logged_in(bob)
    refresh_token = (
        JSONClient().post("/api/auth/login", {"email": bob.email, "password": PASSWORD}).json()["refresh_token"]
    )

    answer = change(bob)

    assert (answer.status_code, answer.content) == (204, b"")
    assert bob.api.get("/api/auth/me").status_code == 200
    assert elsewhere.api.get("/api/auth/me").status_code == 401
    assert JSONClient().post("/api/auth/refresh", {"refresh_token": refresh_token}).status_code == 401
    assert log_in_status(bob.email, PASSWORD) == 401
    assert log_in_status(bob.email, NEW) == 200


def test_changing_it_needs_the_current_one(bob: Person) -> None:
    answer = change(bob, current="not this one")

    assert answer.status_code == 400
    assert [(error["field"], error["code"]) for error in answer.json()["errors"]] == [
        ("current_password", "wrong_password")
    ]
    assert log_in_status(bob.email, PASSWORD) == 200


@pytest.mark.parametrize("weak", ["short", "password1234"])
def test_it_refuses_a_weak_password(bob: Person, weak: str) -> None:
    answer = change(bob, new=weak)

    assert answer.status_code == 400
    assert [(error["field"], error["code"]) for error in answer.json()["errors"]] == [("new_password", "weak_password")]
    assert log_in_status(bob.email, PASSWORD) == 200


def test_an_api_key_has_no_password_to_change(alice: Person) -> None:
    assert change(alice).status_code == 403


def test_nobody_changes_it_with_the_password_from_before_a_reset(bob: Person) -> None:
    user = User.objects.get(id=bob.user_id)
    thief = Principal(id=user.id, method="jwt", tenant=None, scopes=frozenset(), user=user, session_id=uuid4())
    ask(bob.email)
    assert confirm(token_for(bob.email)).status_code == 204

    with pytest.raises(Invalid):
        operations.change_password(principal=thief, current=PASSWORD, new="the-thief-was-here", now=datetime.now(UTC))

    assert log_in_status(bob.email, NEW) == 200


def test_a_login_that_is_under_way_does_not_outlive_a_new_password(bob: Person) -> None:
    user = User.objects.get(id=bob.user_id)
    session = Session.objects.filter(user=user).latest("id")
    owner = Principal(id=user.id, method="jwt", tenant=None, scopes=frozenset(), user=user, session_id=session.id)
    now = datetime.now(UTC)

    race(
        [
            lambda: operations.log_in(email=bob.email, password=PASSWORD, now=now),
            lambda: operations.change_password(principal=owner, current=PASSWORD, new=NEW, now=now),
        ],
        at=User.objects.filter(id=user.id),
    )

    assert list(Session.objects.filter(user=user, ended_at=None)) == [session]


def test_a_forgotten_password_is_set_with_a_link_that_works_once(bob: Person) -> None:
    asked = ask(bob.email.upper())
    token = token_for(bob.email)

    answer = confirm(token)

    assert (asked.status_code, asked.content) == (204, b"")
    assert (answer.status_code, answer.content) == (204, b"")
    assert bob.api.get("/api/auth/me").status_code == 401, "all sessions end"
    assert log_in_status(bob.email, PASSWORD) == 401
    assert log_in_status(bob.email, NEW) == 200
    again = confirm(token, "another-password-1")
    assert again.status_code == 400
    assert again.json()["errors"][0]["field"] == "token"
    assert log_in_status(bob.email, NEW) == 200


def test_of_two_requests_with_one_link_one_wins(bob: Person) -> None:
    ask(bob.email)
    token = token_for(bob.email)

    answers = race(
        [lambda: confirm(token, "first-password-1"), lambda: confirm(token, "second-password-2")],
        at=User.objects.filter(id=bob.user_id),
    )

    assert sorted(answer.status_code for answer in answers) == [204, 400]


def test_a_weak_password_does_not_use_the_link_up(bob: Person) -> None:
    ask(bob.email)
    token = token_for(bob.email)

    assert confirm(token, "short").json()["errors"][0]["field"] == "new_password"
    assert confirm(token).status_code == 204


def test_asking_says_the_same_for_an_unknown_address_and_sends_it_nothing(bob: Person) -> None:
    unknown = f"nobody-{uuid4().hex}@example.com"
    before = Mail.objects.count()

    strange, known = ask(unknown), ask(bob.email)

    assert (strange.status_code, strange.content) == (known.status_code, known.content) == (204, b"")
    assert Mail.objects.count() == before + 1
    assert deliver(unknown) == []
    assert len(deliver(bob.email)) == 1


def test_somebody_who_is_switched_off_gets_no_link(bob: Person) -> None:
    User.objects.filter(id=bob.user_id).update(is_active=False)

    assert ask(bob.email).status_code == 204

    assert deliver(bob.email) == []


def test_a_link_is_good_for_three_days(bob: Person, settings: Any) -> None:
    ask(bob.email)
    token = token_for(bob.email)
    assert settings.PASSWORD_RESET_TIMEOUT == 3 * 24 * 3600

    settings.PASSWORD_RESET_TIMEOUT = -1

    assert confirm(token).status_code == 400


def test_a_link_dies_when_the_password_is_changed_or_the_user_switched_off(bob: Person) -> None:
    ask(bob.email)
    first = token_for(bob.email)
    change(bob)
    assert confirm(first).status_code == 400

    ask(bob.email)
    second = token_for(bob.email)
    User.objects.filter(id=bob.user_id).update(is_active=False)
    assert confirm(second).status_code == 400


def test_a_link_is_good_for_its_own_user_only(bob: Person, charlie: Person) -> None:
    ask(bob.email)
    token = token_for(bob.email)
    uid = tokens.make_mail_token(User.objects.get(id=charlie.user_id)).partition(".")[0]

    assert confirm(f"{uid}.{token.partition('.')[2]}").status_code == 400


@pytest.mark.parametrize("junk", ["x", "x.y", ".", "AAAA.x-y", "é.é", "/w.1-2", "a" * 300])
def test_a_made_up_link_is_refused(database: None, junk: str) -> None:
    answer = confirm(junk)

    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"] == "token"


def test_the_link_leads_to_the_studio(bob: Person, settings: Any) -> None:
    settings.PASSWORD_RESET_URL = "https://studio.example.com/reset?token={token}"
    ask(bob.email)

    text = deliver(bob.email)[-1]

    assert "https://studio.example.com/reset?token=" in text
    assert mail.outbox[-1].subject == "Set a new password for En Garde"


def test_neither_the_outbox_nor_an_answer_holds_a_token(bob: Person) -> None:
    ask(bob.email)
    row = Mail.objects.filter(user_id=bob.user_id).values().get()
    token = token_for(bob.email)

    assert token.rpartition("-")[2] not in str(row)


def test_a_password_needs_somebody_who_is_logged_in(database: None) -> None:
    answer = JSONClient().post("/api/auth/password", {"current_password": PASSWORD, "new_password": NEW})

    assert answer.status_code == 401


def test_a_new_password_leaves_other_people_logged_in(alice: Person, bob: Person) -> None:
    owner = logged_in(alice)

    change(bob)

    assert owner.api.get("/api/auth/me").status_code == 200
    assert log_in_status(alice.email, PASSWORD) == 200
