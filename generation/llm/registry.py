"""Which generator serves which provider. SDKs are imported on first use: each takes half a second."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from generation.llm.base import TextGenerator


@dataclass(frozen=True, slots=True)
class Vendor:
    """How a provider is spoken to.

    Attributes:
        adapter: module and class.
        options: what the adapter takes besides base URL and key.
        price_source: its name in genai-prices; empty where that has no prices of it.
    """

    adapter: str
    options: Mapping[str, Any]
    price_source: str


OPENAI = "generation.llm.openai.OpenAIGenerator"
# Sources: the vendors' own pages on structured output over the OpenAI-compatible endpoint; DeepSeek and Qwen take
# json_object only, llama.cpp turns a schema into a grammar.
VENDORS: Mapping[str, Vendor] = {
    "openai": Vendor(OPENAI, {"structure": "json_schema", "limit_name": "max_completion_tokens"}, "openai"),
    "anthropic": Vendor("generation.llm.anthropic.AnthropicGenerator", {}, "anthropic"),
    "google": Vendor(OPENAI, {"structure": "json_schema"}, "google"),
    "deepseek": Vendor(OPENAI, {"structure": "json_object"}, "deepseek"),
    "qwen": Vendor(OPENAI, {"structure": "json_object"}, ""),
    "meta_llama": Vendor(OPENAI, {"structure": "json_schema"}, "meta"),
    "local": Vendor(OPENAI, {"structure": "json_schema", "shortest": {"title": 3, "body": 80}}, ""),
}


def make(provider: str, *, base_url: str, api_key: str) -> TextGenerator:
    """Return a generator for a provider.

    Raises:
        KeyError: there is no such provider.
    """
    vendor = VENDORS[provider]
    module, _, name = vendor.adapter.rpartition(".")
    generator: TextGenerator = getattr(import_module(module), name)(
        base_url=base_url, api_key=api_key, **vendor.options
    )
    return generator
