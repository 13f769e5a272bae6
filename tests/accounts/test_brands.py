"""Brands: creating, reading, changing and deleting them."""

from typing import Any
from uuid import uuid4

import pytest

from engarde.accounts.models import Brand
from engarde.common.scopes import system_scope
from tests.people import Person, new_colleague

FIELDS = {"id", "name", "voice", "language", "created_at"}


def create(person: Person, **fields: Any) -> dict[str, Any]:
    answer = person.api.post("/api/brands", {"name": "Acme", **fields})
    assert answer.status_code == 201, answer.content
    return answer.json()


def test_it_creates_a_brand_and_says_where_it_is(alice: Person) -> None:
    answer = alice.api.post("/api/brands", {"name": " Acme ✨", "voice": "Warm.\n", "language": "pt-BR"})

    brand = answer.json()
    assert answer.status_code == 201
    assert set(brand) == FIELDS
    assert (brand["name"], brand["voice"], brand["language"]) == (" Acme ✨", "Warm.\n", "pt-BR")
    assert brand["created_at"].endswith("Z")
    assert alice.api.get(answer["Location"]).json() == brand


def test_voice_and_language_may_be_left_out(alice: Person) -> None:
    brand = create(alice)

    assert (brand["voice"], brand["language"]) == ("", "en")


def test_it_lists_brands_oldest_first_by_page(alice: Person) -> None:
    second, third = create(alice, name="second"), create(alice, name="third")

    answer = alice.api.get("/api/brands", {"page": 2, "pageSize": 2}).json()

    assert [row["id"] for row in alice.api.get("/api/brands").json()["data"]] == [
        str(alice.brand_id),
        second["id"],
        third["id"],
    ]
    assert answer["data"] == [third]
    assert (answer["pagination"]["total"], answer["pagination"]["totalPages"]) == (3, 2)


def test_it_changes_only_what_is_given(alice: Person) -> None:
    brand = create(alice, voice="Warm.")

    answer = alice.api.patch(f"/api/brands/{brand['id']}", {"name": "Acme Ltd"})

    assert answer.status_code == 200
    assert answer.json() == {**brand, "name": "Acme Ltd"}
    assert alice.api.get(f"/api/brands/{brand['id']}").json() == answer.json()
    assert alice.api.patch(f"/api/brands/{brand['id']}", {}).json() == answer.json()


def test_it_deletes_a_brand_without_content(alice: Person) -> None:
    brand = create(alice)

    answer = alice.api.delete(f"/api/brands/{brand['id']}")

    assert (answer.status_code, answer.content) == (204, b"")
    assert alice.api.get(f"/api/brands/{brand['id']}").status_code == 404
    assert alice.api.delete(f"/api/brands/{brand['id']}").status_code == 404


def test_a_brand_with_content_stays_even_when_the_content_is_in_the_trash(alice: Person) -> None:
    brand = create(alice)
    item = alice.writes(brand_id=brand["id"])

    before = alice.api.delete(f"/api/brands/{brand['id']}")
    alice.api.delete(f"/api/content/{item['id']}")
    after = alice.api.delete(f"/api/brands/{brand['id']}")

    assert [(answer.status_code, answer.json()["code"]) for answer in (before, after)] == [(409, "brand_in_use")] * 2
    assert alice.api.get(f"/api/brands/{brand['id']}").status_code == 200


def test_another_tenants_brand_is_not_there(alice: Person, charlie: Person) -> None:
    for brand_id in (alice.brand_id, uuid4()):
        path = f"/api/brands/{brand_id}"
        answers = [charlie.api.get(path), charlie.api.patch(path, {"name": "mine"}), charlie.api.delete(path)]
        assert [(answer.status_code, answer.json()["detail"]) for answer in answers] == [
            (404, "There is no such brand.")
        ] * 3

    assert str(alice.brand_id) not in charlie.api.get("/api/brands").content.decode()
    written = charlie.api.post("/api/content", {"title": "x", "type": "post", "brand_id": str(alice.brand_id)})
    assert written.status_code in {400, 404}
    with system_scope("a test looks"):
        assert Brand.objects.get(id=alice.brand_id).name != "mine"


def test_everybody_reads_and_admins_write(alice: Person) -> None:
    for role, allowed in {"viewer": False, "editor": False, "admin": True, "owner": True}.items():
        person = new_colleague(alice, role)
        brand = create(alice)["id"]

        assert person.api.get("/api/brands").status_code == 200
        assert person.api.get(f"/api/brands/{brand}").status_code == 200
        statuses = [
            person.api.post("/api/brands", {"name": "x"}).status_code,
            person.api.patch(f"/api/brands/{brand}", {"name": "x"}).status_code,
            person.api.delete(f"/api/brands/{brand}").status_code,
        ]
        assert statuses == ([201, 200, 204] if allowed else [403] * 3), role


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": None}, "name"),
        ({"name": 5}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": "a\0b"}, "name"),
        ({"name": "x", "voice": None}, "voice"),
        ({"name": "x", "voice": "x" * 20_001}, "voice"),
        ({"name": "x", "language": "not a tag"}, "language"),
        ({"name": "x", "language": "en\n"}, "language"),
        ({"name": "x", "language": 7}, "language"),
        ({"name": "x", "tenant_id": str(uuid4())}, "tenant_id"),
        ({"name": "x", "id": str(uuid4())}, "id"),
    ],
)
def test_it_names_the_field_that_is_wrong(alice: Person, body: dict[str, Any], field: str) -> None:
    answers = [alice.api.post("/api/brands", body)]
    if body:
        answers.append(alice.api.patch(f"/api/brands/{alice.brand_id}", body))

    for answer in answers:
        assert answer.status_code == 400
        assert {error["field"] for error in answer.json()["errors"]} == {field}
