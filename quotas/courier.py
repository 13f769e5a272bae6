"""The carrier of alerts: writes who is to be told, then sends, each under a lease and outside any transaction.

Mail goes to a tenant's owners and admins. The first alert of a day goes to a person at once, and so does every one of 95 % or
more; what other tenants of the same person cross on that day (UTC) is held for one digest when the day is over.
Slack, Teams and webhooks are told at once, several side by side, so that slow ones hold up neither mail nor each other.
What is not taken is tried again, ever more rarely, for three days.
"""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog
from django.core.mail import EmailMultiAlternatives
from django.db import connection
from django.db.models import F, Max, Q, QuerySet

from engarde.accounts import queries as account_queries
from engarde.accounts.models import User
from engarde.common import encryption, request_ids, wake
from engarde.common.scopes import system_scope
from quotas import letters, metrics, notifier
from quotas.alerts import SENDER
from quotas.letters import URGENT_FROM
from quotas.models import Alert, AlertDelivery, AlertTarget

log = structlog.get_logger(__name__)

ALERTS_A_PASS = 100
TARGET_SENDERS = 8
LONGEST_RUN_SECONDS = 60.0
LEASE = timedelta(minutes=15)  # longer than CELERY_TASK_TIME_LIMIT lets a sender live
LONGEST_WAIT = timedelta(hours=6)
GIVE_UP_AFTER = timedelta(days=3)
TO_PEOPLE, TO_TARGETS = Q(target=None), Q(user=None)
Status = AlertDelivery.Status


def run(*, now: Callable[[], datetime]) -> int:
    """Write deliveries of new alerts, send what is due, and return how many messages went out."""
    deadline = time.monotonic() + LONGEST_RUN_SECONDS
    while fan_out(now=now()) == ALERTS_A_PASS and time.monotonic() < deadline:
        pass
    sent = _send_due(TO_PEOPLE, now, deadline)
    if needed := min(TARGET_SENDERS, _count_due(TO_TARGETS, now())):
        with request_ids.threads(needed, "alert-sender") as pool:
            senders = [pool.submit(_send_in_thread, now, deadline) for _ in range(needed)]
        sent += sum(sender.result() for sender in senders)
    return sent


def _send_due(where: Q, now: Callable[[], datetime], deadline: float) -> int:
    """Send until nothing is due or time is over, and return how many messages went out; the next run goes on."""
    sent = 0
    while time.monotonic() < deadline and (rows := _claim(where, now())):
        sent += _send(rows, now())
    return sent


def _send_in_thread(now: Callable[[], datetime], deadline: float) -> int:
    try:
        return _send_due(TO_TARGETS, now, deadline)
    finally:
        connection.close()


def _count_due(where: Q, now: datetime) -> int:
    with system_scope("look for alerts to deliver"):
        return _due(where, now).count()


# Who is to be told


def fan_out(*, now: datetime) -> int:
    """Write a delivery for each person and target of each new alert, and return how many alerts there were."""
    with system_scope("tell people of alerts"):
        # One at a time: whether a person heard of another tenant today decides between a mail and the digest.
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended('quotas.courier.fan_out', 0))")
        alerts = list(Alert.objects.filter(fanned_out_at=None).order_by("created_at", "id")[:ALERTS_A_PASS])
        for alert in alerts:
            write_deliveries(alert=alert, turn=1, now=now)
        Alert.objects.filter(id__in=[alert.id for alert in alerts]).update(fanned_out_at=now)
    return len(alerts)


def write_deliveries(*, alert: Alert, turn: int, now: datetime) -> int:
    """Inside a scope, write an alert's deliveries and return how many; above the first turn none is held back."""
    people = account_queries.people_in_charge(tenant_id=alert.tenant_id)
    targets = AlertTarget.objects.filter(tenant_id=alert.tenant_id)
    rows = [_to_person(alert, user, turn, now) for user in people]
    rows += [_delivery(alert, turn, now, target=target) for target in targets]
    AlertDelivery.objects.bulk_create(rows, ignore_conflicts=True)
    return len(rows)


def _to_person(alert: Alert, user: User, turn: int, now: datetime) -> AlertDelivery:
    row = _delivery(alert, turn, now, user=user)
    if turn == 1 and alert.threshold < URGENT_FROM and _heard_of_another(alert, user):
        row.status, row.next_attempt_at = Status.HELD, _midnight_after(alert.created_at)
    return row


def _delivery(
    alert: Alert, turn: int, now: datetime, *, user: User | None = None, target: AlertTarget | None = None
) -> AlertDelivery:
    return AlertDelivery(
        tenant_id=alert.tenant_id,
        alert=alert,
        user=user,
        target=target,
        turn=turn,
        created_at=now,
        next_attempt_at=now,
    )


def _heard_of_another(alert: Alert, user: User) -> bool:
    """Tell whether a person was, or will be, told of another tenant's alert of the same day."""
    end = _midnight_after(alert.created_at)
    same_day = AlertDelivery.objects.filter(
        user=user, alert__created_at__gte=end - timedelta(days=1), alert__created_at__lt=end
    )
    return same_day.exclude(tenant_id=alert.tenant_id).exclude(status__in=[Status.FAILED, Status.DROPPED]).exists()


