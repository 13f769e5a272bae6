"""The archive port and its adapter."""

from functools import cache
from typing import cast

from django.conf import settings
from django.utils.module_loading import import_string

from dr.archives.base import Archive


@cache
def current() -> Archive | None:
    """Return the process's archive, or None when the backup is switched off by setting."""
    if not settings.BIGQUERY_SYNC_ENABLED:
        return None
    return cast("Archive", import_string(settings.DR_ARCHIVE)(**settings.DR_ARCHIVE_OPTIONS))
