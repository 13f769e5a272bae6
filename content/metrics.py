"""What this room counts for Prometheus; nothing here names a tenant."""

from prometheus_client import Counter, Gauge, Histogram

LOOKUPS = Counter(
    "engarde_document_lookups",
    "Documents looked for, by tier (memory, spool, redis, zerodb, backup) and result (hit, miss).",
    ["tier", "result"],
)
DAMAGED = Counter(
    "engarde_damaged_documents",
    "Documents that did not match their checksum, by the tier that gave them (spool, redis, zerodb, backup); none was served.",
    ["tier"],
)
REPAIRS = Counter(
    "engarde_document_repairs", "Repairs queued, by the tier that lacked the document (spool, zerodb).", ["tier"]
)
MEMORY_BYTES = Gauge(
    "engarde_document_memory_bytes",
    "Bytes of documents kept in memory.",
    multiprocess_mode="livesum",
)
ZERODB_SECONDS = Histogram(
    "engarde_zerodb_request_seconds",
    "Time of requests to ZeroDB, by call (query, insert, replace, delete, tables) and outcome (ok, rejected, failed).",
    ["call", "outcome"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
ZERODB_NOT_ASKED = Counter(
    "engarde_zerodb_not_asked", "Requests to ZeroDB that were not made, by reason (circuit, budget).", ["reason"]
)
ZERODB_CIRCUIT = Gauge(
    "engarde_zerodb_circuit_open",
    "1 while ZeroDB is left alone after failures.",
    multiprocess_mode="livemostrecent",
)
CARRIED = Counter(
    "engarde_carried",
    "What carriers did for ZeroDB, by kind (document, record) and outcome (sent, removed, dropped, failed, put_off).",
    ["kind", "outcome"],
)
# A series that is born with 1 shows no increase: what alerts look at is there from the start, with 0.
for _counter, _values in (
    (DAMAGED, ("spool", "redis", "zerodb", "backup")),
    (REPAIRS, ("spool", "zerodb")),
    (ZERODB_NOT_ASKED, ("circuit", "budget")),
):
    for _value in _values:
        _counter.labels(_value)


def count_lookups(tier: str, *, wanted: int, found: int) -> None:
    """Count what a tier was asked for and had."""
    if found:
        LOOKUPS.labels(tier, "hit").inc(found)
    if wanted > found:
        LOOKUPS.labels(tier, "miss").inc(wanted - found)


def count_carried(kind: str, **outcomes: int) -> None:
    """Count what a pass of a carrier did; what it did not do makes no series."""
    for outcome, number in outcomes.items():
        if number:
            CARRIED.labels(kind, outcome).inc(number)
