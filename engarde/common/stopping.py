"""How a Celery worker ends within seconds: its tasks learn that it is to stop, and what does not end soon is broken off.

Celery waits for running tasks without bound after SIGTERM, and the processes that run them are not told. Orchestrators
kill after 30 s or so; before that, a task that was broken off goes back to its queue.
"""

import mmap
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import structlog
from billiard import active_children
from celery.signals import worker_shutting_down

BREAK_OFF_SECONDS = 18.0
KILL_SECONDS = 5.0
LEAVE_SECONDS = 4.0

log = structlog.get_logger(__name__)

_flag = mmap.mmap(-1, 1)  # shared with the processes that the worker forks later


def is_stopping() -> bool:
    """Tell whether the worker that this process belongs to is to stop; in other programs False."""
    return _flag[0] != 0


def go_on_for(seconds: float) -> Callable[[], bool]:
    """Return what a task asks between its steps: whether it may go on, which it may for so long unless the worker stops."""
    deadline = time.monotonic() + seconds
    return lambda: time.monotonic() < deadline and not is_stopping()


@worker_shutting_down.connect
def _stop(*, how: str = "", **_: Any) -> None:
    _flag[0] = 1
    if how == "Warm":
        threading.Thread(target=_insist, name="stopping", daemon=True).start()


def _insist() -> None:
    """End a worker that does not end by itself, with more force each time."""
    try:
        time.sleep(BREAK_OFF_SECONDS)
        os.kill(os.getpid(), signal.SIGQUIT)  # Celery's cold shutdown
        time.sleep(KILL_SECONDS)
        log.warning("killing processes that do not end")
        _kill_children()
        time.sleep(LEAVE_SECONDS)
    finally:  # whatever happened above: nobody else ends a worker that hangs
        os._exit(1)


def _kill_children() -> None:
    for pid in [child.pid for child in active_children() if child.pid]:
        with suppress(ProcessLookupError):  # it ended meanwhile
            os.kill(pid, signal.SIGKILL)
