"""Writes to plans and limits: making a tenant, changing its plan, replacing the plan's limits."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models.functions import Now

from engarde.accounts import adoption
from engarde.accounts import operations as account_operations
from engarde.accounts.adoption import OldBrand
from engarde.accounts.models import Brand, Tenant, User
from engarde.accounts.roles import ALL_SCOPES
from engarde.common.problems import Invalid
from engarde.common.scopes import system_scope
from quotas import alerts
from quotas.models import Plan, QuotaUsage

LARGEST = (2**63 - 1, 2**31 - 1, 2**31 - 1)  # bytes, items a month, days: what their columns hold


@dataclass(frozen=True, slots=True)
class NewTenant:
    """A tenant that was just made, with its owner, first brand and a key that has every scope."""

    tenant: Tenant
    brand: Brand
    owner: User
    api_key: str


@dataclass(frozen=True, slots=True)
class Limits:
    """What replaces a plan's limits; None leaves the plan's.

    Attributes:
        storage_bytes: 0 or more.
        generated_items: a month, 0 or more.
        retention_days: 0 or more.
        reason: why; needed unless all are None.
    """

    storage_bytes: int | None = None
    generated_items: int | None = None
    retention_days: int | None = None
    reason: str = ""

    @property
    def values(self) -> tuple[int | None, ...]:
        """The three limits."""
        return self.storage_bytes, self.generated_items, self.retention_days


def create_tenant(
    *,
    name: str,
    tier: str,
    email: str,
    password: str,
    brand_name: str,
    storage_limit: int | None,
    now: datetime,
    time_zone: str = "UTC",
) -> NewTenant:
    """Create a tenant on a plan.

    Args:
        storage_limit: bytes, in place of the plan's limit.
        time_zone: an IANA name; the tenant's months begin at midnight there.

    Raises:
        Invalid: there is no such plan or time zone, or the limit is negative.
        UserExists: the address has an account with another password.
    """
    if storage_limit is not None and not 0 <= storage_limit <= LARGEST[0]:
        raise Invalid("storage_limit", "A limit is 0 bytes or more.")
    with system_scope("create a tenant"):
        plan = _plan(tier)
        tenant, brand, owner = account_operations.create_tenant(
            name=name, email=email, password=password, brand_name=brand_name, now=now, time_zone=time_zone
        )
        reason = "" if storage_limit is None else "Set when the tenant was created."
        QuotaUsage.objects.create(
            tenant=tenant, plan=plan, storage_limit_override=storage_limit, override_reason=reason
        )
        _, text = account_operations.insert_api_key(
            tenant_id=tenant.id, name="First key", scopes=ALL_SCOPES, created_by=owner.id
        )
    return NewTenant(tenant=tenant, brand=brand, owner=owner, api_key=text)


def adopt_tenant(*, tenant_id: UUID, name: str, tier: str, brands: Sequence[OldBrand]) -> bool:
    """Make a tenant that comes from another platform under its old id, with its brands, unless it is here; tell whether it was made.

    Raises:
        Invalid: there is no such plan.
    """
    with system_scope("take over a tenant"):
        plan = _plan(tier)
        is_new = adoption.adopt_tenant(tenant_id=tenant_id, name=name)
        if is_new:
            QuotaUsage.objects.create(tenant_id=tenant_id, plan=plan)
        adoption.adopt_brands(tenant_id=tenant_id, brands=brands)
    return is_new


def change_plan(*, tenant_id: UUID, tier: str, now: datetime) -> None:
    """Inside a scope, put a tenant on another plan. What is stored over its limit stays; it cannot grow.

    Raises:
        Invalid: there is no such plan.
    """
    QuotaUsage.objects.filter(tenant_id=tenant_id).update(plan=_plan(tier), updated_at=Now())
    alerts.look_again(tenant_id=tenant_id, now=now)


def override_limits(*, tenant_id: UUID, limits: Limits, now: datetime) -> None:
    """Inside a scope, replace limits of a tenant's plan, or go back to the plan's.

    Raises:
        Invalid: a limit is negative, or there is no reason.
    """
    for value, largest in zip(limits.values, LARGEST, strict=True):
        if value is not None and not 0 <= value <= largest:
            raise Invalid("limits", f"A limit is 0 to {largest}.")
    if limits.values != (None, None, None) and not limits.reason.strip():
        raise Invalid("reason", "Say why the plan's limits do not hold.", "required")
    QuotaUsage.objects.filter(tenant_id=tenant_id).update(
        storage_limit_override=limits.storage_bytes,
        generation_limit_override=limits.generated_items,
        retention_days_override=limits.retention_days,
        override_reason="" if limits.values == (None, None, None) else limits.reason.strip(),
        updated_at=Now(),
    )
    alerts.look_again(tenant_id=tenant_id, now=now)


def _plan(tier: str) -> Plan:
    plan = Plan.objects.filter(tier=tier).first()
    if plan is None:
        known = ", ".join(Plan.objects.values_list("tier", flat=True))
        raise Invalid("tier", f"There is no plan {tier!r}; there are: {known}.")
    return plan
