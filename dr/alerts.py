"""Telling staff by mail that the backup needs them: once when it begins, daily while it lasts, and once when it is over."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any

import structlog
from django.db.models import Count, Min

from dr import figures, queries, states
from dr.models import SyncState
from dr.states import BackupHealth, BackupStatus
from engarde.accounts import operations as account_operations
from engarde.accounts.models import Mail
from engarde.common.scopes import system_scope

log = structlog.get_logger(__name__)

FAILING_FOR = timedelta(minutes=5)
DRILL_EVERY = timedelta(days=14)
AGAIN_AFTER = timedelta(hours=24)
RUNBOOK = "docs/dr/runbook.md"


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that staff have to look at.

    Attributes:
        code: a letter that `SyncState.alerted` remembers.
        since: when it began, for people; empty where nobody knows.
        runbook: the document's section.
    """

    code: str
    title: str
    what: str
    since: str
    do: str
    runbook: str


def look(*, now: datetime) -> bool:
    """Look how the backup, its verification and its drills are, and tell staff what is new; return whether they were told.

    Of several workers that look at once, one tells.
    """
    with system_scope("look whether staff have to know of the backup"):
        state, health = states.row(), states.current_in_scope(now=now)
        troubles = () if health.is_off else tuple(_troubles(health, now))
        codes = "".join(trouble.code for trouble in troubles)
        is_news = _is_news(state, codes, now)
        told_at = now if is_news else state.alerted_at
        seen = SyncState.objects.filter(id=1, alerted=state.alerted, alerted_at=state.alerted_at)
        if (codes, told_at) != (state.alerted, state.alerted_at) and not seen.update(alerted=codes, alerted_at=told_at):
            return False
        return is_news and _tell(state, health, troubles)


def _is_news(state: SyncState, codes: str, now: datetime) -> bool:
    """Tell whether something began, or lasts for another day, or all is over; that one of several ends is no news."""
    if not codes:
        return bool(state.alerted)
    is_due = state.alerted_at is None or state.alerted_at <= now - AGAIN_AFTER
    return is_due or not set(codes) <= set(state.alerted)


def _tell(state: SyncState, health: BackupHealth, troubles: Sequence[Trouble]) -> bool:
    if troubles:
        details = {"headline": troubles[0].title, "troubles": [asdict(one) for one in troubles], **_numbers(health)}
        told = account_operations.mail_staff(kind=Mail.Kind.BACKUP_TROUBLE, details=details)
        log.error("the backup needs somebody", troubles=[one.what for one in troubles], told=told)
        return True
    if health.is_off:  # nothing got better
        return False
    details = {"told_at": _time(state.alerted_at), **_numbers(health)}
    told = account_operations.mail_staff(kind=Mail.Kind.BACKUP_WELL, details=details)
    log.info("the backup is well again", told=told)
    return True


def _numbers(health: BackupHealth) -> dict[str, Any]:
    return {
        "status": health.status,
        "reason": health.reason,
        "backlog": health.backlog,
        "lag": _span(health.lag_seconds),
        "last_success": _time(health.last_success_at),
    }


def _troubles(health: BackupHealth, now: datetime) -> Iterator[Trouble]:
    """Yield what is wrong, the worst first."""
    if health.status == BackupStatus.DISABLED:
        yield Trouble(
            code="R",
            title="access is refused",
            what=health.reason,
            since=_time(health.since),
            do="Give the service account its roles, credentials or dataset back; the backup asks again by itself.",
            runbook=f"{RUNBOOK}#access-refused",
        )
    if health.status == BackupStatus.FAILING and (health.since is None or health.since <= now - FAILING_FOR):
        yield Trouble(
            code="F",
            title="it fails",
            what=health.reason,
            since=_time(health.since),
            do="See whether BigQuery answers; look at the last runs and at batches that are set aside in the admin.",
            runbook=f"{RUNBOOK}#backup-failing",
        )
    if health.is_past_target:
        yield Trouble(
            code="L",
            title="more could be lost than promised",
            what=f"{health.backlog} changes wait, the oldest for {_span(health.lag_seconds)}; "
            f"promised are {_span(health.rpo_target_seconds)}.",
            since=_time(now - timedelta(seconds=health.lag_seconds - health.rpo_target_seconds)),
            do="Resume the backup, if it is paused; else see that a worker of the queue dr runs, and what the runs say.",
            runbook=f"{RUNBOOK}#past-the-rpo-target",
        )
    yield from _of_verification()
    yield from _of_drills(now)


def _of_verification() -> Iterator[Trouble]:
    """Yield what verifications found and nobody has mended, whichever of them found it."""
    found = queries.open_findings().aggregate(number=Count("id"), since=Min("found_at"))
    number = found["number"]
    if number:
        yield Trouble(
            code="V",
            title="verification found faults",
            what="1 finding is open." if number == 1 else f"{number} findings are open.",
            since=_time(found["since"]),
            do="Look at the findings in the admin, then run verify_backup_integrity with --repair.",
            runbook=f"{RUNBOOK}#verification-findings",
        )


def _of_drills(now: datetime) -> Iterator[Trouble]:
    """Yield that no drill ended well for too long, once the backup has had time for one."""
    began, last = figures.began_on(), queries.last_good_drill()
    good_at = last.finished_at if last else None
    start = datetime.combine(began, time(), UTC) if began else now
    if max(good_at or start, start) < now - DRILL_EVERY:
        yield Trouble(
            code="D",
            title="no drill went well for 14 days",
            what=f"The last good drill ended {_time(good_at)}."
            if good_at
            else "No scheduled drill has ended well yet.",
            since=_time((good_at or start) + DRILL_EVERY),
            do="Look at the last drills in the admin, and play one through with test_dr_scenario.",
            runbook=f"{RUNBOOK}#drill-overdue",
        )


def _time(when: datetime | None) -> str:
    return f"{when:%Y-%m-%d %H:%M} UTC" if when else ""


def _span(seconds: float) -> str:
    """Return seconds for people."""
    return str(timedelta(seconds=round(seconds)))
