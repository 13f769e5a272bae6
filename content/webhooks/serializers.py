"""Shapes of requests and answers."""

from typing import Any

from rest_framework import serializers

from content.models import Delivery, Event, Webhook
from engarde.common.fields import StrictSerializer, TextField
from engarde.common.paging import PageQuery, PaginationOutput

MAX_OVERLAP_HOURS = 7 * 24
DEFAULT_OVERLAP_HOURS = 24
SHOWN = ("id", "url", "description", "events", "is_active", "failures_in_a_row", "failing_since", "created_at")
DELIVERY_SHOWN = (
    *("id", "event", "content_id", "version", "status", "attempts", "response_status", "last_error"),
    *("occurred_at", "created_at"),
)


class WebhookInput(StrictSerializer):
    """A webhook to create."""

    url = TextField(max_length=2000, help_text="https, of a public address, on port 443, 80 or 1024 to 65535.")
    events = serializers.ListField(
        child=serializers.ChoiceField(choices=Event.choices),
        max_length=len(Event),
        required=False,
        help_text="What to tell; empty or left out for everything.",
    )
    description = TextField(max_length=200, allow_blank=True, required=False)


class WebhookChanges(WebhookInput):
    """What to change of a webhook."""

    is_active = serializers.BooleanField(
        required=False, help_text="Switched off, what is pending fails; switched on, it begins anew."
    )


class RotateSecretInput(StrictSerializer):
    """How long the old secret signs beside the new one."""

    overlap_hours = serializers.FloatField(min_value=0, max_value=MAX_OVERLAP_HOURS, default=DEFAULT_OVERLAP_HOURS)


class DeliveryQuery(PageQuery):
    """A page of deliveries, all or those of one status."""

    status = serializers.ChoiceField(choices=Delivery.Status.choices, required=False)


class WebhookOutput(serializers.Serializer[Any]):
    """A webhook, without its secret."""

    id = serializers.UUIDField()
    url = serializers.CharField()
    description = serializers.CharField()
    events = serializers.ListField(child=serializers.CharField(), help_text="Empty for everything.")
    is_active = serializers.BooleanField()
    disabled_reason = serializers.CharField(allow_null=True, help_text="Why the platform switched it off.")
    failures_in_a_row = serializers.IntegerField()
    failing_since = serializers.DateTimeField(allow_null=True)
    previous_secret_until = serializers.DateTimeField(
        allow_null=True, help_text="Until then the secret before the last rotation signs too."
    )
    created_at = serializers.DateTimeField()


class NewWebhookOutput(WebhookOutput):
    """A webhook with its secret, shown this once."""

    secret = serializers.CharField(help_text="whsec_ and base64, as libraries for Standard Webhooks take it.")


class DeliveryOutput(serializers.Serializer[Any]):
    """A message on its way; its id is the `webhook-id` at every attempt."""

    id = serializers.UUIDField()
    event = serializers.CharField()
    content_id = serializers.UUIDField(allow_null=True, help_text="Null for a test.")
    version = serializers.IntegerField(allow_null=True)
    status = serializers.ChoiceField(choices=Delivery.Status.choices)
    attempts = serializers.IntegerField()
    response_status = serializers.IntegerField(
        allow_null=True, help_text="Of the last attempt; null without an answer."
    )
    last_error = serializers.CharField(
        allow_null=True, help_text="Why the last attempt failed, with the beginning of the answer's body."
    )
    occurred_at = serializers.DateTimeField()
    created_at = serializers.DateTimeField()
    next_attempt_at = serializers.DateTimeField(allow_null=True, help_text="Null unless pending.")
    delivered_at = serializers.DateTimeField(allow_null=True)


class WebhookPage(serializers.Serializer[Any]):
    """A page of webhooks."""

    data = WebhookOutput(many=True)  # type: ignore[assignment]  # the contract's name; DRF has an attribute of it
    pagination = PaginationOutput()


class DeliveryPage(serializers.Serializer[Any]):
    """A page of deliveries."""

    data = DeliveryOutput(many=True)  # type: ignore[assignment]  # the contract's name; DRF has an attribute of it
    pagination = PaginationOutput()


def show_webhook(webhook: Webhook, secret: str | None = None) -> dict[str, Any]:
    """Return a webhook, with its secret when that was just made."""
    shown = {name: getattr(webhook, name) for name in SHOWN}
    shown |= {"disabled_reason": webhook.disabled_reason or None}
    shown |= {"previous_secret_until": webhook.previous_secret_until}
    return shown | {"secret": secret} if secret else shown


def show_delivery(delivery: Delivery) -> dict[str, Any]:
    """Return a delivery."""
    shown = {name: getattr(delivery, name) for name in DELIVERY_SHOWN}
    is_pending = delivery.status == Delivery.Status.PENDING
    is_delivered = delivery.status == Delivery.Status.DELIVERED
    return shown | {
        "last_error": delivery.last_error or None,
        "next_attempt_at": delivery.next_attempt_at if is_pending else None,
        "delivered_at": delivery.finished_at if is_delivered else None,
    }
