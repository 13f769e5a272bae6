"""The WebSocket of a job's progress, through the real server: what is told, to whom, how often, and how it ends."""

import asyncio
import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
import requests
from django.db import OperationalError, connection
from django.db.backends.signals import connection_created
from django.utils import timezone

from engarde.accounts.models import ApiKey, Membership
from engarde.accounts.roles import Role, Scope
from engarde.common.scopes import system_scope
from generation import consumers, feeds, progress, queries
from tests import people
from tests.generation import house
from tests.generation.sockets import (
    SUBPROTOCOL,
    Crowd,
    Hand,
    Server,
    Watcher,
    headers_of,
    in_this_process,
    over_the_network,
    serving,
    watch,
)
from tests.people import Person
from tests.providers import Provider

SOON = 1.5  # a feed that nobody tells to look does so every second


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with Provider() as running, house.reaching(running):
        yield running


@pytest.fixture(scope="module")
def server(django_db_setup: None) -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture
def studio(database: None, provider: Provider) -> Person:
    """An owner whose jobs are written by a provider that does as it should."""
    provider.behave()
    return house.new_studio()


@pytest.fixture
def start(studio: Person) -> Callable[..., Hand]:
    """Queue a job of the studio's, and have a worker for it in hand."""

    def started(count: int, **fields: Any) -> Hand:
        return Hand(studio, house.start(studio, count, concurrency=200, **fields))

    return started


def closed(address: str, headers: Any = None, subprotocols: Any = None) -> tuple[int, list[str]]:
    """Return the code that a socket is closed with after it was accepted, and what was told before."""
    with Watcher(address, headers, subprotocols) as watcher:
        return watcher.wait_for_end(10), watcher.kinds


def numbers(last: int, after: int = 0) -> list[int]:
    return list(range(after + 1, last + 1))


# What is told


def test_a_job_is_told_from_its_beginning_to_its_end(server: Server, studio: Person) -> None:
    job_id = house.start(studio, 7)

    with watch(server, studio, job_id) as watcher:
        watcher.wait_for_snapshot()
        house.work(studio, job_id)
        code = watcher.wait_for_end()

    assert code == 1000
    assert watcher.kinds[0] == "snapshot"
    assert watcher.kinds[-1] == "done"
    assert set(watcher.kinds[1:-1]) - {"progress"} == {"item"}  # seven items may all finish between two flushes
    assert watcher.seqs == numbers(7)
    done = watcher.told[-1]
    assert (done["seq"], done["status"], done["progress"], done["progress_percent"]) == (7, "completed", 7, 100)


def test_a_snapshot_and_the_end_show_the_job_as_http_does(
    server: Server, studio: Person, start: Callable[..., Hand]
) -> None:
    hand = start(3)
    hand.finish(error="llm_refused")
    shown = house.job_of(studio, hand.job_id)

    with watch(server, studio, hand.job_id) as watcher:
        watcher.wait_for_snapshot()
        hand.finish(2)
        watcher.wait_for_end()

    snapshot, done = watcher.told[0], watcher.told[-1]
    for told, seq, job in ((snapshot, 1, shown), (done, 3, house.job_of(studio, hand.job_id))):
        assert (told.pop("type"), told.pop("seq")) == ("snapshot" if seq == 1 else "done", seq)
        assert told.keys() == job.keys()
        told.pop("estimated_completion"), job.pop("estimated_completion")
        assert told == job
    assert done["errors"] == {"llm_refused": 1}
    assert len(done["generated_content_ids"]) == 2


def test_an_item_is_told_with_its_content_or_its_error(
    server: Server, studio: Person, start: Callable[..., Hand]
) -> None:
    hand = start(2)

    with watch(server, studio, hand.job_id) as watcher:
        watcher.wait_for_snapshot()
        hand.finish()
        hand.finish(error="llm_refused")
        watcher.wait_for_end()

    [content_id] = house.job_of(studio, hand.job_id)["generated_content_ids"]
    assert watcher.of("item") == [
        {"type": "item", "seq": 1, "index": 0, "status": "completed", "content_id": content_id},
        {"type": "item", "seq": 2, "index": 1, "status": "failed", "error_code": "llm_refused"},
    ]