def _midnight_after(when: datetime) -> datetime:
    return datetime.combine(when.astimezone(UTC).date() + timedelta(days=1), datetime.min.time(), UTC)


# Sending


def _due(where: Q, now: datetime) -> QuerySet[AlertDelivery]:
    return AlertDelivery.objects.filter(where, status__in=[Status.PENDING, Status.HELD], next_attempt_at__lte=now)


def _claim(where: Q, now: datetime) -> list[AlertDelivery]:
    """Take the next message that is due, until the lease ends: one delivery, or all that a person's digest is made of."""
    with system_scope("claim an alert's delivery"):
        due = _due(where, now)
        row = due.select_for_update(skip_locked=True).order_by("next_attempt_at", "id").first()
        if row is None:
            return []
        rows = [row]
        if row.status == Status.HELD:
            same = due.filter(user=row.user, status=Status.HELD).order_by("id")
            rows = list(same.select_for_update(skip_locked=True))
        ids = [one.id for one in rows]
        AlertDelivery.objects.filter(id__in=ids).update(attempts=F("attempts") + 1, next_attempt_at=now + LEASE)
        claimed = AlertDelivery.objects.filter(id__in=ids).order_by("id")
        return list(claimed.select_related("alert", "user", "target", "tenant"))


def _send(rows: Sequence[AlertDelivery], now: datetime) -> int:
    """Send one message for all that was claimed together, and return 1 if it went out."""
    channel = rows[0].target.kind if rows[0].target else "email"
    try:
        rows = _without_strangers(rows, now)
        if rows:
            _message_to_target(rows[0], now) if rows[0].target else _mail(rows, now)
    except Exception as error:  # noqa: BLE001 -- any writer's, mailer's or target's error: it is tried again, and stops no other
        metrics.ALERTS.labels(channel, "failed").inc()
        _postpone(rows, now, error)
        return 0
    if not rows:
        return 0
    metrics.ALERTS.labels(channel, "sent").inc()
    with system_scope("settle an alert's delivery"):
        _finish([row.id for row in rows], Status.SENT, now)
    return 1


def _without_strangers(rows: Sequence[AlertDelivery], now: datetime) -> list[AlertDelivery]:
    """Drop what is for somebody who is not in charge of the tenant any more."""
    with system_scope("look who is in charge"):
        strangers = [
            row.id
            for row in rows
            if row.user and row.user not in account_queries.people_in_charge(tenant_id=row.tenant_id)
        ]
        _finish(strangers, Status.DROPPED, now)
    return [row for row in rows if row.id not in strangers]


def _letters(rows: Sequence[AlertDelivery], now: datetime) -> list[letters.Letter]:
    with system_scope("put alerts into words"):
        return [letters.compose(alert=row.alert, tenant=row.tenant, now=now) for row in rows if row.alert]


def _mail(rows: Sequence[AlertDelivery], now: datetime) -> None:
    row, found = rows[0], _letters(rows, now)
    assert row.user is not None  # noqa: S101 -- a constraint of the table: no target, so a person
    letter = found[0] if row.status == Status.PENDING else letters.digest(letters=found)
    message = EmailMultiAlternatives(
        letter.subject, letter.text, to=[row.user.email], headers={"Message-ID": f"<quota-alert-{row.id}@engarde>"}
    )
    message.attach_alternative(letter.html, "text/html")
    message.send()


def _message_to_target(row: AlertDelivery, now: datetime) -> None:
    target = row.target
    assert target is not None  # noqa: S101 -- the caller looked
    written = _letters([row], now)
    message = written[0].message if written else letters.test_message(tenant_name=row.tenant.name)
    notifier.send(kind=target.kind, url=encryption.decrypt(target.url), message=message)


def _finish(ids: Sequence[UUID], status: Status, now: datetime) -> None:
    AlertDelivery.objects.filter(id__in=ids).update(status=status, finished_at=now, last_error="")


def _postpone(rows: Sequence[AlertDelivery], now: datetime, error: Exception) -> None:
    """Note why it was not taken, and when to try again; a test is not tried again, and nothing for ever."""
    is_over = rows[0].alert is None or rows[0].created_at <= now - GIVE_UP_AFTER
    wait = min(LONGEST_WAIT, timedelta(minutes=1) * 2 ** min(rows[0].attempts - 1, 10))
    log.warning("alert not sent", delivery_id=str(rows[0].id), gives_up=is_over, error=str(error))
    with system_scope("postpone an alert's delivery"):
        after = {"status": Status.FAILED, "finished_at": now} if is_over else {"next_attempt_at": now + wait}
        AlertDelivery.objects.filter(id__in=[row.id for row in rows]).update(last_error=_one_line(error), **after)


def _one_line(error: Exception) -> str:
    text = "".join(one if one.isprintable() else " " for one in str(error) or type(error).__name__)
    return " ".join(text.split())[:500]


def send_again(*, alert: Alert, now: datetime) -> int:
    """Inside a scope, send an alert once more, to everybody it concerns now, and return to how many."""
    last = AlertDelivery.objects.filter(alert=alert).aggregate(last=Max("turn", default=1))["last"]
    count = write_deliveries(alert=alert, turn=last + 1, now=now)
    wake.after_commit(SENDER)
    return count
