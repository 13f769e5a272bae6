"""Reading documents: from the nearest tier, never a wrong one, and what a tier lacks is repaired from the next."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
import zstandard
from django.conf import LazySettings, settings
from django.db import connection
from django.test.utils import CaptureQueriesContext

from content import cache, documents, packing
from content.cache import Memory
from content.models import SpooledDocument
from content.stores.base import DocumentKey, StoreUnavailable
from dr.fallback import BackupReader
from engarde.common import redis as redis_client
from engarde.common.scopes import system_scope, tenant_scope
from tests import switches, tiers
from tests.people import Person

Keys = list[DocumentKey]


@pytest.fixture
def fresh(alice: Person) -> Keys:
    """Twenty documents of alice's that are only spooled."""
    ids = [alice.writes(body=f"body {number}")["id"] for number in range(20)]
    documents.start_afresh()
    return [key_of(item_id) for item_id in ids]


@pytest.fixture
def stored(fresh: Keys, upload: Callable[[], int], back_up: Callable[[], int]) -> Keys:
    """Twenty documents of alice's that ZeroDB and the backup have, and nobody a copy of."""
    upload()
    back_up()
    tiers.forget_copies()
    return fresh


@pytest.fixture
def silent_redis(settings: LazySettings) -> Iterator[None]:
    """A Redis that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        settings.REDIS_URL = f"redis://127.0.0.1:{server.getsockname()[1]}/0"
        redis_client.client.cache_clear()
        yield
    redis_client.client.cache_clear()


def key_of(item_id: str, version: int = -1) -> DocumentKey:
    row = tiers.versions(item_id)[version]
    return documents.key_of(row.content_id, row.sha256)


def read(person: Person, keys: Keys) -> dict[DocumentKey, str]:
    """Return where each document came from."""
    found = documents.read_many(tenant_id=person.tenant_id, keys=keys)
    assert all(key.names(document.text) for key, document in found.items())
    return {key: document.tier for key, document in found.items()}


def asked(before: Any) -> dict[str, int]:
    """Return the requests that ZeroDB got since then."""
    return dict(switches.requests_seen(settings.ZERODB_BASE_URL) - before)


def in_redis(key: DocumentKey) -> Any:
    return redis_client.client().get(f"{cache.KEY_PREFIX}{key}")


def test_a_page_of_fresh_writes_is_one_query_and_no_call(alice: Person, fresh: Keys, silent_redis: None) -> None:
    before = switches.requests_seen(settings.ZERODB_BASE_URL)

    with CaptureQueriesContext(connection) as queries:
        assert read(alice, fresh) == dict.fromkeys(fresh, "spool")

    assert [query["sql"].split()[0] for query in queries if query["sql"] not in {"BEGIN", "COMMIT"}] == ["SELECT"]
    assert asked(before) == {}


def test_a_page_that_is_in_memory_costs_no_call_at_all(alice: Person, fresh: Keys, silent_redis: None) -> None:
    read(alice, fresh)
    before = switches.requests_seen(settings.ZERODB_BASE_URL)

    with CaptureQueriesContext(connection) as queries:
        assert read(alice, fresh) == dict.fromkeys(fresh, "cache")

    assert len(queries) == 0
    assert asked(before) == {}
    assert documents.remembered(keys=fresh).keys() == set(fresh)


def test_a_page_comes_from_zerodb_in_one_call(alice: Person, stored: Keys) -> None:
    before = switches.requests_seen(settings.ZERODB_BASE_URL)

    assert read(alice, stored) == dict.fromkeys(stored, "zerodb")
    assert asked(before) == {"POST /{table}/query": 1}


def test_what_came_from_zerodb_is_shared_with_the_other_processes(alice: Person, stored: Keys) -> None:
    read(alice, stored)
    documents.start_afresh()
    before = switches.requests_seen(settings.ZERODB_BASE_URL)

    assert read(alice, stored) == dict.fromkeys(stored, "cache")
    assert asked(before) == {}


def test_what_came_from_the_backup_is_shared_too(alice: Person, stored: Keys) -> None:
    tiers.lose_zerodb_rows(alice.tenant_id)
    assert read(alice, stored[:1]) == {stored[0]: "backup"}
    documents.start_afresh()

    assert documents.fetch(tenant_id=alice.tenant_id, keys=stored[:1])[stored[0]].tier == "cache"


def test_what_came_from_the_spool_is_not_shared(alice: Person, fresh: Keys) -> None:
    read(alice, fresh)

    assert [in_redis(key) for key in fresh] == [None] * len(fresh)


def test_every_shared_copy_has_an_end(alice: Person, stored: Keys) -> None:
    read(alice, stored)

    lives = [redis_client.client().ttl(f"{cache.KEY_PREFIX}{key}") for key in stored]
    assert all(0 < life <= settings.CONTENT_CACHE_SECONDS for life in lives)


def test_a_large_document_is_kept_in_no_cache(alice: Person, upload: Callable[[], int], settings: LazySettings) -> None:
    settings.BIGQUERY_SYNC_ENABLED = False
    key = key_of(alice.writes(body="x" * (settings.CONTENT_CACHE_MAX_ENTRY_BYTES + 1))["id"])
    upload()
    documents.start_afresh()

    assert [read(alice, [key]) for _ in range(2)] == [{key: "zerodb"}] * 2
    assert in_redis(key) is None


def bomb(text: str) -> bytes:
    return zstandard.compress(b" " * (packing.MAX_DOCUMENT_BYTES + 1))


@pytest.mark.parametrize(
    "poison",
    [lambda text: b"not zstd", lambda text: packing.compress(text.replace("body", "lies")), bomb, lambda text: b""],
    ids=["garbage", "lie", "bomb", "nothing"],
)
def test_a_poisoned_copy_is_never_served_and_is_removed(
    alice: Person, stored: Keys, poison: Callable[[str], bytes]
) -> None:
    key = stored[0]
    text = documents.read_many(tenant_id=alice.tenant_id, keys=[key])[key].text
    redis_client.client().set(f"{cache.KEY_PREFIX}{key}", poison(text))
    documents.start_afresh()

    found = documents.fetch(tenant_id=alice.tenant_id, keys=[key])[key]

    assert (found.text, found.tier) == (text, "zerodb")
    kept = in_redis(key)
    assert kept is not None
    assert packing.decompress(kept) == text


def test_a_poisoned_copy_is_removed_even_when_nobody_else_has_the_document(alice: Person) -> None:
    key = DocumentKey.of(uuid4(), "{}")
    redis_client.client().set(f"{cache.KEY_PREFIX}{key}", packing.compress("[]"))

    assert documents.fetch(tenant_id=alice.tenant_id, keys=[key]) == {}
    assert in_redis(key) is None


def test_a_redis_that_hangs_costs_one_short_wait_and_then_nothing(
    alice: Person, stored: Keys, silent_redis: None
) -> None:
    started = time.monotonic()
    cache.shared(stored)
    first = time.monotonic() - started
    for _ in range(20):
        cache.shared(stored)
        cache.share({})
    assert first < 10 * settings.REDIS_TIMEOUT_SECONDS
    assert time.monotonic() - started < first + 10 * settings.REDIS_TIMEOUT_SECONDS  # each waiting would take 20

    assert read(alice, stored) == dict.fromkeys(stored, "zerodb")


def test_a_redis_that_is_away_is_an_empty_cache(alice: Person, stored: Keys, settings: LazySettings) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:9/0"
    redis_client.client.cache_clear()
    try:
        assert read(alice, stored) == dict.fromkeys(stored, "zerodb")
    finally:
        redis_client.client.cache_clear()


def test_a_bomb_is_not_even_unpacked() -> None:
    with pytest.raises(packing.DamagedDocument, match="too many bytes"):
        packing.decompress(bomb(""))


def test_memory_keeps_within_its_bytes_and_forgets_the_oldest_first() -> None:
    memory = Memory(100_000)
    texts = {DocumentKey.of(uuid4(), text): text for text in (f"{number:05}" * 200 for number in range(200))}
    keys = list(texts)
    for key in keys:
        memory.get_many(keys[:1])
        memory.put_many({key: texts[key]})

    kept = memory.get_many(keys)

    assert memory.size <= 100_000
    assert 30 < len(kept) < 100
    assert keys[0] in kept
    assert kept.keys() - {keys[0]} == set(keys[-len(kept) + 1 :])


def test_memory_leaves_out_what_is_larger_than_itself() -> None:
    memory, key = Memory(1000), DocumentKey.of(uuid4(), "x" * 2000)
    memory.put_many({key: "x" * 2000})

    assert memory.get_many([key]) == {}


def test_memory_bears_many_threads() -> None:
    memory = Memory(50_000)
    texts = {DocumentKey.of(uuid4(), str(number)): str(number) for number in range(300)}
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for key, text in list(texts.items()) * 5:
                memory.put_many({key: text})
                assert memory.get_many([key]).get(key, text) == text
        except BaseException as error:  # noqa: BLE001 -- whatever a race raises
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    assert memory.size <= 50_000


def test_a_document_that_zerodb_lost_is_put_back_by_reading_it(
    alice: Person, stored: Keys, upload: Callable[[], int]
) -> None:
    item_id = str(stored[0].content_id)
    tiers.lose_zerodb_rows(alice.tenant_id)

    assert read(alice, stored[:1]) == {stored[0]: "backup"}

    assert tiers.versions(item_id)[0].zerodb_row_id is None
    assert [row.uploaded_at for row in tiers.spooled(item_id)] == [None]
    upload()
    [row] = tiers.zerodb_rows(item_id)
    assert tiers.versions(item_id)[0].zerodb_row_id == row["row_id"]
    assert tiers.spooled(item_id) == []


def test_a_document_that_zerodb_has_damaged_is_stored_beside_it(
    alice: Person, stored: Keys, upload: Callable[[], int]
) -> None:
    item_id = str(stored[0].content_id)
    [row] = tiers.zerodb_rows(item_id)
    tiers.zerodb("PUT", f"/rows/{row['row_id']}", row_data={**row["row_data"], "document": "{}"})

    assert read(alice, stored[:1]) == {stored[0]: "backup"}
    upload()
    tiers.forget_copies()

    assert read(alice, stored[:1]) == {stored[0]: "zerodb"}
    assert tiers.versions(item_id)[0].zerodb_row_id != row["row_id"]


def test_a_zerodb_that_goes_on_lying_is_not_repaired_at_every_read(
    alice: Person, stored: Keys, upload: Callable[[], int]
) -> None:
    item_id = str(stored[0].content_id)
    with switches.switched_on(settings.ZERODB_BASE_URL, "wrong_bodies", how="altered", field="document"):
        for _ in range(4):
            cache.memory.cache_clear()
            redis_client.client().delete(f"{cache.KEY_PREFIX}{stored[0]}")
            assert read(alice, stored[:1]) == {stored[0]: "backup"}
            upload()

    assert len(tiers.zerodb_rows(item_id)) == 2


def test_nothing_is_repaired_while_zerodb_is_only_away(
    alice: Person, stored: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tiers.zerodb_away(monkeypatch):
        assert read(alice, stored[:1]) == {stored[0]: "backup"}

    assert tiers.spooled(str(stored[0].content_id)) == []
    assert tiers.versions(str(stored[0].content_id))[0].zerodb_row_id is not None


def test_a_damaged_document_in_the_spool_is_mended_from_another_tier(alice: Person, upload: Callable[[], int]) -> None:
    item_id = alice.writes(body="whole")["id"]
    upload()
    documents.start_afresh()
    with system_scope("a test damages the spool"):
        SpooledDocument.objects.filter(content_id=item_id).update(document=packing.compress('{"body":"lie"}'))
    key = key_of(item_id)

    assert read(alice, [key]) == {key: "zerodb"}

    with tenant_scope(alice.tenant_id):
        assert documents.spooled(keys=[key])[key].fields["body"] == "whole"
    [row] = tiers.spooled(item_id)
    assert row.uploaded_at is not None


class Stubborn:
    """A backup that is away, and that takes its time to show it."""

    calls = 0

    def get_many(self, **_: Any) -> dict[DocumentKey, str]:
        type(self).calls += 1
        raise StoreUnavailable("the backup does not answer")


def test_a_backup_that_is_away_is_asked_once_and_then_left_alone(
    alice: Person, settings: LazySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.CONTENT_READ_FALLBACK = f"{Stubborn.__module__}.Stubborn"
    documents.last_resort.cache_clear()
    monkeypatch.setattr(Stubborn, "calls", 0)

    for _ in range(5):
        assert documents.fetch(tenant_id=alice.tenant_id, keys=[DocumentKey.of(uuid4(), "{}")]) == {}

    assert Stubborn.calls == 1


def test_the_backup_has_a_short_time_to_answer(
    alice: Person, settings: LazySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.CONTENT_READ_FALLBACK_SECONDS = 1.5
    given: list[float] = []

    def get_many(_self: BackupReader, **options: Any) -> dict[DocumentKey, str]:
        given.append(options["timeout"])
        return {}

    monkeypatch.setattr(BackupReader, "get_many", get_many)

    documents.fetch(tenant_id=alice.tenant_id, keys=[DocumentKey.of(uuid4(), "{}")])

    assert given == [1.5]


def test_a_backup_that_lies_is_not_believed(alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    key = DocumentKey.of(uuid4(), "{}")
    monkeypatch.setattr(BackupReader, "get_many", lambda _self, **_: {key: "[]"})

    assert documents.fetch(tenant_id=alice.tenant_id, keys=[key]) == {}


def test_without_a_key_the_platform_runs_on_the_spool_alone(alice: Person, settings: LazySettings) -> None:
    settings.ZERODB_API_KEY = ""
    documents.start_afresh()

    item_id = alice.writes(body="kept here")["id"]
    documents.start_afresh()
    item = alice.api.get(f"/api/content/{item_id}").json()

    assert (item["body"], item["storage"]["tier"]) == ("kept here", "spool")
    assert documents.document_store() is None


def test_items_with_equal_documents_are_not_taken_for_each_other(alice: Person) -> None:
    """A document of one item that is equal to another's, and was not asked for, is not given either."""
    first, second = (alice.writes(body="A")["id"] for _ in range(2))
    for item_id in (first, second):
        alice.api.patch(f"/api/content/{item_id}", {"body": "B"})
    documents.start_afresh()
    wanted = [key_of(first, 0), key_of(second, 1)]

    with tenant_scope(alice.tenant_id):
        assert documents.spooled(keys=wanted).keys() == set(wanted)