def test_progress_has_the_counts_and_the_last_item_that_they_take_into_account(
    server: Server, studio: Person, start: Callable[..., Hand]
) -> None:
    hand = start(4)

    with watch(server, studio, hand.job_id) as watcher:
        watcher.wait_for_snapshot()
        hand.finish(2)
        watcher.wait_for(lambda told: any(one["type"] == "progress" and one["seq"] == 2 for one in told))
        hand.finish(error="llm_refused")
        watcher.wait_for(lambda told: any(one["type"] == "progress" and one["seq"] == 3 for one in told))

    last = watcher.of("progress")[-1]
    assert (last["status"], last["progress"], last["failed"], last["progress_percent"]) == ("running", 2, 1, 75)


def test_seq_never_goes_back(server: Server, studio: Person) -> None:
    job_id = house.start(studio, 200, concurrency=50)
    worker = _working(studio, job_id)
    watchers = []
    for number in range(6):
        watchers.append(watch(server, studio, job_id, "after=0" if number % 2 else ""))
        time.sleep(0.15)
    worker.join()

    for watcher in watchers:
        assert watcher.wait_for_end() == 1000
        seqs = [message["seq"] for message in watcher.told if message["type"] != "snapshot"]
        assert seqs == sorted(seqs)
        watcher.leave()


def _working(studio: Person, job_id: Any) -> threading.Thread:
    """Have a job worked on at the side."""

    def work() -> None:
        try:
            house.work(studio, job_id)
        finally:
            connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_however_fast_a_job_is_it_is_told_at_most_10_times_a_second(server: Server, studio: Person) -> None:
    job_id = house.start(studio, 400, concurrency=100)

    with watch(server, studio, job_id) as watcher:
        watcher.wait_for_snapshot()
        house.work(studio, job_id)
        assert watcher.wait_for_end() == 1000

    assert watcher.seqs == numbers(400)
    pairs = zip(watcher.told, watcher.times, strict=True)
    times = [at for message, at in pairs if message["type"] == "progress"]
    assert len(times) > 3
    assert most_within(times, 1.0) <= 10
    assert most_within(flushes(watcher), 1.0) <= 11  # the last one is that of "done"


def flushes(watcher: Watcher) -> list[float]:
    """Return when each heap of messages came, other than the snapshot."""
    return [at for before, at in itertools.pairwise(watcher.times) if at - before > 0.05]


def most_within(times: list[float], seconds: float) -> int:
    return max(sum(at <= other < at + seconds for other in times) for at in times)


# What is told to whoever was here before


def test_without_after_only_what_is_new_is_told(server: Server, studio: Person, start: Callable[..., Hand]) -> None:
    hand = start(5)
    hand.finish(2)

    with watch(server, studio, hand.job_id) as watcher:
        watcher.wait_for_snapshot()
        time.sleep(0.3)
        hand.finish(3)
        watcher.wait_for_end()

    assert (watcher.told[0]["seq"], watcher.told[0]["progress"]) == (2, 2)
    assert watcher.seqs == [3, 4, 5]


@pytest.mark.parametrize("after", [0, 1, 3, 5])
@pytest.mark.parametrize("is_finished", [True, False])
def test_after_brings_all_the_rest_once(
    server: Server, studio: Person, start: Callable[..., Hand], after: int, is_finished: bool
) -> None:
    hand = start(6)
    hand.finish(6 if is_finished else 5)

    with watch(server, studio, hand.job_id, f"after={after}") as watcher:
        watcher.wait_for_snapshot()
        if not is_finished:
            watcher.wait_for_seq(5)
            hand.finish()
        assert watcher.wait_for_end() == 1000

    assert watcher.seqs == numbers(6, after)
    assert (watcher.kinds[0], watcher.kinds[-1]) == ("snapshot", "done")


