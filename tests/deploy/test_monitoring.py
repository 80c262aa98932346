"""Alerts and dashboard: they parse as PromQL, and speak of what a running service tells."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import promql_parser
import pytest
import yaml
from grpc import StatusCode

from tests.deploy.kustomize import objects
from tests.deploy.lines import DEPLOY, RUNBOOK
from tests.deploy.promql import BOARD, EXPRESSIONS, FOLDER, RULES, selectors


@pytest.mark.parametrize(("name", "expression"), EXPRESSIONS, ids=[name for name, _ in EXPRESSIONS])
def test_an_expression_parses_and_selects_something(name: str, expression: str) -> None:
    assert selectors(expression)


def test_what_is_no_promql_is_found() -> None:
    for wrong in ("sum by (le (x)", "rate(x)", "x{a=b}", "histogram_quantile(x)"):
        with pytest.raises(ValueError):
            promql_parser.parse(wrong)


def test_status_codes_are_such() -> None:
    codes = {
        code for _, one in EXPRESSIONS for found in re.findall(r'code=~?"([^"]*)"', one) for code in found.split("|")
    }
    assert codes and codes <= {code.name for code in StatusCode}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_is_whole_and_explained(rule: dict[str, Any]) -> None:
    assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
    assert promql_parser.parse_duration(rule.get("for", "1m"))
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert page == "docs/runbook.md" and anchor == rule["alert"].lower()
    labels = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    assert labels <= {"actor", "method"}


def test_every_alert_of_the_runbook_is_one_and_in_order() -> None:
    assert re.findall(r"^### (Cacheflow\w+)$", RUNBOOK.read_text(), flags=re.MULTILINE) == [
        own["alert"] for own in RULES
    ]


def test_a_filling_store_is_told_of_by_the_size_of_its_claim() -> None:
    sizes = {
        own["spec"]["resources"]["requests"]["storage"]
        for own in objects(DEPLOY / "kubernetes" / "base" / "storage.yaml")
    }
    (size,) = sizes
    (rule,) = [own for own in RULES if own["alert"] == "CacheflowStoreFilling"]
    assert rule["expr"].endswith(f"0.8 * {int(size.removesuffix('Gi')) * 2**30}")


def test_prometheus_and_grafana_are_given_what_there_is() -> None:
    prometheus = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    assert prometheus["rule_files"] == ["alerts.yml"]
    assert [own["job_name"] for own in prometheus["scrape_configs"]] == ["cacheflow"]
    (source,) = yaml.safe_load((FOLDER / "grafana-datasource.yml").read_text())["datasources"]
    used = {panel["datasource"]["uid"] for panel in BOARD["panels"] if "datasource" in panel}
    used |= {target["datasource"]["uid"] for panel in BOARD["panels"] for target in panel.get("targets", [])}
    assert used == {source["uid"]}
    compose = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())["services"]
    (provider,) = yaml.safe_load((FOLDER / "grafana-dashboards.yml").read_text())["providers"]
    assert any(f"dashboard.json:{provider['options']['path']}/" in own for own in compose["grafana"]["volumes"])
    assert source["url"] == "http://prometheus:9090" and "prometheus" in compose


def test_panels_of_the_dashboard_do_not_overlap() -> None:
    panels = BOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for own in (panel["gridPos"] for panel in panels)
        for x in range(own["x"], own["x"] + own["w"])
        for y in range(own["y"], own["y"] + own["h"])
    ]
    assert len(set(cells)) == len(cells) and max(x for x, _ in cells) < 24
    assert all(later["gridPos"]["y"] >= earlier["gridPos"]["y"] for earlier, later in pairwise(panels))
