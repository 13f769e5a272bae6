"""The spool's end: a document leaves it when ZeroDB has it and, where the backup is on, BigQuery has acknowledged it."""

from collections.abc import Collection
from uuid import UUID

from django.conf import settings
from django.db.models import Exists, OuterRef

from content.models import ContentVersion, SpooledDocument


def drop_finished(*, content_ids: Collection[UUID]) -> int:
    """Inside a system scope, drop the finished documents of these items and return how many there were."""
    version = ContentVersion.objects.filter(content_id=OuterRef("content_id"), version=OuterRef("version"))
    done = version.exclude(zerodb_row_id=None)
    if settings.BIGQUERY_SYNC_ENABLED:
        done = done.exclude(backed_up_at=None)
    rows = SpooledDocument.objects.filter(Exists(done), content_id__in=set(content_ids)).exclude(uploaded_at=None)
    return rows.delete()[0]
