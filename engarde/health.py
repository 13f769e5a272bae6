"""Health and metrics: what an orchestrator, a monitor and a person at night look at first.

`/metrics` has what processes counted (`engarde.common.metrics` tells which processes), and gauges that are read from the
database and are the same whoever answers.
"""

import hmac
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import datetime
from functools import wraps
from typing import Any

import structlog
from django.conf import settings
from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from content import documents, spool
from content.stores.base import DocumentStore, NotAsked, StoreRejected
from content.stores.budget import BudgetSpent
from content.webhooks import sender
from dr import archives
from dr import queries as backup_queries
from dr import states as backup_states
from engarde.celery import app as celery_app
from engarde.common import json, problems
from engarde.common import metrics as counted
from engarde.common import redis as redis_client
from engarde.common.scopes import system_scope
from generation import queries as generation_queries
from generation.models import JobStatus
from quotas import queries as quota_queries

log = structlog.get_logger(__name__)

View = Callable[[HttpRequest], HttpResponse]

CHECK_SECONDS = 2.0
SAFE_METHODS = ("GET", "HEAD")
FRUGAL_PING_SECONDS = 300.0
KEPT_SECONDS = 2.0
"""What was found is told again for so long: whoever asks needs no credentials, and each look costs a call of every part."""


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
    try:
        _ping(store)
    except StoreRejected as error:
        log.exception("ZeroDB answers, but not as it should: check the ZERODB_… settings", error=str(error))
        return "down: ZeroDB refuses our requests or misunderstands them; the log says why"
    except NotAsked as error:
        spent = isinstance(error, BudgetSpent)
        return "degraded: the hourly budget of requests is spent" if spent else "down: left alone after failures"
    return _spool_state()


_last_ping: tuple[int, float] = (0, 0.0)


def _ping(store: DocumentStore) -> None:
    """Ping the store; where requests are counted, not at every look."""
    global _last_ping  # noqa: PLW0603 -- one memory for the process
    known, moment = _last_ping
    frugal = settings.ZERODB_REQUESTS_PER_HOUR and known == id(store)
    if frugal and time.monotonic() - moment < FRUGAL_PING_SECONDS:
        return
    store.ping()
    _last_ping = (id(store), time.monotonic())


def _spool_state() -> str:
    try:
        with system_scope("measure the spool"):
            is_full = spool.is_full()
    except DatabaseError:
        return "ok"  # of ZeroDB; that PostgreSQL is not is told by its own check
    finally:
        connection.close()
    return "ok" if not is_full else "degraded: the spool is full, documents leave it before the backup has them"


def check_bigquery() -> str:
    """Tell what the backup's last try showed; when that was well, ping the archive."""
    archive = archives.current()
    if archive is None:
        return "disabled: BIGQUERY_SYNC_ENABLED is off"
    trouble = _backup_trouble()
    if trouble is None:
        archive.ping()
    return trouble or "ok"


