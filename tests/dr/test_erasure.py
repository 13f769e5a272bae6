"""Erasure: nothing of a tenant, or of an item, is left in any tier; nothing of anybody else is missing; the certificate says so."""

import json
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.core.management import CommandError
from django.db import connection
from django.utils import timezone

from content import erasure as content_erasure
from content import spool, uploader
from content.models import Change, ContentItem, SpooledRecord
from content.stores.base import COLLECTIONS
from dr import archives, erasure
from dr.models import Drill
from engarde.accounts.models import Mail, Session, Tenant, User
from engarde.common import erasing
from engarde.common.constraints import RowSecurity
from engarde.common.scopes import system_scope, tenant_scope
from generation import erasure as generation_erasure
from generation.models import Job, JobItem
from quotas import reconciliation
from quotas.models import QuotaUsage
from tests import crash, people, tiers
from tests.content import media_files
from tests.dr import erasure_world as world
from tests.dr.erasure_world import Filled
from tests.people import Person

PLATFORM = UUID(int=0)
Carrier = Callable[[], int]


@pytest.fixture(autouse=True)
def second(settings: Any, tmp_path: Path) -> Path:
    """The second storage: a folder of the test's own."""
    folder = tmp_path / "second"
    storage = {"BACKEND": "content.media.storages.FileStorage", "OPTIONS": {"location": str(folder)}}
    settings.STORAGES = {**settings.STORAGES, "media_backup": storage}
    return folder


@pytest.fixture
def filled(alice: Person, upload: Carrier, back_up: Carrier) -> Filled:
    """Alice's tenant, with something in all tiers."""
    filled = world.fill(alice)
    carry(upload, back_up)
    world.copy_media(alice)
    alice.writes(body="nobody has carried it yet")
    return filled


def carry(upload: Carrier, back_up: Carrier) -> None:
    """Bring all tiers up to date."""
    from content import documents, records

    upload()
    store = documents.document_store()
    assert store is not None
    while not (done := records.run_pass(store=store, now=timezone.now)).is_idle and not done.failed:
        pass
    back_up()


def erase(person: Person, **options: Any) -> dict[str, Any]:
    return erasure.erase_tenant(tenant_id=person.tenant_id, now=timezone.now, **options)


def erase_item(person: Person, content_id: str, **options: Any) -> dict[str, Any]:
    return erasure.erase_content(tenant_id=person.tenant_id, content_id=UUID(content_id), now=timezone.now, **options)


NOTHING = {"rows": {"dr_erasures": 1}, "zerodb": dict.fromkeys(COLLECTIONS, 0), "bigquery": 0, "files": 0}


# A whole tenant


def test_nothing_of_an_erased_tenant_is_left_in_any_tier_and_all_of_another_is(
    alice: Person, charlie: Person, filled: Filled, upload: Carrier, back_up: Carrier
) -> None:
    world.fill(charlie)
    carry(upload, back_up)
    before, theirs = world.everything(alice), world.everything(charlie)
    assert all([*before["zerodb"].values(), before["bigquery"], before["files"]]), before

    erase(alice)

    assert world.everything(alice) == NOTHING
    assert world.files_of(alice, "media_backup") == 0
    assert world.archived(PLATFORM, alice.user_id) == 0
    assert world.everything(charlie) == theirs
    assert world.archived(PLATFORM, charlie.user_id) > 0
    assert charlie.api.get("/api/content").status_code == 200


@pytest.mark.soak
def test_the_tenant_that_is_erased_had_a_row_in_every_table_of_tenants(alice: Person, filled: Filled) -> None:
    emptied = {"content_quota_usage_by_type", "dr_erasures"}
    have = set(world.rows_of(alice))

    assert set(erasing.tenant_tables()) - have <= emptied


def test_every_model_with_a_tenant_is_among_the_tables_that_are_looked_at() -> None:
    from django.apps import apps

    owned = {
        model._meta.db_table
        for model in apps.get_models()
        if any(field.attname == "tenant_id" for field in model._meta.local_fields)
        or any(isinstance(constraint, RowSecurity) for constraint in model._meta.constraints)
    }

    assert set(erasing.tenant_tables()) == owned
    assert {"content_search", "content_changes", "content_record_spool", "idempotency_keys", "dr_media_copies"} <= owned


