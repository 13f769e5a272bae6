"""Verification: over equal data it passes; one wrong byte, one missing row, one extra row, and it does not."""

import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from content import documents
from content.models import ContentItem, SpooledDocument
from dr import archives, verify
from dr.models import Finding, Verification
from dr.records import hash_of
from dr.verification.archived import differing_facts
from dr.verification.faults import PLATFORM
from engarde.common.scopes import system_scope
from tests import people, tiers
from tests.content import media_files
from tests.generation import house
from tests.people import Person
from tests.providers import Provider


@pytest.fixture
def item_id(alice: Person, upload: Callable[[], int], back_up: Callable[[], int]) -> str:
    """One of three items of alice's that all tiers have."""
    item_id, *_ = [alice.writes(body=f"body {number}")["id"] for number in range(3)]
    upload()
    back_up()
    return str(item_id)


def run(person: Person, *options: str) -> tuple[bool, dict[str, Any]]:
    """Return whether the command succeeded, and its report."""
    out = StringIO()
    try:
        call_command("verify_backup_integrity", "--tenant", str(person.tenant_id), "--json", *options, stdout=out)
        passed = True
    except SystemExit as stop:
        passed = stop.code == 0
    return passed, json.loads(out.getvalue())


def named(report: dict[str, Any]) -> set[tuple[str, str, str]]:
    """Return what a report names: the kind of each fault, where, and of what."""
    return {(found["kind"], found["tier"], found["id"]) for found in report["findings"]}


def counts(report: dict[str, Any]) -> dict[str, int]:
    return {name: report[name] for name in ("checked", "mismatched", "missing", "extra")}


def test_it_passes_when_all_tiers_agree(alice: Person, item_id: str) -> None:
    passed, report = run(alice)

    assert passed
    assert counts(report) == {"checked": 3, "mismatched": 0, "missing": 0, "extra": 0}


@pytest.mark.soak
def test_a_document_that_is_still_in_the_spool_matches(alice: Person, back_up: Callable[[], int]) -> None:
    alice.writes()
    back_up()

    assert run(alice)[0]


def test_it_finds_a_document_that_zerodb_lost(alice: Person, item_id: str) -> None:
    [row] = tiers.zerodb_rows(item_id)
    tiers.zerodb("DELETE", f"/rows/{row['row_id']}")

    passed, report = run(alice)

    assert not passed
    assert counts(report) == {"checked": 3, "mismatched": 0, "missing": 1, "extra": 0}
    assert [(found["id"], found["tier"]) for found in report["findings"]] == [(item_id, "zerodb")]


@pytest.mark.parametrize(
    "damage",
    [
        "document = REPLACE(document, 'body 0', 'body O')",
        "facts = REPLACE(facts, 'create', 'update')",
        "row_hash = REVERSE(row_hash)",
    ],
)
def test_it_finds_one_wrong_byte_in_the_backup(alice: Person, item_id: str, damage: str) -> None:
    tiers.bigquery(f"UPDATE {{table}} SET {damage} WHERE entity_id = '{item_id}'")

    passed, report = run(alice)

    assert not passed
    assert counts(report) == {"checked": 3, "mismatched": 1, "missing": 0, "extra": 0}
    assert [(found["id"], found["tier"]) for found in report["findings"]] == [(item_id, "bigquery")]


@pytest.mark.soak
@pytest.mark.parametrize(
    "damage",
    [
        "row_hash = 'x'",
        "entity_id = REPLACE(entity_id, '-', '+')",
    ],
)
def test_a_byte_that_makes_a_hash_or_an_id_unreadable_stops_nothing(alice: Person, item_id: str, damage: str) -> None:
    tiers.bigquery(f"UPDATE {{table}} SET {damage} WHERE entity_id = '{item_id}'")
    tiers.lose_postgres_rows(item_id)
    try:
        passed, report = run(alice, "--repair")
        assert not passed
        assert ("extra", "bigquery") in {(found["kind"], found["tier"]) for found in report["findings"]}
    finally:
        tiers.bigquery(f"DELETE FROM {{table}} WHERE entity_id IN ('{item_id}', '{item_id.replace('-', '+')}')")


def test_it_finds_a_row_that_the_backup_lost(alice: Person, item_id: str) -> None:
    tiers.bigquery(f"DELETE FROM {{table}} WHERE entity_id = '{item_id}'")

    assert counts(run(alice)[1]) == {"checked": 3, "mismatched": 0, "missing": 1, "extra": 0}


