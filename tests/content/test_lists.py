"""Lists: every filter, every sort, pages and cursors that miss and repeat nothing, totals, bodies, and bad parameters."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.conf import settings as django_settings
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from content import lists, operations, search
from engarde.common import cursors
from tests import people, switches, tiers
from tests.content.answers import bad_fields, ok, refused
from tests.people import Person

DAY = datetime(2026, 3, 10, tzinfo=UTC)
SUMMARY = {
    "id", "title", "type", "content_type", "status", "brand_id", "campaign_space_id", "platforms", "tags", "hashtags",
    "mentions", "media", "scheduled_at", "metadata", "version", "created_at", "updated_at", "deleted_at", "storage",
    "ai_generation", "preview",
}  # fmt: skip
PAGINATION = {"page", "pageSize", "total", "totalPages", "hasNext", "hasPrevious", "nextCursor"}


def make(person: Person, now: datetime = DAY, **fields: Any) -> str:
    """Create an item at some time and return its id."""
    fields = {"title": "A title", "type": "post", "body": "A body", **fields}
    done = operations.create_content(tenant_id=person.tenant_id, author_id=None, fields=fields, now=now)
    return str(done.item.id)


def get(person: Person, **query: Any) -> dict[str, Any]:
    return ok(person.api.get("/api/content", query))


def ids(person: Person, **query: Any) -> list[str]:
    return [row["id"] for row in get(person, **query)["data"]]


def pagination(person: Person, **query: Any) -> dict[str, Any]:
    return dict(get(person, **query)["pagination"])


# The answer


def test_a_list_has_summaries_and_says_where_it_stands(alice: Person) -> None:
    item = alice.writes(body="<p>Hello  <b>world</b>!</p>" + "x" * 300, tags=["a"], metadata={"n": 1}, type="ad")

    answer = get(alice)

    assert answer.keys() == {"data", "pagination"}
    [row] = answer["data"]
    assert row.keys() == SUMMARY
    assert row["preview"] == ("Hello world ! " + "x" * 300)[:200]
    assert {name: row[name] for name in SUMMARY - {"preview"}} == {name: item[name] for name in SUMMARY - {"preview"}}
    assert answer["pagination"] == {
        "page": 1,
        "pageSize": 20,
        "total": 1,
        "totalPages": 1,
        "hasNext": False,
        "hasPrevious": False,
        "nextCursor": None,
    }


def test_an_empty_list_has_no_pages(alice: Person) -> None:
    expected = {"page": 1, "pageSize": 20, "total": 0, "totalPages": 0, "hasNext": False, "hasPrevious": False}
    for query in ({}, {"status": "draft"}, {"search": "x"}, {"deleted": "true"}):
        answer = get(alice, **query)
        assert answer["data"] == []
        assert answer["pagination"] == expected | {"nextCursor": None}


# Filters


@pytest.fixture(scope="module")
def varied(django_db_setup: None, django_db_blocker: Any) -> Iterator[tuple[Person, dict[str, str]]]:
    """Somebody's items that differ in one thing each, oldest first."""
    with django_db_blocker.unblock():
        person = people.new_owner()
        yield person, _differing(person)


