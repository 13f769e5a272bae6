"""Documents and records in ZeroDB's tables.

What shapes this adapter (from the vendor's documentation and the clients known to work with it): rows are inserted one
at a time, the service chooses their ids, there is no upsert and no idempotency key, and nothing makes our key unique. So a
document is an immutable row found by a key of ours inside `row_data`, an insert is repeated only after looking for the
row, and duplicates are tolerated. The document is one text field, because a JSON store may reorder what it is given.
"""

import hashlib
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote
from uuid import UUID

import orjson
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    retry_if_not_exception_type,
    stop_after_attempt,
    stop_before_delay,
    wait_random_exponential,
)

from content import metrics
from content.stores.base import (
    COLLECTIONS,
    DOCUMENTS,
    KEYS_PER_CALL,
    Document,
    DocumentKey,
    NotAsked,
    ScannedRow,
    ScanPage,
    StoreMisconfigured,
    StoreRejected,
    StoreUnavailable,
)
from content.stores.breaker import CircuitBreaker
from content.stores.budget import Budget, Unlimited, Urgency
from content.stores.zerodb_http import ZeroDBConnection

logger = logging.getLogger(__name__)

# The service caps `limit` at this. Asking for more than the keys leaves room for duplicates.
_LARGEST_LIMIT = 1000
# Where a list may stand in an answer; the vendor's has moved over time.
_LIST_KEYS = ("data", "rows", "items", "tables")
_ROW_ID_KEYS = ("row_id", "id")
_NAME_KEYS = ("table_name", "name")
# With which a removal of many rows may be refused until it is confirmed; no page says which it is.
_REFUSALS = (400, 409, 422)
_MISUNDERSTOOD = (400, 422)
_NO_KEY = "no-row-has-this-key"
_CHECKSUM = "checksum"
_jitter = wait_random_exponential(multiplier=0.1, max=2.0)


