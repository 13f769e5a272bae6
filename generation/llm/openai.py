"""OpenAI's chat completions, and everybody who speaks them: Google, DeepSeek, Qwen, Meta Llama, local servers."""

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
from generation.llm.vendors import error_of, http_client

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

    async def answer(self, call: Call) -> Answer:
        """See `TextGenerator.answer`."""
        try:
            return _answer_of(await self._ask(call))
        except Rejected as error:
            if self._structure == "none" or "response_format" not in str(error).lower():
                raise
            self._structure = "none"  # the prompt asks for JSON too, and the answer is parsed tolerantly
        return _answer_of(await self._ask(call))

    async def _ask(self, call: Call) -> ChatCompletion:
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
            found: ChatCompletion = await self._client.chat.completions.create(
                model=call.model, messages=messages, timeout=call.timeout, **extra
            )
            return found
        except openai.APIError as error:
            raise self._named(error) from error
        except ValueError as error:  # a 200 whose body is no JSON
            raise Unavailable("The provider's answer is not JSON.") from error

    async def models(self) -> list[str]:
        """See `TextGenerator.models`."""
        try:
            page = await self._client.models.list(timeout=VERIFY_SECONDS)
        except openai.APIError as error:
            raise self._named(error) from error
        except ValueError as error:
            raise Unavailable("The provider's answer is not JSON.") from error
        return [model.id.removeprefix("models/") for model in getattr(page, "data", None) or []]

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
    usage = getattr(completion, "usage", None)
    tokens = Tokens(usage.prompt_tokens or 0, usage.completion_tokens or 0) if usage else Tokens()
    choices = getattr(completion, "choices", None)
    if not choices:
        raise Unavailable("The provider's answer has no text.", tokens=tokens)
    choice = choices[0]
    if getattr(choice.message, "refusal", None) or choice.finish_reason == "content_filter":
        said = getattr(choice.message, "refusal", None) or "The provider's content filter stopped the answer."
        raise ContentRefused(said[:500], tokens=tokens)
    return Answer(choice.message.content or "", tokens, is_cut=choice.finish_reason == "length")
