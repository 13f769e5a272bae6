"""A stand-in for OpenAI and Anthropic: a real HTTP server in a process of its own that answers, or fails, as it is told.

Answers are JSON texts with a title, a body and hashtags. Refusals are immediate; all other answers, and faults, take the
latency. HTTP is written by hand, because no ASGI server lets an application break an answer off halfway.
"""

import asyncio
import random
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, ClassVar, NamedTuple
from urllib.parse import unquote

import orjson
import requests

HOST = "127.0.0.1"
CLIENT_LEFT = 499
MODELS = ("gpt-test", "claude-test")

REFUSING_FAULTS = {"rate_limit", "rate_limit_silent", "overloaded", "bad_request"}
BREAKING_FAULTS = {"server_error", "bad_gateway", "hang", "truncated"}
ANSWER_FAULTS = {
    "invalid_json",
    "cut_json",
    "wrong_shape",
    "fenced",
    "refusal",
    "content_filter",
    "empty",
}
FAULTS = REFUSING_FAULTS | BREAKING_FAULTS | ANSWER_FAULTS
KEY_FAULTS = {"revoked", "forbidden"}
PAYMENT_FAULTS = {"no_credit", "payment_required"}


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """How the provider behaves.

    - `latency` seconds, more or less by a random share `jitter`.
    - `rate` accepted calls a second for each key, `burst` at once; with `window`, `rate` in any one second instead.
    - `retry_after` in 429s: seconds, "date", or None to leave it out.
    - `faults`: the share of the calls that each one strikes, drawn from `seed`.
    - `hang_seconds`: when a hanging call is answered after all; None: never.
    - `invalid_first`: only a conversation with an assistant's message in it gets a good answer.
    - `keys`: what is wrong with a key.
    - `models` that exist; None: any.
    - `no_schema`: refuse `response_format` with a JSON schema.
    - `body_characters`: the length of an answer's body.
    - `keep_bodies`: keep the requests' JSON in `calls()`.
    """

    latency: float = 0
    jitter: float = 0
    rate: float | None = None
    burst: int | None = None
    window: bool = False
    retry_after: float | str | None = 1
    faults: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    hang_seconds: float | None = None
    invalid_first: bool = False
    keys: Mapping[str, str] = field(default_factory=dict)
    models: Sequence[str] | None = MODELS
    no_schema: bool = False
    body_characters: int | None = None
    keep_bodies: bool = False

    def __post_init__(self) -> None:
        unknown = (set(self.faults) - FAULTS) | (set(self.keys.values()) - KEY_FAULTS - PAYMENT_FAULTS)
        if unknown:
            raise ValueError(f"The provider knows no {', '.join(sorted(unknown))}.")
        if sum(self.faults.values()) > 1.000001:
            raise ValueError("The shares of the faults add up to more than 1.")
        if isinstance(self.retry_after, str) and self.retry_after != "date":
            raise ValueError("retry_after is a number of seconds, 'date' or None.")


class Provider:
    """The server, as a test sees it."""

    def __init__(self, **settings: Any) -> None:
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self.anthropic_url = ""

    def __enter__(self) -> "Provider":
        process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._process = process
        assert process.stdout
        port = process.stdout.readline().decode().strip()
        if not port:
            self._end()
            raise RuntimeError("The provider did not start.")
        self.anthropic_url = f"http://{HOST}:{port}"
        self.behave(**self._settings)
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    @property
    def url(self) -> str:
        return f"{self.anthropic_url}/v1"

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    def behave(self, **settings: Any) -> None:
        """Replace the behaviour; what is not named goes back to its default."""
        self._control("POST", "", asdict(Behaviour(**settings)))

    def calls(self) -> list[dict[str, Any]]:
        """Return the calls in the order in which they came; `status` is None in flight and 499 when the client left."""
        return list(self._control("GET", "/calls"))

    def counts(self) -> dict[int | str, int]:
        """Return how many calls ended with each status, and "in_flight" and "most_in_flight"."""
        return {int(name) if name.isdigit() else name: n for name, n in self._control("GET", "/counts").items()}

    def forget(self) -> None:
        """Forget the calls and the counts."""
        self._control("DELETE", "/calls")

    def _control(self, method: str, path: str, body: Any = None) -> Any:
        answer = requests.request(method, f"{self.anthropic_url}/control{path}", data=orjson.dumps(body), timeout=30)
        answer.raise_for_status()
        return orjson.loads(answer.content)

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                pipe.close()


# What goes over the wire


