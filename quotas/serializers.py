"""Shapes of requests and answers."""

from typing import Any

from rest_framework import serializers

from engarde.common.fields import QueryIntegerField, QuerySerializer, StrictSerializer, TextField
from engarde.common.paging import PageQuery, PaginationOutput
from quotas.models import AlertDelivery, AlertTarget
from quotas.reports import Check, Day, Summary
from quotas.usage import GB, Level

MAX_DAYS = 365
LARGEST = 2**53 - 1  # what every JSON parser reads exactly


class QuotaHistoryQuery(QuerySerializer):
    """How many days, today included."""

    days = QueryIntegerField(min_value=1, max_value=MAX_DAYS, default=30)


class QuotaCheckInput(StrictSerializer):
    """What somebody is about to store."""

    content_size_bytes = serializers.IntegerField(min_value=0, max_value=LARGEST, help_text="Of all of it together.")
    items = serializers.IntegerField(
        min_value=0, max_value=LARGEST, default=0, help_text="How many of them are to be generated."
    )


class UpgradeOutput(serializers.Serializer[Any]):
    """The smallest larger plan that is large enough."""

    tier = serializers.CharField()
    storage_limit_bytes = serializers.IntegerField(allow_null=True)
    price_usd_month = serializers.CharField(allow_null=True, help_text="Null: by agreement.")


class TypeUsageOutput(serializers.Serializer[Any]):
    """Live items of a type."""

    count = serializers.IntegerField()
    bytes = serializers.IntegerField()


class QuotaUsageOutput(serializers.Serializer[Any]):
    """What is used. All bytes are those of live bodies and live media."""

    total_content_items = serializers.IntegerField()
    total_media_files = serializers.IntegerField()
    total_storage_bytes = serializers.IntegerField()
    total_storage_gb = serializers.FloatField()
    content_bytes = serializers.IntegerField()
    media_bytes = serializers.IntegerField()
    reserved_bytes = serializers.IntegerField(help_text="Held for batches under way.")
    generated_this_month = serializers.IntegerField(help_text="In the tenant's time zone.")
    reserved_generations = serializers.IntegerField(help_text="Of this month, held for batches under way.")
    usage_by_type = serializers.DictField(child=TypeUsageOutput(), help_text="Types without live items are left out.")


class QuotaLimitsOutput(serializers.Serializer[Any]):
    """What may be used; null is unlimited."""

    storage_limit_bytes = serializers.IntegerField(allow_null=True)
    storage_limit_gb = serializers.FloatField(allow_null=True)
    available_bytes = serializers.IntegerField(allow_null=True, help_text="Limit less used and reserved.")
    usage_percent = serializers.FloatField(allow_null=True, help_text="Used per limit, two decimals, rounded down.")
    retention_days = serializers.IntegerField(allow_null=True)
    monthly_generation_limit = serializers.IntegerField(allow_null=True)
    generation_resets_at = serializers.DateTimeField()
    is_unlimited = serializers.BooleanField(help_text="Of storage.")


class QuotaOutput(serializers.Serializer[Any]):
    """A tenant's quota."""

    tenant_id = serializers.UUIDField()
    plan_tier = serializers.CharField()
    usage = QuotaUsageOutput()
    limits = QuotaLimitsOutput()
    warning_level = serializers.ChoiceField(choices=list(Level))
    is_blocked = serializers.BooleanField(help_text="Not a single byte can be added.")
    upgrade_suggestion = UpgradeOutput(allow_null=True, help_text="From 70 % on.")
    forecast_full_on = serializers.DateField(allow_null=True, help_text="By the trend of the last 30 days.")
    last_calculated_at = serializers.DateTimeField(help_text="When usage last changed or was verified.")


class QuotaDayOutput(serializers.Serializer[Any]):
    """A day in UTC: its last counters, and today's as they are now."""

    date = serializers.DateField()
    total_items = serializers.IntegerField()
    total_bytes = serializers.IntegerField()
    generated = serializers.IntegerField()


class QuotaHistoryOutput(serializers.Serializer[Any]):
    """A row a day, oldest first."""

    tenant_id = serializers.UUIDField()
    days = serializers.IntegerField()
    history = QuotaDayOutput(many=True)


class QuotaCheckOutput(serializers.Serializer[Any]):
    """Whether it would fit now; nothing is held."""

    can_store = serializers.BooleanField()
    reason = serializers.CharField(allow_null=True, help_text="The code of the refusal that it would get.")
    detail = serializers.CharField(allow_null=True, help_text="The same in words.")
    current_bytes = serializers.IntegerField()
    projected_bytes = serializers.IntegerField(help_text="Used, once it is stored.")
    limit_bytes = serializers.IntegerField(allow_null=True)
    usage_percent = serializers.FloatField(allow_null=True, help_text="Projected per limit.")
    warning_level = serializers.ChoiceField(choices=list(Level), help_text="At the projected usage.")
    upgrade_suggestion = UpgradeOutput(allow_null=True)


