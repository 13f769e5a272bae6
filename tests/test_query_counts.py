"""The number of SQL statements of each call is pinned in query_counts.json, so that a query per row shows as a diff.

`RECORD_QUERY_COUNTS=1 make test` records them anew. The statement that opens a scope travels with BEGIN and is not counted.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.people import Person

PINNED = Path(__file__).with_name("query_counts.json")
CALLS: dict[str, Callable[[Person, str], Any]] = {
    "GET /api/auth/me": lambda person, _: person.api.get("/api/auth/me"),
    "GET /api/brands": lambda person, _: person.api.get("/api/brands"),
    "GET /api/members": lambda person, _: person.api.get("/api/members"),
    "GET /api/api-keys": lambda person, _: person.api.get("/api/api-keys"),
    "GET /api/content": lambda person, _: person.api.get("/api/content"),
    "GET /api/content/{id}": lambda person, item_id: person.api.get(f"/api/content/{item_id}"),
    "POST /api/content": lambda person, _: person.api.post("/api/content", {"title": "t", "type": "post"}),
    "PATCH /api/content/{id}": lambda person, item_id: person.api.patch(f"/api/content/{item_id}", {"body": "other"}),
    "DELETE /api/content/{id}": lambda person, item_id: person.api.delete(f"/api/content/{item_id}"),
}


def counted(person: Person, call: Callable[[Person, str], Any], item_id: str) -> int:
    """Return how many statements a call makes once its key's last use is noted."""
    person.api.get("/api/auth/me")
    with CaptureQueriesContext(connection) as queries:
        assert call(person, item_id).status_code < 300
    return len(queries)


@pytest.mark.parametrize("items", [1, 20])
def test_each_call_makes_as_many_statements_as_are_pinned(alice: Person, items: int) -> None:
    [item_id, *_] = [alice.writes()["id"] for _ in range(items)]

    counts = {name: counted(alice, call, item_id) for name, call in CALLS.items()}

    if os.environ.get("RECORD_QUERY_COUNTS"):
        PINNED.write_text(json.dumps(counts, indent=2) + "\n")
    assert counts == json.loads(PINNED.read_text())
