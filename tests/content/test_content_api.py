"""Creating, reading, changing and deleting content over HTTP."""

from collections.abc import Callable

from tests.people import Person


def test_it_creates_an_item_and_says_where_it_is(alice: Person) -> None:
    answer = alice.api.post("/api/content", {"title": "Hello", "type": "post", "body": "Wörld", "tags": ["a", " b "]})

    item = answer.json()
    assert answer.status_code == 201
    assert answer["Location"] == f"/api/content/{item['id']}"
    assert (item["title"], item["body"], item["type"], item["status"]) == ("Hello", "Wörld", "post", "draft")
    assert (item["version"], item["tags"], item["brand_id"]) == (1, ["a", " b "], str(alice.brand_id))
    assert item["storage"] == {
        "size_bytes": 6,
        "tier": "spool",
        "available": True,
        "zerodb_id": None,
        "bigquery_backed_up": False,
        "bigquery_last_sync_at": None,
    }


def test_it_moves_through_all_three_tiers(alice: Person, upload: Callable[[], int], back_up: Callable[[], int]) -> None:
    item_id = alice.writes(body="kept everywhere")["id"]

    upload()
    back_up()

    item = alice.api.get(f"/api/content/{item_id}").json()
    assert item["body"] == "kept everywhere"
    assert item["storage"]["tier"] == "zerodb"
    assert item["storage"]["zerodb_id"]
    assert item["storage"]["bigquery_backed_up"]