@dataclass(frozen=True, slots=True)
class _StoredRow:
    """A row that a query found, as far as it could be understood."""

    row_id: str
    key: str
    data: Mapping[str, Any]


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
        longest_answer: float = 20.0,
        pool_size: int = 8,
        breaker: CircuitBreaker | None = None,
        budget: Budget | None = None,
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
            longest_answer: Seconds in which a whole answer must have come.
            pool_size: Connections kept open; give it the number of threads.
            breaker: Shared with others that talk to the same service, or None for one of its own.
            budget: How many requests may be made, or None for any number.

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
            longest_answer=longest_answer,
            pool_size=pool_size,
            breaker=breaker or CircuitBreaker(),
            budget=budget or Unlimited(),
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

    def put(self, document: Document, *, maybe_stored: bool = False, can_wait: bool = False) -> str:
        """Store `document` and return its row's id; look for it first when it may be there already.

        Raises:
            StoreUnavailable: It may be stored or not; try again later with `maybe_stored`.
            StoreRejected: Also when the text does not match its key: such a document could never be read back.
        """
        if not document.key.names(document.text):
            raise StoreRejected(f"The text of document {document.key} does not match its checksum.")
        urgency = Urgency.CAN_WAIT if can_wait else Urgency.UPLOAD

        def find() -> str | None:
            return next((row.row_id for row in _intact(self._query(DOCUMENTS, [str(document.key)], urgency))), None)

        return self._put(DOCUMENTS, _document_row(document), maybe_stored=maybe_stored, find=find, urgency=urgency)

    def get_many(self, keys: Collection[DocumentKey]) -> dict[DocumentKey, str]:
        """Return the texts of the documents that are there and intact."""
        return {DocumentKey.parse(row.key): row.data["document"] for row in self._intact_rows(keys)}

    def find_row_ids(self, keys: Collection[DocumentKey]) -> dict[DocumentKey, str]:
        """Return the row ids of the documents that are there and intact."""
        return {DocumentKey.parse(row.key): row.row_id for row in self._intact_rows(keys)}

    def put_record(
        self, collection: str, key: str, *, tenant_id: UUID, record: Mapping[str, Any], maybe_stored: bool = False
    ) -> str:
        """Store a record and return its row's id; with `maybe_stored`, a row of its key is made equal instead.

        Raises:
            StoreUnavailable: It may be stored or not; try again later with `maybe_stored`.
            StoreRejected: The service refuses it.
        """
        row_data = _record_row(key, tenant_id, record)

        def find() -> str | None:
            rows = self._query(collection, [key], Urgency.CAN_WAIT)
            same = [row.row_id for row in rows if dict(row.data) == row_data]
            return min(same, default=None) or self._replace_first(collection, rows, row_data)

        return self._put(collection, row_data, maybe_stored=maybe_stored, find=find, urgency=Urgency.CAN_WAIT)

    def delete_rows(self, collection: str, keys: Collection[str]) -> int:
        """Remove every row of these keys and return how many there were, as far as the service says.

        The service wants the removal of more than a hundred rows confirmed. That is done for one key at a time only, so
        that no misunderstanding of a filter can empty a collection.
        """
        unique = list(dict.fromkeys(keys))
        pieces = [unique[start : start + KEYS_PER_CALL] for start in range(0, len(unique), KEYS_PER_CALL)]
        return sum(self._delete_piece(collection, piece) for piece in pieces)

    def delete_row(self, collection: str, row_id: str) -> None:
        """Remove one row, if it is there."""
        try:
            self._call_with_retries(
                "DELETE", f"{self._path(collection, 'rows')}/{quote(row_id, safe='')}", urgency=Urgency.CAN_WAIT
            )
        except StoreRejected as error:
            if error.status != 404 or "row" not in str(error).lower() or isinstance(error, StoreMisconfigured):
                raise

    def delete_tenant(self, collection: str, tenant_id: UUID) -> int:
        """Remove every row of a tenant and return how many were found.

        The rows are looked for first and then removed by their keys, up to a hundred a call, as a large removal by the
        tenant alone would have to be confirmed: were its filter misunderstood, it would empty the collection.

        Raises:
            StoreUnavailable: Also when rows are still found after they were removed.
            StoreRejected: Also when the answer has rows of other tenants.
        """
        found, before = 0, set[str]()
        while rows := self._rows_of_tenant(collection, str(tenant_id)):
            ids = {row.row_id for row in rows}
            if ids <= before:
                raise StoreUnavailable(f"ZeroDB still has {len(rows)} rows in {collection} that it removed.")
            found, before = found + len(ids - before), ids
            self._delete_piece(collection, list({row.key for row in rows if row.key}), owner=str(tenant_id))
            for row in rows:
                if not row.key:
                    self.delete_row(collection, row.row_id)
        return found

    def _rows_of_tenant(self, collection: str, tenant_id: str) -> list[ScannedRow]:
        body = {self._filter_key: {"tenant_id": {"$in": [tenant_id]}}, "skip": 0, "limit": KEYS_PER_CALL}
        answer = self._call_with_retries("POST", self._path(collection, "query"), body=body, urgency=Urgency.CAN_WAIT)
        rows = [_scanned(collection, row) for row in _list_in(answer)]
        if any(row.tenant_id != tenant_id for row in rows):
            raise _misspelt()
        return rows

    def scan(
        self, collection: str, *, after: str = "", limit: int = KEYS_PER_CALL, tenant_id: UUID | None = None
    ) -> ScanPage:
        """Return rows, of all or of one tenant, in the order of their keys, beginning behind the key `after`.

        Raises:
            StoreRejected: Also when the answer shows that the service did not heed the filter.
        """
        wanted: dict[str, Any] = {"key": {"$gt": after}}
        if tenant_id is not None:
            wanted["tenant_id"] = {"$in": [str(tenant_id)]}
        body = {self._filter_key: wanted, "sort": {"key": 1}, "skip": 0, "limit": limit}
        answer = self._call_with_retries("POST", self._path(collection, "query"), body=body, urgency=Urgency.CAN_WAIT)
        rows = [_scanned(collection, row) for row in _list_in(answer)]
        if any(row.key <= after or (tenant_id and row.tenant_id != str(tenant_id)) for row in rows):
            raise _misspelt()
        return _whole_keys(rows, is_last=len(rows) < limit)

    def rows_of(self, collection: str, key: str) -> list[ScannedRow]:
        """Return the rows of one key: the service found each of them by it, whatever it may mix up within one answer.

        Raises:
            StoreRejected: Also when the answer has rows of other keys.
        """
        body = {self._filter_key: {"key": {"$in": [key]}}, "sort": {"key": 1}, "skip": 0, "limit": _LARGEST_LIMIT}
        answer = self._call_with_retries("POST", self._path(collection, "query"), body=body, urgency=Urgency.CAN_WAIT)
        rows = [_scanned(collection, row) for row in _list_in(answer)]
        if any(row.key != key for row in rows):
            raise _misspelt()
        return rows

    def ping(self) -> None:
        """Ask for a document that nobody has, without retrying: tells whether the address, key and filter are right."""
        self._query(DOCUMENTS, [_NO_KEY], Urgency.READ)

    def _put(
        self,
        collection: str,
        row_data: Mapping[str, Any],
        *,
        maybe_stored: bool,
        find: Callable[[], str | None],
        urgency: Urgency,
    ) -> str:
        tried = False
        try:
            for attempt in self._retrying():
                with attempt:
                    # After a failed attempt the insert may have happened, only its answer got lost.
                    tried = attempt.retry_state.attempt_number > 1
                    found = find() if maybe_stored or tried else None
                    return found or self._insert(collection, row_data, find, urgency)
        except NotAsked as error:
            if tried:
                raise _unsure(error) from error
            raise
        raise AssertionError("tenacity returns or raises")

    def _insert(
        self, collection: str, row_data: Mapping[str, Any], find: Callable[[], str | None], urgency: Urgency
    ) -> str:
        answer = self._connection.call(
            "POST", self._path(collection, "rows"), body={"row_data": row_data}, urgency=urgency
        )
        try:
            row_id = _row_id_in(answer) or find()
        except NotAsked as error:
            raise _unsure(error) from error
        if row_id is None:
            raise StoreUnavailable(f"ZeroDB accepted {row_data['key']} and does not have it.")
        return row_id

    def _replace_first(self, collection: str, rows: Sequence[_StoredRow], row_data: Mapping[str, Any]) -> str | None:
        """Make the first of a record's rows equal to what it shall be, and return its id."""
        first = min((row.row_id for row in rows), default=None)
        if first is not None:
            path = f"{self._path(collection, 'rows')}/{quote(first, safe='')}"
            self._connection.call("PUT", path, body={"row_data": row_data}, urgency=Urgency.CAN_WAIT)
        return first

    def _delete_piece(
        self, collection: str, keys: Sequence[str], *, owner: str | None = None, confirmed: bool = False
    ) -> int:
        if not keys:
            return 0
        wanted = {"key": {"$in": list(keys)}} | ({"tenant_id": {"$in": [owner]}} if owner else {})
        body = {"filter": wanted, "confirm_large_operation": confirmed}
        path = self._path(collection, "rows/bulk")
        try:
            answer = self._call_with_retries("DELETE", path, body=body, urgency=Urgency.CAN_WAIT)
        except StoreRejected as error:
            if error.status not in _REFUSALS or "confirm" not in str(error).lower() or confirmed:
                raise
            middle = len(keys) // 2
            if not middle:
                return self._delete_piece(collection, keys, owner=owner, confirmed=True)
            halves = (keys[:middle], keys[middle:])
            return sum(self._delete_piece(collection, half, owner=owner) for half in halves)
        count = answer.get("deleted_count") if isinstance(answer, dict) else None
        return count if isinstance(count, int) else 0

    def _collection_names(self) -> set[str]:
        answer = self._call_with_retries("GET", query={"skip": 0, "limit": _LARGEST_LIMIT}, urgency=Urgency.UPLOAD)
        return {str(name) for table in _list_in(answer) if (name := _first_of(table, _NAME_KEYS))}

    def _create_collection(self, name: str) -> bool:
        try:
            self._call_with_retries("POST", body={"name": name, "table_name": name}, urgency=Urgency.UPLOAD)
        except StoreRejected as error:
            if _says_it_exists(error):
                return False
            raise
        return True

    def _intact_rows(self, keys: Collection[DocumentKey]) -> Iterator[_StoredRow]:
        unique = list(dict.fromkeys(map(str, keys)))
        for start in range(0, len(unique), KEYS_PER_CALL):
            piece = unique[start : start + KEYS_PER_CALL]
            yield from _intact(self._retrying()(self._query, DOCUMENTS, piece, Urgency.READ))

    def _query(self, collection: str, keys: Sequence[str], urgency: Urgency) -> list[_StoredRow]:
        body = {
            self._filter_key: {"key": {"$in": list(keys)}},
            "sort": {"key": 1},
            "skip": 0,
            "limit": _LARGEST_LIMIT,
        }
        answer = self._ask(collection, body, urgency)
        rows = [_stored_row(row, frozenset(keys)) for row in _list_in(answer)]
        if len(keys) > 1 and (len(rows) >= _LARGEST_LIMIT or _first_of(answer, ("has_more",))):
            # So many duplicates that some keys may have been cut off.
            middle = len(keys) // 2
            return self._query(collection, keys[:middle], urgency) + self._query(collection, keys[middle:], urgency)
        return rows

    def _ask(self, collection: str, body: Mapping[str, Any], urgency: Urgency) -> Any:
        try:
            return self._connection.call("POST", self._path(collection, "query"), body=body, urgency=urgency)
        except StoreRejected as error:
            if error.status in _MISUNDERSTOOD:
                raise _misunderstood(error) from error
            raise

    def _call_with_retries(
        self,
        method: str,
        path: str = "",
        *,
        urgency: Urgency,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, int] | None = None,
    ) -> Any:
        return self._retrying()(self._connection.call, method, path, body=body, query=query, urgency=urgency)

    def _retrying(self) -> Retrying:
        return Retrying(
            retry=retry_if_exception_type(StoreUnavailable) & retry_if_not_exception_type(NotAsked),
            wait=_pause,
            stop=stop_after_attempt(self._attempts) | stop_before_delay(self._retry_within),
            reraise=True,
        )

    def _path(self, collection: str, action: str) -> str:
        return f"/{quote(self._prefix + collection, safe='')}/{action}"


