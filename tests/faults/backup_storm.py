"""A storm over the backup: writers that are slow to commit or roll back, workers that die, a BigQuery that fails.

What it wrote and what it took back is remembered under marks that are used once, so that the backup can be compared with the
writers' own memory and not only with the change log.
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import requests
from django.conf import settings
from django.db import connection
from django.utils import timezone
from uuid_utils.compat import uuid7

from content import operations
from engarde.common.scopes import system_scope
from engarde.embedded import session
from engarde.embedded.paths import PROJECT_ROOT, DataDir
from quotas import charging
from tests.content import media_files
from tests.people import Person

LONGEST_PAUSE = 0.05
ROLLS_BACK = 0.15
TROUBLES: tuple[dict[str, Any], ...] = (
    {"code": 403, "reason": "rateLimitExceeded", "left": 3},
    {"code": 403, "reason": "quotaExceeded", "left": 1},
    {"code": 403, "reason": "accessDenied", "left": 1},
    {"code": 429, "reason": "rateLimitExceeded", "left": 1},
    {"code": 500, "reason": "backendError", "left": 2},
    {"code": 503, "reason": "backendError", "left": 2},
    {"code": 503, "reason": "backendError", "left": 1, "match": "/upload/"},
    {"delay": 0.4, "left": 3},
)

BRAND_COMES = "INSERT INTO accounts_brand (id, tenant_id, name, voice, language) VALUES (%s, %s, %s, %s, 'en')"


class TakenBack(Exception):
    """The writer's transaction is rolled back."""


@dataclass
class Memory:
    """What all writers did.

    Attributes:
        kept: marks of what was committed.
        taken_back: marks of what was rolled back.
        errors: what writers did not expect.
    """

    kept: list[str] = field(default_factory=list)
    taken_back: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


class Writer:
    """One connection's work: it changes things of its own, and takes its time between a change's number and the commit."""

    def __init__(self, person: Person, seed: float, memory: Memory) -> None:
        self.person, self.memory, self.chance = person, memory, random.Random(seed)
        self.items: list[UUID] = []
        self.trash: list[UUID] = []
        self.brands: list[UUID] = []
        self.act: Callable[[str], None] = self.create

    def run(self, until: float) -> None:
        """Write until then."""
        try:
            while time.monotonic() < until:
                self.write()
        except Exception as error:  # noqa: BLE001 -- the test shows it
            self.memory.errors.append(repr(error))
        finally:
            connection.close()

    def write(self) -> None:
        """Make one change, or take it back in the last moment."""
        acts: list[Callable[[str], None]] = [self.create, self.create, self.add_brand, self.add_brand, self.upload]
        if self.items:
            acts += [self.update, self.update, self.delete]
        if self.trash:
            acts.append(self.undelete)
        if self.brands:
            acts += [self.change_brand, self.remove_brand]
        self.act, mark = self.chance.choice(acts), uuid4().hex
        try:
            self.act(mark)
        except TakenBack:
            self.memory.taken_back.append(mark)
        else:
            if self.act not in (self.delete, self.undelete, self.remove_brand):
                self.memory.kept.append(mark)

    def linger(self) -> None:
        """Let time pass inside the transaction, whose changes have their numbers already; sometimes take them back."""
        is_request = self.act == self.upload  # which would log an error that nobody made
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(%s)", [self.chance.uniform(0, LONGEST_PAUSE)])
        if not is_request and self.chance.random() < ROLLS_BACK:
            raise TakenBack

    def create(self, mark: str) -> None:
        fields = {"title": "A title", "type": "post", "body": mark}
        self.items.append(operations.create_content(**self._mine(), fields=fields).item.id)

    def update(self, mark: str) -> None:
        chosen = self.chance.choice(self.items)
        operations.update_content(**self._mine(), content_id=chosen, changes={"body": mark})

    def delete(self, _mark: str) -> None:
        chosen = self.chance.choice(self.items)
        operations.delete_content(**self._mine(), content_id=chosen)
        self.items.remove(chosen)
        self.trash.append(chosen)

    def undelete(self, _mark: str) -> None:
        chosen = self.chance.choice(self.trash)
        operations.undelete_content(**self._mine(), content_id=chosen)
        self.trash.remove(chosen)
        self.items.append(chosen)

    def upload(self, mark: str) -> None:
        media_files.uploaded(self.person, mark.encode(), f"{mark}.txt")

    def add_brand(self, mark: str) -> None:
        brand_id = uuid7()
        self._run(BRAND_COMES, [brand_id, self.person.tenant_id, "A brand", mark])
        self.brands.append(brand_id)

    def change_brand(self, mark: str) -> None:
        self._run("UPDATE accounts_brand SET voice = %s WHERE id = %s", [mark, self.chance.choice(self.brands)])

    def remove_brand(self, _mark: str) -> None:
        chosen = self.chance.choice(self.brands)
        self._run("DELETE FROM accounts_brand WHERE id = %s", [chosen])
        self.brands.remove(chosen)

    def _mine(self) -> dict[str, Any]:
        return {"tenant_id": self.person.tenant_id, "author_id": self.person.user_id, "now": timezone.now()}

    def _run(self, statement: str, values: Sequence[Any]) -> None:
        with system_scope("a writer writes"), connection.cursor() as cursor:
            cursor.execute(statement, values)
            self.linger()


