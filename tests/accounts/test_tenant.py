"""The tenant itself: its name and time zone."""

from typing import Any

import pytest

from tests import people
from tests.people import Person

URL = "/api/tenant"


@pytest.fixture
def owner(alice: Person) -> Person:
    """Alice, logged in: an API key owns nothing."""
    return people.logged_in(alice)


def test_members_see_the_tenant(owner: Person) -> None:
    viewer = people.new_colleague(owner, "viewer")

    answer = viewer.api.get(URL)

    assert answer.status_code == 200
    assert answer.json().keys() == {"id", "name", "time_zone", "created_at"}
    assert (answer.json()["id"], answer.json()["time_zone"]) == (str(owner.tenant_id), "UTC")


def test_owners_change_name_and_time_zone(owner: Person) -> None:
    answer = owner.api.patch(URL, {"name": "New name", "time_zone": "Europe/Berlin"})

    assert (answer.status_code, answer.json()["name"], answer.json()["time_zone"]) == (200, "New name", "Europe/Berlin")
    assert owner.api.get(URL).json() == answer.json()
    assert owner.api.get("/api/auth/me").json()["active_tenant"]["tenant_name"] == "New name"


def test_nobody_else_changes_it(owner: Person, alice: Person, charlie: Person) -> None:
    others = [people.new_colleague(owner, role) for role in ("admin", "editor", "viewer")]

    statuses = [person.api.patch(URL, {"name": "Mine"}).status_code for person in (*others, alice)]

    assert statuses == [403, 403, 403, 403]
    assert "Mine" not in owner.api.get(URL).json()["name"]
    assert people.JSONClient().get(URL).status_code == 401


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"time_zone": "Mars/Olympus"}, "time_zone"),
        ({"time_zone": "../../etc/passwd"}, "time_zone"),
        ({"time_zone": ""}, "time_zone"),
        ({"time_zone": None}, "time_zone"),
        ({"time_zone": 1}, "time_zone"),
        ({"name": ""}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"plan": "enterprise"}, "plan"),
    ],
)
def test_other_values_are_refused(owner: Person, body: dict[str, Any], field: str) -> None:
    answer = owner.api.patch(URL, body)

    assert (answer.status_code, answer.json()["code"]) == (400, "validation_error")
    assert [error["field"] for error in answer.json()["errors"]] == [field]


def test_changing_nothing_is_fine(owner: Person) -> None:
    assert owner.api.patch(URL, {}).json() == owner.api.get(URL).json()
