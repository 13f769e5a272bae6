"""OpenAI's chat completions, and everybody who speaks them: Google, DeepSeek, Qwen, Meta Llama, local servers."""

import asyncio
from collections.abc import Mapping
from typing import Any, Literal

import openai
from openai.types.chat import ChatCompletion

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

Structure = Literal["json_schema", "json_object", "none"]


class OpenAIGenerator:
    """Calls one OpenAI-compatible endpoint.

    Args:
        structure: how the endpoint can be held to JSON; one that refuses it is asked without from then on.
        limit_name: what it calls the longest answer; OpenAI's newer models refuse `max_tokens`.
        shortest: least characters of the answer's strings, for servers that can be held to that; small models need it.
    """

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str,
        structure: Structure = "json_schema",
        limit_name: str = "max_tokens",
        shortest: Mapping[str, int] | None = None,
    ) -> None:
        self._shortest = shortest or {}
        self._key = api_key
        self._structure = structure
        self._limit_name = limit_name
        self._client = openai.AsyncOpenAI(
            api_key=api_key or "none", base_url=base_url, max_retries=0, http_client=http_client(VERIFY_SECONDS)
        )
        self._client.organization = self._client.project = None  # of the environment: not a tenant's

    async def answer(self, call: Call) -> Answer:
        """See `TextGenerator.answer`."""
        try:
            return await self._ask(call)
        except Rejected as error:
            if self._structure == "none" or "response_format" not in str(error).lower():
                raise
            self._structure = "none"  # the prompt asks for JSON too, and the answer is parsed tolerantly
        return await self._ask(call)

    async def _ask(self, call: Call) -> Answer:
        extra: dict[str, Any] = {self._limit_name: call.max_tokens}
        if call.temperature is not None:
            extra["temperature"] = call.temperature
        if self._structure == "json_schema":
            shape = {"name": "content", "strict": True, "schema": _with_least(call.schema, self._shortest)}
            extra["response_format"] = {"type": "json_schema", "json_schema": shape}
        elif self._structure == "json_object":
            extra["response_format"] = {"type": "json_object"}
        messages: Any = [{"role": "system", "content": call.system}, *call.messages]
        try:
            # The SDK's own time-out is for each piece that it reads, and some servers send blanks to keep a line open.
            async with asyncio.timeout(call.timeout):
                found = await self._client.chat.completions.create(
                    model=call.model, messages=messages, timeout=call.timeout, **extra
                )
            with shapes_checked():
                return _answer_of(found)
        except TimeoutError as error:
            raise TimedOut("The provider did not answer in time.") from error
        except ValueError as error:
            raise Unavailable("The provider's answer is not JSON.") from error
        except openai.APIError as error:
            raise self._named(error) from error

    async def models(self) -> list[str]:
        """See `TextGenerator.models`."""
        try:
            with shapes_checked():
                page = await self._client.models.list(timeout=VERIFY_SECONDS)
                return [str(model.id).removeprefix("models/") for model in page.data]
        except openai.APIError as error:
            raise self._named(error) from error

    def _named(self, error: openai.APIError) -> LLMError:
        if isinstance(error, openai.APITimeoutError):
            return TimedOut("The provider did not answer in time.")
        if isinstance(error, openai.APIStatusError):
            return error_of(error.status_code, error.body or error.response.text, error.response.headers, self._key)
        return Unavailable(f"The connection to the provider failed: {error.__cause__ or error}")

    async def close(self) -> None:
        """See `TextGenerator.close`."""
        await self._client.close()


def _with_least(schema: Mapping[str, Any], shortest: Mapping[str, int]) -> Mapping[str, Any]:
    bounded = {name: {**schema["properties"][name], "minLength": least} for name, least in shortest.items()}
    return {**schema, "properties": {**schema["properties"], **bounded}}


def _answer_of(completion: ChatCompletion) -> Answer:
    usage, choice = completion.usage, completion.choices[0]
    tokens = Tokens(count_of(usage.prompt_tokens), count_of(usage.completion_tokens)) if usage else Tokens()
    if choice.message.refusal or choice.finish_reason == "content_filter":
        said = choice.message.refusal or "The provider's content filter stopped the answer."
        raise ContentRefused(str(said)[:500], tokens=tokens)
    return Answer(_text_of(choice.message.content), tokens, is_cut=choice.finish_reason == "length")


def _text_of(content: Any) -> str:
    """Return an answer's text; some servers give it in parts, as they take it."""
    if isinstance(content, list):
        return "".join(_text_of(part.get("text")) for part in content)
    if content is not None and not isinstance(content, str):
        raise TypeError("no text")
    return content or ""
