"""Media files that are elsewhere, in the backup: their changes are told, a restore brings them back, and all tiers agree."""

from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest
from django.db import connection
from django.utils import timezone

from content import documents, records
from content.models import Change, Media
from dr import rows
from dr.archives.base import ArchiveRecord
from dr.scenarios.rows import fingerprints
from engarde.common.scopes import system_scope, tenant_scope
from tests import tiers
from tests.content.media_files import URL, counted, reference, referenced, uploaded
from tests.content.test_records import in_zerodb
from tests.dr.test_restore import restore
from tests.dr.test_verify import run as verify
from tests.people import Person

ELSEWHERE = "https://old.example/photo.png"


def carry() -> None:
    """Tell ZeroDB of all media files that it has to know."""
    store = documents.document_store()
    assert store is not None
    while not (done := records.run_pass(store=store, now=timezone.now)).is_idle and not done.failed:
        pass


def lose_media(person: Person) -> None:
    """Take all of a tenant's media files out of PostgreSQL as a disaster would."""
    with system_scope("a test loses rows"), connection.cursor() as cursor:
        cursor.execute("ALTER TABLE content_media DISABLE TRIGGER USER")
        cursor.execute("DELETE FROM content_media WHERE tenant_id = %s", [person.tenant_id])
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE content_media ENABLE TRIGGER USER")


def lose_records(person: Person) -> None:
    """Take what ZeroDB knows of a tenant's media files away."""
    lost = {"filter": {"tenant_id": str(person.tenant_id)}, "confirm_large_operation": True}
    tiers.zerodb("DELETE", "/rows/bulk", collection="content_media_files", **lost)


def test_it_comes_back_when_postgresql_and_zerodb_are_emptied_and_all_tiers_agree(
    alice: Person, upload: Callable[[], int], back_up: Callable[[], int]
) -> None:
    item_of_old = uuid4()
    here, elsewhere = uploaded(alice, b"some text")["id"], referenced(alice, ELSEWHERE, content_id=item_of_old)
    item = alice.writes(media=[here, elsewhere])
    upload()
    carry()
    back_up()
    assert verify(alice, "--deep")[0]
    before, media = fingerprints(tenant_id=alice.tenant_id), alice.api.get(f"{URL}/{elsewhere}").json()
    tiers.lose_postgres_rows(item["id"])
    lose_media(alice)
    lose_records(alice)
    with tenant_scope(alice.tenant_id):
        assert not Media.objects.exists()

    report = restore(alice)
    carry()

    assert (report["errors"], report["rows"]) == ([], {"media": 2})
    assert fingerprints(tenant_id=alice.tenant_id) == before
    assert alice.api.get(f"{URL}/{elsewhere}").json() == media
    assert alice.api.get(f"{URL}/{elsewhere}/download")["Location"] == ELSEWHERE
    assert alice.api.get(f"/api/content/{item['id']}").json()["media"] == [here, elsewhere]
    assert alice.api.delete(f"{URL}/{elsewhere}").status_code == 409
    assert counted(alice.tenant_id) == (len("some text") + len("A body"), 2)
    [row] = in_zerodb("content_media_files", str(item_of_old))
    assert row["row_data"]["external_url"] == ELSEWHERE
    assert back_up() == 0
    passed, found = verify(alice, "--deep")
    assert passed, found["findings"]


def test_one_that_moves_elsewhere_is_told_to_the_backup(alice: Person) -> None:
    media_id = referenced(alice)

    with tenant_scope(alice.tenant_id):
        Media.objects.filter(id=media_id).update(external_url="https://new.example/photo.png")
        facts = Change.objects.filter(entity_id=UUID(media_id)).order_by("seq").values_list("op", "facts")
        [came, moved] = [(op, orjson.loads(text or "")) for op, text in facts]

    assert (came[0], came[1]["external_url"], came[1]["blob_id"]) == ("I", ELSEWHERE, None)
    assert (moved[0], moved[1]) == ("U", came[1] | {"external_url": "https://new.example/photo.png"})


@pytest.mark.parametrize("newest_first", [True, False])
def test_files_of_which_the_backup_knows_no_address_come_back_beside_those_that_have_one(
    alice: Person, newest_first: bool
) -> None:
    here, elsewhere = uploaded(alice, b"some text")["id"], referenced(alice)
    with tenant_scope(alice.tenant_id):
        lines = Change.objects.filter(entity_type="media").order_by("seq").values_list("facts", flat=True)
        [old, new] = [orjson.loads(text or "") for text in lines]
    del old["external_url"]  # as it was backed up before the column came
    lose_media(alice)

    both = [record(alice, facts) for facts in ((new, old) if newest_first else (old, new))]
    with system_scope("a test restores"):
        done = rows.tables()["media"].put(both, overwrite=False, dry_run=False)

    assert (sorted(done.made), done.refused) == (sorted([UUID(here), UUID(elsewhere)]), [])
    assert "external" not in alice.api.get(f"{URL}/{here}").json()
    assert alice.api.get(f"{URL}/{elsewhere}").json()["url"] == reference().external_url


def record(person: Person, facts: dict[str, Any]) -> ArchiveRecord:
    """Return what the archive has of a media file, as far as a restore of its row looks at it."""
    return ArchiveRecord(
        tenant_id=person.tenant_id,
        entity_type="media",
        entity_id=UUID(facts["id"]),
        version=0,
        epoch=1,
        change_seq=1,
        xid=1,
        op="I",
        changed_at=timezone.now(),
        sha256="",
        size_bytes=0,
        facts=orjson.dumps(facts).decode(),
        document=None,
        row_hash="",
        batch_id=uuid4(),
    )
