"""Disasters played through at small size: nothing is lost, nothing differs, and nothing of the platform's own is touched."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest
from django.conf import settings as django_settings
from django.core.management import CommandError, call_command
from django.core.management.base import OutputWrapper
from django.db import connection
from django.utils import timezone

from content import operations
from content.models import ContentItem, SpooledDocument
from content.stores.base import COLLECTIONS
from dr.management.commands.test_dr_scenario import Command
from dr.models import Drill
from dr.scenarios import SCENARIOS, book, databases, document, places, playing, rows, running, stage
from dr.scenarios.book import Book, Differences
from dr.scenarios.databases import NoRoomForDrills
from dr.scenarios.scene import Scene
from dr.scenarios.stage import Place, Stage
from dr.scenarios.tiers import DrillArchive, DrillStore
from engarde.accounts.models import User
from engarde.common.scopes import system_scope, tenant_scope
from tests import tiers
from tests.people import Person

ITEMS = 14
SERVER = "postgres://engarde@/engarde?host=%2Fsomewhere&port=5432"

# Names


def test_only_names_of_drills_are_places_to_play_in() -> None:
    name = places.new_name(now=timezone.now())

    assert places.require_throw_away(name) == name
    assert places.require_throw_away(f"{name}_zerodb_loss") == f"{name}_zerodb_loss"
    for other in ("engarde", "engarde_dr", "drill", "drill_", f"x{name}", f"{name}; DROP", f"{name}_", ""):
        with pytest.raises(places.NotThrowAway, match="no drill's"):
            places.require_throw_away(other)


def test_what_a_drill_left_behind_is_told_by_its_name() -> None:
    now = timezone.now()
    old, new = places.new_name(now=now - timedelta(hours=25)), places.new_name(now=now - timedelta(hours=23))

    assert places.is_left_over(f"{old}_full_loss", now=now)
    assert not places.is_left_over(new, now=now)
    assert not places.is_left_over("engarde", now=now)
    assert not places.is_left_over(f"drill_{99999999999999}_{'0' * 8}", now=now)


@pytest.mark.parametrize("name", ["engarde", "postgres", "template1"])
def test_no_other_database_is_made_or_dropped(name: str) -> None:
    with pytest.raises(places.NotThrowAway):
        databases.drop(server_url=SERVER, name=name)
    with pytest.raises(places.NotThrowAway):
        databases.create(server_url=SERVER, name=name)
    with pytest.raises(places.NotThrowAway):
        databases.create(server_url=SERVER, name=places.new_name(now=timezone.now()), template=name)
    with pytest.raises(places.NotThrowAway):
        databases.url_of(SERVER, name)


def test_no_other_dataset_or_collection_is_damaged() -> None:
    with pytest.raises(places.NotThrowAway):
        DrillArchive(django_settings.BIGQUERY_DATASET)
    with pytest.raises(places.NotThrowAway):
        DrillStore(django_settings.ZERODB_COLLECTION_PREFIX)


def test_the_address_of_a_drills_database_keeps_everything_else() -> None:
    name = places.new_name(now=timezone.now())

    parts = urlsplit(databases.url_of(SERVER, name))

    assert (parts.path, parts.query, parts.netloc) == (f"/{name}", "host=%2Fsomewhere&port=5432", "engarde@")


# What is lost and what differs


@pytest.fixture
def kept(alice: Person) -> Book:
    """A book of three items of alice's, one of them in the trash."""
    kept = Book(alice.tenant_id)
    for number in range(3):
        sent = {"title": f"Number {number}", "body": f"body {number}", "type": "post", "status": "draft"}
        written = operations.create_content(
            tenant_id=alice.tenant_id, author_id=alice.user_id, fields=sent, now=timezone.now()
        )
        kept.note(written.item, sent | {name: written.item.fields[name] for name in book.SENT if name not in sent})
    trashed = operations.delete_content(
        tenant_id=alice.tenant_id, author_id=alice.user_id, content_id=list(kept.entries)[2], now=timezone.now()
    )
    kept.note(trashed.item)
    return kept


