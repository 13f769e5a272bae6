"""What processes count for Prometheus: requests here, the rest in each room's `metrics.py`.

With PROMETHEUS_MULTIPROC_DIR, a folder that processes of one machine or container share, each of them tells the figures of
all; without it a process tells its own. No label names a tenant, a person or an item.
"""

import hmac
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import structlog
from celery.signals import worker_ready
from django.conf import settings
from django.http import HttpRequest
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, Histogram, PlatformCollector
from prometheus_client import generate_latest as generate
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

log = structlog.get_logger(__name__)

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
REQUESTS = Histogram(
    "engarde_http_request_seconds",
    "Time until an answer began, by method, route template (none: no route, or answered before routing) and status.",
    ["method", "route", "status"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)


def note_request(request: HttpRequest, *, status: int, seconds: float) -> None:
    """Count a request under its route, never under its path: paths hold ids, and anybody can make new ones."""
    match = request.resolver_match
    route = f"/{match.route}" if match and match.route else "none"
    method = request.method if request.method in METHODS else "other"
    REQUESTS.labels(method, route, status).observe(seconds)


def exposition() -> bytes:
    """Return this process's figures, or those of all that share PROMETHEUS_MULTIPROC_DIR, in the Prometheus text format."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if not folder:
        return generate(REGISTRY)
    _forget_the_dead(Path(folder))
    registry = CollectorRegistry()
    MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
    PlatformCollector(registry)
    return generate(registry)


def _forget_the_dead(folder: Path) -> None:
    """Drop the gauges of processes that have ended; what they counted stays."""
    for file in folder.glob("gauge_live*_*.db"):
        pid = file.stem.rpartition("_")[2]
        if pid.isdecimal() and not _lives(int(pid)):
            mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class _Quiet(WSGIRequestHandler):
    """Writes no line a scrape."""

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def serve(host: str, port: int) -> int:
    """Serve the figures at an address of their own, from a thread, and return the port: a worker answers no other HTTP.

    Raises:
        OSError: the port is taken.
    """
    server = make_server(host, port, _application, handler_class=_Quiet)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return int(server.server_port)


def _application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    token = settings.METRICS_TOKEN
    given = environ.get("HTTP_AUTHORIZATION", "")
    if token and not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
        start_response("401 Unauthorized", [("WWW-Authenticate", "Bearer")])
        return []
    start_response("200 OK", [("Content-Type", CONTENT_TYPE_LATEST)])
    return [exposition()]


@worker_ready.connect
def _serve_worker(**_: Any) -> None:
    port = settings.WORKER_METRICS_PORT
    if not port:
        return
    if not os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        log.warning("WORKER_METRICS_PORT needs PROMETHEUS_MULTIPROC_DIR: tasks run in other processes than this one")
    serve(settings.WORKER_METRICS_HOST, port)