def _backup_trouble() -> str | None:
    """Return what is wrong with the backup; why, only staff are told."""
    try:
        return backup_states.trouble()
    except DatabaseError:
        return None  # that PostgreSQL is away is told by its own check
    finally:
        connection.close()


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
    """Runs checks side by side, each at most once at a time: one that hangs never takes another's thread.

    What a check found is kept for a while.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=len(CHECKS), thread_name_prefix="health")
        self._asked: dict[str, Future[str]] = {}
        self._ended: dict[str, float] = {}
        self._lock = threading.Lock()

    def states(self, *names: str, anew: bool = False) -> dict[str, str]:
        """Return the state of each part within CHECK_SECONDS.

        Args:
            anew: ask, whatever was found just now.
        """
        asked = {name: self._ask(name, anew=anew) for name in names}
        wait(asked.values(), timeout=CHECK_SECONDS)
        late = f"down: no answer within {CHECK_SECONDS:g} s"
        return {name: future.result() if future.done() else late for name, future in asked.items()}

    def forget(self) -> None:
        """Forget what was found; what is being asked goes on."""
        with self._lock:
            self._asked = {name: future for name, future in self._asked.items() if not future.done()}

    def _ask(self, name: str, *, anew: bool) -> "Future[str]":
        with self._lock:
            asked = self._asked.get(name)
            if asked is None or (asked.done() and (anew or self._is_old(name))):
                asked = self._asked[name] = self._pool.submit(self._check, name)
            return asked

    def _is_old(self, name: str) -> bool:
        return time.monotonic() - self._ended[name] >= KEPT_SECONDS

    def _check(self, name: str) -> str:
        try:
            return CHECKS[name]()
        except Exception as error:  # noqa: BLE001 -- whatever a client raises, the part is down
            log.warning("health check failed", check=name, error=str(error))
            return "down"
        finally:
            self._ended[name] = time.monotonic()


_checker = Checker()


def forget() -> None:
    """Have `/health` ask every part anew: for whoever knows that something has changed, such as a test that broke it."""
    _checker.forget()


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
    """Answer with each part's state, as it was seconds ago at most: 200 unless PostgreSQL, which decides, is down."""
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
    is_ready = _checker.states("postgres", anew=True)["postgres"] == "ok"
    return _answer({"status": "ok" if is_ready else "down"}, status=200 if is_ready else 503)


