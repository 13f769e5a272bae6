"""This room's part of the admin's first page: who is running out of storage, and whether the counters are right."""

from django.db.models import Count, Q
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.urls import reverse

from engarde.common.admin_home import Concern, Panel, counted
from quotas.admin.colours import LEVELS
from quotas.admin.usage import bar_of, by_fullness
from quotas.models import QuotaUsage, Reconciliation
from quotas.usage import level_of

SHOWN = 10
NEAR, CRITICAL, FULL = 7_000, 9_500, 10_000
"""Hundredths of a percent of the limit."""


def panel(request: HttpRequest) -> Panel | None:
    """Return the part, for those who may look at usage."""
    if not request.user.has_perm("quotas.view_quotausage"):
        return None
    near = by_fullness(QuotaUsage.objects.filter(used_bytes__gt=0)).filter(hundredths__gte=NEAR)
    numbers = near.aggregate(
        near=Count("pk"),
        full=Count("pk", filter=Q(hundredths__gte=FULL)),
        critical=Count("pk", filter=Q(hundredths__gte=CRITICAL, hundredths__lt=FULL)),
    )
    fullest = near.select_related("tenant")[:SHOWN] if numbers["near"] else []
    last = Reconciliation.objects.filter(finished_at__isnull=False, of_all=True).order_by("-started_at").first()
    rows = [
        {
            "usage": usage,
            "level": level_of(usage.hundredths),
            "colour": LEVELS[str(level_of(usage.hundredths))],
            "bar": bar_of(usage.used_bytes, usage.reserved_bytes, usage.limit),
        }
        for usage in fullest
    ]
    body = render_to_string("quotas/admin/home.html", {"rows": rows, "last": last, **numbers})
    links = [("All usage", reverse("admin:quotas_quotausage_changelist"))]
    if request.user.has_perm("quotas.view_reconciliation"):
        links.append(("Reconciliations", reverse("admin:quotas_reconciliation_changelist")))
    return Panel("Tenants near their limits", body, tuple(links), _concerns(numbers["full"], numbers["critical"], last))


def _concerns(full: int, critical: int, last: Reconciliation | None) -> tuple[Concern, ...]:
    usage = reverse("admin:quotas_quotausage_changelist")
    found = []
    if full:
        text = f"{counted(full, 'tenant has', 'tenants have')} no storage left: what adds bytes is refused."
        found.append(Concern("danger", text, f"{usage}?level=exceeded"))
    if critical:
        text = f"{counted(critical, 'tenant has', 'tenants have')} used 95 % of the storage or more."
        found.append(Concern("warning", text, f"{usage}?level=critical"))
    if last and last.drifted:
        text = f"The counters of {counted(last.drifted, 'tenant')} were not what is stored."
        found.append(Concern("warning", text, reverse("admin:quotas_reconciliation_change", args=[last.pk])))
    return tuple(found)
