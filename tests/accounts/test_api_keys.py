"""API keys: their text, their scopes, their life."""

import hashlib
import re
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from engarde.accounts import api_keys, queries
from engarde.accounts.models import ApiKey
from engarde.accounts.roles import Scope
from engarde.common.scopes import system_scope
from tests.people import JSONClient, Person, logged_in, new_colleague

SHAPE = re.compile(r"eg_live_([0-9A-Za-z]{12})_([0-9A-Za-z]{43})([0-9A-Za-z]{6})")
SHOWN = {"id", "name", "prefix", "last4", "scopes", "created_at", "expires_at", "last_used_at"}


def create(person: Person, scopes: list[str] | None = None, **more: Any) -> dict[str, Any]:
    answer = person.api.post("/api/api-keys", {"name": "agent", "scopes": scopes or ["content:read"], **more})
    assert answer.status_code == 201, answer.content
    return answer.json()


def use(key: str, path: str = "/api/brands") -> int:
    return int(JSONClient().get(path, HTTP_X_API_KEY=key).status_code)


def rotate(person: Person, key_id: str, **body: Any) -> Any:
    return person.api.post(f"/api/api-keys/{key_id}/rotate", body)


def row(key_id: str) -> ApiKey:
    with system_scope("a test looks"):
        return ApiKey.objects.get(id=key_id)


def change(key_id: str, **fields: Any) -> None:
    with system_scope("a test turns the clock"):
        ApiKey.objects.filter(id=key_id).update(**fields)


def test_a_key_is_shown_once_and_only_its_hash_is_kept(alice: Person) -> None:
    key = create(alice, ["content:write", "content:read", "content:read"], name="agent 7")

    found = SHAPE.fullmatch(key["key"])
    assert found
    assert set(key) == SHOWN | {"key"}
    assert (key["name"], key["scopes"]) == ("agent 7", ["content:read", "content:write"])
    assert (key["prefix"], key["last4"]) == (f"eg_live_{found.group(1)}", key["key"][-4:])
    assert (key["expires_at"], key["last_used_at"]) == (None, None)
    stored = row(key["id"])
    assert bytes(stored.secret_hash) == hashlib.sha256(key["key"].encode()).digest()
    assert found.group(2) not in str(vars(stored))
    listed = alice.api.get("/api/api-keys").json()["data"]
    assert listed[0] == {name: value for name, value in key.items() if name != "key"}
    assert found.group(2) not in str(listed)


@pytest.mark.parametrize("header", ["HTTP_X_API_KEY", "HTTP_AUTHORIZATION", "lower case"])
def test_agents_send_it_either_way(alice: Person, header: str) -> None:
    key = create(alice)["key"]
    headers = {
        "HTTP_X_API_KEY": {"HTTP_X_API_KEY": key},
        "HTTP_AUTHORIZATION": {"HTTP_AUTHORIZATION": f"Bearer {key}"},
        "lower case": {"HTTP_AUTHORIZATION": f"bearer {key}"},
    }[header]

    answer = JSONClient().get("/api/auth/me", **headers)

    assert answer.status_code == 200
    assert answer.json()["authenticated_by"] == "api_key"
    assert answer.json()["scopes"] == ["content:read"]


def test_keys_differ_and_carry_their_checksum() -> None:
    keys = [api_keys.make() for _ in range(200)]

    assert len({key.text for key in keys}) == 200
    assert all(api_keys.public_id_of(key.text) == key.public_id for key in keys)


def test_one_wrong_letter_anywhere_is_noticed() -> None:
    text = api_keys.make().text
    for place in range(len(api_keys.PREFIX), len(text)):
        other = "0" if text[place] != "0" else "1"
        assert api_keys.public_id_of(text[:place] + other + text[place + 1 :]) is None


def test_junk_is_refused_without_a_query(database: None) -> None:
    junk = [
        "eg_live_",
        "eg_live_x_y",
        "eg_test_" + "a" * 62,
        api_keys.make().text + "0",
        api_keys.make().text[:-1],
        api_keys.make().text.replace("_", "-"),
        "eg_live_" + "é" * 12 + "_" + "a" * 49,
        "eg_live_" + "a" * 100_000,
    ]

    with CaptureQueriesContext(connection) as asked:
        answers = [JSONClient().get("/api/brands", HTTP_X_API_KEY=text) for text in junk]
        answers += [JSONClient().get("/api/brands", HTTP_AUTHORIZATION=f"Bearer {text}") for text in junk]

    assert [answer.status_code for answer in answers] == [401] * 16
    assert all(answer["WWW-Authenticate"].startswith("Bearer") for answer in answers)
    assert len(asked) == 0


