"""Search: PostgreSQL's full text search over titles and bodies, in the language of each item's brand.

Words must all occur, in any form; of the last one the beginning is enough. The one place that reads `content_search`, which
has no row security: always by tenant, and joined to items under theirs.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from unicodedata import category, normalize
from uuid import UUID

from django.contrib.postgres.search import SearchQuery, SearchRank
from django.db import connection
from django.db.models import F, Q, QuerySet

from content.models import ContentItem, SearchEntry
from content.preview import text_of

MAX_INDEXED_CHARACTERS = 100_000
UNUSUAL = re.compile(r"[^\w\x00-\x7f]")
RANKED = 1000
MOST_RANKED = 2000  # with those that were made since somebody began to read
UNRANKED = -1.0
Moment = tuple[datetime, UUID]
EVER: Moment = (datetime.min.replace(tzinfo=UTC), UUID(int=0))  # before every item
LANGUAGES = {
    "ar": "arabic",
    "ca": "catalan",
    "da": "danish",
    "de": "german",
    "el": "greek",
    "en": "english",
    "es": "spanish",
    "eu": "basque",
    "fi": "finnish",
    "fr": "french",
    "ga": "irish",
    "hi": "hindi",
    "hu": "hungarian",
    "hy": "armenian",
    "id": "indonesian",
    "it": "italian",
    "lt": "lithuanian",
    "nb": "norwegian",
    "ne": "nepali",
    "nl": "dutch",
    "nn": "norwegian",
    "no": "norwegian",
    "pt": "portuguese",
    "ro": "romanian",
    "ru": "russian",
    "sr": "serbian",
    "sv": "swedish",
    "ta": "tamil",
    "tr": "turkish",
    "yi": "yiddish",
}
PLAIN = "simple"
PUT = """
INSERT INTO content_search (content_id, tenant_id, language, words)
SELECT content_id, %(tenant)s, language, content_words(language, title, body)
FROM unnest(%(indexed_ids)s::uuid[], %(languages)s::text[], %(titles)s::text[], %(texts)s::text[])
     AS entry (content_id, language, title, body)
ON CONFLICT (content_id) DO UPDATE SET language = excluded.language, words = excluded.words"""


@dataclass(frozen=True, slots=True)
class Entry:
    """What is indexed of an item; `language` is PostgreSQL's name of it."""

    content_id: UUID
    language: str
    title: str
    body: str


def language_of(tag: str) -> str:
    """Return PostgreSQL's configuration for a language tag such as pt-BR; `simple`, without stems, for others."""
    return LANGUAGES.get(tag.partition("-")[0].lower(), PLAIN)


def put(*, tenant_id: UUID, entries: Sequence[Entry]) -> None:
    """Inside the tenant's scope, index items."""
    if entries:
        with connection.cursor() as cursor:
            cursor.execute(PUT, {"tenant": tenant_id, **columns(entries)})


def columns(entries: Sequence[Entry]) -> dict[str, Any]:
    """Return entries as PUT takes them."""
    return {
        "indexed_ids": [entry.content_id for entry in entries],
        "languages": [entry.language for entry in entries],
        "titles": [plain(entry.title) for entry in entries],
        "texts": [plain(text_of(entry.body, MAX_INDEXED_CHARACTERS))[:MAX_INDEXED_CHARACTERS] for entry in entries],
    }


def plain(text: str) -> str:
    """Return a text with spaces for signs outside ASCII, such as quotation marks, dashes and emoji.

    In a database whose locale is C, as a hosted one's may be too, PostgreSQL takes them for letters of the word beside them.
    """
    return UNUSUAL.sub(_spaced, normalize("NFKC", text))


def _spaced(sign: re.Match[str]) -> str:
    kind = category(sign[0])
    if kind == "Cf":
        return ""  # invisible inside a word, as the soft hyphen
    return sign[0] if kind.startswith("M") else " "


