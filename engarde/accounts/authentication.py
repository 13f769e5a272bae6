"""DRF authentication: an access token or an API key, the key in either header since agents send it both ways."""

from dataclasses import replace
from uuid import UUID

from django.utils import timezone
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework import exceptions
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from engarde.accounts import api_keys, queries, tokens
from engarde.accounts.principal import MembershipInfo, Principal, TenantRequired
from engarde.accounts.roles import SCOPES_OF, Scope

CHALLENGE = 'Bearer realm="engarde"'
PICKING = "A person in several tenants names one in the X-Tenant-ID header."


class CredentialsAuthentication(BaseAuthentication):
    """Reads `Authorization: Bearer <token or key>` or `X-API-Key: <key>`, and `X-Tenant-ID`."""

    def authenticate(self, request: Request) -> tuple[Principal, None] | None:
        """Return the caller, or None when there are no credentials.

        Raises:
            AuthenticationFailed: the credentials are not good.
            TenantRequired: X-Tenant-ID names a tenant that is not the caller's.
        """
        wanted = request.headers.get("X-Tenant-ID")
        if key := request.headers.get("X-API-Key"):
            return _program(key.strip(), wanted), None
        bearer = _bearer(request)
        if bearer is None:
            return None
        if api_keys.looks_like_key(bearer):
            return _program(bearer, wanted), None
        return _person(bearer, wanted), None

    def authenticate_header(self, request: Request) -> str:
        """Return the challenge of a 401."""
        return CHALLENGE


def _bearer(request: Request) -> str | None:
    scheme, _, credential = request.headers.get("Authorization", "").partition(" ")
    if not scheme:
        return None
    if scheme.lower() != "bearer" or not credential.strip():
        raise exceptions.AuthenticationFailed("Send 'Authorization: Bearer <access token or API key>'.")
    return str(credential).strip()


def _program(text: str, wanted: str | None) -> Principal:
    key = queries.live_api_key(text=text, now=timezone.now())
    if key is None:
        raise exceptions.AuthenticationFailed("The API key is not valid: unknown, revoked or expired.")
    tenant = MembershipInfo(tenant_id=key.tenant_id, tenant_name=key.tenant.name, role="")
    if wanted and not _same(wanted, tenant):
        raise TenantRequired("The API key belongs to another tenant than X-Tenant-ID.")
    return Principal(id=key.id, method="api_key", tenant=tenant, scopes=frozenset(map(Scope, key.scopes)))


def _person(token: str, wanted: str | None) -> Principal:
    claims = tokens.read_access_token(token)
    session = claims and queries.live_session(session_id=claims.session_id, user_id=claims.user_id, now=timezone.now())
    if not session:
        raise exceptions.AuthenticationFailed("The access token is not valid or has expired; refresh it or log in.")
    memberships = queries.memberships_of(session.user)
    tenant = _pick(memberships, wanted)
    if tenant and not tenant.is_accepted:
        queries.accept_invitation(user=session.user, tenant_id=tenant.tenant_id, now=timezone.now())
        accepted = replace(tenant, is_accepted=True)
        memberships = tuple(accepted if one is tenant else one for one in memberships)
        tenant = accepted
    return Principal(
        id=session.user.id,
        method="jwt",
        tenant=tenant,
        scopes=SCOPES_OF[tenant.role] if tenant else frozenset(),
        user=session.user,
        session_id=session.id,
        memberships=memberships,
    )


def _pick(memberships: tuple[MembershipInfo, ...], wanted: str | None) -> MembershipInfo | None:
    """Return the tenant that is named, or else the only one.

    Invitations do not count beside memberships: an invitation from a stranger must not make a tenant ambiguous.
    """
    if not wanted:
        candidates = [one for one in memberships if one.is_accepted] or memberships
        return candidates[0] if len(candidates) == 1 else None
    for membership in memberships:
        if _same(wanted, membership):
            return membership
    raise TenantRequired("You are not a member of the tenant in X-Tenant-ID.")


def _same(wanted: str, membership: MembershipInfo) -> bool:
    try:
        return UUID(wanted) == membership.tenant_id
    except ValueError:
        return False


class CredentialsScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """Describes the credentials in the OpenAPI document."""

    target_class = CredentialsAuthentication
    name = ["bearer", "apiKey"]

    def get_security_definition(self, auto_schema: object) -> list[dict[str, str]]:
        """Return one definition a name."""
        return [
            {"type": "http", "scheme": "bearer", "description": f"An access token or an API key. {PICKING}"},
            {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        ]