@pytest.mark.soak
def test_it_finds_an_item_that_only_the_backup_has(alice: Person, item_id: str) -> None:
    tiers.lose_postgres_rows(item_id)

    assert counts(run(alice)[1]) == {"checked": 2, "mismatched": 0, "missing": 0, "extra": 1}


def test_an_unknown_tenant_is_an_error(database: None) -> None:
    with pytest.raises(CommandError, match="no tenant"):
        call_command("verify_backup_integrity", "--tenant", str(uuid4()))


@pytest.mark.soak
def test_over_all_that_a_tenant_can_have_it_finds_nothing(
    database: None, upload: Callable[[], int], back_up: Callable[[], int]
) -> None:
    with Provider() as provider, house.reaching(provider):
        studio = house.new_studio()
        people.new_colleague(studio)
        live_in(studio)
        job_id = house.start(studio, 3)
        house.work(studio, job_id)
    upload()
    back_up()

    passed, report = run(studio, "--deep")

    assert (passed, report["findings"], report["waiting"]) == (True, [], 0)
    assert report["checked"] > 3
    assert report["rows"] > 8


def live_in(person: Person) -> None:
    """Make and change something of every kind."""
    brand = person.api.post("/api/brands", {"name": "Second", "voice": "loud", "language": "de"}).json()
    person.api.patch(f"/api/brands/{brand['id']}", {"name": "Other"})
    key = person.api.post("/api/api-keys", {"name": "ours", "scopes": ["content:read"]}).json()
    person.api.post(f"/api/api-keys/{key['id']}/rotate", {"overlap_hours": 1})
    media = media_files.uploaded(person, media_files.picture(), "picture.png")
    item = person.writes(media=[media["id"]], brand_id=brand["id"], tags=["one"], metadata={"deep": {"er": [1, 2.5]}})
    person.api.patch(f"/api/content/{item['id']}", {"body": "second"})
    person.api.delete(f"/api/content/{item['id']}")
    person.api.post(f"/api/content/{item['id']}/restore")
    trashed = person.writes(title="trashed")
    person.api.delete(f"/api/content/{trashed['id']}")
    purged = person.writes(title="purged")
    with system_scope("a test purges"):
        ContentItem.objects.filter(id=purged["id"]).delete()


def flip_in_zerodb(item_id: str) -> None:
    [row] = tiers.zerodb_rows(item_id)
    row_data = {**row["row_data"], "document": row["row_data"]["document"].replace("body", "bodv")}
    tiers.zerodb("PUT", f"/rows/{row['row_id']}", row_data=row_data)


def lose_in_zerodb(item_id: str) -> None:
    [row] = tiers.zerodb_rows(item_id)
    tiers.zerodb("DELETE", f"/rows/{row['row_id']}")


def add_to_zerodb(item_id: str) -> str:
    """Put a whole document there that PostgreSQL knows nothing of, and return its item's id."""
    [row] = tiers.zerodb_rows(item_id)
    stranger = str(uuid4())
    row_data = {**row["row_data"], "key": f"{stranger}:{row['row_data']['sha256']}", "content_id": stranger}
    tiers.zerodb("POST", "/rows", row_data=row_data)
    return stranger


def flip_in_bigquery(item_id: str) -> None:
    tiers.bigquery(f"UPDATE {{table}} SET document = REPLACE(document, 'body', 'bodv') WHERE entity_id = '{item_id}'")


def lose_in_bigquery(item_id: str) -> None:
    tiers.bigquery(f"DELETE FROM {{table}} WHERE entity_id = '{item_id}'")


def add_to_bigquery(item_id: str, **other: str) -> str:
    """Copy an item's record under another id, which is returned."""
    stranger = str(uuid4())
    changed = ", ".join(f"{value} AS {name}" for name, value in {"entity_id": f"'{stranger}'", **other}.items())
    tiers.bigquery(f"INSERT INTO {{table}} SELECT * REPLACE ({changed}) FROM {{table}} WHERE entity_id = '{item_id}'")
    return stranger


@pytest.fixture
def seven(alice: Person, upload: Callable[[], int], back_up: Callable[[], int]) -> list[str]:
    """Seven items of alice's that all tiers have."""
    ids = [str(alice.writes(body=f"body {number}")["id"]) for number in range(7)]
    upload()
    back_up()
    return ids


