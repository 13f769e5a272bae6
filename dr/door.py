"""The closed door: while a restore writes, nobody else writes the content that it restores.

Advisory locks, which triggers ask for (`content_door_is_open`): PostgreSQL opens the door itself when the process that holds
it dies. Whoever writes meanwhile is answered 503.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from django.db import OperationalError, connections

WAIT_SECONDS = 60
ALL = "engarde restore"
EXCLUSIVE, SHARED = "pg_advisory_lock", "pg_advisory_lock_shared"


class DoorBusy(Exception):
    """Another restore is running, or writes that began before do not end."""


@contextmanager
def closed(*, tenant_id: UUID | None) -> Iterator[None]:
    """Keep others from writing a tenant's content, or anybody's, as long as the block lasts.

    It waits until the writes that are under way have ended. The locks belong to a connection of their own, so one through a
    pool has to keep its session (PgBouncer: session mode).

    Raises:
        DoorBusy: it cannot be closed within a minute.
    """
    connection = connections.create_connection("default")
    locks = [(EXCLUSIVE, ALL)] if tenant_id is None else [(SHARED, ALL), (EXCLUSIVE, f"{ALL} {tenant_id}")]
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT set_config('lock_timeout', %s, false)", [f"{WAIT_SECONDS}s"])
            for function, name in locks:
                cursor.execute(f"SELECT {function}(hashtextextended(%s, 0))", [name])
        yield
    except OperationalError as error:
        if "lock timeout" not in str(error):
            raise
        raise DoorBusy("Another restore is running, or a write does not end. Try again in a minute.") from error
    finally:
        connection.close()
