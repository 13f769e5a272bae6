"""Messages to Slack, Microsoft Teams and webhooks, through apprise; the one module that knows it.

apprise's plugins call `requests` by themselves. Here they get `requests` in a guarded form: https only, to public addresses
that were resolved once and are connected to as checked, no redirects, no proxies of the environment, one time-out for all of
it, and next to nothing read of the answer. What a tenant gives is a plain URL; apprise's own URL options (some of which read
files) cannot be given.
"""

import logging
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import requests
from apprise import AppriseAsset, NotifyType, PersistentStoreMode
from apprise.plugins import custom_json, slack, workflows
from apprise.plugins.base import NotifyBase
from apprise.utils.http import (
    ConnectionTracker,
    HTTPPolicy,
    HTTPPolicySession,
    read_bounded_response,
    track_connections,
)
from django.conf import settings
from httpx2 import URL

from engarde.common import addresses
from engarde.common.addresses import Refused

__all__ = ["Message", "NotSent", "Refused", "check", "hint", "send"]

MAX_ANSWER_BYTES: Final = 64 * 1024
NO_ANSWER: Final = "It did not answer in time."
SLACK = re.compile(r"https://hooks\.slack(?:-gov)?\.com/services/[A-Z0-9]+/[A-Z0-9]+/[A-Za-z0-9]+/?")
TEAMS_HOSTS = re.compile(r"[a-z0-9.-]+\.(?:logic\.azure\.(?:com|us)|api\.powerplatform\.com)")
ASSET = AppriseAsset(
    app_id="En Garde",
    app_desc="En Garde content storage",
    app_url="",
    image_url_mask="",
    image_url_logo="",
    http_redirects=False,
    storage_mode=PersistentStoreMode.MEMORY,
    secure_logging=True,
)
# They tell of whole addresses, some of it at WARNING; what there is to tell, NotSent tells.
for _name, _level in {
    "apprise": logging.CRITICAL,
    "urllib3": logging.INFO,
    "urllib3.connection": logging.ERROR,
}.items():
    logging.getLogger(_name).setLevel(_level)


class NotSent(Exception):
    """The target did not take the message; the text says why and holds no secret."""


@dataclass(frozen=True, slots=True)
class Message:
    """What to tell.

    Attributes:
        urgent: whether writes are refused already, or soon will be.
        facts: what a webhook gets beside title and text.
    """

    title: str
    text: str
    urgent: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)


def check(*, kind: str, url: str) -> None:
    """Check an address as it will be checked before each message. Call it outside a scope: it asks DNS.

    Raises:
        Refused: it is not an address of that kind, or may not be called.
    """
    _plugin(kind, url, {})
    addresses.check(url)


def hint(url: str) -> str:
    """Return enough of an address to recognise it by, and too little to use it: its host and last characters."""
    return f"{URL(url).host[:200]}…{url[-4:]}"


def send(*, kind: str, url: str, message: Message) -> None:
    """Send a message.

    Raises:
        Refused: the address may not be called.
        NotSent: it was not taken.
    """
    how = NotifyType.FAILURE if message.urgent else NotifyType.WARNING
    # Not through `Apprise`, which swallows what `_request` raises, and with it the reason.
    plugin = _plugin(kind, url, message.facts)
    if not plugin.notify(title=message.title, body=message.text, notify_type=how):
        raise NotSent("Its answer is not one that stands for success.")


# apprise's plugins


def _plugin(kind: str, url: str, facts: Mapping[str, Any]) -> NotifyBase:
    """Return what sends to an address.

    Raises:
        Refused: it is not an address of that kind.
    """
    parsed = addresses.parse(url)
    try:
        plugin = PLUGINS[kind](url, parsed, facts)
    except TypeError:  # apprise's, for what its parser makes nothing of; its text has the tokens in it
        plugin = None
    if plugin is None:
        raise Refused(HINTS[kind])
    return plugin


def _slack(url: str, _parsed: URL, _facts: Mapping[str, Any]) -> NotifyBase | None:
    if not SLACK.fullmatch(url):
        return None
    token_a, token_b, token_c = url.rstrip("/").rsplit("/", 3)[1:]
    mode = slack.SlackMode.WEBHOOK_GOV if "slack-gov" in url else slack.SlackMode.WEBHOOK
    return slack.NotifySlack(
        token_a=token_a,
        token_b=token_b,
        token_c=token_c,
        mode=mode,
        include_image=False,
        include_footer=False,
        asset=ASSET,
    )


