"""Health and metrics: what an orchestrator, a monitor and a person at night look at first."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import wraps
from typing import Any

import structlog
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from content import documents
from dr import archives
from engarde.celery import app as celery_app
from engarde.common import json, problems
from engarde.common import redis as redis_client

log = structlog.get_logger(__name__)

View = Callable[[HttpRequest], HttpResponse]

CHECK_SECONDS = 2.0
SAFE_METHODS = ("GET", "HEAD")


def check_postgres() -> str:
    """Ask PostgreSQL something."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        return "ok"
    finally:
        connection.close()


def check_redis() -> str:
    """Ping Redis."""
    redis_client.client().ping()
    return "ok"


def check_zerodb() -> str:
    """Ping ZeroDB; without a key there is nothing to ask and documents stay in the spool."""
    store = documents.document_store()
    if store is None:
        return "disabled: no ZERODB_API_KEY, documents stay in PostgreSQL"
    store.ping()
    return "ok"


def check_bigquery() -> str:
    """Ping the backup."""
    archive = archives.current()
    if archive is None:
        return "disabled: BIGQUERY_SYNC_ENABLED is off"
    archive.ping()
    return "ok"


def check_celery() -> str:
    """Ask for the first worker that answers."""
    answers = celery_app.control.ping(timeout=CHECK_SECONDS / 2, limit=1)
    return "ok" if answers else "down: no worker answers"


CHECKS: dict[str, Callable[[], str]] = {
    "postgres": check_postgres,
    "redis": check_redis,
    "zerodb": check_zerodb,
    "bigquery": check_bigquery,
    "celery": check_celery,
}


class Checker:
    """Runs checks side by side, each at most once at a time: one that hangs never takes another's thread."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=len(CHECKS), thread_name_prefix="health")
        self._running: dict[str, Future[str]] = {}
        self._lock = threading.Lock()

    def states(self, *names: str) -> dict[str, str]:
        """Return the state of each part within CHECK_SECONDS."""
        started = {name: self._start(name) for name in names}
        wait(started.values(), timeout=CHECK_SECONDS)
        return {name: _state(name, future) for name, future in started.items()}

    def _start(self, name: str) -> "Future[str]":
        with self._lock:
            running = self._running.get(name)
            if running is None or running.done():
                running = self._running[name] = self._pool.submit(CHECKS[name])
            return running


def _state(name: str, future: "Future[str]") -> str:
    if not future.done():
        return f"down: no answer within {CHECK_SECONDS:g} s"
    if error := future.exception():
        log.warning("health check failed", check=name, error=str(error))
        return "down"
    return future.result()


_checker = Checker()


def safe_methods_only(view: View) -> View:
    """Answer anything but GET and HEAD with a 405 problem."""

    @csrf_exempt
    @wraps(view)
    def guarded(request: HttpRequest) -> HttpResponse:
        if request.method in SAFE_METHODS:
            return view(request)
        answer = problems.plain(405, "method_not_allowed", "Method not allowed", f"Use {' or '.join(SAFE_METHODS)}.")
        answer["Allow"] = ", ".join(SAFE_METHODS)
        return answer

    return guarded


@safe_methods_only
def health(request: HttpRequest) -> HttpResponse:
    """Answer with each part's state: 200 unless PostgreSQL, which decides, is down."""
    checks = _checker.states(*CHECKS)
    up = checks["postgres"] == "ok"
    fine = all(state == "ok" or state.startswith("disabled") for state in checks.values())
    status = "down" if not up else "ok" if fine else "degraded"
    return _answer({"status": status, "checks": checks}, status=200 if up else 503)


@safe_methods_only
def live(request: HttpRequest) -> HttpResponse:
    """Answer that this process serves."""
    return _answer({"status": "ok"})


@safe_methods_only
def ready(request: HttpRequest) -> HttpResponse:
    """Answer whether requests can be served: they need PostgreSQL and nothing else."""
    is_ready = _checker.states("postgres")["postgres"] == "ok"
    return _answer({"status": "ok" if is_ready else "down"}, status=200 if is_ready else 503)


@safe_methods_only
def metrics(request: HttpRequest) -> HttpResponse:
    """Answer in the Prometheus text format."""
    return HttpResponse(generate_latest(), content_type=CONTENT_TYPE_LATEST)


def _answer(body: dict[str, Any], status: int = 200) -> HttpResponse:
    response = HttpResponse(json.dumps(body), status=status, content_type="application/json")
    response["Cache-Control"] = "no-store"
    return response


urlpatterns = [
    path("health", health),
    path("health/live", live),
    path("health/ready", ready),
    path("metrics", metrics),
]
