"""The answers that the emulator can give: JSON, JSON that breaks off, and none at all."""

import os
import socket
from collections.abc import Mapping
from typing import Any

import orjson
import psutil
from starlette.responses import Response
from starlette.types import Receive, Scope, Send


def json_answer(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return `content` as JSON."""
    return Response(orjson.dumps(content), status, headers, media_type="application/json")


class BrokenAnswer(Response):
    """Announces the whole body's length, sends its first half and closes the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        # The server waits for more, gets none, and closes.
        await send({"type": "http.response.body", "body": first_half(self.body), "more_body": True})


class NoAnswer(Response):
    """Closes the client's connection without a byte of an answer."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Close the connection."""
        host, port = scope["client"]
        for connection in psutil.Process().net_connections("tcp"):
            if connection.raddr == (host, int(port)):
                with socket.socket(fileno=os.dup(connection.fd)) as duplicate:
                    duplicate.shutdown(socket.SHUT_RDWR)


def first_half(body: bytes | memoryview) -> bytes:
    """Return the first half of a body, which is no JSON any more."""
    return bytes(body[: len(body) // 2])