@pytest.mark.parametrize("after", [3, 4, 1_000_000, 2**31 - 1])
def test_after_beyond_the_end_is_told_no_items_but_the_end(
    server: Server, studio: Person, start: Callable[..., Hand], after: int
) -> None:
    hand = start(3)
    hand.finish(2)

    with watch(server, studio, hand.job_id, f"after={after}") as watcher:
        watcher.wait_for_snapshot()
        hand.finish()
        assert watcher.wait_for_end() == 1000

    assert watcher.seqs == []
    assert watcher.kinds[-1] == "done"


@pytest.mark.parametrize(
    "after",
    [
        *("", "-1", "x", "1.5", "1e3", "%201", "0x1", "%EF%BC%91", "%00", "2147483648", "9" * 30),
        pytest.param("9" * 5000, id="5000 digits"),
    ],
)
def test_after_that_is_no_number_is_told_so(
    server: Server, start: Callable[..., Hand], studio: Person, after: str
) -> None:
    code, told = closed(server.address(start(1).job_id, f"after={after}"), headers_of(studio))

    assert (code, told) == (consumers.MALFORMED, [])


def test_who_comes_back_again_and_again_is_told_everything_once(server: Server, studio: Person) -> None:
    job_id = house.start(studio, 150, concurrency=10)
    worker = _working(studio, job_id)
    chance, seqs, code = random.Random(1), list[int](), 0

    for _ in range(100):
        with watch(server, studio, job_id, f"after={seqs[-1] if seqs else 0}") as watcher:
            deadline = time.monotonic() + chance.uniform(0.05, 0.4)
            while time.monotonic() < deadline and watcher.code is None:
                time.sleep(0.01)
            if chance.random() < 0.5:
                watcher.vanish()
        seqs += watcher.seqs
        if watcher.code == 1000 and watcher.kinds[-1:] == ["done"]:
            code = 1000
            break
    worker.join()

    assert seqs == numbers(150)
    assert code == 1000


@pytest.mark.soak
def test_a_replay_of_10000_items_is_complete_and_in_order(
    server: Server, studio: Person, start: Callable[..., Hand]
) -> None:
    hand = start(10_000)
    hand.finish(5)
    hand.fail()

    begun = time.monotonic()
    with watch(server, studio, hand.job_id, "after=0") as watcher:
        assert watcher.wait_for_end(30) == 1000

    assert watcher.seqs == numbers(10_000)
    assert time.monotonic() - begun < 60
    assert watcher.kinds[-1] == "done"
    done = watcher.told[-1]
    assert (done["seq"], done["progress"], done["failed"], done["status"]) == (10_000, 5, 9995, "failed")


# How jobs end


def test_a_finished_job_is_told_at_once(server: Server, studio: Person, start: Callable[..., Hand]) -> None:
    hand = start(2)
    hand.finish(2)

    begun = time.monotonic()
    with watch(server, studio, hand.job_id) as watcher:
        assert watcher.wait_for_end() == 1000

    assert time.monotonic() - begun < 20
    assert watcher.kinds == ["snapshot", "done"]
    assert [message["status"] for message in watcher.told] == ["completed", "completed"]


def test_a_cancelled_job_is_done_for_those_who_watch(
    server: Server, studio: Person, start: Callable[..., Hand]
) -> None:
    hand = start(5)
    hand.finish(2)

    with watch(server, studio, hand.job_id, "after=0") as watcher:
        watcher.wait_for_seq(2)
        answer = studio.api.delete(f"/api/content/generation-jobs/{hand.job_id}")
        begun = time.monotonic()
        assert answer.status_code == 200
        assert watcher.wait_for_end() == 1000

    assert time.monotonic() - begun < SOON
    assert (watcher.told[-1]["status"], watcher.told[-1]["seq"], watcher.seqs) == ("cancelled", 2, [1, 2])


def test_a_failed_job_tells_of_every_item_that_fell_with_it(
    server: Server, studio: Person, start: Callable[..., Hand]
) -> None:
    hand = start(5)
    hand.finish(2)

    with watch(server, studio, hand.job_id) as watcher:
        watcher.wait_for_snapshot()
        hand.fail()
        assert watcher.wait_for_end() == 1000

    assert [(one["seq"], one["status"]) for one in watcher.of("item")] == [(3, "failed"), (4, "failed"), (5, "failed")]
    done = watcher.told[-1]
    assert (done["status"], done["error_message"], done["errors"]) == ("failed", "Refused.", {"llm_key_invalid": 3})


