"""What this process counts for `/metrics`. Each process counts for itself: a worker's uploads do not show in the web's figures."""

from prometheus_client import Counter, Gauge, Histogram

LOOKUPS = Counter(
    "engarde_document_lookups",
    "Documents looked for, by tier (memory, spool, redis, zerodb, backup) and result (hit, miss).",
    ["tier", "result"],
)
DAMAGED = Counter(
    "engarde_damaged_documents",
    "Documents that did not match their checksum, by the tier that gave them; none was served.",
    ["tier"],
)
REPAIRS = Counter("engarde_document_repairs", "Repairs queued, by the tier that lacked the document.", ["tier"])
MEMORY_BYTES = Gauge("engarde_document_memory_bytes", "Bytes of documents kept in this process's memory.")
ZERODB_SECONDS = Histogram(
    "engarde_zerodb_request_seconds",
    "Time of requests to ZeroDB, by call (query, insert, replace, delete, tables) and outcome (ok, rejected, failed).",
    ["call", "outcome"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
ZERODB_NOT_ASKED = Counter(
    "engarde_zerodb_not_asked", "Requests to ZeroDB that were not made, by reason (circuit, budget).", ["reason"]
)
ZERODB_CIRCUIT = Gauge("engarde_zerodb_circuit_open", "1 while this process leaves ZeroDB alone after failures.")


def count_lookups(tier: str, *, wanted: int, found: int) -> None:
    """Count what a tier was asked for and had."""
    if found:
        LOOKUPS.labels(tier, "hit").inc(found)
    if wanted > found:
        LOOKUPS.labels(tier, "miss").inc(wanted - found)
