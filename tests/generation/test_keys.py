"""Provider keys: stored whatever a check finds, checked, replaced and removed, audited, and never seen again."""

import logging
import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from engarde.accounts.models import User
from engarde.common.scopes import system_scope, tenant_scope
from generation import keys, providers
from generation import models as generation_models
from generation.models import KeyStatus, LLMKey, Provider
from generation.problems import LLMKeyInvalid
from tests.content.answers import bad_fields, ok, refused
from tests.generation.house import reaching, with_key
from tests.generation.test_generators import saying
from tests.people import PASSWORD, JSONClient, Person, logged_in, new_colleague, new_owner
from tests.providers import Provider as FakeProvider

KEYS = "/api/llm-keys"
EVENTS = "/api/llm-keys/events"
# Looks like no key that the logs' redaction knows, so that nothing but care keeps it out of them.
SECRET = "zq-quite-private-5f3a9c1e7b2d-wxyz"
ANOTHER = "zq-another-one-8e2b4d6f0a1c-abcd"
SHOWN = {"provider", "last4", "is_active", "status", "checked_at"}
QUOTA_HEADERS = {"X-Quota-Used", "X-Quota-Limit", "X-Quota-Remaining", "X-Quota-Percent", "X-Quota-Warning"}
NOWHERE = "http://127.0.0.1:1/v1"


@pytest.fixture(scope="module")
def running() -> Iterator[FakeProvider]:
    with FakeProvider() as provider:
        yield provider


@pytest.fixture(autouse=True)
def provider(running: FakeProvider, database: None) -> Iterator[FakeProvider]:
    """A provider that every key reaches, and that takes any."""
    running.behave()
    running.forget()
    with reaching(running):
        yield running


def save(person: Person, key: str = SECRET, *, provider: str = "openai") -> Any:
    return person.api.post(KEYS, {"provider": provider, "api_key": key})


def verify(person: Person, provider: str = "openai") -> Any:
    return person.api.post(f"{KEYS}/{provider}/verify")


def remove(person: Person, provider: str = "openai") -> Any:
    return person.api.delete(f"{KEYS}/{provider}")


def listed(person: Person) -> list[dict[str, Any]]:
    return list(ok(person.api.get(KEYS))["providers"])


def statuses(person: Person) -> dict[str, str]:
    return {key["provider"]: key["status"] for key in listed(person)}


def events(person: Person) -> list[dict[str, Any]]:
    """Return the audit trail, oldest first."""
    return list(reversed(ok(person.api.get(EVENTS, {"pageSize": 100}))["data"]))


def acts(person: Person) -> list[tuple[str, str]]:
    return [(event["action"], event["status"]) for event in events(person)]


def agent(owner: Person, *scopes: str) -> tuple[Person, str]:
    """Return somebody with an API key of these scopes, and its id."""
    made = ok(owner.api.post("/api/api-keys", {"name": "agent", "scopes": list(scopes)}), 201)
    headers = {"HTTP_X_API_KEY": made["key"]}
    return Person(owner.email, owner.user_id, owner.tenant_id, owner.brand_id, headers), made["id"]


def row(person: Person, provider: str = "openai") -> LLMKey:
    with tenant_scope(person.tenant_id):
        return LLMKey.objects.get(tenant_id=person.tenant_id, provider=provider)


# Storing


def test_a_key_is_stored_and_checked_by_one_cheap_call(alice: Person, provider: FakeProvider) -> None:
    answer = ok(save(alice))

    assert answer.keys() == SHOWN
    shown = {"provider": "openai", "last4": "wxyz", "is_active": True, "status": "valid"}
    assert {name: value for name, value in answer.items() if name != "checked_at"} == shown
    assert answer["checked_at"].endswith("Z")
    assert listed(alice) == [answer]
    assert [(call["path"], call["key"]) for call in provider.calls()] == [("/v1/models", "wxyz")]


@pytest.mark.parametrize("name", Provider.values)
def test_every_provider_takes_a_key(alice: Person, provider: FakeProvider, name: str) -> None:
    assert ok(save(alice, provider=name))["status"] == "valid"

    assert statuses(alice) == {name: "valid"}
    assert provider.counts()[200] == 1


