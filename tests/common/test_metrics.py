"""Metrics: requests under their route, figures of all processes together, and nothing in a label that tells on anybody."""

import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.conf import LazySettings
from django.db import connection
from django.utils import timezone
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from rest_framework.test import APIClient

from content.models import ContentItem, Delivery, Webhook
from content.models.webhooks import TEST_EVENT
from engarde import health
from engarde.accounts.models import Mail
from engarde.common import metrics
from engarde.common.scopes import system_scope, tenant_scope
from tests.people import Person

LABELS = {
    "call", "channel", "direction", "kind", "le", "limit", "method", "outcome", "provider", "reason", "result", "route",
    "state", "status", "tier", "implementation", "major", "minor", "patchlevel", "version", "generation",
}  # fmt: skip
ID = re.compile(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}", re.IGNORECASE)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "CHECK_SECONDS", 20.0)


def scraped() -> list[Metric]:
    return list(text_string_to_metric_families(APIClient().get("/metrics").content.decode()))


def seen(name: str, **labels: str) -> float:
    samples = [sample for metric in scraped() for sample in metric.samples if sample.name == name]
    return sum(one.value for one in samples if labels.items() <= one.labels.items())


def test_a_request_is_counted_under_its_route_and_status(alice: Person) -> None:
    item = alice.writes()["id"]
    route = {"method": "GET", "route": "/api/content/<id:content_id>"}
    before = seen("engarde_http_request_seconds_count", **route, status="200")
    missing = seen("engarde_http_request_seconds_count", **route, status="404")

    alice.api.get(f"/api/content/{item}")
    alice.api.get(f"/api/content/{uuid4()}")

    assert seen("engarde_http_request_seconds_count", **route, status="200") == before + 1
    assert seen("engarde_http_request_seconds_count", **route, status="404") == missing + 1


def test_what_anybody_can_make_up_makes_no_series(database: None) -> None:
    for path in ("/nothing/here", "/api/nothing-here", f"/api/{uuid4()}", "/static/none.css"):
        APIClient().get(path)
    APIClient().generic("BREW", "/api/content")

    samples = [sample for metric in scraped() for sample in metric.samples if "route" in sample.labels]
    assert {one.labels["route"] for one in samples if "here" in one.labels["route"]} == set()
    assert {one.labels["method"] for one in samples} <= metrics.METHODS | {"other"}
    assert "other" in {one.labels["method"] for one in samples}


def test_no_label_tells_on_anybody(alice: Person, upload: Callable[[], int]) -> None:
    item = alice.writes(title="Unmistakable title")["id"]
    upload()
    for path in (
        f"/api/content/{item}",
        "/api/content/quota",
        "/api/members",
        "/api/api-keys",
        f"/api/brands/{alice.brand_id}",
    ):
        alice.api.get(path, HTTP_X_TENANT_ID=str(alice.tenant_id))
    told = (str(alice.tenant_id), alice.tenant_id.hex, alice.email, "studio", "Unmistakable", item)

    for metric in scraped():
        for sample in metric.samples:
            assert set(sample.labels) <= LABELS, sample
            for value in sample.labels.values():
                assert not ID.search(value), sample
                assert not any(one in value for one in told), sample


def test_it_counts_what_carriers_send_and_what_fails(alice: Person, upload: Callable[[], int]) -> None:
    before = seen("engarde_carried_total", kind="document", outcome="sent")
    alice.writes()

    upload()

    assert seen("engarde_carried_total", kind="document", outcome="sent") >= before + 1


LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
YEARS = 20 * 365 * 86400.0


def test_a_scheduled_item_that_nobody_publishes_is_told(alice: Person) -> None:
    later = timezone.now() + timedelta(hours=1)
    item = alice.writes(status="scheduled", scheduled_at=later.isoformat())["id"]
    rows = ContentItem.objects.filter(id=item)
    with tenant_scope(alice.tenant_id):
        rows.update(scheduled_at=LONG_AGO)

    overdue = seen("engarde_publish_overdue_seconds")
    with tenant_scope(alice.tenant_id):
        rows.update(scheduled_at=later)

    assert overdue > YEARS
    assert 0 <= seen("engarde_publish_overdue_seconds") < YEARS


def test_mail_that_nobody_takes_is_told_and_not_what_waits_for_its_next_try(alice: Person) -> None:
    mail = Mail.objects.create(user_id=alice.user_id, kind=Mail.Kind.MEMBERSHIP, next_attempt_at=LONG_AGO)

    late = seen("engarde_mail_oldest_seconds")
    Mail.objects.filter(id=mail.id).update(next_attempt_at=timezone.now() + timedelta(hours=6), created_at=LONG_AGO)
    tried = seen("engarde_mail_oldest_seconds")
    mail.delete()

    assert late > YEARS
    assert 0 <= tried < YEARS


