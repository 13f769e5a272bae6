"""The stand-in for the providers, driven by the vendors' own SDKs."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import anthropic
import httpx2
import openai
import psutil
import pytest
import requests

from engarde.embedded.paths import PROJECT_ROOT
from tests.providers import Bucket, Provider, Window

ASKED: Any = [{"role": "user", "content": "Write about cats"}]
ASKED_AGAIN = [*ASKED, {"role": "assistant", "content": "No"}, {"role": "user", "content": "JSON, please"}]
SCHEMA = {"type": "json_schema", "json_schema": {"name": "post", "schema": {"type": "object"}}}
Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def running() -> Iterator[Provider]:
    with Provider() as provider:
        yield provider


@pytest.fixture
def provider(running: Provider) -> Provider:
    running.behave()
    running.forget()
    return running


@pytest.fixture
def openai_client(provider: Provider) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=provider.url, api_key="sk-test-abcd", max_retries=0, timeout=5) as client:
        yield client


@pytest.fixture
def anthropic_client(provider: Provider) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(
        base_url=provider.anthropic_url, api_key="sk-ant-wxyz", max_retries=0, timeout=5
    ) as client:
        yield client


@pytest.fixture
def ask_openai(openai_client: openai.OpenAI) -> Ask:
    def ask(**more: Any) -> Any:
        return openai_client.chat.completions.create(**{"model": "gpt-test", "messages": ASKED, **more})

    return ask


@pytest.fixture
def ask_anthropic(anthropic_client: anthropic.Anthropic) -> Ask:
    def ask(**more: Any) -> Any:
        return anthropic_client.messages.create(
            **{"model": "claude-test", "max_tokens": 1000, "messages": ASKED, **more}
        )

    return ask


def eventually(ask: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not ask():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def ask_at_once(provider: Provider, calls: int, keys: tuple[str, ...] = ("sk-test-abcd",)) -> list[Any]:
    """Send calls together and return the answers or errors."""

    async def run() -> list[Any]:
        clients = [openai.AsyncOpenAI(base_url=provider.url, api_key=key, max_retries=0) for key in keys]
        asking = [
            clients[n % len(keys)].chat.completions.create(model="gpt-test", messages=ASKED) for n in range(calls)
        ]
        answers = await asyncio.gather(*asking, return_exceptions=True)
        for client in clients:
            await client.close()
        return answers

    return asyncio.run(run())


# Good answers


def test_openai_is_given_a_post(ask_openai: Ask) -> None:
    answer = ask_openai()

    choice = answer.choices[0]
    post = json.loads(choice.message.content)
    assert "Write about cats" in post["title"]
    assert "Write about cats" in post["body"]
    assert post["hashtags"]
    assert choice.finish_reason == "stop"
    assert answer.usage.prompt_tokens == len("Write about cats") // 4
    assert answer.usage.completion_tokens == len(choice.message.content) // 4
    assert answer._request_id.startswith("req_")


def test_anthropic_is_given_a_post(ask_anthropic: Ask) -> None:
    answer = ask_anthropic(system="Be brief")

    assert "Write about cats" in json.loads(answer.content[0].text)["body"]
    assert answer.stop_reason == "end_turn"
    assert answer.usage.input_tokens == len("Write about cats" + "Be brief") // 4
    assert answer._request_id.startswith("req_")


def test_answers_are_distinct_and_as_long_as_wanted(provider: Provider, ask_openai: Ask) -> None:
    provider.behave(body_characters=500)

    posts = [json.loads(ask_openai().choices[0].message.content) for _ in range(3)]

    assert {len(post["body"]) for post in posts} == {500}
    assert len({post["title"] for post in posts}) == len({post["body"] for post in posts}) == 3


def test_openai_answers_by_the_tool_that_is_forced(ask_openai: Ask) -> None:
    tool = {"type": "function", "function": {"name": "save_post", "parameters": {"type": "object"}}}

    message = ask_openai(tools=[tool], tool_choice=tool).choices[0].message

    assert message.tool_calls[0].function.name == "save_post"
    assert json.loads(message.tool_calls[0].function.arguments)["title"]


def test_anthropic_answers_by_the_tool_that_is_forced(ask_anthropic: Ask) -> None:
    tool = {"name": "save_post", "input_schema": {"type": "object"}}

    forced = ask_anthropic(tools=[tool], tool_choice={"type": "tool", "name": "save_post"})
    free = ask_anthropic(tools=[tool])

    assert forced.stop_reason == "tool_use"
    assert forced.content[0].name == "save_post"
    assert forced.content[0].input["title"]
    assert free.content[0].type == "text"


def test_anthropic_answers_in_text_when_an_output_format_is_asked_for(ask_anthropic: Ask) -> None:
    answer = ask_anthropic(output_config={"format": {"type": "json_schema", "schema": {"type": "object"}}})

    assert json.loads(answer.content[0].text)["title"]


def test_each_vendor_lists_its_models(
    provider: Provider, openai_client: openai.OpenAI, anthropic_client: anthropic.Anthropic
) -> None:
    provider.behave(models=["a", "b/c"])

    assert [model.id for model in openai_client.models.list()] == ["a", "b/c"]
    assert openai_client.models.retrieve("b/c").id == "b/c"
    assert [model.id for model in anthropic_client.models.list()] == ["a", "b/c"]
    assert anthropic_client.models.retrieve("a").display_name == "A"


# Refusals


def test_an_unknown_model_is_not_found(
    provider: Provider, openai_client: openai.OpenAI, ask_openai: Ask, ask_anthropic: Ask
) -> None:
    with pytest.raises(openai.NotFoundError) as refusal:
        ask_openai(model="gpt-nil")
    assert refusal.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        openai_client.models.retrieve("gpt-nil")
    with pytest.raises(anthropic.NotFoundError, match="model: claude-nil"):
        ask_anthropic(model="claude-nil")

    provider.behave(models=None)
    assert ask_openai(model="gpt-nil").model == "gpt-nil"


OPENAI_KEYS = [
    ("revoked", openai.AuthenticationError, 401, "invalid_api_key"),
    ("forbidden", openai.PermissionDeniedError, 403, "unsupported_country_region_territory"),
    ("no_credit", openai.RateLimitError, 429, "insufficient_quota"),
    ("payment_required", openai.APIStatusError, 402, "payment_required"),
]


@pytest.mark.parametrize(("wrong", "error", "status", "code"), OPENAI_KEYS)
def test_openai_refuses_a_key(
    provider: Provider, ask_openai: Ask, wrong: str, error: type[openai.APIStatusError], status: int, code: str
) -> None:
    provider.behave(keys={"sk-test-abcd": wrong})

    with pytest.raises(error) as refusal:
        ask_openai()

    assert (refusal.value.status_code, refusal.value.code) == (status, code)
    assert "retry-after" not in refusal.value.response.headers


ANTHROPIC_KEYS = [
    ("revoked", anthropic.AuthenticationError, 401, "authentication_error"),
    ("forbidden", anthropic.PermissionDeniedError, 403, "permission_error"),
    ("no_credit", anthropic.BadRequestError, 400, "invalid_request_error"),
    ("payment_required", anthropic.APIStatusError, 402, "billing_error"),
]


@pytest.mark.parametrize(("wrong", "error", "status", "kind"), ANTHROPIC_KEYS)
def test_anthropic_refuses_a_key(
    provider: Provider, ask_anthropic: Ask, wrong: str, error: type[anthropic.APIStatusError], status: int, kind: str
) -> None:
    provider.behave(keys={"sk-ant-wxyz": wrong})

    with pytest.raises(error) as refusal:
        ask_anthropic()

    assert refusal.value.status_code == status
    assert refusal.value.body["error"]["type"] == kind  # type: ignore[index]
    assert refusal.value.request_id == refusal.value.body["request_id"]  # type: ignore[index]


def test_a_key_without_credit_still_lists_models(provider: Provider, openai_client: openai.OpenAI) -> None:
    provider.behave(keys={"sk-test-abcd": "no_credit"})
    assert list(openai_client.models.list())

    provider.behave(keys={"sk-test-abcd": "revoked"})
    with pytest.raises(openai.AuthenticationError):
        openai_client.models.list()


def test_a_call_without_a_key_is_refused(provider: Provider) -> None:
    assert requests.get(f"{provider.url}/models", timeout=5).status_code == 401
    answer = requests.post(f"{provider.url}/messages", json={}, timeout=5)
    assert answer.json()["error"]["type"] == "authentication_error"


def test_what_it_does_not_serve_is_not_found(provider: Provider) -> None:
    for answer in (
        requests.get(f"{provider.url}/messages", timeout=5),
        requests.post(f"{provider.url}/embeddings", json={}, timeout=5),
    ):
        assert answer.status_code == 404
        assert answer.json()["error"]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"{}", b'{"model":"gpt-test","messages":[1]}', b'{"model":"gpt-test","messages":{"a":1}}'],
)
def test_a_malformed_request_is_refused_and_not_left_in_flight(provider: Provider, body: bytes) -> None:
    headers = {"Authorization": "Bearer sk-test-abcd"}

    answer = requests.post(f"{provider.url}/chat/completions", data=body, headers=headers, timeout=5)

    assert answer.status_code == 400
    assert provider.counts() == {400: 1, "in_flight": 0, "most_in_flight": 1}


def test_a_model_without_schemas_says_so(provider: Provider, ask_openai: Ask) -> None:
    provider.behave(no_schema=True)

    with pytest.raises(openai.BadRequestError, match="response_format"):
        ask_openai(response_format=SCHEMA)
    assert ask_openai(response_format={"type": "json_object"}).choices


# Faults

OPENAI_ERRORS = [
    ("rate_limit", openai.RateLimitError, 429),
    ("rate_limit_silent", openai.RateLimitError, 429),
    ("server_error", openai.InternalServerError, 500),
    ("bad_gateway", openai.InternalServerError, 502),
    ("overloaded", openai.InternalServerError, 503),
    ("bad_request", openai.BadRequestError, 400),
]


@pytest.mark.parametrize(("fault", "error", "status"), OPENAI_ERRORS)
def test_openai_fails(
    provider: Provider, ask_openai: Ask, fault: str, error: type[openai.APIStatusError], status: int
) -> None:
    provider.behave(faults={fault: 1}, retry_after=7)

    with pytest.raises(error) as failure:
        ask_openai()

    assert failure.value.status_code == status
    assert failure.value.response.headers.get("retry-after") == ("7" if fault == "rate_limit" else None)
    assert [(call["fault"], call["status"]) for call in provider.calls()] == [(fault, status)]


ANTHROPIC_ERRORS = [
    ("rate_limit", anthropic.RateLimitError, 429, "rate_limit_error"),
    ("rate_limit_silent", anthropic.RateLimitError, 429, "rate_limit_error"),
    ("server_error", anthropic.InternalServerError, 500, "api_error"),
    ("bad_gateway", anthropic.InternalServerError, 502, None),
    ("overloaded", anthropic.InternalServerError, 529, "overloaded_error"),
    ("bad_request", anthropic.BadRequestError, 400, "invalid_request_error"),
    ("content_filter", anthropic.BadRequestError, 400, "invalid_request_error"),
]


@pytest.mark.parametrize(("fault", "error", "status", "kind"), ANTHROPIC_ERRORS)
def test_anthropic_fails(
    provider: Provider,
    ask_anthropic: Ask,
    fault: str,
    error: type[anthropic.APIStatusError],
    status: int,
    kind: str | None,
) -> None:
    provider.behave(faults={fault: 1}, retry_after=0.5)

    with pytest.raises(error) as failure:
        ask_anthropic()

    body = failure.value.body
    assert failure.value.status_code == status
    assert (body["error"]["type"] if isinstance(body, dict) else None) == kind
    assert failure.value.response.headers.get("retry-after") == ("0.5" if fault == "rate_limit" else None)


def test_a_bad_gateway_answers_in_html(provider: Provider, ask_openai: Ask) -> None:
    provider.behave(faults={"bad_gateway": 1})

    with pytest.raises(openai.InternalServerError) as failure:
        ask_openai()

    assert failure.value.response.headers["content-type"] == "text/html"


def test_retry_after_can_be_a_date(provider: Provider, ask_openai: Ask) -> None:
    provider.behave(faults={"rate_limit": 1}, retry_after="date")

    with pytest.raises(openai.RateLimitError) as failure:
        ask_openai()

    until = parsedate_to_datetime(failure.value.response.headers["retry-after"]) - datetime.now(UTC)
    assert 1 < until.total_seconds() <= 3


def test_a_truncated_answer_breaks_off(provider: Provider, ask_openai: Ask, ask_anthropic: Ask) -> None:
    provider.behave(faults={"truncated": 1})

    with pytest.raises(openai.APIConnectionError) as failure:
        ask_openai()
    assert isinstance(failure.value.__cause__, httpx2.RemoteProtocolError)
    assert "received" in str(failure.value.__cause__)
    with pytest.raises(anthropic.APIConnectionError):
        ask_anthropic()


def test_a_hanging_call_is_over_when_the_client_leaves(
    provider: Provider, openai_client: openai.OpenAI, ask_openai: Ask
) -> None:
    provider.behave(faults={"hang": 1})

    with pytest.raises(openai.APITimeoutError):
        openai_client.with_options(timeout=0.2).chat.completions.create(model="gpt-test", messages=ASKED)

    eventually(lambda: provider.counts() == {499: 1, "in_flight": 0, "most_in_flight": 1})
    provider.behave()
    assert ask_openai().choices


def test_a_hanging_call_can_be_answered_late(provider: Provider, ask_openai: Ask) -> None:
    provider.behave(faults={"hang": 1}, hang_seconds=0.2)

    ask_openai()

    call = provider.calls()[0]
    assert call["done_at"] - call["at"] >= 0.2


def test_many_calls_can_be_cancelled(provider: Provider) -> None:
    async def run() -> None:
        async with openai.AsyncOpenAI(base_url=provider.url, api_key="sk-test-abcd", max_retries=0) as client:
            asking = [
                asyncio.create_task(client.chat.completions.create(model="gpt-test", messages=ASKED)) for _ in range(20)
            ]
            await asyncio.to_thread(eventually, lambda: provider.counts()["in_flight"] == 20)
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)

    provider.behave(latency=30)
    asyncio.run(run())

    eventually(lambda: provider.counts() == {499: 20, "in_flight": 0, "most_in_flight": 20})


def test_openai_answers_badly(provider: Provider, ask_openai: Ask) -> None:
    def answer(fault: str) -> tuple[Any, str]:
        provider.behave(faults={fault: 1})
        choice = ask_openai().choices[0]
        return choice.message, choice.finish_reason

    message, finish = answer("invalid_json")
    assert not message.content.startswith("{")
    message, finish = answer("cut_json")
    assert (message.content[0], finish) == ("{", "length")
    with pytest.raises(json.JSONDecodeError):
        json.loads(message.content)
    message, _ = answer("wrong_shape")
    assert "title" not in json.loads(message.content)
    message, _ = answer("fenced")
    assert json.loads(message.content.split("```json")[1].split("```")[0])["title"]
    message, _ = answer("refusal")
    assert message.content is None
    assert message.refusal
    message, finish = answer("content_filter")
    assert finish == "content_filter"
    message, finish = answer("empty")
    assert (message.content, finish) == ("", "stop")


def test_anthropic_answers_badly(provider: Provider, ask_anthropic: Ask) -> None:
    def answer(fault: str) -> tuple[str, str]:
        provider.behave(faults={fault: 1})
        message = ask_anthropic()
        return "".join(block.text for block in message.content), message.stop_reason

    assert not answer("invalid_json")[0].startswith("{")
    text, stop = answer("cut_json")
    assert (text[0], stop) == ("{", "max_tokens")
    assert "title" not in json.loads(answer("wrong_shape")[0])
    assert "```json" in answer("fenced")[0]
    assert answer("refusal")[1] == "refusal"
    assert answer("empty") == ("", "end_turn")


def test_a_forced_tool_is_used_badly(provider: Provider, ask_openai: Ask, ask_anthropic: Ask) -> None:
    openai_tool = {"type": "function", "function": {"name": "save_post"}}
    anthropic_tool = {"name": "save_post", "input_schema": {"type": "object"}}

    provider.behave(faults={"cut_json": 1})
    choice = ask_openai(tools=[openai_tool], tool_choice=openai_tool).choices[0]
    message = ask_anthropic(tools=[anthropic_tool], tool_choice={"type": "any"})

    assert choice.finish_reason == "length"
    with pytest.raises(json.JSONDecodeError):
        json.loads(choice.message.tool_calls[0].function.arguments)
    assert (message.stop_reason, message.content[0].input) == ("max_tokens", {})


def test_the_first_answer_can_be_invalid(provider: Provider, ask_openai: Ask) -> None:
    provider.behave(invalid_first=True)

    with pytest.raises(json.JSONDecodeError):
        json.loads(ask_openai().choices[0].message.content)
    assert json.loads(ask_openai(messages=ASKED_AGAIN).choices[0].message.content)["title"]


@pytest.mark.soak
def test_faults_strike_their_share_and_the_same_calls_each_time(provider: Provider) -> None:
    def struck() -> list[str]:
        provider.behave(faults={"server_error": 0.2, "empty": 0.1}, seed=3)
        provider.forget()
        ask_at_once(provider, 200)
        return [call["fault"] for call in provider.calls()]

    first = struck()

    assert 25 <= first.count("server_error") <= 55
    assert 8 <= first.count("empty") <= 35
    assert struck() == first


# Limits


def test_a_burst_is_accepted_and_no_more(provider: Provider) -> None:
    provider.behave(rate=0.001, burst=20)

    answers = ask_at_once(provider, 40)

    assert sum(isinstance(answer, openai.RateLimitError) for answer in answers) == 20
    assert provider.counts()[200] == 20


def test_the_limit_is_exact(provider: Provider) -> None:
    provider.behave(rate=20, burst=20)
    ask_at_once(provider, 40)
    time.sleep(0.5)
    ask_at_once(provider, 40)

    calls = provider.calls()
    bucket = Bucket(20, 20, calls[0]["at"])
    assert [call["status"] for call in calls] == [200 if bucket.take(call["at"]) else 429 for call in calls]
    seconds = calls[-1]["at"] - calls[0]["at"]
    assert provider.counts()[200] <= 20 + 20 * seconds


def test_a_bucket_fills_at_its_rate() -> None:
    bucket = Bucket(20, 20, 100)

    assert sum(bucket.take(100) for _ in range(40)) == 20
    assert sum(bucket.take(100.5) for _ in range(40)) == 10
    assert sum(bucket.take(1000) for _ in range(40)) == 20


def test_a_window_counts_any_one_second() -> None:
    window = Window(20)

    assert sum(window.take(100.5 + n / 100) for n in range(40)) == 20
    assert not window.take(101.49)
    assert sum(window.take(101.5 + n / 100) for n in range(10)) == 10


def test_the_limit_can_be_a_window(provider: Provider) -> None:
    provider.behave(rate=20, window=True)

    ask_at_once(provider, 40)

    accepted = [call["at"] for call in provider.calls() if call["status"] == 200]
    assert len(accepted) >= 20
    assert all(later - earlier >= 1 for earlier, later in zip(accepted, accepted[20:], strict=False))


def test_each_key_has_a_limit_of_its_own(provider: Provider) -> None:
    provider.behave(rate=0.001, burst=5)

    ask_at_once(provider, 20, keys=("sk-test-aaaa", "sk-test-bbbb"))

    accepted = [call["key"] for call in provider.calls() if call["status"] == 200]
    assert (accepted.count("aaaa"), accepted.count("bbbb")) == (5, 5)


# The server


def test_latency_is_served_concurrently(provider: Provider) -> None:
    provider.behave(latency=0.3)
    began = time.monotonic()

    answers = ask_at_once(provider, 100)

    assert time.monotonic() - began < 3
    assert all(answer.choices for answer in answers)
    assert all(call["done_at"] - call["at"] >= 0.29 for call in provider.calls())
    assert provider.counts()["most_in_flight"] > 20


def test_latency_can_jitter(provider: Provider) -> None:
    provider.behave(latency=0.1, jitter=0.5)

    ask_at_once(provider, 30)

    took = [call["done_at"] - call["at"] for call in provider.calls()]
    assert min(took) >= 0.045
    assert max(took) - min(took) > 0.03


def test_bodies_are_kept_when_wanted(provider: Provider, ask_openai: Ask) -> None:
    ask_openai()
    provider.behave(keep_bodies=True)
    ask_openai()

    before, after = provider.calls()
    assert "body" not in before
    assert after["body"] == {"model": "gpt-test", "messages": ASKED}
    assert (after["key"], after["model"], after["path"]) == ("abcd", "gpt-test", "/v1/chat/completions")


@pytest.mark.parametrize(
    "wrong", [{"faults": {"typo": 1}}, {"keys": {"a": "typo"}}, {"faults": {"hang": 1.5}}, {"retry_after": "soon"}]
)
def test_settings_that_make_no_sense_are_refused(provider: Provider, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        provider.behave(**wrong)


def test_it_is_gone_afterwards() -> None:
    with Provider(latency=0.1) as provider:
        process = psutil.Process(provider.pid)
        ask_at_once(provider, 1)
        assert provider.calls()[0]["done_at"] - provider.calls()[0]["at"] >= 0.09

    assert not process.is_running()
    with pytest.raises(requests.ConnectionError):
        provider.calls()


def test_it_ends_with_whoever_started_it() -> None:
    code = "from tests.providers import Provider; print(Provider().__enter__().pid, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=PROJECT_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as starter:
        assert starter.stdout
        process = psutil.Process(int(starter.stdout.readline()))
        starter.kill()

    eventually(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)
