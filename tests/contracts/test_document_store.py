"""What every document store must do, tried on ZeroDBStore and the real emulator."""

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from content.stores.base import Document, DocumentKey, DocumentStore, StoreRejected, StoreUnavailable
from content.stores.breaker import CircuitBreaker, CircuitOpen
from content.stores.zerodb import ZeroDBStore
from tests.zerodb_process import API_KEY, PROJECT_ID, ZeroDBProcess

BRIEFLY = 5.0
"""Seconds within which a call on a stopped store must have failed."""

_numbers = count()


@pytest.fixture
def prefix() -> str:
    return f"test_{next(_numbers)}_"


@pytest.fixture
def store(zerodb: ZeroDBProcess, prefix: str) -> DocumentStore:
    store = make_store(zerodb, collection_prefix=prefix)
    store.set_up()
    return store


@pytest.fixture
def alter(zerodb: ZeroDBProcess) -> Callable[[str, str, object], None]:
    """Change one field of a row behind the store's back."""

    def alter_row(row_id: str, field: str, value: object) -> None:
        with zerodb.sqlite() as connection:
            changed = connection.execute(
                "UPDATE data_row SET row_data = json_set(row_data, ?, ?) WHERE row_id = ?",
                (f"$.{field}", value, row_id),
            )
            assert changed.rowcount == 1

    return alter_row


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[ZeroDBProcess]:
    """An emulator that the test may stop."""
    process = ZeroDBProcess(tmp_path)
    process.start()
    yield process
    process.stop()


def make_store(zerodb: ZeroDBProcess, **options: Any) -> ZeroDBStore:
    return ZeroDBStore(zerodb.url, options.pop("api_key", API_KEY), options.pop("project_id", PROJECT_ID), **options)


def make_document(text: str = '{"title":"A day at sea"}', content_id: UUID | None = None) -> Document:
    return Document(uuid4(), DocumentKey.of(content_id or uuid4(), text), 1, text)


def test_it_makes_its_collections_once(zerodb: ZeroDBProcess, prefix: str) -> None:
    store = make_store(zerodb, collection_prefix=prefix)

    made = store.set_up()

    assert made == [f"{prefix}content_items", f"{prefix}content_versions", f"{prefix}content_media_files"]
    assert store.set_up() == []


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"a":1.0,"b":1e2,"c":-0,"aa":[true,null,{}]}',
        '{ "spaces" :  "kept",\n"order":"b","order":"a"}',
        '{"text":"naïve café — 漢字 😀👩‍👩‍👧 \\u0000 \\ud83d \u2028 \u202e"}',
        '{"nul":"\x00"}',
        '{"html":"<script>&amp;\\"\\\\</script>"}',
        '{"body":"' + "emoji 😀 " * 100_000 + '"}',
    ],
    ids=["empty", "numbers", "spacing", "unicode", "nul", "escapes", "1.2 MB"],
)
def test_it_gives_back_every_byte(store: DocumentStore, text: str) -> None:
    document = make_document(text)

    store.put(document)

    assert store.get_many([document.key]) == {document.key: text}


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_it_gives_back_any_text(store: DocumentStore, text: str) -> None:
    document = make_document(orjson.dumps({"text": text}).decode())

    store.put(document)

    assert store.get_many([document.key]) == {document.key: document.text}


def test_it_leaves_out_what_it_does_not_have(store: DocumentStore) -> None:
    stored, absent = make_document(), make_document()
    store.put(stored)

    assert store.get_many([absent.key, stored.key]) == {stored.key: stored.text}
    assert store.find_row_ids([absent.key, stored.key]).keys() == {stored.key}


def test_it_needs_no_call_for_no_keys() -> None:
    nowhere = ZeroDBStore("http://127.0.0.1:9", API_KEY, PROJECT_ID)

    assert nowhere.get_many([]) == {}