@pytest.mark.soak
def test_people_who_are_nobody_elses_go_with_the_tenant_and_the_others_stay(
    alice: Person, bob: Person, charlie: Person, back_up: Carrier
) -> None:
    staff = people.new_colleague(alice, name="staff")
    invited = people.new_colleague(alice, name="invited")
    User.objects.filter(id=staff.user_id).update(is_staff=True)
    world.join(bob, charlie.tenant_id)
    world.owe_mail(alice, "whoever")
    world.owe_mail(bob, world.name_of(alice))
    world.owe_mail(bob, world.name_of(charlie))
    back_up()

    erase(alice)

    assert not User.objects.filter(id__in=[alice.user_id, invited.user_id]).exists()
    assert not Session.objects.filter(user_id__in=[alice.user_id, invited.user_id]).exists()
    assert User.objects.filter(id__in=[bob.user_id, staff.user_id]).count() == 2
    assert Session.objects.filter(user_id=bob.user_id).exists()
    assert list(Mail.objects.filter(user_id=bob.user_id).values_list("tenant_name", flat=True)) == [
        world.name_of(charlie)
    ]
    assert world.archived(PLATFORM, alice.user_id, invited.user_id) == 0
    assert world.archived(PLATFORM, bob.user_id) > 0
    assert bob.api.get("/api/content").status_code == 200


@pytest.mark.soak
def test_the_admins_log_keeps_who_did_what_but_no_names(alice: Person) -> None:
    of_tenant = world.note_by_staff(Tenant, alice.tenant_id, world.name_of(alice))
    of_person = world.note_by_staff(User, alice.user_id, alice.email)

    erase(alice)

    for entry in (of_tenant, of_person):
        entry.refresh_from_db()
        assert entry.object_repr == erasing.ERASED


@pytest.mark.soak
def test_a_drill_stays_in_the_history_without_the_tenant(alice: Person) -> None:
    world.fill_reports(alice)
    with system_scope("a test looks"):
        drill_id = Drill.objects.get(tenant_id=alice.tenant_id).id

    erase(alice)

    with system_scope("a test looks"):
        assert Drill.objects.get(id=drill_id).tenant_id is None


@pytest.mark.soak
def test_copies_of_documents_in_redis_go(alice: Person, upload: Carrier, back_up: Carrier) -> None:
    item = alice.writes()["id"]
    carry(upload, back_up)
    world.read_from_store(alice, item)
    assert world.cached(item) == 1

    certificate = erase(alice)

    assert world.cached(item) == 0
    assert certificate["removed"]["redis"] == {"cached_documents": 1}


@pytest.mark.soak
def test_nobody_of_the_tenant_gets_in_while_it_is_erased(
    alice: Person, bob: Person, charlie: Person, monkeypatch: Any
) -> None:
    world.join(bob, charlie.tenant_id)
    statuses: list[int] = []
    first, alice_in_person = generation_erasure.erase_tenant, people.logged_in(alice)

    def look(**options: Any) -> dict[str, int]:
        headers: dict[str, Any] = {"HTTP_X_TENANT_ID": str(alice.tenant_id)}
        callers = (alice.api, alice_in_person.api, bob.api)
        statuses.extend(one.get("/api/content", **headers).status_code for one in callers)
        return first(**options)

    monkeypatch.setattr(generation_erasure, "erase_tenant", look)

    erase(alice)

    assert statuses[:3] == [401, 401, 403]


@pytest.mark.soak
def test_nothing_is_written_for_the_tenant_while_it_is_erased(alice: Person, monkeypatch: Any) -> None:
    alice.writes()
    refused = []
    first = generation_erasure.erase_tenant

    def write(**options: Any) -> dict[str, int]:
        try:
            with tenant_scope(alice.tenant_id):
                ContentItem.objects.create(
                    tenant_id=alice.tenant_id,
                    brand_id=alice.brand_id,
                    title="late",
                    content_type="post",
                    status="draft",
                    version=1,
                    size_bytes=0,
                    sha256=b"",
                    created_at=timezone.now(),
                    updated_at=timezone.now(),
                )
        except Exception as error:  # noqa: BLE001 -- whatever PostgreSQL's refusal is called
            refused.append(str(error))
        return first(**options)

    monkeypatch.setattr(generation_erasure, "erase_tenant", write)

    erase(alice)

    assert len(refused) == 1
    assert "restore is running" in refused[0]