def test_webhooks_that_nobody_sends_are_told_and_not_those_of_a_slow_receiver(alice: Person) -> None:
    tenant: dict[str, Any] = {"tenant_id": alice.tenant_id}
    with tenant_scope(alice.tenant_id):
        hook = Webhook.objects.create(**tenant, url="https://example.com", secret="", is_active=False)
        about = {**tenant, "webhook": hook, "event": TEST_EVENT, "occurred_at": LONG_AGO}
        Delivery.objects.create(**about, next_attempt_at=LONG_AGO)

    late = seen("engarde_webhooks_oldest_seconds")
    with tenant_scope(alice.tenant_id):
        Delivery.objects.create(**about, next_attempt_at=timezone.now() + timedelta(minutes=1))
    slow = seen("engarde_webhooks_oldest_seconds")
    with tenant_scope(alice.tenant_id):
        hook.delete()

    assert late > YEARS
    assert 0 <= slow < YEARS


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (health.PUBLISHING, "content_due"),
        (health.MAIL, "accounts_mail_next_attempt_at"),
        (health.WEBHOOKS, "delivery_due"),
    ],
)
def test_a_look_at_what_is_late_reads_the_ends_of_an_index(database: None, query: str, index: str) -> None:
    with system_scope("a test looks at a plan"), connection.cursor() as cursor:
        for other in ("seqscan", "bitmapscan", "sort"):  # of few rows they would be right
            cursor.execute(f"SET LOCAL enable_{other} = off")
        cursor.execute(f"EXPLAIN {query}")
        plan = "\n".join(line for (line,) in cursor.fetchall())

    tables = re.findall(r"(\w+) on (?:content|accounts)_\w+", plan)
    assert tables, plan
    assert all(used.startswith(index) for used in tables), plan


COUNTING = """
import sys
from content import metrics as content
from quotas import metrics as quotas
quotas.REFUSALS.labels("storage").inc(int(sys.argv[1]))
content.MEMORY_BYTES.set(int(sys.argv[1]))
"""
TELLING = "import django; django.setup(); from engarde.common import metrics; print(metrics.exposition().decode())"


def run(code: str, folder: Path | None, *arguments: str) -> str:
    environ = {**os.environ, "DJANGO_SETTINGS_MODULE": "engarde.settings"}
    environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
    if folder:
        environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environ, capture_output=True, text=True, check=True
    ).stdout


FRESH = f"import django; django.setup(); from engarde import urls; {TELLING}"
BORN = {
    "engarde_damaged_documents_total": ("tier", {"spool", "redis", "zerodb", "backup"}),
    "engarde_document_repairs_total": ("tier", {"spool", "zerodb"}),
    "engarde_zerodb_not_asked_total": ("reason", {"circuit", "budget"}),
    "engarde_mails_total": ("outcome", {"sent", "failed", "given_up"}),
}


@pytest.mark.parametrize("is_shared", [False, True])
def test_what_alerts_look_for_an_increase_of_is_there_from_the_start(tmp_path: Path, is_shared: bool) -> None:
    """A series that begins with 1 has no increase."""
    told = run(FRESH, tmp_path if is_shared else None)

    samples = [sample for metric in text_string_to_metric_families(told) for sample in metric.samples]
    for name, (label, values) in BORN.items():
        found = {sample.labels[label]: sample.value for sample in samples if sample.name == name}
        assert found == dict.fromkeys(values, 0.0)


def test_processes_that_share_a_folder_tell_the_figures_of_all(tmp_path: Path) -> None:
    run(COUNTING, tmp_path, "2")
    run(COUNTING, tmp_path, "3")

    told = run(TELLING, tmp_path)

    assert 'engarde_quota_refusals_total{limit="storage"} 5.0' in told
    assert "engarde_document_memory_bytes" not in re.sub("# .*", "", told) or "engarde_document_memory_bytes 0" in told
    assert "python_info{" in told


@pytest.fixture
def address(settings: LazySettings) -> str:
    settings.METRICS_TOKEN = "let-me-see"
    return f"http://127.0.0.1:{metrics.serve('127.0.0.1', 0)}/metrics"


def test_a_worker_tells_its_own_at_an_address_of_its_own(address: str) -> None:
    asked = urllib.request.Request(address, headers={"Authorization": "Bearer let-me-see"})
    with urllib.request.urlopen(asked, timeout=10) as answer:
        assert b"engarde_http_request_seconds" in answer.read()

    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(address, timeout=10)