def test_it_names_exactly_what_is_wrong_in_every_tier_and_a_repair_mends_it(alice: Person, seven: list[str]) -> None:
    flipped_there, lost_there, flipped_here, lost_here, gone, _, whole = seven
    flip_in_bigquery(flipped_there)
    lose_in_bigquery(lost_there)
    flip_in_zerodb(flipped_here)
    lose_in_zerodb(lost_here)
    extra_here, extra_there = add_to_zerodb(whole), add_to_bigquery(whole)
    before = alice.api.get(f"/api/content/{gone}").json()["body"]
    tiers.lose_postgres_rows(gone)
    tiers.forget_copies()

    passed, report = run(alice)

    assert not passed
    assert named(report) == {
        ("mismatched", "bigquery", flipped_there),
        ("missing", "bigquery", lost_there),
        ("mismatched", "zerodb", flipped_here),
        ("missing", "zerodb", lost_here),
        ("extra", "zerodb", extra_here),
        ("extra", "bigquery", extra_there),
        ("extra", "postgres", gone),
        ("extra", "zerodb", gone),
    }
    assert counts(report) == {"checked": 6, "mismatched": 2, "missing": 2, "extra": 3}

    passed, report = run(alice, "--repair", "--deep")
    assert (passed, report["findings"], report["repaired"]) == (True, [], 8)

    passed, report = run(alice, "--deep")
    assert (passed, counts(report)) == (True, {"checked": 7, "mismatched": 0, "missing": 0, "extra": 0})
    assert alice.api.get(f"/api/content/{gone}").json()["body"] == before
    assert [len(tiers.zerodb_rows(item_id)) for item_id in (flipped_here, lost_here, extra_here, gone)] == [1, 1, 0, 1]


@pytest.mark.soak
def test_a_record_that_is_whole_but_that_nothing_vouches_for_is_removed(alice: Person, seven: list[str]) -> None:
    stranger = add_to_bigquery(seven[0], batch_id=f"'{uuid4()}'", epoch="0")
    [row] = tiers.bigquery(f"SELECT sha256, facts FROM {{table}} WHERE entity_id = '{stranger}'")
    whole = hash_of(alice.tenant_id, "content", UUID(stranger), 1, "I", row["sha256"], row["facts"])
    tiers.bigquery(f"UPDATE {{table}} SET row_hash = '{whole}' WHERE entity_id = '{stranger}'")
    assert named(run(alice)[1]) == {("extra", "postgres", stranger)}

    assert run(alice, "--repair")[0]

    assert run(alice)[0]
    assert tiers.versions(stranger) == []


@pytest.mark.soak
def test_the_damaged_last_copy_of_an_item_is_reported_and_kept(alice: Person, seven: list[str]) -> None:
    tiers.lose_postgres_rows(seven[0])
    flip_in_bigquery(seven[0])

    passed, report = run(alice, "--repair")

    assert not passed
    assert named(report) == {("extra", "bigquery", seven[0]), ("extra", "zerodb", seven[0])}
    assert len(tiers.zerodb_rows(seven[0])) == 1


def test_what_is_on_its_way_to_the_backup_is_no_fault(alice: Person, item_id: str) -> None:
    alice.api.patch(f"/api/content/{item_id}", {"body": "newer"})
    alice.writes()

    passed, report = run(alice)

    assert passed
    assert report["waiting"] == 2


@pytest.mark.soak
def test_it_finds_a_version_that_postgresql_lost(
    alice: Person, item_id: str, upload: Callable[[], int], back_up: Callable[[], int]
) -> None:
    for body in ("second", "third"):
        alice.api.patch(f"/api/content/{item_id}", {"body": body})
    upload()
    back_up()
    tiers.lose_postgres_version(item_id, 2)

    report = run(alice)[1]

    found = [(one["kind"], one["tier"], one["version"]) for one in report["findings"] if one["tier"] != "zerodb"]
    assert found == [("missing", "postgres", 2)]

    assert run(alice, "--repair")[0]
    assert [version.version for version in tiers.versions(item_id)] == [1, 2, 3]


@pytest.mark.soak
def test_a_wrong_day_in_a_record_is_one_fault(alice: Person, item_id: str) -> None:
    [row] = tiers.bigquery(f"SELECT facts FROM {{table}} WHERE entity_id = '{item_id}'")
    day = json.loads(row["facts"])["version_created_at"][:10]
    tiers.bigquery(f"UPDATE {{table}} SET facts = REPLACE(facts, '{day}', '2019-02-03') WHERE entity_id = '{item_id}'")

    assert named(run(alice)[1]) == {("mismatched", "bigquery", item_id)}


