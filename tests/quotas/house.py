"""A tenant with a small house: storing, holding and counting in it as the rooms do."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from django.utils import timezone

from content import operations as content_operations
from engarde.common.scopes import tenant_scope
from quotas import charging, months, reservations
from quotas.models import DailyUsage, QuotaUsage, Reservation
from quotas.months import Month
from tests.people import Person


def store(person: Person, size: int, *, now: datetime | None = None, **options: Any) -> UUID:
    """Store an item of so many bytes and return its id."""
    written = content_operations.create_content(
        tenant_id=person.tenant_id,
        author_id=None,
        fields={"title": "A title", "type": "post", "body": "x" * size},
        now=now or timezone.now(),
        **options,
    )
    return written.item.id


def resize(person: Person, content_id: UUID, size: int, *, now: datetime) -> None:
    """Give an item so many bytes."""
    content_operations.update_content(
        tenant_id=person.tenant_id, author_id=None, content_id=content_id, changes={"body": "x" * size}, now=now
    )


def reserve(
    person: Person,
    *,
    size: int = 0,
    items: int = 0,
    now: datetime | None = None,
    minutes: float = 10,
    holder: UUID | None = None,
) -> UUID:
    """Hold bytes and items, and return the holder's id."""
    holder, now = holder or uuid4(), now or timezone.now()
    with tenant_scope(person.tenant_id):
        reservations.reserve(
            tenant_id=person.tenant_id,
            reservation_id=holder,
            size_bytes=size,
            items=items,
            expires_at=now + timedelta(minutes=minutes),
            now=now,
        )
    return holder


def release(person: Person, holder: UUID) -> bool:
    """Give back what a holder holds."""
    with tenant_scope(person.tenant_id):
        return reservations.release(tenant_id=person.tenant_id, reservation_id=holder)


def generate(person: Person, count: int = 1, *, now: datetime | None = None, holder: UUID | None = None) -> None:
    """Count generated items that are not stored."""
    with tenant_scope(person.tenant_id):
        charging.charge(tenant_id=person.tenant_id, now=now or timezone.now(), generated=count, reservation_id=holder)


def month(person: Person, now: datetime | None = None) -> Month:
    """Return the tenant's month."""
    with tenant_scope(person.tenant_id):
        return months.this_month(tenant_id=person.tenant_id, now=now or timezone.now())


def held(person: Person) -> tuple[int, int]:
    """Return the reserved bytes by the counter and by the reservations."""
    with tenant_scope(person.tenant_id):
        rows = Reservation.objects.filter(tenant_id=person.tenant_id)
        return QuotaUsage.objects.get(tenant_id=person.tenant_id).reserved_bytes, sum(row.bytes for row in rows)


def change_usage(person: Person, **columns: Any) -> None:
    """Change a tenant's usage row behind the platform's back."""
    with tenant_scope(person.tenant_id):
        assert QuotaUsage.objects.update(**columns) == 1


def begin_on(person: Person, day: date) -> None:
    """Have a tenant that was just made be made on another day."""
    with tenant_scope(person.tenant_id):
        QuotaUsage.objects.update(counted_on=day)
        DailyUsage.objects.all().delete()


@contextmanager
def inside(person: Person) -> Iterator[UUID]:
    """Run in a tenant's scope."""
    with tenant_scope(person.tenant_id):
        yield person.tenant_id
