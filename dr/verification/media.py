"""Media files against their two storages, where there are two."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from dr import media_files, media_recovery
from dr.media_recovery import MediaFault
from dr.verification.faults import MEDIA, Fault

BLOB = "blob"


def compare(*, tenant_id: UUID, deep: bool, now: datetime) -> list[Fault]:
    """Return which of a tenant's files lack their bytes in either storage; none when there is no second one.

    Raises:
        StorageAway: a storage does not answer.
    """
    if not media_files.has_second():
        return []
    found = media_recovery.verify_tenant(tenant_id=tenant_id, deep=deep, now=now)
    return [
        Fault(fault.kind, MEDIA, tenant_id, BLOB, fault.entity_id, 0, fault.problem, key=fault.place) for fault in found
    ]


def mend(*, tenant_id: UUID, faults: Sequence[Fault]) -> None:
    """Mend files from the storage that has them."""
    if faults:
        wanted = [MediaFault(fault.entity_id, fault.kind, fault.key, fault.problem) for fault in faults]
        media_recovery.repair(tenant_id=tenant_id, faults=wanted)
