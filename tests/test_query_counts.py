"""The number of SQL statements of each call is pinned in query_counts.json, so that a query per row shows as a diff.

`RECORD_QUERY_COUNTS=1 make test` records them anew. The statement that opens a scope travels with BEGIN and is not counted.
Documents come from the spool: the caches are empty, so each count is the most that a call takes.
"""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from engarde.common.scopes import tenant_scope
from generation.models import Job, JobItem
from tests import tiers
from tests.people import Person

PINNED = Path(__file__).with_name("query_counts.json")
Call = Callable[[Person, Sequence[str]], Any]

LISTS: dict[str, dict[str, Any]] = {
    "": {},
    "?include=body": {"include": "body"},
    "?count=exact": {"count": "exact"},
    "?count=none": {"count": "none"},
    "?sort=title": {"sort": "title"},
    "?content_type": {"content_type": "post"},
    "?status": {"status": "draft"},
    "?brand_id": {"brand_id": "{brand_id}"},
    "?campaign_space_id": {"campaign_space_id": "01a204dc-5242-725b-8f16-7437be78a210"},
    "?tags": {"tags": ["red", "blue"]},
    "?platform": {"platform": "instagram"},
    "?date_from&date_to": {"date_from": "2026-01-01", "date_to": "9999-01-01"},
    "?search": {"search": "a title"},
    "?search&sort=-created_at": {"search": "a title", "sort": "-created_at"},
    "?status&count=estimated": {"status": "draft", "count": "estimated"},
    "?deleted=true": {"deleted": "true"},
}


def listed(query: dict[str, Any]) -> Call:
    def call(person: Person, _ids: Sequence[str]) -> Any:
        filled = {name: str(person.brand_id) if value == "{brand_id}" else value for name, value in query.items()}
        return person.api.get("/api/content", filled)

    return call


def read(path: str) -> Call:
    return lambda person, ids: person.api.get(path.format(id=ids[0]))


def posted(path: str) -> Call:
    return lambda person, ids: person.api.post(path.format(id=ids[0]))


def bulk(action: str, **fields: Any) -> Call:
    return lambda person, ids: person.api.post("/api/content/bulk", {"action": action, "ids": ids, **fields})


def of_job(rest: str) -> Call:
    def call(person: Person, _ids: Sequence[str]) -> Any:
        newest = person.api.get("/api/content/generation-jobs", {"pageSize": 1}).json()["data"][0]["job_id"]
        return person.api.get(f"/api/content/generation-jobs/{newest}{rest}")

    return call


def exported(person: Person, _ids: Sequence[str]) -> Any:
    answer: Any = person.api.get("/api/content/export")
    assert b"".join(answer.streaming_content)
    return answer