def test_a_well_formed_key_that_nobody_made_is_refused(alice: Person) -> None:
    known = create(alice)["prefix"].removeprefix("eg_live_")

    assert use(api_keys.make().text) == 401
    assert use(api_keys.make(known).text) == 401


def test_a_key_ends_when_it_expires(alice: Person) -> None:
    key = create(alice, expires_at="2100-01-01T12:00:00+02:00")
    assert key["expires_at"] == "2100-01-01T10:00:00Z"
    end = datetime(2100, 1, 1, 10, tzinfo=UTC)

    assert queries.live_api_key(text=key["key"], now=end - timedelta(seconds=1))
    assert queries.live_api_key(text=key["key"], now=end) is None
    assert use(key["key"]) == 200
    change(key["id"], expires_at=datetime.now(UTC))
    assert use(key["key"]) == 401


def test_a_revoked_key_is_dead_and_gone(alice: Person) -> None:
    key = create(alice)
    path = f"/api/api-keys/{key['id']}"

    answer = alice.api.delete(path)

    assert (answer.status_code, answer.content) == (204, b"")
    assert use(key["key"]) == 401
    assert key["id"] not in alice.api.get("/api/api-keys").content.decode()
    assert alice.api.delete(path).status_code == 404
    assert rotate(alice, key["id"]).status_code == 404


def test_rotating_keeps_the_id_and_ends_the_old_secret(alice: Person) -> None:
    key = create(alice, ["content:read", "generate"])

    answer = rotate(alice, key["id"])

    new = answer.json()
    assert answer.status_code == 200
    assert set(new) == SHOWN | {"key"}
    assert {name: new[name] for name in ("id", "name", "prefix", "scopes")} == {
        name: key[name] for name in ("id", "name", "prefix", "scopes")
    }
    assert new["key"] != key["key"]
    assert new["last4"] == new["key"][-4:]
    assert (use(new["key"]), use(key["key"])) == (200, 401)


def test_the_old_secret_works_through_the_overlap_and_no_longer(alice: Person) -> None:
    key = create(alice)

    new = rotate(alice, key["id"], overlap_hours=1.5).json()["key"]

    assert (use(key["key"]), use(new)) == (200, 200)
    rotated = datetime.now(UTC)
    hour_and_a_half = timedelta(hours=1.5)
    assert queries.live_api_key(text=key["key"], now=rotated + hour_and_a_half - timedelta(minutes=1))
    assert queries.live_api_key(text=key["key"], now=rotated + hour_and_a_half) is None
    assert queries.live_api_key(text=new, now=rotated + hour_and_a_half)
    newest = rotate(alice, key["id"], overlap_hours=24).json()["key"]
    assert [use(text) for text in (key["key"], new, newest)] == [401, 200, 200], "two secrets at most"


def test_revoking_ends_both_secrets(alice: Person) -> None:
    key = create(alice)
    new = rotate(alice, key["id"], overlap_hours=24).json()["key"]

    alice.api.delete(f"/api/api-keys/{key['id']}")

    assert (use(key["key"]), use(new)) == (401, 401)


@pytest.mark.parametrize("hours", [-1, 169, "1", True, None, [1], 1e300])
def test_an_overlap_is_a_number_of_hours_up_to_a_week(alice: Person, hours: Any) -> None:
    answer = rotate(alice, create(alice)["id"], overlap_hours=hours)

    assert answer.status_code == 400
    assert [error["field"] for error in answer.json()["errors"]] == ["overlap_hours"]


def test_its_last_use_is_noted_at_most_once_a_minute(alice: Person) -> None:
    key = create(alice)
    start = datetime.now(UTC)

    def used(after: timedelta) -> datetime | None:
        queries.live_api_key(text=key["key"], now=start + after)
        return row(key["id"]).last_used_at

    assert used(timedelta(0)) == start
    assert used(timedelta(seconds=59)) == start
    assert used(timedelta(seconds=61)) == start + timedelta(seconds=61)
    with CaptureQueriesContext(connection) as asked:
        queries.live_api_key(text=key["key"], now=start + timedelta(seconds=90))
    assert not [query for query in asked if "UPDATE" in query["sql"]]
    listed = alice.api.get("/api/api-keys").json()["data"][0]["last_used_at"]
    assert listed == (start + timedelta(seconds=61)).isoformat().replace("+00:00", "Z")


def test_a_refused_key_counts_as_no_use(alice: Person) -> None:
    key = create(alice)

    use(api_keys.make(key["prefix"].removeprefix("eg_live_")).text)

    assert row(key["id"]).last_used_at is None


