"""Create, read, update, delete and restore under every switch of the ZeroDB emulator, alone and in combinations.

Nothing acknowledged is lost, nothing wrong is served, what waits is carried within a minute of recovery, and in the end ZeroDB
has each document and each change record exactly once.
"""

import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from pathlib import Path
from typing import Any, ClassVar

import pytest
import requests
from django.utils import timezone
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from content import documents, records
from content.models import SpooledDocument, SpooledRecord
from content.stores.base import DOCUMENTS, VERSIONS
from content.stores.breaker import LONGEST_PAUSE_SECONDS
from engarde import health
from engarde.common.scopes import system_scope
from engarde.embedded.zerodb.faults import FAULTS
from tests import people, switches, tiers
from tests.faults.author import Author, Item
from tests.faults.platform import Platform, eventually
from tests.faults.world import RECOVERED_WITHIN, World, waiting
from tests.stored import stored_by
from tests.zerodb_process import ZeroDBProcess

TROUBLES: dict[str, tuple[str, dict[str, Any]]] = {
    "slow": ("latency", {"milliseconds": 30}),
    "too slow": ("latency", {"milliseconds": 700}),
    "silent": ("stall", {"seconds": 2}),
    "silent after the commit": ("stall", {"seconds": 2, "commit": True}),
    "few requests an hour": ("rate_limit", {"requests": 5}),
    "429": ("too_many_requests", {}),
    "429, wait 2 s": ("too_many_requests", {"retry_after": 2}),
    "429, wait an hour": ("too_many_requests", {"retry_after": 3600}),
    "429, wait until": ("too_many_requests", {"retry_at": 300}),
    "500": ("server_error", {}),
    "503": ("server_error", {"status": 503}),
    "HTML": ("bad_gateway", {}),
    "unknown address": ("router_404", {}),
    "answer dropped": ("lost_answer", {}),
    "answer is an error": ("lost_answer", {"instead": "error"}),
    "answer is empty": ("lost_answer", {"instead": "empty"}),
    "half of the JSON": ("truncated_json", {}),
    "half of the bytes": ("truncated_json", {"announced": True}),
    "key refused as bearer": ("refuse_bearer", {}),
    "key refused in its header": ("refuse_key_header", {}),
    "201 and 204": ("statuses_201_204", {}),
    "bare lists": ("bare_lists", {}),
    "swapped rows": ("wrong_bodies", {}),
    "swapped documents": ("wrong_bodies", {"field": "document"}),
    "altered rows": ("wrong_bodies", {"how": "altered"}),
    "altered documents": ("wrong_bodies", {"how": "altered", "field": "document"}),
    "altered checksums": ("wrong_bodies", {"how": "altered", "field": "checksum"}),
    "table exists as 400": ("duplicate_table_400", {}),
    "filter unknown": ("filters_spelling", {}),
    "filter refused": ("filters_spelling", {"other": "refused"}),
    "late to see": ("stale_reads", {"milliseconds": 500}),
    "very late to see": ("stale_reads", {"milliseconds": 200_000}),
    "PUT merges": ("put_merges", {}),
    "inserted twice": ("duplicate_inserts", {}),
    "crash": ("crash", {}),
    "crash after the commit": ("crash", {"when": "after"}),
}
ORDINARY = [
    "too slow",
    "silent after the commit",
    "few requests an hour",
    "429, wait an hour",
    "500",
    "HTML",
    "unknown address",
    "answer dropped",
    "answer is empty",
    "half of the JSON",
    "key refused as bearer",
    "key refused in its header",
    "201 and 204",
    "bare lists",
    "swapped rows",
    "altered documents",
    "table exists as 400",
    "filter unknown",
    "filter refused",
    "late to see",
    "PUT merges",
    "inserted twice",
    "crash after the commit",
]
WORST = {
    "silent after the commit",
    "429, wait an hour",
    "500",
    "swapped rows",
    "altered documents",
    "filter unknown",
    "late to see",
    "PUT merges",
    "inserted twice",
    "crash after the commit",
}
WRITES = 200
TROUBLE_SECONDS = 40
MOST_ITEMS = 6
MOST_SWITCHES = 4
RUNS = hypothesis_settings(
    database=None,
    deadline=None,
    phases=[Phase.generate],  # a smaller failing case would have to be lived through many times
    suppress_health_check=list(HealthCheck),
)
BODIES = ("", "A", "B", "naïve ✓ 日本語 😀", 'line\r\nline\u2028 \\ "quoted"', "long " * 800)


