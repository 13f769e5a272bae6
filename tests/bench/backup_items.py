"""The data of the backup's rows: items of random text, taken away as a disaster would, and a backup that forgets them."""

import random
from collections.abc import Sequence
from uuid import UUID

from django.db import connection
from django.utils import timezone
from uuid_utils.compat import uuid7

from content import documents, recovery
from content.facts import VersionFacts
from content.models import Change, ChangeType, ContentVersion
from content.operations import EMPTY_FIELDS
from content.recovery import Copy
from dr import archives
from dr.archives.bigquery import CONTENT_TABLE, LOG_TABLE, MEDIA_TABLE, BigQueryArchive
from dr.models import Batch
from engarde.common.scopes import system_scope, tenant_scope
from quotas import reconciliation
from quotas.operations import NewTenant

WRITTEN_AT_ONCE = 1000
WORDS = 8000
WORDS_A_BODY = 290  # about 2 KB
TRIGGERED = ("content_versions", "content_storage_metadata")
OF_ITEMS = (
    "content_body_spool",
    "content_tags",
    "content_platforms",
    "content_search",
    "content_media_uses",
    "content_versions",
)


def archive() -> BigQueryArchive:
    """Return the process's archive.

    Raises:
        RuntimeError: the backup is off.
    """
    found = archives.current()
    if not isinstance(found, BigQueryArchive):
        raise RuntimeError("The backup is off: set BIGQUERY_SYNC_ENABLED.")
    return found


def write(new: NewTenant, items: int) -> None:
    """Write items of about 2 KB of random words, many at a time; no search finds them yet."""
    chance = random.Random(items)
    words = [_word(chance) for _ in range(WORDS)]
    for start in range(0, items, WRITTEN_AT_ONCE):
        copies = [_copy(new, chance, words) for _ in range(min(WRITTEN_AT_ONCE, items - start))]
        with system_scope("write items"):
            recovery.silence(aloud=True)
            now = timezone.now()
            recovery.recover_items(copies=copies, brands={new.brand.id}, since=now, now=now, aloud=True, dry_run=False)
    with tenant_scope(new.tenant.id):
        reconciliation.recount(tenant_id=new.tenant.id, now=timezone.now())


def _word(chance: random.Random) -> str:
    return "".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randrange(3, 10)))


def _copy(new: NewTenant, chance: random.Random, words: Sequence[str]) -> Copy:
    body, now = chance.choices(words, k=WORDS_A_BODY), timezone.now()
    fields = {
        **EMPTY_FIELDS,
        "brand_id": new.brand.id,
        "title": " ".join(body[:5]).capitalize(),
        "body": " ".join(body),
        "type": "post",
        "status": "draft",
        "tags": ["summer", f"week-{chance.randrange(50)}"],
        "platforms": ["instagram"],
        "metadata": {"number": chance.randrange(10**6)},
    }
    text, sha256 = documents.encode(fields)
    facts = VersionFacts(
        content_id=uuid7(),
        version=1,
        sha256=sha256,
        size_bytes=len(fields["body"]),
        change_type=ChangeType.CREATE,
        changed_by=new.owner.id,
        created_at=now,
        author_id=new.owner.id,
        item_created_at=now,
    )
    return Copy(new.tenant.id, facts, text, is_current=True, highest=1)


def take_away(tenant_id: UUID) -> int:
    """Remove a tenant's content from PostgreSQL as a disaster would, and return how many items there were."""
    with system_scope("lose a tenant's content"), connection.cursor() as cursor:
        for table in TRIGGERED:
            cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        for table in OF_ITEMS:
            cursor.execute(f"DELETE FROM {table} WHERE tenant_id = %s", [tenant_id])
        cursor.execute("DELETE FROM content_storage_metadata WHERE tenant_id = %s", [tenant_id])
        lost = int(cursor.rowcount)
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        for table in TRIGGERED:
            cursor.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")
    documents.start_afresh()
    tidy("content_storage_metadata", *OF_ITEMS)
    return lost


def forget_backup(tenant_id: UUID, *, wait: bool = True) -> None:
    """Have the backup begin anew with a tenant's items: what it has of them is removed.

    Args:
        wait: have their changes wait again, else they are forgotten too.
    """
    kept = archive()
    for table in (CONTENT_TABLE, MEDIA_TABLE):
        statement = f"DELETE FROM `{kept.dataset}.{table}` WHERE tenant_id = '{tenant_id}' AND entity_type = 'content'"
        kept._rest().query(statement).result()
    with system_scope("have changes wait again"):
        mine = Change.objects.filter(tenant_id=tenant_id, entity_type=Change.CONTENT)
        batches = {batch_id for batch_id in mine.values_list("batch_id", flat=True).distinct() if batch_id}
        if wait:
            mine.update(batch_id=None, acked_at=None)
        else:
            mine.delete()
        ContentVersion.objects.filter(tenant_id=tenant_id).update(backed_up_at=None)
        Batch.objects.filter(id__in=batches).delete()
    ids = ", ".join(f"'{batch_id}'" for batch_id in batches) or "''"
    kept._rest().query(f"DELETE FROM `{kept.dataset}.{LOG_TABLE}` WHERE batch_id IN ({ids})").result()
    documents.start_afresh()
    tidy("content_changes", "content_versions", "dr_batches")


def tidy(*tables: str) -> None:
    """Let no side pay for rows that the other left dead."""
    with connection.cursor() as cursor:
        for table in tables:
            cursor.execute(f"VACUUM (ANALYZE) {table}")


def checksum(tenant_id: UUID) -> tuple[int, str]:
    """Return how many items a tenant has, and a checksum over their ids, versions, documents and spool."""
    with system_scope("look what is there"), connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT count(*), coalesce(md5(string_agg(concat(item.id, item.version, item.sha256, item.title, item.created_at,
                                                            spool.sha256), '' ORDER BY item.id)), '')
            FROM content_storage_metadata AS item
            JOIN content_versions AS made ON made.content_id = item.id AND made.version = item.version
            LEFT JOIN content_body_spool AS spool ON spool.content_id = item.id AND spool.version = item.version
            WHERE item.tenant_id = %s""",
            [tenant_id],
        )
        count, digest = cursor.fetchone()
        return int(count), str(digest)
