"""Alerts, dashboard and runbook against a service that runs: metrics are told, and commands work."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cacheflow_ray.cli.app import run
from memory_store import Store
from tests.deploy.conftest import Service
from tests.deploy.promql import EXPRESSIONS, selectors
from tests.deploy.runbook import RUN, TEXT

#: Prometheus' own, and the labels it adds.
OWN = {"up": set[str]()}
ADDED = {"job", "instance"}


@pytest.mark.parametrize(("name", "expression"), EXPRESSIONS, ids=[name for name, _ in EXPRESSIONS])
def test_a_running_service_tells_of_its_metrics(name: str, expression: str, service: Service) -> None:
    told = service.metrics | OWN
    for selector in selectors(expression):
        assert selector.name in told, selector.name
        assert {own.name for own in selector.matchers.matchers} <= told[selector.name] | ADDED
    grouped = {label.strip() for found in re.findall(r"\bby \(([^)]*)\)", expression) for label in found.split(",")}
    assert grouped <= {label for own in selectors(expression) for label in told[own.name]}


def test_the_runbook_speaks_of_metrics_that_are_told(service: Service) -> None:
    named = set(re.findall(r"`((?:cacheflow|process)_[a-z_]+)`", TEXT))
    assert len(named) > 8 and named <= service.metrics.keys()


def test_nothing_that_is_told_is_seen_nowhere(service: Service) -> None:
    """But what Prometheus clients add to everything, and a tier of the store that `serve` does not turn on."""
    seen = {re.sub(r"_(bucket|sum|count)$", "", own.name) for _, one in EXPRESSIONS for own in selectors(one)}
    told = {re.sub(r"_(bucket|sum|count)$", "", name) for name in service.metrics if not name.endswith("_created")}
    unseen = {name for name in told - seen if name.startswith("cacheflow_")}
    assert unseen <= {"cacheflow_encoder_blocks", *(name for name in unseen if "_hot_" in name)}


def test_the_runbooks_commands_run(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order they stand there, in a folder where `served` is the service's."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "served").symlink_to(service.data)
    for command in RUN:
        if command.words[0] == "cacheflow":
            assert run(command.words[1:]) == 0, command.words
    with Store.open(tmp_path / "restored", read_only=True) as store:
        assert "lobby" in [own.stream_id for own in store.list_streams()]  # beside those of other tests
