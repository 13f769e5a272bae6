"""Reconciliations: were the counters right?"""

from typing import Any, ClassVar

from django.contrib import admin
from unfold.decorators import display

from quotas.admin.readonly import ReadOnlyAdmin, ReadOnlyInline
from quotas.models import Drift, Reconciliation
from quotas.sizes import readable


def told(differences: dict[str, dict[str, int]]) -> str:
    """Return differences in words."""
    return "; ".join(f"{name}: counted {one['counted']}, really {one['real']}" for name, one in differences.items())


class DriftInline(ReadOnlyInline):
    """The tenants that were wrong."""

    model = Drift
    fields: ClassVar = ["tenant", "what", "repaired", "found_at"]
    readonly_fields: ClassVar = fields

    @display(description="Difference")
    def what(self, drift: Drift) -> str:
        """What was wrong."""
        return told(drift.differences)


@admin.register(Reconciliation)
class ReconciliationAdmin(ReadOnlyAdmin):
    """Comparisons of counters with what is stored: nightly, and by `backfill_storage_usage`."""

    list_display: ClassVar = ["started_at", "scope", "state", "tenants", "drifted", "drift", "failed", "finished_at"]
    list_filter: ClassVar = ["dry_run", "of_all"]
    ordering: ClassVar = ["-started_at"]
    inlines: ClassVar = [DriftInline]

    @display(description="Of", ordering="of_all")
    def scope(self, run: Reconciliation) -> str:
        """Of whom."""
        return "all tenants" if run.of_all else "some tenants"

    @display(
        description="Result", label={"all right": "success", "drift": "danger", "failures": "danger", "running": "info"}
    )
    def state(self, run: Reconciliation) -> str:
        """How it went."""
        if run.drifted:
            return "drift"
        return "failures" if run.failed else "all right" if run.finished_at else "running"

    @display(description="Bytes off", ordering="drift_bytes")
    def drift(self, run: Reconciliation) -> Any:
        """How far used bytes were off."""
        return readable(run.drift_bytes)