class DatabaseGauges(Collector):
    """Gauges that are read from the database when somebody asks, within CHECK_SECONDS and at most once at a time."""

    def __init__(self, name: str, read: Callable[[], Sequence[Metric]]) -> None:
        self._name, self._read = name, read
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._running: Future[Sequence[Metric]] | None = None
        self._lock = threading.Lock()

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges; when the database does not answer in time, only that it does not."""
        gauges = self._measured()
        told = f"1 when the database told the gauges of {self._name}."
        yield GaugeMetricFamily(f"engarde_{self._name}_readable", told, gauges is not None)
        yield from gauges or ()

    def _measured(self) -> Sequence[Metric] | None:
        with self._lock:
            if self._running is None or self._running.done():
                self._running = self._pool.submit(self._measure)
            running = self._running
        wait([running], timeout=CHECK_SECONDS)
        if not running.done():
            return None
        if error := running.exception():
            log.warning("gauges could not be read", of=self._name, error=str(error))
            return None
        return running.result()

    def _measure(self) -> Sequence[Metric]:
        try:
            with system_scope(f"read the gauges of {self._name}"), connection.cursor() as cursor:
                cursor.execute("SELECT set_config('statement_timeout', %s, true)", [str(int(CHECK_SECONDS * 1000))])
                return self._read()
        finally:
            connection.close()


# What a worker that beat sends has to take up within seconds: since when it has been due. What waits for its next try is not
# late, as a mail that nobody takes or a webhook that does not answer is no fault of ours. Each looks at the ends of an index.
PUBLISHING = """
SELECT scheduled_at FROM content_storage_metadata WHERE deleted_at IS NULL AND status = 'scheduled'
ORDER BY scheduled_at LIMIT 1"""
MAIL = "SELECT next_attempt_at FROM accounts_mail ORDER BY next_attempt_at LIMIT 1"
# By hops from webhook to webhook, as the sender looks for work. A slow receiver's deliveries may be due for hours while others
# of its are on their way, and those have a lease that ends later than now: so only webhooks count of which all are due.
WEBHOOKS = f"""{sender.WAITING}, looked_at AS (SELECT webhook_id FROM waiting WHERE webhook_id IS NOT NULL LIMIT 10000)
SELECT min(due.first) FROM looked_at CROSS JOIN LATERAL (
    SELECT min(next_attempt_at) AS first, max(next_attempt_at) AS last FROM content_webhook_deliveries AS delivery
    WHERE delivery.webhook_id = looked_at.webhook_id AND delivery.status = 'pending'
) AS due WHERE due.last < now()"""  # noqa: S608 -- put together from constants
OVERDUE = {
    "publish_overdue_seconds": ("How long the earliest scheduled item has been due.", PUBLISHING),
    "mail_oldest_seconds": ("How long the mail that is due for longest has been due.", MAIL),
    "webhooks_oldest_seconds": ("How long a delivery has been due of a webhook that is sent nothing.", WEBHOOKS),
}


def _seconds_since(query: str) -> float:
    """Return how long ago the moment was that a query names; 0 when there is none, or it is still to come."""
    with connection.cursor() as cursor:
        cursor.execute(query)
        found = cursor.fetchone()
    return max(0.0, (timezone.now() - found[0]).total_seconds()) if found and found[0] else 0.0


def _backlog_gauges() -> Sequence[Metric]:
    """Return what waits for ZeroDB and the backup, and what is late."""
    backlog = spool.backlog()
    documents_ = GaugeMetricFamily("engarde_spool_documents", "Documents in the spool.", labels=["state"])
    bytes_ = GaugeMetricFamily("engarde_spool_bytes", "Bytes of documents in the spool, compressed.", labels=["state"])
    for state, rows, size in (
        ("waiting_for_zerodb", backlog.documents, backlog.document_bytes),
        ("waiting_for_backup", backlog.kept, backlog.kept_bytes),
    ):
        documents_.add_metric([state], rows)
        bytes_.add_metric([state], size)
    age = "Age of the oldest document that waits for ZeroDB."
    return [
        documents_,
        bytes_,
        GaugeMetricFamily("engarde_spool_oldest_seconds", age, backlog.document_age),
        GaugeMetricFamily("engarde_records_backlog", "Records and removals that wait for ZeroDB.", backlog.records),
        GaugeMetricFamily("engarde_records_oldest_seconds", "Age of the oldest of them.", backlog.record_age),
        *(GaugeMetricFamily(f"engarde_{name}", text, _seconds_since(query)) for name, (text, query) in OVERDUE.items()),
    ]


def _quota_gauges() -> Sequence[Metric]:
    """Return how quotas are: reservations, alerts on their way, and what the last reconciliation of all tenants found."""
    state = quota_queries.platform_state()
    gauges = {
        "reserved_bytes": ("Bytes that reservations hold.", state.reserved_bytes),
        "reservations": ("Reservations.", state.reservations),
        "alert_deliveries_waiting": ("Messages about alerts that wait to be sent.", state.deliveries_waiting),
        "drift_bytes": ("How far used bytes were off at the last reconciliation; has to be 0.", state.drift_bytes),
        "drift_tenants": ("Tenants whose counters were off at the last reconciliation.", state.drift_tenants),
        "reconciled_timestamp_seconds": ("When the last reconciliation ended; 0 for never.", state.reconciled_at),
    }
    return [GaugeMetricFamily(f"engarde_quota_{name}", text, value) for name, (text, value) in gauges.items()]


def _generation_gauges() -> Sequence[Metric]:
    """Return how many jobs and items of generation wait or are in hand."""
    state = generation_queries.platform_state()
    jobs = GaugeMetricFamily("engarde_generation_jobs", "Jobs.", labels=["status"])
    for status in JobStatus:
        jobs.add_metric([status], state.jobs.get(status, 0))
    items = CounterMetricFamily("engarde_generation_items", "Items of jobs.", labels=["provider", "status"])
    tokens = CounterMetricFamily("engarde_generation_tokens", "Tokens of jobs.", labels=["provider", "direction"])
    cost = CounterMetricFamily("engarde_generation_cost_usd", "What jobs cost by list price.", labels=["provider"])
    for made in state.made:
        for end in ("completed", "failed"):
            items.add_metric([made["provider"], end], made[f"all_{end}"])
        for direction in ("input", "output"):
            tokens.add_metric([made["provider"], direction], made[f"all_{direction}_tokens"])
        cost.add_metric([made["provider"]], float(made["all_cost_usd"]))
    waited = "How long the oldest job has waited for its first item."
    return [
        jobs,
        items,
        tokens,
        cost,
        GaugeMetricFamily("engarde_generation_items_waiting", "Items that nobody has in hand.", state.items_waiting),
        GaugeMetricFamily("engarde_generation_items_in_hand", "Items that workers have in hand.", state.items_in_hand),
        GaugeMetricFamily("engarde_generation_oldest_seconds", waited, state.oldest_seconds),
    ]


def _backup_gauges() -> Sequence[Metric]:
    """Return how the backup is, what it did, and when it was last verified and drilled."""
    found = backup_queries.platform_state(now=timezone.now())
    health, drill = found.health, found.drill
    state = GaugeMetricFamily("engarde_backup_state", "1 for the state that the backup is in.", labels=["state"])
    for status in backup_states.BackupStatus:
        state.add_metric([status], status == health.status)
    gauges = {
        "on": ("0 while the backup is off by setting, else 1.", not health.is_off),
        "lag_seconds": ("Age of the oldest change that the archive has not acknowledged.", health.lag_seconds),
        "rpo_target_seconds": ("How old it may become.", health.rpo_target_seconds),
        "backlog_changes": ("Changes that the archive has not acknowledged.", health.backlog),
        "backlog_batches": ("Sealed batches among them.", found.batches_waiting),
        "set_aside_batches": ("Batches that cannot be shipped and are tried once a day.", health.set_aside),
        "last_success_timestamp_seconds": ("When the archive last took something.", _stamp(health.last_success_at)),
        "rpo_p99_seconds": ("How soon 99 of 100 changes of today were in the archive.", found.rpo_p99_seconds),
        "findings_open": ("Faults that verifications found and nobody mended.", found.findings_open),
        "verified_timestamp_seconds": ("When the last verification of all tenants ended.", _stamp(found.verified_at)),
        "drill_timestamp_seconds": ("When the last good drill ended.", _stamp(drill.finished_at if drill else None)),
        "drill_rto_seconds": ("RTO that it measured.", (drill and drill.rto_seconds) or 0),
        "drill_rpo_seconds": ("RPO that it measured.", (drill and drill.rpo_seconds) or 0),
    }
    measured = [GaugeMetricFamily(f"engarde_backup_{name}", text, value) for name, (text, value) in gauges.items()]
    done = [
        CounterMetricFamily(f"engarde_backup_{name}", f"What the backup did since it began: {name}.", value)
        for name, value in found.totals.items()
    ]
    return [state, *measured, *done]


def _stamp(when: datetime | None) -> float:
    """Return seconds since 1970; 0 for never."""
    return when.timestamp() if when else 0


_from_database = CollectorRegistry(auto_describe=False)
_from_database.register(DatabaseGauges("backlog", _backlog_gauges))
_from_database.register(DatabaseGauges("quota", _quota_gauges))
_from_database.register(DatabaseGauges("generation", _generation_gauges))
_from_database.register(DatabaseGauges("backup", _backup_gauges))


def _may_read_metrics(request: HttpRequest) -> bool:
    token = settings.METRICS_TOKEN
    given = request.headers.get("Authorization", "")
    return not token or hmac.compare_digest(given.encode(), f"Bearer {token}".encode())


@safe_methods_only
def metrics(request: HttpRequest) -> HttpResponse:
    """Answer in the Prometheus text format; where METRICS_TOKEN is set, to those who have it."""
    if not _may_read_metrics(request):
        refused = problems.plain(401, "not_authenticated", "Not authenticated", "Send METRICS_TOKEN as a bearer token.")
        refused["WWW-Authenticate"] = "Bearer"
        return refused
    return HttpResponse(counted.exposition() + generate_latest(_from_database), content_type=CONTENT_TYPE_LATEST)


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