def _differing(person: Person) -> dict[str, str]:
    brand = person.api.post("/api/brands", {"name": "Second"}).json()["id"]
    space = "01a204dc-5242-725b-8f16-7437be78a210"
    fields: dict[str, dict[str, Any]] = {
        "plain": {},
        "ad": {"type": "ad"},
        "published": {"status": "published"},
        "branded": {"brand_id": UUID(brand)},
        "spaced": {"campaign_space_id": UUID(space)},
        "tagged": {"tags": ["red", "Blue", "red"]},
        "red": {"tags": ["red"]},
        "shown": {"platforms": ["instagram", "x"]},
        "found": {"title": "Elephants", "body": "marching"},
    }
    made = {name: make(person, DAY + timedelta(hours=n), **fields[name]) for n, name in enumerate(fields)}
    return {**made, "brand_id": brand, "space_id": space}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"content_type": "ad"}, ["ad"]),
        ({"status": "published"}, ["published"]),
        ({"brand_id": "{brand_id}"}, ["branded"]),
        ({"campaign_space_id": "{space_id}"}, ["spaced"]),
        ({"tags": ["red"]}, ["red", "tagged"]),
        ({"tags": ["red", "Blue"]}, ["tagged"]),
        ({"tags": ["red", "red"]}, ["red", "tagged"]),
        ({"tags": ["red", "green"]}, []),
        ({"tags": ["blue"]}, []),
        ({"platform": "x"}, ["shown"]),
        ({"platform": "Instagram"}, []),
        ({"search": "elephant march"}, ["found"]),
        ({"content_type": "post", "status": "draft", "tags": ["red"], "search": "body"}, ["red", "tagged"]),
        ({"brand_id": str(uuid4())}, []),
        ({"campaign_space_id": str(uuid4())}, []),
        ({"content_type": "reel"}, []),
        ({"deleted": "true"}, []),
        ({"deleted": "false", "status": "published"}, ["published"]),
    ],
)
def test_a_filter_leaves_what_matches_and_counts_it(
    database: None, varied: tuple[Person, dict[str, str]], query: dict[str, Any], expected: list[str]
) -> None:
    person, made = varied
    query = {name: value.format(**made) if isinstance(value, str) else value for name, value in query.items()}

    answer = get(person, sort="-created_at", **query)

    assert [row["id"] for row in answer["data"]] == [made[name] for name in expected]
    assert answer["pagination"]["total"] == len(expected)
    assert sorted(ids(person, **query)) == sorted(made[name] for name in expected)
    for count in ("exact", "estimated", "none"):
        assert len(ids(person, count=count, **query)) == len(expected)


def test_filters_go_by_the_newest_version(alice: Person) -> None:
    item_id = make(alice, tags=["old"], platforms=["old"], title="oldtitle")

    alice.api.patch(f"/api/content/{item_id}", {"tags": ["new"], "platforms": [], "title": "newtitle", "type": "ad"})

    assert ids(alice, tags="new") == ids(alice, search="newtitle") == ids(alice, content_type="ad") == [item_id]
    assert ids(alice, tags="old") == ids(alice, platform="old") == ids(alice, search="oldtitle") == []


def test_filters_combine_with_the_trash(alice: Person) -> None:
    kept, gone, other = make(alice, tags=["a"]), make(alice, tags=["a"]), make(alice)
    for item_id in (gone, other):
        alice.api.delete(f"/api/content/{item_id}")

    assert ids(alice, tags="a") == [kept]
    assert ids(alice, tags="a", deleted="true") == [gone]
    assert sorted(ids(alice, deleted="true")) == sorted([gone, other])
    assert pagination(alice, deleted="true")["total"] == 2
    assert get(alice, deleted="true", include="body")["data"][0]["body"] == "A body"
    assert ids(alice, deleted="true", search="title body") == ids(alice, deleted="true", sort="-created_at")


# Dates


@pytest.fixture(scope="module")
def dated(django_db_setup: None, django_db_blocker: Any) -> Iterator[tuple[Person, dict[str, str]]]:
    """Somebody's items at the edges of a day."""
    times = {
        "before": DAY - timedelta(microseconds=1),
        "first": DAY,
        "noon": DAY + timedelta(hours=12, microseconds=500),
        "last": DAY + timedelta(days=1, microseconds=-1),
        "after": DAY + timedelta(days=1),
    }
    with django_db_blocker.unblock():
        person = people.new_owner()
        yield person, {make(person, when): name for name, when in times.items()}