@pytest.mark.soak
def test_rows_of_other_types_are_compared_and_mended(alice: Person, item_id: str) -> None:
    brand_id, tenant_id = str(alice.brand_id), str(alice.tenant_id)
    lose_in_bigquery(brand_id)
    tiers.bigquery(f"UPDATE {{table}} SET facts = REPLACE(facts, 'free', 'freg') WHERE entity_id = '{tenant_id}'")

    report = run(alice)[1]
    assert {(one["entity_type"], one["kind"], one["id"]) for one in report["findings"]} >= {
        ("brand", "missing", brand_id)
    }
    assert all(one["tier"] == "bigquery" for one in report["findings"])

    assert run(alice, "--repair")[0]
    assert run(alice)[0]


@pytest.mark.soak
def test_what_postgresql_and_a_whole_record_tell_differently_is_left_for_a_person(alice: Person, item_id: str) -> None:
    with system_scope("a test damages a fact"), connection.cursor() as cursor:
        cursor.execute("UPDATE content_versions SET size_bytes = size_bytes + 1 WHERE content_id = %s", [item_id])

    for options in ([], ["--repair"]):
        passed, report = run(alice, *options)
        assert not passed
        assert named(report) == {("mismatched", "postgres", item_id)}
        assert "size_bytes" in report["findings"][0]["problem"]


@pytest.mark.soak
def test_a_damaged_document_in_the_spool_is_found_and_mended(
    alice: Person, item_id: str, upload: Callable[[], int], back_up: Callable[[], int]
) -> None:
    waiting = str(alice.writes()["id"])
    back_up()
    with system_scope("a test damages the spool"):
        SpooledDocument.objects.filter(content_id=UUID(waiting)).update(document=documents.compress("{}"))
    tiers.forget_copies()

    assert named(run(alice)[1]) == {("mismatched", "spool", waiting)}

    assert run(alice, "--repair")[0]
    upload()
    assert run(alice)[0]


@pytest.mark.soak
def test_a_second_whole_row_of_a_document_is_no_fault(alice: Person, item_id: str) -> None:
    [row] = tiers.zerodb_rows(item_id)
    tiers.zerodb("POST", "/rows", row_data=row["row_data"])

    assert run(alice)[0]


@pytest.mark.soak
def test_of_many_documents_a_shallow_verification_takes_a_sample_and_a_deep_one_all(
    alice: Person, seven: list[str], settings: Any
) -> None:
    settings.DR_VERIFY_SAMPLE = 3
    for item_id in seven:
        flip_in_zerodb(item_id)
    lose_in_bigquery(seven[0])
    flip_in_bigquery(seven[1])

    shallow, deep = run(alice)[1], run(alice, "--deep")[1]

    sampled = [one for one in shallow["findings"] if one["tier"] == "zerodb"]
    assert len(sampled) == 3
    assert ("missing", "bigquery", seven[0]) in named(shallow)
    assert ("mismatched", "bigquery", seven[1]) in named(deep)
    assert {one["id"] for one in deep["findings"] if one["tier"] == "zerodb"} == set(seven)


@pytest.mark.soak
def test_findings_are_kept_once_and_closed_when_they_are_gone(alice: Person, item_id: str, tmp_path: Path) -> None:
    lose_in_zerodb(item_id)
    run(alice)
    exported = tmp_path / "findings.jsonl"
    report = run(alice, "--findings", str(exported))[1]

    [finding] = findings_of(alice)
    assert (str(finding.entity_id), finding.tier, finding.kind, finding.repaired_at) == (
        item_id,
        "zerodb",
        "missing",
        None,
    )
    assert str(finding.verification_id) == report["verification_id"]
    assert [json.loads(line)["id"] for line in exported.read_text().splitlines()] == [item_id]

    run(alice, "--repair")

    assert [finding.repaired_at is None for finding in findings_of(alice)] == [False]


def findings_of(person: Person) -> list[Finding]:
    with system_scope("a test looks"):
        return list(Finding.objects.filter(tenant_id=person.tenant_id))


def last_verification(person: Person) -> Verification:
    with system_scope("a test looks"):
        return Verification.objects.filter(tenant_id=person.tenant_id).latest("started_at")


