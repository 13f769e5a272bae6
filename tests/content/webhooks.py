"""What tests of webhooks share: making one, sending what is due, and moving the clock."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection
from django.utils import timezone

from content.models import Delivery, Webhook
from content.webhooks import sender
from engarde.common.scopes import system_scope
from tests.people import Person


def subscribe(person: Person, url: str, **fields: Any) -> dict[str, Any]:
    """Make a webhook and return the answer's body."""
    answer = person.api.post("/api/webhooks", {"url": url, **fields})
    assert answer.status_code == 201, answer.content
    return answer.json()


def send(now: datetime | None = None) -> int:
    """Send what is due and return the number of attempts."""
    return sender.send_due(now=lambda: now or timezone.now())


def make_due(webhook: dict[str, Any]) -> None:
    """End all waits and leases of a webhook's deliveries."""
    with system_scope("a test moves the clock"), connection.cursor() as cursor:
        cursor.execute(
            "UPDATE content_webhook_deliveries SET next_attempt_at = now() WHERE webhook_id = %s", [webhook["id"]]
        )


def shown(person: Person, webhook: dict[str, Any]) -> dict[str, Any]:
    """Return a webhook as the API shows it."""
    return person.api.get(f"/api/webhooks/{webhook['id']}").json()


def deliveries(person: Person, webhook: dict[str, Any], **query: Any) -> list[dict[str, Any]]:
    """Return a webhook's deliveries, newest first."""
    answer = person.api.get(f"/api/webhooks/{webhook['id']}/deliveries", query)
    assert answer.status_code == 200, answer.content
    return answer.json()["data"]


def waits(webhook: dict[str, Any]) -> timedelta:
    """Return how long the one pending delivery waits for its next attempt."""
    with system_scope("a test looks"):
        delivery = Delivery.objects.get(webhook_id=UUID(webhook["id"]), status="pending")
    return delivery.next_attempt_at - timezone.now()


def row(webhook: dict[str, Any]) -> Webhook:
    """Return a webhook's row."""
    with system_scope("a test looks"):
        return Webhook.objects.get(id=UUID(webhook["id"]))


def forget_all() -> None:
    """Remove every webhook, so that no other test sends what this one left."""
    with system_scope("a test tidies up"):
        Webhook.objects.all().delete()
