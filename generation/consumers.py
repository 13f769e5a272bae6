"""The WebSocket that tells of a job's progress: snapshot, items, progress, done."""

import asyncio
import contextlib
import re
import time
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import parse_qs
from uuid import UUID

import structlog
from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.utils import timezone
from rest_framework.exceptions import AuthenticationFailed

from engarde.accounts import queries as account_queries
from engarde.accounts.authentication import CredentialsAuthentication
from engarde.accounts.principal import Principal
from engarde.accounts.roles import SCOPES_OF, Scope
from engarde.common import json, request_ids
from engarde.common.problems import NotFound, Problem
from generation import feeds, queries, serializers
from generation.progress import FLUSH_SECONDS

log = structlog.get_logger(__name__)

SUBPROTOCOL = "engarde.v1"
BEARER = "bearer."
UNAUTHENTICATED, NOT_FOUND, FORBIDDEN, MALFORMED, GONE = 4401, 4404, 4403, 4400, 1011
READS = frozenset({Scope.CONTENT_READ, Scope.GENERATE})
BEAT_SECONDS = 15.0  # so often something is said, so that nobody on the way takes the line for dead
CHECK_SECONDS = 60.0
SEND_SECONDS = 30.0
LARGEST_SEQ = 2**31 - 1
SEQ = re.compile("[0-9]{1,10}")


@dataclass(frozen=True, slots=True)
class Handshake:
    """The credentials of a socket, as HTTP headers, for the authentication that HTTP has."""

    headers: "Headers"


class Headers(dict[str, str]):
    """Headers by name in any case."""

    def get(self, name: str, default: Any = None) -> Any:
        """Return a header."""
        return super().get(name.lower(), default)


class Refused(Exception):
    """The socket is closed with a code that says why."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(frozen=True, slots=True)
class Watcher:
    """Who watches which job.

    Attributes:
        after: the last item that they know of; None for news only.
    """

    principal: Principal
    tenant_id: UUID
    job_id: UUID
    after: int | None


class JobConsumer(AsyncWebsocketConsumer):
    """One watcher of one job."""

    channel_layer_alias = "none"  # the feed listens for all watchers of a job
    _task: asyncio.Task[None] | None = None
    _began = 0.0

    async def connect(self) -> None:
        """Accept, so that a browser sees the code of a refusal, and begin to tell."""
        self._began = time.monotonic()
        request_id = request_ids.accept_or_make(_headers(self.scope).get("X-Request-ID"))
        request_ids.begin(request_id, job_id=str(self.scope["url_route"]["kwargs"]["job_id"]))
        offered = self.scope.get("subprotocols", [])
        await self.accept(
            SUBPROTOCOL if SUBPROTOCOL in offered else None, headers=[(b"x-request-id", request_id.encode())]
        )
        self._task = asyncio.create_task(self._serve())

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Ignore what is said; there is nothing to say."""

    async def disconnect(self, code: int) -> None:
        """Stop telling, and write one log line about the socket."""
        seconds = round(time.monotonic() - self._began, 1)
        log.info("socket", path=self.scope["path"], code=code, seconds=seconds)
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _serve(self) -> None:
        try:
            watcher = await _admit(self.scope)
            async with feeds.watch(watcher.tenant_id, watcher.job_id) as feed:
                await self._tell(watcher, feed)
            await self.close()
        except Refused as refused:
            await self.close(code=refused.code, reason=str(refused))
        except Exception:
            log.exception("a watcher of a job was dropped")
            await self.close(code=GONE)

    async def _tell(self, watcher: Watcher, feed: feeds.Feed) -> None:
        """Tell all until the job has ended."""
        seq = await self._send_snapshot(watcher)
        place = seq if watcher.after is None else watcher.after
        version, checked_at = -1, time.monotonic()
        while True:
            await feed.wait_for_news(version, BEAT_SECONDS)
            flush_at, version = time.monotonic() + FLUSH_SECONDS, feed.version
            state = feed.state
            place, has_more = await self._send_items(feed, place)
            if has_more:
                version = -1
            elif state and state.is_finished:
                await self._send_done(watcher)
                return
            elif state and state.seq >= max(place, seq):  # the feed may be behind what PostgreSQL told just now
                await self._say(state.text)
            if time.monotonic() - checked_at > CHECK_SECONDS:
                await _check(watcher)
                checked_at = time.monotonic()
            await asyncio.sleep(max(0.0, flush_at - time.monotonic()))

    async def _send_items(self, feed: feeds.Feed, place: int) -> tuple[int, bool]:
        """Send what finished after an item; return the last one then, and whether there is more."""
        told = await feed.after(place)
        for one in told:
            await self._say(one.text)
        place = told[-1].seq if told else place
        state = feed.state
        return place, state is not None and place < state.seq

    async def _send_snapshot(self, watcher: Watcher) -> int:
        view = await _view(watcher)
        await self._send_job("snapshot", view)
        return int(view.job.last_seq)

    async def _send_done(self, watcher: Watcher) -> None:
        await self._send_job("done", await _view(watcher))

    async def _send_job(self, kind: str, view: queries.JobView) -> None:
        shown = {"type": kind, "seq": view.job.last_seq, **serializers.show_job(view, timezone.now())}
        await self._say(json.dumps(shown).decode())

    async def _say(self, text: str) -> None:
        """Send a message.

        Raises:
            Refused: the other side does not read.
        """
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await self.send(text)
        except TimeoutError as error:
            raise Refused(GONE, "Nobody reads at the other end.") from error


