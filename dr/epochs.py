"""Epochs: they order what numbers of the change log cannot, as those begin anew with a database."""

from django.db import connection

from dr import states
from dr.archives.base import Archive
from dr.models import SyncState
from engarde.common.scopes import system_scope

TELL_PLANS = """
SELECT engarde_log_existing('quotas_plan', 'plan', '', 'tier', '',
                            'NOT EXISTS (SELECT FROM content_changes WHERE entity_type = ''plan''
                                         AND entity_id = md5(source.tier)::uuid)')"""


def current(*, archive: Archive) -> int:
    """Return the epoch under which changes are shipped; a new database takes one above all that the archive has seen.

    The plans that a new database begins with are told to an archive that is new too; another one has those that were lost.

    Raises:
        ArchiveUnavailable, ArchiveRefused: the archive does not say what it has seen.
    """
    known = states.row().epoch
    if known is not None:
        return known
    seen = archive.highest_epoch()
    with system_scope("begin an epoch"):
        is_mine = SyncState.objects.filter(id=1, epoch=None).update(epoch=seen + 1, awaits_restore=bool(seen))
        if is_mine and not seen:
            with connection.cursor() as cursor:
                cursor.execute(TELL_PLANS)
    return states.row().epoch or 1


def awaits_restore(*, archive: Archive) -> bool:
    """Tell whether the database is newer than its backup, and no restore of all has ended well yet.

    Raises:
        ArchiveUnavailable, ArchiveRefused: the archive does not say what it has seen.
    """
    current(archive=archive)
    return states.row().awaits_restore


def await_restore() -> None:
    """Note that the archive has what the database lost."""
    SyncState.objects.filter(id=1).update(awaits_restore=True)


def is_restored() -> None:
    """Note that all came back that was before."""
    SyncState.objects.filter(id=1).update(awaits_restore=False)


def begin_anew(*, archive: Archive) -> int:
    """Have all that is shipped from now on count more than what was shipped before, and return the new epoch."""
    seen = max(current(archive=archive), archive.highest_epoch())
    SyncState.objects.filter(id=1).update(epoch=seen + 1)
    return seen + 1