def differences(kept: Book, *, exactly: bool = True) -> Differences:
    found = Differences()
    kept.compare(exactly=exactly, into=found)
    return found


def test_what_reads_as_it_was_sent_is_no_difference(kept: Book) -> None:
    assert not differences(kept)


def test_an_item_that_is_gone_is_lost(kept: Book) -> None:
    gone = next(iter(kept.entries))
    tiers.lose_postgres_rows(str(gone))

    found = differences(kept)

    assert found.lost == {("content", str(gone))}
    assert not found.mismatched


def test_an_item_whose_document_no_tier_has_is_lost(kept: Book) -> None:
    gone = next(iter(kept.entries))
    with system_scope("a test loses a document"):
        SpooledDocument.objects.filter(content_id=gone).delete()

    assert differences(kept).lost == {("content", str(gone))}
    tiers.give_up(str(gone))


def test_an_older_version_that_is_gone_is_lost(kept: Book) -> None:
    trashed = list(kept.entries)[2]
    tiers.lose_postgres_version(str(trashed), 1)

    assert differences(kept).lost == {("content", str(trashed))}


def test_an_item_that_says_something_else_differs_whatever_its_version(kept: Book, alice: Person) -> None:
    changed = next(iter(kept.entries))
    alice.api.patch(f"/api/content/{changed}", {"body": "something else"})

    assert differences(kept, exactly=False).mismatched == {("content", str(changed))}


def test_a_new_version_that_says_the_same_differs_only_where_versions_have_to_be_the_same(
    kept: Book, alice: Person
) -> None:
    changed = next(iter(kept.entries))
    alice.api.delete(f"/api/content/{changed}")
    alice.api.post(f"/api/content/{changed}/restore")

    assert not differences(kept, exactly=False)
    assert differences(kept).mismatched == {("content", str(changed))}


def test_an_item_that_left_the_trash_and_one_that_is_new_differ(kept: Book, alice: Person) -> None:
    trashed = list(kept.entries)[2]
    alice.api.post(f"/api/content/{trashed}/restore")
    new = alice.writes()["id"]

    assert differences(kept).mismatched == {("content", str(trashed)), ("content", new)}


def test_rows_that_are_gone_changed_or_new_are_told_apart(alice: Person) -> None:
    gone, changed = alice.writes()["id"], alice.writes()["id"]
    before = rows.fingerprints(tenant_id=alice.tenant_id)
    assert ("brand", str(alice.brand_id)) in before
    tiers.lose_postgres_rows(gone)
    with tenant_scope(alice.tenant_id):
        ContentItem.objects.filter(id=changed).update(created_at=timezone.now())
    new = alice.writes()["id"]
    found = Differences()

    rows.compare(before=before, after=rows.fingerprints(tenant_id=alice.tenant_id), into=found)

    assert found.lost == {("content", gone)}
    assert found.mismatched == {("content", changed), ("content", new), ("usage", str(alice.tenant_id))}


# The process


def play(folder: Path, *, longest: float | None = None, **environment: str) -> dict[str, Any]:
    """Play a scenario in a process that gets this environment, and return its outcome."""
    name = places.new_name(now=timezone.now())
    leads = {"DRILL_PLACE": name, "DRILL_TEMPLATE": name, "DRILL_SERVER_URL": SERVER, **stage.own_folder(folder)}
    place = Place(name, stage.environment(**leads | environment), folder)
    return running.play(place=place, name="zerodb_loss", items=12, tell=lambda line: None, longest=longest)


def test_a_drill_counts_and_reports_nothing_as_the_platforms_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    platforms = {"PROMETHEUS_MULTIPROC_DIR": "/platform", "SENTRY_DSN": "https://key@sentry.example.com/1"}
    for name, value in {**platforms, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}.items():
        monkeypatch.setenv(name, value)

    environment, placed = stage.environment(), stage.environment(**stage.own_folder(tmp_path))

    assert "PROMETHEUS_MULTIPROC_DIR" not in environment
    assert placed["PROMETHEUS_MULTIPROC_DIR"] == str(tmp_path / "metrics")
    assert (tmp_path / "metrics").is_dir()
    for made in (environment, placed):
        assert (made["SENTRY_DSN"], made["OTEL_EXPORTER_OTLP_ENDPOINT"]) == ("", "")


