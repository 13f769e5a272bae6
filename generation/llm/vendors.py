"""What both vendors' SDKs have in common: their errors have the same shape, and the same causes."""

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from math import isfinite
from typing import Any

import certifi
import httpx2

from generation.llm.base import (
    ContentRefused,
    KeyRefused,
    LLMError,
    NoCredit,
    Rejected,
    Throttled,
    Unavailable,
    UnknownModel,
)

CONNECT_SECONDS = 5.0
MAX_CONNECTIONS = 250
MAX_MESSAGE = 500
LONGEST_RETRY_AFTER = 24 * 3600.0
LARGEST_COUNT = 10**9
OVERLOADED = (429, 503, 529)
REFUSED_KEY = (401, 403)
# Sources: OpenAI's error codes guide (insufficient_quota comes as 429), Anthropic's (billing comes as 400 or 402),
# DeepSeek's (402 for an empty balance), Alibaba Model Studio's (Arrearage).
NO_CREDIT = ("insufficient_quota", "credit balance", "insufficient balance", "billing_hard_limit", "arrearage")
FILTERED = (
    "content_policy",
    "content policy",
    "content_filter",
    "usage policies",
    "safety system",
    "data_inspection",
    "content filter",
)


def http_client(timeout: float) -> httpx2.AsyncClient:
    """Return a client whose TLS context is shared: making one costs more than a call's own work."""
    limits = httpx2.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS)
    within = httpx2.Timeout(timeout, connect=CONNECT_SECONDS)
    return httpx2.AsyncClient(verify=_tls(), limits=limits, timeout=within, follow_redirects=False)


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certifi.where())


def error_of(status: int, body: object, headers: Mapping[str, str], key: str) -> LLMError:
    """Return what an HTTP error of a provider means.

    Args:
        body: the decoded answer, of whatever shape.
        key: the API key, which some providers repeat in their answer; it is cut out.
    """
    said = _said(body)
    message = f"{status}: {said}".replace(key, "…")[:MAX_MESSAGE] if key else f"{status}: {said}"[:MAX_MESSAGE]
    lower = said.lower()
    if status == 402 or any(word in lower for word in NO_CREDIT):
        return NoCredit(message)
    if status in OVERLOADED:
        return Throttled(message, retry_after=seconds_of(headers.get("retry-after"), headers.get("retry-after-ms")))
    if status == 403 and "model" in lower and "key" not in lower:
        return UnknownModel(message)
    if status in REFUSED_KEY:
        return KeyRefused(message)
    if any(word in lower for word in FILTERED):
        return ContentRefused(message)
    if status == 404:
        return UnknownModel(message)
    if status in (408, 409, 425) or status >= 500:
        return Unavailable(message)
    if 300 <= status < 400:
        return Unavailable(f"{status}: the provider redirects, which is not followed; check its base URL")
    if status == 400 and "api key" in lower and "valid" in lower:
        return KeyRefused(message)  # Google answers a wrong key so
    return Rejected(message)


def _said(body: object) -> str:
    """Return the code, type and message of an error body, in one line."""
    error: Any = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(error, list) and error:
        error = error[0].get("error", error[0]) if isinstance(error[0], dict) else error[0]
    if isinstance(error, dict):
        parts = [str(error[name]) for name in ("code", "type", "status", "message") if error.get(name)]
        return " ".join(dict.fromkeys(parts)) or "no explanation"
    return " ".join(str(error).split()) if error else "no explanation"


def seconds_of(retry_after: str | None, milliseconds: str | None = None) -> float | None:
    """Return the seconds of a Retry-After header (RFC 9110: a number or an HTTP date), or of its millisecond variant."""
    try:
        if milliseconds:
            seconds = float(milliseconds) / 1000
        elif not retry_after:
            return None
        elif retry_after.strip().replace(".", "", 1).isdigit():
            seconds = float(retry_after)
        else:
            seconds = (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(0.0, seconds), LONGEST_RETRY_AFTER) if isfinite(seconds) else None


def count_of(value: object) -> int:
    """Return a number of tokens as a provider told it; what is none counts as 0."""
    return min(value, LARGEST_COUNT) if isinstance(value, int) and value > 0 else 0


@contextmanager
def shapes_checked() -> Iterator[None]:
    """Name what comes of reading an answer that is not of the documented shape: SDKs do not check what they parse.

    Raises:
        Unavailable: it is another one.
    """
    try:
        yield
    except (AttributeError, TypeError, KeyError, IndexError, ValueError) as error:
        raise Unavailable("The provider's answer is not of the documented shape.") from error
