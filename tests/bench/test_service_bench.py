"""`cacheflow bench service` runs on real processes, and its report says what it has to; speeds mean nothing here."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cacheflow_ray.bench.render import numbers_behind, ratio_table
from cacheflow_ray.bench.results import RatioReport
from cacheflow_ray.bench.service.lab import TINY, Cluster
from cacheflow_ray.bench.service.run import PARTS, TARGETS, run_service_bench
from cacheflow_ray.bench.service.sizes import ServiceSizes
from cacheflow_ray.config import ServiceOptions
from cacheflow_ray.errors import UsageError
from cacheflow_ray.service.gateway import Gateway
from tests.actors.running import Running

pytestmark = pytest.mark.slow

SMALL = ServiceSizes(
    streams=3, frames=8, rounds=1, messages=20, window=4, channels=2, message_rounds=1, crowd=4, crowd_s=0.6,
    batch_s=0.6, batch_rounds=1, questions=4, questions_per_s=8.0, asked=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def report(live: Running, tmp_path_factory: pytest.TempPathFactory) -> RatioReport:
    """All parts, on the cluster of the other tests."""
    port = live.topology.serve(partial(Gateway, options=ServiceOptions(port=0)))
    try:
        cluster = Cluster(address=f"127.0.0.1:{port}")
        work = tmp_path_factory.mktemp("bench")
        return run_service_bench(model=TINY, work=work, sizes=SMALL, running={TINY: cluster})
    finally:
        live.topology.drain(1.0)


def test_every_part_measures_what_has_a_target(report: RatioReport) -> None:
    assert list(report.parts) == list(PARTS)
    assert report.ratios.keys() == TARGETS.keys()
    assert all(math.isfinite(value) for value in report.ratios.values())
    assert all(value > 0 for name, value in report.ratios.items() if name != "ask_overhead_ms")


def test_each_ratio_comes_with_its_target_and_the_numbers_behind_it(report: RatioReport) -> None:
    told: Any = json.loads(json.dumps(report.as_json()))
    assert told["ratios"] == report.ratios
    assert told["targets"].keys() == told["met"].keys() == told["details"].keys() == TARGETS.keys()
    assert set(told["missed"]) == {name for name, met in told["met"].items() if not met}
    assert told["machine"]["cpu"] and told["machine"]["cores"] >= 1 and told["machine"]["torch_threads"] >= 1

    of = told["details"]
    quotient = of["service_over_engine"]["service_frames_per_s"] / of["service_over_engine"]["engine_frames_per_s"]
    assert told["ratios"]["service_over_engine"] == pytest.approx(quotient)
    speeds = of["gateway_over_echo"]
    assert told["ratios"]["gateway_over_echo"] == pytest.approx(speeds["gateway_mb_per_s"] / speeds["echo_mb_per_s"])
    assert {"word_mb_per_s", "gateway_to_actor_mb_per_s"} <= speeds.keys()
    memory = of["fairness_max_over_min"]["own_memory_mb"]
    assert all(memory[when][role] > 10 for when in ("before", "during", "after") for role in ("gateway", "encoder"))
    busy = of["ttft_busy_over_idle"]
    assert 0 < busy["idle_p50_ms"] <= busy["idle_p99_ms"] and 0 < busy["busy_p50_ms"] <= busy["busy_p99_ms"]
    assert not busy["ingest_ended_early"]


def test_the_table_shows_every_ratio(report: RatioReport) -> None:
    behind = {name: numbers_behind(details) for name, details in report.details.items()}
    table = ratio_table(report, behind)
    assert table.row_count == len(TARGETS)
    assert "frames_per_s" in behind["service_over_engine"]


def test_its_folder_is_gone(report: RatioReport, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert list(tmp_path_factory.getbasetemp().glob("bench*/*")) == []


def test_an_unknown_part_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no part 'speed' to measure: use ingest, busy"):
        run_service_bench(only=["speed"], work=tmp_path)
