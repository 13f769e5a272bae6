"""Writes: logins, passwords, members, brands and API keys, one transaction each."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib.auth import authenticate
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import ProtectedError, Q, QuerySet

from engarde.accounts import api_keys, tokens
from engarde.accounts.models import ApiKey, Brand, Mail, Membership, Session, Tenant, User, normalise_email
from engarde.accounts.principal import Principal
from engarde.accounts.roles import SCOPES_OF, Role, Scope
from engarde.common import wake
from engarde.common.problems import Forbidden, Invalid, NotFound, Problem
from engarde.common.scopes import tenant_scope
from engarde.common.time_zones import validate_time_zone

WRONG_CREDENTIALS = "The e-mail address or the password is wrong."


class BadCredentials(Problem):
    """Wrong e-mail or password, or a token that is spent, expired or forged."""

    status, code, title = 401, "invalid_credentials", "Authentication failed"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, headers={"WWW-Authenticate": 'Bearer realm="engarde"'})


class LastOwner(Problem):
    """A tenant keeps at least one owner."""

    status, code, title = 409, "last_owner", "Last owner"


class AlreadyMember(Problem):
    """The person is a member, or invited, already."""

    status, code, title = 409, "already_member", "Already a member"


class UserExists(Problem):
    """The password of an existing account is not somebody else's to set."""

    status, code, title = 409, "user_exists", "User exists"


class BrandInUse(Problem):
    """A brand with content stays."""

    status, code, title = 409, "brand_in_use", "Brand in use"


@dataclass(frozen=True, slots=True)
class TokenPair:
    """What a login or refresh hands out.

    Attributes:
        expires_in: seconds that the access token is good for.
    """

    user: User
    access_token: str
    refresh_token: str
    expires_in: int


# Logins


def log_in(*, email: str, password: str, now: datetime) -> TokenPair:
    """Start a session.

    Raises:
        BadCredentials: the same, and as slow, for an unknown address as for a wrong password.
    """
    user = authenticate(username=normalise_email(email), password=password)
    if not isinstance(user, User):
        raise BadCredentials(WRONG_CREDENTIALS)
    session = Session(user=user, expires_at=_session_end(now))
    refresh_token = tokens.make_refresh_token(session.id)
    session.refresh_hash = tokens.digest(refresh_token)
    with transaction.atomic():
        # Hashing takes a while: a password that was replaced meanwhile must not outlive the sessions that ended with it.
        unchanged = User.objects.filter(id=user.id, password=user.password, is_active=True)
        if not unchanged.update(last_login=now):
            raise BadCredentials(WRONG_CREDENTIALS)
        session.save(force_insert=True)
    return _pair(user, session.id, refresh_token, now)


def refresh(*, refresh_token: str, now: datetime) -> TokenPair:
    """Spend a refresh token for a new pair; of two requests with one token, one wins.

    Raises:
        BadCredentials: the token is spent, expired or not ours.
    """
    session_id = tokens.session_of(refresh_token)
    replacement = tokens.make_refresh_token(session_id) if session_id else ""
    spent = session_id and _good_sessions(session_id, refresh_token, now).update(
        refresh_hash=tokens.digest(replacement), expires_at=_session_end(now)
    )
    if not session_id or not spent:
        raise BadCredentials("The refresh token is spent, expired or not valid; log in again.")
    user = Session.objects.select_related("user").get(id=session_id).user
    return _pair(user, session_id, replacement, now)


def log_out(*, refresh_token: str, now: datetime) -> None:
    """End the session of a refresh token; a spent or unknown token changes nothing."""
    if session_id := tokens.session_of(refresh_token):
        _good_sessions(session_id, refresh_token, now).update(ended_at=now)


def end_sessions(*, user: User, keep: UUID | None = None, now: datetime) -> None:
    """End all of a person's sessions, or all but one, with their access tokens."""
    ending = Session.objects.filter(user=user, ended_at=None)
    (ending.exclude(id=keep) if keep else ending).update(ended_at=now)


def drop_spent_sessions(*, now: datetime) -> int:
    """Delete sessions that ended or expired, and return how many."""
    return Session.objects.filter(Q(expires_at__lte=now) | Q(ended_at__lte=now)).delete()[0]


