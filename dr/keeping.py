"""Housekeeping of the backup: the last batches compared with their manifests, old records dropped, purged content removed.

Nothing that is in force is ever removed from the archive: no partition expires, and a removal takes only what a purge or the
removal of an old version made needless (the plans' retention decides when that is).
"""

from datetime import datetime, timedelta

import structlog
from django.db import connection
from django.db.models import Min

from dr import archives, epochs, states
from dr.archives.base import ArchiveRefused, ArchiveUnavailable, Removed
from dr.models import Batch
from engarde.common.scopes import system_scope

log = structlog.get_logger(__name__)

COMPARED = timedelta(hours=1)
SETTLED = timedelta(minutes=2)
KEPT = timedelta(days=35)
FINDINGS_KEPT = timedelta(days=400)
ROWS_AT_ONCE = 5000
DROP = "DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE {column} < %s ORDER BY {column} LIMIT %s)"
# A batch that the archive lost rows of is shipped once more: its rows are the same, so what is there already counts once.
# Batches are locked in the order of their ids, as by the sync: two orders would deadlock.
SHIP_AGAIN = """
UPDATE dr_batches SET acked_at = NULL, next_try_at = now(), last_error = 'rows were missing in the archive', pack_id = NULL
WHERE id IN (SELECT id FROM dr_batches WHERE id = ANY(%s::uuid[]) AND acked_at IS NOT NULL ORDER BY id FOR UPDATE)"""

LAST_NUMBER = "SELECT coalesce(pg_sequence_last_value(pg_get_serial_sequence('content_changes', 'seq')::regclass), 0)"
SHIP_LATELY_AGAIN = """
UPDATE content_changes SET batch_id = NULL, acked_at = NULL WHERE acked_at > now() - interval '1 day'"""


def look_after(*, now: datetime) -> list[str]:
    """Compare the batches of the last hour with their manifests, ship again what the archive lost, and drop old records.

    Returns the ids of the batches that are shipped again.
    """
    _notice_older_database()
    again = _compare(now)
    if again:
        with system_scope("ship batches again"), connection.cursor() as cursor:
            cursor.execute(SHIP_AGAIN, [again])
        log.error("the archive lacked rows of batches; they are shipped again", batches=again[:20], count=len(again))
    for table, column, kept in (
        ("dr_runs", "started_at", KEPT),
        ("dr_batches", "acked_at", KEPT),
        ("dr_findings", "found_at", FINDINGS_KEPT),
        ("dr_verifications", "started_at", FINDINGS_KEPT),
        ("dr_restores", "started_at", FINDINGS_KEPT),
        ("dr_drills", "started_at", FINDINGS_KEPT),
    ):
        _drop(table, column, now - kept)
    return again


def _notice_older_database() -> None:
    """Notice that PostgreSQL came back from a snapshot of its own: its numbers begin anew below those that the archive has.

    What is written from now on, and was since then, counts more under an epoch of its own. What is newer in the archive comes back by a
    restore.
    """
    archive, epoch = archives.current(), states.row().epoch
    if archive is None or epoch is None:
        return
    with system_scope("look at the numbers of changes"), connection.cursor() as cursor:
        cursor.execute(LAST_NUMBER)
        here = cursor.fetchone()[0]
    try:
        if archive.latest_number(epoch=epoch) <= here:
            return
        epochs.begin_anew(archive=archive)
    except (ArchiveUnavailable, ArchiveRefused) as error:
        log.info("numbers are compared another time", error=str(error))
        return
    with system_scope("ship again under a new epoch"), connection.cursor() as cursor:
        cursor.execute(SHIP_LATELY_AGAIN)
    epochs.await_restore()
    log.error("PostgreSQL is older than its backup, as after a snapshot came back; run restore_from_bigquery")


def _compare(now: datetime) -> list[str]:
    """Return the batches of which the archive has fewer rows than it acknowledged."""
    archive = archives.current()
    if archive is None:
        return []
    settled = Batch.objects.filter(sealed_at__gte=now - COMPARED, acked_at__lte=now - SETTLED)
    oldest = settled.aggregate(at=Min("oldest_at"))["at"]
    if oldest is None:
        return []
    try:
        found = archive.batch_sums(since=now - COMPARED, changed_since=oldest)
        sums = {one.batch_id: one for one in found}
    except (ArchiveUnavailable, ArchiveRefused) as error:
        log.info("the last batches are compared another time", error=str(error))
        return []
    return [
        str(batch_id)
        for batch_id, rows in settled.values_list("id", "rows")
        if batch_id not in sums or sums[batch_id].rows < min(rows, sums[batch_id].manifest_rows)
    ]


def _drop(table: str, column: str, before: datetime) -> None:
    with system_scope("drop old records of the backup's work"), connection.cursor() as cursor:
        cursor.execute(DROP.format(table=table, column=column), [before, ROWS_AT_ONCE])
        while cursor.rowcount == ROWS_AT_ONCE:
            cursor.execute(DROP.format(table=table, column=column), [before, ROWS_AT_ONCE])


def remove_purged(*, before: datetime) -> Removed:
    """Remove from the archive what was purged before a time; nothing while it is off, away or refuses."""
    archive = archives.current()
    if archive is None:
        return Removed(0, 0)
    try:
        return archive.remove_purged(before=before)
    except (ArchiveUnavailable, ArchiveRefused) as error:
        log.warning("purged content stays in the backup until the next try", error=str(error))
        return Removed(0, 0)
