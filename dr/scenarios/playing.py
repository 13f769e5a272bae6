"""One scenario, from an empty place to its outcome: what the child process does."""

import os
import resource
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from django.conf import settings

from dr.scenarios import corruption, losses, mistakes, outages, places, sampled
from dr.scenarios.scene import Play, ScenarioFailed, Scene
from dr.scenarios.tiers import DrillArchive, DrillStore

PLAYS: Mapping[str, Callable[[Scene], None]] = {
    "zerodb_loss": losses.zerodb_loss,
    "postgres_loss": losses.postgres_loss,
    "full_loss": losses.full_loss,
    "tenant_deletion": mistakes.tenant_deletion,
    "silent_corruption": corruption.silent_corruption,
    "backup_outage": outages.backup_outage,
}
RESULT = "outcome"


def play(*, name: str, items: int, tell: Callable[[str], None]) -> int:
    """Play a scenario and return the exit code; whatever goes wrong is told, never raised.

    Args:
        tell: called with a line of JSON for every step, and with one for the outcome.
    """
    started = time.monotonic()
    scene: Play | None = None
    error = ""

    def told(step: dict[str, Any]) -> None:
        tell(orjson.dumps(step, default=str).decode())

    try:
        if name == sampled.SAMPLED:
            scene = sampled.open_up(place=_own_place(), tell=told)
            items = sampled.restore_and_read(scene)
        else:
            scene = disaster = _open(items, told)
            PLAYS[name](disaster)
    except ScenarioFailed as failure:
        error = str(failure)
    except Exception as failure:  # noqa: BLE001 -- told, with its traceback
        error = f"{type(failure).__name__}: {failure}\n{traceback.format_exc(limit=-6)}"
    outcome = _outcome(name, items, scene, error, time.monotonic() - started)
    tell(orjson.dumps({RESULT: outcome}, default=str).decode())
    return 0 if outcome["ok"] else 1


def _open(items: int, tell: Callable[[dict[str, Any]], None]) -> Scene:
    """Make sure that every address leads to throw-away places, and set them up."""
    place = _own_place()
    store, archive = DrillStore(place), DrillArchive(place)
    scene = Scene(
        items=items,
        place=place,
        server_url=os.environ["DRILL_SERVER_URL"],
        template=places.require_throw_away(os.environ["DRILL_TEMPLATE"]),
        store=store,
        archive=archive,
        tell=tell,
    )
    with scene.step("set up ZeroDB and BigQuery"):
        store.set_up()
        archive.set_up()
    return scene


def _own_place() -> str:
    """Return the name of this process's place, where every setting leads.

    Raises:
        NotThrowAway: one of them leads elsewhere.
    """
    place = places.require_throw_away(os.environ["DRILL_PLACE"])
    _require_nothing_else(place)
    return place


def _require_nothing_else(place: str) -> None:
    """Refuse to go on where a setting leads elsewhere.

    Raises:
        NotThrowAway: naming the setting.
    """
    led_to = {
        "DATABASE_URL": settings.DATABASES["default"]["NAME"],
        "BIGQUERY_DATASET": settings.DR_ARCHIVE_OPTIONS["dataset"],
        "BIGQUERY_SCRATCH_DATASET": settings.DR_ARCHIVE_OPTIONS["scratch_dataset"],
        "ZERODB_COLLECTION_PREFIX": settings.CONTENT_STORE_OPTIONS["collection_prefix"].removesuffix("_"),
    }
    for setting, name in led_to.items():
        if name != place:
            raise places.NotThrowAway(f"{setting} leads to {name!r} and not to the drill's own {place!r}.")


def _outcome(name: str, items: int, scene: Play | None, error: str, seconds: float) -> dict[str, Any]:
    measures = scene.measures if scene else {}
    lost = len(scene.differences.lost) if scene else 0
    mismatched = len(scene.differences.mismatched) if scene else 0
    rto = measures.get("rto_seconds")
    return {
        "name": name,
        "ok": not (error or lost or mismatched) and rto is not None,
        "items": items,
        "seconds": round(seconds, 3),
        "items_per_second": round(items / rto, 1) if rto else None,
        "rto_seconds": rto,
        "rpo_seconds": measures.get("rpo_seconds"),
        "lost": lost,
        "mismatched": mismatched,
        "error": error,
        "examples": scene.differences.examples if scene else [],
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "steps": scene.steps if scene else [],
    } | {key: value for key, value in measures.items() if key not in {"rto_seconds", "rpo_seconds"}}
