"""The admin's first page: what each room has to tell a member of staff, and what of it needs somebody.

A room's part is a function named in ADMIN_HOME_PANELS. It runs in the admin's system scope, asks few questions, and returns None
to whoever may not see its pages.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog
from django.conf import settings
from django.db import DatabaseError, connection, transaction
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.module_loading import import_string

log = structlog.get_logger(__name__)

PATIENCE_SECONDS = 3
LEVELS = ("danger", "warning")
"""What is wrong, the worst first."""


@dataclass(frozen=True, slots=True)
class Concern:
    """Something that needs somebody.

    Attributes:
        level: one of LEVELS.
        link: where to see to it.
    """

    level: str
    text: str
    link: str


@dataclass(frozen=True, slots=True)
class Panel:
    """A room's part of the page.

    Attributes:
        body: HTML, as a template made it.
        links: (text, address) of pages to act on.
    """

    title: str
    body: str
    links: tuple[tuple[str, str], ...] = ()
    concerns: tuple[Concern, ...] = ()


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Add what the first page shows; unfold's DASHBOARD_CALLBACK."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('statement_timeout', %s, true)", [str(PATIENCE_SECONDS * 1000)])
    panels = [panel for path in settings.ADMIN_HOME_PANELS if (panel := _panel(path, request))]
    concerns = [concern for panel in panels for concern in panel.concerns]
    concerns.sort(key=lambda concern: LEVELS.index(concern.level))
    return {**context, "title": "Today", "panels": panels, "concerns": concerns}


def _panel(path: str, request: HttpRequest) -> Panel | None:
    """Return a room's part; one that cannot be read in time leaves the others as they are."""
    tell: Callable[[HttpRequest], Panel | None] = import_string(path)
    try:
        with transaction.atomic():
            return tell(request)
    except DatabaseError:
        log.exception("a part of the admin's first page could not be read", part=path)
        room = path.partition(".")[0].capitalize()
        return Panel(room, format_html("<p>{}</p>", "This could not be read in time; the log says why."))


def counted(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun: `1 job`, `2,000 jobs`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
