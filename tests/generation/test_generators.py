"""The port of text generators: every adapter answers, and names each fault, the same way."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import orjson
import pytest

from generation.llm import registry, vendors
from generation.llm.anthropic import AnthropicGenerator
from generation.llm.base import (
    Answer,
    Call,
    ContentRefused,
    KeyRefused,
    LLMError,
    NoCredit,
    Rejected,
    TextGenerator,
    Throttled,
    TimedOut,
    Tokens,
    Unavailable,
    UnknownModel,
)
from generation.llm.openai import OpenAIGenerator
from generation.models import Provider as Name
from generation.prompts import SCHEMA
from tests.providers import Provider

KEY = "sk-very-secret-0123456789-wxyz"
SYSTEM, ASKED = "Be brief.", "Write about cats"
KINDS = ("json_schema", "json_object", "none", "anthropic")
every_kind = pytest.mark.parametrize("kind", KINDS)
both_vendors = pytest.mark.parametrize("kind", ["json_schema", "anthropic"])
Ask = Callable[..., Answer]


@dataclass
class Portal:
    """A server that gives everybody the same answer, whatever it is asked."""

    status: int = 200
    body: bytes = b"{}"
    kind: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    url: str = ""
    got: list[dict[str, str]] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    portal: ClassVar[Portal]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.portal.got.append({name.lower(): value for name, value in self.headers.items()})
        self.send_response(self.portal.status)
        for name, value in {"Content-Type": self.portal.kind, **self.portal.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(self.portal.body)))
        self.end_headers()
        self.wfile.write(self.portal.body)

    def do_GET(self) -> None:
        self.do_POST()

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def saying(body: Any = None, *, status: int = 200, **how: Any) -> Iterator[Portal]:
    """Run a portal; a body that is not bytes is sent as JSON."""
    portal = Portal(status, body if isinstance(body, bytes) else orjson.dumps(body), **how)
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"portal": portal})) as server:
        portal.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield portal
        finally:
            server.shutdown()


@pytest.fixture(scope="module")
def running() -> Iterator[Provider]:
    with Provider() as provider:
        yield provider


@pytest.fixture
def provider(running: Provider) -> Provider:
    running.behave()
    running.forget()
    return running


def make(kind: str, url: str, key: str = KEY) -> TextGenerator:
    """Return a generator; the URL is the server's root."""
    if kind == "anthropic":
        return AnthropicGenerator(base_url=url, api_key=key)
    structure: Any = kind
    return OpenAIGenerator(base_url=f"{url}/v1", api_key=key, structure=structure)


def call(kind: str, **fields: Any) -> Call:
    model = "claude-test" if kind == "anthropic" else "gpt-test"
    values: dict[str, Any] = {
        "model": model,
        "system": SYSTEM,
        "messages": [{"role": "user", "content": ASKED}],
        "schema": SCHEMA,
        "max_tokens": 500,
        "timeout": 5.0,
        **fields,
    }
    return Call(**values)


def run(kind: str, url: str, do: Callable[[TextGenerator], Awaitable[Any]], *, key: str = KEY) -> Any:
    """Do something with a generator, inside one event loop, and close it."""

    async def inside() -> Any:
        generator = make(kind, url, key)
        try:
            return await do(generator)
        finally:
            await generator.close()

    return asyncio.run(inside())


@pytest.fixture
def ask(provider: Provider) -> Callable[..., Answer]:
    def ask(kind: str, **fields: Any) -> Answer:
        answer: Answer = run(kind, provider.anthropic_url, lambda one: one.answer(call(kind, **fields)))
        return answer

    return ask


def failure(kind: str, url: str, *, key: str = KEY, **fields: Any) -> LLMError:
    """Return how a call fails, which never tells the key."""
    with pytest.raises(LLMError) as caught:
        run(kind, url, lambda one: one.answer(call(kind, **fields)), key=key)
    assert key not in str(caught.value)
    assert key not in repr(caught.value)
    assert 0 < len(str(caught.value)) <= 500
    return caught.value


# Good answers


