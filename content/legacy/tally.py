"""What a migration counts, in a form that is kept between two runs of it."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any, Self


@dataclass(slots=True)
class TenantTally:
    """What became of one tenant's rows.

    Attributes:
        bytes: of the bodies of items that were created.
        quota_exceeded: rows that failed because the tenant's storage is full.
    """

    name: str = ""
    created: int = 0
    unchanged: int = 0
    failed: int = 0
    bytes: int = 0
    media: int = 0
    quota_exceeded: int = 0


@dataclass(slots=True)
class Tally:
    """What became of all rows.

    Attributes:
        total: rows looked at: created, unchanged and failed together.
        bytes: of the bodies of items that were created.
        media: media entries of items that were created.
        fetched: those of them whose files are in our storage; the others are external references.
        compared, equal: items whose body was read back and compared with the old one.
        reasons: how many rows failed, by code.
        notices: how many warnings there are, by code.
    """

    total: int = 0
    created: int = 0
    unchanged: int = 0
    failed: int = 0
    bytes: int = 0
    media: int = 0
    fetched: int = 0
    compared: int = 0
    equal: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    notices: Counter[str] = field(default_factory=Counter)
    tenants: dict[str, TenantTally] = field(default_factory=dict)

    @classmethod
    def of(cls, kept: dict[str, Any]) -> Self:
        """Return what was kept."""
        plain = {
            **kept,
            "reasons": Counter(kept.get("reasons", {})),
            "notices": Counter(kept.get("notices", {})),
            "tenants": {name: TenantTally(**one) for name, one in kept.get("tenants", {}).items()},
        }
        return cls(**plain)

    def as_dict(self) -> dict[str, Any]:
        """Return what is to be kept."""
        return {**asdict(self), "reasons": dict(self.reasons), "notices": dict(self.notices)}

    def tenant(self, tenant_id: object, name: str) -> TenantTally:
        """Return a tenant's part."""
        return self.tenants.setdefault(str(tenant_id), TenantTally(name))
