"""Predictions beside measurements: their errors and targets with made-up costs, and one real run at toy sizes."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from cacheflow_ray.bench.scale.asking import AskRun, ask_amounts
from cacheflow_ray.bench.scale.calibrating import IngestRun
from cacheflow_ray.bench.scale.counting import amounts
from cacheflow_ray.bench.scale.decoding import Decoding
from cacheflow_ray.bench.scale.measured import Fitted, fit_all
from cacheflow_ray.bench.scale.render import tables
from cacheflow_ray.bench.scale.run import ScaleReport, Wanted, run_scale_bench
from cacheflow_ray.bench.scale.sizes import Asked, Ingests, ScaleSizes
from cacheflow_ray.bench.scale.validate import compare, predict
from cacheflow_ray.bench.scale.waiting import timed
from cacheflow_ray.bench.scale.workloads import Live, Video
from cacheflow_ray.cli.app import run
from cacheflow_ray.errors import UsageError

#: A frame 2 ms, a block 10 ms, a stream 5 ms; 1 kB a stream, 50 kB a block; a question 20 ms and 1 ms for 10 tokens.
FRAME_S, BLOCK_S, STREAM_S, DECODE_S = 0.002, 0.010, 0.005, 0.003
HELD_OUT = Ingests(streams=3, frames=40, height=100, width=1000, tau=0.5)

TOY = ScaleSizes(
    calibrated=(
        Ingests(streams=1, frames=16, height=64, width=64, tau=2.0),
        Ingests(streams=2, frames=8, height=96, width=128, tau=-1.0),
    ),
    asked=(Asked(blocks=20, top_k=1, max_new_tokens=1), Asked(blocks=40, top_k=4, max_new_tokens=2)),
    held_out=Ingests(streams=2, frames=12, height=64, width=96, tau=2.0),
    held_out_ask=Asked(blocks=0, top_k=2, max_new_tokens=2),
    sample_frames=8, rounds=1, questions_a_round=2, decoded_frames=4, decoded_sizes=((64, 64),),
)  # fmt: skip


def ingest_run(ingests: Ingests, blocks: float) -> IngestRun:
    """What an ingest takes where costs are the made-up ones."""
    done = amounts(ingests, blocks)
    vision, store = FRAME_S * done["frames"], BLOCK_S * blocks
    rest, decode = STREAM_S * done["streams"], DECODE_S * done["source_megapixels"]
    stages = {"vision": vision, "drop_and_pack": 0.0, "language_model": 0.0, "summarise": 0.0, "store": store}
    return IngestRun(
        amounts=done, stages_s=stages | {"rest": rest}, own_s=vision + store + rest, clock_s=9.0,
        core_s=vision + store + decode, keep=0.1, disk_bytes=round(1000 * done["streams"] + 50_000 * blocks),
        block_bytes=50_000.0,
    )  # fmt: skip


def ask_run(context: float) -> AskRun:
    done = ask_amounts(vectors=10.0, context=context, tokens=1.0)
    stages = {"prepare": 0.02, "retrieve": 0.0, "rehydrate": 1e-4 * context, "first_token": 0.0, "more_tokens": 0.0}
    stages["remember"] = 0.005
    return AskRun(
        amounts=done, stages_s=stages, own_s=sum(stages.values()), clock_s=9.0, generated=1.0, fetched_bytes=1.0
    )


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    kinds = [(1, 16, 5.0), (2, 32, 40.0), (4, 24, 8.0), (1, 64, 1.0)]
    ingests = [
        ingest_run(Ingests(streams=streams, frames=frames, height=100, width=100 * streams, tau=0.5), blocks)
        for streams, frames, blocks in kinds
    ]
    decoded = Decoding(
        codec="h264", height=100, width=100, core_s=DECODE_S / 100, video_bytes=1.0, jpeg_bytes=1.0, rgb_bytes=1.0
    )
    return fit_all(ingests, [ask_run(100.0), ask_run(400.0)], [decoded], cores=2)


def test_another_workload_is_predicted_where_costs_are_as_the_model_has_them(fitted: Fitted) -> None:
    ingest, ask = ingest_run(HELD_OUT, 30.0), ask_run(250.0)

    validation = compare(predict(fitted, ingest.amounts, ask.amounts), ingest, ask)

    assert validation.predicted == pytest.approx(validation.measured)
    assert all(target.is_met(validation.ratios[name]) for name, target in validation.targets.items())
    assert validation.clock == {"ingest_s": 9.0, "question_ms": 9000.0}


def test_a_prediction_that_is_a_quarter_off_misses_its_target(fitted: Fitted) -> None:
    ingest, ask = ingest_run(HELD_OUT, 30.0), ask_run(250.0)
    predicted = predict(fitted, ingest.amounts, ask.amounts) | {"ingest_s": ingest.own_s * 0.75}

    validation = compare(predicted, ingest, ask)

    assert validation.errors["ingest_s"] == pytest.approx(0.25)
    missed = [name for name, target in validation.targets.items() if not target.is_met(validation.ratios[name])]
    assert missed == ["ingest_s_error"]


def test_decoding_counts_by_the_clock_once_there_are_no_cores_for_it(fitted: Fitted) -> None:
    done = {"frames": 10.0, "streams": 0.0, "blocks": 0.0, "source_megapixels": 100.0}

    assert fitted.ingest_seconds(done | {"source_megapixels": 1.0}) == pytest.approx(10 * FRAME_S)
    assert fitted.ingest_seconds(done) == pytest.approx((10 * FRAME_S + 100 * DECODE_S) / 2)


def test_waiting_for_a_core_is_no_part_of_what_work_takes() -> None:
    with timed() as time_of:
        time.sleep(0.02)

    assert time_of.clock_s >= 0.02
    assert 0 <= time_of.waited_s <= time_of.clock_s
    assert time_of.own_s == pytest.approx(time_of.own_share * time_of.clock_s)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> ScaleReport:
    """Everything for real, at toy sizes: no speed in it means anything."""
    work = tmp_path_factory.mktemp("scale")
    found = run_scale_bench(work=work, sizes=TOY, wanted=Wanted())
    assert list(work.iterdir()) == []
    return found


def test_the_report_has_costs_scenarios_and_a_validation(report: ScaleReport) -> None:
    told: Any = json.loads(json.dumps(report.as_json()))

    assert told["costs"].keys() == {"here", "llava-ov-0.5b", "llava-ov-7b", "fits"}
    assert told["scenarios"].keys() == {"live_1000", "archive_100k_hours"}
    for scenario in told["scenarios"].values():
        for needs in scenario["needs"].values():
            assert needs["encoders"] >= 1 and needs["answers"]["answerers"] >= 1
            assert needs["disk_tb"] > 0 and needs["ram_gb"] > 0 and needs["ingress_gbit_per_s"] > 0
            assert 0 < needs["answers"]["p50_s"] <= needs["answers"]["p95_s"]
            assert needs["per_video_hour"] > 0
        gpus = list(scenario["gpus_at_mfu"].values())
        assert gpus == sorted(gpus, reverse=True)
    validation = told["validation"]
    assert validation["predicted"].keys() == validation["measured"].keys() == validation["error"].keys()
    assert told["ratios"].keys() == told["targets"].keys() == told["met"].keys()
    assert set(told["missed"]) == {name for name, met in told["met"].items() if not met}
    assert told["machine"]["cpu"] and told["machine"]["cores"] >= 1


def test_what_a_block_takes_on_disk_is_real(report: ScaleReport) -> None:
    here = report.costs["here"]

    assert here.kv_bytes < here.block_bytes["native"] < 2 * here.kv_bytes
    assert here.summary_bytes < here.block_bytes["int8"] < 0.6 * here.block_bytes["native"]
    predicted, measured = report.measured.validation.predicted, report.measured.validation.measured
    assert predicted["store_bytes"] == pytest.approx(measured["store_bytes"], rel=0.5)


def test_a_threshold_that_keeps_all_is_seen_in_the_sample(report: ScaleReport) -> None:
    assert report.measured.keep == (1.0, 1.0)


def test_people_get_tables(report: ScaleReport) -> None:
    titles = [str(table.title) for table in tables(report)]

    assert titles[:3] == ["unit costs", "live_1000", "archive_100k_hours"]
    assert "predicted and measured" in titles[3]


def test_a_codec_whose_decoding_is_not_measured_is_refused_at_once(tmp_path: Path) -> None:
    live = Live(video=Video(codec="vp8"))

    with pytest.raises(UsageError, match="--codec: decoding of 'vp8'"):
        run_scale_bench(work=tmp_path, wanted=Wanted(live=live))


def test_the_command_refuses_what_cannot_be(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "scale", "--kv-codec", "int4"]) != 0
    assert "--kv-codec: allowed: native, int8, fp8" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_prints_one_object_that_follows_its_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--streams", "10", "--hours", "5000", "--gpu-hour-price", "4", "--work", str(tmp_path)]

    assert run(["bench", "scale", "--json", *options]) == 0

    told = json.loads(capsys.readouterr().out)
    assert told["scenarios"].keys() == {"live_10", "archive_5k_hours"}
    assert told["scenarios"]["live_10"]["workload"]["prices"]["gpu_hour"] == 4
