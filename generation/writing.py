"""Writing one text: a call, and if its answer cannot be used one more with the reason."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import ClassVar

from generation import answers, prompts
from generation.answers import InvalidAnswer, Text
from generation.llm.base import Call, LLMError, Message, TextGenerator, Tokens
from generation.prices import Price
from generation.prompts import Brief


class Unusable(LLMError):
    """The model answered twice, and nothing of it can be used."""

    code: ClassVar[str] = "invalid_output"


@dataclass(frozen=True, slots=True)
class Manner:
    """How a model is called for all the texts of a job."""

    model: str
    max_tokens: int
    timeout: float
    temperature: float | None = None

    def call(self, messages: Sequence[Message]) -> Call:
        """Return the call for a conversation."""
        return Call(
            model=self.model,
            system=prompts.SYSTEM,
            messages=messages,
            schema=prompts.SCHEMA,
            max_tokens=self.max_tokens,
            timeout=self.timeout,
            temperature=self.temperature,
        )

    def most_usd(self, price: Price, message: Message) -> Decimal:
        """Return what one text can cost at most, the re-ask included."""
        first = prompts.most_input_tokens(message)
        again = first + prompts.most_reask_tokens(self.max_tokens)
        return price.of(Tokens(first + again, 2 * self.max_tokens))


@dataclass(frozen=True, slots=True)
class Written:
    """A text and what it took."""

    text: Text
    tokens: Tokens


async def write(generator: TextGenerator, manner: Manner, message: Message) -> Written:
    """Have a text written.

    Raises:
        LLMError: with the tokens that were used all the same; `Unusable` when two answers were of no use.
    """
    first = await generator.answer(manner.call([message]))
    try:
        return Written(answers.parse(first.text, is_cut=first.is_cut), first.tokens)
    except InvalidAnswer as error:
        reason = str(error)[: prompts.LONGEST_REASON]
    try:
        second = await generator.answer(manner.call(_reask(message, first.text, reason)))
    except LLMError as error:
        error.tokens += first.tokens
        raise
    tokens = first.tokens + second.tokens
    try:
        return Written(answers.parse(second.text, is_cut=second.is_cut), tokens)
    except InvalidAnswer as error:
        raise Unusable(f"The model's answer could not be used, twice: {error}.", tokens=tokens) from error


def _reask(message: Message, answer: str, reason: str) -> list[Message]:
    said = answer[: prompts.REASK_ANSWER_CHARACTERS].strip() or "(nothing)"
    return [
        message,
        {"role": "assistant", "content": said},
        {"role": "user", "content": prompts.REASK.format(reason=reason)},
    ]


def as_wished(text: Text, brief: Brief) -> Text:
    """Return a text without the hashtags that a model adds though none are wanted."""
    return replace(text, hashtags=()) if brief.has_hashtags is False else text
