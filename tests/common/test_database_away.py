"""A database that does not answer is a 503 that says so, never a 500 or a traceback."""

import pytest
from django.db import OperationalError

from tests.people import Person


@pytest.mark.parametrize("where", ["engarde.accounts.queries.live_api_key", "content.lists.list_items"])
def test_it_answers_503_with_retry_after(alice: Person, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def fail(**_: object) -> None:
        raise OperationalError("the connection is closed")

    monkeypatch.setattr(where, fail)

    answer = alice.api.get("/api/content")

    assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
    assert answer["Retry-After"] == "5"
    assert "connection is closed" not in answer.content.decode()
