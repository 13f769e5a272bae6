"""Previews: the beginning of a body as plain text."""

import re
from html import unescape

LENGTH = 200
READ_AHEAD = 20_000  # markup that is skipped to find enough text; bounds the work on huge bodies

MARKUP = re.compile(r"<!--.*?-->|<(script|style)\b.*?</\1\s*>|</?[a-zA-Z][^<>]*>", re.DOTALL | re.IGNORECASE)
SPACE = re.compile(r"\s+")


def preview_of(body: str) -> str:
    """Return the first 200 characters of a body as text: HTML tags are left out and runs of space become one."""
    text = unescape(MARKUP.sub(" ", body[:READ_AHEAD]))
    return SPACE.sub(" ", text).strip()[:LENGTH]