def _pause(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after if isinstance(error, StoreUnavailable) else None
    return max(_jitter(state), asked or 0.0)


def _unsure(error: NotAsked) -> StoreUnavailable:
    """Return the failure of a put of which a part was sent: it is not for certain that nothing was stored."""
    return StoreUnavailable(str(error), retry_after=error.retry_after)


def _document_row(document: Document) -> dict[str, Any]:
    return {
        "key": str(document.key),
        "tenant_id": str(document.tenant_id),
        "content_id": str(document.key.content_id),
        "version": document.version,
        "sha256": document.key.sha256,
        "document": document.text,
    }


def _record_row(key: str, tenant_id: UUID, record: Mapping[str, Any]) -> dict[str, Any]:
    row_data = {**record, "key": key, "tenant_id": str(tenant_id)}
    return {**row_data, _CHECKSUM: _checksum_of(row_data)}


def _checksum_of(row_data: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a record's canonical JSON, the checksum beside it left out."""
    rest = {name: value for name, value in row_data.items() if name != _CHECKSUM}
    return hashlib.sha256(orjson.dumps(rest, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _stored_row(row: Any, wanted: frozenset[str]) -> _StoredRow:
    row_data = row.get("row_data") if isinstance(row, dict) else None
    if not isinstance(row_data, dict) or row_data.get("key") not in wanted:
        raise _misspelt()
    return _StoredRow(str(_first_of(row, _ROW_ID_KEYS)), row_data["key"], row_data)


def _misspelt() -> StoreRejected:
    # FastAPI ignores body keys that it does not know: a misspelt filter means all rows, with status 200.
    message = (
        "ZeroDB answered a query with rows that were not asked for: check the filter's spelling (ZERODB_FILTER_KEY)."
    )
    logger.error(message)
    return StoreRejected(message)


def _misunderstood(error: StoreRejected) -> StoreMisconfigured:
    # Our queries all have the same form: it is not this document that is wrong.
    message = f"ZeroDB does not understand our queries: check the filter's spelling (ZERODB_FILTER_KEY). {error}"
    logger.error(message)
    return StoreMisconfigured(message, status=error.status)


def _intact(rows: Sequence[_StoredRow]) -> Iterator[_StoredRow]:
    """Yield one row for each key, always the same one among duplicates."""
    seen: set[str] = set()
    for row in sorted(rows, key=lambda row: row.row_id):
        if not _holds_document(row.data):
            metrics.DAMAGED.labels("zerodb").inc()
            logger.error("Document %s in ZeroDB row %s does not match its checksum.", row.key, row.row_id)
        elif row.key not in seen:
            seen.add(row.key)
            yield row


def _holds_document(row_data: Mapping[str, Any]) -> bool:
    """Tell whether a row's text is the one that its key stands for."""
    text = row_data.get("document")
    try:
        return isinstance(text, str) and DocumentKey.parse(str(row_data.get("key"))).names(text)
    except ValueError:
        return False


def _scanned(collection: str, row: Any) -> ScannedRow:
    row_data = row.get("row_data") if isinstance(row, dict) else None
    if not isinstance(row_data, dict):
        raise StoreRejected("ZeroDB answered a query with something else than rows: it speaks a dialect unknown to us.")
    is_document = collection == DOCUMENTS
    intact = _holds_document(row_data) if is_document else row_data.get(_CHECKSUM) == _checksum_of(row_data)
    return ScannedRow(
        row_id=str(_first_of(row, _ROW_ID_KEYS)),
        key=str(row_data.get("key") or ""),
        tenant_id=str(row_data.get("tenant_id") or ""),
        intact=intact,
        created_at=_time_in(row.get("created_at")),
    )


def _whole_keys(rows: Sequence[ScannedRow], *, is_last: bool) -> ScanPage:
    """Return a page of keys of which all rows are there: the last key of a full page may go on in the next."""
    if is_last or not rows:
        return ScanPage(rows, None)
    last = rows[-1].key
    complete = [row for row in rows if row.key != last]
    if not complete:
        return ScanPage(rows, last, is_crowded=True)
    return ScanPage(complete, complete[-1].key)


def _time_in(text: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


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
