"""Whose the old rows are: tenants, brands and people, found here or brought over from the old tables when a row needs them."""

from dataclasses import dataclass, field
from uuid import UUID

from django.core.exceptions import ValidationError
from django.core.validators import validate_email

from content.legacy import ids
from content.legacy.convert import OldItem, Unusable
from content.legacy.source import Row, Source
from content.models import LegacyRun
from engarde.accounts import adoption
from engarde.accounts import queries as account_queries
from engarde.accounts.adoption import OldBrand, OldUser
from engarde.common.scopes import system_scope, tenant_scope
from quotas import operations as quota_operations
from quotas import queries as quota_queries

FREE = "free"
NAMELESS = "Unnamed"
LONGEST_ADDRESS = 254  # RFC 5321, and the column


@dataclass(slots=True)
class Owner:
    """A tenant that rows belong to.

    Attributes:
        is_here: False for one that is brought over with its first row.
        is_brought: whether a migration brought it: only such a one gets members by that.
        tier: of one that is not here.
        brands: its brands here, or that it will have; the first one is for rows without a brand.
        waiting: brands that are brought over with the next row.
        authors: who people are here, by their old id; None for people whom nobody knows.
        warnings: (code, message) of what is to be known of it.
    """

    id: UUID
    name: str
    is_here: bool
    is_brought: bool
    tier: str = FREE
    brands: list[UUID] = field(default_factory=list)
    waiting: list[OldBrand] = field(default_factory=list)
    authors: dict[str, UUID | None] = field(default_factory=dict)
    warnings: list[tuple[str, str]] = field(default_factory=list)


