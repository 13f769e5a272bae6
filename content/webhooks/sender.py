"""The carrier of webhook deliveries: claims what is due under a lease, sends it outside any transaction, then settles it.

Killed between sending and settling, it leaves deliveries whose lease ends and that are sent again under the same id: each
arrives at least once. One courier at a time sends for all tenants, so that slow targets hold up one worker at most; it
takes turns between tenants, and gives a webhook that fails one attempt at a time.
"""

import random
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from django.conf import settings
from django.db import connection
from django.db.models import Q
from redis.exceptions import LockError, RedisError
from redis.lock import Lock

from content.models import Delivery, Webhook
from content.models.webhooks import TEST_EVENT
from content.webhooks import messages, operations
from content.webhooks.messages import Message
from content.webhooks.transport import Answer, Courier
from engarde.accounts import operations as account_operations
from engarde.accounts.models import Mail
from engarde.common import redis, stopping
from engarde.common.scopes import system_scope

log = structlog.get_logger(__name__)

SLOTS = 100
SLOTS_OF_TENANT = 20
SLOTS_OF_WEBHOOK = 4
LEASE = timedelta(minutes=1)  # several times as long as an attempt may take
LOOK_AGAIN_SECONDS = 0.5
TURN_SECONDS = 10.0  # until another courier takes over from one that was killed
LONGEST_RUN_SECONDS = 120.0
WAITS = [
    *(timedelta(seconds=5), timedelta(minutes=1), timedelta(minutes=5), timedelta(minutes=30)),
    *(timedelta(hours=2), timedelta(hours=8), timedelta(hours=24), timedelta(hours=24)),
]
JITTER = 0.2
DISABLED_AFTER = timedelta(days=5)
GONE = 410
SWITCHED_OFF = "The webhook is switched off."

# The webhooks with something pending are found by hops through the index, whatever the number of deliveries.
WAITING = """
WITH RECURSIVE waiting (webhook_id) AS (
    (SELECT webhook_id FROM content_webhook_deliveries WHERE status = 'pending' ORDER BY webhook_id LIMIT 1)
    UNION ALL
    SELECT (SELECT next.webhook_id FROM content_webhook_deliveries AS next
            WHERE next.status = 'pending' AND next.webhook_id > waiting.webhook_id ORDER BY next.webhook_id LIMIT 1)
    FROM waiting WHERE waiting.webhook_id IS NOT NULL
)"""
CLAIM = f"""{WAITING}, due AS (
    SELECT one.id, one.next_attempt_at, hook.tenant_id,
           row_number() OVER (PARTITION BY hook.tenant_id ORDER BY one.next_attempt_at)
           + (SELECT count(*) FROM unnest(%(busy_tenants)s::uuid[]) AS busy (id) WHERE busy.id = hook.tenant_id) AS turn
    FROM waiting
    JOIN content_webhooks AS hook ON hook.id = waiting.webhook_id
    CROSS JOIN LATERAL (
        SELECT delivery.id, delivery.next_attempt_at FROM content_webhook_deliveries AS delivery
        WHERE delivery.webhook_id = hook.id AND delivery.status = 'pending' AND delivery.next_attempt_at <= %(now)s
        ORDER BY delivery.next_attempt_at
        LIMIT greatest(0, CASE WHEN hook.failures_in_a_row > 0 THEN 1 ELSE %(slots_of_webhook)s END
            - (SELECT count(*) FROM unnest(%(busy_webhooks)s::uuid[]) AS busy (id) WHERE busy.id = hook.id))
    ) AS one
), chosen AS (
    SELECT id FROM content_webhook_deliveries
    WHERE id IN (SELECT id FROM due WHERE turn <= %(slots_of_tenant)s ORDER BY turn, next_attempt_at LIMIT %(limit)s)
      AND status = 'pending' AND next_attempt_at <= %(now)s
    FOR UPDATE SKIP LOCKED
)
UPDATE content_webhook_deliveries AS delivery SET attempts = attempts + 1, next_attempt_at = %(lease_end)s
FROM chosen WHERE delivery.id = chosen.id
RETURNING delivery.id"""  # noqa: S608 -- put together from constants
SETTLE = """
UPDATE content_webhook_deliveries
SET status = %s, response_status = %s, last_error = %s, next_attempt_at = coalesce(%s, next_attempt_at), finished_at = %s
WHERE id = %s AND attempts = %s AND status = 'pending'"""


