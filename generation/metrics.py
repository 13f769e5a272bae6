"""What this room counts for Prometheus; nothing here names a tenant."""

from prometheus_client import Counter, Histogram

from generation.llm.base import Tokens
from generation.prices import Price

CALLS = Counter(
    "engarde_llm_calls_total",
    "Calls of models for jobs, by outcome: ok, broken_off, the code of an LLMError, or error for what nobody foresaw.",
    ["provider", "outcome"],
)
SECONDS = Histogram(
    "engarde_llm_call_seconds",
    "Time that texts took, re-asks included.",
    ["provider"],
    buckets=(0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120),
)
TOKENS = Counter("engarde_llm_tokens_total", "Tokens that were used.", ["provider", "direction"])
COST = Counter("engarde_llm_cost_usd_total", "What calls cost by list price, in USD.", ["provider"])


def note_tokens(provider: str, tokens: Tokens, price: Price | None) -> None:
    """Count what a call used."""
    TOKENS.labels(provider, "input").inc(tokens.input)
    TOKENS.labels(provider, "output").inc(tokens.output)
    if price:
        COST.labels(provider).inc(float(price.of(tokens)))
