"""HTTP envelopes: parse, one call, answer. All of it is for owners and admins, and keys with the scope `admin`."""

from datetime import timedelta
from typing import ClassVar
from uuid import UUID

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from content.webhooks import operations, queries, serializers
from engarde.accounts.principal import caller
from engarde.accounts.roles import Scope
from engarde.common.fields import NoQuery, parse
from engarde.common.paging import PageQuery
from quotas.views import QuotaView


class WebhooksView(QuotaView):
    """The tenant's webhooks."""

    scopes: ClassVar = {"GET": Scope.ADMIN, "POST": Scope.ADMIN}

    @extend_schema(operation_id="list_webhooks", parameters=[PageQuery], responses=serializers.WebhookPage)
    def get(self, request: Request) -> Response:
        """List webhooks, newest first, without their secrets."""
        query = PageQuery.parse(request)
        tenant_id = caller(request).require_tenant()
        page = queries.list_webhooks(tenant_id=tenant_id, page=query["page"], size=query["pageSize"])
        return Response(page.envelope([serializers.show_webhook(row) for row in page.rows]))

    @extend_schema(
        operation_id="create_webhook",
        request=serializers.WebhookInput,
        responses={201: serializers.NewWebhookOutput},
    )
    def post(self, request: Request) -> Response:
        """Create a webhook; its secret is shown this once."""
        given = parse(serializers.WebhookInput, request)
        webhook, secret = operations.create_webhook(tenant_id=caller(request).require_tenant(), **given)
        location = f"/api/webhooks/{webhook.id}"
        return Response(serializers.show_webhook(webhook, secret), status=201, headers={"Location": location})


class WebhookView(QuotaView):
    """One webhook."""

    scopes: ClassVar = {"GET": Scope.ADMIN, "PATCH": Scope.ADMIN, "DELETE": Scope.ADMIN}

    @extend_schema(operation_id="get_webhook", responses=serializers.WebhookOutput)
    def get(self, request: Request, webhook_id: UUID) -> Response:
        """Return a webhook, without its secret."""
        NoQuery.parse(request)
        webhook = queries.get_webhook(tenant_id=caller(request).require_tenant(), webhook_id=webhook_id)
        return Response(serializers.show_webhook(webhook))

    @extend_schema(
        operation_id="update_webhook", request=serializers.WebhookChanges, responses=serializers.WebhookOutput
    )
    def patch(self, request: Request, webhook_id: UUID) -> Response:
        """Change a webhook, or switch it on or off."""
        webhook = operations.update_webhook(
            tenant_id=caller(request).require_tenant(),
            webhook_id=webhook_id,
            changes=parse(serializers.WebhookChanges, request, partial=True),
            now=timezone.now(),
        )
        return Response(serializers.show_webhook(webhook))

    @extend_schema(operation_id="delete_webhook", responses={204: None})
    def delete(self, request: Request, webhook_id: UUID) -> Response:
        """Remove a webhook and its deliveries."""
        operations.delete_webhook(tenant_id=caller(request).require_tenant(), webhook_id=webhook_id)
        return Response(status=204)


class RotateSecretView(QuotaView):
    """A webhook's secret."""

    scopes: ClassVar = {"POST": Scope.ADMIN}

    @extend_schema(
        operation_id="rotate_webhook_secret",
        request=serializers.RotateSecretInput,
        responses=serializers.NewWebhookOutput,
    )
    def post(self, request: Request, webhook_id: UUID) -> Response:
        """Replace the secret; the old one signs as well for `overlap_hours`, a day unless told otherwise."""
        hours = parse(serializers.RotateSecretInput, request)["overlap_hours"]
        webhook, secret = operations.rotate_secret(
            tenant_id=caller(request).require_tenant(),
            webhook_id=webhook_id,
            overlap=timedelta(hours=hours),
            now=timezone.now(),
        )
        return Response(serializers.show_webhook(webhook, secret))


class WebhookTestView(QuotaView):
    """A test of a webhook."""

    scopes: ClassVar = {"POST": Scope.ADMIN}

    @extend_schema(operation_id="test_webhook", request=None, responses={202: serializers.DeliveryOutput})
    def post(self, request: Request, webhook_id: UUID) -> Response:
        """Queue a `webhook.test` message, which is sent once within seconds; the delivery tells what came of it."""
        delivery = operations.send_test(
            tenant_id=caller(request).require_tenant(), webhook_id=webhook_id, now=timezone.now()
        )
        location = f"/api/webhooks/{webhook_id}/deliveries/{delivery.id}"
        return Response(serializers.show_delivery(delivery), status=202, headers={"Location": location})


class DeliveriesView(QuotaView):
    """A webhook's deliveries."""

    scopes: ClassVar = {"GET": Scope.ADMIN}

    @extend_schema(
        operation_id="list_webhook_deliveries",
        parameters=[serializers.DeliveryQuery],
        responses=serializers.DeliveryPage,
    )
    def get(self, request: Request, webhook_id: UUID) -> Response:
        """List deliveries, newest first; they are kept for 30 days after they are finished."""
        query = serializers.DeliveryQuery.parse(request)
        page = queries.list_deliveries(
            tenant_id=caller(request).require_tenant(),
            webhook_id=webhook_id,
            status=query.get("status"),
            page=query["page"],
            size=query["pageSize"],
        )
        return Response(page.envelope([serializers.show_delivery(row) for row in page.rows]))


class DeliveryView(QuotaView):
    """One delivery."""

    scopes: ClassVar = {"GET": Scope.ADMIN}

    @extend_schema(operation_id="get_webhook_delivery", responses=serializers.DeliveryOutput)
    def get(self, request: Request, webhook_id: UUID, delivery_id: UUID) -> Response:
        """Return a delivery."""
        NoQuery.parse(request)
        tenant_id = caller(request).require_tenant()
        delivery = queries.get_delivery(tenant_id=tenant_id, webhook_id=webhook_id, delivery_id=delivery_id)
        return Response(serializers.show_delivery(delivery))


class ReplayView(QuotaView):
    """A delivery, once more."""

    scopes: ClassVar = {"POST": Scope.ADMIN}

    @extend_schema(operation_id="replay_webhook_delivery", request=None, responses={202: serializers.DeliveryOutput})
    def post(self, request: Request, webhook_id: UUID, delivery_id: UUID) -> Response:
        """Send it again, whatever became of it: with the same id, and with all retries."""
        delivery = operations.replay(
            tenant_id=caller(request).require_tenant(),
            webhook_id=webhook_id,
            delivery_id=delivery_id,
            now=timezone.now(),
        )
        return Response(serializers.show_delivery(delivery), status=202)
