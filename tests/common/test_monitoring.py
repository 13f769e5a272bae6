"""The dashboard and the alert rules: importable, about figures that are there, and each alert leads to a section that is there."""

import json
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY, Metric
from prometheus_client.metrics import MetricWrapperBase

from engarde import (
    health,
    urls,  # noqa: F401 -- imports every room, and so what it counts
)

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "deploy/grafana/engarde.json").read_text())
RULES = [
    rule
    for group in yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
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


def anchors(file: Path) -> set[str]:
    """Return the anchors of a page's headings as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
