"""A brand's language can change: its items are indexed anew, in every tier that their documents are in."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from content import indexing, queries
from content.models import SearchEntry
from engarde.common.scopes import tenant_scope
from tests import tiers
from tests.people import Person


def speak(person: Person, language: str) -> None:
    assert person.api.patch(f"/api/brands/{person.brand_id}", {"language": language}).status_code == 200


def found(person: Person, text: str) -> int:
    total: int = person.api.get("/api/content", {"search": text}).json()["pagination"]["total"]
    return total


def test_items_are_found_in_the_new_language(alice: Person) -> None:
    alice.writes(title="Häuser am See", body="Wir laufen")
    assert found(alice, "gelaufen haus see") == 0
    speak(alice, "de-CH")

    indexing.index_changed_brands(now=timezone.now())

    assert found(alice, "haus see") == 1
    with tenant_scope(alice.tenant_id):
        languages = set(SearchEntry.objects.filter(tenant_id=alice.tenant_id).values_list("language", flat=True))
    assert languages == {"german"}


def test_new_items_are_indexed_in_the_brands_language_at_once(alice: Person) -> None:
    speak(alice, "fr")
    alice.writes(title="Les chevaux", body="courir")
    assert found(alice, "cheval rien") == 0
    assert found(alice, "chevaux") == 1


def test_an_unknown_language_is_searched_word_by_word(alice: Person) -> None:
    speak(alice, "tlh")
    alice.writes(title="tlhIngan maH", body="Qapla'")
    assert found(alice, "tlhingan mah") == 1


def test_it_goes_on_later_when_documents_cannot_be_read(
    alice: Person, upload: Callable[[], int], back_up: Callable[[], int], monkeypatch: Any
) -> None:
    alice.writes(title="Häuser", body="Wir laufen")
    upload()
    back_up()
    speak(alice, "de")
    monkeypatch.setattr("content.queries.documents.read_many", lambda **_: {})
    indexing.index_changed_brands(now=timezone.now())
    assert found(alice, "haus") == 0
    monkeypatch.undo()

    indexing.index_changed_brands(now=timezone.now())

    assert found(alice, "haus und") == 0
    assert found(alice, "haus") == 1


def test_an_item_that_came_back_from_the_backup_is_found(
    alice: Person, upload: Callable[[], int], back_up: Callable[[], int]
) -> None:
    from io import StringIO

    from django.core.management import call_command

    item_id = alice.writes(title="Lost and found", tags=["a tag"], platforms=["a platform"])["id"]
    upload()
    back_up()
    tiers.lose_postgres_rows(item_id)
    assert found(alice, "lost") == 0

    call_command("restore_from_bigquery", "--tenant", str(alice.tenant_id), "--json", stdout=StringIO())

    for query in ("search=lost", "tags=a tag", "platform=a platform"):
        assert alice.api.get(f"/api/content?{query}").json()["pagination"]["total"] == 1, query


def test_a_write_that_comes_between_reading_and_indexing_keeps_its_words(alice: Person, monkeypatch: Any) -> None:
    item_id = alice.writes(title="Old words", body="old")["id"]
    speak(alice, "de")
    read = queries.with_documents

    def read_before_a_write(**wanted: Any) -> Any:
        found = read(**wanted)
        if any(str(item.id) == item_id for item in found):
            monkeypatch.undo()
            alice.api.patch(f"/api/content/{item_id}", {"title": "Fresh words"})
        return found

    monkeypatch.setattr("content.queries.with_documents", read_before_a_write)
    indexing.index_changed_brands(now=timezone.now())

    assert found(alice, "fresh") == 1


@pytest.mark.soak
def test_a_straggler_in_the_old_language_is_found_by_the_second_look(alice: Person) -> None:
    speak(alice, "de")
    indexing.index_changed_brands(now=timezone.now())
    item_id = alice.writes(title="Häuser", body="-")["id"]
    with tenant_scope(alice.tenant_id):
        SearchEntry.objects.filter(content_id=item_id).update(language="english")

    indexing.index_changed_brands(now=timezone.now() + timedelta(seconds=61))

    with tenant_scope(alice.tenant_id):
        assert SearchEntry.objects.get(content_id=item_id).language == "german"


def test_one_item_that_cannot_be_read_holds_up_no_other(alice: Person, monkeypatch: Any) -> None:
    lost, good = alice.writes(title="Häuser", body="-")["id"], alice.writes(title="Bäume", body="-")["id"]
    speak(alice, "de")
    read = queries.with_documents

    def read_without_one(**wanted: Any) -> Any:
        return [replace(item, document=None) if str(item.id) == lost else item for item in read(**wanted)]

    monkeypatch.setattr("content.queries.with_documents", read_without_one)
    indexing.index_changed_brands(now=timezone.now())

    with tenant_scope(alice.tenant_id):
        assert SearchEntry.objects.get(content_id=good).language == "german"
        assert SearchEntry.objects.get(content_id=lost).language == "english"