def test_a_paused_job_is_watched_on_until_it_was_resumed_and_ended(
    server: Server, studio: Person, start: Callable[..., Hand]
) -> None:
    hand = start(3)

    with watch(server, studio, hand.job_id) as watcher:
        watcher.wait_for_snapshot()
        hand.finish()
        hand.pause()
        watcher.wait_for(lambda told: told[-1].get("status") == "paused")
        time.sleep(0.5)
        assert watcher.code is None
        assert studio.api.post(f"/api/content/generation-jobs/{hand.job_id}/resume").status_code == 202
        watcher.wait_for(lambda told: told[-1].get("status") == "pending")
        hand.finish(2)
        assert watcher.wait_for_end() == 1000

    assert watcher.seqs == [1, 2, 3]
    assert watcher.told[-1]["status"] == "completed"


def test_who_comes_to_a_paused_job_waits_with_it(server: Server, studio: Person, start: Callable[..., Hand]) -> None:
    hand = start(2)
    hand.finish()
    hand.pause()

    with watch(server, studio, hand.job_id, "after=0") as watcher:
        watcher.wait_for_seq(1)
        time.sleep(0.5)
        assert watcher.code is None

    assert (watcher.told[0]["status"], watcher.seqs) == ("paused", [1])


def test_a_retry_goes_on_counting(server: Server, studio: Person, start: Callable[..., Hand]) -> None:
    hand = start(3)
    hand.finish()
    hand.finish(2, error="llm_refused")
    with watch(server, studio, hand.job_id, "after=0") as watcher:
        watcher.wait_for_end()
    assert (watcher.seqs, watcher.told[-1]["status"]) == ([1, 2, 3], "completed_with_errors")

    assert studio.api.post(f"/api/content/generation-jobs/{hand.job_id}/retry").status_code == 202
    with watch(server, studio, hand.job_id, "after=3") as watcher:
        watcher.wait_for_snapshot()
        hand.finish(2)
        assert watcher.wait_for_end() == 1000

    assert [(one["seq"], one["index"]) for one in watcher.of("item")] == [(4, 1), (5, 2)]
    done = watcher.told[-1]
    assert (done["status"], done["seq"], done["progress"], done["failed"]) == ("completed", 5, 3, 0)


def test_two_processes_tell_the_same(studio: Person, start: Callable[..., Hand]) -> None:
    hand = start(20)

    with serving(workers=2) as server:
        watching = over_the_network(server, studio, hand.job_id)
        with Crowd(*[watching] * 12) as crowd:
            for _ in range(4):
                hand.finish(5)

    assert set(crowd.codes) == {1000}
    for told in crowd.told:
        assert [one["seq"] for one in told if one["type"] == "item"] == numbers(20)


def test_every_end_has_its_code(server: Server, studio: Person) -> None:
    stranger = over_the_network(server, studio, uuid4())

    for _ in range(20):
        with Crowd(*[stranger] * 20, is_told=False) as crowd:
            pass
        assert crowd.codes == [4404] * 20


# Crowds


@pytest.mark.soak
def test_each_of_300_is_told_of_every_item_once(server: Server, studio: Person, start: Callable[..., Hand]) -> None:
    hand = start(60)
    hand.finish(10)

    watching = [over_the_network(server, studio, hand.job_id, query) for query in ("", "after=0", "after=5")]
    with Crowd(*watching * 100) as crowd:
        for _ in range(10):
            hand.finish(5)
            time.sleep(0.05)

    assert crowd.codes == [1000] * 300
    for number, told in enumerate(crowd.told):
        assert [one["seq"] for one in told if one["type"] == "item"] == numbers(60, (10, 0, 5)[number % 3])


