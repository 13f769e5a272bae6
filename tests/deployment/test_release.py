"""`manage.py release`, and `/metrics` behind a token."""

from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client

from content.stores.base import StoreUnavailable


class Printed:
    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text


def test_metrics_ask_for_the_token(database: None, settings: Any) -> None:
    client = Client()
    assert client.get("/metrics").status_code == 200

    settings.METRICS_TOKEN = "a-token-for-prometheus"

    for headers in (
        {},
        {"authorization": "Bearer another"},
        {"authorization": "a-token-for-prometheus"},
        {"authorization": "Bearer é"},
    ):
        refused = client.get("/metrics", headers=headers)
        assert (refused.status_code, refused["WWW-Authenticate"]) == (401, "Bearer")
        assert refused["Content-Type"] == "application/problem+json"
        assert b"engarde_" not in refused.content
    let_in = client.get("/metrics", headers={"authorization": "Bearer a-token-for-prometheus"})
    assert (let_in.status_code, b"engarde_spool_bytes" in let_in.content) == (200, True)


def test_a_release_is_repeatable_and_says_what_it_did(database: None) -> None:
    printed = Printed()
    call_command("release", json=True, stdout=printed)
    assert printed.text.strip() == '{"postgres": "migrated", "zerodb": "set up", "bigquery": "set up"}'


def test_a_release_goes_on_without_zerodb_unless_it_is_strict(database: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from content import documents

    store = documents.document_store()

    def away() -> None:
        raise StoreUnavailable("ZeroDB is away")

    monkeypatch.setattr(store, "set_up", away)
    printed = Printed()
    call_command("release", json=True, wait=0, stdout=printed)
    assert '"zerodb": "failed: ZeroDB is away"' in printed.text
    with pytest.raises(SystemExit):
        call_command("release", json=True, wait=0, strict=True, stdout=Printed())


def test_a_release_sets_up_only_what_is_configured(database: None, settings: Any) -> None:
    settings.ZERODB_API_KEY, settings.BIGQUERY_SYNC_ENABLED = "", False
    printed = Printed()
    call_command("release", json=True, stdout=printed)
    assert printed.text.strip() == '{"postgres": "migrated", "zerodb": "not configured", "bigquery": "not configured"}'