def _good_sessions(session_id: UUID, refresh_token: str, now: datetime) -> QuerySet[Session]:
    # No join: Django would move every condition of the UPDATE into a sub-select, and PostgreSQL does not look there
    # again after waiting for a row, so that two requests could spend one token.
    return Session.objects.filter(
        id=session_id,
        refresh_hash=tokens.digest(refresh_token),
        ended_at=None,
        expires_at__gt=now,
        user__in=User.objects.filter(is_active=True),
    )


def _session_end(now: datetime) -> datetime:
    return now + timedelta(seconds=settings.REFRESH_TOKEN_SECONDS)


def _pair(user: User, session_id: UUID, refresh_token: str, now: datetime) -> TokenPair:
    access_token = tokens.make_access_token(user_id=user.id, session_id=session_id, now=now)
    return TokenPair(user, access_token, refresh_token, settings.ACCESS_TOKEN_SECONDS)


# Passwords


def change_password(*, principal: Principal, current: str, new: str, now: datetime) -> None:
    """Set a person's password and end the person's other sessions.

    Raises:
        Forbidden: an API key has no password.
        Invalid: the current password is wrong, or the new one too weak.
    """
    if principal.user is None:
        raise Forbidden("An API key has no password; log in as a person.")
    with transaction.atomic():
        user = User.objects.select_for_update().get(id=principal.id)
        if not user.check_password(current):
            raise Invalid("current_password", "This is not your password.", "wrong_password")
        _check_password("new_password", new, user)
        _set_password(user, new, keep=principal.session_id, now=now)


def request_password_reset(*, email: str) -> None:
    """Have a reset mail sent if the address is known; the caller cannot tell."""
    user = User.objects.filter(email=normalise_email(email), is_active=True).first()
    with transaction.atomic():
        if user:
            _send(user, Mail.Kind.PASSWORD_RESET)


def confirm_password_reset(*, token: str, new: str, now: datetime) -> None:
    """Set a password with the token from a mail; the mailbox is proven, so invitations can be accepted.

    Raises:
        Invalid: the token is not good (any more), or the password too weak.
    """
    user_id = tokens.user_id_of_mail_token(token)
    with transaction.atomic():
        user = User.objects.select_for_update().filter(id=user_id, is_active=True).first() if user_id else None
        if user is None or not tokens.mail_token_is_good(user, token):
            raise Invalid("token", "The token is not valid, was used, or has expired; ask for a new one.")
        _check_password("new_password", new, user)
        user.email_verified_at = now
        _set_password(user, new, keep=None, now=now)


def _set_password(user: User, new: str, *, keep: UUID | None, now: datetime) -> None:
    """With the person's row locked, set the password and end all sessions but one."""
    user.set_password(new)
    user.save()
    end_sessions(user=user, keep=keep, now=now)


# Members


def add_member(*, principal: Principal, email: str, role: str, password: str | None, now: datetime) -> Membership:
    """Add a person to the caller's tenant; without a password the person is invited by mail.

    Nobody who has an account joins without wanting to: acting for the tenant accepts the invitation. Somebody whose
    address was never proven must follow the link in the mail first: whoever made the account may not be the address's
    owner. Inviting again sends the mail again.

    Raises:
        Forbidden: the role may do more than the caller; only owners make owners.
        UserExists: a password was given for an account that exists.
        AlreadyMember: the person is in the tenant.
        Invalid: the password is too weak.
    """
    _require_may_grant(principal, role)
    tenant_id = principal.require_tenant()
    with tenant_scope(tenant_id):
        user, is_new = _user_to_add(email, password)
        joins_at_once = is_new and password is not None
        membership = Membership(tenant_id=tenant_id, user=user, role=role, accepted_at=now if joins_at_once else None)
        membership = _insert_or_invite_again(membership)
        if not joins_at_once:
            kind = Mail.Kind.MEMBERSHIP if user.email_verified_at else Mail.Kind.INVITATION
            _send(user, kind, tenant_name=Tenant.objects.get(id=tenant_id).name)
    return membership