def test_a_key_makes_no_key_that_may_do_more(alice: Person) -> None:
    narrow = create(alice, ["admin", "content:read"])["key"]
    client = JSONClient()
    client.credentials(HTTP_X_API_KEY=narrow)

    more = client.post("/api/api-keys", {"name": "x", "scopes": ["content:read", "content:write"]})
    same = client.post("/api/api-keys", {"name": "x", "scopes": ["content:read"]})
    wide = create(alice, ["content:write"])["id"]
    taken_over = client.post(f"/api/api-keys/{wide}/rotate", {})

    assert (more.status_code, more.json()["code"]) == (403, "permission_denied")
    assert same.status_code == 201
    assert taken_over.status_code == 403


@pytest.mark.parametrize("scope", sorted(Scope.values))
def test_each_scope_opens_its_own_doors(alice: Person, scope: str) -> None:
    client = JSONClient()
    client.credentials(HTTP_X_API_KEY=create(alice, [scope])["key"])
    doors = {
        "/api/brands": "content:read",
        f"/api/brands/{alice.brand_id}": "content:read",
        "/api/members": "admin",
        "/api/api-keys": "admin",
    }

    for path, needed in doors.items():
        assert client.get(path).status_code == (200 if scope == needed else 403), path
        assert client.head(path).status_code == (200 if scope == needed else 403), path
    assert client.post("/api/brands", {"name": "x"}).status_code == (201 if scope == "admin" else 403)
    assert client.get("/api/auth/me").json()["scopes"] == [scope]


def test_only_owners_and_admins_manage_keys(alice: Person) -> None:
    key = create(alice)["id"]
    for role, allowed in {"viewer": False, "editor": False, "admin": True, "owner": True}.items():
        person = new_colleague(alice, role)

        statuses = [
            person.api.get("/api/api-keys").status_code,
            person.api.post("/api/api-keys", {"name": "x", "scopes": ["content:read"]}).status_code,
            rotate(person, key).status_code,
            person.api.delete(f"/api/api-keys/{create(alice)['id']}").status_code,
        ]

        assert statuses == ([200, 201, 200, 204] if allowed else [403] * 4), role


def test_another_tenants_key_is_not_there(alice: Person, charlie: Person) -> None:
    key = create(alice)

    for key_id in (key["id"], str(uuid4())):
        answers = [charlie.api.delete(f"/api/api-keys/{key_id}"), rotate(charlie, key_id)]
        assert [(answer.status_code, answer.json()["detail"]) for answer in answers] == [
            (404, "There is no such API key.")
        ] * 2

    assert key["id"] not in charlie.api.get("/api/api-keys").content.decode()
    assert use(key["key"]) == 200


def test_it_lists_the_newest_first_by_page(alice: Person) -> None:
    first, second = create(alice), create(alice)

    page = alice.api.get("/api/api-keys?pageSize=2").json()

    assert [shown["id"] for shown in page["data"]] == [second["id"], first["id"]]
    assert (page["pagination"]["total"], page["pagination"]["hasNext"]) == (3, True)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"scopes": ["admin"]}, "name"),
        ({"name": "x"}, "scopes"),
        ({"name": "x", "scopes": []}, "scopes"),
        ({"name": "x", "scopes": "admin"}, "scopes"),
        ({"name": "x", "scopes": {"admin": True}}, "scopes"),
        ({"name": "x", "scopes": ["everything"]}, "scopes.0"),
        ({"name": "x", "scopes": [["admin"]]}, "scopes.0"),
        ({"name": 1, "scopes": ["admin"]}, "name"),
        ({"name": "x", "scopes": ["admin"], "expires_at": "tomorrow"}, "expires_at"),
        ({"name": "x", "scopes": ["admin"], "expires_at": 4102444800}, "expires_at"),
        ({"name": "x", "scopes": ["admin"], "expires_at": "2001-01-01T00:00:00Z"}, "expires_at"),
        ({"name": "x", "scopes": ["admin"], "key": "eg_live_mine"}, "key"),
    ],
)
def test_it_names_the_field_that_is_wrong(alice: Person, body: dict[str, Any], field: str) -> None:
    answer = alice.api.post("/api/api-keys", body)

    assert (answer.status_code, answer.json()["code"]) == (400, "validation_error")
    assert {error["field"] for error in answer.json()["errors"]} == {field}


def test_the_maker_of_a_key_is_known(alice: Person) -> None:
    owner = logged_in(alice)

    assert row(create(owner)["id"]).created_by == alice.user_id
    assert row(create(alice)["id"]).created_by not in {None, alice.user_id}, "the key that made it"


def test_secrets_come_from_the_operating_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "choice", lambda _alphabet: "x")

    assert api_keys.make().text.startswith(f"eg_live_{'x' * 12}_{'x' * 43}")
