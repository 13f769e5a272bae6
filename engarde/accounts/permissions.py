"""DRF permissions: what the caller's scopes or staff standing allow."""

from typing import Any

from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from engarde.accounts.principal import Principal
from engarde.common.problems import Forbidden


class HasScope(BasePermission):
    """Lets a caller in who has the scope that the view's `scopes` names for the method, or one of several, in a tenant.

    A view without `scopes` for a method needs an authenticated caller only.
    """

    def has_permission(self, request: Request, view: Any) -> bool:
        """Tell whether the caller is authenticated, and refuse one without the scope.

        Raises:
            TenantRequired: no tenant is picked.
            Forbidden: the scope is missing.
        """
        user: Any = request.user
        if not isinstance(user, Principal):
            return False
        needed = getattr(view, "scopes", {}).get("GET" if request.method == "HEAD" else request.method)
        if needed is None:
            return True
        user.require_tenant()
        any_of = (needed,) if isinstance(needed, str) else needed
        if user.scopes.isdisjoint(any_of):
            raise Forbidden(f"This needs the scope {' or '.join(any_of)}, which your role or API key does not have.")
        return True


class IsStaff(BasePermission):
    """Lets the platform's staff in."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """Tell whether the caller is authenticated, and refuse one who is not staff.

        Raises:
            Forbidden: not staff.
        """
        user: Any = request.user
        if not isinstance(user, Principal):
            return False
        if not user.is_staff:
            raise Forbidden("This is for the platform's staff.")
        return True
