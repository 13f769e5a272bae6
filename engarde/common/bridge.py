"""Between granian and the applications: HTTP by ASGI served by WSGI in a fixed pool of threads, and WebSockets by Channels.

a2wsgi and Channels do the work; what is added here is what servers and clients do that they do not expect
(docs/decisions/0027).
"""

import asyncio
from collections.abc import Callable
from typing import Any
from urllib.parse import quote_from_bytes

from a2wsgi import WSGIMiddleware
from a2wsgi.wsgi import WSGIResponder

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
        """Send what the thread hands on; go on taking it when the client is gone, as the thread would stand still."""
        while (message := await self.send_queue.get()) is not None:
            if self.is_gone:
                continue
            try:
                await send(message)
            except Exception:  # noqa: BLE001 -- whatever a server raises for a connection that is closed
                self.is_gone = True


class WSGIBridge(WSGIMiddleware):
    """Serves HTTP by a WSGI application."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve a request."""

        async def received() -> Any:
            message = await receive()  # a server may return any awaitable, a2wsgi takes coroutines alone
            if message["type"] == "http.disconnect":
                raise ClientGone  # else what came of the body would pass for all of it
            return message

        if not scope["query_string"].isascii():
            scope = {**scope, "query_string": quote_from_bytes(scope["query_string"], safe=ASCII).encode()}
        try:
            await Responder(self._app_of_known_length, self.executor, self.send_queue_size)(scope, received, send)
        except ClientGone:
            return

    def _app_of_known_length(self, environ: Any, start_response: Any) -> Any:
        environ["wsgi.input_terminated"] = True  # reading ends where the body does, also without a Content-Length
        return self.app(environ, start_response)


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
