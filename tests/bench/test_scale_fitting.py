"""Costs fitted to runs whose costs are known; and what an ingest does, counted by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheflow_ray.bench.scale.counting import amounts, full_blocks, keep_after_first
from cacheflow_ray.bench.scale.fitting import ONCE, cost, fit
from cacheflow_ray.bench.scale.sizes import Ingests

RUNS = [{"frames": 96.0, "blocks": 10.0}, {"frames": 48.0, "blocks": 40.0}, {"frames": 64.0, "blocks": 300.0}]

COST = st.floats(1e-6, 1e3)


@given(frame=COST, block=COST, once=COST)
def test_costs_that_explain_the_runs_are_found(frame: float, block: float, once: float) -> None:
    rates = {"frames": frame, "blocks": block, ONCE: once}
    runs = [(run, cost(rates, run)) for run in RUNS]

    found = fit(runs, list(rates))

    for run, took in runs:
        assert cost(found, run) == pytest.approx(took, rel=1e-6)


def test_exact_costs_are_recovered_one_by_one() -> None:
    rates = {"frames": 0.002, "blocks": 0.005, ONCE: 0.1}

    assert fit([(run, cost(rates, run)) for run in RUNS], list(rates)) == pytest.approx(rates)


def test_nothing_costs_less_than_nothing() -> None:
    """More blocks, fewer seconds: frames alone have to explain it."""
    runs = [({"frames": 10.0, "blocks": 1.0}, 10.0), ({"frames": 10.0, "blocks": 5.0}, 9.0)]

    found = fit(runs, ["frames", "blocks"])

    assert found["blocks"] == 0.0
    assert found["frames"] == pytest.approx(0.95, rel=0.01)


def test_what_took_no_time_costs_nothing() -> None:
    assert fit([(run, 0.0) for run in RUNS], ["frames", "blocks"]) == pytest.approx({"frames": 0, "blocks": 0})


def test_an_ingest_is_counted_by_hand() -> None:
    ingests = Ingests(streams=2, frames=16, height=100, width=1000, tau=0.5)

    done = amounts(ingests, blocks=6.0)  # two steps, three blocks a stream: one and a half a step

    assert done["frames"] == 32 and done["streams"] == 2
    assert done["megapixels"] == pytest.approx(3.2) and done["source_megapixels"] == pytest.approx(6.4)
    assert done["calls"] == pytest.approx(2 * (1 + 0.75))  # the odd halves meet in a quarter of the steps
    assert done["commits"] == 3


def test_a_stream_with_few_blocks_calls_once_for_each() -> None:
    done = amounts(Ingests(streams=1, frames=80, height=8, width=8, tau=0.5), blocks=2.0)

    assert done["calls"] == pytest.approx(2.0)
    assert done["commits"] == pytest.approx(3.0)


def test_the_first_frame_is_kept_whole_whatever_the_keep_rate() -> None:
    ingests = Ingests(streams=3, frames=101, height=8, width=8, tau=0.5)

    assert full_blocks(ingests, 0.1, patches=16, block_tokens=16) == 3 * 11
    assert keep_after_first(keep=0.2, frames=11) == pytest.approx(0.12)
