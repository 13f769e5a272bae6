"""The way back from the archive: items and versions into PostgreSQL, documents through the spool into ZeroDB.

It writes only what is missing, so it can be stopped and started again, and over equal data it changes nothing.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import structlog

from content import documents, recovery, uploader
from content.stores.base import DocumentKey, DocumentStore
from dr import copies
from dr.archives.base import Archive
from dr.copies import ArchivedItem
from engarde.accounts import queries as account_queries
from engarde.common.scopes import tenant_scope
from quotas import reconciliation

log = structlog.get_logger(__name__)

TIERS = frozenset({"postgres", "zerodb"})


@dataclass(slots=True)
class Restored:
    """What a restore did, or in a dry run would do.

    Attributes:
        checked: items in the archive that were looked at.
        changed: items that differed in any tier.
        uploaded: documents that went to ZeroDB.
        errors: {"id", "code", "message"} for what could not be brought back.
    """

    checked: int = 0
    changed: int = 0
    uploaded: int = 0
    errors: list[dict[str, str]] = field(default_factory=list)

    def fail(self, item_id: object, code: str, message: str) -> None:
        """Note what could not be brought back."""
        self.errors.append({"id": str(item_id), "code": code, "message": message})


def run(
    *,
    archive: Archive,
    tenant_id: UUID | None,
    tiers: Iterable[str],
    dry_run: bool,
    now: Callable[[], datetime],
    progress: Callable[[int], object],
) -> Restored:
    """Restore a tenant, or all, to the latest state that the archive has.

    Args:
        tiers: "postgres", "zerodb" or both.
        progress: called with the number of items looked at since the last call.

    Raises:
        ArchiveUnavailable, ArchiveRefused: the archive does not give its rows.
        StoreUnavailable, StoreRejected: ZeroDB does not say what it has.
    """
    done, store = Restored(), documents.document_store()
    known, restored = set(account_queries.tenant_ids()), set[UUID]()
    if store is not None and "zerodb" in tiers and not dry_run:
        store.set_up()
    for piece in copies.pieces(copies.items(archive, tenant_id=tenant_id)):
        if piece[0].tenant_id in known:
            _restore_piece(piece, frozenset(tiers), store, done, dry_run=dry_run, now=now)
            restored.add(piece[0].tenant_id)
        else:
            done.fail(piece[0].tenant_id, "unknown_tenant", f"{len(piece)} items of a tenant that is not there")
        done.checked += len(piece)
        progress(len(piece))
    for owner in restored if "postgres" in tiers and not dry_run else ():
        with tenant_scope(owner):
            reconciliation.recount(tenant_id=owner, now=now())
    if store is not None and not dry_run:
        done.uploaded = _upload_all(store, now)
    return done


def _restore_piece(
    piece: Sequence[ArchivedItem],
    tiers: frozenset[str],
    store: DocumentStore | None,
    done: Restored,
    *,
    dry_run: bool,
    now: Callable[[], datetime],
) -> None:
    found = _trustworthy(piece, done)
    in_store = _rows_in_store(store, found)
    tenant_id, changed = piece[0].tenant_id, set()
    with tenant_scope(tenant_id):
        recovery.lock_recovery(tenant_id=tenant_id)
        if "postgres" in tiers:
            facts = recovery.recover_facts(tenant_id=tenant_id, copies=found, now=now(), dry_run=dry_run)
            changed |= facts.items
            for item_id, problem in facts.failures.items():
                done.fail(item_id, "not_restored", problem)
        # What came back to PostgreSQL needs its documents too, whichever tiers were asked for.
        lacking = found if "zerodb" in tiers else [copy for copy in found if copy.id in changed]
        if store is not None:
            changed |= recovery.recover_documents(
                tenant_id=tenant_id, copies=lacking, in_store=in_store, now=now(), dry_run=dry_run
            ).items
    done.changed += len(changed)


def _trustworthy(piece: Sequence[ArchivedItem], done: Restored) -> list[recovery.ItemCopy]:
    """Return copies of the items, noting damage; one whose latest record is damaged is left for a person to look at."""
    for item in piece:
        for version in item.damaged:
            done.fail(item.id, "damaged_record", f"version {version} is not what was backed up")
    return [item.copy() for item in piece if item.records[-1].version not in item.damaged]


def _rows_in_store(store: DocumentStore | None, found: Sequence[recovery.ItemCopy]) -> dict[DocumentKey, str]:
    keys = {key for copy in found for key in copy.keys()}  # noqa: SIM118 -- a method of ours, not of a dict
    return store.find_row_ids(keys) if store is not None and keys else {}


def _upload_all(store: DocumentStore, now: Callable[[], datetime]) -> int:
    """Send what was spooled; what fails stays there for the uploader."""
    total = 0
    while not (done := uploader.run_pass(store=store, now=now)).is_idle:
        total += done.uploaded
        if done.failed:
            log.warning("some documents did not reach ZeroDB; the uploader goes on with them", count=done.failed)
            break
    return total
