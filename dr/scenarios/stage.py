"""Where scenarios are played: a database, a dataset, collections and a folder of their own, made before and removed after.

A migrated database is made once a run and copied for each scenario, as migrating takes longer than most of them.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

import structlog
from django.conf import settings

from dr.scenarios import databases, places
from dr.scenarios.databases import NoRoomForDrills
from dr.scenarios.tiers import DrillArchive, DrillStore

log = structlog.get_logger(__name__)

MIGRATE_SECONDS = 600
NOBODY_LISTENS = "redis://127.0.0.1:1/0"  # no worker hears of a drill's work, and no cache keeps any of it
ERROR_CHARACTERS = 4000


@dataclass(frozen=True, slots=True)
class Place:
    """Where one scenario is played.

    Attributes:
        environment: with which a process is led there.
        folder: for its files; it goes with the place.
    """

    name: str
    environment: dict[str, str]
    folder: Path


@dataclass(frozen=True, slots=True)
class Stage:
    """What the scenarios of one run share."""

    name: str
    server_url: str
    template: str
    folder: Path

    @contextmanager
    def place(self, scenario: str, **settings_of_its_own: str) -> Iterator[Place]:
        """Make a place for a scenario, and remove it whatever happened there.

        Args:
            settings_of_its_own: what else its environment says.

        Raises:
            NoRoomForDrills: the database server does not let us.
        """
        name = places.require_throw_away(f"{self.name}_{scenario}")
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            try:
                databases.create(server_url=self.server_url, name=name, template=self.template)
                yield Place(name, self._environment(name, Path(folder)) | settings_of_its_own, Path(folder))
            finally:
                self._remove(name)

    def _environment(self, name: str, folder: Path) -> dict[str, str]:
        return environment(
            DATABASE_URL=databases.url_of(self.server_url, name),
            BIGQUERY_DATASET=name,
            BIGQUERY_SCRATCH_DATASET=name,
            BIGQUERY_SYNC_ENABLED="true",
            BIGQUERY_READ_ONLY="false",
            ZERODB_COLLECTION_PREFIX=f"{name}_",
            DRILL_PLACE=name,
            DRILL_TEMPLATE=self.template,
            DRILL_SERVER_URL=self.server_url,
            **own_folder(folder),
        )

    def _remove(self, name: str) -> None:
        """Remove all that a scenario may have made; what fails is left to a later run's sweep."""

        def drop_database() -> None:
            databases.drop(server_url=self.server_url, name=name)

        steps: list[Callable[[], None]] = [drop_database, *(partial(_drop, kind, name) for kind in _services())]
        for step in steps:
            try:
                step()
            except Exception:
                log.exception("a drill's place was not removed; a later drill sweeps it", place=name)


@contextmanager
def prepared(*, now: datetime, tell: Callable[[str], object]) -> Iterator[Stage]:
    """Sweep what earlier runs left behind, and make the database that scenarios begin with.

    Args:
        tell: called with what is being done.

    Raises:
        NoRoomForDrills: the database server does not let us, or the migrations fail.
    """
    server_url = settings.DR_DRILL_DATABASE_URL or os.environ.get("DATABASE_URL", "")
    if not server_url:
        raise NoRoomForDrills("Nothing says where a drill may make databases: set DR_DRILL_DATABASE_URL.")
    sweep(server_url=server_url, now=now)
    name = places.new_name(now=now)
    template = f"{name}_template"
    with tempfile.TemporaryDirectory(prefix="engarde-drill-") as folder:
        try:
            tell("making a migrated database")
            make_template(server_url=server_url, name=template, folder=Path(folder))
            yield Stage(name, server_url, template, Path(folder))
        finally:
            databases.drop(server_url=server_url, name=template)


def sweep(*, server_url: str, now: datetime) -> None:
    """Remove what drills left behind that began more than a day ago; a service that is away is none of this one's business."""
    for name in databases.left_over(server_url=server_url, now=now):
        databases.drop(server_url=server_url, name=name)
    place = places.new_name(now=now)
    for kind in _services():
        try:
            kind(place).drop_left_over(now=now)
        except Exception as error:  # noqa: BLE001 -- the next run sweeps again
            log.warning("what earlier drills left behind was not looked for", service=kind.__name__, error=str(error))


def _drop(kind: type[DrillArchive] | type[DrillStore], name: str) -> None:
    kind(name).drop()


def _services() -> list[type[DrillArchive] | type[DrillStore]]:
    """Return the services in which drills make places; the weekly one is played without ZeroDB too."""
    return [DrillArchive, DrillStore] if settings.ZERODB_API_KEY else [DrillArchive]


def environment(**changes: str) -> dict[str, str]:
    """Return the environment of a process that takes part in a drill: it disturbs no worker, no cache and nobody's mailbox.

    It does not count among what the platform does either, and reports its errors to nobody: the drill's report has them.
    """
    quiet = {
        "REDIS_URL": NOBODY_LISTENS,
        "EMAIL_URL": "dummymail://",
        "THROTTLE_LOGIN": "off",
        "THROTTLE_TENANT": "off",
        "LOG_LEVEL": "CRITICAL",
        "ENGARDE_EMBEDDED": "joined",
        "DJANGO_SETTINGS_MODULE": "engarde.settings",
        "SENTRY_DSN": "",  # empty, not absent: else a `.env` would say it again
        "OTEL_EXPORTER_OTLP_ENDPOINT": "",
    }
    ours = {name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"}
    return {**ours, **quiet, **changes}


def own_folder(folder: Path) -> dict[str, str]:
    """Return the settings that have all files, media and their copies too, in a folder of the drill's."""
    counted = folder / "metrics"
    counted.mkdir(exist_ok=True)
    return {
        "DATA_DIR": str(folder),
        "MEDIA_STORAGE": "file",
        "MEDIA_INCOMING_DIR": str(folder / "media" / "incoming"),
        "DR_MEDIA_STORAGE": "file",
        "DR_MEDIA_ROOT": str(folder / "media-copies"),
        "PROMETHEUS_MULTIPROC_DIR": str(counted),  # named, as a `.env` may name the platform's
    }


def make_template(*, server_url: str, name: str, folder: Path) -> None:
    """Make a migrated database, by the migrations themselves.

    Raises:
        NoRoomForDrills: the database server does not let us, or the migrations fail.
    """
    databases.create(server_url=server_url, name=name)
    done = subprocess.run(
        [sys.executable, "-m", "django", "migrate", "--verbosity", "0"],
        env=environment(DATABASE_URL=databases.url_of(server_url, name), **own_folder(folder)),
        cwd=settings.BASE_DIR,
        capture_output=True,
        text=True,
        timeout=MIGRATE_SECONDS,
        check=False,
    )
    if done.returncode:
        raise NoRoomForDrills(f"The migrations failed in the drill's database: {done.stderr[-ERROR_CHARACTERS:]}")
