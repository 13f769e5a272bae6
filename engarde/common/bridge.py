"""Between granian and the applications: HTTP by ASGI served by WSGI in a fixed pool of threads, and WebSockets by Channels.

a2wsgi and Channels do the work; what is added here is what servers and clients do that they do not expect
(docs/decisions/0027).
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any
from urllib.parse import quote_from_bytes

from a2wsgi import WSGIMiddleware
from a2wsgi.wsgi import WSGIResponder
from django.conf import settings

from engarde.common import problems

BODY_SECONDS = 30.0  # for a whole body, files aside
STANDSTILL_SECONDS = 60.0  # nothing read or sent for so long: nobody is there
ASCII = "".join(map(chr, range(0x21, 0x7F)))


class ClientGone(ConnectionResetError):
    """The client went away while its request was read or its answer sent."""


class Responder(WSGIResponder):
    """One request. A client that goes away ends its thread's work; a2wsgi's own would wait for it for ever."""

    is_gone = False

    def send(self, message: Any) -> None:
        """Hand a message on, from the thread.

        Raises:
            ClientGone: nobody is there any more to take it.
        """
        if self.is_gone and message is not None:
            raise ClientGone
        super().send(message)

    async def sender(self, send: Callable[[Any], Any]) -> None:
        """Send what the thread hands on; go on taking it when the client is gone, as the thread would stand still.

        One that takes nothing for STANDSTILL_SECONDS counts as gone.
        """
        while (message := await self.send_queue.get()) is not None:
            if self.is_gone:
                continue
            try:
                async with asyncio.timeout(STANDSTILL_SECONDS):
                    await send(message)
            except Exception:  # noqa: BLE001 -- whatever a server raises for a connection that is closed
                self.is_gone = True


class WSGIBridge(WSGIMiddleware):
    """Serves HTTP by a WSGI application."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve a request."""

        async def received() -> Any:
            try:
                async with asyncio.timeout(STANDSTILL_SECONDS):
                    message = await receive()  # a server may return any awaitable, a2wsgi takes coroutines alone
            except TimeoutError as error:
                raise ClientGone from error
            if message["type"] == "http.disconnect":
                raise ClientGone  # else what came of the body would pass for all of it
            return message

        if not scope["query_string"].isascii():
            scope = {**scope, "query_string": quote_from_bytes(scope["query_string"], safe=ASCII).encode()}
        try:
            if not _is_multipart(scope):
                received = await _read_ahead(received)
        except TimeoutError:
            await _answer_late(send)
            return
        except ClientGone:
            return
        try:
            await Responder(self._app_of_known_length, self.executor, self.send_queue_size)(scope, received, send)
        except ClientGone:
            return

    def _app_of_known_length(self, environ: Any, start_response: Any) -> Any:
        environ["wsgi.input_terminated"] = True  # reading ends where the body does, also without a Content-Length
        return self.app(environ, start_response)


def _is_multipart(scope: Any) -> bool:
    return any(name == b"content-type" and value.startswith(b"multipart/") for name, value in scope["headers"])


async def _read_ahead(received: Callable[[], Any]) -> Callable[[], Any]:
    """Read a body before a thread is taken for it: one that trickles in would hold the thread as long as it likes.

    Returns:
        what gives the body again, and what is left of one that is larger than any body but a file may be.

    Raises:
        TimeoutError: the body did not come within BODY_SECONDS.
        ClientGone: the client went away.
    """
    messages: deque[Any] = deque()
    size = 0
    async with asyncio.timeout(BODY_SECONDS):
        while size <= settings.REQUEST_MAX_BYTES:
            message = await received()
            messages.append(message)
            size += len(message.get("body", b""))
            if not message.get("more_body"):
                break

    async def again() -> Any:
        return messages.popleft() if messages else await received()

    return again


async def _answer_late(send: Callable[[Any], Any]) -> None:
    detail = f"The request's body did not come within {BODY_SECONDS:g} s."
    answer = problems.plain(408, "request_timeout", "Request timeout", detail)
    headers = [(b"content-type", problems.PROBLEM_JSON.encode()), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": answer.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": answer.content})


class PromptClose:
    """Closes a WebSocket at once: granian (2.8.7) sends no close as long as somebody waits to receive, as Channels always does."""

    def __init__(self, app: Callable[..., Any]) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve a socket."""
        socket = _Socket(receive, send)
        await self._app(scope, socket.receive, socket.send)


class _Socket:
    def __init__(self, receive: Any, send: Any) -> None:
        self._receive, self._send = receive, send
        self._waiting: asyncio.Future[Any] | None = None
        self._code: int | None = None  # once we close it
        self._is_closed = asyncio.Event()

    async def receive(self) -> Any:
        if self._code is None:
            self._waiting = asyncio.ensure_future(self._next())
            try:
                return await self._waiting
            except asyncio.CancelledError:
                if self._code is None:
                    raise
        await self._is_closed.wait()  # an application that returned before would have the server close in its own way
        return {"type": "websocket.disconnect", "code": self._code}

    async def _next(self) -> Any:
        return await self._receive()

    async def send(self, message: Any) -> None:
        if message["type"] != "websocket.close":
            await self._send(message)
            return
        self._code = message.get("code") or 1000
        if self._waiting:
            self._waiting.cancel()
            await asyncio.wait([self._waiting])
        try:
            await self._send(message)
        finally:
            self._is_closed.set()
