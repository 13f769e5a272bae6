"""HTTP envelopes: what every call that stores or reads counted bytes answers with, and the quota's own calls."""

from typing import Any, ClassVar
from uuid import UUID

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from engarde.accounts.principal import Principal, caller
from engarde.accounts.roles import Scope
from engarde.common.exceptions import DATABASE_AWAY
from engarde.common.fields import NoQuery, parse
from quotas import queries, reports, serializers, targets
from quotas.usage import Usage


class QuotaView(APIView):
    """A call whose every answer, errors too, says how much storage is used after it."""

    usage: Usage | None = None

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Refuse a query that the method does not take; reads parse their own.

        Raises:
            ValidationError: naming each parameter.
        """
        super().initial(request, *args, **kwargs)
        if request.method not in SAFE_METHODS:
            NoQuery.parse(request)

    def finalize_response(self, request: Request, response: Response, *args: Any, **kwargs: Any) -> Response:
        """Add the X-Quota-* headers for an authenticated caller with a tenant."""
        response = super().finalize_response(request, response, *args, **kwargs)
        user = getattr(request, "_user", None)  # `user` would authenticate again a request that failed to
        data = getattr(response, "data", None)
        database_is_away = isinstance(data, dict) and data.get("code") == DATABASE_AWAY["code"]
        if isinstance(user, Principal) and user.tenant_id and not database_is_away:
            usage = self.usage or queries.usage_of(tenant_id=user.tenant_id)
            for name, value in usage.headers().items():
                response[name] = value
        return response


class SummaryView(QuotaView):
    """The tenant's quota."""

    scopes: ClassVar = {"GET": Scope.QUOTA_READ}

    @extend_schema(operation_id="get_quota", responses=serializers.QuotaOutput)
    def get(self, request: Request) -> Response:
        """Return usage, limits, the level and when storage will be full."""
        NoQuery.parse(request)
        tenant_id = caller(request).require_tenant()
        summary = reports.summary(tenant_id=tenant_id, now=timezone.now())
        self.usage = summary.usage
        return Response(serializers.show_summary(tenant_id, summary))


class HistoryView(QuotaView):
    """How usage went."""

    scopes: ClassVar = {"GET": Scope.QUOTA_READ}

    @extend_schema(
        operation_id="get_quota_history",
        parameters=[serializers.QuotaHistoryQuery],
        responses=serializers.QuotaHistoryOutput,
    )
    def get(self, request: Request) -> Response:
        """Return a row a day (UTC), oldest first, today's as it is now."""
        days = serializers.QuotaHistoryQuery.parse(request)["days"]
        tenant_id = caller(request).require_tenant()
        found = reports.history(tenant_id=tenant_id, days=days, now=timezone.now())
        rows = [serializers.show_day(day) for day in found]
        return Response({"tenant_id": tenant_id, "days": days, "history": rows})


class CheckView(QuotaView):
    """A look ahead."""

    scopes: ClassVar = {"POST": Scope.QUOTA_READ}

    @extend_schema(
        operation_id="check_quota", request=serializers.QuotaCheckInput, responses={200: serializers.QuotaCheckOutput}
    )
    def post(self, request: Request) -> Response:
        """Tell whether so much could be stored or generated now; nothing is held for it."""
        given = parse(serializers.QuotaCheckInput, request)
        found = reports.check(
            tenant_id=caller(request).require_tenant(),
            size_bytes=given["content_size_bytes"],
            items=given["items"],
            now=timezone.now(),
        )
        self.usage = found.usage
        return Response(serializers.show_check(found))


class AlertTargetsView(QuotaView):
    """Where the tenant is told of alerts, besides the mail to its owners and admins."""

    scopes: ClassVar = {"GET": Scope.ADMIN, "POST": Scope.ADMIN}

    @extend_schema(
        operation_id="list_alert_targets",
        parameters=[serializers.AlertTargetQuery],
        responses=serializers.AlertTargetPage,
    )
    def get(self, request: Request) -> Response:
        """List targets, oldest first."""
        query = serializers.AlertTargetQuery.parse(request)
        page = targets.list_targets(
            tenant_id=caller(request).require_tenant(), page=query["page"], size=query["pageSize"]
        )
        return Response(page.envelope([serializers.show_target(row, last) for row, last in page.rows]))

    @extend_schema(
        operation_id="create_alert_target",
        request=serializers.AlertTargetInput,
        responses={201: serializers.AlertTargetOutput},
    )
    def post(self, request: Request) -> Response:
        """Add a target; its address is not shown again."""
        given = parse(serializers.AlertTargetInput, request)
        target = targets.create_target(
            tenant_id=caller(request).require_tenant(), created_by=caller(request).id, **given
        )
        location = f"/api/content/quota/alert-targets/{target.id}"
        return Response(serializers.show_target(target, None), status=201, headers={"Location": location})


class AlertTargetView(QuotaView):
    """One alert target."""

    scopes: ClassVar = {"GET": Scope.ADMIN, "DELETE": Scope.ADMIN}

    @extend_schema(operation_id="get_alert_target", responses=serializers.AlertTargetOutput)
    def get(self, request: Request, target_id: UUID) -> Response:
        """Return a target and what came of the last message to it."""
        NoQuery.parse(request)
        found = targets.get_target(tenant_id=caller(request).require_tenant(), target_id=target_id)
        return Response(serializers.show_target(*found))

    @extend_schema(operation_id="delete_alert_target", responses={204: None})
    def delete(self, request: Request, target_id: UUID) -> Response:
        """Remove a target."""
        targets.delete_target(tenant_id=caller(request).require_tenant(), target_id=target_id)
        return Response(status=204)


class AlertTargetTestView(QuotaView):
    """A test of an alert target."""

    scopes: ClassVar = {"POST": Scope.ADMIN}

    @extend_schema(operation_id="test_alert_target", request=None, responses={202: serializers.AlertTargetOutput})
    def post(self, request: Request, target_id: UUID) -> Response:
        """Send a test message within seconds; `last_status` and `last_error` tell what came of it."""
        found = targets.send_test(tenant_id=caller(request).require_tenant(), target_id=target_id, now=timezone.now())
        return Response(serializers.show_target(*found), status=202)
