"""Tenants, brands and people that come from another platform under their old ids. Call these inside a system scope."""

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from engarde.accounts.models import Brand, Membership, Tenant, User, normalise_email
from engarde.accounts.roles import Role


@dataclass(frozen=True, slots=True)
class OldBrand:
    """A brand as the other platform knows it."""

    id: UUID
    name: str


@dataclass(frozen=True, slots=True)
class OldUser:
    """A person as the other platform knows them.

    Attributes:
        other_id: for the case that somebody else has the id here.
    """

    id: UUID
    other_id: UUID
    email: str
    first_name: str
    last_name: str


def adopt_tenant(*, tenant_id: UUID, name: str) -> bool:
    """Make a tenant unless it is here, and tell whether it was made."""
    _, is_new = Tenant.objects.get_or_create(id=tenant_id, defaults={"name": name[:200]})
    return is_new


def adopt_brands(*, tenant_id: UUID, brands: Iterable[OldBrand]) -> None:
    """Make a tenant's brands that are not here."""
    rows = [Brand(id=brand.id, tenant_id=tenant_id, name=brand.name[:200]) for brand in brands]
    Brand.objects.bulk_create(rows, ignore_conflicts=True)


def adopt_author(*, tenant_id: UUID, user: OldUser) -> UUID:
    """Make a person unless the address is known, and invite them as an editor of a tenant; return who it is here.

    Nobody is let in by this: a person who has no password asks for a reset, which proves the address, and the invitation holds
    from then on. No mail is sent. An id that somebody of another address has here is not theirs: they get another.
    """
    email = normalise_email(user.email)
    found = User.objects.filter(email=email).first()
    if found is None:
        is_taken = User.objects.filter(id=user.id).exists()
        found = User(
            id=user.other_id if is_taken else user.id,
            email=email,
            first_name=user.first_name[:150],
            last_name=user.last_name[:150],
        )
        found.set_unusable_password()
        found.save(force_insert=True)
    Membership.objects.bulk_create(
        [Membership(tenant_id=tenant_id, user=found, role=Role.EDITOR)], ignore_conflicts=True
    )
    return found.id


def find_author(*, tenant_id: UUID, user: OldUser) -> UUID | None:
    """Return who a person is among the members of a tenant, by the address; None for who is none of them."""
    members = Membership.objects.filter(tenant_id=tenant_id, user__email=normalise_email(user.email))
    found: UUID | None = members.values_list("user_id", flat=True).first()
    return found
