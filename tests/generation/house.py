"""A house for tests of generation: an owner, a provider of their own, and workers that run in this process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from django.db import connection
from django.test import override_settings
from django.utils import timezone

from generation import providers, runner
from tests.people import Person, new_owner
from tests.providers import Provider

KEY = "sk-test-0123456789abcdef"


@contextmanager
def reaching(provider: Provider) -> Iterator[None]:
    """Have every vendor's calls go to a provider of the test's own."""
    urls = dict.fromkeys(("openai", "google", "deepseek", "qwen", "meta_llama", "local"), provider.url)
    urls["anthropic"] = provider.anthropic_url
    prices = {"openai/gpt-test": [1, 4], "anthropic/claude-test": [3, 15]}
    with override_settings(LLM_BASE_URLS=urls, LLM_PRICES=prices, LLM_DEFAULT_MODELS=models()):
        providers.forget_models()
        yield


def models() -> dict[str, str]:
    """The default models of a provider of the test's own."""
    names = ("openai", "google", "deepseek", "qwen", "meta_llama", "local")
    return {**dict.fromkeys(names, "gpt-test"), "anthropic": "claude-test"}


def with_key(person: Person, provider: str = "openai", key: str = KEY) -> Person:
    """Give a person's tenant a key."""
    answer = person.api.post("/api/llm-keys", {"provider": provider, "api_key": key})
    assert answer.status_code == 200, answer.content
    return person


def new_studio(name: str = "alice", *, tier: str = "professional", **limits: Any) -> Person:
    """Make a tenant with an OpenAI key of its own."""
    return with_key(new_owner(name, tier=tier, **limits))


def start(person: Person, count: int = 3, **fields: Any) -> UUID:
    """Queue a job and return its id."""
    answer = ask_batch(person, count, **fields)
    assert answer.status_code == 202, answer.content
    return UUID(answer.json()["job_id"])


def ask_batch(person: Person, count: int = 3, **fields: Any) -> Any:
    """Ask for a job."""
    params = {"prompt_template": "Write about {topic}.", "topics": ["apples", "pears"], **fields.pop("params", {})}
    body = {"content_type": "post", "target_count": count, "generation_params": params, **fields}
    return person.api.post("/api/content/generate-batch", body)


def work(person: Person, job_id: UUID, *, workers: int = 1) -> None:
    """Have workers of this process work on a job until they think that nothing is to be done."""
    threads = [threading.Thread(target=_work, args=(person.tenant_id, job_id)) for _ in range(workers - 1)]
    for thread in threads:
        thread.start()
    runner.run(tenant_id=person.tenant_id, job_id=job_id, now=timezone.now)
    for thread in threads:
        thread.join()


def _work(tenant_id: UUID, job_id: UUID) -> None:
    try:
        runner.run(tenant_id=tenant_id, job_id=job_id, now=timezone.now)
    finally:
        connection.close()


def job_of(person: Person, job_id: UUID) -> dict[str, Any]:
    """Return a job as its tenant sees it."""
    answer = person.api.get(f"/api/content/generation-jobs/{job_id}")
    assert answer.status_code == 200, answer.content
    found: dict[str, Any] = answer.json()
    return found


def items_of(person: Person, job_id: UUID, **query: Any) -> list[dict[str, Any]]:
    """Return the items of a job, by index."""
    found: list[dict[str, Any]] = []
    page = 1
    while page:
        address = f"/api/content/generation-jobs/{job_id}/items"
        answer = person.api.get(address, {"pageSize": 100, "page": page, **query}).json()
        found += answer["data"]
        page = page + 1 if answer["pagination"]["hasNext"] else 0
    return found
