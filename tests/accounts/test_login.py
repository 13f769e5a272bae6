"""Logging in, refreshing and logging out."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import jwt
import pytest
from django.conf import settings as django_settings
from django.contrib.auth.hashers import MD5PasswordHasher

from engarde.accounts import operations, tokens
from engarde.accounts.models import Session, User
from engarde.common import throttles
from tests.accounts.races import race
from tests.people import PASSWORD, JSONClient, Person, log_in

NOW = datetime.now(UTC)


def login(email: str, password: str = PASSWORD) -> Any:
    return JSONClient().post("/api/auth/login", {"email": email, "password": password})


def tokens_of(person: Person) -> dict[str, Any]:
    return login(person.email).json()


def spend(refresh_token: str) -> Any:
    return JSONClient().post("/api/auth/refresh", {"refresh_token": refresh_token})


def me(access_token: str) -> Any:
    return JSONClient().get("/api/auth/me", HTTP_AUTHORIZATION=f"Bearer {access_token}")


def without_id(answer: Any) -> dict[str, Any]:
    return {name: value for name, value in answer.json().items() if name != "request_id"}


def test_it_hands_out_tokens_and_says_whose_they_are(alice: Person) -> None:
    answer = login(alice.email)

    body = answer.json()
    assert answer.status_code == 200
    assert set(body) == {"access_token", "refresh_token", "token_type", "expires_in", "user"}
    assert (body["token_type"], body["expires_in"]) == ("bearer", 900)
    assert body["user"] == {
        "id": str(alice.user_id),
        "email": alice.email,
        "first_name": "",
        "last_name": "",
        "role": "owner",
        "tenant_id": str(alice.tenant_id),
    }
    assert me(body["access_token"]).status_code == 200
    last_login = User.objects.get(id=alice.user_id).last_login
    assert last_login is not None
    assert last_login >= NOW


def test_it_takes_the_address_in_any_case_and_with_a_slash_at_the_end(alice: Person) -> None:
    answer = JSONClient().post("/api/auth/login/", {"email": f" {alice.email.upper()} ", "password": PASSWORD})

    assert answer.status_code == 200


def test_it_says_the_same_to_an_unknown_user_a_wrong_password_and_one_switched_off(
    alice: Person, charlie: Person
) -> None:
    User.objects.filter(id=charlie.user_id).update(is_active=False)

    answers = [login("nobody@example.com"), login(alice.email, "a wrong password"), login(charlie.email)]

    assert [answer.status_code for answer in answers] == [401] * 3
    assert without_id(answers[0]) == without_id(answers[1]) == without_id(answers[2])
    assert answers[0].json()["code"] == "invalid_credentials"
    assert all(answer["WWW-Authenticate"].startswith("Bearer") for answer in answers)


def test_it_hashes_as_much_for_everybody(alice: Person, charlie: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    User.objects.filter(id=charlie.user_id).update(is_active=False)
    invited = f"invited-{uuid4().hex}@example.com"
    User.objects.create_user(invited)
    for person in (alice, charlie):  # whose passwords were hashed under production's hasher may be upgraded once
        login(person.email)
    hashed: list[str] = []
    encode = MD5PasswordHasher.encode

    def count(*arguments: Any) -> str:
        hashed.append("once")
        return encode(*arguments)

    monkeypatch.setattr(MD5PasswordHasher, "encode", count)

    for email, password in [
        ("nobody@example.com", "x"),
        (alice.email, "x"),
        (charlie.email, "x"),
        (charlie.email, PASSWORD),
        (invited, "x"),
    ]:
        hashed.clear()
        assert login(email, password).status_code == 401
        assert hashed == ["once"], email


def test_it_does_not_start_a_session_with_a_password_that_was_replaced_meanwhile(
    alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = User.objects.get(id=alice.user_id)
    User.objects.filter(id=alice.user_id).update(password="replaced while the old one was being hashed")
    monkeypatch.setattr(operations, "authenticate", lambda **_: checked)

    with pytest.raises(operations.BadCredentials):
        operations.log_in(email=alice.email, password=PASSWORD, now=NOW)

    assert not Session.objects.filter(user=checked).exists()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "email"),
        ({"email": "a@example.com"}, "password"),
        ({"email": "a@example.com", "password": ""}, "password"),
        ({"email": "a@example.com", "password": None}, "password"),
        ({"email": "a@example.com", "password": 12345678}, "password"),
        ({"email": ["a@example.com"], "password": "x"}, "email"),
        ({"email": "a\0@example.com", "password": "x"}, "email"),
        ({"email": "a" * 255, "password": "x"}, "email"),
        ({"email": "a@example.com", "password": "x", "admin": True}, "admin"),
        ([], "non_field_errors"),
        ("text", "non_field_errors"),
        (None, "non_field_errors"),
    ],
)
def test_it_names_the_field_that_is_wrong(database: None, body: Any, field: str) -> None:
    raw = json.dumps(body)

    answer = JSONClient().post("/api/auth/login", raw, content_type="application/json")

    assert answer.status_code == 400
    assert answer.json()["code"] == "validation_error"
    assert field in [error["field"] for error in answer.json()["errors"]]


def test_a_refresh_token_is_spent_for_a_new_pair(alice: Person) -> None:
    first = tokens_of(alice)

    answer = spend(first["refresh_token"])

    second = answer.json()
    assert answer.status_code == 200
    assert set(second) == set(first)
    assert second["refresh_token"] != first["refresh_token"]
    assert me(second["access_token"]).status_code == 200
    again = spend(first["refresh_token"])
    assert (again.status_code, again.json()["code"]) == (401, "invalid_credentials")
    assert again["WWW-Authenticate"].startswith("Bearer")
    assert spend(second["refresh_token"]).status_code == 200


def test_of_many_requests_with_one_refresh_token_exactly_one_wins(alice: Person) -> None:
    token = tokens_of(alice)["refresh_token"]

    answers = race([lambda: spend(token)] * 4, at=Session.objects.filter(user_id=alice.user_id))

    assert sorted(answer.status_code for answer in answers) == [200, 401, 401, 401]
    winner = next(answer.json() for answer in answers if answer.status_code == 200)
    assert spend(winner["refresh_token"]).status_code == 200


def test_a_refresh_token_ends_with_its_session_and_with_its_user(alice: Person) -> None:
    token = tokens_of(alice)["refresh_token"]
    later = datetime.now(UTC) + timedelta(seconds=django_settings.REFRESH_TOKEN_SECONDS + 1)

    with pytest.raises(operations.BadCredentials):
        operations.refresh(refresh_token=token, now=later)

    User.objects.filter(id=alice.user_id).update(is_active=False)
    assert spend(token).status_code == 401


@pytest.mark.parametrize("junk", ["x", f"{uuid4()}.secret", "{}.", "é.é"])
def test_a_made_up_refresh_token_is_refused(database: None, junk: str) -> None:
    assert spend(junk).status_code == 401


def test_the_database_holds_no_refresh_token(alice: Person) -> None:
    token = tokens_of(alice)["refresh_token"]

    session = Session.objects.get(user_id=alice.user_id)

    assert bytes(session.refresh_hash) == tokens.digest(token)
    assert len(bytes(session.refresh_hash)) == 32


def test_logging_out_ends_both_tokens_at_once(alice: Person) -> None:
    pair = tokens_of(alice)

    answer = JSONClient().post("/api/auth/logout", {"refresh_token": pair["refresh_token"]})

    assert (answer.status_code, answer.content) == (204, b"")
    assert spend(pair["refresh_token"]).status_code == 401
    assert me(pair["access_token"]).status_code == 401


def test_logging_out_with_a_spent_token_ends_nothing(alice: Person) -> None:
    spent = tokens_of(alice)["refresh_token"]
    pair = spend(spent).json()

    assert JSONClient().post("/api/auth/logout", {"refresh_token": spent}).status_code == 204

    assert me(pair["access_token"]).status_code == 200


def test_logging_out_leaves_other_logins_alone(alice: Person) -> None:
    here, there = tokens_of(alice), tokens_of(alice)

    JSONClient().post("/api/auth/logout", {"refresh_token": here["refresh_token"]})

    assert me(there["access_token"]).status_code == 200


def test_an_access_token_ends_after_fifteen_minutes(alice: Person) -> None:
    tokens_of(alice)
    session = Session.objects.get(user_id=alice.user_id)

    def made(ago: timedelta) -> str:
        return tokens.make_access_token(user_id=alice.user_id, session_id=session.id, now=datetime.now(UTC) - ago)

    assert me(made(timedelta(minutes=14, seconds=50))).status_code == 200
    assert me(made(timedelta(minutes=15, seconds=1))).status_code == 401
    assert me(made(-timedelta(seconds=20))).status_code == 200, "another host's clock may be ahead"


def test_a_forged_access_token_is_refused(alice: Person, charlie: Person) -> None:
    token = tokens_of(alice)["access_token"]
    claims = jwt.decode(token, options={"verify_signature": False})
    key = django_settings.SECRET_KEY
    forged = [
        jwt.encode(claims, "another-key-of-some-length-0123456789", algorithm="HS256"),
        jwt.encode(claims, "", algorithm="none"),
        jwt.encode({**claims, "sub": str(charlie.user_id)}, key, algorithm="HS256"),  # somebody else's session
        jwt.encode({**claims, "aud": "another-service"}, key, algorithm="HS256"),
        jwt.encode({name: claims[name] for name in ("sub", "sid", "aud")}, key, algorithm="HS256"),  # never expires
        jwt.encode({**claims, "sid": "not an id"}, key, algorithm="HS256"),
        token[:-4],
        "junk",
    ]

    answers = [me(text) for text in forged]

    assert [answer.status_code for answer in answers] == [401] * len(forged)
    assert all(answer["WWW-Authenticate"] == 'Bearer realm="engarde"' for answer in answers)
    assert me(token).status_code == 200


def test_a_user_who_is_switched_off_is_out_at_once(alice: Person) -> None:
    token = tokens_of(alice)["access_token"]

    User.objects.filter(id=alice.user_id).update(is_active=False)

    assert me(token).status_code == 401


@pytest.mark.parametrize("header", ["Basic YWxpY2U6cGFzcw==", "Bearer", "Bearer ", "Token abc"])
def test_another_scheme_is_refused(database: None, header: str) -> None:
    answer = JSONClient().get("/api/auth/me", HTTP_AUTHORIZATION=header)

    assert answer.status_code == 401
    assert answer["WWW-Authenticate"].startswith("Bearer")


def test_stale_credentials_do_not_keep_anybody_from_logging_in(alice: Person) -> None:
    client = JSONClient()
    client.credentials(HTTP_AUTHORIZATION="Bearer stale")

    answer = client.post("/api/auth/login", {"email": alice.email, "password": PASSWORD})

    assert answer.status_code == 200


@pytest.mark.usefixtures("three_tries")
def test_it_lets_nobody_guess_on_and_on(alice: Person, charlie: Person) -> None:
    tries = [login(alice.email, f"guess {number}") for number in range(3)]

    refused = login(alice.email)

    assert [answer.status_code for answer in tries] == [401] * 3
    assert refused.status_code == 429
    assert refused.json()["code"] == "throttled"
    assert 1 <= int(refused["Retry-After"]) <= 61
    assert login(alice.email.upper()).status_code == 429, "the same account, spelt otherwise"
    assert login(charlie.email).status_code == 200, "another account"


@pytest.mark.usefixtures("three_tries")
def test_it_throttles_reset_mails_and_password_guesses_of_a_session_too(alice: Person) -> None:
    client = JSONClient()
    client.credentials(**log_in(alice.email))
    change = {"current_password": "a guess", "new_password": "irrelevant-here"}

    resets = [JSONClient().post("/api/auth/password-reset", {"email": alice.email}) for _ in range(3)]
    changes = [client.post("/api/auth/password", change) for _ in range(4)]

    assert [answer.status_code for answer in resets] == [204, 204, 429], "logging in counted as well"
    assert [answer.status_code for answer in changes] == [400, 400, 400, 429]


def test_it_lets_people_in_while_redis_is_away(
    alice: Person, three_tries: None, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    monkeypatch.setattr(throttles, "_paused_until", 0.0)
    throttles._limiter.cache_clear()

    assert [login(alice.email).status_code for _ in range(5)] == [200] * 5


def test_sessions_that_are_over_are_dropped(alice: Person) -> None:
    pairs = [tokens_of(alice) for _ in range(3)]
    ids = [pair["refresh_token"].partition(".")[0] for pair in pairs]
    operations.log_out(refresh_token=pairs[0]["refresh_token"], now=datetime.now(UTC))
    Session.objects.filter(id=ids[1]).update(expires_at=NOW)

    operations.drop_spent_sessions(now=datetime.now(UTC))

    assert list(Session.objects.filter(user_id=alice.user_id).values_list("id", flat=True)) == [UUID(ids[2])]
