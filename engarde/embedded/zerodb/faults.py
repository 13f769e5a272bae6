"""What each switch does to a request or its answer.

A fault gets the switch, the request, and `proceed`, which is all that would happen without it; so faults nest, and any
combination works. `FAULTS` lists them from the outermost to the innermost.
"""

import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import orjson
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

from engarde.embedded.zerodb.answers import BrokenAnswer, NoAnswer, first_half, json_answer
from engarde.embedded.zerodb.bodies import Field, Fields, unknown_key
from engarde.embedded.zerodb.errors import Refused
from engarde.embedded.zerodb.filters import EVERYTHING
from engarde.embedded.zerodb.store import Store, moment
from engarde.embedded.zerodb.switches import Switch

Endpoint = Callable[[Request], Awaitable[Response]]
Run = Callable[[Switch, Request, Endpoint], Awaitable[Response]]

CREATE_TABLE = "POST /"
DELETE_TABLE = "DELETE /{table}"
INSERT = "POST /{table}/rows"
QUERY = "POST /{table}/query"
GET_ROW = "GET /{table}/rows/{row_id}"
REPLACE_ROW = "PUT /{table}/rows/{row_id}"
DELETE_ROW = "DELETE /{table}/rows/{row_id}"
BULK = ("PUT /{table}/rows/bulk", "DELETE /{table}/rows/bulk")
WRITES = frozenset({CREATE_TABLE, DELETE_TABLE, INSERT, REPLACE_ROW, DELETE_ROW, *BULK})
ROW_LISTS = frozenset({"GET /{table}/rows", QUERY})
ROW_READS = ROW_LISTS | {GET_ROW}

_LONGEST_WAIT = 300
_MILLISECONDS = Field(int, required=True, at_least=1, at_most=_LONGEST_WAIT * 1000)
_SERVER_ERROR = {"detail": "Internal server error"}
_TOO_MANY = {"detail": "Rate limit exceeded", "error_code": "RATE_LIMIT_EXCEEDED"}
_HTML = "<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"


@dataclass(frozen=True, slots=True)
class Fault:
    """What a switch does, the options it takes besides its scope, and the calls it concerns (None for all)."""

    run: Run
    options: Fields = field(default_factory=dict)
    calls: frozenset[str] | None = None


async def latency(switch: Switch, request: Request, proceed: Endpoint) -> Response:
    """Answer `milliseconds` later."""
    await switch.wait(switch.options["milliseconds"] / 1000)
    return await proceed(request)


async def rate_limit(switch: Switch, request: Request, proceed: Endpoint) -> Response:
    """Let `requests` pass in any `seconds` (an hour), answer 429 to the others."""
    if not switch.has_room(switch.options["requests"], switch.options["seconds"]):
        return json_answer(_TOO_MANY, 429)
    return await proceed(request)


async def stall(switch: Switch, request: Request, proceed: Endpoint) -> Response:
    """Stay silent for `seconds`, then close the connection; with `commit` the request was carried out first."""
    if switch.options["commit"]:
        await proceed(request)
    await switch.wait(switch.options["seconds"])
    return NoAnswer()


async def crash(switch: Switch, request: Request, proceed: Endpoint) -> Response:
    """Die by SIGKILL, `when` is before the request is carried out or after that and before the answer."""
    if switch.options["when"] == "after":
        await proceed(request)
    os.kill(os.getpid(), signal.SIGKILL)
    return NoAnswer()


async def too_many_requests(switch: Switch, _request: Request, _proceed: Endpoint) -> Response:
    """Answer 429: with `retry_after` in seconds, or as a date that is `retry_at` seconds ahead, or without any."""
    seconds, ahead = switch.options["retry_after"], switch.options["retry_at"]
    headers = {}
    if seconds is not None:
        headers["Retry-After"] = f"{seconds:g}"
    elif ahead is not None:
        headers["Retry-After"] = format_datetime(datetime.now(UTC) + timedelta(seconds=ahead), usegmt=True)
    return json_answer(_TOO_MANY, 429, headers)


