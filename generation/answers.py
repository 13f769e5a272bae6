"""What models answer, read tolerantly: providers without structured output wrap JSON in prose, fences and odd spellings."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MAX_TITLE = 300
MAX_HASHTAGS = 30
MAX_HASHTAG = 100
MAX_CANDIDATES = 50  # of places where an object may begin: each may cost reading on to the end
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
SPACES = re.compile(r"\s+")
NAMES = {"headline": "title", "text": "body", "content": "body", "tags": "hashtags"}


class InvalidAnswer(ValueError):
    """There is no text in it; the message says why, and the model is told."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text as it is stored."""

    title: str
    body: str
    hashtags: tuple[str, ...] = ()


def parse(answer: str, *, is_cut: bool = False) -> Text:
    """Return the text in an answer.

    Raises:
        InvalidAnswer: there is none, or not all of it.
    """
    try:
        return _parsed(answer, is_cut=is_cut)
    except RecursionError as error:
        raise InvalidAnswer("it is nested too deeply") from error


def _parsed(answer: str, *, is_cut: bool) -> Text:
    for found in _objects(answer):
        named = {NAMES.get(name.lower(), name.lower()): value for name, value in found.items()}
        if "title" in named or "body" in named:
            return _text(named)
    if is_cut:
        raise InvalidAnswer("it was cut off because it was too long; write a shorter text")
    raise InvalidAnswer("there is no JSON object with title, body and hashtags in it")


def _objects(answer: str) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects in a text, outermost first."""
    decoder = json.JSONDecoder(strict=False)  # models put line breaks into strings as they are
    place = answer.find("{")
    for _ in range(MAX_CANDIDATES):
        if place < 0:
            return
        try:
            found, place = decoder.raw_decode(answer, place)
        except (ValueError, RecursionError):
            place += 1
        else:
            yield found
        place = answer.find("{", place)


def _text(named: dict[str, Any]) -> Text:
    title, body = _plain(named.get("title"), " "), _plain(named.get("body"), "\n\n").strip()
    if not body:
        raise InvalidAnswer("the body is empty")
    title = SPACES.sub(" ", title).strip() or SPACES.sub(" ", body).strip()[:80]
    return Text(title[:MAX_TITLE], body, _hashtags(named.get("hashtags")))


def _plain(value: Any, joint: str) -> str:
    """Return a value as text that can be stored."""
    if isinstance(value, list):
        return joint.join(_plain(one, joint) for one in value)
    if isinstance(value, dict):
        raise InvalidAnswer("title and body have to be strings")
    return "" if value is None else UNSTORABLE.sub("", str(value))


def _hashtags(value: Any) -> tuple[str, ...]:
    if isinstance(value, dict):
        value = list(value.values())
    words = value if isinstance(value, list) else _plain(value, " ").replace(",", " ").split()
    tags = ("#" + SPACES.sub("", _plain(word, "")).lstrip("#") for word in words if not isinstance(word, dict | list))
    return tuple(dict.fromkeys(tag for tag in tags if 1 < len(tag) <= MAX_HASHTAG))[:MAX_HASHTAGS]