def test_nothing_is_listed_before_a_key_is_stored(alice: Person) -> None:
    assert ok(alice.api.get(KEYS)) == {"providers": []}


def test_keys_are_listed_by_provider(alice: Person) -> None:
    for name in ("qwen", "anthropic", "openai"):
        save(alice, provider=name)

    assert [key["provider"] for key in listed(alice)] == ["anthropic", "openai", "qwen"]


def test_a_trailing_slash_makes_no_difference(alice: Person) -> None:
    assert ok(alice.api.post(f"{KEYS}/", {"provider": "openai", "api_key": SECRET}))["status"] == "valid"
    assert ok(alice.api.get(f"{KEYS}/")) == ok(alice.api.get(KEYS))
    assert ok(alice.api.post(f"{KEYS}/openai/verify/"))["status"] == "valid"
    assert alice.api.delete(f"{KEYS}/openai/").status_code == 204


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("openai", "revoked"), ("openai", "forbidden"), ("anthropic", "revoked"), ("anthropic", "forbidden")],
)
def test_a_key_that_the_provider_refuses_is_stored_as_invalid(
    alice: Person, provider: FakeProvider, name: str, wrong: str
) -> None:
    provider.behave(keys={SECRET: wrong})

    answer = ok(save(alice, provider=name))

    assert (answer["status"], answer["is_active"]) == ("invalid", False)
    assert statuses(alice) == {name: "invalid"}


NO_CREDIT = {
    402: b'{"error":{"message":"Insufficient Balance","type":"unknown_error","code":"invalid_request_error"}}',
    429: b'{"error":{"message":"You exceeded your current quota","type":"insufficient_quota"}}',
    400: b'{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low"}}',
}


@pytest.mark.parametrize(("status", "body"), NO_CREDIT.items(), ids=NO_CREDIT)
@pytest.mark.parametrize("name", ["openai", "anthropic", "deepseek"])
def test_a_provider_that_says_so_shows_that_there_is_no_credit(
    alice: Person, settings: Any, status: int, body: bytes, name: str
) -> None:
    with saying(body, status=status) as broke:
        settings.LLM_BASE_URLS = {**settings.LLM_BASE_URLS, name: broke.url}

        answer = ok(save(alice, provider=name))

    assert (answer["status"], answer["is_active"]) == ("no_credit", True)
    assert statuses(alice) == {name: "no_credit"}


@pytest.mark.parametrize("fault", ["server_error", "bad_gateway", "overloaded", "rate_limit", "truncated"])
@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_a_key_is_stored_while_its_provider_is_in_trouble(
    alice: Person, provider: FakeProvider, name: str, fault: str
) -> None:
    provider.behave(faults={fault: 1})

    assert ok(save(alice, provider=name))["status"] == "unreachable"

    assert statuses(alice) == {name: "unreachable"}
    assert acts(alice) == [("stored", "unchecked"), ("checked", "unreachable")]
    assert len(provider.calls()) == 1


def test_a_key_is_stored_while_its_provider_is_down(alice: Person, settings: Any) -> None:
    settings.LLM_BASE_URLS = dict.fromkeys(settings.LLM_BASE_URLS, NOWHERE)

    answer = ok(save(alice))

    assert (answer["status"], answer["is_active"]) == ("unreachable", True)
    assert row(alice).last4 == "wxyz"


def test_a_key_for_a_local_server_is_stored_where_none_is_set_up(alice: Person, settings: Any) -> None:
    settings.LLM_BASE_URLS = {**settings.LLM_BASE_URLS, "local": ""}

    assert ok(save(alice, provider="local"))["status"] == "unreachable"


def test_a_provider_that_hangs_does_not_hold_up_the_answer(alice: Person, provider: FakeProvider) -> None:
    provider.behave(faults={"hang": 1})
    began = time.monotonic()

    answer = ok(save(alice))

    assert time.monotonic() - began < 20
    assert answer["status"] == "unreachable"
    assert statuses(alice) == {"openai": "unreachable"}


@pytest.mark.parametrize("body", [b"<html>Please log in</html>", b"[]", b'{"data":[null]}'])
@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_a_key_is_stored_though_something_else_answers_for_its_provider(
    alice: Person, settings: Any, body: bytes, name: str
) -> None:
    with saying(body, kind="text/html" if body.startswith(b"<") else "application/json") as portal:
        settings.LLM_BASE_URLS = {**settings.LLM_BASE_URLS, name: portal.url}

        assert ok(save(alice, provider=name))["status"] == "unreachable"


