"""`manage.py migrate_content_items_to_zerodb`: the old platform's content_items become content."""

from content.legacy.command import MigrationCommand
from content.legacy.source import ITEMS


class Command(MigrationCommand):
    """Moves content_items over; legacy tables are only read, and a second run changes nothing."""

    help = (
        "Move content_items of the old platform (LEGACY_DATABASE_URL, else tables of that name in this database) over, through "
        "the same operations as the API. Exits with 1 when some rows failed, with 2 when it could not run."
    )
    table = ITEMS
