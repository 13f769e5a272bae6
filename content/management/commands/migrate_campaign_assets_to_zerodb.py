"""`manage.py migrate_campaign_assets_to_zerodb`: the old platform's campaign_assets become content."""

from content.legacy.command import MigrationCommand
from content.legacy.source import ASSETS


class Command(MigrationCommand):
    """Moves campaign_assets over; legacy tables are only read, and a second run changes nothing."""

    help = (
        "Move campaign_assets of the old platform (LEGACY_DATABASE_URL, else tables of that name in this database) over, through "
        "the same operations as the API. Exits with 1 when some rows failed, with 2 when it could not run."
    )
    table = ASSETS