@pytest.mark.soak
def test_it_is_refused_while_a_restore_runs_and_others_are_served(
    alice: Person, charlie: Person, monkeypatch: Any
) -> None:
    monkeypatch.setattr(erasure, "DOOR_WITHIN_SECONDS", 0.0)
    session = connection.copy()
    try:
        with session.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [f"engarde restore {alice.tenant_id}"])
        with pytest.raises(erasure.ErasureRefused, match="restore"):
            erase(alice)
        erase(charlie)
    finally:
        session.close()

    assert alice.api.get("/api/content").status_code == 200
    assert erasure.last_of(tenant_id=alice.tenant_id) is None


@pytest.mark.soak
def test_a_document_on_its_way_to_zerodb_does_not_come_back(alice: Person, monkeypatch: Any) -> None:
    item = alice.writes(body="on its way")["id"]
    from content import documents

    store = documents.document_store()
    assert store is not None
    monkeypatch.setattr(spool, "LEASE", timedelta(seconds=4))
    claimed = [one for one in uploader._claim(timezone.now()) if str(one.key.content_id) == item]
    lease_end = claimed[0].lease_end
    sent: list[Any] = []
    settle = content_erasure.settle_removals

    def put_late(**options: Any) -> datetime | None:
        if not sent:  # the first look at ZeroDB is over
            sent.append(uploader._send(store, claimed[0], {}, float("inf")))
        return settle(**options)

    monkeypatch.setattr(content_erasure, "settle_removals", put_late)

    certificate = erase(alice)

    assert sent
    assert timezone.now() >= lease_end
    assert tiers.zerodb_rows(item) == []
    assert certificate["removed"]["zerodb"] == {"content_items": 1}
    assert world.everything(alice) == NOTHING


@pytest.mark.soak
def test_changes_that_the_backup_has_not_taken_are_never_told(alice: Person) -> None:
    alice.writes()

    certificate = erase(alice)

    assert world.archived(alice.tenant_id) == 0
    assert certificate["removed"]["bigquery"] == {"rows": 0}
    assert certificate["removed"]["postgres"]["content_changes"] > 0


@pytest.mark.soak
def test_a_sealed_batch_on_its_way_to_the_backup_is_waited_for_and_taken_out(
    alice: Person, back_up: Carrier, monkeypatch: Any
) -> None:
    from dr import sync

    back_up()
    item = alice.writes()["id"]
    sync._seal_all()
    with tenant_scope(alice.tenant_id):
        assert not Change.objects.filter(entity_id=UUID(item), batch_id=None).exists()

    certificate = erase(alice)

    assert world.archived(alice.tenant_id) == 0
    first, last = certificate["bigquery"]["passes"]
    assert first["rows"] > 0
    assert last["rows"] > 0, "what was sealed came after the first removal"
    assert world.rows_of(alice) == NOTHING["rows"]


@pytest.mark.soak
def test_an_erased_tenant_does_not_come_back_by_the_carriers(
    alice: Person, filled: Filled, upload: Carrier, back_up: Carrier
) -> None:
    erase(alice)

    carry(upload, back_up)

    assert world.everything(alice) == NOTHING


@pytest.mark.soak
def test_batches_in_the_backup_still_say_what_they_hold(alice: Person, charlie: Person, back_up: Carrier) -> None:
    charlie.writes()
    alice.writes()
    since = timezone.now() - timedelta(seconds=1)
    back_up()
    archive = archives.current()
    assert archive is not None

    erase(alice)

    sums = list(archive.batch_sums(since=since))
    assert sums
    assert [one for one in sums if (one.rows, one.lanes) != (one.manifest_rows, one.manifest_lanes)] == []


