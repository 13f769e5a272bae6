"""`manage.py setup_bigquery`: the dataset and its tables."""

from typing import Any

from django.core.management.base import CommandError

from dr import archives
from dr.archives.base import ArchiveRefused, ArchiveUnavailable
from engarde.common.commands import JSONCommand


class Command(JSONCommand):
    """Creates what is missing."""

    help = "Create the dataset and tables of the backup; running it again changes nothing."

    def run(self, **_: Any) -> dict[str, Any]:
        """Create and return the tables' names.

        Raises:
            CommandError: the backup is off, or BigQuery does not answer or refuses.
        """
        archive = archives.current()
        if archive is None:
            raise CommandError("The backup is off: set BIGQUERY_PROJECT_ID and BIGQUERY_SYNC_ENABLED=true.")
        try:
            return {"created": archive.set_up()}
        except (ArchiveUnavailable, ArchiveRefused) as error:
            raise CommandError(str(error)) from error
