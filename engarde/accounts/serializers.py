"""Shapes of requests and answers."""

from typing import Any

from django.core.validators import RegexValidator
from rest_framework import serializers

from engarde.accounts.models import ApiKey, Brand, Membership, Tenant, User, normalise_email
from engarde.accounts.operations import TokenPair
from engarde.accounts.principal import MembershipInfo, Principal
from engarde.accounts.roles import Role, Scope
from engarde.common.fields import StrictSerializer, TextField
from engarde.common.paging import PaginationOutput

MAX_OVERLAP_HOURS = 7 * 24
LANGUAGE_TAG = RegexValidator(r"\A[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*\Z", "Not a language tag such as en or pt-BR.")


class LoginInput(StrictSerializer):
    """Credentials of a person."""

    email = TextField(max_length=254)
    password = TextField(max_length=1000)


class RefreshInput(StrictSerializer):
    """A refresh token."""

    refresh_token = TextField(max_length=200)


class PasswordInput(StrictSerializer):
    """A person's current and new password."""

    current_password = TextField(max_length=1000)
    new_password = TextField(max_length=1000)


class PasswordResetInput(StrictSerializer):
    """The address of an account."""

    email = TextField(max_length=254)


class PasswordResetConfirmInput(StrictSerializer):
    """The token from a mail and the new password."""

    token = TextField(max_length=300)
    new_password = TextField(max_length=1000)


class EmailAddressField(serializers.EmailField):
    """An e-mail address in the form in which it is stored."""

    def to_internal_value(self, data: Any) -> str:
        """Return the address; its length is checked after this, as some letters grow in lower case."""
        return normalise_email(super().to_internal_value(data))


class MemberInput(StrictSerializer):
    """A person to add or invite."""

    email = EmailAddressField(max_length=254)
    role = serializers.ChoiceField(choices=Role.choices)
    password = TextField(max_length=1000, required=False)


class RoleInput(StrictSerializer):
    """A member's new role."""

    role = serializers.ChoiceField(choices=Role.choices)


class TenantInput(StrictSerializer):
    """What to change of a tenant."""

    name = TextField(max_length=200, required=False)
    time_zone = TextField(max_length=64, required=False, help_text="An IANA name such as Europe/Berlin.")


class TenantOutput(serializers.Serializer[Any]):
    """A tenant."""

    id = serializers.UUIDField()
    name = serializers.CharField()
    time_zone = serializers.CharField(help_text="The tenant's months begin at midnight there.")
    created_at = serializers.DateTimeField()


class BrandInput(StrictSerializer):
    """A brand to create or change."""

    name = TextField(max_length=200)
    voice = TextField(max_length=20_000, allow_blank=True, required=False)
    language = TextField(max_length=35, required=False, validators=[LANGUAGE_TAG], help_text="A BCP 47 tag.")


class ApiKeyInput(StrictSerializer):
    """An API key to create."""

    name = TextField(max_length=200)
    scopes = serializers.ListField(
        child=serializers.ChoiceField(choices=Scope.choices), min_length=1, max_length=len(Scope)
    )
    expires_at = serializers.DateTimeField(required=False, allow_null=True)


class RotateInput(StrictSerializer):
    """How long the old secret still works."""

    overlap_hours = serializers.FloatField(min_value=0, max_value=MAX_OVERLAP_HOURS, default=0)


class UserOutput(serializers.Serializer[Any]):
    """A person, as the person's own client sees it."""

    id = serializers.UUIDField()
    email = serializers.EmailField()
    first_name = serializers.CharField()
    last_name = serializers.CharField()
    role = serializers.ChoiceField(choices=Role.choices, allow_null=True, help_text="In `tenant_id`.")
    tenant_id = serializers.UUIDField(
        allow_null=True, help_text="The tenant acted for; after a login the first of several, to send as X-Tenant-ID."
    )


class TokenOutput(serializers.Serializer[Any]):
    """A pair of tokens and whose they are."""

    access_token = serializers.CharField()
    refresh_token = serializers.CharField()
    token_type = serializers.CharField()
    expires_in = serializers.IntegerField(help_text="Seconds.")
    user = UserOutput()


class MembershipOutput(serializers.Serializer[Any]):
    """A tenant and the person's role there."""

    tenant_id = serializers.UUIDField()
    tenant_name = serializers.CharField()
    role = serializers.ChoiceField(choices=Role.choices, allow_null=True, help_text="Null for an API key.")
    status = serializers.ChoiceField(choices=["active", "invited"], help_text="Acting for the tenant accepts.")


