"""HTTP envelopes: parse, one call, answer."""

from collections.abc import Sequence
from datetime import timedelta
from typing import ClassVar
from uuid import UUID

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import BaseThrottle
from rest_framework.views import APIView

from engarde.accounts import operations, queries, serializers
from engarde.accounts.principal import caller
from engarde.accounts.roles import Scope
from engarde.common.fields import NoQuery, parse
from engarde.common.paging import PageQuery
from engarde.common.throttles import LoginThrottle


class PublicView(APIView):
    """A call that needs no credentials, and ignores stale ones."""

    authentication_classes = ()
    permission_classes = (AllowAny,)
    throttle_classes: Sequence[type[BaseThrottle]] = ()


class LoginView(PublicView):
    """Log in."""

    throttle_classes = (LoginThrottle,)

    @extend_schema(operation_id="login", request=serializers.LoginInput, responses=serializers.TokenOutput)
    def post(self, request: Request) -> Response:
        """Start a session and return its tokens."""
        pair = operations.log_in(**parse(serializers.LoginInput, request), now=timezone.now())
        return _tokens(pair)


class RefreshView(PublicView):
    """Refresh tokens."""

    @extend_schema(operation_id="refresh", request=serializers.RefreshInput, responses=serializers.TokenOutput)
    def post(self, request: Request) -> Response:
        """Spend a refresh token for a new pair."""
        pair = operations.refresh(**parse(serializers.RefreshInput, request), now=timezone.now())
        return _tokens(pair)


def _tokens(pair: operations.TokenPair) -> Response:
    memberships = queries.memberships_of(pair.user)
    return Response(serializers.show_tokens(pair, memberships[0] if memberships else None))


class LogoutView(PublicView):
    """Log out."""

    @extend_schema(operation_id="logout", request=serializers.RefreshInput, responses={204: None})
    def post(self, request: Request) -> Response:
        """End the session of a refresh token."""
        operations.log_out(**parse(serializers.RefreshInput, request), now=timezone.now())
        return Response(status=204)


class MeView(APIView):
    """The caller."""

    @extend_schema(operation_id="me", responses=serializers.MeOutput)
    def get(self, request: Request) -> Response:
        """Return who the caller is and what the caller may do."""
        return Response(serializers.show_principal(caller(request)))


class PasswordView(APIView):
    """The caller's password."""

    throttle_classes = (LoginThrottle,)

    @extend_schema(operation_id="change_password", request=serializers.PasswordInput, responses={204: None})
    def post(self, request: Request) -> Response:
        """Change it; other sessions end."""
        given = parse(serializers.PasswordInput, request)
        operations.change_password(
            principal=caller(request),
            current=given["current_password"],
            new=given["new_password"],
            now=timezone.now(),
        )
        return Response(status=204)


class PasswordResetView(PublicView):
    """A forgotten password."""

    throttle_classes = (LoginThrottle,)

    @extend_schema(operation_id="request_password_reset", request=serializers.PasswordResetInput, responses={204: None})
    def post(self, request: Request) -> Response:
        """Send a reset mail; the answer is the same for an unknown address."""
        operations.request_password_reset(**parse(serializers.PasswordResetInput, request))
        return Response(status=204)


class PasswordResetConfirmView(PublicView):
    """The link in a reset or invitation mail."""

    @extend_schema(
        operation_id="confirm_password_reset", request=serializers.PasswordResetConfirmInput, responses={204: None}
    )
    def post(self, request: Request) -> Response:
        """Set a password with the token from the mail; all sessions end."""
        given = parse(serializers.PasswordResetConfirmInput, request)
        operations.confirm_password_reset(token=given["token"], new=given["new_password"], now=timezone.now())
        return Response(status=204)


class MembersView(APIView):
    """The tenant's members."""

    scopes: ClassVar = {"GET": Scope.ADMIN, "POST": Scope.ADMIN}

    @extend_schema(operation_id="list_members", parameters=[PageQuery], responses=serializers.MemberPage)
    def get(self, request: Request) -> Response:
        """List members and invitations."""
        query = PageQuery.parse(request)
        page = queries.list_members(
            tenant_id=caller(request).require_tenant(), page=query["page"], size=query["pageSize"]
        )
        return Response(page.envelope([serializers.show_member(row) for row in page.rows]))

    @extend_schema(
        operation_id="add_member", request=serializers.MemberInput, responses={201: serializers.MemberOutput}
    )
    def post(self, request: Request) -> Response:
        """Add a person, or invite one by mail."""
        given = parse(serializers.MemberInput, request)
        membership = operations.add_member(
            principal=caller(request),
            email=given["email"],
            role=given["role"],
            password=given.get("password"),
            now=timezone.now(),
        )
        return Response(serializers.show_member(membership), status=201)


class MemberView(APIView):
    """One member."""

    scopes: ClassVar = {"PATCH": Scope.ADMIN}  # anybody may leave, so the operation decides about DELETE

    @extend_schema(operation_id="change_member", request=serializers.RoleInput, responses=serializers.MemberOutput)
    def patch(self, request: Request, user_id: UUID) -> Response:
        """Give another role."""
        role = parse(serializers.RoleInput, request)["role"]
        membership = operations.change_role(principal=caller(request), user_id=user_id, role=role)
        return Response(serializers.show_member(membership))

    @extend_schema(operation_id="remove_member", responses={204: None})
    def delete(self, request: Request, user_id: UUID) -> Response:
        """Take out of the tenant."""
        operations.remove_member(principal=caller(request), user_id=user_id)
        return Response(status=204)


