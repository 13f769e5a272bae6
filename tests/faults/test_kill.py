"""kill -9 of any one process while content is imported: everything that was reported is there, in all tiers, once."""

import json
from collections import Counter
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import requests

from tests.faults.platform import Platform, eventually

FILES = 80
SOAK_FILES = 1000
PARTS = ["web", "worker", "beat", "redis", "zerodb", "bigquery"]


@pytest.fixture
def tenant(platform: Platform) -> dict[str, str]:
    email = f"{id(object())}@example.com"
    return platform.manage("create_tenant", "--name", "T", "--email", email, "--password", "correct-horse-battery")


def write_files(folder: Path, count: int) -> None:
    folder.mkdir()
    for number in range(count):
        text = f"---\ntitle: File {number}\ntags: [import]\n---\nBody of file {number}.\n" + f"line {number}\n" * 50
        (folder / f"file-{number:04d}.md").write_text(text)


def kill_during_import(
    platform: Platform, tenant: dict[str, str], folder: Path, part: str, files: int
) -> dict[str, Any]:
    """Import a folder, kill a part when some of it has arrived, and return the import's report."""
    importing = platform.command("import_content", str(folder), "--tenant", tenant["tenant_id"])
    if part != "web":  # while the web process is up it can tell how far the import is
        eventually(lambda: total(platform, tenant) >= files // 10, 60)
    platform.kill(part)
    out, err = importing.communicate(timeout=600)
    assert importing.returncode == 0, err.decode()
    return dict(json.loads(out))


def total(platform: Platform, tenant: dict[str, str]) -> int:
    answer = get(platform, tenant, page=1, pageSize=1)
    return int(answer["pagination"]["total"])


def get(platform: Platform, tenant: dict[str, str], **query: Any) -> dict[str, Any]:
    answer = requests.get(
        f"{platform.url}/api/content", params=query, headers={"X-API-Key": tenant["api_key"]}, timeout=60
    )
    answer.raise_for_status()
    return dict(answer.json())


def every_item(platform: Platform, tenant: dict[str, str]) -> list[dict[str, Any]]:
    items, page = [], 1
    while page:
        answer = get(platform, tenant, page=page, pageSize=100)
        items += answer["data"]
        page = page + 1 if answer["pagination"]["hasNext"] else 0
    return items


def is_everywhere(item: dict[str, Any]) -> bool:
    return bool(item["storage"]["zerodb_id"] and item["storage"]["bigquery_backed_up"])


def check(platform: Platform, tenant: dict[str, str], tmp_path: Path, part: str, files: int) -> None:
    write_files(tmp_path / "files", files)

    report = kill_during_import(platform, tenant, tmp_path / "files", part, files)

    assert (report["created"], report["failed"]) == (files, 0)
    eventually(platform.is_ready, 60)
    eventually(lambda: all(map(is_everywhere, every_item(platform, tenant))), 180)
    titles = Counter(item["title"] for item in every_item(platform, tenant))
    assert titles == Counter(f"File {number}" for number in range(files))
    verified = platform.manage("verify_backup_integrity", "--tenant", tenant["tenant_id"])
    assert {name: verified[name] for name in ("checked", "mismatched", "missing", "extra")} == {
        "checked": files,
        "mismatched": 0,
        "missing": 0,
        "extra": 0,
    }
    again = platform.manage("import_content", str(tmp_path / "files"), "--tenant", tenant["tenant_id"])
    assert (again["unchanged"], again["created"], again["updated"]) == (files, 0, 0)


@pytest.mark.parametrize("part", ["worker", pytest.param("zerodb", marks=pytest.mark.soak)])
def test_nothing_is_lost_or_doubled_when_a_part_is_killed_during_an_import(
    platform: Platform, tenant: dict[str, str], tmp_path: Path, part: str
) -> None:
    check(platform, tenant, tmp_path, part, FILES)


@pytest.mark.soak
@pytest.mark.parametrize("part", PARTS)
def test_nothing_is_lost_or_doubled_when_a_part_is_killed_during_an_import_of_a_thousand(
    platform: Platform, tenant: dict[str, str], tmp_path: Path, part: str
) -> None:
    check(platform, tenant, tmp_path, part, SOAK_FILES)


def test_a_crossing_is_mailed_within_seconds_by_the_worker(platform: Platform) -> None:
    email = f"full-{uuid4().hex[:12]}@example.com"
    arguments = ["--name", "Full", "--email", email, "--password", "correct-horse-battery", "--storage-limit", "100"]
    key = {"X-API-Key": platform.manage("create_tenant", *arguments)["api_key"]}
    item = {"title": "A title", "type": "post", "body": "x" * 96}

    answer = requests.post(f"{platform.url}/api/content", json=item, headers=key, timeout=60)
    assert (answer.status_code, answer.headers["X-Quota-Warning"]) == (201, "critical"), answer.text

    def mails() -> list[str]:
        found = [path.read_text() for path in (platform.data / "mail").glob("*")]
        return [one for text in found for one in text.split("-" * 79) if f"To: {email}" in one]

    eventually(mails, 30)
    [mail] = mails()
    assert "Subject: Full has used 95 % of its storage" in mail
    assert "text/html" in mail


def test_creates_take_no_longer_while_valkey_hangs(platform: Platform, tenant: dict[str, str]) -> None:
    import os
    import signal

    usual = median_create(platform, tenant)
    [pid, *_] = platform.pids("redis")
    os.kill(pid, signal.SIGSTOP)
    try:
        hanging = median_create(platform, tenant)
        slowest = max(create_times(platform, tenant, 20))
    finally:
        os.kill(pid, signal.SIGCONT)

    assert hanging < usual + 0.1
    assert slowest < usual + 0.25  # the first to notice pays for one time-out
    eventually(platform.is_ready, 60)


def median_create(platform: Platform, tenant: dict[str, str]) -> float:
    return sorted(create_times(platform, tenant, 21))[10]


def create_times(platform: Platform, tenant: dict[str, str], count: int) -> list[float]:
    times = []
    with requests.Session() as client:
        client.headers["X-API-Key"] = tenant["api_key"]
        for number in range(count):
            item = {"title": f"{number}", "type": "post", "body": "x"}
            answer = client.post(f"{platform.url}/api/content", json=item, timeout=60)
            assert answer.status_code == 201, answer.text
            times.append(answer.elapsed.total_seconds())
    return times
