"""Reads: callers by their credentials, members, brands and API keys by tenant."""

import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, TypeVar
from uuid import UUID

from django.db.models import Model, Q, QuerySet

from engarde.accounts import api_keys
from engarde.accounts.models import ApiKey, Brand, Membership, Session, Tenant, User
from engarde.accounts.principal import MembershipInfo, Principal
from engarde.accounts.roles import Role
from engarde.common.paging import Page
from engarde.common.problems import NotFound
from engarde.common.scopes import system_scope, tenant_scope

Row = TypeVar("Row", bound=Model)


@dataclass(frozen=True, slots=True)
class Actor:
    """Who did something: a person or an API key.

    Attributes:
        name: a person's full name or else address; None for somebody who is no member any more.
    """

    kind: Literal["user", "api_key"]
    name: str | None


LAST_USED_RESOLUTION = timedelta(minutes=1)


def live_session(*, session_id: UUID, user_id: UUID, now: datetime) -> Session | None:
    """Return a session with its user, unless it ended or the user was switched off."""
    sessions = Session.objects.select_related("user").filter(user_id=user_id, ended_at=None, expires_at__gt=now)
    return sessions.filter(id=session_id, user__is_active=True).first()


def memberships_of(user: User) -> tuple[MembershipInfo, ...]:
    """Return a person's memberships, oldest first, then the invitations if the person's address is proven."""
    with system_scope("memberships of the caller"):
        rows = Membership.objects.filter(user=user).annotate(is_accepted=Q(accepted_at__isnull=False))
        if user.email_verified_at is None:
            rows = rows.filter(is_accepted=True)
        values = rows.order_by("-is_accepted", "id").values_list("tenant_id", "tenant__name", "role", "is_accepted")
        return tuple(MembershipInfo(*row) for row in values)


def accept_invitation(*, user: User, tenant_id: UUID, now: datetime) -> None:
    """Note that a person whose address is proven acts for a tenant: that accepts its invitation."""
    with tenant_scope(tenant_id):
        Membership.objects.filter(tenant_id=tenant_id, user=user, accepted_at=None).update(accepted_at=now)


def live_api_key(*, text: str, now: datetime) -> ApiKey | None:
    """Return the API key with this text and its tenant, and note its use (at most once a minute)."""
    public_id = api_keys.public_id_of(text)
    if public_id is None:
        return None
    with system_scope("find an API key"):
        key = ApiKey.objects.select_related("tenant").filter(public_id=public_id, revoked_at=None).first()
        if key is None or not _matches(key, text, now):
            return None
        if key.last_used_at is None or key.last_used_at < now - LAST_USED_RESOLUTION:
            unnoted = Q(last_used_at=None) | Q(last_used_at__lt=now - LAST_USED_RESOLUTION)
            ApiKey.objects.filter(unnoted, id=key.id).update(last_used_at=now)
        return key


def _matches(key: ApiKey, text: str, now: datetime) -> bool:
    if key.expires_at and key.expires_at <= now:
        return False
    digest = api_keys.digest(text)
    if secrets.compare_digest(bytes(key.secret_hash), digest):
        return True
    overlaps = key.previous_hash is not None and key.previous_expires_at is not None and key.previous_expires_at > now
    return overlaps and secrets.compare_digest(bytes(key.previous_hash or b""), digest)


def is_still_let_in(*, principal: Principal, tenant_id: UUID, now: datetime) -> bool:
    """Tell whether somebody who was let in earlier would still be: the login or key is live, the membership there.

    An access token's own expiry does not count: what is open stays open as long as the login.
    """
    with tenant_scope(tenant_id):
        if principal.session_id is None:
            unexpired = Q(expires_at=None) | Q(expires_at__gt=now)
            return ApiKey.objects.filter(unexpired, tenant_id=tenant_id, id=principal.id, revoked_at=None).exists()
        is_member = Membership.objects.filter(
            tenant_id=tenant_id, user_id=principal.id, accepted_at__isnull=False
        ).exists()
    return is_member and live_session(session_id=principal.session_id, user_id=principal.id, now=now) is not None


