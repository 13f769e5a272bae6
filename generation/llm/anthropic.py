"""Anthropic's messages."""

from typing import Any

import anthropic
from anthropic.types import Message

from generation.llm.base import (
    VERIFY_SECONDS,
    Answer,
    Call,
    ContentRefused,
    LLMError,
    Rejected,
    TimedOut,
    Tokens,
    Unavailable,
)
from generation.llm.vendors import error_of, http_client


class AnthropicGenerator:
    """Calls Anthropic; a model that has no structured output is asked without from then on."""

    def __init__(self, *, base_url: str, api_key: str) -> None:
        self._key = api_key
        self._has_schema = True
        self._client = anthropic.AsyncAnthropic(
            api_key=api_key, base_url=base_url, max_retries=0, http_client=http_client(VERIFY_SECONDS)
        )

    async def answer(self, call: Call) -> Answer:
        """See `TextGenerator.answer`."""
        try:
            return _answer_of(await self._ask(call))
        except Rejected as error:
            if not self._has_schema or "output_" not in str(error).lower():
                raise
            self._has_schema = False  # the prompt asks for JSON too, and the answer is parsed tolerantly
        return _answer_of(await self._ask(call))

    async def _ask(self, call: Call) -> Message:
        extra: dict[str, Any] = {}
        if call.temperature is not None:
            extra["temperature"] = min(call.temperature, 1.0)  # Anthropic's scale ends there, others' at 2
        if self._has_schema:
            extra["output_config"] = {"format": {"type": "json_schema", "schema": call.schema}}
        messages: Any = list(call.messages)
        try:
            found: Message = await self._client.messages.create(
                model=call.model,
                system=call.system,
                messages=messages,
                max_tokens=call.max_tokens,
                timeout=call.timeout,
                **extra,
            )
            return found
        except anthropic.APIError as error:
            raise self._named(error) from error
        except ValueError as error:  # a 200 whose body is no JSON
            raise Unavailable("The provider's answer is not JSON.") from error

    async def models(self) -> list[str]:
        """See `TextGenerator.models`."""
        try:
            page = await self._client.models.list(limit=1000, timeout=VERIFY_SECONDS)
        except anthropic.APIError as error:
            raise self._named(error) from error
        except ValueError as error:
            raise Unavailable("The provider's answer is not JSON.") from error
        return [model.id for model in getattr(page, "data", None) or []]

    def _named(self, error: anthropic.APIError) -> LLMError:
        if isinstance(error, anthropic.APITimeoutError):
            return TimedOut("The provider did not answer in time.")
        if isinstance(error, anthropic.APIStatusError):
            return error_of(error.status_code, error.body or error.response.text, error.response.headers, self._key)
        return Unavailable(f"The connection to the provider failed: {error.__cause__ or error}")

    async def close(self) -> None:
        """See `TextGenerator.close`."""
        await self._client.close()


def _answer_of(message: Message) -> Answer:
    usage = getattr(message, "usage", None)
    tokens = Tokens(_input_of(usage), usage.output_tokens or 0) if usage else Tokens()
    if message.stop_reason == "refusal":
        raise ContentRefused("The model refused to write this.", tokens=tokens)
    content = getattr(message, "content", None) or []
    text = "".join(block.text for block in content if getattr(block, "type", "") == "text")
    return Answer(text, tokens, is_cut=message.stop_reason == "max_tokens")


def _input_of(usage: Any) -> int:
    cached = (usage.cache_creation_input_tokens or 0) + (usage.cache_read_input_tokens or 0)
    return (usage.input_tokens or 0) + cached
