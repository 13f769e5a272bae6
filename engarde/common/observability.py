"""Sentry and OpenTelemetry, for those who set SENTRY_DSN or OTEL_EXPORTER_OTLP_ENDPOINT. What leaves is redacted as logs are.

Their packages are in requirements-observability.txt and are imported only then.
"""

import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import structlog
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from engarde.common.logs import clean_text, redact

NEEDED = {
    "SENTRY_DSN": ("sentry_sdk",),
    "OTEL_EXPORTER_OTLP_ENDPOINT": ("opentelemetry.sdk", "opentelemetry.instrumentation.django"),
}
SERVICE = "engarde"
UNTRACED = "health,metrics,static"


def start() -> None:
    """Start what the settings ask for.

    Raises:
        ImproperlyConfigured: its packages are not installed.
    """
    for name, modules in NEEDED.items():
        if getattr(settings, name) and not all(map(_is_there, modules)):
            raise ImproperlyConfigured(
                f"{name} is set, but its packages are missing: pip install -r requirements-observability.txt"
            )
    if settings.SENTRY_DSN:
        _start_sentry()
    if settings.OTEL_EXPORTER_OTLP_ENDPOINT:
        _start_tracing()


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of the package that it would be in
        return False


def _start_sentry() -> None:
    import sentry_sdk  # noqa: PLC0415 -- only where it is wanted

    sentry_sdk.init(
        dsn=settings.SENTRY_DSN,
        environment=settings.ENGARDE_ENV,
        traces_sample_rate=settings.SENTRY_TRACES_SAMPLE_RATE,
        send_default_pii=False,
        include_local_variables=False,
        max_request_body_size="never",
        before_send=_scrubbed,
        before_send_transaction=_scrubbed,
        before_breadcrumb=lambda crumb, _hint: _clean(crumb),
    )


def _scrubbed(event: Any, hint: Mapping[str, Any]) -> Any:
    """Return an event without secrets and without what is a customer's: addresses, cookies, queries. It bears our ids."""
    ids = structlog.contextvars.get_contextvars()
    event["tags"] = {**(event.get("tags") or {}), **{name: str(value) for name, value in ids.items()}}
    event.pop("user", None)
    for name in ("headers", "cookies", "query_string", "data", "env"):
        event.get("request", {}).pop(name, None)
    if "log_record" in hint and isinstance(hint["log_record"].msg, dict):
        _tell_log_line(event, hint["log_record"].msg)
    return _clean(event)


def _tell_log_line(event: Any, line: dict[str, Any]) -> None:
    """Have an event say what the log line says, which is an object, and how it came about."""
    from sentry_sdk.utils import event_from_exception  # noqa: PLC0415

    event["logentry"] = {"message": str(line.get("event"))}
    event["extra"] = {name: value for name, value in line.items() if name not in {"event", "exc_info"}}
    raised = line.get("exc_info")
    raised = sys.exc_info()[1] if raised is True else raised[1] if isinstance(raised, tuple) else raised
    if isinstance(raised, BaseException) and "exception" not in event:
        options = {"include_local_variables": False, "include_source_context": True}
        event["exception"] = event_from_exception(raised, client_options=options)[0]["exception"]


def _clean(event: Any) -> Any:
    return dict(redact(None, "", dict(event)))


def _start_tracing() -> None:
    """Trace requests, tasks and calls of ZeroDB; the SDK reads the other OTEL_… variables itself."""
    from opentelemetry import trace  # noqa: PLC0415
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.instrumentation.celery import CeleryInstrumentor  # noqa: PLC0415
    from opentelemetry.instrumentation.django import DjangoInstrumentor  # noqa: PLC0415
    from opentelemetry.instrumentation.requests import RequestsInstrumentor  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    class Scrubbing(OTLPSpanExporter):
        """Sends spans without secrets."""

        def export(self, spans: Sequence[Any]) -> Any:
            """Send spans."""
            return super().export([_scrubbed_span(span) for span in spans])

    provider = TracerProvider(resource=Resource.create({"service.name": SERVICE}))
    provider.add_span_processor(BatchSpanProcessor(Scrubbing()))
    trace.set_tracer_provider(provider)
    DjangoInstrumentor().instrument(excluded_urls=UNTRACED, response_hook=_name_request)
    CeleryInstrumentor().instrument()  # type: ignore[no-untyped-call]
    RequestsInstrumentor().instrument(excluded_urls=settings.OTEL_EXPORTER_OTLP_ENDPOINT)


def _name_request(span: Any, _request: Any, response: Any) -> None:
    span.set_attribute("request_id", response.get("X-Request-ID", ""))


def _scrubbed_span(span: Any) -> Any:
    """Return a span without secrets, in its name, attributes, events or status."""
    from opentelemetry.sdk.trace import Event, ReadableSpan  # noqa: PLC0415
    from opentelemetry.trace import Status  # noqa: PLC0415

    events = [Event(clean_text(one.name), _scrubbed_attributes(one.attributes), one.timestamp) for one in span.events]
    status = Status(span.status.status_code, span.status.description and clean_text(span.status.description))
    return ReadableSpan(
        name=clean_text(span.name),
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=_scrubbed_attributes(span.attributes),
        events=events,
        links=span.links,
        kind=span.kind,
        status=status,
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _scrubbed_attributes(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    return dict(redact(None, "", dict(attributes or {})))
