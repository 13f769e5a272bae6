"""What this room counts for Prometheus; no person is named."""

from prometheus_client import Counter

MAILS = Counter("engarde_mails", "Attempts to send mail, by outcome (sent, failed, given_up).", ["outcome"])

for _outcome in ("sent", "failed", "given_up"):
    MAILS.labels(_outcome)
