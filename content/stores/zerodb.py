"""Documents in ZeroDB's tables.

What shapes this adapter (from the vendor's documentation and the clients known to work with it): rows are inserted one
at a time, the service chooses their ids, there is no upsert and no idempotency key, and nothing makes our key unique. So a
document is an immutable row found by a key of ours inside `row_data`, an insert is repeated only after looking for the
row, and duplicates are tolerated. The document is one text field, because a JSON store may reorder what it is given.
"""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    retry_if_not_exception_type,
    stop_after_attempt,
    stop_before_delay,
    wait_random_exponential,
)

from content.stores.base import KEYS_PER_CALL, Document, DocumentKey, StoreRejected, StoreUnavailable
from content.stores.breaker import CircuitBreaker, CircuitOpen
from content.stores.zerodb_http import ZeroDBConnection

logger = logging.getLogger(__name__)

DOCUMENTS = "content_items"
COLLECTIONS = (DOCUMENTS, "content_versions", "content_media_files")

# The service caps `limit` at this. Asking for more than the keys leaves room for duplicates.
_LARGEST_LIMIT = 1000
# Where a list may stand in an answer; the vendor's has moved over time.
_LIST_KEYS = ("data", "rows", "items", "tables")
_ROW_ID_KEYS = ("row_id", "id")
_NAME_KEYS = ("table_name", "name")
_jitter = wait_random_exponential(multiplier=0.1, max=2.0)


@dataclass(frozen=True, slots=True)
class _StoredRow:
    """A row of the documents collection, as far as it could be understood."""

    row_id: str
    key: DocumentKey
    text: str


class ZeroDBStore:
    """The document store on ZeroDB. Safe to use from several threads; make one per process."""

    def __init__(
        self,
        base_url: str,
        api_key: str,
        project_id: str,
        *,
        base_path: str = "/api/v1/projects/{project_id}",
        auth_header: str = "X-API-Key",
        filter_key: str = "filter",
        collection_prefix: str = "",
        connect_timeout: float = 2.0,
        read_timeout: float = 10.0,
        attempts: int = 3,
        retry_within: float = 5.0,
        pool_size: int = 8,
        breaker: CircuitBreaker | None = None,
    ) -> None:
        """Prepare; nothing is sent yet.

        Args:
            base_url: Scheme and host of the service.
            api_key: The project's key.
            project_id: The project's UUID.
            base_path: Path of the project; the vendor documents four (see the emulator's PREFIXES).
            auth_header: `X-API-Key`, or `Authorization` to send the key as a bearer token.
            filter_key: How the service spells `filter` in queries.
            collection_prefix: Put before every collection's name.
            connect_timeout: Seconds to connect.
            read_timeout: Seconds to wait for each part of an answer.
            attempts: How often a call is tried in all.
            retry_within: No attempt starts later than this many seconds after the first; a `Retry-After` beyond it
                is handed to the caller instead of slept through.
            pool_size: Connections kept open; give it the number of threads.
            breaker: Shared with others that talk to the same service, or None for one of its own.

        Raises:
            ValueError: For an address that is not http(s), or a key that no header can carry.
        """
        self._connection = ZeroDBConnection(
            base_url,
            api_key,
            project_id,
            base_path=base_path,
            auth_header=auth_header,
            timeouts=(connect_timeout, read_timeout),
            pool_size=pool_size,
            breaker=breaker or CircuitBreaker(),
        )
        self._filter_key = filter_key
        self._prefix = collection_prefix
        self._attempts = attempts
        self._retry_within = retry_within

    def set_up(self) -> list[str]:
        """Create the collections that are missing and return their names."""
        existing = self._collection_names()
        wanted = [self._prefix + name for name in COLLECTIONS]
        return [name for name in wanted if name not in existing and self._create_collection(name)]

    def put(self, document: Document, *, maybe_stored: bool = False) -> str:
        """Store `document` and return its row's id; look for it first when it may be there already.

        Raises:
            StoreUnavailable: It may be stored or not; try again later with `maybe_stored`.
            StoreRejected: Also when the text does not match its key: such a document could never be read back.
        """
        if not document.key.names(document.text):
            raise StoreRejected(f"The text of document {document.key} does not match its checksum.")
        for attempt in self._retrying():
            with attempt:
                first = attempt.retry_state.attempt_number == 1
                # After a failed attempt the insert may have happened, only its answer got lost.
                look_first = maybe_stored or not first
                return (self._row_id_of(document.key) if look_first else None) or self._insert(document)
        raise AssertionError("tenacity returns or raises")

    def get_many(self, keys: Collection[DocumentKey]) -> dict[DocumentKey, str]:
        """Return the texts of the documents that are there and intact."""
        return {row.key: row.text for row in self._intact_rows(keys)}

    def find_row_ids(self, keys: Collection[DocumentKey]) -> dict[DocumentKey, str]:
        """Return the row ids of the documents that are there and intact."""
        return {row.key: row.row_id for row in self._intact_rows(keys)}

    def ping(self) -> None:
        """List one collection, without retrying."""
        self._connection.call("GET", query={"skip": 0, "limit": 1})

    def _collection_names(self) -> set[str]:
        answer = self._call_with_retries("GET", query={"skip": 0, "limit": _LARGEST_LIMIT})
        return {str(name) for table in _list_in(answer) if (name := _first_of(table, _NAME_KEYS))}

    def _create_collection(self, name: str) -> bool:
        try:
            self._call_with_retries("POST", body={"name": name, "table_name": name})
        except StoreRejected as error:
            if _says_it_exists(error):
                return False
            raise
        return True

    def _insert(self, document: Document) -> str:
        row_data = {
            "key": str(document.key),
            "tenant_id": str(document.tenant_id),
            "content_id": str(document.key.content_id),
            "version": document.version,
            "sha256": document.key.sha256,
            "document": document.text,
        }
        answer = self._connection.call("POST", self._path("rows"), body={"row_data": row_data})
        row_id = _row_id_in(answer) or self._row_id_of(document.key)
        if row_id is None:
            raise StoreUnavailable(f"ZeroDB accepted document {document.key} and does not have it.")
        return row_id

    def _row_id_of(self, key: DocumentKey) -> str | None:
        return next((row.row_id for row in _intact(self._query([key]))), None)

    def _intact_rows(self, keys: Collection[DocumentKey]) -> Iterator[_StoredRow]:
        unique = list(dict.fromkeys(keys))
        for start in range(0, len(unique), KEYS_PER_CALL):
            yield from _intact(self._query_with_retries(unique[start : start + KEYS_PER_CALL]))

    def _query_with_retries(self, keys: Sequence[DocumentKey]) -> list[_StoredRow]:
        return self._retrying()(self._query, keys)

    def _query(self, keys: Sequence[DocumentKey]) -> list[_StoredRow]:
        wanted = {str(key): key for key in keys}
        body = {
            self._filter_key: {"key": {"$in": list(wanted)}},
            "sort": {"key": 1},
            "skip": 0,
            "limit": _LARGEST_LIMIT,
        }
        answer = self._connection.call("POST", self._path("query"), body=body)
        rows = [_stored_row(row, wanted) for row in _list_in(answer)]
        if len(keys) > 1 and isinstance(answer, dict) and answer.get("has_more"):
            # So many duplicates that some keys may have been cut off.
            middle = len(keys) // 2
            return self._query(keys[:middle]) + self._query(keys[middle:])
        return rows

    def _call_with_retries(
        self,
        method: str,
        path: str = "",
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, int] | None = None,
    ) -> Any:
        return self._retrying()(self._connection.call, method, path, body=body, query=query)

    def _retrying(self) -> Retrying:
        return Retrying(
            retry=retry_if_exception_type(StoreUnavailable) & retry_if_not_exception_type(CircuitOpen),
            wait=_pause,
            stop=stop_after_attempt(self._attempts) | stop_before_delay(self._retry_within),
            reraise=True,
        )

    def _path(self, action: str) -> str:
        return f"/{quote(self._prefix + DOCUMENTS, safe='')}/{action}"