@pytest.mark.soak
def test_rows_in_zerodb_that_nobody_knows_of_go_too_and_those_of_others_stay(alice: Person, charlie: Person) -> None:
    key = f"{uuid4()}:1"
    theirs = {"key": key, "tenant_id": str(charlie.tenant_id)}
    for row in [theirs, {"tenant_id": str(alice.tenant_id)}, *[{**theirs, "tenant_id": str(alice.tenant_id)}] * 105]:
        tiers.zerodb("POST", "/rows", collection="content_versions", row_data=row)

    certificate = erase(alice)

    assert world.documents_of(alice)["content_versions"] == 0
    assert world.documents_of(charlie)["content_versions"] == 1
    assert certificate["removed"]["zerodb"]["content_versions"] >= 100


# Killed, or without a tier


SCRIPT = """
from uuid import UUID
from django.conf import settings
from django.utils import timezone
settings.STORAGES = dict(settings.STORAGES, media_backup={storage!r})
from dr import erasure
erasure.{call}
"""
PLACES = [
    ("content.erasure._forget_copies", "before"),
    ("content.media.storages.delete", "after"),
    ("engarde.accounts.erasure._erase_itself", "after"),
    pytest.param("content.stores.zerodb.ZeroDBStore.delete_tenant", "after", marks=pytest.mark.soak),
    ("dr.archives.bigquery.BigQueryArchive.erase", "after"),
    pytest.param("dr.erasure._certificate", "after", marks=pytest.mark.soak),
    pytest.param("engarde.accounts.erasure.close_door", "after", marks=pytest.mark.soak),
    pytest.param("dr.media_copies.erase_tenant", "before", marks=pytest.mark.soak),
    pytest.param("dr.archives.bigquery.BigQueryArchive.erase", "before", marks=pytest.mark.soak),
    pytest.param("dr.erasure._erase_reports", "before", marks=pytest.mark.soak),
]


@pytest.mark.soak
@pytest.mark.parametrize(("place", "moment"), PLACES)
def test_killed_anywhere_it_goes_on_when_it_is_run_again(
    alice: Person, filled: Filled, second: Path, settings: Any, place: str, moment: str
) -> None:
    call = f"erase_tenant(tenant_id=UUID({str(alice.tenant_id)!r}), now=timezone.now)"
    crash.kill_at(place, moment, SCRIPT.format(storage=settings.STORAGES["media_backup"], call=call))
    unfinished = erasure.last_of(tenant_id=alice.tenant_id)
    assert unfinished is not None
    assert unfinished.finished_at is None

    certificate = erase(alice)

    assert certificate["erasure_id"] == str(unfinished.id)
    assert certificate["found"]["rows"]["content_storage_metadata"] >= 3, "what was there when it began"
    assert world.everything(alice) == NOTHING
    assert world.files_of(alice, "media_backup") == 0
    assert world.archived(PLATFORM, alice.user_id) == 0


def test_while_the_backup_is_away_the_rest_goes_and_the_next_run_finishes(
    alice: Person, filled: Filled, monkeypatch: Any
) -> None:
    name = world.name_of(alice)
    with tiers.bigquery_away(monkeypatch), pytest.raises(CommandError, match=r"bigquery.*run it again"):
        world.run("erase_tenant", "--tenant", alice.tenant_id, "--confirm", name)
    assert world.documents_of(alice) == dict.fromkeys(COLLECTIONS, 0)
    assert set(world.rows_of(alice)) <= {"dr_erasures", "content_changes"}
    assert world.archived(alice.tenant_id) > 0

    certificate = json.loads(world.run("erase_tenant", "--tenant", alice.tenant_id, "--confirm", name))

    assert certificate["removed"]["bigquery"]["rows"] > 0
    assert world.everything(alice) == NOTHING


@pytest.mark.soak
def test_while_zerodb_is_away_the_rest_goes_and_the_next_run_finishes(
    alice: Person, filled: Filled, monkeypatch: Any
) -> None:
    with tiers.zerodb_away(monkeypatch), pytest.raises(erasure.ErasureUnfinished, match="zerodb"):
        erase(alice)
    assert world.archived(alice.tenant_id) == 0
    assert world.documents_of(alice)["content_items"] > 0

    erase(alice)

    assert world.everything(alice) == NOTHING


