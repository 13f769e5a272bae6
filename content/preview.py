"""Previews: the beginning of a body as plain text."""

import re
from collections.abc import Iterator
from functools import lru_cache
from html import unescape

LENGTH = 200
FIRST_LOOK = 600
LONGEST_ENTITY = 40
READ_AHEAD = 8_000  # markup that is skipped to find enough text; bounds the work on huge bodies

SPACE = re.compile(r"\s+")
HIDDEN = re.compile("script|style", re.IGNORECASE | re.ASCII)
CLOSINGS = {name: re.compile(f"</{name}>", re.IGNORECASE | re.ASCII) for name in ("script", "style")}


def preview_of(body: str) -> str:
    """Return the first 200 characters of a body as text: HTML tags are left out and runs of space become one."""
    text = _beginning(body[:FIRST_LOOK])
    # An entity or tag may be cut at the end of what was looked at, never before the end of a preview with room to spare.
    return (text if len(text) > LENGTH + LONGEST_ENTITY else text_of(body, READ_AHEAD))[:LENGTH]


@lru_cache(maxsize=2048)
def _beginning(markup: str) -> str:
    """Return the text of a body's beginning; lists show the same ones again and again."""
    return text_of(markup, FIRST_LOOK)


def text_of(body: str, characters: int) -> str:
    """Return the text in the beginning of a body, of so many characters: without markup, runs of space as one."""
    return SPACE.sub(" ", unescape(" ".join(_texts(body[:characters])))).strip()


def _texts(markup: str) -> Iterator[str]:
    """Yield what stands between tags, comments, scripts and styles, in one pass (a regular expression may take many)."""
    start = at = 0
    while (at := markup.find("<", at)) >= 0:
        if not _opens_tag(markup, at):
            at += 1
            continue
        yield markup[start:at]
        start = at = _end_of(markup, at)
    yield markup[start:]


def _opens_tag(markup: str, at: int) -> bool:
    following = markup[at + 1 : at + 2]
    return following.isalpha() or following in {"/", "!"}


def _end_of(markup: str, at: int) -> int:
    """Return where a tag, comment or hidden element that opens at `at` ends; what is never closed goes to the end."""
    hidden = HIDDEN.match(markup, at + 1)
    if hidden:
        closing = CLOSINGS[hidden[0].lower()].search(markup, at)
        return closing.end() if closing else len(markup)
    closing_text = "-->" if markup.startswith("<!--", at) else ">"
    end = markup.find(closing_text, at)
    return end + len(closing_text) if end >= 0 else len(markup)