@dataclass
class Storm:
    """Writers, workers and troubles, all at once.

    Attributes:
        worker: what the workers' program told of itself in the end.
    """

    people: Sequence[Person]
    seed: int
    monkeypatch: pytest.MonkeyPatch
    memory: Memory = field(default_factory=Memory)
    worker: dict[str, int] = field(default_factory=dict)

    def rage(self, *, seconds: float, writers: int, drained: Callable[[], bool], patience: float) -> None:
        """Have everything happen for some time; then end the trouble and wait until the workers have drained the backlog."""
        with self._workers() as program:
            chance, until = random.Random(self.seed), time.monotonic() + seconds
            work = [
                Writer(self.people[each % len(self.people)], chance.random(), self.memory) for each in range(writers)
            ]
            self._make_slow(work)
            threads = [threading.Thread(target=writer.run, args=[until]) for writer in work]
            for thread in threads:
                thread.start()
            self._make_trouble(chance, until)
            for thread in threads:
                thread.join()
            assert program.stdin
            program.stdin.write("calm\n")
            program.stdin.flush()
            _wait(drained, patience)

    @contextmanager
    def _workers(self) -> Iterator["subprocess.Popen[str]"]:
        program = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.backup_worker", str(self.seed)],
            cwd=PROJECT_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert program.stdout
            assert program.stdout.readline() == "ready\n"
            yield program
        finally:
            out, _ = program.communicate(timeout=30)
            self.worker = json.loads(out or "{}")

    def _make_slow(self, writers: Sequence[Writer]) -> None:
        """Have content's transactions take their time too, before they charge, which comes last in them."""
        charge = charging.charge
        of_thread = threading.local()

        def slow(**given: Any) -> Any:
            if writer := getattr(of_thread, "writer", None):
                writer.linger()
            return charge(**given)

        def noting(writer: Writer, run: Callable[[float], None]) -> Callable[[float], None]:
            def noted(until: float) -> None:
                of_thread.writer = writer
                run(until)

            return noted

        self.monkeypatch.setattr(charging, "charge", slow)
        for writer in writers:
            self.monkeypatch.setattr(writer, "run", noting(writer, writer.run))

    def _make_trouble(self, chance: random.Random, until: float) -> None:
        """Have BigQuery fail in ever new ways, and once stand still."""
        stalls_at = chance.uniform(time.monotonic() + 1, until - 1)
        while time.monotonic() < until:
            if time.monotonic() > stalls_at:
                stalls_at = float("inf")
                with stalled():
                    time.sleep(1)
            fault(**chance.choice(TROUBLES))
            time.sleep(chance.uniform(0.1, 0.6))
        fault()


def fault(**what: Any) -> None:
    """Tell the BigQuery emulator what to do to the next requests; nothing ends the trouble."""
    requests.post(f"{settings.BIGQUERY_EMULATOR_HOST}/__fault", json=what, timeout=30).raise_for_status()


@contextmanager
def stalled() -> Iterator[None]:
    """Have the BigQuery emulator stand still: it takes connections and never answers."""
    data = DataDir.at(Path(os.environ["DATA_DIR"]))
    pid = session.service_state(data, "bigquery")["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _wait(is_done: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not is_done():
        assert time.monotonic() < until, f"the backlog was not drained within {seconds} s"
        time.sleep(0.1)
