"""Lists, tag filters and searches use their indexes under row-level security, however large the tenant is."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import orjson
import pytest

from content import lists, search
from content.lists import Listing
from engarde.common.scopes import tenant_scope
from tests import people
from tests.bench import scale
from tests.people import Person

TABLES = {"content_storage_metadata", "content_versions", "content_tags", "content_search"}
SIZES = [pytest.param(30_000, id="30k"), pytest.param(300_000, id="300k", marks=pytest.mark.soak)]
PLANS: list[tuple[Listing, set[str]]] = [
    (Listing(), {"content_newest"}),
    (Listing(sort="created_at"), {"content_newest"}),
    (Listing(sort="-updated_at"), {"content_changed"}),
    (Listing(sort="title"), {"content_by_title"}),
    (Listing(status="scheduled"), {"content_"}),
    (Listing(content_type="reel"), {"content_"}),
    (Listing(campaign_space_id=UUID(int=1)), {"content_of_campaign"}),
    (Listing(brand_id=UUID(int=1)), {"content_of_brand"}),
    (Listing(tags=("week-7",)), {"content_tags"}),
    (Listing(tags=("week-7", "no-such-tag")), {"content_tags"}),
    (Listing(search="word77"), {"content_search_words"}),
    (Listing(search="running word77"), {"content_search_words"}),
    (Listing(search="shoes no-such-word"), {"content_search_words"}),
]


@pytest.fixture(scope="module", params=SIZES)
def dora(request: Any, django_db_setup: None, django_db_blocker: Any) -> Iterator[Person]:
    """Somebody with a lot of content."""
    with django_db_blocker.unblock():
        person = people.new_owner("dora", tier="enterprise")
        scale.fill(person.tenant_id, person.brand_id, items=request.param, labels=True)
        scale.analyze()
        yield person


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every node of a plan."""
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def plan_of(person: Person, listing: Listing) -> list[dict[str, Any]]:
    """Return the nodes of the plan of a list's page, as the tenant's own transaction gets it."""
    with tenant_scope(person.tenant_id):
        matching, query = lists._matching(person.tenant_id, listing)
        name, _, is_descending = lists.SORTS[listing.sort]
        sign = "-" if is_descending else ""
        rows = matching if query else matching.order_by(f"{sign}{name}", f"{sign}id")[:21]
        [plan] = orjson.loads(rows.explain(format="json"))
    return list(nodes(plan["Plan"]))


@pytest.mark.parametrize(("listing", "indexes"), PLANS, ids=lambda value: str(value)[:60])
def test_a_list_uses_its_index(dora: Person, database: None, listing: Listing, indexes: set[str]) -> None:
    found = plan_of(dora, listing)
    used = {node["Index Name"] for node in found if "Index Name" in node}
    read_whole = {node["Relation Name"] for node in found if node["Node Type"] == "Seq Scan"}
    assert all(any(name.startswith(index) for name in used) for index in indexes), found
    assert not read_whole & TABLES, found


def test_a_page_behind_a_cursor_starts_where_the_one_before_ended(dora: Person, database: None) -> None:
    first = lists.list_items(tenant_id=dora.tenant_id, listing=Listing(size=20))
    with tenant_scope(dora.tenant_id):
        matching, _ = lists._matching(dora.tenant_id, Listing())
        condition = lists._after(
            first.next_cursor or "", Listing().digest, *lists.SORTS["-created_at"][:2], is_descending=True
        )
        rows = matching.filter(condition).order_by("-created_at", "-id")[:21]
        [plan] = orjson.loads(rows.explain(format="json", analyze=True))
    [scan] = [node for node in nodes(plan["Plan"]) if node.get("Index Name") == "content_newest"]
    assert scan["Actual Rows"] <= 21
    assert scan.get("Rows Removed by Filter", 0) <= 20


def test_a_common_word_ranks_no_more_than_the_newest_thousand(dora: Person, database: None) -> None:
    with tenant_scope(dora.tenant_id):
        matching, query = lists._matching(dora.tenant_id, Listing(search="running"))
        found = search.best(tenant_id=dora.tenant_id, items=matching, query=query, start=990, count=20)
    assert [match.rank == search.UNRANKED for match in found.matches] == [False] * 10 + [True] * 10
