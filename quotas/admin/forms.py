"""Forms of the admin: sizes as people write them, and the dialogs that ask before something is done."""

from typing import Any, ClassVar

from django import forms
from django.core.exceptions import ValidationError
from unfold.forms import BaseDialogForm
from unfold.widgets import (
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
)

from quotas.models import Alert, Plan, QuotaUsage
from quotas.operations import LARGEST, Limits
from quotas.sizes import exact, parse

SIZE_HELP = "Bytes, or a number with a unit of 1024 steps: 500 MB, 1.5 TB. Empty: "


class SizeField(forms.CharField):
    """A number of bytes, as people write it."""

    widget = UnfoldAdminTextInputWidget

    def prepare_value(self, value: Any) -> Any:
        """Show bytes with the largest unit that says them exactly."""
        return exact(value) if isinstance(value, int) else value

    def clean(self, value: Any) -> int | None:
        """Return bytes, None for an empty field.

        Raises:
            ValidationError: it is no size, or one that no column holds.
        """
        text = super().clean(value)
        if not text:
            return None
        try:
            size = parse(text)
        except ValueError as error:
            raise ValidationError("Give bytes, or a number with a unit: 500 MB, 1.5 TB.", code="invalid") from error
        if size > LARGEST[0]:
            raise ValidationError("That is more than can be counted.", code="max_value")
        return size


class PlanForm(forms.ModelForm):  # type: ignore[type-arg]  # generic in the stubs only
    """A plan."""

    storage_limit_bytes = SizeField(required=False, label="Storage limit", help_text=SIZE_HELP + "unlimited.")

    class Meta:
        model = Plan
        fields: ClassVar[Any] = (
            "tier",
            "rank",
            "storage_limit_bytes",
            "retention_days",
            "price_usd_month",
            "monthly_generation_limit",
        )
        help_texts: ClassVar[Any] = {
            "retention_days": "Days that trash and superseded versions are kept. Empty: for ever. "
            "A shorter one takes effect 30 days later.",
            "price_usd_month": "USD. Empty: by agreement.",
            "monthly_generation_limit": "Generated items a month. Empty: unlimited.",
        }


class ReasonForm(BaseDialogForm):
    """Asks why, for the record."""

    reason = forms.CharField(
        max_length=300, widget=UnfoldAdminTextareaWidget(attrs={"rows": 2}), help_text="Kept in the tenant's history."
    )


class ChangePlanForm(ReasonForm):
    """Asks for the plan."""

    field_order = ("tier", "reason")
    tier = forms.ModelChoiceField(Plan.objects.all(), label="Plan", empty_label=None, widget=UnfoldAdminSelectWidget)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        usage = QuotaUsage.objects.filter(pk=self.object_id).first()
        self.fields["tier"].initial = usage.plan_id if usage else None


class LimitsForm(BaseDialogForm):
    """Asks for what replaces the plan's limits; with all fields empty, the plan's hold again."""

    storage_bytes = SizeField(required=False, label="Storage", help_text=SIZE_HELP + "as in the plan.")
    generated_items = forms.IntegerField(
        required=False,
        min_value=0,
        max_value=LARGEST[1],
        label="Generated items a month",
        widget=UnfoldAdminIntegerFieldWidget,
    )
    retention_days = forms.IntegerField(
        required=False,
        min_value=0,
        max_value=LARGEST[2],
        label="Retention in days",
        widget=UnfoldAdminIntegerFieldWidget,
    )
    reason = forms.CharField(
        required=False,
        max_length=300,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 2}),
        help_text="Needed with any.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        usage = QuotaUsage.objects.filter(pk=self.object_id).first()
        if usage:
            self.initial = {
                "storage_bytes": usage.storage_limit_override,
                "generated_items": usage.generation_limit_override,
                "retention_days": usage.retention_days_override,
                "reason": usage.override_reason,
            }

    def clean(self) -> dict[str, Any]:
        """Check that there is a reason where one is needed.

        Raises:
            ValidationError: there is none.
        """
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if self.limits.values != (None, None, None) and not self.limits.reason.strip():
            self.add_error("reason", "Say why the plan's limits do not hold.")
        return cleaned

    @property
    def limits(self) -> Limits:
        """What was asked for."""
        given = self.cleaned_data
        return Limits(
            storage_bytes=given.get("storage_bytes"),
            generated_items=given.get("generated_items"),
            retention_days=given.get("retention_days"),
            reason=given.get("reason") or "",
        )


class ResendForm(BaseDialogForm):
    """Asks which alert of a tenant to send again."""

    alert = forms.ModelChoiceField(Alert.objects.none(), empty_label=None, widget=UnfoldAdminSelectWidget)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        alerts = Alert.objects.filter(tenant_id=self.object_id).order_by("-created_at")
        field: Any = self.fields["alert"]
        field.queryset = alerts
        field.initial = alerts.first()