def query_for(text: str, languages: Collection[str]) -> SearchQuery:
    """Return the query for what somebody typed, in any of these languages; it finds nothing where that holds no word."""
    words = [word for word in plain(text).split() if any(map(str.isalnum, word))]
    if not words:
        return SearchQuery("", config=PLAIN, search_type="plain")
    *head, last = words
    queries = [_query(" ".join(head), last, language) for language in sorted(languages) or [PLAIN]]
    whole = queries[0]
    for query in queries[1:]:
        whole |= query
    return whole


def _query(head: str, last: str, language: str) -> SearchQuery:
    quoted = last.replace("\\", "\\\\").replace("'", "''")
    prefix = SearchQuery(f"'{quoted}':*", config=language, search_type="raw")
    if language != PLAIN:
        prefix |= SearchQuery(f"'{quoted}':*", config=PLAIN, search_type="raw")
    return SearchQuery(head, config=language, search_type="plain") & prefix if head else prefix


def matching(*, tenant_id: UUID, query: SearchQuery) -> QuerySet[SearchEntry]:
    """Return the entries of a tenant that match; join them to items before showing anything."""
    return SearchEntry.objects.filter(tenant_id=tenant_id, words=query)


@dataclass(frozen=True, slots=True, order=True)
class Match:
    """A matching item's place: better ones are greater, and of equally good ones the newer. UNRANKED ones come last."""

    rank: float
    created_at: datetime
    id: UUID


@dataclass(frozen=True, slots=True)
class Ranking:
    """A run of matches, best first.

    Attributes:
        oldest: time and id of the oldest match that is ranked. It stays the same while somebody reads on after a match, so
            that what comes and goes meanwhile moves no other match across it.
    """

    matches: Sequence[Match]
    oldest: Moment


def best(*, tenant_id: UUID, items: QuerySet[ContentItem], query: SearchQuery, start: int, count: int) -> Ranking:
    """Inside the tenant's scope, return so many matching items from a position, best first.

    Ranking reads every match, so only the newest thousand are ranked; those after them follow newest first.
    """
    newest = _newest(items, RANKED)
    oldest = newest[-1] if len(newest) == RANKED else EVER
    ranked = _ranked(tenant_id, newest, query)
    matches = ranked[start : start + count]
    skipped = max(0, start - len(ranked))
    return Ranking(matches + _unranked(items, oldest, skipped, count - len(matches)), oldest)


def best_after(
    *, tenant_id: UUID, items: QuerySet[ContentItem], query: SearchQuery, after: Match, oldest: Moment, count: int
) -> Ranking:
    """Inside the tenant's scope, return so many matching items that come after one of a ranking, best first."""
    if after.rank == UNRANKED:
        return Ranking(_unranked(items, (after.created_at, after.id), 0, count), oldest)
    newest = _newest(items.filter(~_older_than(oldest)), MOST_RANKED)
    matches = [match for match in _ranked(tenant_id, newest, query) if match < after][:count]
    return Ranking(matches + _unranked(items, oldest, 0, count - len(matches)), oldest)


def _newest(items: QuerySet[ContentItem], count: int) -> list[Moment]:
    return list(items.order_by("-created_at", "-id").values_list("created_at", "id")[:count])


def _ranked(tenant_id: UUID, newest: Sequence[Moment], query: SearchQuery) -> list[Match]:
    found = SearchEntry.objects.filter(tenant_id=tenant_id, content_id__in=[content_id for _, content_id in newest])
    rows = found.annotate(rank=SearchRank(F("words"), query)).values_list("rank", "content__created_at", "content_id")
    return sorted((Match(*row) for row in rows), reverse=True)


def _unranked(items: QuerySet[ContentItem], before: Moment, skipped: int, count: int) -> list[Match]:
    if count <= 0 or before == EVER:
        return []
    rows = items.filter(_older_than(before)).order_by("-created_at", "-id").values_list("created_at", "id")
    return [Match(UNRANKED, *row) for row in rows[skipped : skipped + count]]


def _older_than(moment: Moment) -> Q:
    created_at, content_id = moment
    return Q(created_at__lte=created_at) & (Q(created_at__lt=created_at) | Q(id__lt=content_id))