@pytest.mark.parametrize(
    ("since", "until", "expected"),
    [
        ("2026-03-10", "2026-03-10", "first noon last"),
        ("2026-03-10", None, "first noon last after"),
        (None, "2026-03-10", "before first noon last"),
        (None, "2026-03-09", "before"),
        ("2026-03-11", None, "after"),
        ("2026-03-10T00:00:00Z", "2026-03-10T12:00:00.000500Z", "first noon"),
        ("2026-03-10T00:00:00.000001Z", "2026-03-10T12:00:00.000499Z", ""),
        ("2026-03-10T12:00:00.000500Z", "2026-03-11T00:00:00Z", "noon last after"),
        ("2026-03-10T14:00:00+02:00", "2026-03-10T07:00:00-05:00", ""),
        ("2026-03-10T14:00:00.0005+02:00", "2026-03-10T07:00:01-05:00", "noon"),
        ("2026-03-10T12:00", "2026-03-10T12:01", "noon"),
        ("2026-03-10t12:00:00z", None, "noon last after"),
        ("2026-03-12", "2026-03-01", ""),
        ("0001-01-01", "9999-12-31", "before first noon last after"),
        ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59.999999-14:00", "before first noon last after"),
        (None, "0001-01-01", ""),
        ("9999-12-31", None, ""),
    ],
)
def test_dates_are_of_creation_and_inclusive(
    database: None, dated: tuple[Person, dict[str, str]], since: str | None, until: str | None, expected: str
) -> None:
    person, names = dated
    given_dates = {"date_from": since, "date_to": until}
    query = {name: value for name, value in given_dates.items() if value}

    found = [names[item_id] for item_id in ids(person, sort="created_at", **query)]

    assert found == expected.split()
    assert pagination(person, **query)["total"] == len(found)


# Sorts


ORDERS = ["-created_at", "created_at", "-updated_at", "updated_at", "title"]


@pytest.mark.parametrize("sort", ORDERS)
def test_a_sort_holds_over_pages_and_cursors_with_ties(alice: Person, sort: str) -> None:
    for number, title in enumerate(["b", "a", "b", "B", "ä", "a", "", "Z", "b"]):
        make(alice, DAY + timedelta(hours=number % 3), title=title or " ")

    by_page = [row for page in (1, 2, 3) for row in get(alice, sort=sort, page=page, pageSize=4)["data"]]
    by_cursor = walked(alice, sort=sort, pageSize=4)

    assert [row["id"] for row in by_page] == [row["id"] for row in by_cursor]
    assert len({row["id"] for row in by_page}) == 9
    if sort != "title":
        keys = [(row[sort.strip("-")], row["id"]) for row in by_page]
        assert keys == sorted(keys, reverse=sort.startswith("-"))
    else:
        runs = [title for title, _ in groupby(row["title"] for row in by_page)]
        assert len(runs) == len(set(runs))


def walked(person: Person, **query: Any) -> list[dict[str, Any]]:
    """Return all rows of a list by its cursors."""
    page = get(person, **query)
    rows = list(page["data"])
    while page["pagination"]["hasNext"]:
        page = get(person, cursor=page["pagination"]["nextCursor"], **query)
        rows += page["data"]
    assert page["pagination"]["nextCursor"] is None
    return rows


def test_newest_changes_come_first_when_sorted_by_them(alice: Person) -> None:
    first, second, third = (make(alice, DAY + timedelta(hours=n)) for n in range(3))
    alice.api.patch(f"/api/content/{first}", {"body": "changed"})

    assert ids(alice, sort="-updated_at") == [first, third, second]
    assert ids(alice) == [third, second, first]


# Pages


def test_pages_tell_what_lies_before_and_after(alice: Person) -> None:
    made = [make(alice, DAY + timedelta(hours=n)) for n in range(7)][::-1]

    for query in ({}, {"count": "exact"}, {"count": "none"}, {"status": "draft"}, {"search": "title"}):
        for page, rows in ((1, made[:3]), (2, made[3:6]), (3, made[6:]), (4, []), (10**15, [])):
            answer = get(alice, page=page, pageSize=3, **query)
            shown = answer["pagination"]
            counts = (None, None) if query.get("count") == "none" else (7, 3)
            assert [row["id"] for row in answer["data"]] == rows
            assert (shown["page"], shown["pageSize"], shown["hasNext"], shown["hasPrevious"]) == (
                page,
                3,
                page < 3,
                page > 1,
            )
            assert (shown["total"], shown["totalPages"]) == counts
            assert (shown["nextCursor"] is None) == (page >= 3)


