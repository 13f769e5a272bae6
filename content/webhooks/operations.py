"""Writes: a tenant's webhooks, and what is asked of their deliveries."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from django.conf import settings
from django.db import connection
from django.db.models import Q

from content.models import Delivery, Event, Webhook
from content.models.webhooks import TEST_EVENT
from content.webhooks import messages
from engarde.common import addresses, encryption, wake
from engarde.common.encryption import Renewal
from engarde.common.problems import Invalid, NotFound, Problem
from engarde.common.scopes import system_scope, tenant_scope

log = structlog.get_logger(__name__)

SEND_TASK = "content.send_webhooks"
KEPT = timedelta(days=30)
SWITCHED_OFF = "The webhook was switched off."


class TooManyWebhooks(Problem):
    """The tenant has as many webhooks as it may have."""

    status, code, title = 409, "too_many_webhooks", "Too many webhooks"


class WebhookDisabled(Problem):
    """Nothing is sent to a webhook that is switched off."""

    status, code, title = 409, "webhook_disabled", "Webhook switched off"


def create_webhook(
    *, tenant_id: UUID, url: str, events: Sequence[str] = (), description: str = ""
) -> tuple[Webhook, str]:
    """Create a webhook and return it with its secret, which is told this once.

    Args:
        events: what it is told; none for all.

    Raises:
        Invalid: the address may not be called.
        TooManyWebhooks: the tenant has WEBHOOKS_PER_TENANT.
    """
    _check_url(url)
    secret = messages.new_secret()
    with tenant_scope(tenant_id):
        _check_number(tenant_id)
        webhook = Webhook(tenant_id=tenant_id, url=url, events=_events(events), description=description)
        webhook.secret = encryption.encrypt(secret)
        webhook.save(force_insert=True)
        webhook.refresh_from_db()
    return webhook, secret


def update_webhook(*, tenant_id: UUID, webhook_id: UUID, changes: Mapping[str, Any], now: datetime) -> Webhook:
    """Change a webhook's url, events, description or is_active.

    Switched off, its pending deliveries fail (they can be replayed); switched on, it begins with a clean slate.

    Raises:
        NotFound: the tenant has no such webhook.
        Invalid: the address may not be called.
    """
    if "url" in changes:
        _check_url(changes["url"])
    with tenant_scope(tenant_id):
        webhook = _lock(tenant_id, webhook_id)
        for name, value in changes.items():
            setattr(webhook, name, _events(value) if name == "events" else value)
        if changes.get("is_active"):
            webhook.disabled_reason, webhook.failures_in_a_row, webhook.failing_since = "", 0, None
        elif not webhook.is_active:
            give_up_pending(webhook_id=webhook.id, reason=SWITCHED_OFF, now=now)
        webhook.save()
    return webhook


def delete_webhook(*, tenant_id: UUID, webhook_id: UUID) -> None:
    """Remove a webhook with its deliveries.

    Raises:
        NotFound: the tenant has no such webhook.
    """
    with tenant_scope(tenant_id):
        # Locked against the trigger first, so that no write adds a delivery while the others go.
        found = Webhook.objects.select_for_update().filter(tenant_id=tenant_id, id=webhook_id).first()
        if found is None:
            raise NotFound("webhook")
        found.delete()


def rotate_secret(*, tenant_id: UUID, webhook_id: UUID, overlap: timedelta, now: datetime) -> tuple[Webhook, str]:
    """Give a webhook a new secret and return it; the old one signs as well until the overlap is over.

    Raises:
        NotFound: the tenant has no such webhook.
    """
    secret = messages.new_secret()
    with tenant_scope(tenant_id):
        webhook = _lock(tenant_id, webhook_id)
        webhook.previous_secret = webhook.secret if overlap else ""
        webhook.previous_secret_until = now + overlap if overlap else None
        webhook.secret = encryption.encrypt(secret)
        webhook.save(update_fields=["secret", "previous_secret", "previous_secret_until"])
    return webhook, secret


def send_test(*, tenant_id: UUID, webhook_id: UUID, now: datetime) -> Delivery:
    """Have a test message sent, once, by the same way as all others; also to a webhook that is switched off.

    Raises:
        NotFound: the tenant has no such webhook.
    """
    with tenant_scope(tenant_id):
        webhook = _lock(tenant_id, webhook_id)
        delivery = Delivery.objects.create(
            tenant_id=tenant_id, webhook=webhook, event=TEST_EVENT, occurred_at=now, next_attempt_at=now, created_at=now
        )
        wake.after_commit(SEND_TASK)
    return delivery


def replay(*, tenant_id: UUID, webhook_id: UUID, delivery_id: UUID, now: datetime) -> Delivery:
    """Have a delivery sent again, whatever became of it, with its first id and all its retries.

    Raises:
        NotFound: the tenant's webhook has no such delivery.
        WebhookDisabled: the webhook is switched off.
    """
    with tenant_scope(tenant_id):
        webhook = _lock(tenant_id, webhook_id)
        deliveries = Delivery.objects.select_for_update().filter(tenant_id=tenant_id, webhook=webhook)
        delivery = deliveries.filter(id=delivery_id).first()
        if delivery is None:
            raise NotFound("delivery")
        if not webhook.is_active and delivery.event != TEST_EVENT:
            raise WebhookDisabled("Switch the webhook on first: PATCH it with is_active true.")
        delivery.status, delivery.attempts, delivery.next_attempt_at = Delivery.Status.PENDING, 0, now
        delivery.finished_at, delivery.response_status, delivery.last_error = None, None, ""
        delivery.save()
        wake.after_commit(SEND_TASK)
    return delivery


def announce(*, tenant_id: UUID, event: Event, data: Mapping[str, Any], occurred_at: datetime) -> None:
    """Inside the tenant's scope, have its webhooks told of something that is no version of an item.

    Args:
        data: JSON values; what the message's `data` will be.
    """
    # Locked against deletion, as in the trigger: the foreign key is checked at the commit.
    hooks = Webhook.objects.select_for_update(no_key=True).filter(tenant_id=tenant_id, is_active=True)
    told = [hook for hook in hooks.order_by("id") if not hook.events or event in hook.events]
    Delivery.objects.bulk_create(
        [
            Delivery(
                tenant_id=tenant_id,
                webhook=hook,
                event=event,
                data=data,
                occurred_at=occurred_at,
                next_attempt_at=occurred_at,
                created_at=occurred_at,
            )
            for hook in told
        ]
    )
    if told:
        wake.after_commit(SEND_TASK)


def give_up_pending(*, webhook_id: UUID, reason: str, now: datetime) -> None:
    """Inside a scope, with the webhook's row locked, let all its pending deliveries fail, but for tests."""
    pending = Delivery.objects.filter(~Q(event=TEST_EVENT), webhook_id=webhook_id, status=Delivery.Status.PENDING)
    pending.update(status=Delivery.Status.FAILED, last_error=reason, finished_at=now)


