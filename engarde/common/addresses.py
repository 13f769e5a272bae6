"""Which addresses that somebody else chose may be called: public ones only.

A name is resolved once for each call, all that it leads to is checked, and the caller connects to what was checked: a
name that leads elsewhere a moment later (DNS rebinding) gains nothing.
"""

import os
import socket
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from django.conf import settings
from httpx2 import URL, InvalidURL

RESOLVE_SECONDS = 5.0
LEADS_INSIDE = "It leads to an address that is not public."
TOO_SLOW = "Its name cannot be resolved in time."
# A look-up cannot be broken off: one that was given up keeps its thread until the system's own time-out.
RESOLVER_THREADS = 200
DEFAULT_PORTS = {"https": 443, "http": 80}
LOWEST_FREE_PORT = 1024
SPECIAL_V4 = [
    IPv4Network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"),
        *("192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
        *("224.0.0.0/4", "240.0.0.0/4"),
        "168.63.129.16/32",  # looks public, but is a cloud's service for the machine that asks
    )
]
GLOBAL_V6 = IPv6Network("2000::/3")
SPECIAL_V6 = [IPv6Network(network) for network in ("2001::/23", "2001:db8::/32", "3fff::/20")]
NAT64 = IPv6Network("64:ff9b::/96")


class Refused(Exception):
    """The address may not be called, or leads nowhere; the text says why and names no address."""


class NotPublic(Refused):
    """It leads to an address that is not public, or to a port that is not called."""


class Unresolved(Refused):
    """Its name leads nowhere, or not in time."""


def parse(url: str, *, public_only: bool = False) -> URL:
    """Return an address whose form is fit to be called.

    Args:
        public_only: https only, whatever WEBHOOK_ALLOW_HTTP says.

    Raises:
        Refused: no absolute https URL, or with a user, a fragment or another port than 443, 80 and 1024 to 65535.
    """
    try:
        parsed = URL(url)
    except InvalidURL as error:
        raise Refused("It is not a URL.") from error
    if parsed.scheme != "https" and not (parsed.scheme == "http" and settings.WEBHOOK_ALLOW_HTTP and not public_only):
        raise Refused("Only https addresses are called.")
    if not parsed.host or "%" in parsed.host:
        raise Refused("It names no host.")
    if parsed.userinfo or parsed.fragment:
        raise Refused("A user, a password or a fragment cannot be part of it.")
    port = port_of(parsed)
    if port not in DEFAULT_PORTS.values() and not LOWEST_FREE_PORT <= port <= 65535:
        raise Refused("Only the ports 443, 80 and 1024 to 65535 are called.")
    return parsed


def port_of(url: URL) -> int:
    """Return the port that a URL leads to."""
    return DEFAULT_PORTS[url.scheme] if url.port is None else url.port


def name_of(url: URL) -> str:
    """Return the host's name as DNS and certificates spell it."""
    return url.raw_host.decode("ascii").rstrip(".")


def check(url: str) -> None:
    """Check an address as it will be checked before each call. Call it outside a scope: it asks DNS.

    Raises:
        Refused: it may not be called, or leads nowhere.
    """
    parsed = parse(url)
    try:
        look_up(name_of(parsed), port_of(parsed)).result(timeout=RESOLVE_SECONDS)
    except TimeoutError as error:
        raise Unresolved(TOO_SLOW) from error


def look_up(host: str, port: int, *, public_only: bool = False) -> "Future[list[str]]":
    """Start `resolve` in a thread of its own."""
    return _resolvers(os.getpid()).submit(resolve, host, port, public_only=public_only)


@cache
def _resolvers(_process: int) -> ThreadPoolExecutor:
    """Return the process's resolvers: threads do not survive a fork."""
    return ThreadPoolExecutor(RESOLVER_THREADS, thread_name_prefix="webhook-resolver")


def resolve(host: str, port: int, *, public_only: bool = False) -> list[str]:
    """Return the IP addresses behind a name, all of which are public unless WEBHOOK_ALLOW_PRIVATE says otherwise.

    Args:
        public_only: whatever WEBHOOK_ALLOW_PRIVATE says.

    Raises:
        Unresolved: the name leads nowhere.
        NotPublic: it leads to an address that is not public, be it one of many.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Unresolved("Its name cannot be resolved.") from error
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if (public_only or not settings.WEBHOOK_ALLOW_PRIVATE) and not all(map(is_public, addresses)):
        raise NotPublic(LEADS_INSIDE)
    return addresses


def is_public(address: str) -> bool:
    """Tell whether an IP address can belong to somebody on the internet; an IPv4 address inside an IPv6 one counts."""
    ip = ip_address(address)
    if isinstance(ip, IPv4Address):
        return ip.is_global and not ip.is_multicast and not any(ip in network for network in SPECIAL_V4)
    inner = ip.ipv4_mapped or ip.sixtofour or _behind_nat64(ip)
    if inner is not None:
        return is_public(str(inner))
    return ip.is_global and ip in GLOBAL_V6 and not any(ip in network for network in SPECIAL_V6)


def _behind_nat64(ip: IPv6Address) -> IPv4Address | None:
    return IPv4Address(int(ip) & 0xFFFFFFFF) if ip in NAT64 else None