def _pause(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after if isinstance(error, StoreUnavailable) else None
    return max(_jitter(state), asked or 0.0)


def _stored_row(row: Any, wanted: Mapping[str, DocumentKey]) -> _StoredRow:
    row_data = row.get("row_data") if isinstance(row, dict) else None
    key = wanted.get(str(row_data.get("key"))) if isinstance(row_data, dict) else None
    if key is None or not isinstance(row_data, dict):
        # FastAPI ignores body keys that it does not know: a misspelt filter means all rows, with status 200.
        raise StoreRejected("ZeroDB answered a query with rows that were not asked for: check the filter's spelling.")
    return _StoredRow(str(_first_of(row, _ROW_ID_KEYS)), key, str(row_data.get("document")))


def _intact(rows: Sequence[_StoredRow]) -> Iterator[_StoredRow]:
    """Yield one row for each key, always the same one among duplicates."""
    seen: set[DocumentKey] = set()
    for row in sorted(rows, key=lambda row: row.row_id):
        if not row.key.names(row.text):
            logger.error("Document %s in ZeroDB row %s does not match its checksum.", row.key, row.row_id)
        elif row.key not in seen:
            seen.add(row.key)
            yield row


def _list_in(answer: Any) -> list[Any]:
    places = [answer, *(answer.get(key) for key in _LIST_KEYS)] if isinstance(answer, dict) else [answer]
    for place in places:
        if isinstance(place, list):
            return place
    raise StoreRejected("ZeroDB answered a list request without a list: it speaks a dialect unknown to us.")


def _row_id_in(answer: Any) -> str | None:
    if not isinstance(answer, dict):
        return None
    row_id = _first_of(answer, _ROW_ID_KEYS) or _first_of(answer.get("data"), _ROW_ID_KEYS)
    return str(row_id) if row_id else None


def _first_of(object_: Any, names: Sequence[str]) -> Any:
    return next((object_[name] for name in names if object_.get(name)), None) if isinstance(object_, dict) else None


def _says_it_exists(error: StoreRejected) -> bool:
    text = str(error).lower()
    return error.status == 409 or (error.status == 400 and "exist" in text and "not exist" not in text)
