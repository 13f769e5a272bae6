"""What every call that stores or reads counted bytes answers with."""

from typing import Any

from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from engarde.accounts.principal import Principal
from engarde.common.exceptions import DATABASE_AWAY
from engarde.common.fields import NoQuery
from quotas import queries
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