class Owners:
    """The tenants of one run, each looked up once; nothing is written before a row needs it."""

    def __init__(self, source: Source, *, mend: bool) -> None:
        self._source, self._mend = source, mend
        self._known: dict[str, Owner | None] = {}

    def of(self, item: OldItem) -> Owner:
        """Return the tenant of a row.

        Raises:
            Unusable: neither here nor in the old tables is such a tenant.
        """
        old_tenant = ids.same(item.old_tenant)
        if old_tenant not in self._known:
            self._known[old_tenant] = self._find(old_tenant)
        owner = self._known[old_tenant]
        if owner is None:
            raise Unusable(
                "unknown_tenant", f"There is no tenant {item.old_tenant[:100]!r}, here or in the old tables."
            )
        return owner

    def known(self, old_tenant: str | None) -> Owner | None:
        """Return a tenant that was looked up before."""
        return self._known.get(ids.same((old_tenant or "").strip()))

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
        if wanted in owner.brands or self._found_brand(owner, item):
            return wanted
        message = f"The tenant has no brand {item.old_brand[:100]!r}, here or in the old tables."
        if not self._mend or not owner.brands:
            raise Unusable("unknown_brand", message)
        item.warnings.append(("unknown_brand", f"{message} It went to the tenant's first brand."))
        item.fields["metadata"]["legacy_brand_id"] = item.old_brand[:100]
        return owner.brands[0]

    def author_of(self, owner: Owner, item: OldItem, *, bring: bool) -> UUID | None:
        """Return who made a row; None, with the old id kept, for people whom nobody knows.

        Args:
            bring: make a member of who is none, in a tenant that a migration brought.
        """
        if not item.old_user:
            return None
        if item.old_user not in owner.authors:
            owner.authors[item.old_user] = self._find_author(owner, item.old_user, bring=bring)
        author = owner.authors[item.old_user]
        if author is None:
            item.warnings.append(("unknown_user", f"Nobody knows the user {item.old_user[:100]!r}: it has no author."))
            item.fields["metadata"]["legacy_user_id"] = item.old_user[:100]
        return author

    def bring(self, owner: Owner) -> None:
        """Make a tenant that is not here, and the brands that rows of it need."""
        if not owner.is_here:
            quota_operations.adopt_tenant(tenant_id=owner.id, name=owner.name, tier=owner.tier, brands=owner.waiting)
        elif owner.waiting:
            with system_scope("take over brands"):
                adoption.adopt_brands(tenant_id=owner.id, brands=owner.waiting)
        owner.is_here, owner.waiting = True, []

    # Finding

    def _find(self, old_tenant: str) -> Owner | None:
        tenant_id = ids.new_id("tenants", old_tenant)
        here = account_queries.find_tenant(tenant_id=tenant_id)
        if here is not None:
            is_brought = LegacyRun.objects.filter(brought__contains=[tenant_id]).exists()
            owner = Owner(tenant_id, here.name, is_here=True, is_brought=is_brought)
            with tenant_scope(tenant_id):
                owner.brands = sorted(account_queries.brand_languages(tenant_id=tenant_id))
            return owner
        old = self._row("tenants", "id", old_tenant)
        return None if old is None else self._coming(tenant_id, old_tenant, old)

    def _coming(self, tenant_id: UUID, old_tenant: str, old: Row) -> Owner:
        """Return a tenant as the old tables have it, with all its brands, or one of its own name."""
        owner = Owner(tenant_id, _clean(old.get("name")) or NAMELESS, is_here=False, is_brought=True)
        owner.tier = self._tier(owner, old)
        rows = self._source.find("brands", column="tenant_id", value=old_tenant)
        brands = [OldBrand(ids.new_id("brands", row["id"]), _name(row)) for row in rows if row["id"]]
        owner.waiting = brands or [OldBrand(ids.new_id("brands", f"first of {old_tenant}"), owner.name)]
        owner.brands = sorted(brand.id for brand in owner.waiting)
        return owner

    def _tier(self, owner: Owner, old: Row) -> str:
        tier = _clean(old.get("plan_tier")).lower()
        if tier in quota_queries.plan_limits():
            return tier
        owner.warnings.append(
            ("unknown_plan", f"The plan {tier[:50]!r} is not known: the tenant begins on the plan {FREE}.")
        )
        return FREE

    def _found_brand(self, owner: Owner, item: OldItem) -> bool:
        """Tell whether a tenant has a brand in the old tables only, which comes over then."""
        old = self._row("brands", "id", item.old_brand)
        if old is None or ids.same((old["tenant_id"] or "").strip()) != ids.same(item.old_tenant):
            return False
        brand = OldBrand(ids.new_id("brands", item.old_brand), _name(old))
        owner.waiting.append(brand)
        owner.brands.append(brand.id)
        return True

    def _find_author(self, owner: Owner, old_user: str, *, bring: bool) -> UUID | None:
        """Return who a person is here: one of the tenant's members, or of a tenant that was brought over one who is made that."""
        old = self._row("users", "id", old_user)
        if old is None or not _is_address(_clean(old["email"])):
            return None
        user = OldUser(
            id=ids.new_id("users", old_user),
            other_id=ids.new_id("users", old_user, keep=False),
            email=_clean(old["email"]),
            first_name=_clean(old["first_name"]),
            last_name=_clean(old["last_name"]),
        )
        if owner.is_brought and not (bring and owner.is_here):
            return user.id  # who it will be
        with system_scope("find an author"):
            if owner.is_brought:
                return adoption.adopt_author(tenant_id=owner.id, user=user)
            return adoption.find_author(tenant_id=owner.id, user=user)

    def _row(self, table: str, column: str, value: str) -> Row | None:
        return next(iter(self._source.find(table, column=column, value=value)), None)


def _name(row: Row) -> str:
    return _clean(row["name"]) or NAMELESS


def _clean(text: str | None) -> str:
    """Return a name in one line, without what is not shown."""
    return " ".join("".join(one if one.isprintable() else " " for one in text or "").split())


def _is_address(text: str) -> bool:
    if len(text) > LONGEST_ADDRESS:
        return False
    try:
        validate_email(text)
    except ValidationError:
        return False
    return True
