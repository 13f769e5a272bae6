"""A worker that holds a reservation: `python -m tests.quotas.holder TENANT_ID BYTES ITEMS SIZE COUNT`.

It reserves for ten minutes, stores COUNT generated items of SIZE bytes from that, says so, and then waits to be killed.
"""

import os
import signal
import sys
from uuid import UUID

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "engarde.settings")


def main(tenant_id: UUID, size: int, items: int, item_size: int, count: int) -> None:
    """Reserve, store and wait."""
    django.setup()

    from tests.people import Person
    from tests.quotas import house

    person = Person("", tenant_id, tenant_id, tenant_id)
    holder = house.reserve(person, size=size, items=items)
    for _ in range(count):
        house.store(person, item_size, reservation_id=holder, generated=True)
    sys.stdout.write(f"stored {count}\n")
    sys.stdout.flush()
    signal.pause()


if __name__ == "__main__":
    main(UUID(sys.argv[1]), *map(int, sys.argv[2:]))