QUERIES: list[dict[str, Any]] = [{}, {"count": "none"}, {"status": "draft"}, {"search": "body"}]


def test_has_next_is_exact_at_the_edge(alice: Person) -> None:
    for _ in range(4):
        make(alice)

    for size, more in ((3, True), (4, False), (5, False), (100, False)):
        for query in QUERIES:
            assert pagination(alice, pageSize=size, **query)["hasNext"] is more


def test_a_page_reached_by_cursor_knows_no_page_before_it(alice: Person) -> None:
    for _ in range(5):
        make(alice)
    first = pagination(alice, pageSize=2)

    second = pagination(alice, pageSize=2, cursor=first["nextCursor"])
    last = pagination(alice, pageSize=1, cursor=second["nextCursor"])

    assert second.keys() == last.keys() == PAGINATION
    for shown, more in ((second, True), (last, False)):
        assert (shown["page"], shown["hasPrevious"], shown["hasNext"], shown["total"]) == (None, None, more, 5)


# Cursors


def test_a_cursor_belongs_to_its_filters_and_its_sort(alice: Person) -> None:
    for _ in range(3):
        make(alice, tags=["a", "b"])
    plain = pagination(alice, pageSize=1)["nextCursor"]
    tagged = pagination(alice, pageSize=1, tags=["a", "b"], sort="title")["nextCursor"]
    found = pagination(alice, pageSize=1, search="title")["nextCursor"]

    for cursor, query in (
        (plain, {"sort": "created_at"}),
        (plain, {"sort": "title"}),
        (plain, {"status": "draft"}),
        (plain, {"deleted": "true"}),
        (plain, {"search": "title"}),
        (plain, {"date_from": "2026-01-01"}),
        (plain, {"platform": "x"}),
        (tagged, {"tags": ["a", "b"]}),
        (tagged, {"tags": ["a"], "sort": "title"}),
        (tagged, {"sort": "title"}),
        (found, {"search": "other"}),
        (found, {"search": "title", "sort": "title"}),
        (found, {}),
    ):
        assert bad_fields(alice.api.get("/api/content", {"cursor": cursor, **query})) == {"cursor"}
    assert len(ids(alice, cursor=plain, sort="-created_at", pageSize=100, include="body", count="none")) == 2
    assert len(ids(alice, cursor=plain, deleted="false")) == 2
    assert len(ids(alice, cursor=tagged, tags=["b", "a", "b"], sort="title")) == 2
    assert len(ids(alice, cursor=found, search="title", sort="relevance")) == 2


@pytest.mark.parametrize("sort", [*ORDERS, "relevance"])
@pytest.mark.parametrize(
    "values",
    [[], ["x"], [None, None], [5, 5], [5, str(uuid4())], ["\0", str(uuid4())], [2**63], [-1], [{}, []], [0.1] * 5],
)
def test_a_forged_cursor_is_refused(reader: Person, sort: str, values: list[Any]) -> None:
    words = "x" if sort == "relevance" else None
    digest = lists.Listing(sort=sort, search=words).digest
    forged = cursors.encode(values, digest)
    query = {"cursor": forged, "sort": sort} | ({"search": words} if words else {})

    assert bad_fields(reader.api.get("/api/content", query)) == {"cursor"}


def test_a_cursor_after_the_longest_title_is_taken(alice: Person) -> None:
    for _ in range(2):
        make(alice, title="\x01" * 300)

    assert len(walked(alice, sort="title", pageSize=1)) == 2


def test_a_cursor_goes_on_where_its_item_is_gone(alice: Person) -> None:
    made = [make(alice, DAY + timedelta(hours=n)) for n in range(4)][::-1]
    cursor = pagination(alice, pageSize=2)["nextCursor"]
    alice.api.delete(f"/api/content/{made[1]}")

    assert ids(alice, cursor=cursor) == made[2:]


def test_a_cursor_of_another_tenant_leads_to_ones_own_items_only(alice: Person, charlie: Person) -> None:
    for _ in range(3):
        make(alice, DAY + timedelta(days=1))
        make(charlie)
    cursor = pagination(alice, pageSize=1)["nextCursor"]

    assert set(ids(charlie, cursor=cursor)) == set(ids(charlie))