@pytest.fixture(scope="module")
def zerodb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZeroDBProcess]:
    """A ZeroDB that may die."""
    process = ZeroDBProcess(tmp_path_factory.mktemp("zerodb"))
    process.start()
    yield process
    process.stop()


@pytest.fixture
def world(
    zerodb: ZeroDBProcess,
    upload: Callable[[], int],
    back_up: Callable[[], int],
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[World]:
    """The platform on that ZeroDB; what earlier tests left to carry is where it belongs."""
    upload()
    carry_records()
    back_up()
    ready = World(zerodb, monkeypatch, settings)
    yield ready
    ready.switch_all_off()


def carry_records() -> None:
    store = documents.document_store()
    assert store is not None
    while not (done := records.run_pass(store=store, now=timezone.now)).is_idle and not done.failed:
        pass


@pytest.fixture
def author(world: World) -> Author:
    """Alice, who has two items of two versions that all tiers have."""
    return prepared(world)


def prepared(world: World) -> Author:
    author = Author(world, people.new_owner("alice"))
    for body in BODIES[3:5]:
        author.update(author.create("before"), body)
    world.carry()
    assert waiting(author.person) == []
    return author


def live_through(author: Author, trouble: str, *, reads_backup: bool, rate: float, left: int | None = None) -> None:
    """In trouble, do everything that one can do to items, with the carriers at work in between."""
    name, options = TROUBLES[trouble]
    world, (first, second, *_) = author.world, author.items
    world.switch_on(name, **{**options, "rate": rate, "seed": 7, "left": left})
    world.read_backup(allowed=reads_backup)
    new = author.create("A", ("made in trouble",))
    author.update(first, "changed in trouble")
    author.read(first, 1)
    world.carry()
    author.read_list()
    author.delete(new)
    author.restore(second, 1)
    world.carry()
    author.undelete(new)
    author.tag(f"bulk {rate}")
    author.update(new, "B")
    author.update(new, "A")
    world.carry()
    author.read(new, 2)
    author.read_list()
    world.sweep()
    world.switch_all_off()


def all_is_well(author: Author) -> None:
    """End all trouble and check what is promised of the time after it."""
    world = author.world
    world.recover(author.person)
    world.settle(author.person)
    world.check(author.person)
    world.read_backup(allowed=False)
    author.read_everything()


def test_there_is_trouble_of_every_kind() -> None:
    assert {TROUBLES[trouble][0] for trouble in TROUBLES} == FAULTS.keys()
    assert {TROUBLES[trouble][0] for trouble in ORDINARY} == FAULTS.keys()


@pytest.mark.parametrize(
    "trouble", [pytest.param(one, marks=[] if one in WORST else pytest.mark.soak) for one in ORDINARY]
)
def test_nothing_is_lost_or_wrong_and_all_is_carried_within_a_minute(author: Author, trouble: str) -> None:
    takes_time = TROUBLES[trouble][0] in {"latency", "stall"}
    live_through(author, trouble, reads_backup=False, rate=0.6, left=8 if takes_time else None)

    all_is_well(author)


@pytest.mark.soak
@pytest.mark.parametrize(("rate", "reads_backup"), [(1.0, True), (0.4, False)])
@pytest.mark.parametrize("trouble", TROUBLES)
def test_nothing_is_lost_or_wrong_however_bad_it_is(
    author: Author, trouble: str, rate: float, reads_backup: bool
) -> None:
    for _ in range(2):
        live_through(author, trouble, reads_backup=reads_backup, rate=rate)

    all_is_well(author)


def told(act: Callable[..., None]) -> Callable[..., None]:
    """Have a step noted, and the first failure kept: nothing makes the same failure come again when Hypothesis repeats it."""

    @wraps(act)
    def noted(self: "BadDays", **options: Any) -> None:
        self.story.append(f"{act.__name__}{options}")
        try:
            act(self, **options)
        except Exception as error:
            self.failed = True
            BadDays.failure = BadDays.failure or (self.story, error)
            raise

    return noted


class BadDays(RuleBasedStateMachine):
    """Anything, in any order, with any combination of switches on; `world` is set by the test."""

    world: World
    longest: ClassVar = 0
    failure: ClassVar[tuple[list[str], Exception] | None] = None

    def __init__(self) -> None:
        super().__init__()
        self.author = prepared(self.world)
        self.story: list[str] = []
        self.steps = 0
        self.failed = False

    @rule(body=st.sampled_from(BODIES), tagged=st.booleans())
    @told
    def create(self, body: str, tagged: bool) -> None:
        if len(self.author.items) < MOST_ITEMS:
            self.author.create(body, ("tagged",) if tagged else ())

    @rule(which=st.integers(0, 7), body=st.sampled_from(BODIES))
    @told
    def update(self, which: int, body: str) -> None:
        self.author.update(self.item(which), body)

    @rule(which=st.integers(0, 7))
    @told
    def delete(self, which: int) -> None:
        self.author.delete(self.item(which))

    @rule(which=st.integers(0, 7))
    @told
    def undelete(self, which: int) -> None:
        self.author.undelete(self.item(which))

    @rule(which=st.integers(0, 7), back=st.integers(0, 7))
    @told
    def restore(self, which: int, back: int) -> None:
        item = self.item(which)
        self.author.restore(item, max(1, item.newest - back))

    @rule(tag=st.sampled_from(["a", "b", "c"]))
    @told
    def tag(self, tag: str) -> None:
        self.author.tag(tag)

    @rule(which=st.integers(0, 7), back=st.integers(0, 7))
    @told
    def read_old(self, which: int, back: int) -> None:
        item = self.item(which)
        self.author.read(item, max(1, item.newest - back))

    @rule()
    @told
    def read_list(self) -> None:
        self.author.read_list()

    @rule(
        trouble=st.sampled_from(list(TROUBLES)),
        rate=st.sampled_from([1.0, 0.7, 0.3]),
        left=st.sampled_from([None, 1, 3, 10]),
        path=st.sampled_from([None, "*/query", "*/rows", "*/bulk"]),
        seed=st.integers(0, 99),
    )
    @told
    def switch_on(self, trouble: str, rate: float, left: int | None, path: str | None, seed: int) -> None:
        if len(self.world.switches_on()) >= MOST_SWITCHES:
            self.world.switch_all_off()
        name, options = TROUBLES[trouble]
        self.world.switch_on(name, **options, rate=rate, left=left, path=path, seed=seed)

    @rule(trouble=st.sampled_from(list(TROUBLES)))
    @told
    def switch_off(self, trouble: str) -> None:
        self.world.switch_off(TROUBLES[trouble][0])

    @rule()
    @told
    def switch_all_off(self) -> None:
        self.world.switch_all_off()

    @rule(seconds=st.sampled_from([0, 1, 6, 40]))
    @told
    def carry(self, seconds: int) -> None:
        self.world.carry(seconds)

    @rule()
    @told
    def sweep(self) -> None:
        self.world.sweep()

    @rule(allowed=st.booleans())
    @told
    def read_backup(self, allowed: bool) -> None:
        self.world.read_backup(allowed=allowed)

    @rule()
    @told
    def recover(self) -> None:
        self.world.recover(self.author.person)

    @invariant()
    @told
    def life_goes_on(self) -> None:
        """After each step the counters are true and an item can be read; and somebody else writes, and time passes."""
        self.steps += 1
        assert stored_by(self.author.person.tenant_id).counters_are_true
        self.author.read(self.item(self.steps))
        if self.steps % 3 == 0:
            self.author.update(self.item(self.steps // 3), BODIES[self.steps % len(BODIES)])
        if self.steps % 4 == 0:
            self.world.carry(self.steps % 10)

    def item(self, which: int) -> Item:
        return self.author.items[which % len(self.author.items)]

    def teardown(self) -> None:
        BadDays.longest = max(BadDays.longest, self.steps)
        if not self.failed:
            self.end_well()
        self.world.switch_all_off()

    @told
    def end_well(self) -> None:
        all_is_well(self.author)


@pytest.fixture
def bad_days(world: World, settings: Any) -> type[BadDays]:
    settings.CONTENT_MAX_VERSIONS = 6  # so that the oldest go, and are to go from ZeroDB too
    BadDays.world, BadDays.longest, BadDays.failure = world, 0, None
    return BadDays


def live(bad_days: type[BadDays], runs: hypothesis_settings) -> None:
    """Run the machine; when it fails, tell what came to pass and raise the first failure itself."""
    try:
        run_state_machine_as_test(bad_days, settings=runs)
    finally:
        if bad_days.failure:
            story, error = bad_days.failure
            error.add_note("after " + "\n  ".join(story))
            raise error


def test_any_combination_of_switches_is_survived(bad_days: type[BadDays]) -> None:
    live(bad_days, hypothesis_settings(RUNS, max_examples=2, stateful_step_count=30, derandomize=True))


@pytest.mark.soak
def test_any_combination_of_switches_is_survived_for_hundreds_of_steps(bad_days: type[BadDays]) -> None:
    live(bad_days, hypothesis_settings(RUNS, max_examples=8, stateful_step_count=330, print_blob=True))

    assert bad_days.longest >= 300


@pytest.mark.parametrize("collection", [DOCUMENTS, VERSIONS])
def test_a_sweep_that_is_lied_to_removes_nothing_that_is_needed(author: Author, collection: str) -> None:
    world, items = author.world, author.items + [author.create(body) for body in BODIES]
    for item in items:
        author.update(item, "newer")
    world.carry()
    for _, row in world.rows(author.person, collection)[::2]:
        world.insert(collection, row)
    world.settings.BIGQUERY_SYNC_ENABLED = False  # so that ZeroDB alone has them

    for how in ("swapped", "altered"):
        world.switch_on("wrong_bodies", how=how)
        world.sweep()
        world.switch_all_off()

    assert {data["key"] for _, data in world.rows(author.person, DOCUMENTS)} == {
        str(documents.key_of(row.content_id, row.sha256)) for item in items for row in tiers.versions(item.id)
    }
    world.settings.BIGQUERY_SYNC_ENABLED = True
    all_is_well(author)


@pytest.mark.parametrize(
    "trouble", ["500", "429, wait an hour", pytest.param("filter refused", marks=pytest.mark.soak)]
)
def test_a_backlog_that_failed_for_long_is_gone_within_a_minute_of_recovery_too(author: Author, trouble: str) -> None:
    world, (name, options) = author.world, TROUBLES[trouble]
    world.settings.CONTENT_UPLOAD_BATCH = 5
    new = [author.create("A") for _ in range(7)]
    world.carry()  # so that some of what comes next is looked for first
    world.switch_on(name, **options)
    for item in new:
        author.update(item, "B")
        author.update(item, "A")
    for _ in range(3):
        world.carry(60)
        with system_scope("a test has it fail for long"):
            for model in (SpooledDocument, SpooledRecord):
                model.objects.filter(tenant_id=author.person.tenant_id, attempts__gt=0).update(attempts=100)
    assert len(waiting(author.person)) >= len(new)

    world.recover(author.person)

    world.settle(author.person)
    world.check(author.person)


WRONG_AND_RIGHT: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "filters, and filter is ignored": ({"name": "filters_spelling"}, {}, {"filter_key": "filters"}),
    "filters, and filter is refused": (
        {"name": "filters_spelling", "other": "refused"},
        {},
        {"filter_key": "filters"},
    ),
    "the key as bearer": ({"name": "refuse_key_header"}, {}, {"auth_header": "Authorization"}),
    "the key in its header": ({"name": "refuse_bearer"}, {"auth_header": "Authorization"}, {}),
    "another path": ({}, {"base_path": "/v9/{project_id}"}, {"base_path": "/v1/projects/{project_id}"}),
}


QUICKLY = ("filters, and filter is ignored", "the key as bearer")


@pytest.mark.parametrize(
    "dialect", [pytest.param(one, marks=[] if one in QUICKLY else pytest.mark.soak) for one in WRONG_AND_RIGHT]
)
def test_a_wrong_setting_is_loud_and_loses_nothing_and_with_the_right_one_all_works(
    author: Author, dialect: str, caplog: pytest.LogCaptureFixture
) -> None:
    world, (switch, wrong, right) = author.world, WRONG_AND_RIGHT[dialect]
    if switch:
        world.switch_on(**switch)
    world.speak(**wrong)
    world.is_misled = True
    for allowed in (True, False):
        world.read_backup(allowed=allowed)
        author.update(author.create("A"), "B")
        author.delete(author.items[-1])
        author.read(author.items[0], 1)
        world.carry()
        author.undelete(author.items[-1])
        author.restore(author.items[1], 1)
        author.read_list()
        world.sweep()
    world.clock.advance(LONGEST_PAUSE_SECONDS)
    caplog.clear()
    with caplog.at_level(logging.ERROR):
        assert health.check_zerodb().startswith("down: ZeroDB refuses our requests or misunderstands them")
    assert "check the ZERODB_" in caplog.text

    world.speak(**right)
    world.is_misled = False
    world.carry(RECOVERED_WITHIN)
    world.carry()

    assert waiting(author.person) == []
    assert health.check_zerodb() == "ok"
    world.sweep()
    author.read_everything()
    assert {shown["storage"]["tier"] for shown in author.read_list()} == {"zerodb"}
    world.switch_all_off()
    world.speak()
    all_is_well(author)


def test_each_dialect_has_a_setting() -> None:
    given = {
        "ZERODB_FILTER_KEY": "filters",
        "ZERODB_AUTH_HEADER": "Authorization",
        "ZERODB_BASE_PATH": "/v1/projects/{project_id}",
        "ZERODB_COLLECTION_PREFIX": "mine_",
    }
    script = "import json, engarde.settings as given; print(json.dumps(given.CONTENT_STORE_OPTIONS))"
    done = subprocess.run([sys.executable, "-c", script], env={**os.environ, **given}, capture_output=True, check=True)

    options = json.loads(done.stdout)
    assert [options[name] for name in ("filter_key", "auth_header", "base_path", "collection_prefix")] == [
        *given.values()
    ]


@pytest.mark.soak
@pytest.mark.parametrize("trouble", [["silent", "500"], ["429, wait an hour"]], ids=" and ".join)
def test_worker_and_beat_carry_two_hundred_writes_within_a_minute_of_recovery(
    tmp_path: Path, trouble: list[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        platform = Platform(tmp_path / "data", server.getsockname()[1])
    platform.start()
    try:
        seconds = seconds_to_carry(platform, trouble)
    finally:
        platform.stop()

    print(f"\n{WRITES} items were carried {seconds:.1f} s after ZeroDB recovered")  # noqa: T201 -- a figure to report
    assert seconds < RECOVERED_WITHIN


def seconds_to_carry(platform: Platform, trouble: list[str]) -> float:
    """Have 200 items written and changed in trouble that lasts for a while, and return how long recovery takes."""
    tenant = platform.manage("create_tenant", "--name", "T", "--email", "t@example.com", "--password", people.PASSWORD)
    zerodb = platform.service("zerodb")["settings"]["ZERODB_BASE_URL"]
    for each in trouble:
        name, options = TROUBLES[each]
        switches.switch_on(zerodb, name, **options, rate=1.0 if each == trouble[-1] else 0.5)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _number: write_twice(platform, tenant), range(WRITES)))
    time.sleep(TROUBLE_SECONDS)
    assert backlog(platform) == 3 * WRITES  # two documents and a change record each
    switches.all_off(zerodb)
    started = time.monotonic()
    eventually(lambda: backlog(platform) == 0, 120)
    seconds = time.monotonic() - started
    eventually(lambda: is_clean(platform, tenant), 60)
    return seconds


def is_clean(platform: Platform, tenant: dict[str, str]) -> bool:
    """Tell whether all items are in all tiers; what is in any is right."""
    report = platform.manage("verify_backup_integrity", "--tenant", tenant["tenant_id"])
    assert (report["checked"], report["mismatched"], report["extra"]) == (WRITES, 0, 0)
    return bool(report["missing"] == 0)


def write_twice(platform: Platform, tenant: dict[str, str]) -> None:
    headers, item = {"X-API-Key": tenant["api_key"]}, {"title": "T", "type": "post", "body": "A"}
    answer = requests.post(f"{platform.url}/api/content", json=item, headers=headers, timeout=60)
    assert answer.status_code == 201, answer.text
    changed = requests.patch(platform.url + answer.headers["Location"], json={"body": "B"}, headers=headers, timeout=60)
    assert changed.status_code == 200, changed.text


def backlog(platform: Platform) -> int:
    """Return how many documents and records wait for ZeroDB."""
    lines = requests.get(f"{platform.url}/metrics", timeout=60).text.splitlines()
    shown = dict(line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
    waiting_for = 'engarde_spool_documents{state="waiting_for_zerodb"}'
    return int(float(shown[waiting_for]) + float(shown["engarde_records_backlog"]))