class Request(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def key(self) -> str:
        given = self.headers.get("x-api-key") or self.headers.get("authorization", "")
        return given.removeprefix("Bearer").strip()


class Reply(NamedTuple):
    status: int
    body: bytes
    headers: tuple[str, ...] = ()
    content_type: str = "application/json"

    def head(self) -> bytes:
        lines = (
            f"HTTP/1.1 {self.status} {REASONS.get(self.status, 'Unknown')}",
            f"content-type: {self.content_type}",
            f"content-length: {len(self.body)}",
            *self.headers,
        )
        return "\r\n".join((*lines, "", "")).encode()


REASONS = {status.value: status.phrase for status in HTTPStatus}
BAD_GATEWAY = b"""<html>
<head><title>502 Bad Gateway</title></head>
<body>
<center><h1>502 Bad Gateway</h1></center>
<hr><center>cloudflare</center>
</body>
</html>
"""


class Problem(NamedTuple):
    """A refusal; `{what}` in its message is filled in."""

    status: int
    type: str
    message: str
    code: str | None = None
    param: str | None = None


class Refused(Exception):
    """A call is refused."""

    def __init__(self, name: str, what: str = "") -> None:
        super().__init__(name)
        self.name = name
        self.what = what


class Answer(NamedTuple):
    """What the model says, before a vendor puts it in its words."""

    text: str
    fault: str
    model: str
    number: int
    prompt_tokens: int

    @property
    def tokens(self) -> int:
        return len(self.text) // 4


# The vendors


class OpenAI:
    headers = ("openai-version: 2020-10-01", "openai-organization: org-test", "openai-processing-ms: 1")
    id_header = "x-request-id"
    required = ("model", "messages")
    problems: ClassVar[Mapping[str, Problem]] = {
        "no_key": Problem(
            401,
            "invalid_request_error",
            "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer"
            " auth (i.e. Authorization: Bearer YOUR_KEY).",
        ),
        "revoked": Problem(
            401,
            "invalid_request_error",
            "Incorrect API key provided: {what}. You can find your API key at"
            " https://platform.openai.com/account/api-keys.",
            "invalid_api_key",
        ),
        "forbidden": Problem(
            403,
            "request_forbidden",
            "Country, region, or territory not supported",
            "unsupported_country_region_territory",
        ),
        "no_credit": Problem(
            429,
            "insufficient_quota",
            "You exceeded your current quota, please check your plan and billing details.",
            "insufficient_quota",
        ),
        "payment_required": Problem(402, "billing_error", "Payment is required to use this API.", "payment_required"),
        "not_found": Problem(404, "invalid_request_error", "Invalid URL ({what})"),
        "no_model": Problem(
            404,
            "invalid_request_error",
            "The model `{what}` does not exist or you do not have access to it.",
            "model_not_found",
        ),
        "no_schema": Problem(
            400,
            "invalid_request_error",
            "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model.",
            None,
            "response_format",
        ),
        "bad_request": Problem(400, "invalid_request_error", "Invalid request: {what}", "invalid_value"),
        "rate_limit": Problem(
            429,
            "requests",
            "Rate limit reached for requests per min (RPM) in organization org-test: Limit 60, Used 60, Requested 1."
            " Please try again in 1s.",
            "rate_limit_exceeded",
        ),
        "overloaded": Problem(
            503, "server_error", "The engine is currently overloaded, please try again later.", "service_unavailable"
        ),
        "server_error": Problem(
            500, "server_error", "The server had an error while processing your request. Sorry about that!"
        ),
    }

    def error(self, problem: Problem, message: str, _request_id: str) -> dict[str, Any]:
        return {
            "error": {"message": message, "type": problem.type, "param": problem.param, "code": problem.code},
        }

    def models(self, names: Sequence[str]) -> dict[str, Any]:
        return {"object": "list", "data": [self.model(name) for name in names]}

    def model(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": 1735689600, "owned_by": "system"}

    def refusal(self, request: Mapping[str, Any], behaviour: Behaviour) -> str:
        """Return why a well-formed request is refused."""
        wanted = request.get("response_format") or {}
        return "no_schema" if behaviour.no_schema and wanted.get("type") == "json_schema" else ""

    def answer(self, request: Mapping[str, Any], answer: Answer) -> dict[str, Any]:
        message, finish = self._message(request, answer)
        return {
            "id": f"chatcmpl-{answer.number:08}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": answer.model,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
            "usage": {
                "prompt_tokens": answer.prompt_tokens,
                "completion_tokens": answer.tokens,
                "total_tokens": answer.prompt_tokens + answer.tokens,
            },
            "service_tier": "default",
            "system_fingerprint": "fp_test",
        }

    def _message(self, request: Mapping[str, Any], answer: Answer) -> tuple[dict[str, Any], str]:
        message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None, "annotations": []}
        if answer.fault == "refusal":
            return message | {"content": None, "refusal": answer.text}, "stop"
        if answer.fault == "content_filter":
            return message, "content_filter"
        finish = "length" if answer.fault == "cut_json" else "stop"
        tool = _openai_tool(request)
        if not tool or answer.fault in {"fenced", "empty"}:
            return message, finish
        call = {
            "id": f"call_{answer.number:08}",
            "type": "function",
            "function": {"name": tool, "arguments": answer.text},
        }
        forced = isinstance(request.get("tool_choice"), dict)
        message |= {"content": None, "tool_calls": [call]}
        return message, finish if forced or finish == "length" else "tool_calls"


def _openai_tool(request: Mapping[str, Any]) -> str:
    tools, choice = request.get("tools"), request.get("tool_choice")
    if not tools or choice == "none":
        return ""
    tool = choice if isinstance(choice, dict) else tools[0]
    return str(tool["function"]["name"])


class Anthropic:
    headers = ("anthropic-organization-id: 00000000-0000-4000-8000-000000000001",)
    id_header = "request-id"
    required = ("model", "messages", "max_tokens")
    problems: ClassVar[Mapping[str, Problem]] = {
        "no_key": Problem(401, "authentication_error", "x-api-key header is required"),
        "revoked": Problem(401, "authentication_error", "invalid x-api-key"),
        "forbidden": Problem(
            403, "permission_error", "Your API key does not have permission to use the specified resource."
        ),
        "no_credit": Problem(
            400,
            "invalid_request_error",
            "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or"
            " purchase credits.",
        ),
        "payment_required": Problem(
            402, "billing_error", "There is an issue with your billing or payment information."
        ),
        "not_found": Problem(404, "not_found_error", "Not Found"),
        "no_model": Problem(404, "not_found_error", "model: {what}"),
        "bad_request": Problem(400, "invalid_request_error", "{what}"),
        "rate_limit": Problem(
            429,
            "rate_limit_error",
            "This request would exceed your organization's rate limit of 60 requests per minute.",
        ),
        "overloaded": Problem(529, "overloaded_error", "Overloaded"),
        "server_error": Problem(500, "api_error", "Internal server error"),
        "content_filter": Problem(400, "invalid_request_error", "Output blocked by content filtering policy"),
    }

    def error(self, problem: Problem, message: str, request_id: str) -> dict[str, Any]:
        return {"type": "error", "error": {"type": problem.type, "message": message}, "request_id": request_id}

    def models(self, names: Sequence[str]) -> dict[str, Any]:
        ends = {"first_id": names[0], "last_id": names[-1]} if names else {"first_id": None, "last_id": None}
        return {"data": [self.model(name) for name in names], "has_more": False, **ends}

    def model(self, name: str) -> dict[str, Any]:
        return {
            "id": name,
            "type": "model",
            "display_name": name.replace("-", " ").title(),
            "created_at": "2026-01-01T00:00:00Z",
            "lifecycle": "active",
        }

    def refusal(self, _request: Mapping[str, Any], _behaviour: Behaviour) -> str:
        return ""

    def answer(self, request: Mapping[str, Any], answer: Answer) -> dict[str, Any]:
        content, stop = self._content(request, answer)
        return {
            "id": f"msg_{answer.number:024}",
            "type": "message",
            "role": "assistant",
            "model": answer.model,
            "content": content,
            "stop_reason": stop,
            "stop_sequence": None,
            "stop_details": {"type": "refusal", "category": None, "explanation": None} if stop == "refusal" else None,
            "usage": {
                "input_tokens": answer.prompt_tokens,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
                "output_tokens": answer.tokens,
                "service_tier": "standard",
            },
        }

    def _content(self, request: Mapping[str, Any], answer: Answer) -> tuple[list[dict[str, Any]], str]:
        cut = answer.fault == "cut_json"
        stop = {"cut_json": "max_tokens", "refusal": "refusal"}.get(answer.fault, "end_turn")
        tool = _anthropic_tool(request)
        if tool and answer.fault in {"", "wrong_shape", "cut_json"}:
            use = {
                "type": "tool_use",
                "id": f"toolu_{answer.number:024}",
                "name": tool,
                "input": {} if cut else orjson.loads(answer.text),
            }
            return [use], "max_tokens" if cut else "tool_use"
        return [{"type": "text", "text": answer.text}] if answer.text else [], stop


def _anthropic_tool(request: Mapping[str, Any]) -> str:
    choice = request.get("tool_choice") or {}
    if choice.get("type") == "tool":
        return str(choice["name"])
    return str(request["tools"][0]["name"]) if choice.get("type") == "any" and request.get("tools") else ""


Vendor = OpenAI | Anthropic
OPENAI, ANTHROPIC = OpenAI(), Anthropic()
ENDPOINTS: Mapping[str, Vendor] = {"/v1/chat/completions": OPENAI, "/v1/messages": ANTHROPIC}


# What the model says

FILLER = " The quick brown fox jumps over the lazy dog."


def _text(content: Any) -> str:
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return str(content or "")


def _last_user(messages: Sequence[Mapping[str, Any]]) -> str:
    return next((_text(message.get("content")) for message in reversed(messages) if message.get("role") == "user"), "")


def _prompt_tokens(request: Mapping[str, Any]) -> int:
    said = sum(len(_text(message.get("content"))) for message in request["messages"])
    return (said + len(_text(request.get("system")))) // 4


def _good(topic: str, number: int, characters: int | None) -> str:
    body = f"{number}. {topic}"
    length = len(body) + 4 * len(FILLER) if characters is None else characters
    body += FILLER * max(0, (length - len(body)) // len(FILLER) + 1)
    post = {"title": f"{topic} {number}", "body": body[:length], "hashtags": ["#test", f"#n{number}"]}
    return orjson.dumps(post).decode()


def _said(fault: str, topic: str, number: int, characters: int | None) -> str:
    """Return the text of an answer, good or not."""
    if fault == "invalid_json":
        return f"Sure, I would be glad to write about {topic}. Post {number} tells a story and ends with a question."
    if fault == "wrong_shape":
        return orjson.dumps({"headline": f"{topic} {number}", "tags": "none"}).decode()
    if fault == "refusal":
        return "I'm sorry, but I can't help with that."
    if fault in {"empty", "content_filter"}:
        return ""
    text = _good(topic, number, characters)
    if fault == "cut_json":
        return text[: len(text) // 2]
    if fault == "fenced":
        return f"Here is the post:\n\n```json\n{text}\n```\n\nLet me know what you would like to change."
    return text


# Limits and faults


class Bucket:
    def __init__(self, rate: float, burst: int | None, at: float) -> None:
        self._rate = rate
        self._burst = float(max(1, int(rate)) if burst is None else burst)
        self._tokens = self._burst
        self._at = at

    def take(self, at: float) -> bool:
        self._tokens = min(self._burst, self._tokens + (at - self._at) * self._rate)
        self._at = at
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Window:
    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._accepted: deque[float] = deque()

    def take(self, at: float) -> bool:
        while self._accepted and self._accepted[0] <= at - 1:
            self._accepted.popleft()
        if len(self._accepted) >= self._rate:
            return False
        self._accepted.append(at)
        return True


class Chance:
    """Draws what happens to a call."""

    def __init__(self, behaviour: Behaviour) -> None:
        self._faults = tuple(behaviour.faults.items())
        self._latency, self._jitter = behaviour.latency, behaviour.jitter
        self._of_faults = random.Random(behaviour.seed)
        self._of_latency = random.Random(behaviour.seed)

    def fault(self) -> str:
        if not self._faults:
            return ""
        drawn = self._of_faults.random()
        for name, share in self._faults:
            if drawn < share:
                return name
            drawn -= share
        return ""

    def latency(self) -> float:
        if not self._jitter:
            return self._latency
        return self._latency * (1 + self._jitter * self._of_latency.uniform(-1, 1))


# The server

Call = dict[str, Any]


class Plan(NamedTuple):
    """How a call is answered: `delay` seconds from now, or never when it is None."""

    call: Call | None
    reply: Reply
    delay: float | None = 0
    cut: bool = False


class Desk:
    """Decides about calls and keeps the record of them."""

    def __init__(self) -> None:
        self._number = 0
        self._requests = 0
        self._in_flight = 0
        self.behave(Behaviour())
        self.forget()

    def behave(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self._chance = Chance(behaviour)
        self._limits: dict[str, Bucket | Window] = {}

    def forget(self) -> None:
        self._calls: list[Call] = []
        self._most_in_flight = self._in_flight

    def plan(self, request: Request) -> Plan:
        if request.path.startswith("/control"):
            return Plan(None, self._controlled(request))
        vendor = ENDPOINTS.get(request.path) or (ANTHROPIC if "anthropic-version" in request.headers else OPENAI)
        call = self._arrived(request)
        try:
            return self._answered(vendor, request, call)
        except Refused as refusal:
            return Plan(call, self._refused(vendor, refusal))
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            return Plan(call, self._refused(vendor, Refused("bad_request", f"malformed: {error!r}")))

    def left(self, call: Call, status: int) -> None:
        """Record that a call is over."""
        call["status"], call["done_at"] = status, time.time()
        self._in_flight -= 1

    def _arrived(self, request: Request) -> Call:
        call = {
            "at": time.time(),
            "done_at": None,
            "status": None,
            "path": request.path,
            "model": "",
            "key": request.key[-4:],
            "fault": "",
        }
        self._calls.append(call)
        self._requests += 1
        self._in_flight += 1
        self._most_in_flight = max(self._most_in_flight, self._in_flight)
        return call

    def _answered(self, vendor: Vendor, request: Request, call: Call) -> Plan:
        method, path, _, body = request
        if method == "GET" and (path == "/v1/models" or path.startswith("/v1/models/")):
            self._check_key(request.key, KEY_FAULTS)
            return self._faulted(vendor, call, lambda _: self._catalogue(vendor, path))
        if method != "POST" or path not in ENDPOINTS:
            raise Refused("not_found", f"{method} {path}")
        self._check_key(request.key, KEY_FAULTS | PAYMENT_FAULTS)
        asked = _parsed(body, vendor.required)
        call["model"] = asked["model"]
        if self._behaviour.keep_bodies:
            call["body"] = asked
        self._check_asked(vendor, asked, request.key, call["at"])
        return self._faulted(vendor, call, lambda fault: self._completion(vendor, asked, fault), asked["messages"])

    def _check_key(self, key: str, faults: set[str]) -> None:
        if not key:
            raise Refused("no_key")
        wrong = self._behaviour.keys.get(key)
        if wrong in faults:
            raise Refused(wrong, f"{key[:3]}****{key[-4:]}")

    def _check_asked(self, vendor: Vendor, asked: Mapping[str, Any], key: str, at: float) -> None:
        models = self._behaviour.models
        if models is not None and asked["model"] not in models:
            raise Refused("no_model", asked["model"])
        if not self._allowed(key, at):
            raise Refused("rate_limit")
        if refusal := vendor.refusal(asked, self._behaviour):
            raise Refused(refusal)

    def _allowed(self, key: str, at: float) -> bool:
        rate, burst = self._behaviour.rate, self._behaviour.burst
        if rate is None:
            return True
        limit = self._limits.get(key)
        if limit is None:
            limit = self._limits[key] = Window(rate) if self._behaviour.window else Bucket(rate, burst, at)
        return limit.take(at)

    def _faulted(
        self, vendor: Vendor, call: Call, answer: Callable[[str], bytes], messages: Sequence[Mapping[str, Any]] = ()
    ) -> Plan:
        fault = self._fault(messages)
        call["fault"] = fault
        if fault in REFUSING_FAULTS:
            raise Refused(fault, "the test wants it so")
        delay = self._chance.latency()
        if fault == "bad_gateway":
            return Plan(call, Reply(502, BAD_GATEWAY, content_type="text/html"), delay)
        if fault == "server_error" or (fault == "content_filter" and vendor is ANTHROPIC):
            return Plan(call, self._refused(vendor, Refused(fault)), delay)
        reply = self._reply(vendor, 200, answer(fault))
        if fault == "hang":
            return Plan(call, reply, self._behaviour.hang_seconds)
        return Plan(call, reply, delay, cut=fault == "truncated")

    def _fault(self, messages: Sequence[Mapping[str, Any]]) -> str:
        fault = self._chance.fault()
        if not messages:
            return "" if fault in ANSWER_FAULTS else fault
        if not fault and self._behaviour.invalid_first:
            return "" if any(message.get("role") == "assistant" for message in messages) else "invalid_json"
        return fault

    def _completion(self, vendor: Vendor, asked: Mapping[str, Any], fault: str) -> bytes:
        self._number += 1
        topic = _last_user(asked["messages"])[:80]
        said = fault if fault in ANSWER_FAULTS else ""
        text = _said(said, topic, self._number, self._behaviour.body_characters)
        answer = Answer(text, said, asked["model"], self._number, _prompt_tokens(asked))
        return orjson.dumps(vendor.answer(asked, answer))

    def _catalogue(self, vendor: Vendor, path: str) -> bytes:
        models = self._behaviour.models
        name = unquote(path.removeprefix("/v1/models").strip("/"))
        if not name:
            return orjson.dumps(vendor.models(MODELS if models is None else models))
        if models is not None and name not in models:
            raise Refused("no_model", name)
        return orjson.dumps(vendor.model(name))

    def _refused(self, vendor: Vendor, refusal: Refused) -> Reply:
        problem = vendor.problems[refusal.name.removesuffix("_silent")]
        body = vendor.error(problem, problem.message.format(what=refusal.what), self._request_id)
        headers = self._retry_after() if refusal.name == "rate_limit" else ()
        return self._reply(vendor, problem.status, orjson.dumps(body), headers)

    def _reply(self, vendor: Vendor, status: int, body: bytes, headers: tuple[str, ...] = ()) -> Reply:
        return Reply(status, body, (f"{vendor.id_header}: {self._request_id}", *vendor.headers, *headers))

    @property
    def _request_id(self) -> str:
        return f"req_{self._requests:024}"

    def _retry_after(self) -> tuple[str, ...]:
        wanted = self._behaviour.retry_after
        if wanted is None:
            return ()
        return (f"retry-after: {formatdate(time.time() + 3, usegmt=True) if wanted == 'date' else f'{wanted:g}'}",)

    def _controlled(self, request: Request) -> Reply:
        answer: Any = None
        if request.path == "/control/counts":
            answer = self._counts()
        elif request.path == "/control/calls" and request.method == "GET":
            answer = self._calls
        elif request.path == "/control/calls":
            self.forget()
        else:
            self.behave(Behaviour(**orjson.loads(request.body)))
        return Reply(200, orjson.dumps(answer))

    def _counts(self) -> dict[str, int]:
        statuses = Counter(str(call["status"]) for call in self._calls if call["status"])
        return {**statuses, "in_flight": self._in_flight, "most_in_flight": self._most_in_flight}


def _parsed(body: bytes, required: Sequence[str]) -> dict[str, Any]:
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise Refused("bad_request", "We could not parse the JSON body of your request.") from None
    for name in required:
        if not (isinstance(asked, dict) and asked.get(name)):
            raise Refused("bad_request", f"{name}: Field required")
    if asked.get("stream"):
        raise Refused("bad_request", "stream: not served here")
    return dict(asked)


class Connection(asyncio.Protocol):
    """One connection: takes a request at a time and writes what the desk decides."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._buffer = b""
        self._head: tuple[int, str, str, dict[str, str]] | None = None
        self._plan: Plan | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._plan is None:
            self._serve()

    def connection_lost(self, _: Exception | None) -> None:
        if self._timer:
            self._timer.cancel()
        if self._plan and self._plan.call:
            self._desk.left(self._plan.call, CLIENT_LEFT)
        self._plan = None

    def _serve(self) -> None:
        for request in self._requests():
            self._plan = plan = self._desk.plan(request)
            if plan.delay is None:
                return
            if plan.delay > 0:
                self._timer = asyncio.get_running_loop().call_later(plan.delay, self._answer_later)
                return
            self._answer()

    def _requests(self) -> Iterator[Request]:
        while not self._transport.is_closing():
            if self._head is None and b"\r\n\r\n" in self._buffer:
                self._take_head()
            if self._head is None or len(self._buffer) < self._head[0]:
                return
            size, method, path, headers = self._head
            body, self._buffer, self._head = self._buffer[:size], self._buffer[size:], None
            yield Request(method, path, headers, body)

    def _take_head(self) -> None:
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        self._head = int(headers.get("content-length", 0)), method, target.partition("?")[0], headers

    def _answer_later(self) -> None:
        self._answer()
        self._serve()

    def _answer(self) -> None:
        plan, self._plan, self._timer = self._plan, None, None
        assert plan
        body = plan.reply.body
        self._transport.write(plan.reply.head() + (body[: len(body) // 2] if plan.cut else body))
        if plan.cut:
            self._transport.close()
        if plan.call:
            self._desk.left(plan.call, plan.reply.status)


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    desk = Desk()
    server = await loop.create_server(lambda: Connection(desk), HOST, 0, backlog=1024)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    orphaned = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), orphaned.set)  # whoever started it holds the other end of the pipe
    await orphaned.wait()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    asyncio.run(_serve())
