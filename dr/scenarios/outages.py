"""The backup is away: refused at first, then out of reach. Writes go on, and what was left over drains when it is back."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, NoReturn

from django.conf import settings
from django.utils import timezone

from dr import archives, sync
from dr.archives.base import ArchiveRefused
from dr.models import SyncState
from dr.scenarios import tiers, world
from dr.scenarios.scene import Scene, expect
from dr.scenarios.world import World

CATCH_UP_SECONDS = 120.0
CATCH_UP_SECONDS_AN_ITEM = 0.1
HARMLESS_PASSES = 3


class RefusingArchive:
    """An archive that answers everything with 403, whatever is asked of it."""

    def __init__(self, **_options: Any) -> None:
        """Take the options of the real one."""

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        def refuse(*_args: Any, **_kwargs: Any) -> NoReturn:
            raise ArchiveRefused(f"403 in a drill: {name}", reason="accessDenied")

        return refuse


class Clock:
    """The time, and what was skipped of it: nobody waits in a drill for a backoff to end."""

    def __init__(self) -> None:
        self._skipped = timedelta()

    def skip(self, much: timedelta) -> None:
        """Let time pass."""
        self._skipped += much

    def __call__(self) -> datetime:
        """Return the time."""
        return timezone.now() + self._skipped


def backup_outage(scene: Scene) -> None:
    """Refuse the backup's access, then cut it off, write on meanwhile, and let it catch up.

    The RTO is how long the catching up took. The RPO counts the outage, with the time that was skipped in it instead of
    being waited for: the oldest change had to wait that long.
    """
    clock = Clock()
    made = world.create(scene)
    scene.measures["rpo_before_seconds"] = scene.measures["rpo_seconds"]
    with scene.step("OUTAGE: BigQuery refuses"), _archive("dr.scenarios.outages.RefusingArchive"):
        _write_on(scene, made)
        _require_state(clock, SyncState.Status.DISABLED)
    clock.skip(timedelta(minutes=20))
    with scene.step("OUTAGE: BigQuery is out of reach"), _archive(settings.DR_ARCHIVE, tiers.unreachable_options()):
        _write_on(scene, made)
        _require_state(clock, SyncState.Status.FAILING)
        world.require_reads(made.main, made.main.book.live()[-10:])
    scene.measures["backlog"] = world.unfinished()[2]
    back = time.monotonic()
    with scene.step("BigQuery is back, and the backlog drains"):
        _catch_up(scene, clock)
    scene.measures["rto_seconds"] = round(time.monotonic() - back, 3)
    scene.measures["rpo_seconds"] = world.observed_rpo(made)
    with scene.step("compare with what was written"):
        world.drain(scene, clock)
        for who in (made.main, made.other):
            who.book.compare(exactly=True, into=scene.differences)
    with scene.step("verify all tiers"):
        scene.verify()


def _write_on(scene: Scene, made: World) -> None:
    """Write as before, and carry documents to ZeroDB, which has nothing to do with the outage."""
    world.write(made, made.main, max(2, scene.items // 4))
    changed = made.main.book.live()[0]
    world.trash(made.main, changed)


def _require_state(clock: Clock, status: str) -> None:
    """Run the backup, which must not get on, and see that it says why."""
    for _ in range(HARMLESS_PASSES):
        sync.run_pass(now=clock)
    state = SyncState.objects.get(id=1)
    expect(state.status == status, f"the backup calls itself {state.status}, not {status}: {state.reason}")
    expect(world.unfinished()[2] > 0, "the backup has got on, though it could not")


def _catch_up(scene: Scene, clock: Clock) -> None:
    """Run the backup until nothing is left; a pass that finds nothing due lets a minute pass, as beat does."""
    deadline = time.monotonic() + CATCH_UP_SECONDS + CATCH_UP_SECONDS_AN_ITEM * scene.items
    while world.unfinished()[2]:
        expect(time.monotonic() < deadline, "the backlog did not drain")
        if not sync.run_pass(now=clock).rows:
            clock.skip(timedelta(minutes=1))
    expect(SyncState.objects.get(id=1).status == SyncState.Status.HEALTHY, "the backup is not healthy again")


@contextmanager
def _archive(path: str, options: dict[str, Any] | None = None) -> Iterator[None]:
    """Have this process's backup go through another archive."""
    before = settings.DR_ARCHIVE, settings.DR_ARCHIVE_OPTIONS
    settings.DR_ARCHIVE, settings.DR_ARCHIVE_OPTIONS = path, options or settings.DR_ARCHIVE_OPTIONS
    archives.current.cache_clear()
    try:
        yield
    finally:
        settings.DR_ARCHIVE, settings.DR_ARCHIVE_OPTIONS = before
        archives.current.cache_clear()