def test_a_key_is_stored_before_it_is_checked(alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(_: Any) -> None:
        raise SystemExit

    monkeypatch.setattr(providers, "check", die)
    with pytest.raises(SystemExit):
        save(alice)

    [key] = listed(alice)
    assert (key["status"], key["checked_at"], key["last4"], key["is_active"]) == ("unchecked", None, "wxyz", True)


def test_another_key_takes_the_place_of_the_first(alice: Person, provider: FakeProvider) -> None:
    provider.behave(keys={SECRET: "revoked"})
    first = ok(save(alice))
    second = ok(save(alice, ANOTHER))

    assert (first["status"], second["status"]) == ("invalid", "valid")
    assert listed(alice) == [second]
    assert second["last4"] == "abcd"
    assert [call["key"] for call in provider.calls()] == ["wxyz", "abcd"]
    assert acts(alice) == [
        ("stored", "unchecked"),
        ("checked", "invalid"),
        ("replaced", "unchecked"),
        ("checked", "valid"),
    ]


def test_what_a_check_finds_of_a_replaced_key_is_not_noted_on_the_new_one(
    alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = providers.check

    def overtaken(credential: providers.Credential) -> KeyStatus:
        monkeypatch.setattr(providers, "check", real)
        save(alice, ANOTHER)
        return KeyStatus.INVALID

    monkeypatch.setattr(providers, "check", overtaken)
    ok(save(alice))

    [key] = listed(alice)
    assert (key["last4"], key["status"]) == ("abcd", "valid")
    assert ("checked", "invalid") not in acts(alice)


def test_a_key_that_was_removed_meanwhile_stays_removed(alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    def overtaken(_: Any) -> KeyStatus:
        assert remove(alice).status_code == 204
        return KeyStatus.VALID

    monkeypatch.setattr(providers, "check", overtaken)
    ok(save(alice))

    assert listed(alice) == []


# Verifying and removing


def test_a_key_is_checked_again_when_asked(alice: Person, provider: FakeProvider) -> None:
    save(alice)
    provider.behave(keys={SECRET: "revoked"})

    answer = ok(verify(alice))

    assert answer.keys() == SHOWN
    assert (answer["status"], answer["is_active"]) == ("invalid", False)
    assert listed(alice) == [answer]
    provider.behave()
    assert ok(verify(alice))["status"] == "valid"
    assert len(provider.calls()) == 3


def test_a_check_again_can_find_the_provider_down(alice: Person, provider: FakeProvider, settings: Any) -> None:
    before = ok(save(alice))
    settings.LLM_BASE_URLS = dict.fromkeys(settings.LLM_BASE_URLS, NOWHERE)

    answer = ok(verify(alice))

    assert answer["status"] == "unreachable"
    assert answer["checked_at"] > before["checked_at"]


def test_a_removed_key_is_gone(alice: Person) -> None:
    save(alice)
    save(alice, provider="anthropic")

    answer = remove(alice)

    assert (answer.status_code, answer.content) == (204, b"")
    assert statuses(alice) == {"anthropic": "valid"}
    refused(remove(alice), 404, "not_found")
    refused(verify(alice), 404, "not_found")
    assert ok(save(alice))["status"] == "valid"


@pytest.mark.parametrize("name", ["openai", "mistral", "OPENAI", "x" * 200])
def test_a_provider_without_a_key_or_that_nobody_knows_is_not_found(alice: Person, name: str) -> None:
    for answer in (verify(alice, name), remove(alice, name)):
        refused(answer, 404, "not_found")
    assert events(alice) == []


def test_other_methods_are_refused_by_name(alice: Person) -> None:
    save(alice)
    for method, path, allowed in (
        ("put", KEYS, {"GET", "POST"}),
        ("delete", KEYS, {"GET", "POST"}),
        ("get", f"{KEYS}/openai", {"DELETE"}),
        ("get", f"{KEYS}/openai/verify", {"POST"}),
        ("post", EVENTS, {"GET"}),
    ):
        answer = getattr(alice.api, method)(path)
        refused(answer, 405, "method_not_allowed")
        assert allowed <= set(answer["Allow"].replace(" ", "").split(","))


# The key is never seen again


def everything_of(person: Person) -> dict[str, str]:
    """Return all rows of a tenant's, by table, as text."""
    found = {}
    with system_scope("a test looks everywhere"), connection.cursor() as cursor:
        cursor.execute("SELECT table_name FROM information_schema.columns WHERE column_name = 'tenant_id'")
        for [table] in cursor.fetchall():
            cursor.execute(
                f"SELECT coalesce(string_agg(found::text, chr(10)), '') FROM \"{table}\" AS found WHERE tenant_id = %s",
                [person.tenant_id],
            )
            [found[table]] = cursor.fetchone()
    return found


def test_a_key_is_encrypted_in_the_database(alice: Person) -> None:
    headers: Any = {"HTTP_IDEMPOTENCY_KEY": str(uuid4())}
    ok(alice.api.post(KEYS, {"provider": "openai", "api_key": SECRET}, **headers))
    verify(alice)
    save(alice, ANOTHER)
    remove(alice)
    save(alice)

    rows = everything_of(alice)

    assert "wxyz" in rows["tenant_llm_keys"]
    assert "wxyz" in rows["tenant_llm_key_events"]
    for secret in (SECRET, SECRET.encode().hex(), ANOTHER, ANOTHER.encode().hex()):
        assert [table for table, text in rows.items() if secret in text] == []


def test_a_key_is_in_no_answer(alice: Person, provider: FakeProvider) -> None:
    provider.behave(keys={SECRET: "revoked"})
    answers = [
        save(alice),
        save(alice, provider="anthropic"),
        verify(alice),
        alice.api.get(KEYS),
        alice.api.get(EVENTS),
        alice.api.get("/api/activity"),
        alice.api.post("/api/content/generate", {"prompt": "x", "content_type": "post", "provider": "openai"}),
        alice.api.post(KEYS, {"provider": "mistral", "api_key": SECRET}),
        alice.api.post(KEYS, {"provider": "openai", "api_key": f"{SECRET} {SECRET}"}),
        alice.api.post(KEYS, {"provider": "openai", "key": SECRET}),
        remove(alice),
    ]

    for answer in answers:
        assert SECRET not in answer.content.decode()
        assert SECRET not in str(answer.headers)
        assert SECRET[:10] not in answer.content.decode()


@pytest.mark.parametrize("fault", ["", "server_error", "bad_request", "truncated"])
def test_a_key_is_in_no_log_line(
    alice: Person, provider: FakeProvider, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    caplog.set_level(logging.DEBUG)  # of our own and of every library, before anything is redacted
    provider.behave(faults={fault: 1} if fault else {}, keys={ANOTHER: "revoked"})

    for name in ("openai", "anthropic"):
        save(alice, provider=name)
        save(alice, ANOTHER, provider=name)
        verify(alice, name)
    save(alice, provider="mistral")
    remove(alice)

    assert caplog.records
    told = caplog.text + "".join(str(vars(record)) for record in caplog.records)
    assert SECRET not in told
    assert ANOTHER not in told


def test_a_key_is_not_in_what_a_credential_shows_of_itself() -> None:
    credential = providers.Credential(Provider.OPENAI, NOWHERE, SECRET, is_tenants=True)

    assert SECRET not in repr(credential)
    assert SECRET not in credential.fingerprint


def test_a_key_is_on_no_page_of_the_admin(alice: Person) -> None:
    save(alice)
    verify(alice)
    browser = Client()
    browser.force_login(User.objects.create_superuser(f"staff-{uuid4().hex[:12]}@example.com", PASSWORD))
    key = row(alice)
    with tenant_scope(alice.tenant_id):
        event = generation_models.LLMKeyEvent.objects.filter(tenant_id=alice.tenant_id).first()
    assert event

    search = {"q": str(alice.tenant_id)}
    pages = [
        browser.get("/admin/generation/llmkey/", search),
        browser.get(f"/admin/generation/llmkey/{key.id}/change/"),
        browser.get("/admin/generation/llmkeyevent/", search),
        browser.get(f"/admin/generation/llmkeyevent/{event.id}/change/"),
    ]

    for page in pages:
        text = page.content.decode()
        assert page.status_code == 200
        assert "wxyz" in text
        assert SECRET not in text
        assert key.secret not in text


def test_nobody_types_into_the_admins_pages_of_keys(alice: Person) -> None:
    save(alice)
    browser = Client()
    browser.force_login(User.objects.create_superuser(f"staff-{uuid4().hex[:12]}@example.com", PASSWORD))

    for path in ("add/", f"{row(alice).id}/delete/"):
        assert browser.get(f"/admin/generation/llmkey/{path}").status_code == 403
    browser.post(f"/admin/generation/llmkey/{row(alice).id}/change/", {"status": "invalid"})
    assert row(alice).status == "valid"


def test_a_short_key_is_not_shown_whole(alice: Person) -> None:
    answer = save(alice, "abcd", provider="local")

    assert answer.status_code == 400 or answer.json()["last4"] != "abcd"


# Who may


@pytest.mark.parametrize(
    ("role", "reads", "changes"), [("viewer", 403, 403), ("editor", 200, 403), ("admin", 200, 200), ("owner", 200, 200)]
)
def test_roles_decide_who_sees_and_who_changes_keys(
    alice: Person, provider: FakeProvider, role: str, reads: int, changes: int
) -> None:
    save(alice)
    provider.forget()
    person = new_colleague(alice, role)

    assert person.api.get(KEYS).status_code == reads
    assert save(person, ANOTHER).status_code == changes
    assert verify(person).status_code == changes
    assert person.api.get(EVENTS).status_code == changes
    assert remove(person).status_code == (204 if changes == 200 else 403)

    assert statuses(alice) == ({} if changes == 200 else {"openai": "valid"})
    assert len(provider.calls()) == (2 if changes == 200 else 0)


@pytest.mark.parametrize(
    ("scope", "reads", "changes"),
    [
        ("content:read", 403, 403),
        ("content:write", 403, 403),
        ("quota:read", 403, 403),
        ("generate", 200, 403),
        ("admin", 200, 200),
    ],
)
def test_scopes_decide_what_an_api_key_does_with_provider_keys(
    alice: Person, scope: str, reads: int, changes: int
) -> None:
    save(alice)
    person, _ = agent(alice, scope)

    assert person.api.get(KEYS).status_code == reads
    assert save(person, ANOTHER).status_code == changes
    assert verify(person).status_code == changes
    assert person.api.get(EVENTS).status_code == changes
    assert remove(person).status_code == (204 if changes == 200 else 403)


def test_without_credentials_nothing_is_told() -> None:
    nobody = JSONClient()
    answers = [
        nobody.get(KEYS),
        nobody.post(KEYS, {"provider": "openai", "api_key": SECRET}),
        nobody.post(f"{KEYS}/openai/verify"),
        nobody.delete(f"{KEYS}/openai"),
        nobody.get(EVENTS),
    ]

    for answer in answers:
        refused(answer, 401, "not_authenticated")
        assert answer["WWW-Authenticate"]
        assert "X-Quota-Used" not in answer


def test_an_outsider_sees_and_changes_nothing(alice: Person, charlie: Person, provider: FakeProvider) -> None:
    save(alice)
    provider.forget()

    assert listed(charlie) == []
    assert events(charlie) == []
    refused(verify(charlie), 404, "not_found")
    refused(remove(charlie), 404, "not_found")
    assert provider.calls() == []
    save(charlie, ANOTHER)
    assert [key["last4"] for key in listed(alice)] == ["wxyz"]
    assert len(events(alice)) == 2
    answer = charlie.api.get(KEYS, HTTP_X_TENANT_ID=str(alice.tenant_id))
    assert answer.status_code == 403


# Input


def bad(person: Person, fields: Any) -> set[str]:
    return bad_fields(person.api.post(KEYS, fields))


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"provider": "mistral", "api_key": SECRET}, {"provider"}),
        ({"provider": "OpenAI", "api_key": SECRET}, {"provider"}),
        ({"provider": "", "api_key": SECRET}, {"provider"}),
        ({"provider": None, "api_key": SECRET}, {"provider"}),
        ({"provider": 5, "api_key": SECRET}, {"provider"}),
        ({"provider": ["openai"], "api_key": SECRET}, {"provider"}),
        ({"api_key": SECRET}, {"provider"}),
        ({"provider": "openai"}, {"api_key"}),
        ({}, {"provider", "api_key"}),
        ({"provider": "openai", "api_key": SECRET, "last4": "wxyz"}, {"last4"}),
        ({"provider": "openai", "api_key": SECRET, "tenant_id": str(uuid4())}, {"tenant_id"}),
        ([{"provider": "openai", "api_key": SECRET}], {"non_field_errors"}),
    ],
)
def test_a_malformed_request_is_refused_by_field(alice: Person, fields: Any, wrong: set[str]) -> None:
    assert bad(alice, fields) == wrong

    assert listed(alice) == []


