"""The benchmark as one table over several runs, with the machine that it was measured on, as JSON and as a page of the docs."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench import backup_apart
from tests.bench.growth import Curve
from tests.bench.measure import Row

PAGE = """# Benchmarks

Made by `python -m tests.bench --runs 3 --page docs/benchmarks.md`, or part by part with `--only NAME --report FILE` and at last
`--merge FILE … --page docs/benchmarks.md`; do not edit it by hand. `make bench` prints the table of one run.

Each figure stands beside its baseline, measured in the same run: the ratio says more than the figure, which belongs to one machine.
The baseline of the HTTP rows is a plain DRF viewset over one table, behind the same server
([tests/bench/baseline](../tests/bench/baseline)); the others are bare loops over the same clients. A ratio above 1 means that we are faster.
What the scenarios did, step by step, is in [the disaster report](dr/test-report.md).

{facts}

| | ours | baseline | ratio | spread | goal | |
|---|---:|---:|---:|---|---|---|
{rows}

{curves}
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """A row over several runs: the one with the median ratio.

    Attributes:
        lowest, highest: ratio; None where there is none.
    """

    row: Row
    runs: int
    lowest: float | None
    highest: float | None


def merged(runs: Sequence[Sequence[Row]]) -> list[Measured]:
    """Return every row once, in the order of the first run."""
    found: dict[str, list[Row]] = {}
    for run in runs:
        for row in run:
            found.setdefault(row.name, []).append(row)
    return [_merged(rows) for rows in found.values()]


def _merged(rows: Sequence[Row]) -> Measured:
    ratios = [row.ratio for row in rows if row.ratio is not None]
    if not ratios:
        return Measured(rows[0], len(rows), None, None)
    middle = median(ratios)
    chosen = min(rows, key=lambda row: abs((row.ratio or 0.0) - middle))
    return Measured(replace(chosen, ratio=middle), len(rows), min(ratios), max(ratios))


def machine() -> dict[str, str]:
    """Return what the figures depend on."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SHOW server_version")
        [postgres] = cursor.fetchone()
    kernel = platform.release().partition("-")[0]
    return {
        "measured": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": _commit(),
        "processor": f"{os.cpu_count()} x {_processor()}",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1024**3:.0f} GB",
        "system": f"{platform.system()} {kernel}, Python {platform.python_version()}, PostgreSQL {postgres}",
        "services": "embedded, on the same machine as the load",
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _commit() -> str:
    git = ["git", "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def as_json(rows: Sequence[Measured], facts: Mapping[str, str], curves: Sequence[Curve]) -> str:
    """Return one JSON object; `rows` are those of the table, with the spread of their ratios."""
    table = [
        {**asdict(one.row), "runs": one.runs, "lowest_ratio": one.lowest, "highest_ratio": one.highest} for one in rows
    ]
    found: dict[str, Any] = {"machine": dict(facts), "rows": table, "curves": [asdict(curve) for curve in curves]}
    return json.dumps(found, indent=2)


def put_together(paths: Sequence[Path]) -> tuple[list[Measured], dict[str, str], list[Curve]]:
    """Return rows, machine and curves of reports in the order given; of a row measured twice the later one is taken.

    Args:
        paths: of what `--report` wrote, here or for `test_dr_scenario`.

    Raises:
        ValueError: they were measured on different machines.
    """
    rows: dict[str, Measured] = {}
    curves: dict[str, Curve] = {}
    facts: dict[str, str] = {}
    for path in paths:
        found = json.loads(path.read_text(encoding="utf-8"))
        if "scenarios" in found:
            rows |= {row.name: Measured(row, 1, None, None) for row in backup_apart.rows_of(found)}
            continue
        facts = _same_machine(facts, found["machine"])
        rows |= {one["name"]: _measured(one) for one in found["rows"]}
        curves |= {one["name"]: Curve(**one) for one in found["curves"]}
    return list(rows.values()), facts, list(curves.values())


def _same_machine(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str]:
    if before and any(before[name] != after[name] for name in ("processor", "memory", "system")):
        raise ValueError(f"Figures of two machines make no table: {before} and {after}.")
    joined = {
        name: ", ".join(dict.fromkeys([*before.get(name, "").split(", "), after[name]])).removeprefix(", ")
        for name in ("measured", "commit")
    }
    return {**after, **joined}


def _measured(one: dict[str, Any]) -> Measured:
    row = Row(**{field.name: one[field.name] for field in fields(Row)})
    return Measured(row, one["runs"], one["lowest_ratio"], one["highest_ratio"])


def write_page(path: Path, rows: Sequence[Measured], facts: Mapping[str, str], curves: Sequence[Curve]) -> None:
    """Write the page, and the curves' pictures beside those of the other pages."""
    pictures = path.parent / "pictures"
    drawn = []
    for curve in curves:
        name = f"bench-{curve.name}.svg"
        (pictures / name).write_text(curve.picture(), encoding="utf-8")
        drawn.append(f"## {curve.title}\n\n![{curve.title}](pictures/{name})\n\n{curve.note}\n")
    page = PAGE.format(
        facts="\n".join(f"- {name}: {value}" for name, value in facts.items()),
        rows="\n".join(map(_line, rows)),
        curves="\n".join(drawn),
    )
    path.write_text(page.rstrip() + "\n", encoding="utf-8")


def _line(one: Measured) -> str:
    row = one.row
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    spread = "" if one.lowest is None or one.runs < 2 else f"{one.lowest:.2f} to {one.highest:.2f} in {one.runs} runs"
    cells = (row.name, row.figure, row.baseline, ratio, spread, row.goal, row.note)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
