"""Whom and what an erasure that has not ended is about: nothing of it may come back meanwhile."""

from dataclasses import dataclass, field
from uuid import UUID

from dr.models import Erasure
from engarde.common.scopes import system_scope


@dataclass(frozen=True, slots=True)
class UnderErasure:
    """Tenants, items and people that are being erased."""

    tenants: frozenset[UUID] = frozenset()
    items: frozenset[UUID] = frozenset()
    people: frozenset[UUID] = field(default_factory=frozenset)

    def has(self, *, tenant_id: UUID, entity_id: UUID) -> bool:
        """Tell whether a row or an item is among them."""
        return tenant_id in self.tenants or entity_id in self.items or entity_id in self.people


def under_way() -> UnderErasure:
    """Return what erasures that have not ended are about."""
    with system_scope("look what is being erased"):
        rows = list(Erasure.objects.filter(finished_at=None).values_list("tenant_id", "content_id", "steps"))
    return UnderErasure(
        tenants=frozenset(tenant_id for tenant_id, content_id, _ in rows if content_id is None),
        items=frozenset(content_id for _, content_id, _ in rows if content_id),
        people=frozenset(UUID(one) for _, _, steps in rows for one in steps.get("people", [])),
    )
