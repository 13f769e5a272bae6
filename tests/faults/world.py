"""ZeroDB on its bad days: a process of the tests' own, the carriers on a clock that tests move, and what must hold after it.

Time is virtual where the platform waits (backoff, leases, the circuit breaker), so that a minute costs nothing; what the
emulator does, and the time-outs of calls to it, is real.
"""

import json
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from io import StringIO
from typing import Any
from uuid import UUID

import requests
from django.conf import settings
from django.core.management import call_command
from django.utils import timezone

from content import collector, documents, tasks
from content.models import Change, ContentVersion, SpooledDocument, SpooledRecord
from content.stores.base import COLLECTIONS, DOCUMENTS, VERSIONS, DocumentKey, StoreRejected, StoreUnavailable
from content.stores.breaker import CircuitBreaker
from content.stores.zerodb import ZeroDBStore
from dr import sync
from engarde.common.scopes import system_scope
from tests import switches
from tests.people import Person
from tests.stored import stored_by
from tests.zerodb_process import API_KEY, PROJECT_ID, ZeroDBProcess

RECOVERED_WITHIN = 60
BACKED_UP_WITHIN = 600
CARRY_AFTER = 6.0
"""Seconds after which the circuit breaker, if it is open, lets a call probe."""
SETTLE_ROUNDS = 5
CARRIERS = (tasks.upload_documents, tasks.carry_records)
ROWS = """
SELECT row_id, row_data FROM data_row JOIN data_table USING (table_id)
WHERE data_table.name = ? AND text_of_tenant_id = ? ORDER BY seq"""

Row = tuple[str, dict[str, Any]]


@dataclass
class Clock:
    """The time, and how many seconds a test has moved it ahead."""

    ahead: float = 0.0

    def now(self) -> datetime:
        return timezone.now() + timedelta(seconds=self.ahead)

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead

    def advance(self, seconds: float) -> None:
        self.ahead += seconds


