"""Whose the old rows are: tenants, brands and people, found here or brought over from the old tables when a row needs them."""

from dataclasses import dataclass, field
from uuid import UUID

from django.core.exceptions import ValidationError
from django.core.validators import validate_email

from content.legacy import ids
from content.legacy.convert import OldItem, Unusable
from content.legacy.source import Row, Source
from engarde.accounts import adoption
from engarde.accounts import queries as account_queries
from engarde.accounts.adoption import OldBrand, OldUser
from engarde.common.scopes import system_scope, tenant_scope
from quotas import operations as quota_operations
from quotas import queries as quota_queries

FREE = "free"
NAMELESS = "Unnamed"


@dataclass(slots=True)
class Owner:
    """A tenant that rows belong to.

    Attributes:
        is_new: made by this run, or that a dry run would make.
        tier: of a new one.
        brands: its brands here, or that it would have; the first one is for rows without a brand.
        authors: who people are here, by their old id; None for people whom nobody knows.
        warnings: (code, message) of what is to be known of it.
    """

    id: UUID
    name: str
    is_new: bool
    tier: str = FREE
    brands: list[UUID] = field(default_factory=list)
    authors: dict[str, UUID | None] = field(default_factory=dict)
    warnings: list[tuple[str, str]] = field(default_factory=list)


class Owners:
    """The tenants of one run, each looked up once."""

    def __init__(self, source: Source, *, dry_run: bool, mend: bool) -> None:
        self._source, self._dry_run, self._mend = source, dry_run, mend
        self._known: dict[str, Owner | None] = {}

    def of(self, item: OldItem) -> Owner:
        """Return the tenant of a row, which is brought over if it is not here.

        Raises:
            Unusable: neither here nor in the old tables is such a tenant.
        """
        if item.old_tenant not in self._known:
            self._known[item.old_tenant] = self._find(item.old_tenant)
        owner = self._known[item.old_tenant]
        if owner is None:
            raise Unusable(
                "unknown_tenant", f"There is no tenant {item.old_tenant[:100]!r}, here or in the old tables."
            )
        return owner

    def known(self, old_tenant: str | None) -> Owner | None:
        """Return a tenant that was looked up before."""
        return self._known.get((old_tenant or "").strip())

    def brand_of(self, owner: Owner, item: OldItem) -> UUID:
        """Return the brand of a row; the tenant's first one for a row that names none.

        Raises:
            Unusable: the tenant has no such brand, here or in the old tables.
        """
        if not item.old_brand and not owner.brands:
            raise Unusable("no_brand", "It names no brand, and its tenant has none; create one first.")
        if not item.old_brand:
            return owner.brands[0]
        wanted = ids.new_id("brands", item.old_brand)
        if wanted not in owner.brands and not self._adopt_brand(owner, item):
            message = f"The tenant has no brand {item.old_brand[:100]!r}, here or in the old tables."
            if not self._mend or not owner.brands:
                raise Unusable("unknown_brand", message)
            item.warnings.append(("unknown_brand", f"{message} It went to the tenant's first brand."))
            item.fields["metadata"]["legacy_brand_id"] = item.old_brand[:100]
            return owner.brands[0]
        return wanted

    def author_of(self, owner: Owner, item: OldItem) -> UUID | None:
        """Return who made a row; None, with the old id kept, for people whom nobody knows."""
        if not item.old_user:
            return None
        if item.old_user not in owner.authors:
            owner.authors[item.old_user] = self._find_author(owner, item.old_user)
        author = owner.authors[item.old_user]
        if author is None:
            item.warnings.append(("unknown_user", f"Nobody knows the user {item.old_user[:100]!r}: it has no author."))
            item.fields["metadata"]["legacy_user_id"] = item.old_user[:100]
        return author

    # Finding and bringing over

    def _find(self, old_tenant: str) -> Owner | None:
        tenant_id = ids.new_id("tenants", old_tenant)
        here = account_queries.find_tenant(tenant_id=tenant_id)
        old = self._row("tenants", "id", old_tenant)
        if here is None and old is None:
            return None
        if here is not None:
            owner = Owner(tenant_id, here.name, is_new=False)
        else:
            owner = self._bring(tenant_id, old_tenant, old or {})
        if not owner.brands:
            with tenant_scope(tenant_id):
                owner.brands = sorted(account_queries.brand_languages(tenant_id=tenant_id))
        return owner

    def _bring(self, tenant_id: UUID, old_tenant: str, old: Row) -> Owner:
        """Make a tenant as the old tables have it, with all its brands, or one of its own name."""
        owner = Owner(tenant_id, _clean(old.get("name")) or NAMELESS, is_new=True)
        owner.tier = self._tier(owner, old)
        rows = self._source.find("brands", column="tenant_id", value=old_tenant)
        brands = [OldBrand(ids.new_id("brands", row["id"]), _name(row)) for row in rows if row["id"]]
        brands = brands or [OldBrand(ids.new_id("brands", f"first of {old_tenant}"), owner.name)]
        owner.brands = sorted(brand.id for brand in brands)
        if not self._dry_run:
            quota_operations.adopt_tenant(tenant_id=tenant_id, name=owner.name, tier=owner.tier, brands=brands)
        return owner

    def _tier(self, owner: Owner, old: Row) -> str:
        tier = _clean(old.get("plan_tier")).lower()
        if tier in quota_queries.plan_limits():
            return tier
        owner.warnings.append(
            ("unknown_plan", f"The plan {tier[:50]!r} is not known: the tenant begins on the plan {FREE}.")
        )
        return FREE

    def _adopt_brand(self, owner: Owner, item: OldItem) -> bool:
        """Bring a brand over that the tenant has in the old tables only, and tell whether it has."""
        old = self._row("brands", "id", item.old_brand)
        if old is None or (old["tenant_id"] or "").strip().lower() != item.old_tenant.lower():
            return False
        brand = OldBrand(ids.new_id("brands", item.old_brand), _name(old))
        if not self._dry_run:
            with system_scope("take over a brand"):
                adoption.adopt_brands(tenant_id=owner.id, brands=[brand])
        owner.brands.append(brand.id)
        return True

    def _find_author(self, owner: Owner, old_user: str) -> UUID | None:
        """Return who a person is here: as a member, or brought over from the old tables."""
        wanted = ids.new_id("users", old_user)
        if account_queries.is_member(tenant_id=owner.id, user_id=wanted):
            return wanted
        old = self._row("users", "id", old_user)
        if old is None or not _is_address(_clean(old["email"])):
            return None
        user = OldUser(wanted, _clean(old["email"]), _clean(old["first_name"]), _clean(old["last_name"]))
        if self._dry_run:
            return wanted
        with system_scope("take over an author"):
            return adoption.adopt_author(tenant_id=owner.id, user=user)

    def _row(self, table: str, column: str, value: str) -> Row | None:
        return next(iter(self._source.find(table, column=column, value=value)), None)


def _name(row: Row) -> str:
    return _clean(row["name"]) or NAMELESS


def _clean(text: str | None) -> str:
    """Return a name without what no text here may have."""
    return " ".join((text or "").encode("utf-8", "replace").decode().replace("\0", "").split())


def _is_address(text: str) -> bool:
    try:
        validate_email(text)
    except ValidationError:
        return False
    return True