steps = st.lists(st.sampled_from(["insert", "delete", "nothing"]), min_size=1, max_size=6)
WALKS = [("-created_at", 0), ("title", 0), ("relevance", 3)]
MORE_WALKS = [*[(sort, 0) for sort in ORDERS[1:4]], ("relevance", 1000)]


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(size=st.integers(1, 4), between=st.lists(steps, max_size=5), data=st.data())
@pytest.mark.parametrize(
    ("sort", "ranked"), [*WALKS, *[pytest.param(*walk, marks=pytest.mark.soak) for walk in MORE_WALKS]]
)
def test_a_walk_meets_each_item_once_while_others_come_and_go(
    database: None,
    monkeypatch: pytest.MonkeyPatch,
    sort: str,
    ranked: int,
    size: int,
    between: list[list[str]],
    data: Any,
) -> None:
    monkeypatch.setattr(search, "RANKED", ranked)
    person = people.new_owner()
    moments, titles = st.integers(0, 2), st.sampled_from(["walk", "walk b", "a walk walk"])

    def insert() -> str:
        when = DAY + timedelta(hours=data.draw(moments))
        return make(person, when, title=data.draw(titles), body=data.draw(titles))

    staying, leaving = {insert() for _ in range(5)}, [insert() for _ in range(4)]
    query = {"sort": sort, "pageSize": size} | ({"search": "walk"} if sort == "relevance" else {})
    page, met = get(person, **query), list[str]()
    for acts in [*between, *[["nothing"]] * 30]:
        met += [row["id"] for row in page["data"]]
        if not page["pagination"]["hasNext"]:
            break
        for act in acts:
            if act == "insert":
                insert()
            elif act == "delete" and leaving:
                assert person.api.delete(f"/api/content/{leaving.pop()}").status_code == 200
        page = get(person, cursor=page["pagination"]["nextCursor"], **query)

    assert len(met) == len(set(met))
    assert staying <= set(met)


# Totals