@pytest.mark.soak
def test_a_crowd_costs_the_database_no_more_for_news_than_one_watcher(
    studio: Person, start: Callable[..., Hand]
) -> None:
    def statements(watchers: int, steps: int) -> int:
        hand = start(steps)
        watching = in_this_process(studio, hand.job_id, "after=0")
        with counted_elsewhere() as counted, Crowd(*[watching] * watchers) as crowd:
            for _ in range(steps):
                hand.finish()
                time.sleep(0.15)
        for told in crowd.told:
            assert [one["seq"] for one in told if one["type"] == "item"] == numbers(steps)
        return len(counted)

    alone, crowded = statements(1, 4), statements(20, 4)
    alone_for_longer, crowded_for_longer = statements(1, 10), statements(20, 10)

    a_watcher = (crowded - alone) / 19
    assert a_watcher < 20
    assert alone_for_longer > alone
    assert crowded_for_longer - crowded <= alone_for_longer - alone + 10


@contextmanager
def counted_elsewhere() -> Iterator[list[str]]:
    """Count the statements of connections that are opened meanwhile, as each other thread's are."""
    counted: list[str] = []

    def count(execute: Any, sql: str, *rest: Any) -> Any:
        counted.append(sql)
        return execute(sql, *rest)

    def opened(connection: Any, **_: Any) -> None:
        connection.execute_wrappers.append(count)

    connection_created.connect(opened)
    try:
        yield counted
    finally:
        connection_created.disconnect(opened)


# Without Redis


class NoRedis:
    """A channel layer whose Redis is away."""

    def __getattr__(self, _name: str) -> Any:
        raise ConnectionError("Redis is away.")


class DeafRedis:
    """A channel layer whose Redis takes every call and never answers."""

    async def new_channel(self) -> str:
        await asyncio.Event().wait()
        raise AssertionError


@pytest.mark.parametrize("redis", [NoRedis, DeafRedis])
def test_without_redis_a_feed_looks_by_itself(
    studio: Person, start: Callable[..., Hand], monkeypatch: pytest.MonkeyPatch, redis: Any
) -> None:
    monkeypatch.setattr(feeds, "get_channel_layer", redis)
    hand = start(2)

    with Crowd(in_this_process(studio, hand.job_id)) as crowd:
        for seq in (1, 2):
            hand.finish()
            begun = time.monotonic()
            while not any(one["type"] == "item" and one["seq"] == seq for one in crowd.told[0]):
                assert time.monotonic() - begun < SOON
                time.sleep(0.01)

    assert crowd.codes == [1000]


def test_a_runner_gets_on_without_redis(studio: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "get_channel_layer", NoRedis)
    job_id = house.start(studio, 5)

    house.work(studio, job_id)

    assert house.job_of(studio, job_id)["status"] == "completed"


def test_a_database_that_is_away_for_a_moment_ends_no_feed(
    studio: Person, start: Callable[..., Hand], monkeypatch: pytest.MonkeyPatch
) -> None:
    hand = start(2)
    news_of = queries.news_of

    with Crowd(in_this_process(studio, hand.job_id)) as crowd:
        monkeypatch.setattr(queries, "news_of", _away)
        hand.finish()
        time.sleep(0.5)
        monkeypatch.setattr(queries, "news_of", news_of)
        hand.finish()

    assert crowd.codes == [1000]
    assert [one["seq"] for one in crowd.told[0] if one["type"] == "item"] == [1, 2]


def _away(**_: Any) -> Any:
    raise OperationalError("the connection is gone")


def test_a_feed_that_is_further_behind_than_it_remembers_reads_the_rest(
    studio: Person, start: Callable[..., Hand], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "KEPT_EVENTS", 8)
    monkeypatch.setattr(feeds, "PAGE", 5)
    hand = start(60)

    with Crowd(*(in_this_process(studio, hand.job_id, query) for query in ("after=0", "", "after=7"))) as crowd:
        for size in (3, 1, 30, 6, 20):
            hand.finish(size)
            time.sleep(0.05)

    assert crowd.codes == [1000] * 3
    for told, after in zip(crowd.told, (0, 0, 7), strict=True):
        assert [one["seq"] for one in told if one["type"] == "item"] == numbers(60, after)


