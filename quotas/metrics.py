"""What this room counts for Prometheus; no tenant is named."""

from prometheus_client import Counter

REFUSALS = Counter("engarde_quota_refusals", "Writes that a quota refused, by limit (storage, generation).", ["limit"])
ALERTS = Counter(
    "engarde_quota_alerts", "Attempts to deliver alerts, by channel and outcome (sent, failed).", ["channel", "outcome"]
)
