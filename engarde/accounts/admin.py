"""The admin's pages for tenants and people."""

from types import SimpleNamespace
from typing import Any, ClassVar

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from django.utils import timezone
from unfold.admin import ModelAdmin, TabularInline
from unfold.forms import AdminPasswordChangeForm, AuthenticationForm, UserChangeForm, UserCreationForm

from engarde.accounts import operations
from engarde.accounts.models import ApiKey, Brand, Membership, Tenant, User
from engarde.common.throttles import LoginThrottle


class LoginForm(AuthenticationForm):
    """The admin's login, throttled together with the API's."""

    def clean(self) -> dict[str, Any]:
        """Check the password, unless there were too many tries.

        Raises:
            ValidationError: no, or too many tries.
        """
        tried: Any = SimpleNamespace(data={"email": self.data.get("username")}, META=getattr(self.request, "META", {}))
        if not LoginThrottle().allow_request(tried, None):
            raise ValidationError("Too many tries; wait a minute.", code="throttled")
        return super().clean()


admin.site.login_form = LoginForm


class PasswordForm(AdminPasswordChangeForm):
    """A new password that staff set for a person."""

    def save(self, commit: bool = True) -> Any:  # noqa: FBT001, FBT002 -- Django's signature
        """Save it; whoever is logged in with the old one is logged out."""
        user = super().save(commit)
        operations.end_sessions(user=user, now=timezone.now())
        return user


@admin.register(User)
class UserAdmin(DjangoUserAdmin, ModelAdmin):  # type: ignore[type-arg]  # generic in the stubs only
    """People."""

    form = UserChangeForm
    add_form = UserCreationForm

    change_password_form = PasswordForm
    ordering = ("email",)
    list_display = ("email", "first_name", "last_name", "is_active", "is_staff", "last_login")
    search_fields = ("email", "first_name", "last_name")
    readonly_fields = ("last_login", "created_at", "email_verified_at")
    fieldsets = (
        (None, {"fields": ("email", "password")}),
        ("Person", {"fields": ("first_name", "last_name", "email_verified_at")}),
        ("Access", {"fields": ("is_active", "is_staff", "is_superuser", "groups", "user_permissions")}),
        ("Dates", {"fields": ("last_login", "created_at")}),
    )
    add_fieldsets = ((None, {"classes": ("wide",), "fields": ("email", "password1", "password2")}),)


class BrandInline(TabularInline):
    """A tenant's brands."""

    model = Brand
    extra = 0
    fields = ("name", "language")


class MembershipInline(TabularInline):
    """A tenant's members."""

    model = Membership
    extra = 0
    raw_id_fields = ("user",)


@admin.register(Tenant)
class TenantAdmin(ModelAdmin):
    """Customers."""

    list_display = ("name", "id", "time_zone", "created_at")
    search_fields = ("name", "id")
    inlines = (BrandInline, MembershipInline)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Leave making tenants to `create_tenant`, which also gives them a plan and an owner."""
        return False


@admin.register(ApiKey)
class ApiKeyAdmin(ModelAdmin):
    """API keys, to look at; their tenant's admins make and revoke them."""

    list_display = ("name", "tenant", "public_id", "last4", "created_at", "last_used_at", "expires_at", "revoked_at")
    search_fields = ("name", "public_id")
    exclude: ClassVar[Any] = ("secret_hash", "previous_hash")

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Never: the text of a key is shown to its maker alone."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        """Never."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        """Never."""
        return False