def test_a_feed_ends_with_its_last_watcher(studio: Person, start: Callable[..., Hand]) -> None:
    hand = start(1)
    before = len(feeds._feeds)

    with Crowd(*[in_this_process(studio, hand.job_id)] * 3):
        assert len(feeds._feeds) == before + 1
        hand.finish()

    assert len(feeds._feeds) == before


# Who is let in


def test_credentials_are_taken_from_either_header(server: Server, studio: Person, start: Callable[..., Hand]) -> None:
    job_id = start(1).job_id
    key = headers_of(studio)["X-API-Key"]
    token = headers_of(people.logged_in(studio))["Authorization"]

    for headers in ({"X-API-Key": key}, {"Authorization": f"Bearer {key}"}, {"Authorization": token}):
        with Watcher(server.address(job_id), headers) as watcher:
            watcher.wait_for_snapshot()


def test_a_browser_sends_them_as_a_subprotocol(server: Server, studio: Person, start: Callable[..., Hand]) -> None:
    job_id = start(1).job_id
    key = headers_of(studio)["X-API-Key"]
    token = headers_of(people.logged_in(studio))["Authorization"].removeprefix("Bearer ")

    for credential in (key, token):
        for offered in ([SUBPROTOCOL, f"bearer.{credential}"], [f"bearer.{credential}", SUBPROTOCOL]):
            with Watcher(server.address(job_id), subprotocols=offered) as watcher:
                watcher.wait_for_snapshot()
                assert watcher.socket.subprotocol == SUBPROTOCOL


BAD = {
    "nothing": (None, None),
    "nothing from a browser": (None, [SUBPROTOCOL]),
    "a bad token": ({"Authorization": "Bearer x.y.z"}, None),
    "another scheme": ({"Authorization": "Basic eDp5"}, None),
    "an empty bearer": ({"Authorization": "Bearer "}, None),
    "a bad key": ({"X-API-Key": "eg_live_0_0"}, None),
    "letters of other scripts": ({"X-API-Key": "ключ".encode().decode("latin-1")}, None),
    "a bad token from a browser": (None, [SUBPROTOCOL, "bearer.x.y.z"]),
    "an empty one from a browser": (None, [SUBPROTOCOL, "bearer."]),
}


@pytest.mark.parametrize("bad", BAD)
def test_who_has_no_good_credentials_is_told_so(
    server: Server, studio: Person, start: Callable[..., Hand], bad: str
) -> None:
    headers, subprotocols = BAD[bad]

    assert closed(server.address(start(1).job_id), headers, subprotocols) == (4401, [])
    assert closed(server.address(uuid4()), headers, subprotocols) == (4401, [])


def test_a_browser_sees_why_as_the_socket_was_accepted_with_its_subprotocol(
    server: Server, start: Callable[..., Hand]
) -> None:
    with Watcher(server.address(start(1).job_id), subprotocols=[SUBPROTOCOL, "bearer.x"]) as watcher:
        assert watcher.wait_for_end() == 4401
        assert watcher.socket.subprotocol == SUBPROTOCOL


def test_a_login_and_a_key_that_ended_are_refused(server: Server, studio: Person, start: Callable[..., Hand]) -> None:
    address = server.address(start(1).job_id)
    made = studio.api.post("/api/api-keys", {"name": "short", "scopes": ["content:read"]}).json()
    person = people.logged_in(studio)
    login = people.JSONClient().post("/api/auth/login", {"email": studio.email, "password": people.PASSWORD}).json()
    studio.api.delete(f"/api/api-keys/{made['id']}")
    people.JSONClient().post("/api/auth/logout", {"refresh_token": login["refresh_token"]})

    assert closed(address, {"X-API-Key": made["key"]}) == (4401, [])
    assert closed(address, {"Authorization": f"Bearer {login['access_token']}"}) == (4401, [])
    with Watcher(address, headers_of(person)) as watcher:
        watcher.wait_for_snapshot()


