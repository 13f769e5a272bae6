"""Anthropic's messages."""

import asyncio
from typing import Any

import anthropic
from anthropic.types import Message, Usage

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
from generation.llm.vendors import count_of, error_of, http_client, shapes_checked


class AnthropicGenerator:
    """Calls Anthropic; a model that has no structured output is asked without from then on."""

    def __init__(self, *, base_url: str, api_key: str) -> None:
        self._key = api_key
        self._has_schema = True
        self._client = anthropic.AsyncAnthropic(
            api_key=api_key,
            base_url=base_url,
            max_retries=0,
            http_client=http_client(VERIFY_SECONDS),
            default_headers={"X-Api-Key": api_key},  # the SDK sends it as a bearer; proxies often know this one only
        )
        self._client.auth_token = None  # of the environment: not a tenant's

    async def answer(self, call: Call) -> Answer:
        """See `TextGenerator.answer`."""
        try:
            return await self._ask(call)
        except Rejected as error:
            if not self._has_schema or "output_" not in str(error).lower():
                raise
            self._has_schema = False  # the prompt asks for JSON too, and the answer is parsed tolerantly
        return await self._ask(call)

    async def _ask(self, call: Call) -> Answer:
        extra: dict[str, Any] = {}
        if call.temperature is not None:  # the SDK has no argument for it any more, the API takes it
            extra["extra_body"] = {"temperature": min(call.temperature, 1.0)}  # its scale ends there, others' at 2
        if self._has_schema:
            extra["output_config"] = {"format": {"type": "json_schema", "schema": call.schema}}
        messages: Any = list(call.messages)
        try:
            # The SDK's own time-out is for each piece that it reads, and some servers send blanks to keep a line open.
            async with asyncio.timeout(call.timeout):
                found = await self._client.messages.create(
                    model=call.model,
                    system=call.system,
                    messages=messages,
                    max_tokens=call.max_tokens,
                    timeout=call.timeout,
                    **extra,
                )
            with shapes_checked():
                return _answer_of(found)
        except TimeoutError as error:
            raise TimedOut("The provider did not answer in time.") from error
        except ValueError as error:
            raise Unavailable("The provider's answer is not JSON.") from error
        except anthropic.APIError as error:
            raise self._named(error) from error

    async def models(self) -> list[str]:
        """See `TextGenerator.models`."""
        try:
            with shapes_checked():
                page = await self._client.models.list(limit=1000, timeout=VERIFY_SECONDS)
                return [str(model.id) for model in page.data]
        except anthropic.APIError as error:
            raise self._named(error) from error

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
    usage = message.usage
    tokens = Tokens(_input_of(usage), count_of(getattr(usage, "output_tokens", 0)))
    if message.stop_reason == "refusal":
        raise ContentRefused("The model refused to write this.", tokens=tokens)
    text = "".join(block.text for block in message.content if block.type == "text")
    return Answer(text, tokens, is_cut=message.stop_reason == "max_tokens")


def _input_of(usage: Usage | None) -> int:
    names = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    return sum(count_of(getattr(usage, name, 0)) for name in names)
