"""`manage.py sweep_zerodb`: removes what is twice, damaged or for nothing in ZeroDB."""

import time
from typing import Any

from django.core.management.base import CommandError, CommandParser, OutputWrapper
from django.utils import timezone
from tqdm import tqdm

from content import collector, documents
from content.collector import Collected
from content.stores.base import COLLECTIONS, DocumentStore, StoreRejected, StoreUnavailable
from engarde.common.commands import JSONCommand

COLUMNS = ("rows", "keys", "foreign", "surplus", "damaged", "orphans", "removed", "repointed", "repairs", "unrepaired")


class Command(JSONCommand):
    """Tidies ZeroDB as the nightly task does; orphans only when asked to."""

    help = "Remove surplus and damaged rows from ZeroDB; rows that PostgreSQL does not know are listed, and removed with --orphans."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take what to look at and what to do."""
        super().add_arguments(parser)
        parser.add_argument("--dry-run", action="store_true", help="only look")
        parser.add_argument("--collection", choices=COLLECTIONS, help="one collection; all without")
        parser.add_argument(
            "--orphans", action="store_true", help="also remove rows over a day old that PostgreSQL does not know"
        )

    def run(self, **options: Any) -> dict[str, Any]:
        """Tidy and return the report.

        Raises:
            CommandError: there is no key, or ZeroDB does not answer or refuses.
        """
        store = documents.document_store()
        if store is None:
            raise CommandError("ZERODB_API_KEY is not set: there is nothing in ZeroDB.")
        started = time.perf_counter()
        names = [options["collection"]] if options["collection"] else COLLECTIONS
        refused, found = "", {}
        try:
            for name in names:
                found[name], reason = _sweep(store, name, options)
                refused = refused or reason
        except (StoreUnavailable, StoreRejected) as error:
            raise CommandError(str(error)) from error
        return {
            "dry_run": options["dry_run"],
            "collections": {name: collected.as_json() for name, collected in found.items()},
            "orphans_refused": refused,
            "seconds": round(time.perf_counter() - started, 3),
        }

    def show(self, report: dict[str, Any], out: OutputWrapper) -> None:
        """Print a line a collection, and the orphans."""
        out.write(" ".join([f"{'':<20}", *(f"{name:>10}" for name in COLUMNS)]))
        for name, found in report["collections"].items():
            out.write(" ".join([f"{name:<20}", *(f"{found[column]:>10}" for column in COLUMNS)]))
            for key in found["orphan_keys"]:
                out.write(f"  orphan: {key}")
        if report["orphans_refused"]:
            out.write(f"Orphans stay. {report['orphans_refused']}")

    def succeeded(self, report: dict[str, Any]) -> bool:
        """Fail when orphans were to be removed and must not be."""
        return not report["orphans_refused"]


def _sweep(store: DocumentStore, collection: str, options: dict[str, Any]) -> tuple[Collected, str]:
    """Tidy one collection; return what was found, and why its orphans had to stay."""
    dry_run, orphans = options["dry_run"], options["orphans"]
    refused = ""
    if orphans:
        found = _run(store, collection, options, dry_run=True, remove_orphans=False)
        refused = collector.refusal(found=found) if found.orphans else ""
        if dry_run:
            return found, refused
    return _run(store, collection, options, dry_run=dry_run, remove_orphans=orphans and not refused), refused


def _run(
    store: DocumentStore, collection: str, options: dict[str, Any], *, dry_run: bool, remove_orphans: bool
) -> Collected:
    with tqdm(unit="row", desc=collection, disable=options["json"]) as bar:
        return collector.run(
            store=store,
            collection=collection,
            now=timezone.now(),
            dry_run=dry_run,
            remove_orphans=remove_orphans,
            progress=bar.update,
        )