NO_KEYS: list[Any] = ["", " ", "   sk-1234567890", "sk-1234567890 ", "sk 1234567890", "sk-12345\n", "sk-\t12345", "sk-123456789é",
     "ключ-1234567890", "sk-1234567890\x00", "sk-1234567890\x7f", "sk-1\r\nX-Other: 1", "x" * 10_000, None, 1234567890,
     True, ["sk-1234567890"], {"key": "sk-1234567890"}]  # fmt: skip


def test_what_cannot_be_a_key_is_refused(alice: Person, provider: FakeProvider) -> None:
    for key in NO_KEYS:
        assert (key, bad(alice, {"provider": "openai", "api_key": key})) == (key, {"api_key"})

    assert listed(alice) == []
    assert provider.calls() == []


def test_what_is_no_json_is_refused(alice: Person) -> None:
    for body in ('{"provider": "openai", "api_key": "\\ud800aaaaaaaa"}', "{"):
        assert alice.api.generic("POST", KEYS, body, "application/json").status_code == 400
    assert alice.api.generic("POST", KEYS, "provider=openai", "text/plain").status_code == 415


def test_query_parameters_are_refused(alice: Person) -> None:
    save(alice)

    assert bad_fields(alice.api.get(f"{KEYS}?page=1")) == {"page"}
    assert bad_fields(alice.api.post(f"{KEYS}?x=1", {"provider": "openai", "api_key": ANOTHER})) == {"x"}
    assert bad_fields(alice.api.post(f"{KEYS}/openai/verify?x=1")) == {"x"}
    assert bad_fields(alice.api.delete(f"{KEYS}/openai?x=1")) == {"x"}
    assert bad_fields(alice.api.get(f"{EVENTS}?page=0")) == {"page"}
    assert [key["last4"] for key in listed(alice)] == ["wxyz"]