@pytest.mark.soak
def test_rows_that_come_while_it_runs_are_removed_too(alice: Person, monkeypatch: Any) -> None:
    late: list[bool] = []
    real = erasure._erase_reports

    def write_late(run: Any) -> None:
        if not late:
            late.append(True)
            with tenant_scope(alice.tenant_id):
                SpooledRecord.objects.create(
                    tenant_id=alice.tenant_id, collection="content_versions", key=str(uuid4()), record={}
                )
        real(run)

    monkeypatch.setattr(erasure, "_erase_reports", write_late)

    erase(alice)

    assert late
    assert world.rows_of(alice) == NOTHING["rows"]


# The certificate and the command


@pytest.mark.soak
def test_the_certificate_says_what_went_where_and_when_the_last_copy_leaves(alice: Person, filled: Filled) -> None:
    certificate = erase(alice, reason="Article 17")

    removed = certificate["removed"]
    assert removed["postgres"]["content_storage_metadata"] == certificate["found"]["rows"]["content_storage_metadata"]
    assert removed["media"]["files"] >= 2
    assert removed["media_copies"]["files"] >= 1
    assert removed["zerodb"]["content_items"] >= 3
    assert removed["bigquery"]["rows"] >= 10
    assert certificate["left"] == {}
    last = datetime.fromisoformat(certificate["bigquery"]["passes"][-1]["at"])
    assert date.fromisoformat(certificate["bigquery"]["leaves_time_travel_on"]) == (last + timedelta(days=7)).date()
    assert date.fromisoformat(certificate["last_copy_leaves_on"]) == (last + timedelta(days=14)).date()
    assert any("fail-safe" in one["what"] for one in certificate["stays"])
    assert set(certificate["platform"]) == {"engarde", "django", "postgresql"}


@pytest.mark.soak
def test_the_certificate_names_nobody_and_one_changed_word_shows(alice: Person, filled: Filled) -> None:
    name = world.name_of(alice)

    certificate = erase(alice, reason=f"asked by {alice.email}")

    kept = erasure.last_of(tenant_id=alice.tenant_id)
    assert kept is not None
    assert kept.certificate == certificate
    texts = json.dumps([certificate, kept.steps])
    assert not [secret for secret in (name, alice.email, str(alice.user_id)) if secret in texts]
    assert erasure.is_genuine(certificate)
    assert not erasure.is_genuine({**certificate, "tenant_id": str(uuid4())})


def test_without_the_tenants_name_nothing_goes_and_the_counts_are_shown(alice: Person) -> None:
    alice.writes()

    for confirm in ((), ("--confirm", "somebody else")):
        with pytest.raises(CommandError, match=r'"content_storage_metadata": 1.*--confirm'):
            world.run("erase_tenant", "--tenant", alice.tenant_id, *confirm)

    assert alice.api.get("/api/content").json()["pagination"]["total"] == 1
    assert erasure.last_of(tenant_id=alice.tenant_id) is None


@pytest.mark.soak
def test_a_dry_run_says_what_would_go_and_removes_nothing(alice: Person) -> None:
    alice.writes(body="12345")
    before = world.rows_of(alice)

    report = json.loads(world.run("erase_tenant", "--tenant", alice.tenant_id, "--dry-run"))

    assert report["dry_run"] is True
    assert report["would_remove"]["rows"] == before
    assert (report["would_remove"]["people"], report["would_remove"]["body_bytes"]) == (1, 5)
    assert world.rows_of(alice) == before


@pytest.mark.soak
def test_the_command_prints_the_certificate_and_writes_it_to_a_file(alice: Person, tmp_path: Path) -> None:
    report, name = tmp_path / "certificate.json", world.name_of(alice)

    printed = world.run("erase_tenant", "--tenant", alice.tenant_id, "--confirm", name, "--report", report)
    again = world.run("erase_tenant", "--tenant", alice.tenant_id)

    assert json.loads(printed) == json.loads(report.read_text()) == json.loads(again)
    assert erasure.is_genuine(json.loads(printed))


