"""Reservations: what is held for work under way."""

from typing import ClassVar

from django.contrib import admin
from unfold.decorators import display

from quotas.admin.readonly import ReadOnlyAdmin
from quotas.models import Reservation
from quotas.sizes import readable


@admin.register(Reservation)
class ReservationAdmin(ReadOnlyAdmin):
    """Reservations; one that has expired is given back within a minute."""

    list_display: ClassVar = ["id", "tenant", "size", "items", "month", "created_at", "expires_at"]
    list_select_related: ClassVar = ["tenant"]
    search_fields: ClassVar = ["id", "tenant__name", "tenant__id"]
    ordering: ClassVar = ["expires_at"]

    @display(description="Bytes", ordering="bytes")
    def size(self, reservation: Reservation) -> str:
        """What it still holds."""
        return readable(reservation.bytes)