def test_an_outsider_cannot_tell_a_job_from_none(
    server: Server, studio: Person, start: Callable[..., Hand], charlie: Person
) -> None:
    job_id = start(1).job_id

    for outsider in (charlie, people.logged_in(charlie)):
        seen = []
        for address in (server.address(job_id), server.address(uuid4()), server.address(job_id, "after=0")):
            with Watcher(address, headers_of(outsider)) as watcher:
                seen.append((watcher.wait_for_end(), watcher.reason, watcher.told))
        assert seen == [(4404, seen[0][1], [])] * 3


@pytest.mark.parametrize("path", ["nothing", "1", "../x", "%00", f"{uuid4()}x", f"{uuid4()}/x", "", "a" * 3000])
def test_an_address_of_no_job_is_not_found(server: Server, studio: Person, path: str) -> None:
    assert closed(server.address(path), headers_of(studio)) == (4404, [])


def test_an_address_may_end_in_a_slash(server: Server, studio: Person, start: Callable[..., Hand]) -> None:
    with watch(server, studio, f"{start(1).job_id}/") as watcher:
        watcher.wait_for_snapshot()


@pytest.mark.parametrize("scope", Scope)
def test_a_key_needs_a_scope_that_reads_jobs(
    server: Server, studio: Person, start: Callable[..., Hand], scope: Scope
) -> None:
    job_id = start(1).job_id
    key = studio.api.post("/api/api-keys", {"name": "a program", "scopes": [scope]}).json()["key"]
    headers = {"X-API-Key": key}

    is_read = requests.get(f"{server.url}/api/content/generation-jobs/{job_id}", headers=headers, timeout=10).ok

    assert is_read == (scope in {Scope.CONTENT_READ, Scope.GENERATE})
    if is_read:
        with Watcher(server.address(job_id), headers) as watcher:
            watcher.wait_for_snapshot()
    else:
        assert closed(server.address(job_id), headers) == (consumers.FORBIDDEN, [])
    assert closed(server.address(uuid4()), headers) == (4404, [])


def test_a_viewer_may_watch(server: Server, studio: Person, start: Callable[..., Hand]) -> None:
    viewer = people.new_colleague(studio, Role.VIEWER)

    with watch(server, viewer, start(1).job_id) as watcher:
        watcher.wait_for_snapshot()


def test_somebody_of_several_tenants_watches_the_jobs_of_each(
    server: Server, studio: Person, start: Callable[..., Hand], charlie: Person
) -> None:
    hand, other = start(1), house.new_studio()
    theirs, strangers = house.start(other, 1), house.start(house.new_studio(), 1)
    person = people.new_colleague(studio)
    with system_scope("a test adds a member"):
        Membership.objects.create(
            tenant_id=other.tenant_id, user_id=person.user_id, role=Role.VIEWER, accepted_at=timezone.now()
        )
        Membership.objects.create(tenant_id=charlie.tenant_id, user_id=person.user_id, role=Role.VIEWER)
    headers = headers_of(person)

    for job_id in (hand.job_id, theirs):
        with Watcher(server.address(job_id), headers) as watcher:
            watcher.wait_for_snapshot()
    assert closed(server.address(strangers), headers) == (4404, [])
    with Watcher(server.address(theirs), {**headers, "X-Tenant-ID": str(other.tenant_id)}) as watcher:
        watcher.wait_for_snapshot()
    for picked in (studio.tenant_id, uuid4(), "nothing"):
        assert closed(server.address(theirs), {**headers, "X-Tenant-ID": str(picked)}) == (4404, [])


def test_an_invitation_that_was_not_accepted_shows_no_jobs(
    server: Server, studio: Person, start: Callable[..., Hand], charlie: Person
) -> None:
    job_id = start(1).job_id
    with system_scope("a test invites"):
        Membership.objects.create(tenant_id=studio.tenant_id, user_id=charlie.user_id, role=Role.OWNER)

    assert closed(server.address(job_id), headers_of(people.logged_in(charlie))) == (4404, [])


