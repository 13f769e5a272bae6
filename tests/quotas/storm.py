"""Many processes that write to one tenant at once: `python -m tests.quotas.storm TENANT_ID WRITERS STEPS SEED`.

Each creates, changes, deletes and undeletes items, uploads and deletes files, and reserves, settles, releases or forgets
batches, in an order of its own. When all are done, all fill what is left with ever smaller items, to the last byte.
"""

import hashlib
import json
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "engarde.settings")

PATIENCE_SECONDS = 300
SIZES = (50, 7, 1)
context = multiprocessing.get_context("fork")
meeting: list[Any] = []


def storm(person: Any, *, writers: int, steps: int, seed: int = 1) -> Counter[str]:
    """Let writers loose on a tenant, and return what was done and what was refused, all of them together."""
    command = [sys.executable, "-m", "tests.quotas.storm", str(person.tenant_id), str(writers), str(steps), str(seed)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=PATIENCE_SECONDS * 4)
    return Counter(json.loads(done.stdout))


class Writer:
    """One process."""

    def __init__(self, tenant_id: UUID, seed: int) -> None:
        from tests.people import Person

        self.person = Person("", tenant_id, tenant_id, tenant_id)
        self.random = random.Random(seed)
        self.live: list[UUID] = []
        self.trashed: list[UUID] = []
        self.media: list[UUID] = []
        self.did: Counter[str] = Counter()

    def step(self) -> None:
        """Do something, or be refused."""
        from quotas.refusals import QuotaExceeded

        name = self.random.choice(
            ["create", "create", "change", "delete", "undelete", "upload", "remove", "batch", "batch", "forget"]
        )
        try:
            if getattr(self, name)():
                self.did[name] += 1
        except QuotaExceeded:
            self.did[f"{name} refused"] += 1

    def size(self) -> int:
        return self.random.randint(0, 120)

    def create(self) -> bool:
        from tests.quotas import house

        self.live.append(house.store(self.person, self.size()))
        return True

    def change(self) -> bool:
        from django.utils import timezone

        from tests.quotas import house

        if not self.live:
            return False
        house.resize(self.person, self.random.choice(self.live), self.size(), now=timezone.now())
        return True

    def delete(self) -> bool:
        return self.move(self.live, self.trashed, "delete_content")

    def undelete(self) -> bool:
        return self.move(self.trashed, self.live, "undelete_content")

    def move(self, source: list[UUID], target: list[UUID], how: str) -> bool:
        from django.utils import timezone

        from content import operations

        if not source:
            return False
        item = source.pop()
        try:
            getattr(operations, how)(
                tenant_id=self.person.tenant_id, author_id=None, content_id=item, now=timezone.now()
            )
        except Exception:
            source.append(item)
            raise
        target.append(item)
        return True

    def upload(self) -> bool:
        from django.utils import timezone

        from content.media import operations
        from content.media.uploads import Received

        content = uuid4().bytes * (self.size() // 16) or b"x"
        path = Path(tempfile.mkstemp()[1])
        path.write_bytes(content)
        received = Received(path, "a.bin", len(content), hashlib.sha256(content).digest(), None)
        try:
            stored = operations.store_media(
                tenant_id=self.person.tenant_id, author_id=uuid4(), received=received, now=timezone.now()
            )
        finally:
            received.discard()
        self.media.append(stored.media.id)
        return True

    def remove(self) -> bool:
        from django.utils import timezone

        from content.media import operations

        if not self.media:
            return False
        operations.delete_media(tenant_id=self.person.tenant_id, media_id=self.media.pop(), now=timezone.now())
        return True

    def batch(self) -> bool:
        from tests.quotas import house

        holder = house.reserve(self.person, size=3 * self.size(), items=2)
        try:
            for _ in range(2):
                self.live.append(house.store(self.person, self.size(), reservation_id=holder, generated=True))
        finally:
            house.release(self.person, holder)
        return True

    def forget(self) -> bool:
        """Reserve like a worker that dies."""
        from tests.quotas import house

        house.reserve(self.person, size=self.size(), items=1, minutes=0.0001)
        return True

    def fill(self) -> None:
        """Store ever smaller items until not a byte fits."""
        from quotas.refusals import StorageQuotaExceeded
        from tests.quotas import house

        for size in SIZES:
            try:
                while True:
                    house.store(self.person, size)
                    self.did["fill"] += 1
            except StorageQuotaExceeded:
                self.did["fill refused"] += 1


def meet(barrier: Any) -> None:
    """Give a process the place where all wait for each other."""
    meeting.append(barrier)


def write(tenant_id: UUID, steps: int, seed: int) -> Counter[str]:
    writer = Writer(tenant_id, seed)
    [everybody] = meeting
    everybody.wait(PATIENCE_SECONDS)
    for _ in range(steps):
        writer.step()
    everybody.wait(PATIENCE_SECONDS)
    writer.fill()
    return writer.did


def main(tenant_id: UUID, writers: int, steps: int, seed: int) -> None:
    """Fork the writers and print what all of them did."""
    django.setup()

    with context.Pool(writers, initializer=meet, initargs=(context.Barrier(writers),)) as pool:
        jobs = [(tenant_id, steps, seed * 1000 + number) for number in range(writers)]
        done = pool.starmap(write, jobs, chunksize=1)
    sys.stdout.write(json.dumps(sum(done, Counter[str]())) + "\n")


if __name__ == "__main__":
    main(UUID(sys.argv[1]), *map(int, sys.argv[2:]))
