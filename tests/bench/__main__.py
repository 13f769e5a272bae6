"""`make bench`: the benchmark table. Each figure stands beside its baseline, measured in the same run."""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from engarde.embedded import session
from tests.bench.measure import Row

SETTINGS = {
    "DJANGO_SETTINGS_MODULE": "tests.bench.settings",
    "THROTTLE_TENANT": "off",
    "THROTTLE_LOGIN": "off",
    "LOG_LEVEL": "ERROR",
}


def main() -> int:
    """Run the benchmarks and print the table."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="engarde-bench-") as folder:
        for name in session.OWN_SERVICE.values():
            os.environ.pop(name, None)
        os.environ.update(SETTINGS, DATA_DIR=folder)
        with session.join(Path(folder), session.needed(os.environ), wait_for_end=True) as settings:
            os.environ.update(settings, **{session.JOINED: "joined"})
            _prepare()
            rows = [_shown(row, as_json=options.json) for row in _rows(options)]
    if options.json:
        sys.stdout.write(json.dumps({"rows": [asdict(row) for row in rows]}, indent=2) + "\n")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--only", default="", help="only the groups with this in their name")
    parser.add_argument("--items", type=int, default=1_000_000, help="items of the large tenant")
    parser.add_argument("--backup-items", type=int, default=20_000, help="items that are backed up and restored")
    parser.add_argument("--full", action="store_true", help="measure a restore's memory at 200,000 items, too")
    return parser.parse_args()


def _prepare() -> None:
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    call_command("setup_zerodb", verbosity=0, stdout=sys.stderr)
    call_command("setup_bigquery", verbosity=0, stdout=sys.stderr)


def _rows(options: argparse.Namespace) -> Iterator[Row]:
    from tests.bench import groups

    known = groups.all_groups(options.items, options.backup_items, full=options.full)
    for name, group in known.items():
        if options.only in name:
            yield from group()


def _shown(row: Row, *, as_json: bool) -> Row:
    if not as_json:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        note = f"  {row.note}" if row.note else ""
        sys.stdout.write(f"{row.name:<44} {row.figure:>14} {row.baseline:>14} {ratio:>7}  {row.goal:<18}{note}\n")
        sys.stdout.flush()
    return row


if __name__ == "__main__":
    sys.exit(main())
