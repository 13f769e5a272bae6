"""What a webhook is sent, and how it is signed: the Standard Webhooks specification."""

import secrets
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from standardwebhooks import Webhook as Signer

from content.models import ChangeType, ContentItem, ContentVersion, Delivery, Event, Webhook
from content.models.webhooks import TEST_EVENT
from engarde.common import encryption, json

SECRET_BYTES = 32
USER_AGENT = "En-Garde-Webhooks/1.0"
CHANGE_OF = {
    Event.CREATED: ChangeType.CREATE,
    Event.UPDATED: ChangeType.UPDATE,
    Event.PUBLISHED: ChangeType.PUBLISH,
    Event.ARCHIVED: ChangeType.ARCHIVE,
    Event.DELETED: ChangeType.DELETE,
    Event.RESTORED: ChangeType.RESTORE,
}
OF_ITEM = ("title", "content_type", "status", "brand_id")
OF_VERSION = ("changed_by", "changed_fields", "size_bytes")


@dataclass(frozen=True, slots=True)
class Message:
    """A claimed delivery, ready to be sent.

    Attributes:
        attempt: which one of its attempts this is, from 1; it marks what this sender may settle.
        secrets: encrypted; each signs.
    """

    delivery_id: UUID
    tenant_id: UUID
    webhook_id: UUID
    attempt: int
    url: str
    secrets: tuple[str, ...]
    body: str
    is_test: bool

    def headers(self, now: datetime) -> dict[str, str]:
        """Return the headers of an attempt that is made now; the id is the same at each.

        Raises:
            Unreadable: a secret cannot be decrypted.
        """
        signers = [Signer(encryption.decrypt(secret)) for secret in self.secrets]
        signatures = [signer.sign(str(self.delivery_id), now.astimezone(UTC), self.body) for signer in signers]
        return {
            "content-type": "application/json",
            "user-agent": USER_AGENT,
            "webhook-id": str(self.delivery_id),
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(signatures),
        }


def new_secret() -> str:
    """Return a new secret as its owner is shown it."""
    return "whsec_" + b64encode(secrets.token_bytes(SECRET_BYTES)).decode("ascii")


def make(deliveries: Sequence[Delivery], now: datetime) -> list[Message]:
    """Inside a scope, return the messages of deliveries that come with their webhooks.

    They tell of items as they are now, and of each version as it was made; no other service is asked.
    """
    if not deliveries:
        return []
    content_ids = {delivery.content_id for delivery in deliveries if delivery.content_id}
    items = ContentItem.objects.in_bulk(content_ids)
    rows = ContentVersion.objects.filter(
        content_id__in=content_ids, version__in={delivery.version for delivery in deliveries if delivery.version}
    )
    versions = {(row.content_id, row.version): row for row in rows}
    return [_message(delivery, items, versions, now) for delivery in deliveries]


def _message(
    delivery: Delivery,
    items: Mapping[Any, ContentItem],
    versions: Mapping[Any, ContentVersion],
    now: datetime,
) -> Message:
    is_test = delivery.event == TEST_EVENT
    item, version = items.get(delivery.content_id), versions.get((delivery.content_id, delivery.version))
    payload = {
        "type": delivery.event,
        "timestamp": delivery.occurred_at,
        "data": delivery.data or (_test_data(delivery) if is_test else _data(delivery, item, version)),
    }
    return Message(
        delivery_id=delivery.id,
        tenant_id=delivery.tenant_id,
        webhook_id=delivery.webhook_id,
        attempt=delivery.attempts,
        url=delivery.webhook.url,
        secrets=_secrets(delivery.webhook, now),
        body=json.dumps(payload).decode(),
        is_test=is_test,
    )


def _data(delivery: Delivery, item: ContentItem | None, version: ContentVersion | None) -> dict[str, Any]:
    """Return what is known: the item may be removed for good by now, or the version thinned."""
    return {
        "id": delivery.content_id,
        "version": delivery.version,
        "tenant_id": delivery.tenant_id,
        **{name: getattr(item, name, None) for name in OF_ITEM},
        "change_type": CHANGE_OF[Event(delivery.event)],
        **{name: getattr(version, name, None) for name in OF_VERSION},
    }


def _test_data(delivery: Delivery) -> dict[str, Any]:
    return {"webhook_id": delivery.webhook_id, "tenant_id": delivery.tenant_id, "message": "This webhook works."}


def _secrets(webhook: Webhook, now: datetime) -> tuple[str, ...]:
    overlaps = webhook.previous_secret_until is not None and webhook.previous_secret_until > now
    return (webhook.secret, webhook.previous_secret) if overlaps else (webhook.secret,)
