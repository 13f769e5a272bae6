"""`manage.py load_legacy_sample`: old data to rehearse the migration on."""

from typing import Any

from django.core.management.base import CommandError, CommandParser, OutputWrapper
from tqdm import tqdm

from content.legacy import sample, sample_dirt, sample_rows
from content.legacy.sample import Sample
from engarde.common.commands import JSONCommand


class Command(JSONCommand):
    """Makes the reference set, a dirty one or a large one, in a schema that holds nothing else."""

    help = (
        "Make old data to rehearse the migration on, in the schema LEGACY_SCHEMA of LEGACY_DATABASE_URL, or of our own "
        "database: the reference set of 140 content items and 35 assets, unless told otherwise."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Take which set to make."""
        super().add_arguments(parser)
        which = parser.add_mutually_exclusive_group()
        which.add_argument("--dirty", action="store_true", help="rows with every kind of dirt, and a few good ones")
        which.add_argument("--items", type=int, metavar="N", help="N content items with bodies of 2 KB")
        parser.add_argument("--replace", action="store_true", help="drop the sample that is there first")

    def run(self, **options: Any) -> dict[str, Any]:
        """Make it and return how many rows each table has, and with `--dirty` what is wrong with each.

        Raises:
            CommandError: the number of items is none.
        """
        if options["items"] is not None and options["items"] < 1:
            raise CommandError("--items has to be 1 or more.")
        with tqdm(
            total=options["items"], unit="row", desc="sample", disable=options["json"] or not options["items"]
        ) as bar:
            return sample.load(_wanted(options), replace=options["replace"], progress=bar.update)

    def show(self, report: dict[str, Any], out: OutputWrapper) -> None:
        """Print the tables, without the kinds of dirt."""
        out.write(f"{'schema':<22} {report['schema']}\n")
        for table in sample.TABLES:
            out.write(f"{table:<22} {report[table]['rows']}\n")


def _wanted(options: dict[str, Any]) -> Sample:
    if options["dirty"]:
        return sample_dirt.dirty()
    return sample_rows.sized(options["items"]) if options["items"] else sample_rows.reference()