@pytest.mark.soak
def test_a_tenant_that_never_was_is_an_error(database: None) -> None:
    with pytest.raises(CommandError, match="no tenant"):
        world.run("erase_tenant", "--tenant", uuid4(), "--confirm", "x")


# One item


def test_nothing_of_an_erased_item_is_left_in_any_tier_and_all_else_is(
    alice: Person, filled: Filled, back_up: Carrier
) -> None:
    target = filled.updated
    others = {one: (len(tiers.zerodb_rows(one)), world.archived(alice.tenant_id, one)) for one in (filled.item,)}
    assert tiers.zerodb_rows(target)
    assert world.archived(alice.tenant_id, target) == 4

    certificate = erase_item(alice, target)

    assert certificate["removed"]["postgres"]["content_versions"] == 4
    assert content_erasure.count_rows_of(tenant_id=alice.tenant_id, content_id=UUID(target)) == {}
    wanted = {"content_id": target}
    for collection in COLLECTIONS:
        assert tiers.zerodb("POST", "/query", collection=collection, filter=wanted)["data"] == []
    assert tiers.records(target) == []
    assert world.archived(alice.tenant_id, target) == 0
    assert alice.api.get(f"/api/content/{target}").status_code == 404
    assert {one: (len(tiers.zerodb_rows(one)), world.archived(alice.tenant_id, one)) for one in others} == others
    back_up()
    assert world.archived(alice.tenant_id, target) == 0


@pytest.mark.soak
def test_all_tiers_agree_after_an_item_was_erased(alice: Person, upload: Carrier, back_up: Carrier) -> None:
    kept, gone = (alice.writes()["id"] for _ in range(2))
    carry(upload, back_up)

    erase_item(alice, gone)

    report = json.loads(world.run("verify_backup_integrity", "--tenant", alice.tenant_id))
    assert (report["mismatched"], report["missing"], report["extra"]) == (0, 0, 0)
    assert alice.api.get(f"/api/content/{kept}").status_code == 200


@pytest.mark.soak
def test_an_erased_item_no_longer_counts(alice: Person) -> None:
    kept, gone = alice.writes(body="1234567")["id"], alice.writes(body="123", type="story")["id"]
    media_files.uploaded(alice, b"some bytes", content_id=gone)

    erase_item(alice, gone)

    with tenant_scope(alice.tenant_id):
        usage = QuotaUsage.objects.get(tenant_id=alice.tenant_id)
        drift = reconciliation.recount(tenant_id=alice.tenant_id, now=timezone.now())
    assert (usage.content_items, usage.used_bytes, usage.media_files) == (1, 7, 0)
    assert drift.differences == {}
    assert alice.api.get(f"/api/content/{kept}").status_code == 200


@pytest.mark.soak
def test_an_item_in_the_trash_is_erased_without_being_counted_twice(alice: Person) -> None:
    gone = alice.writes(body="123")["id"]
    alice.api.delete(f"/api/content/{gone}")

    erase_item(alice, gone)

    with tenant_scope(alice.tenant_id):
        usage = QuotaUsage.objects.get(tenant_id=alice.tenant_id)
    assert (usage.content_items, usage.used_bytes) == (0, 0)


@pytest.mark.soak
def test_media_files_of_the_item_alone_go_with_it(alice: Person, upload: Carrier, back_up: Carrier) -> None:
    gone, other = alice.writes()["id"], alice.writes()["id"]
    own = media_files.uploaded(alice, media_files.picture() + uuid4().bytes, content_id=gone)["id"]
    shared = media_files.uploaded(alice, uuid4().bytes, content_id=gone)["id"]
    assert alice.api.patch(f"/api/content/{other}", {"media": [shared]}).status_code == 200
    carry(upload, back_up)
    world.copy_media(alice)
    assert (world.files_of(alice), world.files_of(alice, "media_backup")) == (3, 2)

    certificate = erase_item(alice, gone)

    assert certificate["removed"]["media"] == {"files": 2}  # with its thumbnail
    assert certificate["removed"]["media_copies"] == {"files": 1}
    assert (world.files_of(alice), world.files_of(alice, "media_backup")) == (1, 1)
    assert alice.api.get(f"/api/content/media/{own}").status_code == 404
    assert alice.api.get(f"/api/content/media/{shared}").status_code == 200
    assert world.archived(alice.tenant_id, own) == 0
    assert world.archived(alice.tenant_id, shared) > 0
    assert world.documents_of(alice)["content_media_files"] == 1


