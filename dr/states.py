"""The backup's state: what the last try showed, what waits, and whether that is bad; and who may change it.

Nothing else writes `SyncState`, but for its epoch and what staff were told of.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from uuid import UUID

from django.conf import settings
from django.db import models, transaction
from django.db.models import F, Min, Q
from django.db.models.functions import Coalesce, Greatest

from content.models import Change
from dr.models import Batch, SyncState
from engarde.common import wake
from engarde.common.problems import Problem
from engarde.common.scopes import system_scope

LAGGING_SECONDS = 300
COUNTED = 1_000_000
"""So many changes of a backlog are counted, so that looking stays cheap when it is worst."""
LONGEST_REASON = 1000
OFF = "BIGQUERY_SYNC_ENABLED is off."


class BackupStatus(models.TextChoices):
    """How the backup is, in a word."""

    HEALTHY = "healthy"
    LAGGING = "lagging"
    FAILING = "failing"
    DISABLED = "disabled"
    PAUSED = "paused"


class BackupPaused(Problem):
    """Staff stopped the backup for a while."""

    status, code, title = 409, "backup_paused", "Backup paused"


@dataclass(frozen=True, slots=True)
class BackupHealth:
    """How the backup is.

    Attributes:
        status: disabled by setting, or as access is refused.
        reason: why; empty while all is well.
        lag_seconds: age of the oldest change that the archive has not acknowledged; 0 without one.
        backlog: such changes, of which COUNTED are counted.
        set_aside: batches that cannot be shipped and are tried once a day.
        is_past_target: more than the RPO target would be lost now.
        is_off: switched off by setting: nothing is promised then.
        since: when what is wrong began, as far as it is known.
    """

    status: BackupStatus
    reason: str
    lag_seconds: float
    backlog: int
    last_success_at: datetime | None
    rpo_target_seconds: int
    set_aside: int
    paused_at: datetime | None
    is_past_target: bool
    is_off: bool = False
    since: datetime | None = None


def rpo_target_seconds() -> int:
    """Return how old the oldest change that is not backed up may become."""
    return int(settings.DR_RPO_TARGET_SECONDS)


def current(*, now: datetime) -> BackupHealth:
    """Return how the backup is."""
    with system_scope("look how the backup is"):
        return current_in_scope(now=now)


def current_in_scope(*, now: datetime) -> BackupHealth:
    """Inside a system scope, return how the backup is."""
    state, oldest, is_off = row(), oldest_waiting_at(), not settings.BIGQUERY_SYNC_ENABLED
    lag = max(0.0, (now - oldest).total_seconds()) if oldest else 0.0
    aside = Batch.objects.filter(acked_at=None, set_aside_at__isnull=False)
    set_aside, aside_since = aside.count(), aside.aggregate(at=Min("set_aside_at"))["at"]
    status, reason, since = _judge(state, lag, oldest, set_aside, aside_since)
    target = rpo_target_seconds()
    return BackupHealth(
        status=status,
        reason=reason,
        since=since,
        lag_seconds=round(lag, 3),
        backlog=Change.objects.filter(acked_at=None)[:COUNTED].count(),
        last_success_at=state.last_success_at,
        rpo_target_seconds=target,
        set_aside=set_aside,
        paused_at=state.paused_at,
        is_off=is_off,
        is_past_target=lag > target and not is_off,
    )


def _judge(
    state: SyncState, lag: float, oldest: datetime | None, set_aside: int, aside_since: datetime | None
) -> tuple[BackupStatus, str, datetime | None]:
    """Return status, reason and since when."""
    if not settings.BIGQUERY_SYNC_ENABLED:
        return BackupStatus.DISABLED, OFF, None
    if state.status == SyncState.Status.DISABLED:
        return BackupStatus.DISABLED, state.reason or "Access is refused.", state.failing_since
    if state.paused_at:
        return (
            BackupStatus.PAUSED,
            f"Paused since {state.paused_at:%Y-%m-%d %H:%M} UTC; nothing is lost.",
            state.paused_at,
        )
    if state.status == SyncState.Status.FAILING:
        return BackupStatus.FAILING, state.reason or "The last try failed.", state.failing_since
    if set_aside:
        return BackupStatus.FAILING, _told_of_aside(set_aside), aside_since
    if lag > LAGGING_SECONDS:
        return BackupStatus.LAGGING, f"The oldest change has waited for {lag:.0f} s.", oldest
    return BackupStatus.HEALTHY, "", None


def _told_of_aside(set_aside: int) -> str:
    rows = Batch.objects.filter(acked_at=None, set_aside_at__isnull=False).order_by("set_aside_at")
    error = rows.values_list("last_error", flat=True).first()
    batches = "1 batch is" if set_aside == 1 else f"{set_aside} batches are"
    return f"{batches} set aside and tried once a day; the first: {error or 'no error is known'}"[:LONGEST_REASON]


def oldest_waiting_at() -> datetime | None:
    """Inside a system scope, return when the oldest change was made that the archive has not acknowledged."""
    waiting = Change.objects.filter(acked_at=None, xid__gt=0).order_by("seq")  # a repair's lines tell of old changes
    return waiting.values_list("changed_at", flat=True).first()


def trouble() -> str | None:
    """Return in words for everybody what the last try showed, or that staff paused; None when it was well.

    Unlike `current` it does not look at what waits, so it costs one row.
    """
    state = row()
    if state.status == SyncState.Status.DISABLED:
        return "degraded: access is refused, changes wait for the backup"
    if state.paused_at:
        return "degraded: the backup is paused"
    return "degraded: the backup fails and tries again" if state.status == SyncState.Status.FAILING else None


def http_status(health: BackupHealth) -> int:
    """Return what a monitor is answered: 503 when failing, or when anything is not backed up past the target."""
    bad = health.status == BackupStatus.FAILING or health.is_past_target
    return HTTPStatus.SERVICE_UNAVAILABLE if bad else HTTPStatus.OK


def row() -> SyncState:
    """Return the one row, made when it is not there."""
    return SyncState.objects.get_or_create(id=1)[0]


def note_success(*, now: datetime) -> None:
    """Note that the archive took something at `now`; a failure that began later counts more."""
    row()
    earlier = SyncState.objects.filter(Q(failing_since=None) | Q(failing_since__lte=now), id=1)
    earlier.update(
        status=SyncState.Status.HEALTHY,
        reason="",
        failing_since=None,
        next_probe_at=None,
        last_success_at=Greatest(F("last_success_at"), now),
    )


def note_failure(*, status: str, reason: str, now: datetime, probe_at: datetime | None) -> None:
    """Note that a try failed at `now`; a success after it counts more.

    Args:
        status: failing, or disabled when it is access that is missing.
        probe_at: when the archive is asked again; None to leave that to the batches' own waits.
    """
    row()
    latest = SyncState.objects.filter(Q(last_success_at=None) | Q(last_success_at__lte=now), id=1)
    latest.update(
        status=SyncState.Status(status),
        reason=reason[:LONGEST_REASON],
        next_probe_at=probe_at,
        failing_since=Coalesce(F("failing_since"), now),
    )


def pause(*, by: UUID | None, now: datetime) -> bool:
    """Stop the backup until it is resumed, and tell whether it ran; changes wait in the log meanwhile.

    Args:
        by: the member of staff; None for a command.
    """
    row()
    return bool(SyncState.objects.filter(id=1, paused_at=None).update(paused_at=now, paused_by=by))


def resume(*, now: datetime) -> bool:
    """Let the backup go on, and tell whether it was paused; it runs at once, whatever it waited for."""
    row()
    paused = SyncState.objects.filter(id=1, paused_at__isnull=False)
    if not paused.update(paused_at=None, paused_by=None):
        return False
    trigger(now=now)
    return True


def trigger(*, now: datetime) -> None:
    """Have the backup run now, not at its next turn; what was put off after a failure or a refusal is tried too.

    A batch that somebody ships now has no error, so it is left alone; what is set aside waits for `try_again`.

    Raises:
        BackupPaused: it is paused.
    """
    if row().paused_at:
        raise BackupPaused("The backup is paused; resume it first.")
    SyncState.objects.filter(id=1, next_probe_at__gt=now).update(next_probe_at=now)
    put_off = Batch.objects.filter(acked_at=None, set_aside_at=None, next_try_at__gt=now).exclude(last_error="")
    _hurry(put_off, now)
    wake.after_commit("dr.sync")


def try_again(*, batch_ids: Collection[UUID], now: datetime) -> int:
    """Have batches that are set aside tried now, and return how many."""
    aside = Batch.objects.filter(id__in=batch_ids, acked_at=None, set_aside_at__isnull=False)
    found = _hurry(aside, now)
    if found:
        wake.after_commit("dr.sync")
    return found


def _hurry(batches: models.QuerySet[Batch], now: datetime) -> int:
    """Have batches tried now, and return how many. They are locked in order, as by the sync: two orders would deadlock."""
    with transaction.atomic():
        in_order = batches.select_for_update().order_by("id").values("id")
        return Batch.objects.filter(id__in=in_order).update(next_try_at=now)
