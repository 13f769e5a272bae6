"""Reads from the backup as last resort: `CONTENT_READ_FALLBACK` names it to the content room."""

from collections.abc import Collection
from uuid import UUID

from content.stores.base import DocumentKey, StoreUnavailable
from dr import archives
from dr.archives.base import ArchiveRefused, ArchiveUnavailable


class BackupReader:
    """Reads documents from the archive, within a short time."""

    def get_many(self, *, tenant_id: UUID, keys: Collection[DocumentKey], timeout: float) -> dict[DocumentKey, str]:
        """Return the texts that the archive has; none when it is off.

        Raises:
            StoreUnavailable: the archive is away, or does not let us in.
        """
        archive = archives.current()
        if archive is None:
            return {}
        wanted = {(key.content_id, key.sha256): key for key in keys}
        try:
            found = archive.documents(tenant_id=tenant_id, keys=wanted.keys(), timeout=timeout)
        except (ArchiveUnavailable, ArchiveRefused) as error:
            raise StoreUnavailable(str(error)) from error
        return {wanted[key]: text for key, text in found.items() if key in wanted}