@dataclass
class World:
    """The platform with a ZeroDB that can be told to fail.

    Attributes:
        reads_backup: whether the backup is read where ZeroDB does not give a document.
        is_misled: the settings are not those that ZeroDB wants.
    """

    zerodb: ZeroDBProcess
    monkeypatch: Any
    settings: Any
    clock: Clock = field(default_factory=Clock)
    reads_backup: bool = True
    is_misled: bool = False

    def __post_init__(self) -> None:
        self.settings.CONTENT_READ_FALLBACK_SECONDS = 60  # a slow machine is not the fault that is tested
        self._fallback = settings.CONTENT_READ_FALLBACK
        self.monkeypatch.setattr(tasks, "timezone", self.clock)
        self.speak()
        self.switch_all_off()
        self.store.set_up()
        with self.zerodb.sqlite() as file:  # of earlier tests; nobody reads them any more
            file.execute("DELETE FROM data_row")

    # what goes wrong

    def speak(self, **dialect: Any) -> None:
        """Have the platform talk to ZeroDB with these settings."""
        self.breaker = CircuitBreaker(clock=self.clock.monotonic)
        given = {
            "read_timeout": 0.4,
            "attempts": settings.CONTENT_STORE_OPTIONS["attempts"],
            "retry_within": 0.3,
            "pool_size": settings.CONTENT_UPLOAD_THREADS,
            "breaker": self.breaker,
        }
        self.store = ZeroDBStore(self.zerodb.url, API_KEY, PROJECT_ID, **{**given, **dialect})
        self.monkeypatch.setattr(documents, "document_store", lambda: self.store)

    def switch_on(self, name: str, **options: Any) -> None:
        self.revive()
        switches.switch_on(self.zerodb.url, name, **options)

    def switch_off(self, name: str) -> None:
        self.revive()
        switches.switch_off(self.zerodb.url, name)

    def switch_all_off(self) -> None:
        was_on = self.switches_on()
        switches.all_off(self.zerodb.url)
        if any(each["name"] in {"latency", "stall"} for each in was_on):
            time.sleep(0.1)  # what it held up goes through now

    def switches_on(self) -> list[dict[str, Any]]:
        """Return the switches that are on."""
        self.revive()
        return switches.switches_on(self.zerodb.url)

    def read_backup(self, *, allowed: bool) -> None:
        """Let the backup be read where ZeroDB does not give a document, or not."""
        self.settings.CONTENT_READ_FALLBACK = self._fallback if allowed else ""
        self.reads_backup = allowed
        documents.start_afresh()

    @property
    def is_alive(self) -> bool:
        try:
            return requests.get(f"{self.zerodb.url}/health", timeout=5).ok
        except requests.ConnectionError:
            return False

    def revive(self) -> None:
        """Start ZeroDB again if it died."""
        if not self.is_alive:
            self.zerodb.wait_for_end()
            self.zerodb.start()

    @property
    def in_trouble(self) -> bool:
        """Whether ZeroDB has a reason not to give a document."""
        if self.is_misled or self.breaker.is_open:
            return True
        return not self.is_alive or bool(switches.switches_on(self.zerodb.url))

    # what goes on meanwhile

    def carry(self, seconds: float = CARRY_AFTER) -> None:
        """Let time pass and have each carrier run once, as a wake-up has it."""
        self.clock.advance(seconds)
        tasks.upload_documents()
        tasks.carry_records()
        sync.run_pass(now=self.clock.now)

    def sweep(self) -> None:
        """Tidy ZeroDB, as far as it lets us."""
        for collection in COLLECTIONS:
            try:
                collector.run(store=self.store, collection=collection, now=self.clock.now())
            except (StoreUnavailable, StoreRejected):
                continue

    # what must hold

    def recover(self, person: Person) -> int:
        """End all trouble, let beat do its work, and return after how many seconds nothing waited any more."""
        self.switch_all_off()
        for second in range(1, RECOVERED_WITHIN + 1):
            self.clock.advance(1)
            for run in CARRIERS:
                if second % seconds_between(run.name) == 0:
                    run()
            if not (left := waiting(person)):
                self.clock.advance(RECOVERED_WITHIN - second)  # the circuit breaker may still be waiting, unasked
                return second
        raise AssertionError(f"still waiting after {RECOVERED_WITHIN} s: {left}")

    def settle(self, person: Person) -> None:
        """After recovery: back all up, and sweep until there is nothing to do."""
        self._back_up(person)
        for _ in range(SETTLE_ROUNDS):
            before = self.rows(person, DOCUMENTS), self.rows(person, VERSIONS)
            self.sweep()
            self.recover(person)
            if (self.rows(person, DOCUMENTS), self.rows(person, VERSIONS)) == before:
                return
        raise AssertionError("the sweep comes to no end")

    def _back_up(self, person: Person) -> None:
        """Have the backup acknowledge everything; what it could not read before waits for a while."""
        for _ in range(BACKED_UP_WITHIN // 30):
            sync.run_pass(now=self.clock.now)
            with system_scope("a test looks"):
                if not Change.objects.filter(tenant_id=person.tenant_id, acked_at=None).exists():
                    return
            self.clock.advance(30)
        raise AssertionError("the backup does not catch up")

    def check(self, person: Person) -> None:
        """Check that PostgreSQL, ZeroDB, the backup and the quota agree, and that ZeroDB has everything once."""
        with system_scope("a test looks"):
            versions = list(ContentVersion.objects.filter(tenant_id=person.tenant_id))
            assert not SpooledDocument.objects.filter(tenant_id=person.tenant_id).exists()
        check_documents(self.rows(person, DOCUMENTS), versions)
        check_records(self.rows(person, VERSIONS), versions)
        assert stored_by(person.tenant_id).counters_are_true
        assert verification(person.tenant_id) == []

    def rows(self, person: Person, collection: str) -> list[Row]:
        """Return a tenant's rows as they are on ZeroDB's disk: id and data."""
        with self.zerodb.sqlite() as file:
            found = file.execute(ROWS, (collection, str(person.tenant_id))).fetchall()
        return [(row_id, json.loads(data)) for row_id, data in found]

    def insert(self, collection: str, row_data: dict[str, Any]) -> None:
        """Insert a row, as somebody else could."""
        path = f"{self.zerodb.tables_url}/{collection}/rows"
        requests.post(path, json={"row_data": row_data}, headers={"X-API-Key": API_KEY}, timeout=5).raise_for_status()


def seconds_between(task: str) -> float:
    """Return how often beat has a task run."""
    [schedule] = [each["schedule"] for each in settings.CELERY_BEAT_SCHEDULE.values() if each["task"] == task]
    assert isinstance(schedule, timedelta)
    return schedule.total_seconds()


def waiting(person: Person) -> list[str]:
    """Return what ZeroDB is still to be told of a tenant, and why it was not."""
    with system_scope("a test looks"):
        spooled = SpooledDocument.objects.filter(tenant_id=person.tenant_id, uploaded_at=None)
        records = SpooledRecord.objects.filter(tenant_id=person.tenant_id)
        return [
            f"{row}, {row.attempts} attempts, due {row.next_attempt_at}: {row.last_error}"
            for rows in (spooled, records)
            for row in rows
        ]


def check_documents(rows: Iterable[Row], versions: Iterable[ContentVersion]) -> None:
    """Check that each distinct document is there once, intact, and that its versions name its row."""
    rows = list(rows)
    assert all(DocumentKey.parse(data["key"]).names(data["document"]) for _, data in rows)
    assert twice(data["key"] for _, data in rows) == {}
    named: dict[str, set[str | None]] = {}
    for each in versions:
        named.setdefault(str(documents.key_of(each.content_id, each.sha256)), set()).add(each.zerodb_row_id)
    assert {data["key"]: {row_id} for row_id, data in rows} == named


def check_records(rows: Iterable[Row], versions: Iterable[ContentVersion]) -> None:
    """Check that each version from the second on has one change record, and that it says what PostgreSQL does."""
    rows = list(rows)
    assert twice(data["key"] for _, data in rows) == {}
    names = ("sha256", "change_type", "size_bytes")
    assert {data["key"]: tuple(data[name] for name in names) for _, data in rows} == {
        f"{each.content_id}:{each.version}": (bytes(each.sha256).hex(), each.change_type, each.size_bytes)
        for each in versions
        if each.version > 1
    }


def twice(names: Iterable[str]) -> dict[str, int]:
    """Return the names that are there more than once."""
    return {name: count for name, count in Counter(names).items() if count > 1}


def verification(tenant_id: UUID) -> list[dict[str, Any]]:
    """Return what `verify_backup_integrity` finds wrong with a tenant's content."""
    out = StringIO()
    with suppress(SystemExit):
        call_command("verify_backup_integrity", "--tenant", str(tenant_id), "--json", stdout=out)
    report = json.loads(out.getvalue())
    assert bool(report["findings"]) == bool(report["mismatched"] or report["missing"] or report["extra"])
    return list(report["findings"])
