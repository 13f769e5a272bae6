"""JSON in and out of the API: strict on the way in, orjson both ways."""

from typing import IO, Any

import orjson
from django.conf import settings
from rest_framework import exceptions
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer


def dumps(value: Any) -> bytes:
    """Return compact UTF-8 JSON; times in UTC end in Z."""
    return orjson.dumps(value, default=str, option=orjson.OPT_UTC_Z)


def canonical(value: Any) -> str:
    """Return the one JSON text of a value: keys sorted, no spaces, UTF-8 characters as they are.

    A checksum is of this text, since a JSON store may reorder or reformat what it is given.
    """
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_UTC_Z).decode()


class StrictJSONParser(BaseParser):
    """Reads a bounded body as RFC 8259 JSON: no NaN, no lone surrogates, no invalid UTF-8, nesting limited."""

    media_type = "application/json"

    def parse(self, stream: IO[Any], media_type: str | None = None, parser_context: Any = None) -> Any:
        """Return the parsed body; an empty one counts as an empty object.

        Raises:
            RequestTooLarge: the body is over REQUEST_MAX_BYTES.
            ParseError: it is not JSON.
        """
        raw = _read_bounded(stream, settings.REQUEST_MAX_BYTES)
        if not raw.strip():
            return {}
        try:
            return orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise exceptions.ParseError(f"The body is not valid JSON: {error}", code="invalid_json") from error


class RequestTooLarge(exceptions.APIException):
    """The request's body is over the limit for requests."""

    status_code = 413
    default_code = "content_too_large"


def _read_bounded(stream: IO[Any], limit: int) -> bytes:
    declared = str(getattr(stream, "META", {}).get("CONTENT_LENGTH") or "")
    too_large = declared.isdecimal() and int(declared) > limit
    raw: bytes = b"" if too_large else stream.read(limit + 1)
    if too_large or len(raw) > limit:
        raise RequestTooLarge(f"A request may have at most {limit} bytes.")
    return raw


class JSONRenderer(BaseRenderer):
    """Writes an answer with orjson."""

    media_type = "application/json"
    format = "json"
    charset = None

    def render(self, data: Any, accepted_media_type: str | None = None, renderer_context: Any = None) -> bytes:
        """Return the body, empty for an answer without one."""
        return b"" if data is None else dumps(data)


class AlwaysJSON(BaseContentNegotiation):
    """The API has one representation; an Accept header never turns an answer into a 406."""

    def select_parser(self, request: Any, parsers: Any) -> Any:
        """Return the parser for the request's media type, if there is one."""
        from rest_framework.utils.mediatypes import media_type_matches  # noqa: PLC0415 -- keeps DRF's start lazy

        return next((parser for parser in parsers if media_type_matches(parser.media_type, request.content_type)), None)

    def select_renderer(self, request: Any, renderers: Any, format_suffix: str | None = None) -> Any:
        """Return the first renderer."""
        return renderers[0], renderers[0].media_type
