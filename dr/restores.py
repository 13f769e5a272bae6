"""The log of restores, and whom the backup knows."""

from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import DatabaseError

from dr.archives.base import Archive
from dr.models import Restore
from dr.restore import Wanted
from engarde.accounts import queries as account_queries
from engarde.common.scopes import system_scope


def begin(*, wanted: Wanted, now: datetime) -> UUID:
    """Note that a restore begins, and return its id."""
    with system_scope("note a restore"):
        return Restore.objects.create(
            tenant_id=wanted.tenant_id,
            as_of=wanted.as_of,
            tiers=sorted(wanted.tiers),
            dry_run=wanted.dry_run,
            started_at=now,
        ).id


def end(restore_id: UUID, *, ok: bool, report: dict[str, Any], now: datetime) -> None:
    """Note how a restore ended; should PostgreSQL be away by then, the report is with whoever ran it."""
    try:
        with system_scope("note the end of a restore"):
            Restore.objects.filter(id=restore_id).update(ok=ok, report=report, finished_at=now)
    except DatabaseError:
        return


def is_known(*, archive: Archive, tenant_id: UUID) -> bool:
    """Tell whether there is a tenant, or ever was one in the backup.

    Raises:
        ArchiveUnavailable, ArchiveRefused: the archive does not say.
    """
    return account_queries.find_tenant(tenant_id=tenant_id) is not None or archive.knows(tenant_id=tenant_id)