ITEM = "/api/content/{id}"
CALLS: dict[str, Call] = {
    "GET /api/auth/me": read("/api/auth/me"),
    "GET /api/brands": read("/api/brands"),
    "GET /api/members": read("/api/members"),
    "GET /api/api-keys": read("/api/api-keys"),
    **{f"GET /api/content{name}": listed(query) for name, query in LISTS.items()},
    f"GET {ITEM}": read(ITEM),
    "POST /api/content": lambda person, _: person.api.post("/api/content", {"title": "t", "type": "post"}),
    "POST /api/content with an Idempotency-Key": lambda person, _: person.api.post(
        "/api/content", {"title": "t", "type": "post"}, HTTP_IDEMPOTENCY_KEY="key"
    ),
    "POST /api/content again under its Idempotency-Key": lambda person, _: person.api.post(
        "/api/content", {"title": "t", "type": "post"}, HTTP_IDEMPOTENCY_KEY="key"
    ),
    f"PATCH {ITEM}": lambda person, ids: person.api.patch(f"/api/content/{ids[0]}", {"body": "other"}),
    f"PATCH {ITEM} with labels": lambda person, ids: person.api.patch(
        f"/api/content/{ids[0]}", {"tags": ["a", "b"], "platforms": ["c"]}
    ),
    f"PATCH {ITEM} that changes nothing": lambda person, ids: person.api.patch(f"/api/content/{ids[0]}", {}),
    f"GET {ITEM}?version": read(f"{ITEM}?version=1"),
    f"GET {ITEM}/versions": read(f"{ITEM}/versions"),
    f"GET {ITEM}/versions/{{n}}": read(f"{ITEM}/versions/1"),
    f"GET {ITEM}/versions/{{n}}/diff": read(f"{ITEM}/versions/2/diff"),
    f"POST {ITEM}/versions/{{n}}/restore": posted(f"{ITEM}/versions/1/restore"),
    f"DELETE {ITEM}": lambda person, ids: person.api.delete(f"/api/content/{ids[0]}"),
    f"POST {ITEM}/restore": posted(f"{ITEM}/restore"),
    "POST /api/content/bulk publish": bulk("publish"),
    "POST /api/content/bulk archive": bulk("archive"),
    "POST /api/content/bulk tag": bulk("tag", tags=["new", "newer"]),
    "POST /api/content/bulk delete": bulk("delete"),
    "POST /api/content/bulk restore": bulk("restore"),
    "GET /api/content/export": exported,
    "GET /api/tenant": read("/api/tenant"),
    "GET /api/content/quota": read("/api/content/quota"),
    "GET /api/content/quota/history": read("/api/content/quota/history?days=365"),
    "POST /api/content/quota/check": lambda person, _: person.api.post(
        "/api/content/quota/check", {"content_size_bytes": 1, "items": 1}
    ),
    "GET /api/content/quota/alert-targets": read("/api/content/quota/alert-targets"),
    "GET /api/llm-keys": read("/api/llm-keys"),
    "GET /api/content/generation-jobs": read("/api/content/generation-jobs"),
    "GET /api/content/generation-jobs/{id}": of_job(""),
    "GET /api/content/generation-jobs/{id}/items": of_job("/items"),
}


def counted(person: Person, call: Call, ids: Sequence[str]) -> int:
    """Return how many statements a call makes once its key's last use is noted."""
    person.api.get("/api/auth/me")
    tiers.forget_copies()
    with CaptureQueriesContext(connection) as queries:
        answer = call(person, ids)
    assert answer.status_code < 300, answer.content
    return len(queries)


def make_job(person: Person, items: int) -> None:
    """Make a job that is over, with items that failed."""
    facts = {"content_type": "post", "provider": "local", "model": "m", "params": {}, "status": "failed"}
    with tenant_scope(person.tenant_id):
        job = Job.objects.create(
            tenant_id=person.tenant_id,
            brand_id=person.brand_id,
            created_by=person.user_id,
            target_count=items,
            concurrency=1,
            estimated_item_bytes=1,
            created_at=timezone.now(),
            **facts,
        )
        rows = [
            JobItem(tenant_id=person.tenant_id, job=job, index=index, status="failed", error_code="x")
            for index in range(items)
        ]
        JobItem.objects.bulk_create(rows)


@pytest.mark.parametrize("items", [1, 20])
def test_each_call_makes_as_many_statements_as_are_pinned(alice: Person, items: int) -> None:
    labels = {"tags": ["red", "blue"], "platforms": ["instagram"]}
    space = "01a204dc-5242-725b-8f16-7437be78a210"
    ids = [alice.writes(campaign_space_id=space, **labels)["id"] for _ in range(items)]
    trashed = [alice.writes()["id"] for _ in range(items)]
    assert bulk("delete")(alice, trashed).status_code == 200
    for _ in range(items):
        make_job(alice, items)

    counts = {name: counted(alice, call, ids) for name, call in CALLS.items()}

    if os.environ.get("RECORD_QUERY_COUNTS"):
        PINNED.write_text(json.dumps(counts, indent=2) + "\n")
    assert counts == json.loads(PINNED.read_text())