@pytest.mark.soak
def test_the_job_that_made_an_item_keeps_its_id_only(alice: Person, filled: Filled) -> None:
    with tenant_scope(alice.tenant_id):
        job = Job.objects.get()
        JobItem.objects.create(
            tenant_id=alice.tenant_id, job=job, index=1, status="completed", content_id=UUID(filled.item)
        )

    certificate = erase_item(alice, filled.item)

    with tenant_scope(alice.tenant_id):
        assert JobItem.objects.filter(content_id=UUID(filled.item)).count() == 1
    assert any("job" in one["what"] for one in certificate["stays"])


@pytest.mark.soak
def test_answers_that_are_kept_for_repeats_do_not_hold_the_item(alice: Person) -> None:
    fields = {"title": "A title", "type": "post", "body": "A body"}
    key: dict[str, Any] = {"HTTP_IDEMPOTENCY_KEY": uuid4().hex}
    gone = alice.api.post("/api/content", fields, **key).json()["id"]

    erase_item(alice, gone)

    answer = alice.api.post("/api/content", fields, **key)
    assert "Idempotency-Replayed" not in answer.headers
    assert answer.json()["id"] != gone


ITEM_PLACES = [
    ("content.erasure.erase_files", "before"),
    ("content.stores.zerodb.ZeroDBStore.delete_rows", "before"),
    ("dr.archives.bigquery.BigQueryArchive.erase", "after"),
    pytest.param("content.erasure._forget_copies", "before", marks=pytest.mark.soak),
    pytest.param("dr.erasure._certificate", "before", marks=pytest.mark.soak),
]


@pytest.mark.soak
@pytest.mark.parametrize(("place", "moment"), ITEM_PLACES)
def test_killed_anywhere_the_erasure_of_an_item_goes_on(
    alice: Person, filled: Filled, settings: Any, place: str, moment: str
) -> None:
    call = (
        f"erase_content(tenant_id=UUID({str(alice.tenant_id)!r}), content_id=UUID({filled.item!r}), now=timezone.now)"
    )
    crash.kill_at(place, moment, SCRIPT.format(storage=settings.STORAGES["media_backup"], call=call))

    certificate = erase_item(alice, filled.item)

    assert certificate["found"]["rows"]["content_versions"] == 2  # made, then its media changed
    assert tiers.zerodb_rows(filled.item) == []
    assert world.archived(alice.tenant_id, filled.item, filled.media) == 0
    assert world.files_of(alice) == world.files_of(alice, "media_backup") == 0
    assert content_erasure.count_rows_of(tenant_id=alice.tenant_id, content_id=UUID(filled.item)) == {}


@pytest.mark.soak
def test_the_items_command_prints_a_certificate_and_an_item_that_never_was_is_an_error(alice: Person) -> None:
    item = alice.writes()["id"]
    which = ("--tenant", alice.tenant_id, "--content")

    dry = json.loads(world.run("erase_content", *which, item, "--dry-run"))
    printed = json.loads(world.run("erase_content", *which, item))
    again = json.loads(world.run("erase_content", *which, item))

    assert dry["would_remove"]["rows"]["content_versions"] == 1
    assert (printed["subject"], printed["content_id"]) == ("content", item)
    assert printed == again
    with pytest.raises(CommandError, match="no item"):
        world.run("erase_content", *which, uuid4())


def test_another_tenants_item_is_not_erased(alice: Person, charlie: Person) -> None:
    item = charlie.writes()["id"]

    with pytest.raises(erasure.UnknownSubject):
        erase_item(alice, item)

    assert charlie.api.get(f"/api/content/{item}").status_code == 200
    assert len(charlie.api.get("/api/content?search=title").json()["data"]) == 1