def _teams(url: str, parsed: URL, _facts: Mapping[str, Any]) -> NotifyBase | None:
    found = workflows.NotifyWorkflows.parse_native_url(url) if TEAMS_HOSTS.fullmatch(parsed.host) else None
    known = ("host", "port", "workflow", "signature", "power_automate", "version", "routing_id")
    if not found or not found.get("workflow") or not found.get("signature"):
        return None
    arguments = {name: found[name] for name in known if found.get(name) is not None}
    return workflows.NotifyWorkflows(**arguments, secure=True, include_image=False, asset=ASSET)


def _webhook(_url: str, parsed: URL, facts: Mapping[str, Any]) -> NotifyBase | None:
    host = parsed.raw_host.decode("ascii")
    return custom_json.NotifyJSON(
        host=f"[{host}]" if ":" in host else host,
        port=addresses.port_of(parsed),
        fullpath=parsed.raw_path.decode("ascii"),
        secure=parsed.scheme == "https",
        payload=dict(facts),
        asset=ASSET,
    )


PLUGINS: Mapping[str, Callable[[str, URL, Mapping[str, Any]], NotifyBase | None]] = {
    "slack": _slack,
    "teams": _teams,
    "webhook": _webhook,
}
HINTS = {
    "slack": "Give the URL of an incoming webhook: https://hooks.slack.com/services/…",
    "teams": "Give the URL of a Teams workflow that posts to a channel: https://….logic.azure.com/workflows/…",
    "webhook": "Give an https URL.",
}


# Guarded requests


def _request(method: str, url: str, **options: Any) -> requests.Response:
    """Do what `requests.request` does, within the bounds that this module's docstring names.

    Raises:
        NotSent: the address may not be called, there was no answer in time, or it is none of 200 to 299.
    """
    seconds = settings.WEBHOOK_TIMEOUT_SECONDS
    deadline, tracker = time.monotonic() + seconds, ConnectionTracker()
    bounds = {
        "stream": True,
        "allow_redirects": False,
        "timeout": (seconds / 4, seconds),  # a name may have many addresses that do not answer
        "verify": settings.WEBHOOK_CA_FILE or True,
    }
    try:
        with (
            track_connections(tracker, deadline),
            _Session(_Policy(deadline)) as session,  # type: ignore[no-untyped-call]  # apprise's
        ):
            response = session.request(method, url, **(options | bounds))
            response._content = read_bounded_response(response, MAX_ANSWER_BYTES) or b""
    except requests.RequestException as error:
        reason = _reason(error)
    else:
        reason = "" if response.status_code // 100 == 2 else f"It answered with status {response.status_code}."
    if tracker.expired:  # what was cut off may look like an answer, even a good one
        reason = NO_ANSWER
    if reason:
        raise NotSent(reason)
    return response


def _reason(error: BaseException | None) -> str:
    """Say why there was no answer; the error's own words have the whole address in them."""
    reason = "The connection failed."
    while error is not None:
        match error:
            case Refused():
                reason = str(error)
            case socket.gaierror() if not isinstance(error.__cause__, Refused):
                return "Its name cannot be resolved."
            case ssl.SSLCertVerificationError():
                reason = f"Its certificate is not valid: {error.verify_message}"
            case TimeoutError() | requests.Timeout():
                reason = NO_ANSWER
            case ConnectionRefusedError():
                reason = "The connection was refused."
        error = error.__cause__ or error.__context__
    return reason


class _Session(HTTPPolicySession):
    """Knows no redirects: of one that is not followed, `requests` would still read all of the body."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Return that it leads nowhere else."""


class _Policy(HTTPPolicy):
    """Takes fit addresses only, and tries no further one of a name when time is over."""

    def __init__(self, deadline: float) -> None:
        super().__init__(_is_fit, _is_allowed, addresses.RESOLVE_SECONDS)  # type: ignore[no-untyped-call]  # apprise's
        self.deadline = deadline

    def resolve(self, host: str, port: int) -> Iterator[Any]:
        """Return the addresses behind a name, one after the other."""
        for found in super().resolve(host, port):  # type: ignore[no-untyped-call]  # apprise's
            if time.monotonic() >= self.deadline:
                raise TimeoutError
            yield found


def _is_fit(url: str) -> bool:
    addresses.parse(url)
    return True


def _is_allowed(address: str) -> bool:
    """Refuse the whole name, as when it was first checked, for one address that is not public.

    Raises:
        Refused: it is not.
    """
    if not settings.WEBHOOK_ALLOW_PRIVATE and not addresses.is_public(address):
        raise Refused("It leads to an address that is not public.")
    return True


class _GuardedRequests:
    """`requests` as plugins see it: its names, but the calls go through `_request`."""

    request = staticmethod(_request)
    get = staticmethod(partial(_request, "GET"))
    post = staticmethod(partial(_request, "POST"))

    def __getattr__(self, name: str) -> Any:
        return getattr(requests, name)


for _module in (slack, workflows, custom_json):
    vars(_module)["requests"] = _GuardedRequests()