# The audit trail


def test_whatever_is_done_to_a_key_is_in_the_audit_trail(alice: Person, provider: FakeProvider) -> None:
    provider.behave(keys={ANOTHER: "revoked"})
    admin = new_colleague(alice, "admin")
    program, program_id = agent(alice, "admin")

    save(admin)
    save(program, ANOTHER)
    verify(logged_in(alice))
    remove(admin)

    trail = events(alice)
    assert [(one["action"], one["status"], one["last4"]) for one in trail] == [
        ("stored", "unchecked", "wxyz"),
        ("checked", "valid", "wxyz"),
        ("replaced", "unchecked", "abcd"),
        ("checked", "invalid", "abcd"),
        ("checked", "invalid", "abcd"),
        ("removed", "invalid", "abcd"),
    ]
    whose = [str(admin.user_id)] * 2 + [program_id] * 2 + [str(alice.user_id), str(admin.user_id)]
    assert [one["actor_id"] for one in trail] == whose
    assert {one["provider"] for one in trail} == {"openai"}
    assert all(one["created_at"].endswith("Z") and UUID(one["id"]) for one in trail)
    assert trail[0].keys() == {"id", "provider", "action", "last4", "status", "actor_id", "created_at"}


def test_the_audit_trail_is_paged_newest_first(alice: Person) -> None:
    for name in ("openai", "google", "qwen"):
        save(alice, provider=name)

    first = ok(alice.api.get(EVENTS, {"pageSize": 4}))
    second = ok(alice.api.get(EVENTS, {"pageSize": 4, "page": 2}))

    names = [one["provider"] for one in first["data"] + second["data"]]
    assert names == ["qwen", "qwen", "google", "google", "openai", "openai"]
    assert (first["pagination"]["total"], first["pagination"]["hasNext"]) == (6, True)
    assert second["pagination"]["hasNext"] is False
    assert ok(alice.api.get(EVENTS, {"page": 9}))["data"] == []