async def server_error(switch: Switch, _request: Request, _proceed: Endpoint) -> Response:
    """Answer 500, or another `status` of that kind."""
    return json_answer(_SERVER_ERROR, switch.options["status"])


async def bad_gateway(_switch: Switch, _request: Request, _proceed: Endpoint) -> Response:
    """Answer 502 with a page of HTML, as a proxy does."""
    return Response(_HTML, 502, media_type="text/html")


async def router_404(_switch: Switch, _request: Request, _proceed: Endpoint) -> Response:
    """Answer as for a route that does not exist."""
    return json_answer({"detail": "Not Found"}, 404)


async def lost_answer(switch: Switch, request: Request, proceed: Endpoint) -> Response:
    """Carry the write out, then drop the connection, or say error or nothing instead of the answer."""
    await proceed(request)
    match switch.options["instead"]:
        case "error":
            return json_answer(_SERVER_ERROR, 500)
        case "empty":
            return Response(b"", 200, media_type="application/json")
        case _:
            return NoAnswer()


async def truncated_json(switch: Switch, request: Request, proceed: Endpoint) -> Response:
    """Send half of the body; `announced`, its whole length is announced and the connection breaks."""
    answer = await proceed(request)
    if switch.options["announced"]:
        return BrokenAnswer(answer.body, answer.status_code, media_type=answer.media_type)
    return Response(first_half(answer.body), answer.status_code, media_type="application/json")


async def refuse_bearer(_switch: Switch, request: Request, proceed: Endpoint) -> Response:
    """Not know the key in `Authorization: Bearer`."""
    return await proceed(_without_header(request, "authorization"))


async def refuse_key_header(_switch: Switch, request: Request, proceed: Endpoint) -> Response:
    """Not know the key in `X-API-Key`."""
    return await proceed(_without_header(request, "x-api-key"))


async def statuses_201_204(_switch: Switch, request: Request, proceed: Endpoint) -> Response:
    """Answer 201 to what makes a row or table, 204 without a body to what deletes one."""
    answer = await proceed(request)
    if request.method == "DELETE":
        return Response(status_code=204)
    return Response(answer.body, 201, media_type="application/json")


async def bare_lists(_switch: Switch, request: Request, proceed: Endpoint) -> Response:
    """Answer lists without the envelope around them."""
    answer = await proceed(request)
    return json_answer(orjson.loads(answer.body)["data"])


async def wrong_bodies(switch: Switch, request: Request, proceed: Endpoint) -> Response:
    """Give rows the data of another row (`how` is swapped, if there is another) or changed data; or one `field` of it."""
    answer = await proceed(request)
    content = orjson.loads(answer.body)
    rows = content.get("data", [content])
    others = await _data_of_others(request, rows) if switch.options["how"] == "swapped" else []
    for number, row in enumerate(rows):
        wrong = others[number] if others else _altered(row["row_data"])
        name = switch.options["field"]
        row["row_data"] = wrong if name is None else row["row_data"] | {name: wrong.get(name)}
    return json_answer(content, answer.status_code)


async def duplicate_table_400(_switch: Switch, request: Request, proceed: Endpoint) -> Response:
    """Answer 400 instead of 409 when a table of that name exists."""
    try:
        return await proceed(request)
    except Refused as refused:
        raise Refused(400 if refused.status == 409 else refused.status, refused.detail) from refused


async def filters_spelling(switch: Switch, request: Request, proceed: Endpoint) -> Response:
    """Know `filters` where `filter` is documented; that is ignored, as FastAPI does with unknown keys, or refused."""
    body = _json_object(await request.body())
    if "filter" in body and switch.options["other"] == "refused":
        raise Refused(422, [unknown_key("body", "filter", body["filter"])])
    body.pop("filter", None)
    if "filters" in body:
        body["filter"] = body.pop("filters")
    return await proceed(_with_body(request, orjson.dumps(body)))


async def stale_reads(switch: Switch, request: Request, proceed: Endpoint) -> Response:
    """Not see rows that are younger than `milliseconds`; changes and deletions of older ones are seen."""
    request.state.rows_until = moment(timedelta(milliseconds=switch.options["milliseconds"]))
    return await proceed(request)