@every_kind
def test_it_returns_the_text_and_what_it_took(provider: Provider, ask: Ask, kind: str) -> None:
    provider.behave(keep_bodies=True)

    answer = ask(kind)

    post = orjson.loads(answer.text)
    assert ASKED in post["title"]
    assert ASKED in post["body"]
    assert answer.tokens == Tokens(len(SYSTEM + ASKED) // 4, len(answer.text) // 4)
    assert answer.is_cut is False
    [made] = provider.calls()
    assert (made["status"], made["key"]) == (200, "wxyz")


@pytest.mark.parametrize("kind", KINDS)
def test_it_sends_what_it_was_given(provider: Provider, ask: Ask, kind: str) -> None:
    provider.behave(keep_bodies=True)
    messages = [
        {"role": "user", "content": ASKED},
        {"role": "assistant", "content": "No."},
        {"role": "user", "content": "JSON, please"},
    ]

    ask(kind, messages=messages, temperature=0.5, max_tokens=123)

    [body] = [one["body"] for one in provider.calls()]
    assert (body["temperature"], body["max_tokens"]) == (0.5, 123)
    if kind == "anthropic":
        assert (body["system"], body["messages"]) == (SYSTEM, messages)
        assert body["output_config"] == {"format": {"type": "json_schema", "schema": SCHEMA}}
    else:
        assert body["messages"] == [{"role": "system", "content": SYSTEM}, *messages]
        assert body.get("response_format", {"type": "none"})["type"] == kind


@every_kind
def test_without_a_temperature_it_is_the_models_own(provider: Provider, ask: Ask, kind: str) -> None:
    provider.behave(keep_bodies=True)

    ask(kind)

    assert "temperature" not in provider.calls()[0]["body"]


def test_a_temperature_above_anthropics_scale_is_its_highest(provider: Provider, ask: Ask) -> None:
    provider.behave(keep_bodies=True)

    ask("anthropic", temperature=1.7)

    assert provider.calls()[0]["body"]["temperature"] == 1


def test_openais_newer_name_of_the_limit_is_used_there(provider: Provider) -> None:
    provider.behave(keep_bodies=True)

    async def inside() -> None:
        generator = registry.make("openai", base_url=provider.url, api_key=KEY)
        await generator.answer(call("json_schema", max_tokens=77))
        await generator.close()

    asyncio.run(inside())
    body = provider.calls()[0]["body"]
    assert body["max_completion_tokens"] == 77
    assert "max_tokens" not in body


@every_kind
def test_an_answer_that_ran_out_of_tokens_is_marked(provider: Provider, ask: Ask, kind: str) -> None:
    provider.behave(faults={"cut_json": 1})

    answer = ask(kind)

    assert answer.is_cut
    assert answer.text.startswith("{")
    assert answer.tokens.output > 0


@every_kind
@pytest.mark.parametrize("fault", ["invalid_json", "wrong_shape", "fenced"])
def test_what_the_text_says_is_not_the_adapters_business(provider: Provider, ask: Ask, kind: str, fault: str) -> None:
    provider.behave(faults={fault: 1})

    answer = ask(kind)

    assert answer.text
    assert answer.tokens.output == len(answer.text) // 4
    assert len(provider.calls()) == 1


@every_kind
def test_an_empty_answer_is_an_answer(provider: Provider, ask: Ask, kind: str) -> None:
    provider.behave(faults={"empty": 1})

    answer = ask(kind)

    assert (answer.text, answer.is_cut) == ("", False)
    assert answer.tokens.input > 0


# Faults

FAULTS: list[tuple[str, type[LLMError]]] = [
    ("rate_limit", Throttled),
    ("rate_limit_silent", Throttled),
    ("overloaded", Throttled),
    ("server_error", Unavailable),
    ("bad_gateway", Unavailable),
    ("truncated", Unavailable),
    ("refusal", ContentRefused),
    ("content_filter", ContentRefused),
    ("bad_request", Rejected),
]


@pytest.mark.parametrize(
    ("kind", "fault", "error"),
    [pytest.param(kind, *fault) for kind in KINDS for fault in FAULTS],
)
def test_each_fault_has_its_name_and_is_met_once(
    provider: Provider, kind: str, fault: str, error: type[LLMError]
) -> None:
    provider.behave(faults={fault: 1})

    assert type(failure(kind, provider.anthropic_url)) is error

    assert [made["fault"] for made in provider.calls()] == [fault]  # the SDK did not try again


@every_kind
def test_a_refusal_by_the_model_costs_tokens_all_the_same(provider: Provider, kind: str) -> None:
    provider.behave(faults={"refusal": 1})

    assert failure(kind, provider.anthropic_url).tokens.input > 0


@every_kind
@pytest.mark.parametrize(("asked", "wanted"), [(7, 7.0), (0.5, 0.5), (0, 0.0), (None, None)])
def test_it_hears_how_long_it_shall_wait(
    provider: Provider, kind: str, asked: float | None, wanted: float | None
) -> None:
    provider.behave(faults={"rate_limit": 1}, retry_after=asked)

    error = failure(kind, provider.anthropic_url)

    assert isinstance(error, Throttled)
    assert error.retry_after == wanted


@every_kind
def test_it_hears_until_when_it_shall_wait(provider: Provider, kind: str) -> None:
    provider.behave(faults={"rate_limit": 1}, retry_after="date")

    error = failure(kind, provider.anthropic_url)

    assert isinstance(error, Throttled)
    assert error.retry_after is not None
    assert 1 <= error.retry_after <= 3


@pytest.mark.parametrize(
    ("header", "milliseconds", "seconds"),
    [
        ("20", None, 20.0),
        ("1.5", None, 1.5),
        ("20", "1500", 1.5),
        ("", None, None),
        (None, None, None),
        ("soon", None, None),
        ("-5", None, None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", None, 0.0),
        ("1e400", None, None),
        ("20", "never", None),
        ("20", "nan", None),
        ("Wed, 99 Oct 2015 07:28:00 GMT", None, None),
    ],
)
def test_a_wait_that_makes_no_sense_is_none(
    header: str | None, milliseconds: str | None, seconds: float | None
) -> None:
    assert vendors.seconds_of(header, milliseconds) == seconds


@pytest.mark.parametrize(("header", "milliseconds"), [("20", "inf"), ("", "1e999"), ("9" * 400, None)])
def test_a_wait_is_a_finite_number(header: str, milliseconds: str | None) -> None:
    found = vendors.seconds_of(header, milliseconds)

    assert found is None or 0 <= found < float("inf")


@every_kind
def test_a_call_that_hangs_is_over_in_its_time(provider: Provider, kind: str) -> None:
    provider.behave(faults={"hang": 1})
    began = time.monotonic()

    assert type(failure(kind, provider.anthropic_url, timeout=2)) is TimedOut

    assert time.monotonic() - began < 15
    assert len(provider.calls()) == 1


KEYS: list[tuple[str, type[LLMError]]] = [
    ("revoked", KeyRefused),
    ("forbidden", KeyRefused),
    ("no_credit", NoCredit),
    ("payment_required", NoCredit),
]


@every_kind
@pytest.mark.parametrize(("wrong", "error"), KEYS)
def test_what_is_wrong_with_a_key_has_its_name(
    provider: Provider, kind: str, wrong: str, error: type[LLMError]
) -> None:
    provider.behave(keys={KEY: wrong})

    assert type(failure(kind, provider.anthropic_url)) is error

    assert len(provider.calls()) == 1


@every_kind
def test_a_model_that_is_not_there_has_its_name(provider: Provider, kind: str) -> None:
    error = failure(kind, provider.anthropic_url, model="no-such-model")

    assert type(error) is UnknownModel
    assert "no-such-model" in str(error)
    assert len(provider.calls()) == 1


@every_kind
def test_a_server_that_is_down_is_unavailable(kind: str) -> None:
    assert type(failure(kind, "http://127.0.0.1:1")) is Unavailable


STATUSES = [
    (401, KeyRefused),
    (402, NoCredit),
    (403, KeyRefused),
    (404, UnknownModel),
    (408, Unavailable),
    (409, Unavailable),
    (413, Rejected),
    (418, Rejected),
    (422, Rejected),
    (425, Unavailable),
    (429, Throttled),
    (500, Unavailable),
    (502, Unavailable),
    (503, Throttled),
    (504, Unavailable),
    (520, Unavailable),
    (529, Throttled),
    (302, Unavailable),
    (307, Unavailable),
]


@both_vendors
@pytest.mark.parametrize(("status", "error"), STATUSES)
def test_a_status_alone_is_enough(kind: str, status: int, error: type[LLMError]) -> None:
    with saying(b"", status=status, headers={"Location": "http://127.0.0.1:1/"}) as portal:
        assert type(failure(kind, portal.url)) is error

        assert len(portal.got) == 1


@both_vendors
@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (400, [{"error": {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT"}}], KeyRefused),
        (400, {"error": {"message": "Insufficient Balance"}}, NoCredit),
        (403, {"error": {"code": "Arrearage", "message": "Access denied"}}, NoCredit),
        (429, {"error": {"type": "insufficient_quota", "message": "Exceeded"}}, NoCredit),
        (400, {"error": {"code": "content_policy_violation", "message": "Your request was rejected"}}, ContentRefused),
        (400, {"error": {"code": "data_inspection_failed", "message": "Input data may be bad"}}, ContentRefused),
        (400, {"error": "a text"}, Rejected),
        (400, {"message": "no error in it"}, Rejected),
        (400, [], Rejected),
        (400, None, Rejected),
        (400, "text", Rejected),
        (400, [[1]], Rejected),
        (400, {"error": {"message": {"deep": [1]}}}, Rejected),
        (400, {"error": {"message": "x" * 100_000}}, Rejected),
        (500, {"error": []}, Unavailable),
        (500, b"<html>oops</html>", Unavailable),
    ],
)
def test_whatever_shape_an_error_has_it_is_understood(kind: str, status: int, body: Any, error: type[LLMError]) -> None:
    with saying(body, status=status) as portal:
        assert type(failure(kind, portal.url)) is error


NO_OBJECTS: list[tuple[Any, str]] = [
    (b"<html>Log in</html>", "text/html"),
    ([], "application/json"),
    (None, "application/json"),
    ("text", "application/json"),
    (5, "application/json"),
]
OBJECTS: list[tuple[Any, str]] = [
    (b"<html>Log in</html>", "application/json"),
    (b"{", "application/json"),
    (b"", "application/json"),
    ({}, "application/json"),
    ({}, "text/plain"),
    ({"data": []}, "application/json"),
    ({"error": {"message": "no"}}, "application/json"),
]


@pytest.mark.parametrize(
    ("kind", "body", "type_"),
    [
        *(("json_schema", *said) for said in NO_OBJECTS + OBJECTS),
        *(pytest.param("anthropic", *said) for said in NO_OBJECTS),
        *(("anthropic", *said) for said in OBJECTS),
    ],
)
def test_no_answer_behind_a_200_is_no_crash(kind: str, body: Any, type_: str) -> None:
    with saying(body, kind=type_) as portal:
        found = outcome(kind, portal.url)

    assert isinstance(found, Unavailable) or found == Answer("")


def outcome(kind: str, url: str) -> Any:
    try:
        return run(kind, url, lambda one: one.answer(call(kind)))
    except LLMError as error:
        return error


TEXT = {"type": "text", "text": "{}"}
OPENAI_SHAPES: list[Any] = [
    {"choices": []},
    {"choices": None},
    {"choices": [{"message": {}, "finish_reason": "stop"}]},
    {"choices": [{"message": {"content": "{}"}}]},
    {"choices": [{"message": {"content": "{}"}}], "usage": {}},
    {"choices": [{"message": {"content": "{}"}}], "usage": None},
]
BAD_OPENAI_SHAPES: list[Any] = [
    {"choices": "abc"},
    {"choices": [None]},
    {"choices": [{}]},
    {"choices": [{"message": None, "finish_reason": "stop"}]},
    {"choices": [{"message": {"content": 5}, "finish_reason": "stop"}]},
    {"choices": [{"message": {"content": [TEXT]}, "finish_reason": "stop"}]},
    {"choices": [{"message": {"content": "{}"}}], "usage": {"prompt_tokens": "7"}},
    {"choices": [{"message": {"content": "{}"}}], "usage": {"prompt_tokens": -7, "completion_tokens": 1.5}},
]
ANTHROPIC_SHAPES: list[Any] = [
    {"content": None},
    {"content": "abc"},
    {"content": [None]},
    {"content": [{}]},
    {"content": [TEXT]},
    {"content": [TEXT], "usage": {}},
    {"content": [TEXT], "usage": None},
]
BAD_ANTHROPIC_SHAPES: list[Any] = [
    {"content": [{"type": "text"}], "stop_reason": "end_turn"},
    {"content": [{"type": "text", "text": None}], "stop_reason": "end_turn"},
    {"content": [{"type": "text", "text": 5}], "stop_reason": "end_turn"},
    {"content": [TEXT], "usage": {"input_tokens": "7", "output_tokens": None}},
    {"content": [TEXT], "usage": {"input_tokens": -7, "output_tokens": 1.5}},
]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        *(("json_schema", body) for body in OPENAI_SHAPES),
        *(("anthropic", body) for body in ANTHROPIC_SHAPES),
        *(pytest.param("json_schema", body) for body in BAD_OPENAI_SHAPES),
        *(pytest.param("anthropic", body) for body in BAD_ANTHROPIC_SHAPES),
    ],
)
def test_an_answer_of_another_shape_is_an_answer_or_unavailable(kind: str, body: Any) -> None:
    with saying(body) as portal:
        found = outcome(kind, portal.url)

    if not isinstance(found, Unavailable):
        assert isinstance(found, Answer)
        assert isinstance(found.text, str)
        assert type(found.tokens.input) is type(found.tokens.output) is int
        assert min(found.tokens.input, found.tokens.output) >= 0


@pytest.mark.parametrize("where", ["message", "code", "whole body"])
@both_vendors
def test_a_key_that_the_provider_repeats_is_cut_out(kind: str, where: str) -> None:
    error: Any = {"message": "bad", "code": "bad", "type": "bad"}
    body: Any = f"Who is {KEY}?" if where == "whole body" else {"error": {**error, where: f"What is {KEY} {KEY}?"}}
    for status in (400, 401, 429, 500):
        with saying(body, status=status) as portal:
            assert "…" in str(failure(kind, portal.url))


@every_kind
def test_nor_is_it_in_an_error_of_the_connection(kind: str) -> None:
    failure(kind, "http://127.0.0.1:1")
    failure(kind, "http://no-such-host.invalid")


# Structured output


def test_a_model_without_schemas_is_asked_without_from_then_on(provider: Provider) -> None:
    provider.behave(no_schema=True, keep_bodies=True)

    async def twice(generator: TextGenerator) -> list[Answer]:
        return [await generator.answer(call("json_schema")) for _ in range(2)]

    answers = run("json_schema", provider.anthropic_url, twice)

    assert all(orjson.loads(answer.text)["title"] for answer in answers)
    calls = provider.calls()
    assert [made["status"] for made in calls] == [400, 200, 200]
    assert ["response_format" in made["body"] for made in calls] == [True, False, False]


def test_claude_without_structured_output_is_asked_without_from_then_on() -> None:
    refusal = {"error": {"type": "invalid_request_error", "message": "output_config: Extra inputs are not permitted"}}

    with saying(refusal, status=400) as portal:

        async def twice(generator: TextGenerator) -> list[str]:
            said = []
            for _ in range(2):
                with pytest.raises(Rejected) as caught:
                    await generator.answer(call("anthropic"))
                said.append(str(caught.value))
            return said

        run("anthropic", portal.url, twice)

    assert len(portal.got) == 3  # with, without, without


@every_kind
def test_another_refusal_is_not_taken_for_missing_schemas(provider: Provider, kind: str) -> None:
    provider.behave(faults={"bad_request": 1})

    failure(kind, provider.anthropic_url)

    assert len(provider.calls()) == 1


def test_a_fault_of_the_call_without_a_schema_is_named_too(provider: Provider) -> None:
    refusal = {"error": {"message": "response_format is not supported"}}

    with saying(refusal, status=400) as portal:
        assert type(failure("json_schema", portal.url)) is Rejected
        assert len(portal.got) == 2
        assert type(failure("none", portal.url)) is Rejected
        assert len(portal.got) == 3


# Models


@every_kind
def test_it_lists_the_models_of_a_key(provider: Provider, kind: str) -> None:
    provider.behave(models=["a-model", "models/b-model"])

    found = run(kind, provider.anthropic_url, lambda one: one.models())

    assert found == ["a-model", "models/b-model" if kind == "anthropic" else "b-model"]
    assert [made["path"] for made in provider.calls()] == ["/v1/models"]


LISTING = [
    ({"keys": {KEY: "revoked"}}, KeyRefused),
    ({"keys": {KEY: "forbidden"}}, KeyRefused),
    ({"faults": {"rate_limit": 1}}, Throttled),
    ({"faults": {"overloaded": 1}}, Throttled),
    ({"faults": {"server_error": 1}}, Unavailable),
    ({"faults": {"bad_gateway": 1}}, Unavailable),
    ({"faults": {"truncated": 1}}, Unavailable),
]


@both_vendors
@pytest.mark.parametrize(("behaviour", "error"), LISTING)
def test_a_fault_while_listing_has_the_same_name(
    provider: Provider, kind: str, behaviour: dict[str, Any], error: type[LLMError]
) -> None:
    provider.behave(**behaviour)

    with pytest.raises(LLMError) as caught:
        run(kind, provider.anthropic_url, lambda one: one.models())

    assert type(caught.value) is error
    assert KEY not in str(caught.value)
    assert len(provider.calls()) == 1


NO_LISTS: list[tuple[Any, str]] = [
    ({"data": "x"}, "application/json"),
    ({"data": [None]}, "application/json"),
    ({"data": [{"id": 5}]}, "application/json"),
    ({"data": [{}]}, "application/json"),
]


@pytest.mark.parametrize(
    ("kind", "body", "type_"),
    [
        *((kind, *said) for kind in ("json_schema", "anthropic") for said in OBJECTS),
        *(pytest.param(kind, *said) for kind in ("json_schema", "anthropic") for said in NO_OBJECTS),
        *(pytest.param(kind, *said) for kind in ("json_schema", "anthropic") for said in NO_LISTS),
    ],
)
def test_no_list_behind_a_200_is_no_crash(kind: str, body: Any, type_: str) -> None:
    with saying(body, kind=type_) as portal:
        try:
            found = run(kind, portal.url, lambda one: one.models())
        except Unavailable:
            return

    assert all(isinstance(name, str) for name in found)


def test_the_platforms_own_organisation_does_not_go_with_a_tenants_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-the-platform")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-of-the-platform")

    with saying({"data": []}) as portal:
        run("json_schema", portal.url, lambda one: one.models())

    assert "of-the-platform" not in str(portal.got)


# Closing, and many at once


@every_kind
def test_closed_it_has_no_connection_left(provider: Provider, kind: str) -> None:
    async def inside() -> None:
        generator = make(kind, provider.anthropic_url)
        await generator.answer(call(kind))
        await generator.close()
        await generator.close()
        with pytest.raises((LLMError, RuntimeError)):
            await generator.answer(call(kind))

    asyncio.run(inside())
    assert len(provider.calls()) == 1


@both_vendors
def test_calls_go_side_by_side(provider: Provider, kind: str) -> None:
    provider.behave(latency=0.3)

    async def many(generator: TextGenerator) -> list[Answer]:
        return list(await asyncio.gather(*(generator.answer(call(kind)) for _ in range(30))))

    began = time.monotonic()
    answers = run(kind, provider.anthropic_url, many)

    assert len({answer.text for answer in answers}) == 30
    assert time.monotonic() - began < 15
    assert provider.counts()["most_in_flight"] > 10


@every_kind
def test_a_cancelled_call_leaves_at_once(provider: Provider, kind: str) -> None:
    provider.behave(faults={"hang": 1})

    async def leave(generator: TextGenerator) -> None:
        task = asyncio.create_task(generator.answer(call(kind)))
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()

    run(kind, provider.anthropic_url, leave)


# The registry


def test_every_provider_has_a_generator(provider: Provider) -> None:
    assert set(registry.VENDORS) == set(Name.values)

    async def inside(name: str) -> Answer:
        url = provider.anthropic_url if name == "anthropic" else provider.url
        generator = registry.make(name, base_url=url, api_key=KEY)
        try:
            return await generator.answer(call("anthropic" if name == "anthropic" else "none"))
        finally:
            await generator.close()

    for name in registry.VENDORS:
        assert asyncio.run(inside(name)).text


def test_a_provider_that_nobody_knows_has_none() -> None:
    with pytest.raises(KeyError):
        registry.make("mistral", base_url="http://127.0.0.1:1", api_key=KEY)


def test_a_local_server_needs_no_key(provider: Provider) -> None:
    with saying({"choices": [{"message": {"content": "{}"}, "finish_reason": "stop"}]}) as portal:
        answer = run("none", portal.url, lambda one: one.answer(call("none")), key="")

    assert answer == Answer("{}")
