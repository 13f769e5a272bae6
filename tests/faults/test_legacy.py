"""The migration under fire: its process is killed at random times, and resumed it ends as if nothing had happened."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from io import StringIO
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.conf import settings as django_settings
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from content.models import ContentItem, ContentVersion
from engarde.common.scopes import tenant_scope
from quotas import queries as quota_queries
from quotas import reconciliation

COMMAND = "migrate_content_items_to_zerodb"
LONGEST_SECONDS = 120


@pytest.fixture
def schema(database: None) -> Iterator[str]:
    """A schema of this test's own."""
    name = f"legacy_{uuid4().hex[:8]}"
    yield name
    with connection.cursor() as cursor:
        cursor.execute(f"DROP SCHEMA IF EXISTS {name} CASCADE")


@pytest.mark.parametrize(
    ("items", "kills"), [(300, 1), pytest.param(20_000, 40, marks=[pytest.mark.soak, pytest.mark.timeout(900)])]
)
def test_killed_at_random_and_resumed_every_row_arrives_once(
    schema: str, items: int, kills: int, settings: Any
) -> None:
    settings.LEGACY_SCHEMA = schema
    call_command("load_legacy_sample", "--items", str(items), "--json", stdout=StringIO())
    tenants = _made_unique(schema)

    killed = sum(_killed(schema, random.uniform(0.8, 2.2)) for _ in range(kills))
    report = _finished(schema)

    assert killed
    assert (report["total"], report["created"], report["unchanged"], report["failed"]) == (items, items, 0, 0)
    assert report["checksums"] == {"compared": items, "equal": items, "different": 0}
    assert sum(_count(tenant) for tenant in tenants) == items
    for tenant in tenants:
        assert not reconciliation.reconcile(tenant_id=tenant, now=timezone.now(), dry_run=True).differences
        assert quota_queries.usage_of(tenant_id=tenant).content_items == _count(tenant)


def _made_unique(schema: str) -> list[UUID]:
    """Give the sample's rows ids that no other test's have."""
    salt = uuid4().hex
    with connection.cursor() as cursor:
        for table, columns in {
            "tenants": ("id",),
            "brands": ("id", "tenant_id"),
            "users": ("id",),
            "content_items": ("id", "tenant_id", "brand_id", "user_id"),
        }.items():
            changes = ", ".join(f"{name} = md5(%(salt)s || {name})::uuid::text" for name in columns)
            cursor.execute(f"UPDATE {schema}.{table} SET {changes}", {"salt": salt})
        cursor.execute(f"UPDATE {schema}.users SET email = id || '@example.com'")
        cursor.execute(f"SELECT DISTINCT tenant_id FROM {schema}.content_items")
        return [UUID(tenant) for (tenant,) in cursor.fetchall()]


def _started(schema: str) -> "subprocess.Popen[str]":
    command = [sys.executable, str(django_settings.BASE_DIR / "manage.py"), COMMAND, "--resume", "--json"]
    return subprocess.Popen(
        command, env={**os.environ, "LEGACY_SCHEMA": schema}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _killed(schema: str, seconds: float) -> bool:
    """Let it run for a while after it began to write, kill it, and tell whether that broke it off."""
    with _started(schema) as process:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
    return process.returncode == -signal.SIGKILL


def _finished(schema: str) -> dict[str, Any]:
    deadline = time.monotonic() + LONGEST_SECONDS
    while True:
        with _started(schema) as process:
            out, errors = process.communicate(timeout=LONGEST_SECONDS)
        if process.returncode == 0:
            report: dict[str, Any] = json.loads(out)
            return report
        # The lock of one that was killed is held until PostgreSQL notices.
        assert "Another migration" in errors, errors
        assert time.monotonic() < deadline, errors
        time.sleep(0.5)


def _count(tenant: UUID) -> int:
    with tenant_scope(tenant):
        assert not ContentVersion.objects.exclude(version=1).exists()
        return ContentItem.objects.filter(deleted_at=None).count()