async def _admit(scope: Any) -> Watcher:
    """Return who watches what.

    Raises:
        Refused: they may not.
    """
    query = parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
    job_id: UUID = scope["url_route"]["kwargs"]["job_id"]
    principal, tenant_id = await _find(_handshake(scope), job_id)
    after = _after_of(query)
    return Watcher(principal, tenant_id, job_id, after)


def _after_of(query: dict[str, list[str]]) -> int | None:
    text = query.get("after", [None])[-1]
    if text is None:
        return None
    if not SEQ.fullmatch(text) or int(text) > LARGEST_SEQ:
        raise Refused(MALFORMED, "after is a whole number from 0")
    return int(text)


def _headers(scope: Any) -> "Headers":
    return Headers({name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]})


def _handshake(scope: Any) -> Handshake:
    """Return the credentials: of the headers, or where a browser cannot send those, of the subprotocols."""
    headers = _headers(scope)
    for offered in scope.get("subprotocols", []):
        if offered.startswith(BEARER) and "authorization" not in headers:
            headers["authorization"] = f"Bearer {offered.removeprefix(BEARER)}"
    return Handshake(headers)


@partial(database_sync_to_async, thread_sensitive=False)
def _find(handshake: Any, job_id: UUID) -> tuple[Principal, UUID]:
    """Return the caller and the one of their tenants that has the job.

    Raises:
        Refused: bad credentials, or no such job of theirs.
    """
    try:
        found = CredentialsAuthentication().authenticate(handshake)
    except AuthenticationFailed as error:
        raise Refused(UNAUTHENTICATED, str(error.detail)[:100]) from error
    except Problem as problem:
        raise Refused(NOT_FOUND, problem.detail[:100]) from problem
    if found is None:
        raise Refused(UNAUTHENTICATED, "Send credentials.")
    principal = found[0]
    is_known = False
    for tenant_id, scopes in _tenants_of(principal):
        try:
            queries.get_job(tenant_id=tenant_id, job_id=job_id)
        except NotFound:
            continue
        if not scopes.isdisjoint(READS):
            return principal, tenant_id
        is_known = True
    raise Refused(FORBIDDEN, "Your API key lacks the scope.") if is_known else Refused(NOT_FOUND, "No such job.")


def _tenants_of(principal: Principal) -> list[tuple[UUID, frozenset[Scope]]]:
    """Return the tenants to look in: the one that is picked, or, as browsers cannot send a header, all of a person's."""
    if principal.tenant:
        return [(principal.tenant.tenant_id, principal.scopes)]
    return [(one.tenant_id, SCOPES_OF[one.role]) for one in principal.memberships if one.is_accepted]


@partial(database_sync_to_async, thread_sensitive=False)
def _view(watcher: Watcher) -> queries.JobView:
    return queries.view_job(tenant_id=watcher.tenant_id, job_id=watcher.job_id)


@partial(database_sync_to_async, thread_sensitive=False)
def _check(watcher: Watcher) -> None:
    """Look whether a watcher would still be let in.

    Raises:
        Refused: not any more.
    """
    if not account_queries.is_still_let_in(
        principal=watcher.principal, tenant_id=watcher.tenant_id, now=timezone.now()
    ):
        raise Refused(UNAUTHENTICATED, "The login has ended, or the key was revoked.")
