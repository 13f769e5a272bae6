"""What every document store must do, tried on ZeroDBStore and the real emulator."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import ANY
from uuid import UUID, uuid4

import orjson
import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from content.stores.base import (
    DOCUMENTS,
    MEDIA,
    VERSIONS,
    Document,
    DocumentKey,
    DocumentStore,
    ScannedRow,
    StoreMisconfigured,
    StoreRejected,
    StoreUnavailable,
)
from content.stores.breaker import CircuitBreaker, CircuitOpen
from content.stores.zerodb import ZeroDBStore
from tests.zerodb_process import API_KEY, PROJECT_ID, ZeroDBProcess

BRIEFLY = 5.0
"""Seconds within which a call on a stopped store must have failed."""

Rows = Callable[[str], list[dict[str, Any]]]

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
def rows(zerodb: ZeroDBProcess, prefix: str) -> Rows:
    """All rows of a collection, as the service has them."""

    def read(collection: str) -> list[dict[str, Any]]:
        answer = requests.get(
            f"{zerodb.tables_url}/{prefix}{collection}/rows?limit=1000", headers={"X-API-Key": API_KEY}, timeout=10
        )
        answer.raise_for_status()
        return list(answer.json()["data"])

    return read


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

    for number in range(len(all_calls(store))):
        # A breaker of its own for each: such refusals open it.
        call = all_calls(make_store(zerodb, api_key="sk_wrong_key"))[number]
        with pytest.raises(StoreMisconfigured, match="API key") as rejection:
            call()
        assert "sk_wrong_key" not in str(rejection.value)


@pytest.mark.parametrize("base_path", ["/api/v1/public/projects/{project_id}", "/", "/v1/nowhere"])
def test_it_takes_a_wrong_base_path_for_what_it_is(zerodb: ZeroDBProcess, base_path: str) -> None:
    for number in range(len(all_calls(make_store(zerodb)))):
        call = all_calls(make_store(zerodb, base_path=base_path))[number]
        with pytest.raises(StoreMisconfigured, match="base path"):
            call()


def test_it_stops_knocking_at_a_door_that_stays_shut(zerodb: ZeroDBProcess) -> None:
    store = make_store(zerodb, api_key="sk_wrong_key", breaker=CircuitBreaker(threshold=2))

    for _ in range(2):
        with pytest.raises(StoreMisconfigured):
            store.ping()
    with pytest.raises(CircuitOpen, match="refuses the API key"):
        store.ping()


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


def test_it_stores_a_record_once_however_often_it_is_told_to(store: DocumentStore, rows: Rows) -> None:
    tenant_id, record = uuid4(), {"version": 2, "changed_fields": ["title"], "who": None}

    row_id = store.put_record(VERSIONS, "item:2", tenant_id=tenant_id, record=record)
    again = store.put_record(VERSIONS, "item:2", tenant_id=tenant_id, record=record, maybe_stored=True)

    assert again == row_id
    [row] = rows(VERSIONS)
    assert row["row_data"] == {**record, "key": "item:2", "tenant_id": str(tenant_id), "checksum": ANY}


def test_it_makes_an_older_record_of_the_same_key_equal(store: DocumentStore, rows: Rows) -> None:
    tenant_id = uuid4()
    row_id = store.put_record(MEDIA, "file", tenant_id=tenant_id, record={"name": "old", "width": 1})

    store.put_record(MEDIA, "file", tenant_id=tenant_id, record={"name": "new"}, maybe_stored=True)

    [row] = rows(MEDIA)
    assert (row["row_id"], row["row_data"]["name"]) == (row_id, "new")
    assert "width" not in row["row_data"]


def test_it_removes_every_row_of_a_key_and_no_other(store: DocumentStore) -> None:
    twice, once, stays = (make_document(f'{{"n":{number}}}') for number in range(3))
    for document in (twice, twice, once, stays):
        store.put(document)

    removed = store.delete_rows(DOCUMENTS, [str(twice.key), str(once.key), "nobody-has-this"])

    assert removed == 3
    assert store.get_many([twice.key, once.key, stays.key]) == {stays.key: stays.text}
    assert store.delete_rows(DOCUMENTS, [str(twice.key)]) == 0


def test_it_removes_more_rows_than_may_go_unconfirmed(store: DocumentStore, rows: Rows) -> None:
    often, others = make_document(), [make_document(f'{{"n":{number}}}') for number in range(3)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(store.put, [often] * 120 + others))

    assert store.delete_rows(DOCUMENTS, [str(often.key), *(str(other.key) for other in others[:2])]) == 122
    assert [row["row_data"]["key"] for row in rows(DOCUMENTS)] == [str(others[2].key)]


def test_it_removes_more_keys_than_fit_in_one_call(store: DocumentStore, rows: Rows) -> None:
    keys = [f"key-{number:03}" for number in range(150)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda key: store.put_record(MEDIA, key, tenant_id=uuid4(), record={}), keys))

    assert store.delete_rows(MEDIA, keys) == 150
    assert rows(MEDIA) == []


def test_it_removes_one_row_and_bears_that_it_is_gone(store: DocumentStore) -> None:
    document = make_document()
    first, second = store.put(document), store.put(document)

    store.delete_row(DOCUMENTS, first)
    store.delete_row(DOCUMENTS, first)

    assert store.find_row_ids([document.key]) == {document.key: second}


def test_it_scans_every_row_once_in_the_order_of_keys(store: DocumentStore) -> None:
    documents = [make_document(f'{{"n":{number}}}') for number in range(23)]
    with ThreadPoolExecutor(8) as threads:
        row_ids = list(threads.map(store.put, [*documents, *documents[:5]]))

    seen = list(scanned(store, limit=7))

    assert sorted(row.row_id for row in seen) == sorted(row_ids)
    assert [row.key for row in seen] == sorted(row.key for row in seen)
    assert all(row.intact and row.created_at for row in seen)


def test_a_scan_never_tears_the_rows_of_a_key_apart(store: DocumentStore) -> None:
    documents = [make_document(f'{{"n":{number}}}') for number in range(4)]
    for document in documents * 3:
        store.put(document)

    place: str | None = ""
    while place is not None:
        page = store.scan(DOCUMENTS, after=place, limit=5)
        assert {list(keys.values()).pop() for keys in [Counter(row.key for row in page.rows)]} == {3}
        place = page.next_after


def test_a_scan_of_one_tenant_passes_over_the_rows_of_others(store: DocumentStore) -> None:
    tenant_id = uuid4()
    own = [replace(make_document(f'{{"n":{number}}}'), tenant_id=tenant_id) for number in range(3)]
    for document in (own[0], make_document(), own[1], make_document(), own[2]):
        store.put(document)

    first = store.scan(DOCUMENTS, limit=3, tenant_id=tenant_id)
    rest = store.scan(DOCUMENTS, after=str(first.next_after), limit=3, tenant_id=tenant_id)

    assert [row.key for row in (*first.rows, *rest.rows)] == sorted(str(document.key) for document in own)
    assert store.scan(DOCUMENTS, tenant_id=uuid4()).rows == []


def test_a_scan_says_when_a_key_has_more_rows_than_a_page(store: DocumentStore) -> None:
    first, often = make_document('{"n":1}', UUID(int=1)), make_document('{"n":2}', UUID(int=2))
    for document in (first, *[often] * 6):
        store.put(document)

    page = store.scan(DOCUMENTS, limit=4)
    crowded = store.scan(DOCUMENTS, after=str(first.key), limit=4)

    assert ([row.key for row in page.rows], page.is_crowded) == ([str(first.key)], False)
    assert ([row.key for row in crowded.rows], crowded.is_crowded) == ([str(often.key)] * 4, True)
    assert store.scan(DOCUMENTS, after=str(crowded.next_after), limit=4).rows == []


def test_a_scan_tells_damaged_documents_and_records(
    store: DocumentStore, alter: Callable[[str, str, object], None]
) -> None:
    alter(store.put(make_document()), "document", "{}")
    alter(store.put_record(VERSIONS, "a:2", tenant_id=uuid4(), record={"version": 2}), "version", 3)
    store.put_record(VERSIONS, "b:2", tenant_id=uuid4(), record={"version": 2})

    assert [row.intact for row in scanned(store)] == [False]
    assert [(row.key, row.intact) for row in store.scan(VERSIONS).rows] == [("a:2", False), ("b:2", True)]


def test_it_gives_all_rows_of_one_key_and_no_others(
    store: DocumentStore, alter: Callable[[str, str, object], None]
) -> None:
    document = make_document()
    good, damaged = store.put(document), store.put(document)
    alter(damaged, "document", "{}")
    store.put(make_document())

    assert {row.row_id: row.intact for row in store.rows_of(DOCUMENTS, str(document.key))} == {
        good: True,
        damaged: False,
    }
    assert list(store.rows_of(DOCUMENTS, "no-row-has-this-key")) == []


def scanned(store: DocumentStore, limit: int = 100) -> Iterator[ScannedRow]:
    place: str | None = ""
    while place is not None:
        page = store.scan(DOCUMENTS, after=place, limit=limit)
        yield from page.rows
        place = page.next_after


def all_calls(store: DocumentStore) -> list[Callable[[], object]]:
    document = make_document()
    return [
        lambda: store.put_record(VERSIONS, "item:2", tenant_id=uuid4(), record={}),
        lambda: store.delete_rows(DOCUMENTS, ["key"]),
        lambda: store.delete_row(DOCUMENTS, "row"),
        lambda: store.scan(DOCUMENTS),
        lambda: store.rows_of(DOCUMENTS, "key"),
        store.ping,
        store.set_up,
        lambda: store.put(document),
        lambda: store.get_many([document.key]),
        lambda: store.find_row_ids([document.key]),
    ]