def test_a_key_that_no_master_key_reads_says_so_and_can_be_stored_again(
    alice: Person, provider: FakeProvider, settings: Any
) -> None:
    save(alice)
    provider.forget()
    settings.SECRET_KEY = "another-secret-key-0123456789-0123456789-0123456789"

    problem = refused(verify(alice), 409, "llm_key_invalid")

    assert "Store it again" in problem["detail"]
    assert provider.calls() == []
    assert ok(save(alice))["status"] == "valid"
    assert ok(verify(alice))["status"] == "valid"


# Quota headers


def test_every_answer_tells_the_quota(alice: Person) -> None:
    alice.writes(body="x" * 1000)
    viewer = new_colleague(alice, "viewer")
    answers = {
        "saved": (save(alice), 200),
        "listed": (alice.api.get(KEYS), 200),
        "verified": (verify(alice), 200),
        "events": (alice.api.get(EVENTS), 200),
        "removed": (remove(alice), 204),
        "not found": (remove(alice), 404),
        "invalid": (alice.api.post(KEYS, {}), 400),
        "forbidden": (viewer.api.get(KEYS), 403),
        "wrong method": (alice.api.put(KEYS), 405),
    }

    for name, (answer, status) in answers.items():
        assert (name, answer.status_code) == (name, status)
        assert (name, set(answer.headers) & QUOTA_HEADERS) == (name, QUOTA_HEADERS)
        assert answer["X-Quota-Used"] == "1000"
        assert answer["RateLimit-Policy"]