def test_a_process_whose_settings_lead_elsewhere_touches_nothing(alice: Person, tmp_path: Path) -> None:
    before = rows.fingerprints(tenant_id=alice.tenant_id)

    outcome = play(tmp_path)

    assert not outcome["ok"]
    assert "DATABASE_URL leads to" in outcome["error"]
    assert rows.fingerprints(tenant_id=alice.tenant_id) == before


def test_a_place_that_is_no_drills_is_refused(database: None, tmp_path: Path) -> None:
    outcome = play(tmp_path, DRILL_PLACE="engarde")

    assert not outcome["ok"]
    assert "NotThrowAway" in outcome["error"]


def test_a_process_that_dies_is_a_failed_scenario(database: None, tmp_path: Path) -> None:
    outcome = play(tmp_path, longest=0.05)

    assert not outcome["ok"]
    assert "ended with status -9" in outcome["error"]
    assert {*running.REPORTED, "name", "seconds"} <= outcome.keys()


def test_a_process_ends_with_its_parent(database: None, tmp_path: Path) -> None:
    """Its stdin ends when the parent dies; it must not go on with nobody to clean up behind it."""
    done = subprocess.run(
        [sys.executable, "-m", "dr.scenarios.child", "zerodb_loss", "--items", "12"],
        env=stage.environment(DRILL_PLACE=places.new_name(now=timezone.now())),
        cwd=django_settings.BASE_DIR,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 1


def outcome_of(monkeypatch: pytest.MonkeyPatch, scenario: Callable[[Scene], None]) -> dict[str, Any]:
    """Play a scenario of a test's own in this process, without tiers."""
    name, said = places.new_name(now=timezone.now()), list[str]()

    def open_up(items: int, tell: Callable[[dict[str, Any]], None]) -> Scene:
        store, archive = DrillStore(name), DrillArchive(name)
        return Scene(
            items=items, place=name, server_url="", template=name, store=store, archive=archive, tell=lambda step: None
        )

    monkeypatch.setattr(playing, "PLAYS", {"own": scenario})
    monkeypatch.setattr(playing, "_open", open_up)
    code = playing.play(name="own", items=12, tell=said.append)
    outcome = dict(json.loads(said[-1])["outcome"])
    assert (code == 0) == outcome["ok"]
    return outcome


def test_a_scenario_that_lost_nothing_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    def well(scene: Scene) -> None:
        scene.measures["rto_seconds"] = 4.0

    outcome = outcome_of(monkeypatch, well)

    assert outcome["ok"]
    assert (outcome["rto_seconds"], outcome["items_per_second"]) == (4.0, 3.0)


@pytest.mark.parametrize("kind", ["lose", "mismatch"])
def test_a_scenario_that_lost_or_changed_one_thing_fails(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    def careless(scene: Scene) -> None:
        scene.measures["rto_seconds"] = 4.0
        getattr(scene.differences, kind)("content", "an item", "it is not as it was")

    outcome = outcome_of(monkeypatch, careless)

    assert not outcome["ok"]
    assert outcome["lost"] + outcome["mismatched"] == 1
    assert outcome["examples"] == ["content an item: it is not as it was"]


def test_a_scenario_that_breaks_off_fails_and_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(scene: Scene) -> None:
        with scene.step("a step"):
            raise ZeroDivisionError("here")

    outcome = outcome_of(monkeypatch, broken)

    assert not outcome["ok"]
    assert "ZeroDivisionError: here" in outcome["error"]


# Making room and cleaning up


def server_url() -> str:
    return os.environ["DATABASE_URL"]


def own_databases() -> set[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT datname FROM pg_database WHERE datname LIKE 'drill%'")
        return {name for (name,) in cursor.fetchall()}


def own_datasets() -> set[str]:
    archive = DrillArchive(places.new_name(now=timezone.now()))
    return {name for name in archive.dataset_names() if name.startswith("drill_")}


def own_collections() -> set[str]:
    store = DrillStore(places.new_name(now=timezone.now()))
    return {name for name in store.collection_names() if name.startswith("drill_")}


def test_a_run_sweeps_what_an_earlier_one_left_behind_and_nothing_newer(database: None) -> None:
    now = timezone.now()
    old, new = places.new_name(now=now - timedelta(days=2)), places.new_name(now=now)
    for name in (old, new):
        databases.create(server_url=server_url(), name=name)
        DrillArchive(name).set_up()
        DrillStore(name).set_up()
    try:
        stage.sweep(server_url=server_url(), now=now)

        assert {old, new} & own_databases() == {new}
        assert {old, new} & own_datasets() == {new}
        assert {name for name in own_collections() if name.startswith((old, new))} == {
            f"{new}_{collection}" for collection in COLLECTIONS
        }
    finally:
        databases.drop(server_url=server_url(), name=new)
        DrillArchive(new).drop()
        DrillStore(new).drop()


def _break_off(ground: Stage) -> None:
    with ground.place("full_loss") as place:
        assert place.name in own_databases()
        DrillArchive(place.name).set_up()
        DrillStore(place.name).set_up()
        raise ZeroDivisionError


def test_a_place_is_removed_whatever_happened_in_it(database: None, tmp_path: Path) -> None:
    template = places.new_name(now=timezone.now())
    databases.create(server_url=server_url(), name=template)
    ground = Stage(template, server_url(), template, tmp_path)
    try:
        with pytest.raises(ZeroDivisionError):
            _break_off(ground)
        name = f"{template}_full_loss"
        assert name not in own_databases()
        assert name not in own_datasets()
        assert not [one for one in own_collections() if one.startswith(name)]
    finally:
        databases.drop(server_url=server_url(), name=template)


def test_a_role_that_may_not_create_databases_is_told_which_setting_helps(database: None) -> None:
    role, there = f"drill_nobody_{uuid4().hex[:8]}", databases.parameters(server_url())
    with psycopg.connect(**{**there, "user": "postgres"}, autocommit=True) as superuser:
        superuser.execute(f"CREATE ROLE {role} LOGIN")
        try:
            with pytest.raises(NoRoomForDrills, match="DR_DRILL_DATABASE_URL"):
                databases.create(
                    server_url=server_url().replace("//engarde@", f"//{role}@"),
                    name=places.new_name(now=timezone.now()),
                )
        finally:
            superuser.execute(f"DROP ROLE {role}")


def test_a_server_that_does_not_answer_is_named_as_such() -> None:
    with pytest.raises(NoRoomForDrills, match="does not answer"):
        databases.drop(server_url="postgres://engarde@127.0.0.1:9/engarde", name=places.new_name(now=timezone.now()))


@pytest.mark.timeout(240)
def test_a_command_that_is_ended_cleans_up(database: None) -> None:
    before = own_databases()
    command = [sys.executable, str(django_settings.BASE_DIR / "manage.py"), "test_dr_scenario", "zerodb_loss"]
    with subprocess.Popen(command, cwd=django_settings.BASE_DIR, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as one:
        assert one.stdout
        one.stdout.readline()  # it says that it makes a database
        wait_until(lambda: bool(own_databases() - before))
        one.send_signal(signal.SIGTERM)
        assert one.wait(60) != 0

    assert own_databases() == before


def wait_until(holds: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


# The command


def test_the_command_says_what_it_needs(database: None, settings: Any) -> None:
    with pytest.raises(CommandError, match="12 to"):
        call_command("test_dr_scenario", "all", "--items", "3")
    with pytest.raises(CommandError, match="invalid choice"):
        call_command("test_dr_scenario", "meteorite")
    settings.BIGQUERY_SYNC_ENABLED = False
    with pytest.raises(CommandError, match="backup is off"):
        call_command("test_dr_scenario", "all")
    settings.BIGQUERY_SYNC_ENABLED, settings.ZERODB_API_KEY = True, ""
    with pytest.raises(CommandError, match="no ZeroDB"):
        call_command("test_dr_scenario", "all")


def test_the_table_for_people_has_a_line_a_scenario_and_says_why_one_failed() -> None:
    good = {"name": "full_loss", "ok": True, "items": 12, "seconds": 3.5, "items_per_second": 9.9, "error": ""}
    good |= {"rto_seconds": 1.2, "rpo_seconds": 0.4, "lost": 0, "mismatched": 0}
    bad = good | {"name": "zerodb_loss", "ok": False, "rto_seconds": None, "error": "it broke", "examples": ["an item"]}
    out = StringIO()

    Command().show({"scenarios": [good, bad]}, OutputWrapper(out))

    lines = out.getvalue().splitlines()
    assert [line.split()[:2] for line in lines[2:4]] == [["full_loss", "ok"], ["zerodb_loss", "FAILED"]]
    assert lines[4:] == ["zerodb_loss: it broke", "zerodb_loss: an item"]


def test_the_document_says_how_it_was_made_and_has_a_section_for_each() -> None:
    outcome = {"name": "full_loss", "ok": True, "items": 12, "seconds": 3.5, "items_per_second": 9.9, "error": ""}
    outcome |= {"rto_seconds": 1.2, "rpo_seconds": None, "lost": 0, "mismatched": 0, "refill_seconds": 7.5}
    outcome |= {"steps": [{"step": "restore everything", "seconds": 0.5}]}

    text = document.render(outcomes=[outcome], made_at=timezone.now(), embedded=True)

    assert "test_dr_scenario all --items 12 --markdown" in text
    assert "| [full_loss](#full_loss) | passed | 12 | 3.5 | 9.9 | 1.2 | – | 0 | 0 |" in text  # noqa: RUF001
    assert "| restore everything | 0.50 |" in text
    assert "full again, behind the reads: 7.5" in text


# All six


def drills_noted() -> int:
    with system_scope("a test counts"):
        return Drill.objects.filter(scenario__in=SCENARIOS).count()


@pytest.fixture(scope="module")
def played(django_db_setup: None, django_db_blocker: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the command reports of all six."""
    out, file = StringIO(), tmp_path_factory.mktemp("drills") / "report.json"
    with django_db_blocker.unblock():
        before = drills_noted()
        with suppress(SystemExit):
            call_command("test_dr_scenario", "all", "--items", str(ITEMS), "--json", "--report", str(file), stdout=out)
        report = json.loads(out.getvalue())
        assert report == json.loads(file.read_text())
        return {one["name"]: one for one in report["scenarios"]} | {"rows": drills_noted() - before}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SCENARIOS)
def test_nothing_is_lost_and_nothing_differs(played: dict[str, Any], name: str) -> None:
    outcome = played[name]

    assert outcome["error"] == ""
    assert outcome["examples"] == []
    assert (outcome["ok"], outcome["items"], outcome["lost"], outcome["mismatched"]) == (True, ITEMS, 0, 0)
    assert outcome["rto_seconds"] > 0
    assert outcome["rpo_seconds"] > 0
    assert outcome["seconds"] > outcome["rto_seconds"]


def test_the_history_has_a_row_for_each_and_nothing_else_is_left(played: dict[str, Any], database: None) -> None:
    assert played["rows"] == len(SCENARIOS)
    assert not [name for name in own_databases() if name.endswith(tuple(SCENARIOS))]
    assert not [name for name in own_datasets() if name.endswith(tuple(SCENARIOS))]
    assert not own_collections()
    with system_scope("a test looks"):
        emails = User.objects.filter(email__startswith="main-", is_active=True)
        assert not emails.exists(), "a drill's people are in the platform's own database"


def test_the_outage_counts_as_rpo_and_the_backlog_is_told(played: dict[str, Any]) -> None:
    outage = played["backup_outage"]

    assert outage["rpo_seconds"] > 20 * 60 > outage["rpo_before_seconds"]
    assert outage["backlog"] > 0


def test_every_fault_was_found(played: dict[str, Any]) -> None:
    assert played["silent_corruption"]["found"] == {"mismatched": 3, "missing": 2, "extra": 2}