@pytest.mark.parametrize("how", ["revoked", "expired", "logged out", "removed"])
def test_who_would_not_be_let_in_any_more_is_dropped(
    studio: Person, start: Callable[..., Hand], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(consumers, "CHECK_SECONDS", 0.1)
    monkeypatch.setattr(consumers, "BEAT_SECONDS", 0.05)
    hand = start(3)
    key = studio.api.post("/api/api-keys", {"name": "a program", "scopes": ["content:read"]}).json()
    colleague = people.new_colleague(studio)
    program = Person(studio.email, studio.user_id, studio.tenant_id, studio.brand_id, {"HTTP_X_API_KEY": key["key"]})
    dropped = program if how in {"revoked", "expired"} else colleague

    with Crowd(*(in_this_process(person, hand.job_id) for person in (dropped, studio))) as crowd:
        time.sleep(0.3)
        assert len(crowd.told[0]) > 1
        if how == "revoked":
            assert studio.api.delete(f"/api/api-keys/{key['id']}").status_code == 204
        elif how == "expired":
            with system_scope("a test lets a key expire"):
                ApiKey.objects.filter(id=key["id"]).update(expires_at=timezone.now() - timedelta(seconds=1))
        elif how == "removed":
            assert studio.api.delete(f"/api/members/{colleague.user_id}").status_code == 204
        else:
            changed = {"current_password": people.PASSWORD, "new_password": "another-correct-horse"}
            log_in = {"email": colleague.email, "password": people.PASSWORD}
            other = people.JSONClient().post("/api/auth/login", log_in).json()
            client = people.JSONClient()
            client.credentials(HTTP_AUTHORIZATION=f"Bearer {other['access_token']}")
            assert client.post("/api/auth/password", changed).status_code == 204
        time.sleep(0.4)
        hand.finish(3)

    assert crowd.codes == [4401, 1000]
    assert [one["seq"] for one in crowd.told[0] if one["type"] == "item"] == []
    assert [one["seq"] for one in crowd.told[1] if one["type"] == "item"] == [1, 2, 3]


# Bad company


def test_what_a_client_says_is_ignored(server: Server, studio: Person, start: Callable[..., Hand]) -> None:
    hand = start(2)

    with watch(server, studio, hand.job_id) as talker, watch(server, studio, hand.job_id) as listener:
        for watcher in (talker, listener):
            watcher.wait_for_snapshot()
        for said in ("", "{", '{"type":"done"}', b"\x00\xff", "x" * 1_000_000, b"\x00" * 1_000_000):
            talker.socket.send(said)
        hand.finish(2)
        assert [watcher.wait_for_end() for watcher in (talker, listener)] == [1000, 1000]

    assert talker.seqs == listener.seqs == [1, 2]


def test_a_client_that_sends_too_much_or_breaks_the_protocol_harms_itself_alone(
    server: Server, studio: Person, start: Callable[..., Hand]
) -> None:
    hand = start(2)

    with watch(server, studio, hand.job_id) as listener:
        listener.wait_for_snapshot()
        for frame in (b"\xff" * 100, b"\x81\x05hello", b"\x88\x00", b"\x81\xff" + b"\x7f" * 8 + b"\x00" * 1000):
            vandal = watch(server, studio, hand.job_id)
            vandal.wait_for_snapshot()
            vandal.socket.socket.sendall(frame)
            vandal.vanish()
        huge = watch(server, studio, hand.job_id)
        try:
            for _ in range(20):
                huge.socket.send("x" * 8_000_000)
        except Exception:  # noqa: BLE001 -- the server may well close
            pass
        hand.finish(2)
        assert listener.wait_for_end() == 1000
        huge.vanish()

    assert listener.seqs == [1, 2]
    assert requests.get(f"{server.url}/health/live", timeout=5).ok


def test_those_who_vanish_leave_nothing_behind(server: Server, studio: Person, start: Callable[..., Hand]) -> None:
    hand = start(3)

    with watch(server, studio, hand.job_id) as watcher:
        watcher.wait_for_snapshot()
        for number in range(40):
            other = watch(server, studio, hand.job_id, "after=0")
            if number % 2:
                other.wait_for_snapshot()
            other.vanish()
        hand.finish(3)
        assert watcher.wait_for_end() == 1000

    assert watcher.seqs == [1, 2, 3]
