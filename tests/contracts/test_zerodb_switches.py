"""ZeroDBStore under every switch of the emulator: it never gives a wrong text, and all is well when the trouble is over."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from content.stores.base import (
    DOCUMENTS,
    VERSIONS,
    Document,
    DocumentKey,
    ScannedRow,
    StoreMisconfigured,
    StoreRejected,
    StoreUnavailable,
)
from content.stores.breaker import CircuitBreaker
from content.stores.zerodb import ZeroDBStore
from tests import switches
from tests.zerodb_process import API_KEY, PROJECT_ID, ZeroDBProcess

TROUBLES: dict[str, tuple[str, dict[str, Any]]] = {
    "slow": ("latency", {"milliseconds": 30}),
    "silent": ("stall", {"seconds": 2, "rate": 0.4, "seed": 1}),
    "silent after the commit": ("stall", {"seconds": 2, "commit": True, "rate": 0.4, "seed": 2}),
    "429": ("too_many_requests", {"rate": 0.5, "seed": 3}),
    "429, wait 1 s": ("too_many_requests", {"retry_after": 1, "left": 2}),
    "429, wait until": ("too_many_requests", {"retry_at": 1, "left": 2}),
    "500": ("server_error", {"rate": 0.5, "seed": 4}),
    "503": ("server_error", {"status": 503, "rate": 0.5, "seed": 5}),
    "HTML": ("bad_gateway", {"rate": 0.5, "seed": 6}),
    "unknown address": ("router_404", {"rate": 0.3, "seed": 7}),
    "answer dropped": ("lost_answer", {"rate": 0.6, "seed": 8}),
    "answer is an error": ("lost_answer", {"instead": "error", "rate": 0.6, "seed": 9}),
    "answer is empty": ("lost_answer", {"instead": "empty", "rate": 0.6, "seed": 10}),
    "half of the JSON": ("truncated_json", {"rate": 0.5, "seed": 11}),
    "half of the bytes": ("truncated_json", {"announced": True, "rate": 0.5, "seed": 12}),
    "key refused": ("refuse_key_header", {"rate": 0.3, "seed": 13}),
    "201 and 204": ("statuses_201_204", {}),
    "bare lists": ("bare_lists", {}),
    "swapped rows": ("wrong_bodies", {"rate": 0.5, "seed": 14}),
    "altered rows": ("wrong_bodies", {"how": "altered", "rate": 0.5, "seed": 15}),
    "altered documents": ("wrong_bodies", {"how": "altered", "field": "document"}),
    "swapped documents": ("wrong_bodies", {"field": "document"}),
    "table exists as 400": ("duplicate_table_400", {}),
    "filter unknown": ("filters_spelling", {"rate": 0.5, "seed": 16}),
    "filter refused": ("filters_spelling", {"other": "refused", "rate": 0.5, "seed": 17}),
    "late to see": ("stale_reads", {"milliseconds": 300}),
    "PUT merges": ("put_merges", {}),
    "inserted twice": ("duplicate_inserts", {}),
}
HARMLESS = {"slow", "201 and 204", "bare lists", "table exists as 400", "PUT merges", "inserted twice"}
TRIES = 40

_numbers = count()


@pytest.fixture
def store(zerodb: ZeroDBProcess) -> Iterator[ZeroDBStore]:
    """A store that is ready; no switch stays on after the test."""
    ready = make_store(zerodb, f"switch_{next(_numbers)}_")
    ready.set_up()
    yield ready
    switches.all_off(zerodb.url)


def make_store(zerodb: ZeroDBProcess, prefix: str, **options: Any) -> ZeroDBStore:
    given = {"read_timeout": 0.5, "attempts": 2, "breaker": CircuitBreaker(threshold=10_000), **options}
    return ZeroDBStore(zerodb.url, API_KEY, PROJECT_ID, collection_prefix=prefix, **given)


def make_documents(number: int) -> list[Document]:
    texts = [f'{{"body":"document {n} of {uuid4()}"}}' for n in range(number)]
    return [Document(uuid4(), DocumentKey.of(uuid4(), text), 1, text) for text in texts]


def persist(call: Any) -> Any:
    """Call until it works, as the carriers do; `call` is told whether it is the first time."""
    for number in range(TRIES):
        try:
            return call(number == 0)
        except (StoreUnavailable, StoreRejected):
            continue
    pytest.fail(f"it did not work in {TRIES} tries")


def all_rows(store: ZeroDBStore, collection: str) -> list[ScannedRow]:
    return list(store.scan(collection, limit=1000).rows)


@pytest.mark.parametrize("trouble", TROUBLES)
def test_what_was_stored_is_there_and_nothing_wrong_is_ever_read(
    zerodb: ZeroDBProcess, store: ZeroDBStore, trouble: str
) -> None:
    name, options = TROUBLES[trouble]
    documents = make_documents(6)
    wanted = {document.key: document.text for document in documents}
    with switches.switched_on(zerodb.url, name, **options):
        for document in documents:
            persist(lambda first, document=document: store.put(document, maybe_stored=not first))
        for _ in range(6):
            try:
                found = store.get_many(wanted)
            except (StoreUnavailable, StoreRejected):
                continue
            assert found.items() <= wanted.items()

    assert store.get_many(wanted) == wanted
    if name not in {
        "stale_reads",
        "duplicate_inserts",
        "wrong_bodies",
    }:  # which make duplicates that the sweep collects
        assert len(all_rows(store, DOCUMENTS)) == len(documents)


@pytest.mark.parametrize("trouble", TROUBLES)
def test_records_come_and_go(zerodb: ZeroDBProcess, store: ZeroDBStore, trouble: str) -> None:
    name, options = TROUBLES[trouble]
    tenant_id, keys = uuid4(), [f"{uuid4()}:{version}" for version in (2, 3)]

    def put(key: str, *, first: bool) -> str:
        record = {"version": int(key[-1]), "what": "update"}
        return store.put_record(VERSIONS, key, tenant_id=tenant_id, record=record, maybe_stored=not first)

    with switches.switched_on(zerodb.url, name, **options):
        for key in keys:
            persist(lambda first, key=key: put(key, first=first))
        persist(lambda _first: store.delete_rows(VERSIONS, keys[:1]))

    rows = all_rows(store, VERSIONS)
    assert {(row.key, row.intact) for row in rows} == {(keys[1], True)}
    if name not in {"stale_reads", "duplicate_inserts", "wrong_bodies"}:
        assert len(rows) == 1


@pytest.mark.parametrize("trouble", sorted(HARMLESS))
def test_what_is_only_another_dialect_costs_no_failure(zerodb: ZeroDBProcess, store: ZeroDBStore, trouble: str) -> None:
    name, options = TROUBLES[trouble]
    [document] = make_documents(1)
    with switches.switched_on(zerodb.url, name, **options):
        assert store.set_up() == []
        store.put(document)
        assert store.get_many([document.key]) == {document.key: document.text}
        assert store.delete_rows(DOCUMENTS, [str(document.key)]) >= 1
        row_id = store.put(document, maybe_stored=True)
        store.delete_row(DOCUMENTS, row_id)
        store.ping()


def test_a_service_that_wants_filters_is_spoken_to_in_its_way(zerodb: ZeroDBProcess) -> None:
    prefix = f"switch_{next(_numbers)}_"
    store = make_store(zerodb, prefix, filter_key="filters")
    [document, other] = make_documents(2)
    with switches.switched_on(zerodb.url, "filters_spelling"):
        store.set_up()
        for one in (document, other):
            store.put(one)
        assert store.get_many([document.key]) == {document.key: document.text}
        with pytest.raises(StoreRejected, match="ZERODB_FILTER_KEY"):
            make_store(zerodb, prefix).get_many([document.key])
        with pytest.raises(StoreRejected, match="ZERODB_FILTER_KEY"):
            make_store(zerodb, prefix).ping()


def test_a_scan_notices_that_its_filter_is_not_heeded(zerodb: ZeroDBProcess, store: ZeroDBStore) -> None:
    for document in make_documents(3):
        store.put(document)
    after = all_rows(store, DOCUMENTS)[1].key
    with (
        switches.switched_on(zerodb.url, "filters_spelling"),
        pytest.raises(StoreRejected, match="ZERODB_FILTER_KEY"),
    ):
        store.scan(DOCUMENTS, after=after)


@pytest.mark.parametrize(("switch", "header"), [("refuse_bearer", "Authorization"), ("refuse_key_header", "X-API-Key")])
def test_a_key_in_the_wrong_header_is_a_wrong_setting(zerodb: ZeroDBProcess, switch: str, header: str) -> None:
    store = make_store(zerodb, "", auth_header=header)
    with switches.switched_on(zerodb.url, switch), pytest.raises(StoreMisconfigured, match="API key"):
        store.ping()


def test_it_survives_a_crash_between_commit_and_answer(tmp_path: Path) -> None:
    mortal = ZeroDBProcess(tmp_path)
    mortal.start()
    try:
        store = make_store(mortal, "", attempts=1)
        store.set_up()
        [document] = make_documents(1)
        with switches.switched_on(mortal.url, "crash", when="after"), pytest.raises(StoreUnavailable):
            store.put(document)
        mortal.stop()
        mortal.start()
        store.put(document, maybe_stored=True)
        assert [row.key for row in all_rows(store, DOCUMENTS)] == [str(document.key)]
    finally:
        mortal.stop()
