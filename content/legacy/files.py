"""Fetching an asset's file from where the old platform had it: over https, from public addresses, within bounds."""

import asyncio
import socket
import time
import unicodedata
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from ipaddress import ip_address
from urllib.parse import unquote, urlsplit

import httpx2
from django.conf import settings

from content.media import uploads
from content.media.uploads import Received
from engarde.common import addresses, calls
from engarde.common.addresses import NotPublic, Refused, Unresolved
from engarde.common.calls import Call

CONNECT_SECONDS = 3.0
MAX_REDIRECTS = 3
REDIRECTS = frozenset({301, 302, 303, 307, 308})
AWAY = (Unresolved, httpx2.ConnectError, httpx2.TimeoutException)
AWAY_SECONDS = 60.0  # a dead host costs one attempt a minute, and one that was away for a moment is found again
NO_ANSWER = "It did not answer in time."


class AddressRefused(Exception):
    """It leads, by itself, by DNS or by a redirect, to an address that is not public."""


class NotFetched(Exception):
    """The file could not be had; the text says why."""


def address_is_refused(url: str) -> bool:
    """Tell whether a URL leads, as it is written, to an address that is not public; no name is looked up but localhost."""
    try:
        name = urlsplit(url).hostname or ""
    except ValueError:
        return False
    host = unicodedata.normalize("NFKC", unquote(name)).partition("%")[0].rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    address = _as_address(host)
    return address is not None and not addresses.is_public(address)


def _as_address(host: str) -> str | None:
    """Return an IP address in whatever way it is spelt (127.1, 0x7f000001, 2130706433); None for names."""
    with suppress(ValueError):
        return str(ip_address(host))
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except (OSError, UnicodeError):
        return None


class Fetcher:
    """Fetches files one after the other and remembers which hosts are away, so that not each file of theirs costs a time-out.

    Attributes:
        most_bytes: that a file may have; never more than MEDIA_MAX_BYTES.
    """

    def __init__(self, *, most_bytes: int) -> None:
        self.most_bytes = min(most_bytes, settings.MEDIA_MAX_BYTES)
        self._away: dict[tuple[str, int], tuple[float, str]] = {}  # until when, and why
        uploads.drop_abandoned()

    def fetch(self, url: str) -> Received:
        """Fetch a file, which is then the caller's, within LEGACY_FETCH_SECONDS. Call it outside a scope.

        Raises:
            AddressRefused: its address may not be called.
            NotFetched: it could not be had.
            MediaUnavailable: the disk does not take it.
        """
        return asyncio.run(self._fetch_in_time(url))

    async def _fetch_in_time(self, url: str) -> Received:
        try:
            async with asyncio.timeout(settings.LEGACY_FETCH_SECONDS):
                return await self._fetch(url)
        except TimeoutError as error:
            raise NotFetched(f"It did not arrive within {settings.LEGACY_FETCH_SECONDS:g} seconds.") from error

    async def _fetch(self, url: str) -> Received:
        target = _parsed(url)
        name = target.path.rpartition("/")[2][-uploads.MAX_NAME :]
        for _ in range(1 + MAX_REDIRECTS):
            async with self._answer_of(target) as response:
                if response.status_code not in REDIRECTS:
                    return await self._received(response, name)
                target = _redirected(response, target)
        raise NotFetched(f"It was redirected more than {MAX_REDIRECTS} times.")

    @asynccontextmanager
    async def _answer_of(self, url: httpx2.URL) -> AsyncIterator[httpx2.Response]:
        """Give an answer whose body is yet to be read.

        Raises:
            AddressRefused, NotFetched: there is none.
        """
        host = addresses.name_of(url), addresses.port_of(url)
        until, why = self._away.get(host, (0.0, ""))
        if time.monotonic() < until:
            raise NotFetched(why)
        timeout = httpx2.Timeout(settings.LEGACY_FETCH_SECONDS, connect=CONNECT_SECONDS)
        call = Call("GET", url, timeout, headers={"accept": "*/*"}, public_only=True)
        async with AsyncExitStack() as stack:
            try:
                response = await stack.enter_async_context(calls.answer_to(call))
            except NotPublic as error:
                raise AddressRefused(str(error)) from error
            except (Refused, httpx2.HTTPError, OSError) as error:
                why = _reason(error)
                if isinstance(error, AWAY):
                    self._remember(host, why)
                raise NotFetched(why) from error
            except asyncio.CancelledError:
                self._remember(host, NO_ANSWER)
                raise
            yield response

    def _remember(self, host: tuple[str, int], why: str) -> None:
        self._away[host] = time.monotonic() + AWAY_SECONDS, why

    async def _received(self, response: httpx2.Response, name: str) -> Received:
        if response.status_code != httpx2.codes.OK:
            raise NotFetched(f"It answered {response.status_code}.")
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise NotFetched("It comes packed, which was not asked for.")
        length = response.headers.get("content-length", "")
        if length.isdecimal() and int(length) > self.most_bytes:
            raise NotFetched(self._too_long())
        with uploads.incoming(name) as file:
            try:
                async for chunk in response.aiter_raw():
                    if file.size + len(chunk) > self.most_bytes:
                        raise NotFetched(self._too_long())
                    file.write(chunk)
            except httpx2.HTTPError as error:
                raise NotFetched(f"It broke off after {file.size} bytes.") from error
            return file.finish()

    def _too_long(self) -> str:
        return f"It has more than the {self.most_bytes} bytes that it may have."


def _parsed(url: str) -> httpx2.URL:
    """Return a URL without its fragment, which no server gets to see.

    Raises:
        AddressRefused, NotFetched: it may not be called.
    """
    if address_is_refused(url):  # first, as an address that is refused is to be called so, over http too
        raise AddressRefused(addresses.LEADS_INSIDE)
    try:
        return addresses.parse(url.partition("#")[0], public_only=True)
    except NotPublic as error:
        raise AddressRefused(str(error)) from error
    except Refused as error:
        raise NotFetched(str(error)) from error


def _redirected(response: httpx2.Response, url: httpx2.URL) -> httpx2.URL:
    try:
        target = url.join(response.headers.get("location", ""))
    except (httpx2.InvalidURL, UnicodeError) as error:
        raise NotFetched("It was redirected to what is not a URL.") from error
    return _parsed(str(target))


def _reason(error: Exception) -> str:
    if isinstance(error, Refused):
        return str(error)
    if isinstance(error, httpx2.TimeoutException):
        return NO_ANSWER
    return f"The connection failed: {str(error) or type(error).__name__}"[:300]