async def put_merges(_switch: Switch, request: Request, proceed: Endpoint) -> Response:
    """Keep the fields of a row that PUT does not name."""
    request.state.put_merges = True
    return await proceed(request)


async def duplicate_inserts(_switch: Switch, request: Request, proceed: Endpoint) -> Response:
    """Insert every row twice and answer with the first."""
    answer = await proceed(request)
    await proceed(request)
    return answer


FAULTS: Mapping[str, Fault] = {
    "latency": Fault(latency, {"milliseconds": _MILLISECONDS}),
    "rate_limit": Fault(
        rate_limit,
        {
            "requests": Field(int, required=True, at_least=0),
            "seconds": Field(float, default=3600, at_least=0),
        },
    ),
    "stall": Fault(
        stall,
        {
            "seconds": Field(float, required=True, at_least=0, at_most=_LONGEST_WAIT),
            "commit": Field(bool, default=False),
        },
    ),
    "crash": Fault(crash, {"when": Field(str, default="before", pattern="before|after")}),
    "too_many_requests": Fault(
        too_many_requests, {"retry_after": Field(float, at_least=0), "retry_at": Field(float, at_least=0)}
    ),
    "server_error": Fault(server_error, {"status": Field(int, default=500, at_least=500, at_most=599)}),
    "bad_gateway": Fault(bad_gateway),
    "router_404": Fault(router_404),
    "lost_answer": Fault(
        lost_answer, {"instead": Field(str, default="drop", pattern="drop|error|empty")}, calls=WRITES
    ),
    "truncated_json": Fault(truncated_json, {"announced": Field(bool, default=False)}),
    "refuse_bearer": Fault(refuse_bearer),
    "refuse_key_header": Fault(refuse_key_header),
    "statuses_201_204": Fault(statuses_201_204, calls=frozenset({CREATE_TABLE, INSERT, DELETE_TABLE, DELETE_ROW})),
    "bare_lists": Fault(bare_lists, calls=ROW_LISTS | {"GET /"}),
    "wrong_bodies": Fault(
        wrong_bodies,
        {"how": Field(str, default="swapped", pattern="swapped|altered"), "field": Field(str)},
        calls=ROW_READS,
    ),
    "duplicate_table_400": Fault(duplicate_table_400, calls=frozenset({CREATE_TABLE})),
    "filters_spelling": Fault(
        filters_spelling, {"other": Field(str, default="ignored", pattern="ignored|refused")}, calls=frozenset({QUERY})
    ),
    "stale_reads": Fault(stale_reads, {"milliseconds": _MILLISECONDS}, calls=ROW_READS),
    "put_merges": Fault(put_merges, calls=frozenset({REPLACE_ROW})),
    "duplicate_inserts": Fault(duplicate_inserts, calls=frozenset({INSERT})),
}


async def _data_of_others(request: Request, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return for each row the data of the one before it; for a row on its own, that of another row in its table."""
    if len(rows) > 1:
        return [rows[number - 1]["row_data"] for number in range(len(rows))]
    if not rows:
        return []
    store: Store = request.app.state.store
    found = await store.read(lambda tables: tables.find_rows(rows[0]["table_id"], EVERYTHING, {}, 0, 2))
    others = orjson.loads(orjson.dumps(found.items))
    return [other["row_data"] for other in others if other["row_id"] != rows[0]["row_id"]][:1]


def _altered(row_data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: f"{value}~" if isinstance(value, str) else [value] for name, value in row_data.items()}


def _without_header(request: Request, name: str) -> Request:
    headers = Headers(raw=[pair for pair in request.headers.raw if pair[0].decode() != name])
    return Request({**request.scope, "headers": headers.raw}, request.receive)


def _with_body(request: Request, body: bytes) -> Request:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return Request(request.scope, receive)


def _json_object(text: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(text or b"{}")
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        raise Refused(422, "The body is not a JSON object")
    return body
