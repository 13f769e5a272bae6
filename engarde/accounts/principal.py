"""Who is asking: a person with a session or a program with an API key, acting for one tenant."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from engarde.accounts.roles import Role, Scope
from engarde.common.problems import Forbidden, Problem

if TYPE_CHECKING:
    from engarde.accounts.models import User


class TenantRequired(Forbidden):
    """The call acts for a tenant and none was picked, or not one of the caller's."""

    code = "tenant_required"
    title = "No tenant"


class Unauthenticated(Problem):
    """The call needs credentials."""

    status, code, title = 401, "not_authenticated", "Authentication needed"

    def __init__(self) -> None:
        super().__init__("Send credentials.", headers={"WWW-Authenticate": 'Bearer realm="engarde"'})


@dataclass(frozen=True, slots=True)
class MembershipInfo:
    """A membership of the person who asks; an invitation until it is accepted."""

    tenant_id: UUID
    tenant_name: str
    role: str
    is_accepted: bool = True


@dataclass(frozen=True, slots=True)
class Principal:
    """The authenticated caller.

    Attributes:
        id: the user's or the API key's id; what authors and logs refer to.
        user: the person, None for an API key.
        session_id: the login, None for an API key.
        tenant: the tenant acted for, with the role there; None when none is picked.
        scopes: what the caller may do in that tenant.
        memberships: all of the person's memberships.
    """

    id: UUID
    method: Literal["jwt", "api_key"]
    tenant: MembershipInfo | None
    scopes: frozenset[Scope]
    user: "User | None" = None
    session_id: UUID | None = None
    memberships: tuple[MembershipInfo, ...] = ()

    @property
    def is_authenticated(self) -> bool:
        """Always true; Django and DRF ask."""
        return True

    @property
    def is_staff(self) -> bool:
        """Whether this is a person of the platform's staff."""
        return self.user is not None and self.user.is_staff

    @property
    def tenant_id(self) -> UUID | None:
        """The tenant acted for, if any."""
        return self.tenant.tenant_id if self.tenant else None

    @property
    def is_owner(self) -> bool:
        """Whether this is a person who owns the tenant."""
        return self.user is not None and self.tenant is not None and self.tenant.role == Role.OWNER

    def require_tenant(self) -> UUID:
        """Return the tenant acted for.

        Raises:
            TenantRequired: there is none.
        """
        if self.tenant is None:
            raise TenantRequired(
                "Name one of your tenants in the X-Tenant-ID header." if self.memberships else "You have no tenant."
            )
        return self.tenant.tenant_id


def caller(request: Any) -> Principal:
    """Return who makes a request that was let in.

    Raises:
        Unauthenticated: nobody known; permissions let no such request through.
    """
    if not isinstance(request.user, Principal):
        raise Unauthenticated
    return request.user