def find_tenant(*, tenant_id: UUID) -> Tenant | None:
    """Return a tenant, for commands that are given its id."""
    with tenant_scope(tenant_id):
        return Tenant.objects.filter(id=tenant_id).first()


def get_tenant(*, tenant_id: UUID) -> Tenant:
    """Return the tenant that a caller acts for."""
    with tenant_scope(tenant_id):
        return Tenant.objects.get(id=tenant_id)


def people_in_charge(*, tenant_id: UUID) -> list[User]:
    """Inside a scope, return a tenant's active owners and admins, oldest members first."""
    rows = Membership.objects.filter(
        tenant_id=tenant_id, role__in=[Role.OWNER, Role.ADMIN], accepted_at__isnull=False, user__is_active=True
    )
    return [row.user for row in rows.select_related("user").order_by("id")]


def list_members(*, tenant_id: UUID, page: int, size: int) -> Page[Membership]:
    """Return a page of a tenant's members and invitations, oldest first."""
    with tenant_scope(tenant_id):
        rows = Membership.objects.filter(tenant_id=tenant_id).select_related("user").order_by("id")
        return _page(rows, page, size)


def list_brands(*, tenant_id: UUID, page: int, size: int) -> Page[Brand]:
    """Return a page of a tenant's brands, oldest first."""
    with tenant_scope(tenant_id):
        return _page(Brand.objects.filter(tenant_id=tenant_id).order_by("id"), page, size)


def list_api_keys(*, tenant_id: UUID, page: int, size: int) -> Page[ApiKey]:
    """Return a page of a tenant's keys that were not revoked, newest first."""
    with tenant_scope(tenant_id):
        return _page(ApiKey.objects.filter(tenant_id=tenant_id, revoked_at=None).order_by("-id"), page, size)


def get_brand(*, tenant_id: UUID, brand_id: UUID) -> Brand:
    """Return a brand.

    Raises:
        NotFound: the tenant has no such brand.
    """
    with tenant_scope(tenant_id):
        brand = Brand.objects.filter(tenant_id=tenant_id, id=brand_id).first()
    if brand is None:
        raise NotFound("brand")
    return brand


def brand_for_content(*, tenant_id: UUID, brand_id: UUID | None) -> tuple[UUID, str] | None:
    """Inside a tenant's scope, return id and language of the brand that was named, or of the tenant's first one."""
    brands = Brand.objects.filter(tenant_id=tenant_id)
    if brand_id is not None:
        brands = brands.filter(id=brand_id)
    return brands.order_by("id").values_list("id", "language").first()


def brand_languages(*, tenant_id: UUID) -> dict[UUID, str]:
    """Inside a tenant's scope, return the language tags of its brands."""
    return dict(Brand.objects.filter(tenant_id=tenant_id).values_list("id", "language"))


def names_of(*, tenant_id: UUID, ids: Collection[UUID]) -> dict[UUID, Actor]:
    """Inside a scope, return who is behind the ids of people and API keys, revoked keys included, in two queries."""
    keys = ApiKey.objects.filter(tenant_id=tenant_id, id__in=ids).values_list("id", "name")
    members = Membership.objects.filter(tenant_id=tenant_id, user_id__in=ids, accepted_at__isnull=False)
    found = dict.fromkeys(ids, Actor("user", None))
    found |= {key_id: Actor("api_key", name) for key_id, name in keys}
    return found | {row.user_id: Actor("user", _name(row.user)) for row in members.select_related("user")}


def _name(user: User) -> str:
    return f"{user.first_name} {user.last_name}".strip() or user.email


def brands_of_all_tenants() -> QuerySet[Brand]:
    """Inside a system scope, return the brands of all tenants."""
    return Brand.objects.all()


def tenant_ids() -> list[UUID]:
    """Return the ids of all tenants, oldest first."""
    with system_scope("go through all tenants"):
        return list(Tenant.objects.order_by("id").values_list("id", flat=True))


def _page(rows: QuerySet[Row], page: int, size: int) -> Page[Row]:
    start = (page - 1) * size
    return Page(rows=list(rows[start : start + size]), number=page, size=size, total=rows.count())
