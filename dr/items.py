"""One item back from the backup: as it was at a time, or one of its versions, for the tenant's own admins."""

import threading
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from content import recovery
from content.models import ChangeType
from content.operations import ContentExists, Written
from dr import archives, erasing, reading
from dr.archives.base import Archive, ArchiveRefused, ArchiveUnavailable, CurrentRecord
from engarde.common.problems import NotFound, Problem

LONGEST_READ_SECONDS = 10.0
AT_ONCE = 3
_reading = threading.BoundedSemaphore(AT_ONCE)


class BackupUnavailable(Problem):
    """The backup is off, or does not answer now."""

    status, code, title = 503, "backup_unavailable", "Backup unavailable"

    def __init__(self) -> None:
        super().__init__("The backup cannot be read right now; try again later.", headers={"Retry-After": "60"})


class DamagedRecord(Problem):
    """The backup's copy is not what was sent; staff can see it among the findings of the next verification."""

    status, code, title = 409, "damaged_record", "Damaged record"


def restore_item(
    *,
    tenant_id: UUID,
    author_id: UUID,
    content_id: UUID,
    as_of: datetime | None,
    version: int | None,
    now: datetime,
) -> Written:
    """Make an item what it was, as a new version above the highest it ever had; a trashed or purged one comes back.

    Args:
        as_of: the time; None for what the backup has now.
        version: one of the versions that it had then; None for the one that was current.

    Raises:
        NotFound: the backup has no such item of the tenant, or it was not live then.
        BackupUnavailable: see there.
        DamagedRecord: see there.
        BrandGone, StorageQuotaExceeded: see `recovery.bring_back`.
    """
    archive = archives.current()
    if archive is None:
        raise BackupUnavailable
    if erasing.under_way().has(tenant_id=tenant_id, entity_id=content_id):
        raise NotFound("copy of the item in the backup")
    wanted = _find(archive, tenant_id, content_id, as_of, version)
    problems: list[str] = []
    copies = reading.copies([wanted], lambda _, problem: problems.append(problem))
    if not copies:
        raise DamagedRecord(f"The backup cannot give it: {problems[0]}.")
    copy = copies[0]
    if copy.is_trashed and version is None:
        raise NotFound("live copy of the item in the backup: it was in the trash then")
    copy = replace(copy, facts=replace(copy.facts, change_type=ChangeType.RESTORE))
    try:
        return recovery.bring_back(copy=copy, author_id=author_id, now=now)
    except ContentExists:  # two asked at once for a purged item; this one finds it there now
        return recovery.bring_back(copy=copy, author_id=author_id, now=now)


def _find(
    archive: Archive, tenant_id: UUID, content_id: UUID, as_of: datetime | None, version: int | None
) -> CurrentRecord:
    if not _reading.acquire(blocking=False):
        raise BackupUnavailable  # a backup that hangs holds no more of the threads that answer requests
    try:
        known = archive.history(tenant_id=tenant_id, entity_id=content_id, as_of=as_of, timeout=LONGEST_READ_SECONDS)
    except (ArchiveUnavailable, ArchiveRefused) as error:
        raise BackupUnavailable from error
    finally:
        _reading.release()
    chosen = [one for one in known if (one.is_current if version is None else one.record.version == version)]
    if not chosen:
        raise NotFound("copy of the item in the backup")
    return chosen[-1]
