"""The weekly drill: a tenant of the platform comes back from the real backup, which it can only read, and is compared."""

import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings as django_settings
from django.utils import timezone

from content.models import Change
from dr import drills
from dr.archives.base import ArchiveRefused
from dr.archives.bigquery import BigQueryArchive
from dr.models import Drill
from dr.scenarios import databases, places, rows, stage
from engarde.common.scopes import system_scope, tenant_scope
from tests import tiers
from tests.people import Person

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def template(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A migrated database of a drill's, made once for all tests here: migrating takes longer than most of them."""
    name, server_url = places.new_name(now=timezone.now()), os.environ["DATABASE_URL"]
    stage.make_template(server_url=server_url, name=name, folder=tmp_path_factory.mktemp("template"))
    yield name
    databases.drop(server_url=server_url, name=name)


@pytest.fixture
def _quick_template(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def copy(*, server_url: str, name: str, folder: Path) -> None:
        databases.create(server_url=server_url, name=name, template=template)

    monkeypatch.setattr(stage, "make_template", copy)


@pytest.fixture
def backed_up(alice: Person, upload: Callable[[], int], back_up: Callable[[], int]) -> list[str]:
    """Items of alice's that all tiers have: one plain, one with two versions, one in the trash."""
    plain, changed, trashed = (
        alice.writes(title=name, body=name * 3)["id"] for name in ("plain", "changed", "trashed")
    )
    alice.api.patch(f"/api/content/{changed}", {"body": "second"})
    alice.api.delete(f"/api/content/{trashed}")
    upload()
    back_up()
    return [plain, changed, trashed]


@pytest.fixture(autouse=True)
def _only_alice(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Have alice's tenant be the one that is picked: tests share one database."""
    if "alice" in request.fixturenames and "picks" not in request.node.name:
        tenant_id = request.getfixturevalue("alice").tenant_id
        monkeypatch.setattr(drills, "_pick", lambda: tenant_id)


def last_drill(person: Person) -> Drill:
    with system_scope("a test looks"):
        return Drill.objects.filter(tenant_id=person.tenant_id).latest("started_at")


def archived(person: Person) -> list[tuple[Any, ...]]:
    """Return all rows that the real backup has of a tenant, and how many there are in all."""
    mine = f"SELECT entity_type, entity_id, version, change_seq, row_hash FROM {{table}} WHERE tenant_id = '{person.tenant_id}'"
    return sorted(tuple(row) for row in tiers.bigquery(mine))


@pytest.mark.usefixtures("_quick_template")
def test_a_tenant_comes_back_as_it_is_and_nothing_of_the_platforms_own_changes(
    alice: Person, backed_up: list[str]
) -> None:
    before, held = rows.fingerprints(tenant_id=alice.tenant_id), archived(alice)
    in_zerodb = [tiers.zerodb_rows(item_id) for item_id in backed_up]

    outcome = drills.run_drill(now=timezone.now)

    assert outcome is not None
    assert outcome.get("error", "") == ""
    assert (outcome["ok"], outcome["items"], outcome["lost"], outcome["mismatched"]) == (True, 3, 0, 0)
    assert outcome["rto_seconds"] > 0
    assert rows.fingerprints(tenant_id=alice.tenant_id) == before
    assert archived(alice) == held
    assert [tiers.zerodb_rows(item_id) for item_id in backed_up] == in_zerodb
    noted = last_drill(alice)
    assert (noted.scenario, noted.scheduled, noted.ok, noted.items) == ("sampled_tenant", True, True, 3)
    assert noted.finished_at
    assert noted.rto_seconds == outcome["rto_seconds"]


@pytest.mark.soak
@pytest.mark.usefixtures("_quick_template")
def test_a_backup_that_lost_a_version_fails_the_drill(alice: Person, backed_up: list[str]) -> None:
    tiers.bigquery(f"DELETE FROM {{table}} WHERE entity_id = '{backed_up[0]}'")

    outcome = drills.run_drill(now=timezone.now)

    assert outcome is not None
    assert (outcome["ok"], outcome["lost"]) == (False, 1)
    assert last_drill(alice).ok is False


def test_the_rpo_is_the_age_of_the_oldest_change_that_is_not_backed_up(alice: Person, backed_up: list[str]) -> None:
    alice.writes()
    now = timezone.now() + timedelta(seconds=100)

    assert 100 <= drills.unsaved_seconds(tenant_id=alice.tenant_id, now=now) < 200
    with tenant_scope(alice.tenant_id):
        Change.objects.filter(acked_at=None).update(acked_at=now)
    assert drills.unsaved_seconds(tenant_id=alice.tenant_id, now=now) == 0


@pytest.mark.soak
def test_versions_that_were_removed_meanwhile_are_no_loss_and_others_are(alice: Person, backed_up: list[str]) -> None:
    live = rows.versions(tenant_id=alice.tenant_id)
    lost, wrong, removed = (UUID(one) for one in backed_up)
    restored = {name: digest for name, digest in live.items() if name[0] not in (lost, removed)}
    restored[wrong, 1] = b"another digest"
    tiers.lose_postgres_rows(str(removed))

    found = drills.compare(tenant_id=alice.tenant_id, live=live, restored=restored)

    assert found.lost == {("content", str(lost))}
    assert found.mismatched == {("content", str(wrong))}


@pytest.mark.soak
def test_only_what_the_backup_acknowledged_is_expected_back(alice: Person, backed_up: list[str]) -> None:
    alice.writes()

    versions = rows.versions(tenant_id=alice.tenant_id, backed_up=timezone.now())

    assert {content_id for content_id, _ in versions} == {UUID(one) for one in backed_up}
    assert len(rows.versions(tenant_id=alice.tenant_id)) == len(versions) + 1


def test_it_picks_a_tenant_with_content_and_of_bearable_size(
    alice: Person, charlie: Person, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    offered: list[UUID] = []

    def choose(ids: list[UUID]) -> UUID:
        offered.extend(ids)
        return ids[0]

    monkeypatch.setattr("dr.drills.random.choice", choose)
    alice.writes()

    assert drills._pick() == offered[0]
    assert alice.tenant_id in offered
    assert charlie.tenant_id not in offered
    offered.clear()
    settings.DR_DRILL_MAX_ITEMS = 0
    assert drills._pick() is None


@pytest.mark.soak
def test_no_tenant_with_content_is_noted_as_a_drill_of_nothing(database: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drills, "_pick", lambda: None)
    started = timezone.now()

    outcome = drills.run_drill(now=timezone.now)

    assert outcome is not None
    assert (outcome["ok"], outcome["items"], outcome["rto_seconds"]) == (True, 0, None)
    with system_scope("a test looks"):
        assert Drill.objects.filter(started_at__gte=started, scheduled=True, tenant_id=None, items=0).exists()


def test_without_a_backup_there_is_nothing_to_prove(database: None, settings: Any) -> None:
    settings.BIGQUERY_SYNC_ENABLED = False

    assert drills.run_drill(now=timezone.now) is None


def test_a_server_without_room_is_a_failed_drill_with_a_reason(
    alice: Person, backed_up: list[str], settings: Any
) -> None:
    settings.DR_DRILL_DATABASE_URL = "postgres://engarde@127.0.0.1:9/engarde"

    outcome = drills.run_drill(now=timezone.now)

    assert outcome is not None
    assert not outcome["ok"]
    assert "does not answer" in outcome["error"]
    assert "does not answer" in last_drill(alice).report["error"]


@pytest.mark.soak
def test_the_archive_that_a_drill_reads_takes_no_change(alice: Person, backed_up: list[str]) -> None:
    archive = BigQueryArchive(**{**django_settings.DR_ARCHIVE_OPTIONS, "read_only": True})

    for change in (
        lambda: archive.append([], []),
        archive.set_up,
        lambda: archive.erase(tenant_id=alice.tenant_id),
        lambda: archive.remove_purged(before=timezone.now()),
    ):
        with pytest.raises(ArchiveRefused):
            change()
