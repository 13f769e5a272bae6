"""Reads: a tenant's webhooks and their deliveries."""

from uuid import UUID

from django.db.models import QuerySet

from content.models import Delivery, Webhook
from engarde.common.paging import Page
from engarde.common.problems import NotFound
from engarde.common.scopes import tenant_scope


def list_webhooks(*, tenant_id: UUID, page: int, size: int) -> Page[Webhook]:
    """Return a page of a tenant's webhooks, newest first."""
    start = (page - 1) * size
    with tenant_scope(tenant_id):
        rows = Webhook.objects.filter(tenant_id=tenant_id).order_by("-id")
        return Page(rows=list(rows[start : start + size]), number=page, size=size, total=rows.count())


def get_webhook(*, tenant_id: UUID, webhook_id: UUID) -> Webhook:
    """Return a webhook.

    Raises:
        NotFound: the tenant has no such webhook.
    """
    with tenant_scope(tenant_id):
        return _webhook(tenant_id, webhook_id)


def list_deliveries(*, tenant_id: UUID, webhook_id: UUID, status: str | None, page: int, size: int) -> Page[Delivery]:
    """Return a page of a webhook's deliveries, newest first.

    Args:
        status: pending, delivered or failed; None for all.

    Raises:
        NotFound: the tenant has no such webhook.
    """
    start = (page - 1) * size
    with tenant_scope(tenant_id):
        rows = _deliveries(_webhook(tenant_id, webhook_id))
        if status:
            rows = rows.filter(status=status)
        newest = rows.order_by("-created_at", "-id")
        return Page(rows=list(newest[start : start + size]), number=page, size=size, total=rows.count())


def get_delivery(*, tenant_id: UUID, webhook_id: UUID, delivery_id: UUID) -> Delivery:
    """Return a delivery.

    Raises:
        NotFound: the tenant's webhook has no such delivery.
    """
    with tenant_scope(tenant_id):
        delivery = _deliveries(_webhook(tenant_id, webhook_id)).filter(id=delivery_id).first()
    if delivery is None:
        raise NotFound("delivery")
    return delivery


def _webhook(tenant_id: UUID, webhook_id: UUID) -> Webhook:
    webhook = Webhook.objects.filter(tenant_id=tenant_id, id=webhook_id).first()
    if webhook is None:
        raise NotFound("webhook")
    return webhook


def _deliveries(webhook: Webhook) -> QuerySet[Delivery]:
    return Delivery.objects.filter(tenant_id=webhook.tenant_id, webhook=webhook)
