"""The control endpoint: makes the emulator behave as the real service does on bad days, or as other pages describe it.

- `GET /__switches`: `{"switches": [...], "requests": {...}}`, the switches that are on and how many requests each route
  got since the start (`{"POST /{table}/query": 3}`; the path is what follows `/database/tables`).
- `POST /__switches/{name}` with the options as JSON: switch it on; the answer shows it with its `id` and the defaults.
  One name can be on several times with different options: the first of them that reaches a request acts on it.
- `DELETE /__switches/{name or id}`, `DELETE /__switches`: switch off these, or all; `{"off": 2}`.

Every switch takes these options (`switches.SCOPE`): `left`, for how many requests; `rate`, the probability (0 to 1) with which
it acts on a request, and `seed`, which repeats the same draws; `methods`, a list; `path`, a pattern such as `*/query` for
the whole path. The other options and what a switch does are in `faults`: `latency`, `rate_limit`, `stall`, `crash`,
`too_many_requests`, `server_error`, `bad_gateway`, `router_404`, `lost_answer`, `truncated_json`, `refuse_bearer`,
`refuse_key_header`, `statuses_201_204`, `bare_lists`, `wrong_bodies`, `duplicate_table_400`, `filters_spelling`, `stale_reads`,
`put_merges`, `duplicate_inserts`.

Switches act on the tables API only. Callers from other machines, and web pages in a browser here, get the router's 404.
"""

from collections.abc import Sequence
from functools import partial
from ipaddress import ip_address

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from engarde.embedded.zerodb import bodies
from engarde.embedded.zerodb.answers import json_answer
from engarde.embedded.zerodb.errors import Refused
from engarde.embedded.zerodb.faults import FAULTS, Endpoint
from engarde.embedded.zerodb.switches import SCOPE, Switch, Switches

PATH = "/__switches"

_ORDER = {name: number for number, name in enumerate(FAULTS)}


def routes() -> list[Route]:
    """Return the control endpoint's routes."""
    return [
        Route(PATH, _for_this_machine(show), methods=["GET"]),
        Route(PATH, _for_this_machine(turn_all_off), methods=["DELETE"]),
        Route(PATH + "/{name}", _for_this_machine(turn_on), methods=["POST"]),
        Route(PATH + "/{name}", _for_this_machine(turn_off), methods=["DELETE"]),
    ]


def switched(call: str, endpoint: Endpoint) -> Endpoint:
    """Return `endpoint` with the switches around it.

    Args:
        call: Method and route, such as `POST /{table}/rows`.
        endpoint: What answers when no switch is on.
    """

    async def answer(request: Request) -> Response:
        switches = _switches(request)
        switches.seen[call] += 1
        concerned = [each for each in switches.on() if _concerns(each, call)]
        return await _through(sorted(concerned, key=lambda each: _ORDER[each.name]), endpoint, request)

    return answer


async def show(request: Request) -> Response:
    """GET ``."""
    switches = _switches(request)
    return json_answer({"switches": [each.as_json() for each in switches.on()], "requests": dict(switches.seen)})


async def turn_on(request: Request) -> Response:
    """POST `/{name}` with options."""
    name = request.path_params["name"]
    if name not in FAULTS:
        raise Refused(404, f"No switch is called {name}; there are {', '.join(FAULTS)}")
    options = await bodies.read_body(request, {**SCOPE, **FAULTS[name].options})
    return json_answer(_switches(request).turn_on(name, options).as_json())


async def turn_off(request: Request) -> Response:
    """DELETE `/{name or id}`."""
    name = request.path_params["name"]
    removed = _switches(request).turn_off(name)
    if not removed and name not in FAULTS:
        raise Refused(404, f"No switch is called {name} or has this id")
    return json_answer({"off": removed})


async def turn_all_off(request: Request) -> Response:
    """DELETE ``."""
    return json_answer({"off": _switches(request).turn_off()})


async def _through(switches: Sequence[Switch], endpoint: Endpoint, request: Request) -> Response:
    for number, switch in enumerate(switches, start=1):
        if switch.takes(request.method, request.url.path):
            others = [each for each in switches[number:] if each.name != switch.name]
            proceed = partial(_through, others, endpoint)
            return await FAULTS[switch.name].run(switch, request, proceed)
    return await endpoint(request)


def _concerns(switch: Switch, call: str) -> bool:
    calls = FAULTS[switch.name].calls
    return calls is None or call in calls


def _switches(request: Request) -> Switches:
    switches: Switches = request.app.state.switches
    return switches


def _for_this_machine(endpoint: Endpoint) -> Endpoint:
    async def guarded(request: Request) -> Response:
        if request.client is None or not ip_address(request.client.host).is_loopback or "origin" in request.headers:
            raise HTTPException(404)
        return await endpoint(request)

    return guarded