# Which key is used


def test_the_platforms_own_key_is_not_listed(alice: Person, settings: Any) -> None:
    settings.LLM_PLATFORM_KEYS = {**settings.LLM_PLATFORM_KEYS, "openai": ANOTHER}

    assert listed(alice) == []
    refused(remove(alice), 404, "not_found")


def test_the_tenants_key_comes_before_the_platforms(alice: Person, settings: Any) -> None:
    settings.LLM_PLATFORM_KEYS = {**settings.LLM_PLATFORM_KEYS, "openai": ANOTHER}
    now = timezone.now()

    platforms = keys.credential_of(tenant_id=alice.tenant_id, provider="openai", now=now)
    with_key(alice, key=SECRET)
    own = keys.credential_of(tenant_id=alice.tenant_id, provider="openai", now=now)

    assert (platforms.api_key, platforms.is_tenants) == (ANOTHER, False)
    assert (own.api_key, own.is_tenants) == (SECRET, True)
    assert platforms.fingerprint != own.fingerprint


def test_an_invalid_key_is_not_replaced_by_the_platforms_behind_the_tenants_back(
    alice: Person, provider: FakeProvider, settings: Any
) -> None:
    settings.LLM_PLATFORM_KEYS = {**settings.LLM_PLATFORM_KEYS, "openai": ANOTHER}
    provider.behave(keys={SECRET: "revoked"})
    save(alice)

    with pytest.raises(LLMKeyInvalid):
        keys.credential_of(tenant_id=alice.tenant_id, provider="openai", now=timezone.now())


def test_two_tenants_may_use_the_same_key(charlie: Person) -> None:
    other = new_owner("dora")
    save(charlie)
    save(other)

    remove(charlie)

    assert statuses(other) == {"openai": "valid"}


def test_a_key_reaches_the_provider_exactly_as_given(alice: Person, settings: Any) -> None:
    key = "sk-!\"#$%&'()*+,-./:;<=>?@[]^_`{|}~0aZ"
    with saying({"data": []}) as listening:
        settings.LLM_BASE_URLS = dict.fromkeys(Provider.values, listening.url)
        save(alice, key)
        save(alice, key, provider="anthropic")

    openai, anthropic = listening.got
    assert openai["authorization"] == f"Bearer {key}"
    assert key in (anthropic.get("x-api-key"), anthropic.get("authorization", "").removeprefix("Bearer "))
    assert row(alice).last4 == "~0aZ"