def _user_to_add(email: str, password: str | None) -> tuple[User, bool]:
    user = User.objects.filter(email=normalise_email(email)).first()
    if user is not None and password is not None:
        raise UserExists("There is an account with this address; leave out the password to invite the person.")
    if user is not None:
        return user, False
    user = User(email=normalise_email(email))
    if password is not None:
        _check_password("password", password, user)
    user.set_password(password)
    try:
        with transaction.atomic():
            user.save(force_insert=True)
    except IntegrityError:
        if not User.objects.filter(email=user.email).exists():
            raise
        return _user_to_add(email, password)  # somebody else made the account between the look and the insert
    return user, True


def _check_password(field: str, password: str, user: User) -> None:
    try:
        validate_password(password, user)
    except ValidationError as error:
        raise Invalid(field, " ".join(error.messages), "weak_password") from error


def _insert_or_invite_again(membership: Membership) -> Membership:
    try:
        with transaction.atomic():
            membership.save(force_insert=True)
    except IntegrityError as error:
        pending = Membership.objects.filter(tenant_id=membership.tenant_id, user=membership.user, accepted_at=None)
        if not pending.update(role=membership.role):
            raise AlreadyMember("This person is a member already.") from error
        return pending.select_related("user").get()
    return membership


def change_role(*, principal: Principal, user_id: UUID, role: str) -> Membership:
    """Give a member another role.

    Raises:
        NotFound: not a member of the caller's tenant.
        Forbidden: only owners make or change owners.
        LastOwner: the tenant would have no owner left.
    """
    _require_may_grant(principal, role)
    tenant_id = principal.require_tenant()
    with tenant_scope(tenant_id):
        membership = _lock_membership(tenant_id, user_id)
        _require_may_grant(principal, membership.role)
        if role != Role.OWNER:
            _require_other_owner(membership)
        membership.role = role
        membership.save(update_fields=["role"])
    return membership


def remove_member(*, principal: Principal, user_id: UUID) -> None:
    """Take a person out of the caller's tenant, or an invitation back; anybody may leave.

    Raises:
        NotFound: not a member of the caller's tenant.
        Forbidden: only admins remove others, and only owners remove owners.
        LastOwner: the tenant would have no owner left.
    """
    tenant_id = principal.require_tenant()
    with tenant_scope(tenant_id):
        if user_id != principal.id:
            _require_admin(principal)
        membership = _lock_membership(tenant_id, user_id)
        if user_id != principal.id:
            _require_owner_for(principal, membership.role)
        _require_other_owner(membership)
        membership.delete()


def _lock_membership(tenant_id: UUID, user_id: UUID) -> Membership:
    """Lock the owners' rows and the member's own, in one order, so that two owners cannot remove each other at once."""
    rows = Membership.objects.select_for_update(of=("self",)).select_related("user").filter(tenant_id=tenant_id)
    locked = {row.user_id: row for row in rows.filter(Q(user_id=user_id) | Q(role=Role.OWNER)).order_by("id")}
    membership = locked.get(user_id)
    if membership is None:
        raise NotFound("member")
    return membership


def _require_other_owner(membership: Membership) -> None:
    owners = Membership.objects.filter(tenant_id=membership.tenant_id, role=Role.OWNER, user__is_active=True)
    others = owners.exclude(accepted_at=None).exclude(id=membership.id)
    if membership.role == Role.OWNER and not others.exists():
        raise LastOwner("This is the tenant's last owner; make somebody else an owner first.")


def _require_may_grant(principal: Principal, role: str) -> None:
    _require_owner_for(principal, role)
    if not SCOPES_OF[role] <= principal.scopes:
        raise Forbidden("You cannot give or change a role that may do more than you may.")


def _require_owner_for(principal: Principal, role: str) -> None:
    if role == Role.OWNER and not principal.is_owner:
        raise Forbidden("Only an owner can make, change or remove an owner.")


def _require_admin(principal: Principal) -> None:
    if Scope.ADMIN not in principal.scopes:
        raise Forbidden("Only an admin can remove somebody else.")


# Brands


def create_brand(*, tenant_id: UUID, name: str, voice: str = "", language: str = "en") -> Brand:
    """Create a brand."""
    with tenant_scope(tenant_id):
        return Brand.objects.create(tenant_id=tenant_id, name=name, voice=voice, language=language)


