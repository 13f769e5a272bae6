"""Search: PostgreSQL's full text search over titles and bodies, in the language of each item's brand.

Words must all occur, in any form; of the last one the beginning is enough. The one place that reads `content_search`, which
has no row security: always by tenant, and joined to items under theirs.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from django.contrib.postgres.search import SearchQuery, SearchRank
from django.db import connection
from django.db.models import F, QuerySet

from content.models import ContentItem, SearchEntry
from content.preview import text_of

MAX_INDEXED_CHARACTERS = 100_000
RANKED = 1000
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
SELECT content_id, %s, language, content_words(language, title, body)
FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::text[]) AS entry (content_id, language, title, body)
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
    if not entries:
        return
    texts = [text_of(entry.body, MAX_INDEXED_CHARACTERS) for entry in entries]
    ids, languages = [entry.content_id for entry in entries], [entry.language for entry in entries]
    with connection.cursor() as cursor:
        cursor.execute(PUT, [tenant_id, ids, languages, [entry.title for entry in entries], texts])


def query_for(text: str, languages: Collection[str]) -> SearchQuery:
    """Return the query for what somebody typed, in any of these languages."""
    *head, last = text.split() or [""]
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


def ranked_ids(
    *, tenant_id: UUID, items: QuerySet[ContentItem], query: SearchQuery, start: int, stop: int
) -> list[UUID]:
    """Inside the tenant's scope, return a slice of the matching items' ids, best first.

    Ranking reads every match, so only the newest thousand are ranked; those after them follow newest first.
    """
    newest = items.order_by("-created_at", "-id").values_list("id", flat=True)
    if stop > RANKED:
        ids = list(newest[max(start, RANKED) : stop])
        head = ranked_ids(tenant_id=tenant_id, items=items, query=query, start=start, stop=RANKED)
        return (head if start < RANKED else []) + ids
    found = SearchEntry.objects.filter(tenant_id=tenant_id, content_id__in=list(newest[:RANKED]))
    best = found.annotate(rank=SearchRank(F("words"), query)).order_by("-rank", "-content__created_at", "-content_id")
    return list(best.values_list("content_id", flat=True)[start:stop])
