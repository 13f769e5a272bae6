"""What tests do to the tiers behind the platform's back: look into them, damage them, take them away."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import requests
from django.conf import settings
from django.db import connection
from django.utils import timezone

from content import cache, documents
from content.models import Change, ContentVersion, SpooledDocument, SpooledRecord
from content.stores.zerodb import ZeroDBStore
from dr import archives
from dr.archives.bigquery import CONTENT_TABLE, BigQueryArchive
from engarde.common import redis as redis_client
from engarde.common.scopes import system_scope

NOBODY_LISTENS = "http://127.0.0.1:9"


def zerodb(method: str, path: str, *, collection: str = "content_items", **body: Any) -> Any:
    """Call ZeroDB's API on a collection."""
    project = settings.ZERODB_BASE_PATH.format(project_id=settings.ZERODB_PROJECT_ID)
    url = f"{settings.ZERODB_BASE_URL}{project}/database/tables/{collection}{path}"
    answer = requests.request(method, url, json=body, headers={"X-API-Key": settings.ZERODB_API_KEY}, timeout=10)
    answer.raise_for_status()
    return answer.json()


def zerodb_rows(content_id: str) -> list[dict[str, Any]]:
    """Return the rows that ZeroDB has of an item."""
    return list(zerodb("POST", "/query", filter={"content_id": content_id}, limit=1000)["data"])


def lose_zerodb_rows(tenant_id: UUID) -> int:
    """Delete a tenant's documents from ZeroDB and return how many there were."""
    lost = zerodb("DELETE", "/rows/bulk", filter={"tenant_id": str(tenant_id)}, confirm_large_operation=True)
    return int(lost["deleted_count"])


def bigquery(sql: str) -> list[Any]:
    """Run SQL in BigQuery, in which {table} stands for the content table."""
    archive = archives.current()
    assert isinstance(archive, BigQueryArchive)
    return list(archive._rest().query(sql.format(table=f"`{archive.dataset}.{CONTENT_TABLE}`")).result())


def lose_postgres_rows(*content_ids: str) -> None:
    """Take items out of PostgreSQL as a disaster would: no line in the change log tells of it."""
    with system_scope("a test loses rows"), connection.cursor() as cursor:
        triggered = ("content_versions", "content_storage_metadata")
        for table in triggered:
            cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        others = ("content_body_spool", "content_tags", "content_platforms", "content_search", "content_media_uses")
        for table in (*others, "content_versions"):
            cursor.execute(f"DELETE FROM {table} WHERE content_id = ANY(%s::uuid[])", [list(content_ids)])
        cursor.execute("DELETE FROM content_storage_metadata WHERE id = ANY(%s::uuid[])", [list(content_ids)])
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        for table in triggered:
            cursor.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")


def lose_postgres_version(content_id: str, version: int) -> None:
    """Take one version out of PostgreSQL as a disaster would."""
    with system_scope("a test loses a version"), connection.cursor() as cursor:
        cursor.execute("ALTER TABLE content_versions DISABLE TRIGGER USER")
        cursor.execute("DELETE FROM content_versions WHERE content_id = %s AND version = %s", [content_id, version])
        cursor.execute("ALTER TABLE content_versions ENABLE TRIGGER USER")


def versions(content_id: str) -> list[ContentVersion]:
    """Return an item's versions, oldest first."""
    with system_scope("a test looks"):
        return list(ContentVersion.objects.filter(content_id=UUID(content_id)).order_by("version"))


def spooled(content_id: str) -> list[SpooledDocument]:
    """Return an item's spooled documents, oldest first."""
    with system_scope("a test looks"):
        return list(SpooledDocument.objects.filter(content_id=UUID(content_id)).order_by("version"))


def forget_copies() -> None:
    """Empty the caches: this process's memory and what is shared in Redis."""
    documents.start_afresh()
    names = list(redis_client.client().scan_iter(f"{cache.KEY_PREFIX}*", count=1000))
    if names:
        redis_client.client().delete(*names)


def records(content_id: str) -> list[SpooledRecord]:
    """Return what ZeroDB is to be told of an item, by collection and key."""
    with system_scope("a test looks"):
        rows = SpooledRecord.objects.filter(key__startswith=content_id)
        return list(rows.order_by("collection", "key"))


def make_due(*content_ids: str) -> None:
    """End the leases and waits of spooled documents."""
    with system_scope("a test moves the clock"), connection.cursor() as cursor:
        cursor.execute(
            "UPDATE content_body_spool SET next_attempt_at = now() WHERE content_id = ANY(%s::uuid[])",
            [list(content_ids)],
        )


def give_up(content_id: str) -> None:
    """Have the carriers forget an item that a test damaged beyond repair, so that other tests find nothing stuck."""
    with system_scope("a test tidies up"):
        SpooledDocument.objects.filter(content_id=UUID(content_id)).delete()
        Change.objects.filter(entity_id=UUID(content_id)).update(batch_id=UUID(content_id), acked_at=timezone.now())


@contextmanager
def zerodb_away(monkeypatch: Any) -> Iterator[None]:
    """Have ZeroDB's address lead nowhere."""
    options = {**settings.CONTENT_STORE_OPTIONS, "base_url": NOBODY_LISTENS, "attempts": 1}
    store = ZeroDBStore(**{**options, "connect_timeout": 0.2})
    with monkeypatch.context() as patch:
        patch.setattr(documents, "document_store", lambda: store)
        yield


@contextmanager
def bigquery_away(monkeypatch: Any) -> Iterator[None]:
    """Have BigQuery's addresses lead nowhere."""
    options = {**settings.DR_ARCHIVE_OPTIONS, "emulator_host": NOBODY_LISTENS, "emulator_grpc_host": "127.0.0.1:9"}
    archive = BigQueryArchive(**options)
    with monkeypatch.context() as patch:
        patch.setattr(archives, "current", lambda: archive)
        yield
