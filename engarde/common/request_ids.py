"""Request ids: taken or made for each request, carried into every log line and every task it starts."""

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import structlog
from celery.signals import before_task_publish, task_postrun, task_prerun
from uuid_utils.compat import uuid7

ACCEPTED = re.compile(r"[A-Za-z0-9._-]{1,128}")


def accept_or_make(given: str | None) -> str:
    """Return the client's own id when it is well-formed, otherwise a new one."""
    return given if given and ACCEPTED.fullmatch(given) else str(uuid7())


def current() -> str | None:
    """Return the id of the request (or task) that is being served."""
    return structlog.contextvars.get_contextvars().get("request_id")


def begin(request_id: str, **more: str) -> None:
    """Have the log lines that follow, in this thread or asyncio task, bear a request's id, and nothing of an earlier one."""
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=request_id, **more)


def threads(number: int, name: str = "") -> ThreadPoolExecutor:
    """Return threads whose log lines bear the ids of whoever makes them; for a pool that serves one task or request."""
    ids = structlog.contextvars.get_contextvars()
    return ThreadPoolExecutor(number, name, lambda: _bind(ids))


def _bind(ids: dict[str, Any]) -> None:
    structlog.contextvars.bind_contextvars(**ids)


@before_task_publish.connect
def _send_along(headers: dict[str, Any], **_: Any) -> None:
    headers["request_id"] = headers.get("request_id") or current()


@task_prerun.connect
def _take_over(task_id: str, task: Any, **_: Any) -> None:
    begin(getattr(task.request, "request_id", None) or task_id, task=task.name)


@task_postrun.connect
def _let_go(**_: Any) -> None:
    structlog.contextvars.clear_contextvars()
