"""An item as it goes up to views and commands: facts from PostgreSQL with the document beside them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from content.documents import FoundDocument, key_of
from content.etags import etag_of
from content.stores.base import DocumentKey


@dataclass(frozen=True, slots=True)
class Item:
    """One version of an item.

    Attributes:
        sha256: of the version's canonical document.
        in_zerodb: the row id there, None while the document is only spooled.
        backed_up_at: when the backup acknowledged this version.
        document: the document's fields and the tier it came from; None when no tier can give it now.
    """

    id: UUID
    tenant_id: UUID
    version: int
    title: str
    content_type: str
    status: str
    brand_id: UUID
    campaign_space_id: UUID | None
    size_bytes: int
    sha256: bytes
    scheduled_at: datetime | None
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None
    in_zerodb: str | None
    backed_up_at: datetime | None
    document: FoundDocument | None = None

    @property
    def fields(self) -> dict[str, Any]:
        """The document's fields, empty when it cannot be read now."""
        return self.document.fields if self.document else {}

    @property
    def key(self) -> DocumentKey:
        """The key of its document."""
        return key_of(self.id, self.sha256)

    @property
    def etag(self) -> str:
        """Its entity tag."""
        return etag_of(self.id, self.version, self.sha256)

    @property
    def tier(self) -> str:
        """Where the document is: the backup only when it had to come from there."""
        if self.document and self.document.tier == "backup":
            return "backup"
        return "zerodb" if self.in_zerodb else "spool"
