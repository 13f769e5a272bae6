"""Files of old assets: fetched into our storage where that can be done, else recorded as references to where they are."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit
from uuid import UUID

from django.conf import settings

from content.legacy import convert, files, ids
from content.legacy.convert import OldItem, Unusable
from content.legacy.files import AddressRefused, Fetcher, NotFetched
from content.media import operations as media_operations
from content.media import references
from content.media.references import Reference
from content.models import Media
from engarde.common.problems import Problem
from engarde.common.scopes import tenant_scope
from quotas.charging import StorageQuotaExceeded

PASSING = 500  # from this status on a problem is nobody's fault and may be gone soon
MOST_KEPT = 2048  # characters of an address that was left out
REFUSED = "The address of its file is private, loopback or link-local; such addresses are never asked."


@dataclass(frozen=True, slots=True)
class Attachment:
    """An item's file.

    Attributes:
        is_stored: whether its bytes are in our storage; else it is a reference.
        is_here: whether its row is here already.
    """

    id: UUID
    is_stored: bool
    is_here: bool

    @property
    def ids(self) -> list[str]:
        """What a document says of it."""
        return [str(self.id)]


class Files:
    """The files of one run."""

    def __init__(self, *, fetch: bool, mend: bool) -> None:
        self._mend = mend
        self._fetcher = Fetcher(most_bytes=settings.MEDIA_MAX_BYTES) if fetch else None

    def judge(self, item: OldItem) -> None:
        """Judge a file's address by itself; one that is refused is left out, if that is to be mended.

        Raises:
            Unusable: it is no address of the web, or one that is never asked.
        """
        problem = _problem_of(item.file_url) if item.file_url else None
        if problem:
            self._refuse(item, *problem)

    def attach(self, item: OldItem, *, tenant_id: UUID, author_id: UUID | None, now: datetime) -> Attachment | None:
        """Fetch and store an item's file; None without one. What cannot be fetched becomes a reference.

        Raises:
            Unusable: its address turned out to be one that is never asked.
            StorageQuotaExceeded: it does not fit.
        """
        if not item.file_url:
            return None
        media_id = _media_id(item)
        if (is_stored := _here(tenant_id, media_id)) is not None:
            return Attachment(media_id, is_stored, is_here=True)
        try:
            is_stored = self._stored(item, media_id, tenant_id, author_id, now)
        except AddressRefused:
            self._refuse(item, "private_address", REFUSED)
            return None
        return Attachment(media_id, is_stored, is_here=is_stored)

    def kept(self, item: OldItem, *, tenant_id: UUID) -> Attachment | None:
        """Return the file that an item came with, if one is here."""
        media_id = _media_id(item)
        is_stored = _here(tenant_id, media_id)
        return None if is_stored is None else Attachment(media_id, is_stored, is_here=True)

    def foreseen(self, item: OldItem) -> Attachment | None:
        """Return what an item's file would be without being fetched."""
        return Attachment(_media_id(item), is_stored=False, is_here=False) if item.file_url else None

    def detach(self, attachment: Attachment | None, *, tenant_id: UUID, now: datetime) -> None:
        """Delete the file of an item that could not be written after all."""
        if attachment and attachment.is_stored:
            media_operations.delete_media(tenant_id=tenant_id, media_id=attachment.id, now=now)

    def _stored(self, item: OldItem, media_id: UUID, tenant_id: UUID, author_id: UUID | None, now: datetime) -> bool:
        """Fetch a file and store it, and tell whether that could be done.

        Raises:
            AddressRefused: it leads where nothing is asked.
            StorageQuotaExceeded: it does not fit.
        """
        if self._fetcher is None:
            return False
        try:
            received = self._fetcher.fetch(item.file_url)
        except NotFetched as reason:
            item.warnings.append(("file_not_fetched", f"Its file is a reference now: {reason}"))
            return False
        try:
            media_operations.store_media(
                tenant_id=tenant_id, author_id=author_id, received=received, now=now, media_id=media_id
            )
        except StorageQuotaExceeded:
            raise
        except Problem as problem:
            if problem.status >= PASSING:
                raise
            item.warnings.append(("file_not_stored", f"Its file is a reference now: {problem.detail}"))
            return False
        finally:
            received.discard()
        return True

    def _refuse(self, item: OldItem, code: str, message: str) -> None:
        if not self._mend:
            raise Unusable(code, message)
        item.warnings.append((code, f"{message} It came without its file; the address is in metadata.legacy_file_url."))
        item.fields["metadata"]["legacy_file_url"] = item.file_url[:MOST_KEPT]
        item.file_url = ""


def write(*, tenant_id: UUID, items: Sequence[tuple[OldItem, Attachment | None]]) -> int:
    """Inside the tenant's scope, write references, tie stored files to their items, and return how many references there are."""
    new = [(item, one) for item, one in items if one and not one.is_here]
    references.write_references(tenant_id=tenant_id, references=[_reference(item, one) for item, one in new])
    for item, one in items:
        if one and one.is_stored:
            Media.objects.filter(tenant_id=tenant_id, id=one.id).update(content_id=item.id)
    return len(new)


def _reference(item: OldItem, attachment: Attachment) -> Reference:
    name, mime_type, file_type = convert.file_facts(item)
    return Reference(
        id=attachment.id,
        content_id=item.id,
        file_name=name,
        mime_type=mime_type,
        file_type=file_type,
        external_url=item.file_url,
        uploaded_by=None,
        created_at=item.created_at,
    )


def _media_id(item: OldItem) -> UUID:
    return ids.new_id(f"{item.table}:media", item.old_id, keep=False)


def _here(tenant_id: UUID, media_id: UUID) -> bool | None:
    """Tell whether a file's row is here with bytes of ours; None where there is no such row."""
    with tenant_scope(tenant_id):
        row = Media.objects.filter(tenant_id=tenant_id, id=media_id).only("blob_id").first()
    return None if row is None else row.blob_id is not None


def _problem_of(url: str) -> tuple[str, str] | None:
    if not _is_plain(url):
        return "bad_file_url", f"file_url: {url[:100]!r} is no plain address of the web."
    return ("private_address", REFUSED) if files.address_is_refused(url) else None


def _is_plain(url: str) -> bool:
    """Tell whether everybody reads an address alike: with a host, without a name and password, without backslashes."""
    try:
        parts = urlsplit(url)
        return references.is_address(url) and bool(parts.hostname) and "@" not in parts.netloc and "\\" not in url
    except ValueError:
        return False
