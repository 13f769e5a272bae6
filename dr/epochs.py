"""Epochs: they order what numbers of the change log cannot, as those begin anew with a database."""

from dr import states
from dr.archives.base import Archive
from dr.models import SyncState


def current(*, archive: Archive) -> int:
    """Return the epoch under which changes are shipped; a new database takes one above all that the archive has seen.

    Raises:
        ArchiveUnavailable, ArchiveRefused: the archive does not say what it has seen.
    """
    known = states.row().epoch
    if known is not None:
        return known
    SyncState.objects.filter(id=1, epoch=None).update(epoch=archive.highest_epoch() + 1)
    return states.row().epoch or 1


def begin_anew(*, archive: Archive) -> int:
    """Have all that is shipped from now on count more than what was shipped before, and return the new epoch."""
    seen = max(current(archive=archive), archive.highest_epoch())
    SyncState.objects.filter(id=1).update(epoch=seen + 1)
    return seen + 1
