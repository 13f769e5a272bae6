"""A tenant with something in every tier and table, and looks into all of them."""

from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.files.storage import storages
from django.core.management import call_command
from django.utils import timezone

from content import cache
from content.models import Blob, SpooledDocument
from content.stores.base import COLLECTIONS
from dr import archives
from dr.archives.bigquery import CONTENT_TABLE, MEDIA_TABLE, BigQueryArchive
from dr.models import Drill, Erasure, Finding, MediaCopy, Restore, Verification
from engarde.accounts.models import Mail, Membership, Tenant, User
from engarde.common import erasing
from engarde.common import redis as redis_client
from engarde.common.scopes import system_scope, tenant_scope
from tests import people, tiers
from tests.common.test_scopes import fill_every_table
from tests.content import media_files
from tests.people import Person

PLATFORM = UUID(int=0)


@dataclass(frozen=True)
class Filled:
    """What of a tenant tests point at."""

    item: str
    updated: str
    trashed: str
    media: str


def fill(person: Person) -> Filled:
    """Give a tenant rows in every table, and documents, versions, media and copies in the other tiers."""
    item = person.writes(body=f"body {uuid4()}")["id"]
    updated = person.writes(body=f"body {uuid4()}")["id"]
    for number in range(3):
        answer = person.api.patch(f"/api/content/{updated}", {"body": f"body {number} {uuid4()}"})
        assert answer.status_code == 200, answer.content
    trashed = person.writes(body=f"body {uuid4()}")["id"]
    assert person.api.delete(f"/api/content/{trashed}").status_code == 200
    media = media_files.uploaded(person, media_files.picture() + uuid4().bytes, content_id=item)
    fill_every_table(person)
    with system_scope("a test forgets an earlier erasure"):
        Erasure.objects.filter(tenant_id=person.tenant_id).delete()
    fill_reports(person)
    return Filled(item, updated, trashed, media["id"])


def fill_reports(person: Person) -> None:
    """Give a tenant rows in the backup's own tables."""
    now, tenant = timezone.now(), {"tenant_id": person.tenant_id}
    with system_scope("a test fills tables"):
        verification = Verification.objects.create(**tenant, started_at=now)
        of_all = Verification.objects.create(started_at=now)
        for one in (verification, of_all):
            Finding.objects.create(
                **tenant,
                verification_id=one.id,
                entity_type="content",
                entity_id=uuid4(),
                tier="zerodb",
                kind="missing",
                problem="",
                found_at=now,
            )
        Restore.objects.create(**tenant, started_at=now)
        Drill.objects.create(**tenant, scenario="tenant_deletion", started_at=now)


def copy_media(person: Person) -> None:
    """Have the second storage hold a tenant's files, as its carrier would."""
    with tenant_scope(person.tenant_id):
        blobs = [blob for blob in Blob.objects.all() if storages["media"].exists(blob.storage_key)]
        for blob in blobs:
            storages["media_backup"].save(blob.storage_key, storages["media"].open(blob.storage_key))
            MediaCopy.objects.create(
                blob_id=blob.id,
                tenant_id=person.tenant_id,
                storage_key=blob.storage_key,
                sha256=blob.sha256,
                size_bytes=blob.size_bytes,
                copied_at=timezone.now(),
            )


def rows_of(person: Person) -> dict[str, int]:
    """Return a tenant's rows by table."""
    return erasing.count_rows(tenant_id=person.tenant_id)


def documents_of(person: Person) -> dict[str, int]:
    """Return a tenant's rows in ZeroDB by collection."""
    wanted = {"tenant_id": str(person.tenant_id)}
    return {
        name: len(tiers.zerodb("POST", "/query", collection=name, filter=wanted, limit=1000)["data"])
        for name in COLLECTIONS
    }


def archived(tenant_id: UUID, *entity_ids: Any) -> int:
    """Return how many records of a tenant, or of some entities, BigQuery has in all its tables."""
    archive = archives.current()
    assert isinstance(archive, BigQueryArchive)
    named = ", ".join(f"'{one}'" for one in entity_ids)
    condition = f"tenant_id = '{tenant_id}'" + (f" AND entity_id IN ({named})" if named else "")
    tables = (CONTENT_TABLE, MEDIA_TABLE)
    queries = [f"SELECT count(*) FROM `{archive.dataset}.{table}` WHERE {condition}" for table in tables]
    return sum(int(tiers.bigquery(query)[0][0]) for query in queries)


def files_of(person: Person, alias: str = "media") -> int:
    """Return how many of a tenant's files a storage has."""
    folder = Path(storages[alias].path(str(person.tenant_id)))
    return sum(one.is_file() for one in folder.rglob("*"))


def cached(*content_ids: str) -> int:
    """Return how many documents of items Redis has."""
    names = [name for one in content_ids for name in redis_client.client().scan_iter(f"{cache.KEY_PREFIX}{one}:*")]
    return len(names)


def read_from_store(person: Person, *content_ids: str) -> None:
    """Have documents read from ZeroDB, so that they are kept in Redis too."""
    tiers.forget_copies()
    with system_scope("a test empties the spool"):
        SpooledDocument.objects.filter(tenant_id=person.tenant_id).delete()
    for one in content_ids:
        assert person.api.get(f"/api/content/{one}").status_code == 200


def run(command: str, *arguments: Any) -> str:
    """Run a command with --json and return what it printed."""
    out = StringIO()
    call_command(command, *map(str, arguments), "--json", stdout=out)
    return out.getvalue()


def name_of(person: Person) -> str:
    """Return a tenant's name."""
    with system_scope("a test looks"):
        return str(Tenant.objects.get(id=person.tenant_id).name)


def join(person: Person, tenant_id: UUID) -> None:
    """Make a person a member of another tenant too."""
    with system_scope("a test adds a member"):
        Membership.objects.create(
            tenant_id=tenant_id, user_id=person.user_id, role="editor", accepted_at=timezone.now()
        )


def owe_mail(person: Person, tenant_name: str) -> None:
    """Leave a letter to a person in the queue."""
    Mail.objects.create(user_id=person.user_id, kind="membership", tenant_name=tenant_name)


def note_by_staff(model: Any, object_id: UUID, name: str) -> LogEntry:
    """Have the admin's log tell that staff changed a row."""
    staff = User.objects.create_user(f"staff-{uuid4().hex}@example.com", people.PASSWORD, is_staff=True)
    kind = ContentType.objects.get_for_model(model)
    return LogEntry.objects.create(
        user=staff, content_type=kind, object_id=str(object_id), object_repr=name, action_flag=CHANGE
    )


def everything(person: Person) -> dict[str, Any]:
    """Return what all tiers have of a tenant."""
    return {
        "rows": rows_of(person),
        "zerodb": documents_of(person),
        "bigquery": archived(person.tenant_id),
        "files": files_of(person),
    }
