"""The dashboard and the alert rules: importable, about figures that are there, and each alert leads to a section that is there."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import chain, takewhile
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.urls import resolve
from prometheus_client import REGISTRY, Metric
from prometheus_client.metrics import MetricWrapperBase

from engarde import (
    health,
    urls,  # noqa: F401 -- imports every room, and so what it counts
)

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "deploy/grafana/engarde.json").read_text())
RULES_FILE = str(ROOT / "deploy/prometheus/alerts.yml")
GROUPS = yaml.safe_load(Path(RULES_FILE).read_text())["groups"]
RULES = [rule for group in GROUPS for rule in group["rules"]]
CASES = [str(Path(__file__).with_name(name)) for name in ("alerts_test.yml", "alerts_weeks_test.yml")]
PROMTOOL = shutil.which("promtool")  # of Debian's package prometheus
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "gauge": ("",)}
SELECTOR = re.compile(r"(engarde_\w+)(?:\{([^}]*)\})?")
ROWS = {"Requests", "Spool and carriers", "Documents and ZeroDB", "Quotas", "Generation", "Backup"}


def panels() -> Iterator[dict[str, Any]]:
    return (panel for panel in DASHBOARD["panels"] if panel["type"] != "row")


def expressions() -> list[str]:
    asked = [target["expr"] for panel in panels() for target in panel["targets"]]
    return asked + [rule["expr"] for rule in RULES]


@pytest.fixture
def exported(database: None, monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """Every name that can stand in a query, with its labels."""
    monkeypatch.setattr(health, "CHECK_SECONDS", 20.0)
    found: dict[str, set[str]] = {}
    for metric in chain(REGISTRY.collect(), health._from_database.collect()):
        for suffix in SUFFIXES.get(metric.type, ()):
            found[f"{metric.name}{suffix}"] = labels_of(metric)
    return found


def labels_of(metric: Metric) -> set[str]:
    made = REGISTRY._names_to_collectors.get(metric.name)
    declared = set(made._labelnames) if isinstance(made, MetricWrapperBase) else set(getattr(metric, "_labelnames", ()))
    return declared | {"le"} if metric.type == "histogram" else declared


def test_every_figure_that_is_asked_for_is_there(exported: dict[str, set[str]]) -> None:
    asked = [match for expression in expressions() for match in SELECTOR.finditer(expression)]

    assert {match[1] for match in asked} - exported.keys() == set()
    for match in asked:
        labels = set(re.findall(r"(\w+)\s*[=!]", match[2] or ""))
        assert labels <= exported[match[1]], match[0]
    assert len({match[1] for match in asked}) > 50


def test_every_figure_of_ours_is_shown_somewhere(exported: dict[str, set[str]]) -> None:
    shown = {re.sub("_(bucket|count|sum)$", "", match[1]) for one in expressions() for match in SELECTOR.finditer(one)}
    ours = {re.sub("_(bucket|count|sum)$", "", name) for name in exported if name.startswith("engarde_")}

    assert ours - shown == {
        "engarde_backup_batches_total",
        "engarde_backup_loads_total",
        "engarde_backup_seconds_total",
    }


def table(page: str, header: str) -> set[str]:
    """Return the names in the first column of the table that begins so."""
    lines = (ROOT / page).read_text().splitlines()
    [start] = [number for number, line in enumerate(lines) if line.startswith(header)]
    rows = takewhile(lambda line: line.startswith("|"), lines[start + 2 :])
    return {name for row in rows for name in re.findall(r"`(\w+)[^`]*`", row.split("|")[1])}


def test_every_figure_of_ours_is_explained_and_no_other(exported: dict[str, set[str]]) -> None:
    backup = {f"engarde_backup_{name}" for name in table("docs/dr/runbook.md", "| `engarde_backup_…` |")}
    explained = table("docs/guides/operations.md", "| metric |") - {"engarde_backup_"} | backup
    ours = {re.sub("_(bucket|count|sum)$", "", name) for name in exported if name.startswith("engarde_")}

    assert explained == ours


def test_the_dashboard_can_be_imported_anywhere() -> None:
    [variable] = DASHBOARD["templating"]["list"]
    ids = [panel["id"] for panel in DASHBOARD["panels"]]

    assert (variable["type"], variable["query"]) == ("datasource", "prometheus")
    assert 36 <= DASHBOARD["schemaVersion"] <= 42
    assert DASHBOARD.get("id") is None
    assert len(ids) == len(set(ids))
    for panel in panels():
        for part in (panel, *panel["targets"]):
            assert part["datasource"] == {"type": "prometheus", "uid": f"${{{variable['name']}}}"}


def test_the_dashboard_has_a_row_for_each_part_and_no_panel_over_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not taken & cells, panel["title"]
        taken |= cells

    assert {panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"} >= ROWS


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_an_alert_says_what_is_wrong_how_bad_it_is_and_where_to_read_on(rule: dict[str, Any]) -> None:
    file, _, anchor = rule["annotations"]["runbook"].partition("#")

    assert file in {"docs/dr/runbook.md", "docs/guides/operations.md"}
    assert anchor in anchors(ROOT / file)
    assert rule["annotations"]["summary"].endswith(".")
    assert rule["labels"]["severity"] in {"page", "ticket"}


def test_no_two_alerts_share_a_name() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES)


def test_no_alert_about_the_backup_is_raised_where_it_is_off() -> None:
    [group] = [group for group in GROUPS if group["name"] == "engarde-backup"]

    for rule in group["rules"]:
        if rule["alert"] != "EngardeBackupFails":  # failing, it is on
            assert rule["expr"].endswith(" and on() max(engarde_backup_on) == 1"), rule["alert"]


def test_routes_that_an_alert_leaves_out_are_there() -> None:
    [errors] = [rule["expr"] for rule in RULES if rule["alert"] == "EngardeErrors"]
    routes = set(re.findall(r"/(?:api|metrics)[\w/-]*", errors))

    assert routes == {"/metrics", "/api/admin/bigquery-sync/health", "/api/content/generate"}
    assert {f"/{resolve(route).route}" for route in routes} == routes


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
@pytest.mark.parametrize("arguments", [["check", "rules", RULES_FILE], ["test", "rules", *CASES]])
def test_prometheus_takes_the_rules_and_they_fire_when_they_should(arguments: list[str]) -> None:
    done = subprocess.run([str(PROMTOOL), *arguments], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


def anchors(file: Path) -> set[str]:
    """Return the anchors of a page's headings as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
