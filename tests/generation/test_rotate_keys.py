"""`manage.py rotate_llm_keys`: everything encrypted moves under the newest master key, so that the old one can go."""

import io
import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from cryptography.fernet import Fernet
from django.conf import LazySettings
from django.core.management import call_command

from content.models import Webhook
from engarde.accounts import queries as account_queries
from engarde.common import encryption
from engarde.common.scopes import tenant_scope
from generation import providers
from generation.models import KeyStatus, LLMKey
from quotas.models import AlertTarget
from tests.content.answers import ok, refused
from tests.people import Person, new_owner

OLD, NEW, OTHER = (Fernet.generate_key().decode() for _ in range(3))
REPORT = {"dry_run", "master_key_id", "total", "renewed", "unreadable", "other_secrets", "other_unreadable"}
OPENAI, CLAUDE = "sk-test-openai-1111", "sk-test-claude-2222"
TARGET = "https://hooks.example/in/quite-private"


@pytest.fixture(autouse=True)
def _no_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "check", lambda _: KeyStatus.VALID)


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the command see no tenants but some: those of other tests have secrets under keys of their own."""

    def see(*people: Person) -> None:
        monkeypatch.setattr(account_queries, "tenant_ids", lambda: [person.tenant_id for person in people])

    return see


@pytest.fixture
def dora(database: None, settings: LazySettings, only: Callable[..., None]) -> Person:
    """Owner of a tenant with two provider keys under the old master key, which is not the newest any more."""
    settings.ENCRYPTION_KEYS = [OLD]
    person = new_owner("dora")
    store(person, "openai", OPENAI)
    store(person, "anthropic", CLAUDE)
    settings.ENCRYPTION_KEYS = [NEW, OLD]
    only(person)
    return person


def store(person: Person, provider: str, key: str) -> None:
    ok(person.api.post("/api/llm-keys", {"provider": provider, "api_key": key}))


def rotate(*arguments: str, fails: bool = False) -> dict[str, Any]:
    """Run the command and return its report."""
    out = io.StringIO()
    if fails:
        with pytest.raises(SystemExit) as caught:
            call_command("rotate_llm_keys", "--json", *arguments, stdout=out)
        assert caught.value.code == 1
    else:
        call_command("rotate_llm_keys", "--json", *arguments, stdout=out)
    report: dict[str, Any] = json.loads(out.getvalue())
    assert report.keys() == REPORT
    return report


def rows(person: Person) -> dict[str, LLMKey]:
    with tenant_scope(person.tenant_id):
        return {key.provider: key for key in LLMKey.objects.filter(tenant_id=person.tenant_id)}


def secrets(person: Person) -> dict[str, str]:
    return {provider: encryption.decrypt(key.secret) for provider, key in rows(person).items()}


def damage(person: Person, provider: str) -> None:
    with tenant_scope(person.tenant_id):
        assert LLMKey.objects.filter(tenant_id=person.tenant_id, provider=provider).update(secret="gAAAAAB-nonsense")


def test_keys_are_read_without_the_old_master_key_afterwards(dora: Person, settings: LazySettings) -> None:
    before = rows(dora)

    report = rotate()

    assert report == {
        "dry_run": False,
        "master_key_id": encryption.newest_key_id(),
        "total": 2,
        "renewed": 2,
        "unreadable": 0,
        "other_secrets": 0,
        "other_unreadable": 0,
    }
    settings.ENCRYPTION_KEYS = [NEW]
    assert secrets(dora) == {"openai": OPENAI, "anthropic": CLAUDE}
    for provider, key in rows(dora).items():
        assert key.master_key_id == report["master_key_id"] != before[provider].master_key_id
        untouched = ("id", "last4", "status", "checked_at", "created_at")
        assert [getattr(key, name) for name in untouched] == [getattr(before[provider], name) for name in untouched]
        assert OPENAI not in key.secret


def test_before_it_the_old_master_key_is_needed(dora: Person, settings: LazySettings) -> None:
    settings.ENCRYPTION_KEYS = [NEW]

    with pytest.raises(encryption.Unreadable):
        secrets(dora)
    refused(dora.api.post("/api/llm-keys/openai/verify"), 409, "llm_key_invalid")


def test_running_it_again_changes_nothing(dora: Person) -> None:
    rotate()
    before = {provider: key.secret for provider, key in rows(dora).items()}

    report = rotate()

    assert (report["total"], report["renewed"]) == (2, 0)
    assert {provider: key.secret for provider, key in rows(dora).items()} == before


def test_a_dry_run_counts_and_changes_nothing(dora: Person) -> None:
    before = {provider: (key.secret, key.master_key_id) for provider, key in rows(dora).items()}

    report = rotate("--dry-run")

    assert (report["dry_run"], report["total"], report["renewed"], report["unreadable"]) == (True, 2, 2, 0)
    assert {provider: (key.secret, key.master_key_id) for provider, key in rows(dora).items()} == before


def test_keys_under_the_newest_are_counted_and_left(dora: Person) -> None:
    store(dora, "google", "sk-test-google-3333")

    report = rotate()

    assert (report["total"], report["renewed"]) == (3, 2)
    assert secrets(dora)["google"] == "sk-test-google-3333"


def test_a_key_that_cannot_be_read_is_counted_left_and_fails_the_command(dora: Person, settings: LazySettings) -> None:
    damage(dora, "openai")

    report = rotate(fails=True)

    assert (report["total"], report["renewed"], report["unreadable"]) == (2, 1, 1)
    settings.ENCRYPTION_KEYS = [NEW]
    assert rows(dora)["openai"].secret == "gAAAAAB-nonsense"
    assert encryption.decrypt(rows(dora)["anthropic"].secret) == CLAUDE


def test_without_the_old_master_key_none_can_be_read(dora: Person, settings: LazySettings) -> None:
    settings.ENCRYPTION_KEYS = [NEW]

    for arguments in ([], ["--dry-run"]):
        report = rotate(*arguments, fails=True)
        assert (report["total"], report["renewed"], report["unreadable"]) == (2, 0, 2)

    settings.ENCRYPTION_KEYS = [NEW, OLD]
    assert (rotate()["renewed"], secrets(dora)["openai"]) == (2, OPENAI)


def test_a_tenant_with_a_bad_key_stops_no_other(
    dora: Person, only: Callable[..., None], settings: LazySettings
) -> None:
    settings.ENCRYPTION_KEYS = [OLD]
    other = new_owner("other")
    store(other, "qwen", "sk-test-qwen-4444")
    settings.ENCRYPTION_KEYS = [NEW, OLD]
    damage(dora, "openai")
    only(dora, other)

    report = rotate(fails=True)

    assert (report["total"], report["renewed"], report["unreadable"]) == (3, 2, 1)
    settings.ENCRYPTION_KEYS = [NEW]
    assert secrets(other) == {"qwen": "sk-test-qwen-4444"}


def test_from_the_key_that_is_derived_without_the_setting(
    database: None, only: Callable[..., None], settings: LazySettings
) -> None:
    settings.ENCRYPTION_KEYS = []
    person = new_owner("dora")
    store(person, "openai", OPENAI)
    only(person)
    settings.ENCRYPTION_KEYS = [NEW]

    assert rotate()["renewed"] == 1

    settings.SECRET_KEY = "another-secret-key-that-derives-another-key-0123456789"
    assert secrets(person) == {"openai": OPENAI}


def test_through_several_rotations_every_key_is_read(dora: Person, settings: LazySettings) -> None:
    rotate()
    settings.ENCRYPTION_KEYS = [OTHER, NEW]
    rotate()
    settings.ENCRYPTION_KEYS = [OTHER]

    assert secrets(dora) == {"openai": OPENAI, "anthropic": CLAUDE}


# Whatever else is encrypted


def subscribe(person: Person) -> Webhook:
    with tenant_scope(person.tenant_id):
        return Webhook.objects.create(
            tenant_id=person.tenant_id,
            url="https://hook.example/in",
            secret=encryption.encrypt("whsec_now"),
            previous_secret=encryption.encrypt("whsec_before"),
        )


def target(person: Person) -> AlertTarget:
    with tenant_scope(person.tenant_id):
        return AlertTarget.objects.create(
            tenant_id=person.tenant_id,
            kind="webhook",
            url=encryption.encrypt(TARGET),
            url_hint="hooks.example",
            created_by=person.user_id,
        )


@pytest.fixture
def others(dora: Person, settings: LazySettings) -> tuple[UUID, UUID]:
    """A webhook and an alert target under the old master key."""
    settings.ENCRYPTION_KEYS = [OLD]
    made = subscribe(dora).id, target(dora).id
    settings.ENCRYPTION_KEYS = [NEW, OLD]
    return made


def other_secrets(person: Person) -> list[str]:
    with tenant_scope(person.tenant_id):
        webhook = Webhook.objects.get(tenant_id=person.tenant_id)
        found = AlertTarget.objects.get(tenant_id=person.tenant_id)
    return [webhook.secret, webhook.previous_secret, found.url]


def test_webhooks_and_alert_targets_move_too(dora: Person, others: Any, settings: LazySettings) -> None:
    report = rotate()

    assert (report["total"], report["renewed"], report["other_secrets"]) == (2, 2, 2)
    settings.ENCRYPTION_KEYS = [NEW]
    assert [encryption.decrypt(one) for one in other_secrets(dora)] == ["whsec_now", "whsec_before", TARGET]


def test_a_dry_run_leaves_them_too(dora: Person, others: Any) -> None:
    before = other_secrets(dora)

    rotate("--dry-run")

    assert other_secrets(dora) == before


def test_a_webhook_without_a_previous_secret_has_none_afterwards(dora: Person, others: Any) -> None:
    with tenant_scope(dora.tenant_id):
        Webhook.objects.filter(tenant_id=dora.tenant_id).update(previous_secret="")

    rotate()

    assert other_secrets(dora)[1] == ""


@pytest.mark.parametrize("what", [Webhook, AlertTarget])
def test_another_secret_that_cannot_be_read_fails_the_command_too(dora: Person, others: Any, what: Any) -> None:
    name = "secret" if what is Webhook else "url"
    with tenant_scope(dora.tenant_id):
        what.objects.filter(tenant_id=dora.tenant_id).update(**{name: "gAAAAAB-nonsense"})

    rotate(fails=True)


# What it prints


def test_for_people_it_prints_a_line_a_figure(dora: Person, capsys: pytest.CaptureFixture[str]) -> None:
    out = io.StringIO()

    call_command("rotate_llm_keys", stdout=out)

    figures = dict(line.split(maxsplit=1) for line in out.getvalue().splitlines())
    assert (figures["total"], figures["renewed"], figures["unreadable"]) == ("2", "2", "0")
    said = out.getvalue() + "".join(capsys.readouterr())
    assert not [secret for secret in (OPENAI, CLAUDE, OLD, NEW) if secret in said]


def test_it_prints_nothing_but_json_when_asked_to(dora: Person, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("rotate_llm_keys", "--json")

    printed, said = capsys.readouterr()
    assert json.loads(printed).keys() == REPORT
    assert "Tenants" not in said


def test_no_tenants_are_no_failure(database: None, only: Callable[..., None]) -> None:
    only()

    assert rotate()["total"] == 0
