"""Search: stems, ranks, the prefix of the last word, the brand's language, and whatever somebody may type."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from content import search
from content.models import SearchEntry
from engarde.common.scopes import tenant_scope
from tests import people
from tests.content.answers import bad_fields, ok
from tests.people import Person


def found(person: Person, text: str, **query: Any) -> list[str]:
    asked: dict[str, Any] = {"search": text, "pageSize": 100, **query}
    answer = ok(person.api.get("/api/content", asked))
    titles = [row["title"] for row in answer["data"]]
    assert answer["pagination"]["total"] == len(titles)
    return titles


# Words


@pytest.fixture(scope="module")
def _library(django_db_setup: None, django_db_blocker: Any) -> Iterator[Person]:
    with django_db_blocker.unblock():
        person = people.new_owner()
        person.api.patch(f"/api/brands/{person.brand_id}", {"language": "en"})
        person.writes(title="Running shoes", body="Our studies of the happiest runners, well-known in Zürich.")
        person.writes(title="Coffee", body="<p class='hidden'>Fresh <b>roasted</b> beans<br>daily at O'Brien's</p>")
        person.writes(
            title="Launch", body="Write to hello@example.com or see https://example.com/spring-sale?x=1 #sale"
        )
        person.writes(title="Numbers", body="Version 2.50 costs 1000 €, at 50% off, code ABC123DEF")
        person.writes(
            title="Entities", body="Salt &amp; pepper, caf&eacute; <script>var tracker = 1;</script><!-- remark -->"
        )
        person.writes(
            title=SIGNS,
            body="before\N{EM DASH}after\u2026 non\u00a0breaking soft\u00adhyphen \u00abguillemets\u00bb e\u0301tude नमस्ते \uff21\uff22\uff38",
        )
        yield person


@pytest.fixture
def library(database: None, _library: Person) -> Person:
    """Somebody whose items are only searched."""
    return _library


SHOES, COFFEE, LAUNCH, NUMBERS, ENTITIES = "Running shoes", "Coffee", "Launch", "Numbers", "Entities"
SIGNS = "\u201cQuoted\u201d \N{PARTY POPPER}Party\N{PARTY POPPER}"


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("running", SHOES),
        ("run", SHOES),
        ("runs", SHOES),
        ("RUNNER", SHOES),
        ("study", SHOES),
        ("studied", SHOES),
        ("study running", SHOES),
        ("shoe", SHOES),
        ("runni", SHOES),  # the beginning of a word that is no stem
        ("studi", SHOES),
        ("happi", SHOES),
        ("happiest ru", SHOES),
        ("shoes zür", SHOES),
        ("ZÜRICH", SHOES),
        ("well-known", SHOES),
        ("well-kn", SHOES),
        ("known", SHOES),
        ("the happiest of runners", SHOES),
        ("  runners \t\n shoes  ", SHOES),
        ("roast bean", COFFEE),
        ("O'Brien", COFFEE),
        ("o'brien's", COFFEE),
        ("brien", COFFEE),
        ("beans, daily!", COFFEE),
        ("coffee: fresh (roasted)", COFFEE),
        ('"fresh roasted"', COFFEE),
        ("hello@example.com", LAUNCH),
        ("example.com", LAUNCH),
        ("https://example.com/spring-sale?x=1", LAUNCH),
        ("#sale", LAUNCH),
        ("2.50", NUMBERS),
        ("2.5", NUMBERS),
        ("50%", NUMBERS),
        ("abc123", NUMBERS),
        ("1000 €", NUMBERS),
        ("pepper salt", ENTITIES),
        ("salt & pepper", ENTITIES),
        ("café", ENTITIES),
        ("quoted", SIGNS),
        ("party quot", SIGNS),
        ("before after", SIGNS),
        ("before\N{EM DASH}after\u2026", SIGNS),
        ("non breaking", SIGNS),
        ("softhyphen", SIGNS),
        ("guillemets", SIGNS),
        ("\u00e9tude", SIGNS),
        ("e\u0301tud", SIGNS),
        ("नमस्ते", SIGNS),
        ("abx", SIGNS),
    ],
)
def test_words_are_found_in_any_form_and_the_last_by_its_beginning(library: Person, text: str, title: str) -> None:
    assert found(library, text) == [title]


@pytest.mark.parametrize(
    "text",
    [
        "walking",
        "running coffee",  # each in another item
        "shoes nothing",
        "runni shoes",  # only the last word may be begun
        "unning",
        "hidden",  # markup
        "class",
        "script",
        "tracker",
        "remark",
        "amp",
    ],
)
def test_what_is_not_there_is_not_found(library: Person, text: str) -> None:
    assert found(library, text) == []


NO_WORDS = ["", "!", "...", " ", "\t", "&", "|", "!!!", "()", ":*", "'", "''", '"', "\\", "\\\\", "<->", "-", "%", "\N{GRINNING FACE}",
            "'':*", "\u2028", "\x01", "€", "& | !", "' '", "\\'", "\u00a0", "\x1f"]  # fmt: skip


@pytest.mark.parametrize("text", NO_WORDS)
def test_no_word_finds_nothing(library: Person, text: str) -> None:
    assert found(library, text) == found(library, text, sort="title", count="exact") == []


@pytest.mark.parametrize("text", ["the", "the of", "of the and", "a"])
def test_words_that_say_nothing_break_nothing(library: Person, text: str) -> None:
    found(library, text)


@pytest.mark.parametrize(
    "sign", ["!", "...", "&", ":*", "'", "\\", "\N{GRINNING FACE}", "(", "\\'", "<->", "|", "\N{EM DASH}", "\u201c"]
)
def test_signs_around_words_do_not_matter(library: Person, sign: str) -> None:
    for text in (f"{sign} beans", f"beans {sign}", f"roasted {sign} bea", f"roasted {sign}"):
        assert found(library, text) == [COFFEE]


HOSTILE = [
    "beans'); DROP TABLE content_search; --", "' OR 1=1 --", "beans & !shoes", "beans | shoes", "!shoes", "beans:*A", "beans <-> daily",
    "(beans", "beans)", "beans\\", "beans'", "\\'beans", "%s %(x)s", "{} {0}", "$1", "beans\x01shoes", "a" * 200, "ß" * 200,
    "\N{GRINNING FACE}" * 200, "a-" * 100, "http://" * 28, "a'" * 100, "\\" * 200, "'" * 200, "\u202ebeans", "ﬁ", "İ", "日本語 テスト",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_are_only_texts(library: Person, text: str) -> None:
    assert len(found(library, text)) <= 1


@pytest.mark.parametrize("text", ["a\0", "\0", "x" * 201, "x" * 10_000])
def test_what_is_no_search_is_refused(library: Person, text: str) -> None:
    assert bad_fields(library.api.get("/api/content", {"search": text})) == {"search"}


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    text=st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters="\0") | st.sampled_from("'\\:*&|!()<->\" "),
        min_size=1,
        max_size=60,
    )
)
def test_whatever_is_typed_is_answered(library: Person, text: str) -> None:
    assert len(found(library, text)) <= 6


# Order


def test_the_title_counts_for_more_than_the_body(alice: Person) -> None:
    alice.writes(title="In the title: elephants", body="nothing")
    for number in range(2):
        alice.writes(title=f"In the body {number}", body="elephants " * (20 * number + 1))

    assert found(alice, "elephant")[0] == "In the title: elephants"
    assert found(alice, "elephant", sort="relevance") == found(alice, "elephant")
    assert found(alice, "elephant", sort="created_at")[0] == "In the title: elephants"
    assert found(alice, "elephant", sort="-created_at")[-1] == "In the title: elephants"
    assert found(alice, "elephant", sort="title") == ["In the body 0", "In the body 1", "In the title: elephants"]


def test_the_newest_of_equals_comes_first(alice: Person) -> None:
    for number in range(3):
        alice.writes(title=f"{number}", body="same words")

    assert found(alice, "same") == ["2", "1", "0"]


def test_pages_of_a_search_are_ranked_as_a_whole(alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(6):
        alice.writes(title=f"word {number}" if number % 2 else f"{number}", body="word")
    everything = found(alice, "word")
    assert everything == ["word 5", "word 3", "word 1", "4", "2", "0"]

    newest_three_ranked = ["word 5", "word 3", "4", "2", "word 1", "0"]
    for ranked, expected in ((1000, everything), (3, newest_three_ranked)):
        monkeypatch.setattr(search, "RANKED", ranked)
        pages = [_page(alice, page) for page in (1, 2, 3, 4)]
        assert [title for rows, _ in pages for title in rows] == expected
        assert [more for _, more in pages] == [True, True, False, False]


def _page(person: Person, page: int) -> tuple[list[str], bool]:
    query: dict[str, Any] = {"search": "word", "page": page, "pageSize": 2}
    answer = ok(person.api.get("/api/content", query))
    return [row["title"] for row in answer["data"]], answer["pagination"]["hasNext"]


# Writes show at once


def test_a_write_is_found_at_once_and_an_old_word_no_more(alice: Person) -> None:
    item_id = alice.writes(title="Alpha", body="beta")["id"]
    assert found(alice, "alpha beta") == ["Alpha"]

    alice.api.patch(f"/api/content/{item_id}", {"body": "gamma"})
    assert (found(alice, "beta"), found(alice, "alpha gamma")) == ([], ["Alpha"])

    alice.api.patch(f"/api/content/{item_id}", {"title": "Delta"})
    assert (found(alice, "alpha"), found(alice, "delta gamma")) == ([], ["Delta"])

    alice.api.post(f"/api/content/{item_id}/versions/1/restore")
    assert (found(alice, "delta"), found(alice, "gamma"), found(alice, "alpha beta")) == ([], [], ["Alpha"])

    alice.api.delete(f"/api/content/{item_id}")
    assert (found(alice, "alpha"), found(alice, "alpha", deleted="true")) == ([], ["Alpha"])


def test_only_ones_own_items_are_found(alice: Person, charlie: Person) -> None:
    alice.writes(title="Secret plans")
    charlie.writes(title="Charlie's plans")

    assert found(charlie, "plans") == ["Charlie's plans"]
    assert found(charlie, "secret") == []
    assert found(charlie, "plans", brand_id=str(alice.brand_id)) == []


# Languages


def test_each_brand_is_searched_in_its_language(alice: Person) -> None:
    german = alice.api.post("/api/brands", {"name": "Haus", "language": "de-AT"}).json()["id"]
    alice.writes(title="Häuser am See", body="Wir liefen", brand_id=german)
    alice.writes(title="Houses", body="by the lakes")

    for text in ("Haus", "häusern", "haus see", "Häuse", "HÄUSER LIEF", "am se"):
        assert found(alice, text) == ["Häuser am See"]
    for text in ("house", "lake", "houses lak"):
        assert found(alice, text) == ["Houses"]
    assert found(alice, "haus", brand_id=german) == ["Häuser am See"]
    assert found(alice, "haus", brand_id=str(alice.brand_id)) == []


def test_an_item_that_moves_to_another_brand_is_searched_in_its_language(alice: Person) -> None:
    german = alice.api.post("/api/brands", {"name": "Haus", "language": "de"}).json()["id"]
    item_id = alice.writes(title="Häuser", body="")["id"]
    assert found(alice, "haus nichts") == []

    alice.api.patch(f"/api/content/{item_id}", {"brand_id": german})

    assert found(alice, "hauses") == ["Häuser"]


def test_every_language_has_a_configuration(database: None, alice: Person) -> None:
    with tenant_scope(alice.tenant_id):
        for language in {*search.LANGUAGES.values(), search.PLAIN}:
            entries = SearchEntry.objects.filter(words=search.query_for("some words", {language}))
            assert not entries.filter(tenant_id=alice.tenant_id).exists()
    assert search.language_of("pt-BR") == "portuguese"
    assert search.language_of("DE") == "german"
    assert search.language_of("xx") == search.language_of("") == "simple"


# Bodies that cannot be indexed


def _long_words() -> str:
    return " ".join(f"{number:0>2000}" for number in range(500))


UNINDEXABLE = {
    "a word of a mebibyte": "x" * 1024**2,
    "words of 2,000 characters": _long_words(),
    "a hundred thousand words": " ".join(f"w{number:x}" for number in range(130_000)),
    "letters of four bytes": " ".join(chr(0x20000 + number) * 3 for number in range(25_000)),
    "compounds": " ".join("-".join(chr(0x20000 + n % 40_000 + k) * 2 for k in range(8)) for n in range(4_000)),
    "addresses": " ".join(f"https://host{number}.example.com/a/b/c{number}?d=e" for number in range(2_000)),
    "one letter often": "a " * 500_000,
    "tags": "<b>" * 300_000,
    "scripts": "<script></script>" * 60_000,
    "open scripts": "<script>" * 100_000,
    "letters that grow when lowered": "İ" * 50_000 + "<script>x</script>" * 5_000,
    "comments": "<!-- x -->" * 100_000,
    "angles": "<" * 1_000_000,
    "entities": "&amp;" * 200_000,
    "unicode spaces": "\u3000\u2028" * 100_000,
}


@pytest.mark.parametrize("name", UNINDEXABLE)
def test_a_body_that_is_hard_to_index_is_stored_and_its_title_found(alice: Person, name: str) -> None:
    body = UNINDEXABLE[name][: 1024**2 // 4 if max(map(ord, UNINDEXABLE[name])) > 127 else 1024**2]

    item = alice.writes(title="Running titles", body=body)

    assert found(alice, "run title") == ["Running titles"]
    assert found(alice, "runni") == ["Running titles"]
    assert ok(alice.api.get(f"/api/content/{item['id']}"))["body"] == body
    [row] = alice.api.get("/api/content").json()["data"]
    assert len(row["preview"]) <= 200


def test_words_far_into_a_body_are_found(alice: Person) -> None:
    alice.writes(title="Long", body="filler " * 13_000 + " needle")

    assert found(alice, "needle") == ["Long"]
