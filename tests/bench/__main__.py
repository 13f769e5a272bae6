"""`make bench`: the benchmark table. Each figure stands beside its baseline, measured in the same run."""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from engarde.embedded import session
from tests.bench.measure import Row

if TYPE_CHECKING:
    from tests.bench.report import Measured

GROUPS = (
    *("http", "quota", "generation", "migration"),
    *("backup", "backup-memory", "backup-load", "backup-scenarios", "large"),
)
SETTINGS = {
    "DJANGO_SETTINGS_MODULE": "tests.bench.settings",
    "THROTTLE_TENANT": "off",
    "THROTTLE_LOGIN": "off",
    "LOG_LEVEL": "ERROR",
}


def main() -> int:
    """Run the benchmarks and print the table, or make a page from what was measured before."""
    options = _options()
    if options.merge:
        _merge(options)
        return 0
    with tempfile.TemporaryDirectory(prefix="engarde-bench-") as folder:
        for name in session.OWN_SERVICE.values():
            os.environ.pop(name, None)
        os.environ.update(SETTINGS, DATA_DIR=folder)
        with session.join(Path(folder), session.needed(os.environ), wait_for_end=True) as settings:
            os.environ.update(settings, **{session.JOINED: "joined"})
            _prepare()
            _measure(options)
    return 0


def _merge(options: argparse.Namespace) -> None:
    import django

    os.environ.update(SETTINGS)
    django.setup()
    from tests.bench import report

    try:
        report.write_page(options.page, *report.put_together(options.merge))
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"No page is made: {error}")


def _measure(options: argparse.Namespace) -> None:
    from tests.bench import groups, report

    facts = report.machine()
    if not options.json:
        sys.stdout.write("".join(f"{name:<10} {value}\n" for name, value in facts.items()))
    runs = [[_shown(row, as_json=options.json) for row in _rows(options, run)] for run in range(options.runs)]
    curves = groups.growth_curves() if options.growth or options.page else []
    rows = report.merged(runs)
    if options.runs > 1 and not options.json:
        _show_spread(rows)
    found = report.as_json(rows, facts, curves)
    if options.json:
        sys.stdout.write(found + "\n")
    if options.report:
        options.report.write_text(found + "\n", encoding="utf-8")
    if options.page:
        report.write_page(options.page, rows, facts, curves)


def _show_spread(rows: "list[Measured]") -> None:
    sys.stdout.write("\n")
    for one in rows:
        if one.lowest is not None:
            spread = f"{one.row.ratio:.2f}, {one.lowest:.2f} to {one.highest:.2f} in {one.runs} runs"
            sys.stdout.write(f"{one.row.name:<44} {spread}  {one.row.goal}\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the JSON object to a file too")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write a page for the docs, with pictures of growth")
    parser.add_argument("--growth", action="store_true", help="measure the curves of growth, too")
    parser.add_argument(
        "--runs",
        type=int,
        default=1,
        metavar="N",
        help="run the table N times and tell the spread; what takes very long once",
    )
    parser.add_argument(
        "--merge",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="measure nothing: make the --page from reports of parts of the table, such as of several --only, or of the scenarios",
    )
    parser.add_argument(
        "--only", type=_names, default=GROUPS, metavar="NAME[,NAME]", help=f"only these groups of {', '.join(GROUPS)}"
    )
    parser.add_argument("--items", type=int, default=1_000_000, help="items of the large tenant")
    parser.add_argument("--backup-items", type=int, default=20_000, help="items that are backed up and restored")
    parser.add_argument("--full", action="store_true", help="measure a restore's memory at 200,000 items, too")
    options = parser.parse_args()
    if options.merge and not options.page:
        parser.error("--merge makes a page: say where with --page FILE.")
    if options.runs < 1:
        parser.error("--runs is 1 or more.")
    return options


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if unknown := [name for name in names if name not in GROUPS]:
        raise argparse.ArgumentTypeError(f"there is no group {', '.join(unknown)}")
    return names


def _prepare() -> None:
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    call_command("setup_zerodb", verbosity=0, stdout=sys.stderr)
    call_command("setup_bigquery", verbosity=0, stdout=sys.stderr)


def _rows(options: argparse.Namespace, run: int) -> Iterator[Row]:
    from tests.bench import groups

    known = groups.all_groups(options.items, options.backup_items, full=options.full)
    for name in options.only:
        if run == 0 or name not in groups.ONCE:
            yield from known[name]()


def _shown(row: Row, *, as_json: bool) -> Row:
    if not as_json:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        note = f"  {row.note}" if row.note else ""
        sys.stdout.write(f"{row.name:<44} {row.figure:>14} {row.baseline:>14} {ratio:>7}  {row.goal:<18}{note}\n")
        sys.stdout.flush()
    return row


if __name__ == "__main__":
    sys.exit(main())