def run(*, now: Callable[[], datetime]) -> int:
    """Send what is due, for all tenants, and return how many attempts were made; at once when another courier is at it."""
    attempts = 0
    may_go_on = stopping.go_on_for(LONGEST_RUN_SECONDS)
    while may_go_on():
        with _turn() as is_still_mine:
            if is_still_mine is None:
                break
            attempts += send_due(now=now, goes_on=lambda: may_go_on() and is_still_mine())
        # Who was woken while this one was about to end found the turn taken, so look after giving it back.
        if not _is_anything_due(now()):
            break
    return attempts


def send_due(*, now: Callable[[], datetime], goes_on: Callable[[], bool] = lambda: True) -> int:
    """Send until nothing is due and all answers are there, and return how many attempts were made.

    Args:
        goes_on: asked before each claim; without it only the answers that are outstanding are waited for.
    """
    attempts = 0
    under_way: dict[Future[Answer], Message] = {}
    with Courier() as courier:
        while True:
            if len(under_way) < SLOTS and goes_on():
                claimed = _claim(now(), under_way.values())
                attempts += len(claimed)
                under_way |= {courier.send(message): message for message in claimed}
            if not under_way:
                return attempts
            done, _ = wait(under_way, timeout=LOOK_AGAIN_SECONDS, return_when=FIRST_COMPLETED)
            _settle([(under_way.pop(future), future.result()) for future in done], now())


@contextmanager
def _turn() -> Iterator[Callable[[], bool] | None]:
    """Be the one courier during the block; yields what tells whether it still is, or None when another one is.

    The lock only spares workers: without Redis couriers work side by side, kept apart by their leases.
    """
    lock = redis.client().lock(f"{settings.THROTTLE_KEY_PREFIX}:webhook-courier", timeout=TURN_SECONDS)
    try:
        is_mine = lock.acquire(blocking=False)
    except RedisError as error:
        log.warning("webhooks are sent without the couriers' lock", error=str(error))
        yield lambda: True
        return
    if not is_mine:
        yield None
        return
    try:
        yield lambda: _hold(lock)
    finally:
        _give_back(lock)


def _hold(lock: Lock) -> bool:
    """Hold the lock for longer; False when it ended meanwhile and another courier may have it."""
    try:
        return bool(lock.reacquire())
    except LockError:
        return False
    except RedisError:
        return True


def _give_back(lock: Lock) -> None:
    try:
        lock.release()
    except RedisError as error:
        log.info("the couriers' lock was not given back; it ends by itself", error=str(error))


def _is_anything_due(now: datetime) -> bool:
    with system_scope("look for webhook deliveries"):
        return Delivery.objects.filter(status=Delivery.Status.PENDING, next_attempt_at__lte=now).exists()


# Claiming


def _claim(now: datetime, busy: Collection[Message]) -> list[Message]:
    """Take what is due for this sender until the lease ends, at most what the slots of each webhook and tenant allow."""
    values: dict[str, Any] = {
        "now": now,
        "lease_end": now + LEASE,
        "busy_tenants": [message.tenant_id for message in busy],
        "busy_webhooks": [message.webhook_id for message in busy],
        "slots_of_tenant": SLOTS_OF_TENANT,
        "slots_of_webhook": SLOTS_OF_WEBHOOK,
        "limit": SLOTS - len(busy),
    }
    with system_scope("claim webhook deliveries"):
        with connection.cursor() as cursor:
            cursor.execute(CLAIM, values)
            ids = [delivery_id for (delivery_id,) in cursor.fetchall()]
        deliveries = list(Delivery.objects.select_related("webhook").filter(id__in=ids)) if ids else []
        _give_up([one.id for one in deliveries if not _may_be_sent(one)], now)
        return messages.make([one for one in deliveries if _may_be_sent(one)], now)