def update_brand(*, tenant_id: UUID, brand_id: UUID, changes: dict[str, Any]) -> Brand:
    """Change a brand's name, voice or language.

    Raises:
        NotFound: the tenant has no such brand.
    """
    with tenant_scope(tenant_id):
        brand = Brand.objects.select_for_update().filter(tenant_id=tenant_id, id=brand_id).first()
        if brand is None:
            raise NotFound("brand")
        for field, value in changes.items():
            setattr(brand, field, value)
        brand.save()
    return brand


def delete_brand(*, tenant_id: UUID, brand_id: UUID) -> None:
    """Delete a brand without content.

    Raises:
        NotFound: the tenant has no such brand.
        BrandInUse: content belongs to it.
    """
    try:
        with tenant_scope(tenant_id):
            deleted, _ = Brand.objects.filter(tenant_id=tenant_id, id=brand_id).delete()
    except (ProtectedError, IntegrityError) as error:
        raise BrandInUse("Content belongs to this brand (the trash counts too), so it cannot be deleted.") from error
    if not deleted:
        raise NotFound("brand")


# API keys


def create_api_key(
    *,
    tenant_id: UUID,
    created_by: Principal,
    name: str,
    scopes: Sequence[str],
    now: datetime,
    expires_at: datetime | None = None,
) -> tuple[ApiKey, str]:
    """Create a key and return it with its text, which is not stored and cannot be shown again.

    Raises:
        Forbidden: the key would allow more than its maker may do.
        Invalid: it would have expired already.
    """
    if expires_at is not None and expires_at <= now:
        raise Invalid("expires_at", "This is in the past.", "past")
    if not set(scopes) <= created_by.scopes:
        raise Forbidden("A key cannot have a scope that you do not have yourself.")
    with tenant_scope(tenant_id):
        return insert_api_key(
            tenant_id=tenant_id, name=name, scopes=scopes, created_by=created_by.id, expires_at=expires_at
        )


def insert_api_key(
    *,
    tenant_id: UUID,
    name: str,
    scopes: Iterable[str],
    created_by: UUID | None = None,
    expires_at: datetime | None = None,
) -> tuple[ApiKey, str]:
    """Inside a scope, insert a key and return it with its text."""
    new = api_keys.make()
    key = ApiKey.objects.create(
        tenant_id=tenant_id,
        name=name,
        public_id=new.public_id,
        last4=new.last4,
        scopes=sorted(set(scopes)),
        secret_hash=api_keys.digest(new.text),
        created_by=created_by,
        expires_at=expires_at,
    )
    return key, new.text


def rotate_api_key(*, principal: Principal, key_id: UUID, overlap: timedelta, now: datetime) -> tuple[ApiKey, str]:
    """Give a key a new secret; the old one works for the overlap.

    Raises:
        NotFound: the tenant has no such key.
        Forbidden: the key allows more than the caller may do.
    """
    with tenant_scope(principal.require_tenant()):
        key = _lock_key(principal, key_id)
        new = api_keys.make(key.public_id)
        key.previous_hash, key.previous_expires_at = key.secret_hash, now + overlap
        key.secret_hash, key.last4 = api_keys.digest(new.text), new.last4
        key.save(update_fields=["previous_hash", "previous_expires_at", "secret_hash", "last4"])
    return key, new.text


def revoke_api_key(*, principal: Principal, key_id: UUID, now: datetime) -> None:
    """End a key at once.

    Raises:
        NotFound: the tenant has no such key.
    """
    tenant_id = principal.require_tenant()
    with tenant_scope(tenant_id):
        if not ApiKey.objects.filter(tenant_id=tenant_id, id=key_id, revoked_at=None).update(revoked_at=now):
            raise NotFound("API key")


def _lock_key(principal: Principal, key_id: UUID) -> ApiKey:
    keys = ApiKey.objects.select_for_update().filter(tenant_id=principal.require_tenant(), revoked_at=None)
    key = keys.filter(id=key_id).first()
    if key is None:
        raise NotFound("API key")
    if not set(key.scopes) <= principal.scopes:
        raise Forbidden("This key has a scope that you do not have yourself.")
    return key


# Tenants