class MeOutput(serializers.Serializer[Any]):
    """The caller: a person, or an API key (`user` is null then)."""

    user = UserOutput(allow_null=True)
    memberships = MembershipOutput(many=True)
    active_tenant = MembershipOutput(allow_null=True)
    authenticated_by = serializers.ChoiceField(choices=["jwt", "api_key"])
    scopes = serializers.ListField(child=serializers.CharField())
    is_staff = serializers.BooleanField()


class MemberOutput(serializers.Serializer[Any]):
    """A member or an invitation."""

    user_id = serializers.UUIDField()
    email = serializers.EmailField()
    first_name = serializers.CharField()
    last_name = serializers.CharField()
    role = serializers.CharField()
    status = serializers.ChoiceField(choices=["active", "invited"])
    created_at = serializers.DateTimeField()


class BrandOutput(serializers.Serializer[Any]):
    """A brand."""

    id = serializers.UUIDField()
    name = serializers.CharField()
    voice = serializers.CharField()
    language = serializers.CharField()
    created_at = serializers.DateTimeField()


class ApiKeyOutput(serializers.Serializer[Any]):
    """A key, without its secret."""

    id = serializers.UUIDField()
    name = serializers.CharField()
    prefix = serializers.CharField()
    last4 = serializers.CharField()
    scopes = serializers.ListField(child=serializers.CharField())
    created_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField(allow_null=True)
    last_used_at = serializers.DateTimeField(allow_null=True)


class NewApiKeyOutput(ApiKeyOutput):
    """A key with its text, shown this once."""

    key = serializers.CharField()


class MemberPage(serializers.Serializer[Any]):
    """A page of members."""

    data = MemberOutput(many=True)  # type: ignore[assignment]
    pagination = PaginationOutput()


class BrandPage(serializers.Serializer[Any]):
    """A page of brands."""

    data = BrandOutput(many=True)  # type: ignore[assignment]
    pagination = PaginationOutput()


class ApiKeyPage(serializers.Serializer[Any]):
    """A page of API keys."""

    data = ApiKeyOutput(many=True)  # type: ignore[assignment]
    pagination = PaginationOutput()


def show_user(user: User, tenant: MembershipInfo | None) -> dict[str, Any]:
    """Return a person with the role in a tenant."""
    return {
        "id": user.id,
        "email": user.email,
        "first_name": user.first_name,
        "last_name": user.last_name,
        "role": tenant.role if tenant else None,
        "tenant_id": tenant.tenant_id if tenant else None,
    }


def show_tokens(pair: TokenPair, tenant: MembershipInfo | None) -> dict[str, Any]:
    """Return the answer to a login or refresh."""
    return {
        "access_token": pair.access_token,
        "refresh_token": pair.refresh_token,
        "token_type": "bearer",
        "expires_in": pair.expires_in,
        "user": show_user(pair.user, tenant),
    }


def show_membership(membership: MembershipInfo) -> dict[str, Any]:
    """Return a membership of the caller."""
    return {
        "tenant_id": membership.tenant_id,
        "tenant_name": membership.tenant_name,
        "role": membership.role or None,
        "status": "active" if membership.is_accepted else "invited",
    }


def show_principal(principal: Principal) -> dict[str, Any]:
    """Return the caller."""
    return {
        "user": show_user(principal.user, principal.tenant) if principal.user else None,
        "memberships": [show_membership(membership) for membership in principal.memberships],
        "active_tenant": show_membership(principal.tenant) if principal.tenant else None,
        "authenticated_by": principal.method,
        "scopes": sorted(principal.scopes),
        "is_staff": principal.is_staff,
    }


def show_member(membership: Membership) -> dict[str, Any]:
    """Return a member; of somebody who was only invited nothing but the address is told."""
    user = membership.user
    is_member = membership.accepted_at is not None
    return {
        "user_id": user.id,
        "email": user.email,
        "first_name": user.first_name if is_member else "",
        "last_name": user.last_name if is_member else "",
        "role": membership.role,
        "status": "active" if is_member else "invited",
        "created_at": membership.created_at,
    }


def show_tenant(tenant: Tenant) -> dict[str, Any]:
    """Return a tenant."""
    return {name: getattr(tenant, name) for name in ("id", "name", "time_zone", "created_at")}


def show_brand(brand: Brand) -> dict[str, Any]:
    """Return a brand."""
    return {name: getattr(brand, name) for name in ("id", "name", "voice", "language", "created_at")}


def show_api_key(key: ApiKey, text: str | None = None) -> dict[str, Any]:
    """Return a key, with its text when it was just made."""
    shown = {name: getattr(key, name) for name in ("id", "name", "last4", "scopes", "created_at", "expires_at")}
    shown |= {"prefix": f"eg_live_{key.public_id}", "last_used_at": key.last_used_at}
    return shown | {"key": text} if text else shown
