"""The weekly drill's part in the child: a real tenant comes back from the real backup, which can only be read here.

All settings lead to throw-away places, as for every scenario, and there is no ZeroDB at all. Only the archive's options name the
real dataset, and say that it is read only; what a restore has to hold meanwhile goes into the drill's own dataset.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

from django.conf import settings

from content import documents, queries
from content.models import ContentItem
from dr import archives
from dr.scenarios import rows
from dr.scenarios.book import chunks
from dr.scenarios.scene import Play
from dr.scenarios.tiers import DrillArchive
from engarde.common.scopes import tenant_scope

SAMPLED = "sampled_tenant"
VERSIONS_FILE = "versions.txt"


def open_up(*, place: str, tell: Callable[[dict[str, Any]], None]) -> Play:
    """Make the dataset for what is held meanwhile, and have this process read the real one.

    Raises:
        NotThrowAway: the place is no drill's.
    """
    play = Play(place=place, tell=tell)
    with play.step("set up"):
        DrillArchive(place).set_up()
        settings.DR_ARCHIVE_OPTIONS = {
            **settings.DR_ARCHIVE_OPTIONS,
            "dataset": os.environ["DRILL_READS"],
            "scratch_dataset": place,
            "read_only": True,
        }
        archives.current.cache_clear()
    return play


def restore_and_read(play: Play) -> int:
    """Restore the tenant, read every item, write the versions' fingerprints for the parent, and return how many items there are."""
    tenant_id, began = UUID(os.environ["DRILL_TENANT"]), time.monotonic()
    with play.step("restore the tenant"):
        play.restore("--tenant", str(tenant_id))
    with play.step("read every item"):
        items = _read_all(play, tenant_id)
    play.measures["rto_seconds"] = round(time.monotonic() - began, 3)
    with Path(settings.DATA_DIR, VERSIONS_FILE).open("w") as file:
        for (content_id, version), digest in rows.versions(tenant_id=tenant_id).items():
            file.write(f"{content_id} {version} {digest.hex()}\n")
    return items


def _read_all(play: Play, tenant_id: UUID) -> int:
    """Read the documents of all items, each checked by its checksum."""
    documents.start_afresh()
    with tenant_scope(tenant_id):
        ids = list(ContentItem.objects.filter(tenant_id=tenant_id).values_list("id", flat=True))
    for chunk in chunks(ids):
        with tenant_scope(tenant_id):
            items = queries.as_items(ContentItem.objects.filter(tenant_id=tenant_id, id__in=chunk))
        for item in queries.with_documents(tenant_id=tenant_id, items=items):
            if item.document is None:
                play.differences.lose("content", item.id, "its document cannot be read")
    return len(ids)
