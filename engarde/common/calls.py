"""HTTP calls to addresses that somebody else chose: they go to the IP addresses that were checked, and nowhere else."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cache

import certifi
import httpx2

from engarde.common import addresses


@dataclass(frozen=True, slots=True)
class Call:
    """A request.

    Attributes:
        url: as `addresses.parse` returned it.
        ca_file: of the certificate authorities to trust in place of the public ones.
        public_only: whatever WEBHOOK_ALLOW_PRIVATE says.
    """

    method: str
    url: httpx2.URL
    timeout: httpx2.Timeout
    headers: Mapping[str, str]
    content: bytes = b""
    ca_file: str = ""
    public_only: bool = False


@asynccontextmanager
async def answer_to(call: Call) -> AsyncIterator[httpx2.Response]:
    """Send a request and give its answer, whose body is yet to be read; redirects are not followed.

    The whole has no time-out of its own: a server may send its headers byte by byte.

    Raises:
        Unresolved: its name leads nowhere, or not in time.
        NotPublic: it leads to an address that is not public.
        httpx2.HTTPError: the connection or the server failed.
    """
    found = await _look_up(call)
    async with AsyncExitStack() as stack:
        yield await _first_answer(call, found, stack)


async def _look_up(call: Call) -> list[str]:
    host, port = addresses.name_of(call.url), addresses.port_of(call.url)
    try:
        async with asyncio.timeout(addresses.RESOLVE_SECONDS):
            return await asyncio.wrap_future(addresses.look_up(host, port, public_only=call.public_only))
    except TimeoutError as error:
        raise addresses.Unresolved(addresses.TOO_SLOW) from error


async def _first_answer(call: Call, found: list[str], stack: AsyncExitStack) -> httpx2.Response:
    for address in found[:-1]:
        try:
            return await stack.enter_async_context(_answer_of(call, address))
        except (httpx2.ConnectError, httpx2.ConnectTimeout):
            continue  # nothing was sent; the next address may be reachable
    return await stack.enter_async_context(_answer_of(call, found[-1]))


@asynccontextmanager
async def _answer_of(call: Call, address: str) -> AsyncIterator[httpx2.Response]:
    """Send to an IP address; the certificate must be for the name, which TLS and HTTP are told.

    The client is for this one request: a pool would take connections to one address for one another, whatever their names.
    """
    headers = {
        **call.headers,
        "host": call.url.netloc.decode("ascii"),
        "accept-encoding": "identity",
        "connection": "close",
    }
    async with httpx2.AsyncClient(verify=trusted(call.ca_file), trust_env=False, timeout=call.timeout) as client:
        request = client.build_request(
            call.method,
            call.url.copy_with(host=address),
            headers=headers,
            content=call.content,
            extensions={"sni_hostname": addresses.name_of(call.url)},
        )
        response = await client.send(request, stream=True, follow_redirects=False)
        try:
            yield response
        finally:
            await response.aclose()


@cache
def trusted(ca_file: str) -> ssl.SSLContext:
    """Return what trusts the certificate authorities of a PEM file, or the public ones."""
    return ssl.create_default_context(cafile=ca_file or certifi.where())