def test_without_an_answer_of_a_tier_nothing_is_said_to_match(
    alice: Person, item_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tiers.zerodb_away(monkeypatch), pytest.raises(CommandError, match="Not verified"):
        run(alice)

    assert last_verification(alice).error
    assert not last_verification(alice).is_clean
    run(alice)
    assert last_verification(alice).is_clean


def only(monkeypatch: pytest.MonkeyPatch, *tenant_ids: UUID) -> None:
    """Have verifications of all look at these tenants, as other tests' tenants are full of faults."""
    monkeypatch.setattr(verify, "_everybody", lambda: sorted(tenant_ids))
    monkeypatch.setattr(verify, "_strangers", lambda _archive: iter(()))


@pytest.mark.soak
def test_a_verification_of_all_is_done_in_parts_that_go_on_where_the_last_one_stopped(
    alice: Person, charlie: Person, seven: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, alice.tenant_id, charlie.tenant_id)
    monkeypatch.setattr("dr.verification.stored.EXPECTED_KEYS", 2)
    lose_in_zerodb(seven[5])
    archive = archives.current()
    assert archive is not None
    verification_id, parts = verify.begin(deep=False, now=timezone.now()).verification_id, 0
    place: verify.Place | None = verify.Place(verification_id, alice.tenant_id)

    while place is not None:
        told = verify.Place.of(**place.as_json())
        assert told == place
        place = verify.run_part(archive=archive, place=told, deep=False, now=timezone.now, go_on=lambda: False)
        parts += 1
        assert parts < 20

    with system_scope("a test looks"):
        done = Verification.objects.get(id=verification_id)
    assert parts > 4
    assert (done.checked, done.missing, done.mismatched, done.extra) == (7, 1, 0, 0)
    assert done.finished_at


@pytest.mark.soak
def test_the_platforms_own_rows_are_compared_when_all_is(
    alice: Person, item_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, PLATFORM, alice.tenant_id)
    archive = archives.current()
    assert archive is not None
    user_id = str(alice.user_id)

    assert user_id not in {one["id"] for one in everything(archive)}
    tiers.bigquery(f"UPDATE {{table}} SET facts = REPLACE(facts, 'alice', 'alicf') WHERE entity_id = '{user_id}'")
    assert ("mismatched", "user", user_id) in {
        (one["kind"], one["entity_type"], one["id"]) for one in everything(archive)
    }


def everything(archive: Any, **options: Any) -> list[dict[str, Any]]:
    return verify.run(archive=archive, tenant_id=None, now=timezone.now, **options).findings


@pytest.mark.soak
def test_a_batch_that_lacks_a_record_of_the_past_is_told_of_until_a_repair_accepts_it(
    alice: Person, item_id: str, back_up: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, alice.tenant_id)
    archive = archives.current()
    assert archive is not None
    brand_id = str(alice.brand_id)
    alice.api.patch(f"/api/brands/{brand_id}", {"name": "Other"})
    back_up()
    everything(archive, deep=True)  # what other tests damaged is told of, or explained, here
    oldest = f"entity_id = '{brand_id}' AND op = 'I'"
    [record] = tiers.bigquery(f"SELECT batch_id FROM {{table}} WHERE {oldest}")
    tiers.bigquery(f"DELETE FROM {{table}} WHERE {oldest}")
    told = ("missing", "batch", record["batch_id"])

    for repair_too, is_told in ((False, True), (False, True), (True, False), (False, False)):
        found = everything(archive, deep=True, repair_too=repair_too)
        assert (told in {(one["kind"], one["entity_type"], one["id"]) for one in found}) is is_told


@pytest.mark.soak
def test_a_tenant_that_only_the_backup_has_is_seen(alice: Person, item_id: str) -> None:
    stranger = uuid4()
    tiers.bigquery(
        f"INSERT INTO {{table}} SELECT * REPLACE ('{stranger}' AS tenant_id) FROM {{table}} WHERE entity_id = '{item_id}'"
    )
    archive = archives.current()
    assert archive is not None

    assert stranger in list(verify._strangers(archive))

    tiers.bigquery(f"DELETE FROM {{table}} WHERE tenant_id = '{stranger}'")


@pytest.mark.parametrize(
    ("here", "there", "names"),
    [
        ('{"a": 1}', '{"a":1}', []),
        ('{"a": 1, "new": 2}', '{"a": 1}', []),
        ('{"a": 1}', '{"a": 2}', ["a"]),
        ('{"at": "2026-01-02T03:04:05"}', '{"at": "2026-01-02T03:04:05Z"}', []),
        ('{"at": "2026-01-02T03:04:05+00:00"}', '{"at": "2026-01-02T04:04:05+01:00"}', []),
        ('{"at": "2026-01-02T03:04:05"}', '{"at": "2026-01-02T03:04:06"}', ["at"]),
    ],
)
def test_facts_differ_in_what_both_sides_tell(here: str, there: str, names: list[str]) -> None:
    assert differing_facts(here, there) == names
