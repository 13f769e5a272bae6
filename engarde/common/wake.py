"""Waking a carrier after a commit: best effort, never in the caller's way.

A request only sets a flag; one thread of the process sends the Celery messages. A Redis that hangs therefore costs a
committed write nothing, many commits make one message, and a lost message costs nothing either: beat sweeps.
"""

import atexit
import os
import threading

import structlog
from celery import current_app
from django.db import transaction

from engarde.common import request_ids

log = structlog.get_logger(__name__)

GATHER_SECONDS = 0.2
FLUSH_SECONDS = 0.5


def after_commit(task_name: str) -> None:
    """Have a task run soon after the transaction that is open commits (at once when none is)."""
    request_id = request_ids.current()
    transaction.on_commit(lambda: _waker().wake(task_name, request_id), robust=True)


class Waker:
    """Sends wake-ups from a thread of its own, each task's at most once per gathering."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._wanted: dict[str, str | None] = {}
        self._news = threading.Condition()
        self._idle = threading.Event()
        self._idle.set()
        threading.Thread(target=self._run, name="waker", daemon=True).start()
        atexit.register(self._idle.wait, FLUSH_SECONDS)  # a command ends right after its last commit

    def wake(self, task_name: str, request_id: str | None = None) -> None:
        """Ask for a task to be sent, under the id of the first request that wants it; returns at once."""
        with self._news:
            self._idle.clear()
            self._wanted.setdefault(task_name, request_id)
            self._news.notify()

    def _run(self) -> None:
        while True:
            for task_name, request_id in self._gather().items():
                _send(task_name, request_id)
            with self._news:
                if not self._wanted:
                    self._idle.set()

    def _gather(self) -> dict[str, str | None]:
        with self._news:
            self._news.wait_for(lambda: self._wanted)
        threading.Event().wait(GATHER_SECONDS)
        with self._news:
            wanted, self._wanted = self._wanted, {}
        return wanted


def _send(task_name: str, request_id: str | None) -> None:
    try:
        current_app.send_task(task_name, retry=False, expires=60, headers={"request_id": request_id})
    except Exception as error:  # noqa: BLE001 -- whatever a broker raises: the sweep covers it
        log.warning("wake-up not sent; the sweep will find the work", wanted=task_name, error=str(error))


_lock = threading.Lock()
_current: Waker | None = None


def _waker() -> Waker:
    """Return this process's waker: threads do not survive a fork."""
    global _current  # noqa: PLW0603 -- one per process
    with _lock:
        if _current is None or _current.pid != os.getpid():
            _current = Waker()
        return _current