class TenantView(APIView):
    """The tenant that is acted for."""

    scopes: ClassVar = {"GET": Scope.CONTENT_READ, "PATCH": Scope.ADMIN}

    @extend_schema(operation_id="get_tenant", responses=serializers.TenantOutput)
    def get(self, request: Request) -> Response:
        """Return the tenant."""
        NoQuery.parse(request)
        return Response(serializers.show_tenant(queries.get_tenant(tenant_id=caller(request).require_tenant())))

    @extend_schema(operation_id="update_tenant", request=serializers.TenantInput, responses=serializers.TenantOutput)
    def patch(self, request: Request) -> Response:
        """Change the tenant's name or time zone; owners only."""
        changes = parse(serializers.TenantInput, request, partial=True)
        return Response(serializers.show_tenant(operations.update_tenant(principal=caller(request), changes=changes)))


class BrandsView(APIView):
    """The tenant's brands."""

    scopes: ClassVar = {"GET": Scope.CONTENT_READ, "POST": Scope.ADMIN}

    @extend_schema(operation_id="list_brands", parameters=[PageQuery], responses=serializers.BrandPage)
    def get(self, request: Request) -> Response:
        """List brands, oldest first."""
        query = PageQuery.parse(request)
        page = queries.list_brands(
            tenant_id=caller(request).require_tenant(), page=query["page"], size=query["pageSize"]
        )
        return Response(page.envelope([serializers.show_brand(row) for row in page.rows]))

    @extend_schema(
        operation_id="create_brand", request=serializers.BrandInput, responses={201: serializers.BrandOutput}
    )
    def post(self, request: Request) -> Response:
        """Create a brand."""
        given = parse(serializers.BrandInput, request)
        brand = operations.create_brand(tenant_id=caller(request).require_tenant(), **given)
        return Response(serializers.show_brand(brand), status=201, headers={"Location": f"/api/brands/{brand.id}"})


class BrandView(APIView):
    """One brand."""

    scopes: ClassVar = {"GET": Scope.CONTENT_READ, "PATCH": Scope.ADMIN, "DELETE": Scope.ADMIN}

    @extend_schema(operation_id="get_brand", responses=serializers.BrandOutput)
    def get(self, request: Request, brand_id: UUID) -> Response:
        """Return a brand."""
        brand = queries.get_brand(tenant_id=caller(request).require_tenant(), brand_id=brand_id)
        return Response(serializers.show_brand(brand))

    @extend_schema(operation_id="update_brand", request=serializers.BrandInput, responses=serializers.BrandOutput)
    def patch(self, request: Request, brand_id: UUID) -> Response:
        """Change a brand."""
        changes = parse(serializers.BrandInput, request, partial=True)
        brand = operations.update_brand(tenant_id=caller(request).require_tenant(), brand_id=brand_id, changes=changes)
        return Response(serializers.show_brand(brand))

    @extend_schema(operation_id="delete_brand", responses={204: None})
    def delete(self, request: Request, brand_id: UUID) -> Response:
        """Delete a brand without content."""
        operations.delete_brand(tenant_id=caller(request).require_tenant(), brand_id=brand_id)
        return Response(status=204)


class ApiKeysView(APIView):
    """The tenant's API keys."""

    scopes: ClassVar = {"GET": Scope.ADMIN, "POST": Scope.ADMIN}

    @extend_schema(operation_id="list_api_keys", parameters=[PageQuery], responses=serializers.ApiKeyPage)
    def get(self, request: Request) -> Response:
        """List keys, newest first, without their secrets."""
        query = PageQuery.parse(request)
        tenant_id = caller(request).require_tenant()
        page = queries.list_api_keys(tenant_id=tenant_id, page=query["page"], size=query["pageSize"])
        return Response(page.envelope([serializers.show_api_key(row) for row in page.rows]))

    @extend_schema(
        operation_id="create_api_key", request=serializers.ApiKeyInput, responses={201: serializers.NewApiKeyOutput}
    )
    def post(self, request: Request) -> Response:
        """Create a key; its text is shown this once."""
        given = parse(serializers.ApiKeyInput, request)
        key, text = operations.create_api_key(
            tenant_id=caller(request).require_tenant(), created_by=caller(request), now=timezone.now(), **given
        )
        return Response(serializers.show_api_key(key, text), status=201)


class ApiKeyView(APIView):
    """One API key."""

    scopes: ClassVar = {"DELETE": Scope.ADMIN}

    @extend_schema(operation_id="revoke_api_key", responses={204: None})
    def delete(self, request: Request, key_id: UUID) -> Response:
        """End a key at once."""
        operations.revoke_api_key(principal=caller(request), key_id=key_id, now=timezone.now())
        return Response(status=204)


class ApiKeyRotateView(APIView):
    """A key's secret."""

    scopes: ClassVar = {"POST": Scope.ADMIN}

    @extend_schema(
        operation_id="rotate_api_key", request=serializers.RotateInput, responses=serializers.NewApiKeyOutput
    )
    def post(self, request: Request, key_id: UUID) -> Response:
        """Replace the secret; the old one works for `overlap_hours`."""
        hours = parse(serializers.RotateInput, request)["overlap_hours"]
        key, text = operations.rotate_api_key(
            principal=caller(request), key_id=key_id, overlap=timedelta(hours=hours), now=timezone.now()
        )
        return Response(serializers.show_api_key(key, text))