def renew_secrets(*, tenant_id: UUID, dry_run: bool = False) -> Renewal:
    """Encrypt a tenant's webhook secrets under the newest key, and tell of how many webhooks.

    One that no key reads is left and logged. After this the older keys of ENCRYPTION_KEYS are not needed for it any more.
    """
    done = Renewal()
    with tenant_scope(tenant_id):
        for webhook in Webhook.objects.select_for_update(no_key=True).filter(tenant_id=tenant_id).order_by("id"):
            try:
                webhook.secret = encryption.renew(webhook.secret)
                webhook.previous_secret = webhook.previous_secret and encryption.renew(webhook.previous_secret)
            except encryption.Unreadable as error:
                log.error("a webhook's secret cannot be renewed", webhook_id=str(webhook.id), error=str(error))
                done += Renewal(total=1, unreadable=1)
                continue
            done += Renewal(total=1, renewed=1)
            if not dry_run:
                webhook.save(update_fields=["secret", "previous_secret"])
    return done


def forget_old(*, now: datetime, limit: int) -> int:
    """Remove deliveries that were finished over 30 days ago, at most `limit`, and return how many there were."""
    with system_scope("forget webhook deliveries"):
        old = Delivery.objects.select_for_update(skip_locked=True).filter(finished_at__lte=now - KEPT)
        ids = list(old.order_by("finished_at").values_list("id", flat=True)[:limit])
        return Delivery.objects.filter(id__in=ids).delete()[0]


def _check_url(url: str) -> None:
    """Check an address, outside any scope: it asks DNS."""
    try:
        addresses.check(url)
    except addresses.Refused as error:
        raise Invalid("url", str(error), "address_refused") from error


def _events(events: Sequence[str]) -> list[str]:
    return sorted(set(events))


def _check_number(tenant_id: UUID) -> None:
    """Count the tenant's webhooks while nobody else adds one."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"webhooks of {tenant_id}"])
    if Webhook.objects.filter(tenant_id=tenant_id).count() >= settings.WEBHOOKS_PER_TENANT:
        raise TooManyWebhooks(f"A tenant has at most {settings.WEBHOOKS_PER_TENANT} webhooks; delete one first.")


def _lock(tenant_id: UUID, webhook_id: UUID) -> Webhook:
    """Lock a webhook's row, as everybody does before its deliveries, but not against new deliveries."""
    webhook = Webhook.objects.select_for_update(no_key=True).filter(tenant_id=tenant_id, id=webhook_id).first()
    if webhook is None:
        raise NotFound("webhook")
    return webhook