def test_beyond_ten_thousand_the_total_is_an_estimate_unless_asked_for(
    alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "COUNTED", 5)
    for number in range(7):
        make(alice, DAY + timedelta(hours=number), tags=["a"] if number < 5 else ["a", "b"])

    many, few = pagination(alice, tags="a", pageSize=3), pagination(alice, tags="b", pageSize=2)
    exact, none = pagination(alice, tags="a", count="exact"), pagination(alice, tags="a", count="none")
    estimated = pagination(alice, tags="a", count="estimated")

    assert many["total"] > 5
    assert many["totalIsEstimate"] is True
    assert many["totalPages"] == -(-many["total"] // 3)
    assert many["hasNext"] is True
    assert pagination(alice, tags="a", pageSize=7)["hasNext"] is False
    assert (few["total"], "totalIsEstimate" in few) == (2, False)
    assert (exact["total"], "totalIsEstimate" in exact) == (7, False)
    assert (none["total"], none["totalPages"], "totalIsEstimate" in none) == (None, None, False)
    assert isinstance(estimated["total"], int)
    assert estimated["totalIsEstimate"] is True


def test_the_total_without_filters_is_an_estimate_beyond_ten_thousand_too(
    alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "COUNTED", 2)
    for _ in range(3):
        make(alice)

    assert pagination(alice)["totalIsEstimate"] is True
    assert "totalIsEstimate" not in pagination(alice, count="exact")
    assert pagination(alice, count="exact")["total"] == 3


def test_the_total_follows_what_comes_and_goes(alice: Person) -> None:
    first, *_ = [make(alice) for _ in range(3)]
    alice.api.delete(f"/api/content/{first}")
    assert pagination(alice)["total"] == pagination(alice, status="draft")["total"] == 2
    alice.api.post(f"/api/content/{first}/restore")
    assert pagination(alice)["total"] == pagination(alice, status="draft")["total"] == 3


# Bodies


def test_bodies_come_when_they_are_asked_for(alice: Person) -> None:
    make(alice, body="<p>the  body</p>")

    [plain], [whole] = get(alice)["data"], get(alice, include="body")["data"]

    assert "body" not in plain
    assert whole == plain | {"body": "<p>the  body</p>"}
    assert whole["preview"] == "the body"


def test_bodies_beyond_the_limit_of_an_answer_are_left_out(alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "MAX_BODIES_BYTES", 100)
    sizes = [60, 50, 40, 1, 0]  # as the list has them; the second does not fit behind the first
    for number, size in enumerate(reversed(sizes)):
        make(alice, DAY + timedelta(hours=number), body="x" * size)

    rows = get(alice, include="body")["data"]

    assert [row["body"] if row["body"] is None else len(row["body"]) for row in rows] == [60, None, 40, None, 0]
    assert [row.get("body_omitted", False) for row in rows] == [False, True, False, True, False]
    assert [len(row["preview"]) for row in rows] == sizes
    assert all(row["storage"]["available"] for row in rows)


def test_an_answer_has_sixteen_mebibytes_of_bodies(alice: Person) -> None:
    person = people.new_owner()
    for number in range(17):
        make(person, DAY + timedelta(hours=number), body=str(number % 10) * 1024**2)

    rows = get(person, include="body")["data"]

    assert [row.get("body_omitted", False) for row in rows] == [False] * 16 + [True]
    assert sum(len(row["body"] or "") for row in rows) == 16 * 1024**2


@pytest.fixture
def only_in_zerodb(alice: Person, upload: Callable[[], int], back_up: Callable[[], int]) -> list[str]:
    """Items whose documents left the spool and whose copies are forgotten, newest first."""
    made = [make(alice, DAY + timedelta(hours=n), body=f"body {n}", tags=["kept"]) for n in range(20)]
    upload()
    back_up()
    assert not any(tiers.spooled(item_id) for item_id in made)
    tiers.forget_copies()
    return made[::-1]


@pytest.mark.parametrize("query", [{}, {"include": "body"}, {"search": "body"}, {"tags": "kept", "pageSize": 100}])
def test_a_page_takes_one_call_to_zerodb(alice: Person, only_in_zerodb: list[str], query: dict[str, Any]) -> None:
    url = django_settings.ZERODB_BASE_URL
    before = switches.requests_seen(url)

    rows = get(alice, **query)["data"]

    assert sum((switches.requests_seen(url) - before).values()) == 1
    assert [row["id"] for row in rows] == only_in_zerodb
    assert {row["preview"] for row in rows} == {f"body {number}" for number in range(20)}
    assert {row["storage"]["tier"] for row in rows} == {"zerodb"}


def test_a_list_goes_on_without_zerodb_and_the_backup(
    alice: Person, only_in_zerodb: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = make(alice, DAY + timedelta(days=1), body="fresh", tags=["new"])
    gone = only_in_zerodb[0]

    with tiers.zerodb_away(monkeypatch), tiers.bigquery_away(monkeypatch):
        tiers.forget_copies()
        for query in ({}, {"include": "body"}):
            rows = {row["id"]: row for row in get(alice, pageSize=100, **query)["data"]}
            assert len(rows) == 21
            assert (rows[fresh]["preview"], rows[fresh]["storage"]["available"]) == ("fresh", True)
            assert (rows[gone]["preview"], rows[gone]["storage"]["available"]) == (None, False)
            assert rows[gone].get("body") is None
            assert "body_omitted" not in rows[gone]
            assert (rows[gone]["title"], rows[gone]["storage"]["size_bytes"]) == ("A title", 7)
        answer = alice.api.get(f"/api/content/{gone}")
        refused(answer, 503, "document_unavailable")
        assert int(answer["Retry-After"]) > 0
        assert ids(alice, search="fresh") == [fresh]
    tiers.forget_copies()

    assert get(alice, pageSize=100)["data"][1]["preview"] == "body 19"


def test_the_backup_stands_in_for_zerodb(
    alice: Person, only_in_zerodb: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with tiers.zerodb_away(monkeypatch):
        rows = get(alice)["data"]
    tiers.forget_copies()

    assert {row["storage"]["tier"] for row in rows} == {"backup"}
    assert all(row["storage"]["available"] and row["preview"] for row in rows)


# Bad parameters


BAD = {
    "page": ["0", "-1", "1.5", "", "a", "1&page=2", "9" * 19],
    "pageSize": ["0", "-1", "101", "", "1.5", "٣", "5&pageSize=5"],
    "cursor": ["", "x", "%00", "a" * 3001, "e30", "bnVsbA", "W10", "é", "x&cursor=x"],
    "content_type": ["", "novel", "Post", "post&content_type=ad"],
    "status": ["", "deleted", "DRAFT", "draft&status=draft"],
    "brand_id": ["", "5", "x", "%00", f"{uuid4()}&brand_id={uuid4()}"],
    "campaign_space_id": ["", "5", "null"],
    "tags": ["", "x" * 101, "%00", "&".join(["a", *["tags=a"] * 20])],
    "platform": ["", "x" * 101, "%00", "a&platform=a"],
    "search": ["x" * 10_000, "%00", "a%00b", "a&search=a"],
    "date_from": ["", "yesterday", "2026", "2026-02-30", "2026-13-01", "20260101", "2026-W01-1", "2026-1-1", "1767225600",
                  "2026-01-01T25:00:00Z", "2026-01-01%2000:00:00", "2026-01-01T00:00:00%2B99:00", "%D9%A2026-01-01", "%00"],
    "date_to": ["", "soon", "2026-01-32", "0000-01-01", "10000-01-01", "2026-01-01&date_to=2026-01-01"],
    "deleted": ["", "1", "True", "yes", "true&deleted=true"],
    "sort": ["", "body", "-title", "id", "created_at,title", "relevance", "-relevance", "title&sort=title"],
    "count": ["", "true", "Exact", "none&count=none"],
    "include": ["", "bodies", "body,body", "body&include=body"],
    "unknown": ["", "1"],
    "type": ["post"],
    "tag": ["a"],
    "page_size": ["5"],
    "content_type[]": ["post"],
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in BAD for value in BAD[name]])
def test_a_bad_parameter_is_refused_by_name(reader: Person, name: str, value: str) -> None:
    assert bad_fields(reader.api.get(f"/api/content?{name}={value}")) == {name}


@pytest.fixture(scope="module")
def _reader(django_db_setup: None, django_db_blocker: Any) -> Person:
    with django_db_blocker.unblock():
        return people.new_owner()


@pytest.fixture
def reader(database: None, _reader: Person) -> Person:
    """Somebody without content, for tests that only ask."""
    return _reader


def test_a_page_and_a_cursor_contradict_each_other(alice: Person) -> None:
    for _ in range(2):
        make(alice)
    cursor = pagination(alice, pageSize=1)["nextCursor"]

    assert bad_fields(alice.api.get("/api/content", {"cursor": cursor, "page": 1})) == {"page"}


def test_all_bad_parameters_are_named_at_once(reader: Person) -> None:
    assert bad_fields(reader.api.get("/api/content?page=0&sort=body&x=1")) == {"page", "sort", "x"}


values = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["1", "true", "body", "title", "relevance", "draft", "2026-01-01", str(uuid4()), "none", "post"]
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(query=st.dictionaries(st.sampled_from(sorted(BAD)), values | st.lists(values, max_size=3), max_size=4))
def test_whatever_is_asked_is_answered_or_refused(reader: Person, query: dict[str, Any]) -> None:
    answer = reader.api.get("/api/content", query)

    assert answer.status_code in {200, 400}, answer.content[:500]
    if answer.status_code == 400:
        assert bad_fields(answer) <= set(query)


def test_now_is_within_the_day_of_today(alice: Person) -> None:
    item_id = alice.writes()["id"]
    today = timezone.now().astimezone(UTC).date().isoformat()

    assert ids(alice, date_from=alice.api.get(f"/api/content/{item_id}").json()["created_at"]) == [item_id]
    assert ids(alice, date_from=today) == [item_id]
