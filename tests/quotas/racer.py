"""A process that writes until the quota is full: `python -m tests.quotas.racer TENANT_ID SIZE…`, all sizes in turn.

It waits for a line on stdin, so that racers start together, and prints how many bytes and items it stored.
"""

import os
import sys
from uuid import UUID

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "engarde.settings")


def main(tenant_id: UUID, sizes: list[int]) -> None:
    """Create items of each size until that size is refused."""
    django.setup()

    from django.utils import timezone

    from content import operations
    from quotas.charging import StorageQuotaExceeded

    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    stored = items = 0
    for size in sizes:
        fields = {"title": "A title", "body": "x" * size, "type": "post"}
        try:
            while True:
                operations.create_content(tenant_id=tenant_id, author_id=None, fields=fields, now=timezone.now())
                stored, items = stored + size, items + 1
        except StorageQuotaExceeded:
            pass
    sys.stdout.write(f"{stored} {items}\n")


if __name__ == "__main__":
    main(UUID(sys.argv[1]), [int(size) for size in sys.argv[2:]])