def create_tenant(
    *, name: str, email: str, password: str, brand_name: str, time_zone: str = "UTC", now: datetime
) -> tuple[Tenant, Brand, User]:
    """Create a tenant with its owner and first brand, inside the system scope that the caller holds.

    The operator vouches for the address, so it counts as proven. A person who has an account becomes owner with it.

    Raises:
        UserExists: there is an account with this address and another password.
        Invalid: there is no such time zone.
    """
    check_time_zone(time_zone)
    user = User.objects.filter(email=normalise_email(email)).first()
    if user is None:
        user = User(email=normalise_email(email), email_verified_at=now)
        user.set_password(password)
        user.save(force_insert=True)
    elif not user.check_password(password):
        raise UserExists("There is an account with this address and another password.")
    tenant = Tenant.objects.create(name=name, time_zone=time_zone)
    brand = Brand.objects.create(tenant=tenant, name=brand_name)
    Membership.objects.create(tenant=tenant, user=user, role=Role.OWNER, accepted_at=now)
    return tenant, brand, user


def check_time_zone(name: str) -> None:
    """Check a time zone's name.

    Raises:
        Invalid: there is no such time zone.
    """
    try:
        validate_time_zone(name)
    except ValidationError as error:
        raise Invalid("time_zone", error.messages[0], "unknown_time_zone") from error


def update_tenant(*, principal: Principal, changes: dict[str, str]) -> Tenant:
    """Change a tenant's name or time zone.

    Raises:
        Forbidden: the caller does not own the tenant.
        Invalid: there is no such time zone.
    """
    if not principal.is_owner:
        raise Forbidden("Only owners change the tenant.")
    if "time_zone" in changes:
        check_time_zone(changes["time_zone"])
    tenant_id = principal.require_tenant()
    with tenant_scope(tenant_id):
        if changes:
            Tenant.objects.filter(id=tenant_id).update(**changes)
        return Tenant.objects.get(id=tenant_id)


def ensure_staff(*, email: str, password: str, reset: bool, now: datetime) -> User:
    """Make a member of the platform's staff; one who is there keeps the password unless it is to be reset.

    An account that is not staff yet may have been made by a tenant, so it gets the password and its sessions end.
    """
    with transaction.atomic():
        user = User.objects.select_for_update().filter(email=normalise_email(email)).first()
        if user is None:
            return User.objects.create_superuser(email, password, email_verified_at=now)
        keeps_password = (user.is_staff and not reset) or user.check_password(password)
        user.is_active = user.is_staff = user.is_superuser = True
        if keeps_password:
            user.save()
        else:
            _set_password(user, password, keep=None, now=now)
    return user


def mail_owners(*, tenant_id: UUID, kind: Mail.Kind) -> None:
    """Inside a scope, have a mail sent to each of a tenant's owners."""
    owners = Membership.objects.filter(tenant_id=tenant_id, role=Role.OWNER, accepted_at__isnull=False)
    for membership in owners.select_related("user", "tenant").filter(user__is_active=True):
        _send(membership.user, kind, tenant_name=membership.tenant.name)


def mail_member(*, tenant_id: UUID, member_id: UUID, kind: Mail.Kind, details: Mapping[str, Any]) -> None:
    """Inside a scope, have a mail sent to a member of a tenant, or to whoever made an API key of it.

    Nobody is told when that person is no active member any more.

    Args:
        member_id: a person's or an API key's id.
        details: JSON values for the text; `headline` for the subject.
    """
    maker = ApiKey.objects.filter(tenant_id=tenant_id, id=member_id).values_list("created_by", flat=True).first()
    members = Membership.objects.filter(tenant_id=tenant_id, accepted_at__isnull=False, user__is_active=True)
    membership = members.select_related("user", "tenant").filter(user_id=maker or member_id).first()
    if membership:
        _send(membership.user, kind, tenant_name=membership.tenant.name, details=details)


def mail_staff(*, kind: Mail.Kind, details: Mapping[str, Any]) -> int:
    """Have a mail sent to each active member of the platform's staff, and return to how many; in or outside a scope.

    Args:
        details: JSON values for the text; `headline` for the subject.
    """
    staff = list(User.objects.filter(is_staff=True, is_active=True).order_by("id"))
    for user in staff:
        _send(user, kind, details=details)
    return len(staff)


def _send(user: User, kind: str, *, tenant_name: str = "", details: Mapping[str, Any] | None = None) -> None:
    Mail.objects.create(user=user, kind=kind, tenant_name=tenant_name, details=dict(details or {}))
    wake.after_commit("accounts.send_mail")
