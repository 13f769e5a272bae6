"""What alerts say: as mail in text and HTML, as a digest of several, and as a message to Slack, Teams or a webhook."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.template.loader import render_to_string

from engarde.accounts.models import Tenant
from quotas import queries, refusals, reports
from quotas.models import Alert
from quotas.notifier import Message
from quotas.sizes import readable
from quotas.usage import LEVELS, hundredths_of

URGENT_FROM = 95
EVENT = "quota.threshold_crossed"


@dataclass(frozen=True, slots=True)
class Letter:
    """A mail, and the same as a short message.

    Attributes:
        context: what the templates were given.
    """

    subject: str
    text: str
    html: str
    message: Message
    context: Mapping[str, Any]


def compose(*, alert: Alert, tenant: Tenant, now: datetime) -> Letter:
    """Inside a scope, put an alert into words: what was crossed, what would free space, which plan is larger."""
    context = _context(alert, tenant, now)
    subject = _subject(context)
    facts = {
        "event": EVENT,
        "alert_id": str(alert.id),
        "tenant_id": str(alert.tenant_id),
        "tenant": tenant.name,
        "threshold": alert.threshold,
        "level": context["level"],
        "used_bytes": alert.used_bytes,
        "limit_bytes": alert.limit_bytes,
        "usage_percent": context["percent"],
        "plan_tier": alert.plan_tier,
        "occurred_at": alert.created_at.isoformat().replace("+00:00", "Z"),
    }
    return Letter(
        subject=subject,
        text=render_to_string("quotas/mail/alert.txt", context),
        html=render_to_string("quotas/mail/alert.html", {**context, "alert": context}),
        message=Message(subject, _short(context), urgent=alert.threshold >= URGENT_FROM, facts=facts),
        context=context,
    )


def digest(*, letters: Sequence[Letter]) -> Letter:
    """Put several alerts to one person into one mail."""
    tenants = len({letter.context["tenant"] for letter in letters})
    subject = f"Storage of {tenants} of your studios is filling up" if tenants > 1 else letters[0].subject
    context = {
        "alerts": [letter.context for letter in letters],
        "subject": subject,
        "upgrade_url": settings.UPGRADE_URL,
    }
    return Letter(
        subject=subject,
        text=render_to_string("quotas/mail/digest.txt", context),
        html=render_to_string("quotas/mail/digest.html", context),
        message=letters[0].message,
        context=context,
    )


def test_message(*, tenant_name: str) -> Message:
    """Return what a test of a target says."""
    title = f"{_one_line(tenant_name)}: a test of storage alerts"
    return Message(title, "Storage alerts of En Garde will arrive here.", facts={"event": "quota.test"})


def _context(alert: Alert, tenant: Tenant, now: datetime) -> dict[str, Any]:
    usage = queries.usage_in_scope(tenant_id=alert.tenant_id)
    freeable = refusals.freeable(tenant_id=alert.tenant_id)
    hundredths = hundredths_of(alert.used_bytes, alert.limit_bytes)
    return {
        "tenant": _one_line(tenant.name),
        "threshold": alert.threshold,
        "level": str(LEVELS[alert.threshold]),
        "percent": hundredths / 100,
        "bar_percent": min(100, hundredths // 100),
        "used": readable(alert.used_bytes),
        "limit": readable(alert.limit_bytes),
        "left": readable(max(0, alert.limit_bytes - alert.used_bytes)),
        "plan_tier": alert.plan_tier,
        "is_full": alert.threshold >= 100,
        "occurred_at": alert.created_at,
        "trash": readable(freeable["trash_bytes"]),
        "old_versions": readable(freeable["old_version_bytes"]),
        "upgrade": _upgrade(
            queries.suggest_upgrade(usage=usage, needed_bytes=max(usage.used_bytes, alert.used_bytes) + 1)
        ),
        "full_on": reports.summary_in_scope(tenant_id=alert.tenant_id, now=now).full_on,
        "upgrade_url": settings.UPGRADE_URL,
    }


def _upgrade(plan: Mapping[str, Any] | None) -> dict[str, str] | None:
    if plan is None:
        return None
    limit, price = plan["storage_limit_bytes"], plan["price_usd_month"]
    return {
        "tier": str(plan["tier"]),
        "storage": "unlimited storage" if limit is None else readable(limit),
        "price": "price by agreement" if price is None else f"{price} USD a month",
    }


def _subject(context: Mapping[str, Any]) -> str:
    if context["is_full"]:
        return f"Storage of {context['tenant']} is full"
    return f"{context['tenant']} has used {context['threshold']} % of its storage"


def _short(context: Mapping[str, Any]) -> str:
    text = f"{context['used']} of {context['limit']} are used ({context['percent']:.2f} %)."
    if context["is_full"]:
        text += " Nothing that adds bytes is stored until space is freed or the plan is changed."
    if context["upgrade"]:
        text += f" The {context['upgrade']['tier']} plan has {context['upgrade']['storage']}."
    return text


def _one_line(text: str) -> str:
    return " ".join(text.split())
