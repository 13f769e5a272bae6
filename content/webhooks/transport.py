"""Sending one message: to a checked address, within one time-out for all of it, reading next to nothing of the answer.

The sends of a pass share one event loop in a thread of its own, so that a target that is slow costs no thread.
"""

import asyncio
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Self

import httpx2
import structlog
from django.conf import settings
from django.utils import timezone

from content.webhooks.messages import Message
from engarde.common import addresses, calls
from engarde.common.addresses import Refused
from engarde.common.calls import Call
from engarde.common.encryption import Unreadable

log = structlog.get_logger(__name__)

CONNECT_SECONDS = 4.0
EXCERPT_SECONDS = 1.0
EXCERPT_CHARACTERS = 500
LONGEST_RETRY_AFTER = 24 * 3600


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of an attempt.

    Attributes:
        status: the HTTP status, None when there was none.
        error: why it counts as failed; empty for a success.
        retry_after: seconds that the target asked to be left alone for.
    """

    status: int | None = None
    error: str = ""
    retry_after: int = 0

    @property
    def is_delivered(self) -> bool:
        """Whether the target took it: any 2xx, and nothing else."""
        return self.status is not None and 200 <= self.status < 300


class Courier:
    """Sends messages side by side; what is under way at the end of the `with` block is broken off."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="webhook-courier", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(_break_off())
            self._loop.close()

    def send(self, message: Message) -> "Future[Answer]":
        """Start sending; the future never raises."""
        return asyncio.run_coroutine_threadsafe(_answer(message), self._loop)


async def _break_off() -> None:
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


async def _answer(message: Message) -> Answer:
    try:
        async with asyncio.timeout(settings.WEBHOOK_TIMEOUT_SECONDS):
            return await _send(message)
    except TimeoutError:
        return Answer(error=f"No answer within {settings.WEBHOOK_TIMEOUT_SECONDS:g} seconds.")
    except (Refused, Unreadable) as error:
        return Answer(error=str(error))
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
        return Answer(error=_shortened(f"The connection failed: {str(error) or type(error).__name__}"))
    except Exception as error:
        log.exception("a webhook's answer was not foreseen", webhook_id=str(message.webhook_id))
        return Answer(error=f"The attempt failed: {type(error).__name__}.")


async def _send(message: Message) -> Answer:
    call = Call(
        "POST",
        addresses.parse(message.url),
        _timeout(),
        headers=message.headers(timezone.now()),
        content=message.body.encode(),
        ca_file=settings.WEBHOOK_CA_FILE,
    )
    async with calls.answer_to(call) as response:
        return await _read(response)


def _timeout() -> httpx2.Timeout:
    return httpx2.Timeout(settings.WEBHOOK_TIMEOUT_SECONDS, connect=CONNECT_SECONDS)


async def _read(response: httpx2.Response) -> Answer:
    status = response.status_code
    if 200 <= status < 300:
        return Answer(status)
    excerpt = await _excerpt(response)
    why = f"It answered {status}" + (f": {excerpt}" if excerpt else ".")
    return Answer(status, _shortened(why), _retry_after(response))


async def _excerpt(response: httpx2.Response) -> str:
    """Return the beginning of a body as it came, without unpacking it; the status alone decides, so it may be missing."""
    got = b""
    try:
        async with asyncio.timeout(EXCERPT_SECONDS):
            async for piece in response.aiter_raw():
                got += piece
                if len(got) >= 4 * EXCERPT_CHARACTERS:
                    break
    except (TimeoutError, httpx2.HTTPError) as error:
        log.debug("a webhook's answer broke off", error=str(error))
    return got[: 4 * EXCERPT_CHARACTERS].decode("utf-8", "replace")


def _shortened(text: str) -> str:
    """Return a text fit to be stored: PostgreSQL takes no NUL, and nobody reads control characters."""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())[:EXCERPT_CHARACTERS]


def _retry_after(response: httpx2.Response) -> int:
    asked = response.headers.get("retry-after", "")
    is_number = asked.isascii() and asked.isdigit() and len(asked) < 10
    return min(int(asked), LONGEST_RETRY_AFTER) if is_number else 0
