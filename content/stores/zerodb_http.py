"""ZeroDB's HTTP side: one request, its answer, and what every failure means.

Statuses and error bodies follow the vendor's pages: `{"detail": text}`, a list for 422, an object or `message` at times,
and anything at all from a gateway. A bare `{"detail": "Not Found"}` is the router speaking: the address is wrong, which
says nothing about rows.
"""

import math
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

import orjson
import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase

from content import metrics
from content.stores.base import NotAsked, StoreMisconfigured, StoreRejected, StoreUnavailable
from content.stores.breaker import CircuitBreaker
from content.stores.budget import Budget, BudgetSpent, Urgency

_MAY_PASS = frozenset({408, 425, 429})
_LONGEST_DETAIL = 500
_CHUNK_BYTES = 64 * 1024


class ZeroDBConnection:
    """Sends requests to one project's tables. Safe to use from several threads.

    Each thread has a session of its own, because `requests` does not promise that sessions can be shared. They all send
    through one adapter, whose connection pool (urllib3's) is made to be shared, so connections are reused across threads.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        project_id: str,
        *,
        base_path: str,
        auth_header: str,
        timeouts: tuple[float, float],
        longest_answer: float,
        pool_size: int,
        breaker: CircuitBreaker,
        budget: Budget,
    ) -> None:
        """Prepare; nothing is sent yet.

        Args:
            base_url: Scheme and host, such as `https://api.example.com`.
            api_key: The key; it appears in no message and no `repr`.
            project_id: Takes the place of `{project_id}` in `base_path`.
            base_path: Path of the project, without `/database/tables`.
            auth_header: `X-API-Key`, or `Authorization`, which sends the key as a bearer token.
            timeouts: Seconds to connect, and seconds to wait for each part of the answer.
            longest_answer: Seconds in which the whole answer must have come, however steadily it drips.
            pool_size: Connections kept open.
            breaker: Stands in front of every request.
            budget: Asked for leave to make each request.

        Raises:
            ValueError: For an address that is not http(s), or a key that no header can carry.
        """
        if not base_url.startswith(("http://", "https://")):
            raise ValueError("ZeroDB's base URL must start with http:// or https://.")
        if not api_key.isascii() or not api_key.isprintable() or api_key != api_key.strip() or not api_key:
            raise ValueError("The ZeroDB API key is empty or has characters that no header can carry.")
        project_path = base_path.replace("{project_id}", quote(project_id, safe="")).strip("/")
        self._root = f"{base_url.rstrip('/')}/{project_path}/database/tables"
        self._api_key = api_key
        self._auth = _KeyAuth(auth_header, api_key)
        self._timeouts = timeouts
        self._longest_answer = longest_answer
        self._breaker = breaker
        self._budget = budget
        self._adapter = HTTPAdapter(pool_connections=1, pool_maxsize=pool_size)
        self._thread = threading.local()

    def call(
        self,
        method: str,
        path: str = "",
        *,
        urgency: Urgency,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, int] | None = None,
    ) -> Any:
        """Make one request, without repeating it, and return the JSON of a 2xx answer, None for one without a body.

        Args:
            method: HTTP method.
            path: What follows `/database/tables`.
            urgency: Who goes first when requests are scarce.
            body: Sent as JSON.
            query: The query string.

        Raises:
            NotAsked: The service is being left alone or the budget is spent; nothing was sent.
            StoreUnavailable: No answer, or one that may be better next time (408, 425, 429, 5xx, or not JSON).
            StoreMisconfigured: The service refuses the key or does not know the address.
            StoreRejected: Any other answer that is not 2xx.
        """
        try:
            with self._breaker.guard():
                self._budget.take(urgency)
                with _measured(method, path):
                    return self._answer_to(method, path, body, query)
        except NotAsked as error:
            metrics.ZERODB_NOT_ASKED.labels("budget" if isinstance(error, BudgetSpent) else "circuit").inc()
            raise

    def _answer_to(
        self, method: str, path: str, body: Mapping[str, Any] | None, query: Mapping[str, int] | None
    ) -> Any:
        try:
            with self._send(method, path, body, query) as response:
                content = self._read(response)
        except requests.RequestException as error:
            raise StoreUnavailable(f"ZeroDB gave no answer: {type(error).__name__}.") from error
        if 200 <= response.status_code < 300:
            return self._json_of(response.status_code, content)
        raise self._failure(response, content)

    def _send(
        self, method: str, path: str, body: Mapping[str, Any] | None, query: Mapping[str, int] | None
    ) -> requests.Response:
        return self._session().request(
            method,
            self._root + path,
            data=None if body is None else orjson.dumps(body),
            params=query,
            headers=None if body is None else {"Content-Type": "application/json"},
            auth=self._auth,
            timeout=self._timeouts,
            stream=True,
            # The key goes to the configured host and nowhere else.
            allow_redirects=False,
        )

    def _read(self, response: requests.Response) -> bytes:
        deadline = time.monotonic() + self._longest_answer
        parts = []
        for part in response.iter_content(_CHUNK_BYTES):
            parts.append(part)
            if time.monotonic() > deadline:
                raise StoreUnavailable(f"ZeroDB's answer took longer than {self._longest_answer:g} s.")
        return b"".join(parts)

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._thread, "session", None)
        if session is None:
            session = self._thread.session = requests.Session()
            session.mount("https://", self._adapter)
            session.mount("http://", self._adapter)
        return session

    def _json_of(self, status: int, content: bytes) -> Any:
        if status == 204 and not content:
            return None
        try:
            return orjson.loads(content)
        except orjson.JSONDecodeError as error:
            raise StoreUnavailable(f"ZeroDB answered {status} with something else than JSON.") from error

    def _failure(self, response: requests.Response, content: bytes) -> StoreUnavailable | StoreRejected:
        status, detail = response.status_code, self._detail_in(content, response.status_code)
        if status >= 500 or status in _MAY_PASS:
            return StoreUnavailable(f"ZeroDB answered {status}: {detail}", retry_after=_retry_after(response))
        if status in (401, 403):
            return StoreMisconfigured(f"ZeroDB refuses the API key or its rights ({status}): {detail}", status=status)
        if status < 400 or (status == 404 and detail.strip().lower() == "not found"):
            message = f"ZeroDB does not know the address {self._root} ({status}): check the base URL and base path."
            return StoreMisconfigured(message, status=status)
        return StoreRejected(f"ZeroDB rejected the request ({status}): {detail}", status=status)

    def _detail_in(self, content: bytes, status: int) -> str:
        try:
            body = orjson.loads(content)
        except orjson.JSONDecodeError:
            # A 404 page that is not even JSON is a gateway's: it knows as little of us as the router.
            body = "not found" if status == 404 else content.decode(errors="replace")
        detail = (body.get("detail") or body.get("message") or body) if isinstance(body, dict) else body
        text = detail if isinstance(detail, str) else orjson.dumps(detail).decode()
        return text.replace(self._api_key, "***")[:_LONGEST_DETAIL]


class _KeyAuth(AuthBase):
    """Puts the key into its header. Being an auth object, it also keeps `requests` from adding one out of a .netrc."""

    def __init__(self, header: str, api_key: str) -> None:
        self._header = header
        self._value = f"Bearer {api_key}" if header.lower() == "authorization" else api_key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers[self._header] = self._value
        return request


@contextmanager
def _measured(method: str, path: str) -> Iterator[None]:
    started, outcome = time.perf_counter(), "failed"
    try:
        yield
        outcome = "ok"
    except StoreRejected:
        outcome = "rejected"
        raise
    finally:
        metrics.ZERODB_SECONDS.labels(_kind_of(method, path), outcome).observe(time.perf_counter() - started)


def _kind_of(method: str, path: str) -> str:
    if not path:
        return "tables"
    return "query" if path.endswith("/query") else {"POST": "insert", "PUT": "replace"}.get(method, "delete")


def _retry_after(response: requests.Response) -> float | None:
    # RFC 9110, 10.2.3: whole seconds or an HTTP date; some servers send fractions.
    value = response.headers.get("Retry-After", "")
    try:
        seconds = float(value)
    except ValueError:
        seconds = _seconds_until(value)
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _seconds_until(http_date: str) -> float:
    try:
        moment = parsedate_to_datetime(http_date)
    except ValueError:
        return math.nan
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - datetime.now(UTC)).total_seconds()