def test_it_keeps_the_versions_of_one_item_apart(store: DocumentStore) -> None:
    first = make_document('{"v":1}')
    second = make_document('{"v":2}', first.key.content_id)
    store.put(first)
    store.put(second)

    assert store.get_many([first.key, second.key]) == {first.key: '{"v":1}', second.key: '{"v":2}'}


def test_it_keeps_equal_texts_of_two_items_apart(store: DocumentStore) -> None:
    mine, theirs = make_document(), make_document()
    store.put(mine)

    assert store.get_many([theirs.key]) == {}


def test_it_reads_more_keys_than_fit_in_one_call(store: DocumentStore) -> None:
    documents = [make_document(f'{{"n":{number}}}') for number in range(250)]
    with ThreadPoolExecutor(8) as threads:
        row_ids = list(threads.map(store.put, documents))

    keys = [document.key for document in documents]
    assert store.get_many(keys + keys) == {document.key: document.text for document in documents}
    assert store.find_row_ids(keys) == dict(zip(keys, row_ids, strict=True))


def test_it_stores_a_document_once_when_told_that_it_may_be_there(store: DocumentStore) -> None:
    document = make_document()

    row_id = store.put(document, maybe_stored=True)

    assert store.put(document, maybe_stored=True) == row_id
    assert store.find_row_ids([document.key]) == {document.key: row_id}


def test_it_tolerates_duplicates(store: DocumentStore) -> None:
    document = make_document()
    row_ids = {store.put(document) for _ in range(3)}

    assert len(row_ids) == 3
    assert store.get_many([document.key]) == {document.key: document.text}
    assert store.find_row_ids([document.key])[document.key] in row_ids


def test_it_finds_every_key_among_more_duplicates_than_one_answer_holds(store: DocumentStore) -> None:
    often, once = make_document('{"n":1}', UUID(int=1)), make_document('{"n":2}', UUID(int=2))
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(store.put, [often] * 1000))
    store.put(once)

    assert store.get_many([often.key, once.key]) == {often.key: often.text, once.key: once.text}


@pytest.mark.parametrize(
    ("field", "value"), [("document", '{"title":"A day at work"}'), ("document", None), ("key", "other")]
)
def test_it_never_returns_an_altered_document(
    store: DocumentStore, alter: Callable[[str, str, object], None], field: str, value: object
) -> None:
    altered, intact = make_document(), make_document()
    alter(store.put(altered), field, value)
    store.put(intact)

    assert store.get_many([altered.key, intact.key]) == {intact.key: intact.text}


def test_it_logs_an_altered_document_without_its_text(
    store: DocumentStore, alter: Callable[[str, str, object], None], caplog: pytest.LogCaptureFixture
) -> None:
    document = make_document()
    alter(store.put(document), "document", '{"secret":1}')

    with caplog.at_level(logging.ERROR, "content.stores"):
        store.get_many([document.key])

    assert str(document.key) in caplog.text
    assert "secret" not in caplog.text


def test_it_stores_an_altered_document_anew(store: DocumentStore, alter: Callable[[str, str, object], None]) -> None:
    document = make_document()
    spoilt = store.put(document)
    alter(spoilt, "document", "{}")

    repaired = store.put(document, maybe_stored=True)

    assert repaired != spoilt
    assert store.get_many([document.key]) == {document.key: document.text}
    assert store.find_row_ids([document.key]) == {document.key: repaired}


def test_it_rejects_a_document_that_its_key_does_not_name(store: DocumentStore) -> None:
    document = Document(uuid4(), DocumentKey.of(uuid4(), "{}"), 1, "[]")

    with pytest.raises(StoreRejected):
        store.put(document)


@pytest.mark.parametrize("sha256", ["", "a" * 63, "A" * 64, "g" * 64, "a" * 64 + "\n"])
def test_it_has_no_keys_that_are_not_checksums(sha256: str) -> None:
    with pytest.raises(ValueError, match="64"):
        DocumentKey(uuid4(), sha256)


