"""What calls cost: genai-prices knows the providers' list prices, LLM_PRICES adds to them or overrides them.

A job keeps the prices that it began with. Discounts (cached input, batches) are left out, so costs are upper bounds.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_UP, Decimal

from django.conf import settings
from genai_prices import Usage, calc_price

from generation.llm.base import Tokens
from generation.llm.registry import VENDORS

MILLION = 1_000_000
CENT_FRACTION = Decimal("0.000000001")


@dataclass(frozen=True, slots=True)
class Price:
    """USD per million tokens of a model's input and output."""

    input: Decimal
    output: Decimal

    def of(self, tokens: Tokens) -> Decimal:
        """Return what some tokens cost, in USD, rounded up to a billionth."""
        exact = (self.input * tokens.input + self.output * tokens.output) / MILLION
        return exact.quantize(CENT_FRACTION, rounding=ROUND_UP)


FREE = Price(Decimal(0), Decimal(0))


def price_of(*, provider: str, model: str, now: datetime) -> Price | None:
    """Return a model's price; None when nobody knows it."""
    if provider == "local":
        return FREE
    own = settings.LLM_PRICES.get(f"{provider}/{model}")
    if own:
        return Price(Decimal(str(own[0])), Decimal(str(own[1])))
    source = VENDORS[provider].price_source
    if not source:
        return None
    try:
        # Per thousand tokens: some models charge more above a length, which a text of ours never reaches.
        found = calc_price(
            Usage(input_tokens=1000, output_tokens=1000), model, provider_id=source, genai_request_timestamp=now
        )
    except LookupError:
        return None
    return Price(found.input_price * 1000, found.output_price * 1000)
