"""Metrics: requests under their route, figures of all processes together, and nothing in a label that tells on anybody."""

import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
from django.conf import LazySettings
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from rest_framework.test import APIClient

from engarde import health
from engarde.common import metrics
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


COUNTING = """
import sys
from content import metrics as content
from quotas import metrics as quotas
quotas.REFUSALS.labels("storage").inc(int(sys.argv[1]))
content.MEMORY_BYTES.set(int(sys.argv[1]))
"""
TELLING = "import django; django.setup(); from engarde.common import metrics; print(metrics.exposition().decode())"


def run(code: str, folder: Path, *arguments: str) -> str:
    environ = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder), "DJANGO_SETTINGS_MODULE": "engarde.settings"}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environ, capture_output=True, text=True, check=True
    ).stdout


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
