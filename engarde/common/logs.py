"""Structured logs: one JSON object a line, secrets redacted before anything else happens to an event."""

import logging
import logging.config
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

SECRET_NAMES = re.compile(
    r"password|passwd|secret|token(?!s$)|api[-_ ]?key|authorization|credential|cookie|sec-websocket-protocol",
    re.IGNORECASE,
)
SECRET_VALUES = re.compile(
    r"eg_live_\w+"
    r"|sk-[\w-]{8,}|AIza[\w-]{20,}"
    r"|eyJ[\w-]+\.[\w-]+\.[\w-]+"
    r"|(?<=bearer[ .])[^\s\"',]+|(?<=basic )[\w+/=]{6,}"
    r"|(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"
    r"|(?<=password=)[^\s&]+|(?<=token=)[^\s&]+",
    re.IGNORECASE,
)
REDACTED = "[redacted]"
MAX_DEPTH = 10
SHARED: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.stdlib.ExtraAdder(),
]


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace values under telling names, and anything that looks like a credential inside a text, at any depth."""
    return {key: _clean(value, str(key), depth=0) for key, value in event.items()}


def redact_fields(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Redact an event as `redact` does, but for what is raised, which is no text yet: handlers beside ours see it so."""
    raised = {name: event[name] for name in ("exc_info",) if name in event}
    return {**redact(logger, method, {name: value for name, value in event.items() if name not in raised}), **raised}


def _clean(value: Any, name: str, *, depth: int) -> Any:
    """Return a value fit for a log: plain data, cut off at a depth that no honest event has."""
    if SECRET_NAMES.search(name) and value is not None:
        return REDACTED
    if isinstance(value, bool | int | float) or value is None:
        return value
    if isinstance(value, datetime):
        return value.isoformat()
    if depth < MAX_DEPTH and isinstance(value, Mapping):
        return {clean_text(str(key)): _clean(inner, str(key), depth=depth + 1) for key, inner in value.items()}
    if depth < MAX_DEPTH and isinstance(value, list | tuple | set | frozenset):
        return [_clean_entry(entry, depth=depth + 1) for entry in value]
    return clean_text(value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value))


def _clean_entry(entry: Any, *, depth: int) -> Any:
    """Clean a list's entry; one of two texts is taken for a header's name and value."""
    if isinstance(entry, list | tuple) and len(entry) == 2:
        name = entry[0].decode("latin-1") if isinstance(entry[0], bytes) else str(entry[0])
        return [clean_text(name), _clean(entry[1], name, depth=depth)]
    return _clean(entry, "", depth=depth)


def clean_text(text: str) -> str:
    """Return a text without what looks like a credential in it."""
    return SECRET_VALUES.sub(REDACTED, text)


def formatter(*, as_json: bool = True) -> logging.Formatter:
    """Return what makes a line of an event, of ours or a library's; `granian-logs.json` names it for the web server's own."""
    renderer: list[Processor] = [structlog.processors.JSONRenderer()] if as_json else [structlog.dev.ConsoleRenderer()]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=SHARED,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.processors.format_exc_info,
            redact,
            *renderer,
        ],
    )


def logging_config(*, level: str, as_json: bool) -> None:
    """Set up structlog and the standard library's loggers to write to stderr.

    Args:
        level: the root level, such as "INFO".
        as_json: one JSON object a line; otherwise text for people.
    """
    logging.captureWarnings(True)  # noqa: FBT003 -- its only parameter
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"structured": {"()": formatter, "as_json": as_json}},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "structured"}},
            "root": {"handlers": ["stderr"], "level": level},
            "loggers": {
                "django.server": {"propagate": True},
                "google": {"level": "WARNING"},
                "httpx2": {"level": "WARNING"},  # it tells of every request with its whole address
                "django.request": {"level": "ERROR"},  # the request's own line tells of a 4xx
                # A line a task, twice, says nothing that the tasks do not say themselves.
                "celery.worker.strategy": {"level": "WARNING"},
                "celery.app.trace": {"level": "WARNING"},
                "celery.beat": {"level": "WARNING"},
            },
        }
    )
    structlog.configure(
        processors=[*SHARED, redact_fields, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