class AlertTargetInput(StrictSerializer):
    """Where to tell of alerts."""

    kind = serializers.ChoiceField(choices=AlertTarget.Kind.choices)
    url = TextField(
        max_length=2000,
        help_text="slack: an incoming webhook of hooks.slack.com; teams: the URL of a workflow that posts to a channel; "
        "webhook: any public https address.",
    )
    name = TextField(max_length=100, allow_blank=True, required=False)


class AlertTargetOutput(serializers.Serializer[Any]):
    """An alert target, without its address, and what came of the last message to it."""

    id = serializers.UUIDField()
    kind = serializers.ChoiceField(choices=AlertTarget.Kind.choices)
    name = serializers.CharField()
    url_hint = serializers.CharField()
    created_at = serializers.DateTimeField()
    last_status = serializers.ChoiceField(choices=AlertDelivery.Status.choices, allow_null=True)
    last_error = serializers.CharField(allow_null=True)
    last_sent_at = serializers.DateTimeField(allow_null=True)


class AlertTargetPage(serializers.Serializer[Any]):
    """A page of alert targets."""

    data = AlertTargetOutput(many=True)  # type: ignore[assignment]  # the contract's name; DRF has an attribute of it
    pagination = PaginationOutput()


class AlertTargetQuery(PageQuery):
    """A page of alert targets."""


def show_summary(tenant_id: Any, found: Summary) -> dict[str, Any]:
    """Return a summary."""
    usage, month = found.usage, found.month
    limit = usage.limit_bytes
    return {
        "tenant_id": tenant_id,
        "plan_tier": usage.plan_tier,
        "usage": {
            "total_content_items": usage.content_items,
            "total_media_files": usage.media_files,
            "total_storage_bytes": usage.used_bytes,
            "total_storage_gb": gigabytes(usage.used_bytes),
            "content_bytes": found.content.size_bytes,
            "media_bytes": usage.used_bytes - found.content.size_bytes,
            "reserved_bytes": usage.reserved_bytes,
            "generated_this_month": month.generated,
            "reserved_generations": month.reserved,
            "usage_by_type": {
                name: {"count": count.number, "bytes": count.size_bytes} for name, count in found.by_type.items()
            },
        },
        "limits": {
            "storage_limit_bytes": limit,
            "storage_limit_gb": None if limit is None else gigabytes(limit),
            "available_bytes": usage.remaining_bytes,
            "usage_percent": percent(usage.percent_hundredths),
            "retention_days": found.retention_days,
            "monthly_generation_limit": month.limit,
            "generation_resets_at": month.resets_at,
            "is_unlimited": limit is None,
        },
        "warning_level": usage.level,
        "is_blocked": found.is_blocked,
        "upgrade_suggestion": found.upgrade,
        "forecast_full_on": found.full_on,
        "last_calculated_at": usage.updated_at,
    }


def show_day(day: Day) -> dict[str, Any]:
    """Return a day."""
    return {name: getattr(day, name) for name in ("date", "total_items", "total_bytes", "generated")}


def show_check(found: Check) -> dict[str, Any]:
    """Return whether it would fit."""
    return {
        "can_store": found.reason is None,
        "reason": found.reason,
        "detail": found.detail,
        "current_bytes": found.usage.used_bytes,
        "projected_bytes": found.projected_bytes,
        "limit_bytes": found.usage.limit_bytes,
        "usage_percent": percent(found.percent_hundredths),
        "warning_level": found.level,
        "upgrade_suggestion": found.upgrade,
    }


def show_target(target: AlertTarget, last: AlertDelivery | None) -> dict[str, Any]:
    """Return an alert target and what came of the last message to it."""
    shown = {name: getattr(target, name) for name in ("id", "kind", "name", "url_hint", "created_at")}
    return shown | {
        "last_status": last.status if last else None,
        "last_error": (last.last_error or None) if last else None,
        "last_sent_at": last.finished_at if last and last.status == AlertDelivery.Status.SENT else None,
    }


def percent(hundredths: int | None) -> float | None:
    """Return hundredths of a percent as a number with two decimals."""
    return None if hundredths is None else hundredths / 100


def gigabytes(size: int) -> float:
    """Return bytes as GB of 1024³ bytes."""
    return size / GB
