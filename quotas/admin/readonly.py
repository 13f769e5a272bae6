"""Pages to look at: the platform writes these rows itself."""

from typing import Any

from django.http import HttpRequest
from unfold.admin import ModelAdmin, TabularInline


class Looking:
    """Nobody adds, changes or deletes."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Never."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Never."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Never."""
        return False


class ReadOnlyAdmin(Looking, ModelAdmin):
    """Rows to look at."""


class ReadOnlyInline(Looking, TabularInline):
    """Rows to look at below another one."""

    extra = 0
    hide_title = True