def test_it_answers_a_ping(store: DocumentStore) -> None:
    store.ping()


@pytest.mark.parametrize(
    "base_path", ["/v1/projects/{project_id}", "v1/public/{project_id}/", "/v1/public/zerodb/{project_id}"]
)
def test_it_works_under_every_documented_base_path(zerodb: ZeroDBProcess, prefix: str, base_path: str) -> None:
    store = make_store(zerodb, collection_prefix=prefix, base_path=base_path, auth_header="Authorization")
    document = make_document()
    store.set_up()
    store.put(document)

    assert store.get_many([document.key]) == {document.key: document.text}


def test_it_says_that_the_key_is_wrong_without_showing_it(zerodb: ZeroDBProcess) -> None:
    store = make_store(zerodb, api_key="sk_wrong_key")

    for call in all_calls(store):
        with pytest.raises(StoreRejected, match="API key") as rejection:
            call()
        assert "sk_wrong_key" not in str(rejection.value)


@pytest.mark.parametrize("base_path", ["/api/v1/public/projects/{project_id}", "/", "/v1/nowhere"])
def test_it_takes_a_wrong_base_path_for_what_it_is(zerodb: ZeroDBProcess, base_path: str) -> None:
    store = make_store(zerodb, base_path=base_path)

    for call in all_calls(store):
        with pytest.raises(StoreRejected, match="base path"):
            call()


def test_it_says_that_the_project_is_unknown(zerodb: ZeroDBProcess) -> None:
    with pytest.raises(StoreRejected, match="Project not found"):
        make_store(zerodb, project_id=str(uuid4())).ping()


def test_it_says_that_its_collections_are_missing(zerodb: ZeroDBProcess, prefix: str) -> None:
    with pytest.raises(StoreRejected, match="Table not found"):
        make_store(zerodb, collection_prefix=prefix).get_many([make_document().key])


def test_it_says_that_the_filter_is_misspelt(zerodb: ZeroDBProcess, prefix: str) -> None:
    store = make_store(zerodb, collection_prefix=prefix, filter_key="filters")
    store.set_up()

    with pytest.raises(StoreRejected, match="filters"):
        store.get_many([make_document().key])


def test_it_fails_briefly_when_the_store_is_down(mortal: ZeroDBProcess) -> None:
    store = make_store(mortal)
    store.set_up()
    mortal.stop()

    for call in all_calls(store):
        started = time.monotonic()
        with pytest.raises(StoreUnavailable):
            call()
        assert time.monotonic() - started < BRIEFLY


def test_it_leaves_a_failing_store_alone_and_comes_back(mortal: ZeroDBProcess) -> None:
    now = 0.0
    breaker = CircuitBreaker(threshold=3, open_seconds=15, clock=lambda: now)
    store = make_store(mortal, breaker=breaker)
    document = make_document()
    store.set_up()
    store.put(document)
    mortal.kill()

    with pytest.raises(StoreUnavailable):
        store.get_many([document.key])
    with pytest.raises(CircuitOpen) as refusal:
        store.get_many([document.key])
    assert refusal.value.retry_after == 15

    mortal.start()
    with pytest.raises(CircuitOpen):
        store.get_many([document.key])
    now = 15.0
    assert store.get_many([document.key]) == {document.key: document.text}


def test_it_survives_a_restart_of_the_store_between_two_calls(mortal: ZeroDBProcess) -> None:
    store = make_store(mortal)
    document = make_document()
    store.set_up()
    store.put(document)

    mortal.stop()
    mortal.start()

    assert store.get_many([document.key]) == {document.key: document.text}


def all_calls(store: DocumentStore) -> list[Callable[[], object]]:
    document = make_document()
    return [
        store.ping,
        store.set_up,
        lambda: store.put(document),
        lambda: store.get_many([document.key]),
        lambda: store.find_row_ids([document.key]),
    ]