def _may_be_sent(delivery: Delivery) -> bool:
    return delivery.webhook.is_active or delivery.event == TEST_EVENT


def _give_up(delivery_ids: Sequence[UUID], now: datetime) -> None:
    """Let deliveries fail that were written while their webhook was being switched off."""
    if delivery_ids:
        failed = {"status": Delivery.Status.FAILED, "last_error": SWITCHED_OFF, "finished_at": now}
        Delivery.objects.filter(id__in=delivery_ids).update(**failed)


# Settling


def _settle(outcomes: Sequence[tuple[Message, Answer]], now: datetime) -> None:
    """Note what came of attempts. Webhooks are locked before deliveries, as by everybody, or two would deadlock."""
    if not outcomes:
        return
    told = {message.webhook_id for message, _ in outcomes}
    failing = {message.webhook_id for message, answer in outcomes if not answer.is_delivered}
    with system_scope("settle webhook deliveries"):
        concerned = Q(id__in=failing) | Q(id__in=told, failures_in_a_row__gt=0)
        locked = Webhook.objects.select_for_update(no_key=True).filter(concerned).order_by("id")
        webhooks = {webhook.id: webhook for webhook in locked}
        for message, answer in outcomes:
            is_settled = _settle_one(message, answer, now)
            webhook = webhooks.get(message.webhook_id)
            if is_settled and webhook and not message.is_test:
                _count(webhook, answer, now)


def _settle_one(message: Message, answer: Answer, now: datetime) -> bool:
    """Note one outcome; False when the delivery was claimed anew, replayed or removed meanwhile."""
    next_attempt_at = None if answer.is_delivered else _next_attempt(message, answer, now)
    status = Delivery.Status.DELIVERED if answer.is_delivered else Delivery.Status.FAILED
    if next_attempt_at:
        status = Delivery.Status.PENDING
    finished_at = None if next_attempt_at else now
    with connection.cursor() as cursor:
        values = [status, answer.status, answer.error, next_attempt_at, finished_at]
        cursor.execute(SETTLE, [*values, message.delivery_id, message.attempt])
        return bool(cursor.rowcount)


def _next_attempt(message: Message, answer: Answer, now: datetime) -> datetime | None:
    """Return when to try again, or None when that was the last attempt; a test has one only."""
    if message.is_test or message.attempt > len(WAITS):
        return None
    wait_for = max(WAITS[message.attempt - 1], timedelta(seconds=answer.retry_after))
    return now + wait_for * random.uniform(1, 1 + JITTER)  # noqa: S311 -- spreads load, guards nothing


def _count(webhook: Webhook, answer: Answer, now: datetime) -> None:
    """Count an outcome for its locked webhook, and switch off one that is gone or failed for days without a success."""
    if answer.is_delivered:
        webhook.failures_in_a_row, webhook.failing_since = 0, None
    else:
        webhook.failures_in_a_row += 1
        webhook.failing_since = webhook.failing_since or now
    webhook.save(update_fields=["failures_in_a_row", "failing_since"])
    if answer.status == GONE:
        _disable(webhook, "It answered 410 Gone.", now)
    elif webhook.failing_since and webhook.failing_since <= now - DISABLED_AFTER:
        _disable(webhook, f"It failed for {DISABLED_AFTER.days} days in a row.", now)


def _disable(webhook: Webhook, reason: str, now: datetime) -> None:
    if not webhook.is_active:
        return
    webhook.is_active, webhook.disabled_reason = False, reason
    webhook.save(update_fields=["is_active", "disabled_reason"])
    operations.give_up_pending(webhook_id=webhook.id, reason=f"The webhook was switched off: {reason}", now=now)
    account_operations.mail_owners(tenant_id=webhook.tenant_id, kind=Mail.Kind.WEBHOOK_DISABLED)
    log.warning("webhook switched off", webhook_id=str(webhook.id), reason=reason)
