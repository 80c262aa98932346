"""Machines and money by arithmetic: examples worked by hand, what may only grow, and the runbook's own numbers."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from cacheflow_ray.bench.scale.costs import Costs, QuestionCosts
from cacheflow_ray.bench.scale.dimensions import MODELS
from cacheflow_ray.bench.scale.model import Needs, plan_archive, plan_live
from cacheflow_ray.bench.scale.profiles import PUBLISHED_MFU, derived, h100
from cacheflow_ray.bench.scale.workloads import Archive, Asking, Live, Prices, Video
from cacheflow_ray.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]

#: Round numbers: a block is the survivors of ten frames, 10 * 20 + 100 = 300 ms; a question of 84.5 blocks 1 s.
COSTS = Costs(
    name="round", processor="gpu", patches=100, block_tokens=100, window_blocks=4, frame_s=0.02, megapixel_s=0.0,
    token_s=0.001, room_streams=20, decode_s={"h264": 0.004}, kv_bytes=1e6,
    block_bytes={"native": 1.1e6, "int8": 0.6e6, "fp8": 0.6e6}, summary_bytes=1e5, vectors=8, flat_bytes=2e3,
    library_bytes={"sq8": 600.0, "rabitq": 100.0},
    question=QuestionCosts(base_s=0.1, vector_s=1e-5, context_s=1e-4, token_s=0.01, token_context_s=1e-5), sources={},
)  # fmt: skip

VIDEO = Video(fps=1.0, keep=0.1, source_fps=25.0, megapixels=2.0, codec="h264", mbit_per_s=4.0)
ASKING = Asking(per_s=2.0, top_k=6, answer_tokens=11.0, hours=1.0, streams=10, cores=4.0, cv2=1.0)
PRICES = Prices(gpu_hour=2.0, core_hour=0.1, disk_tb_month=73.0, ram_gb_month=7.3, network_gb=0.01)
LIVE = Live(
    video=VIDEO, asking=ASKING, prices=PRICES, utilisation=0.5, kv_codec="int8", streams=100, kv_days=1.0,
    summary_days=2.0,
)  # fmt: skip
ARCHIVE = Archive(
    video=VIDEO, asking=ASKING, prices=PRICES, utilisation=0.5, kv_codec="int8", hours=2400.0, deadline_days=1.0,
    summary_only=0.5,
)  # fmt: skip

#: Context (6 + 4 + 0.5) * 100 tokens; vectors of an hour: 360 blocks of 8.
QUESTION_S = 0.1 + 1e-5 * 2880 + 1e-4 * 1050 + 10 * (0.01 + 1e-5 * 1050)


def test_what_a_hundred_cameras_take_is_worked_by_hand() -> None:
    needs = plan_live(COSTS, LIVE)

    assert needs.encoders == 6 and needs.bound_by == "compute"  # 10 blocks/s * 0.3 s / 0.5
    assert needs.decode_cores == pytest.approx(100 * 25 * 2 * 0.004 / 0.5)
    assert needs.disk_tb == pytest.approx(864_000 * (0.6e6 + 1e5) / 1e12)
    assert needs.written_mb_per_s == pytest.approx(6.0)
    assert needs.read_mb_per_s == pytest.approx(2 * 10 * 1e6 / 1e6)
    assert needs.ram_gb == pytest.approx((1_728_000 * 600 + 172_800 * 2000) / 1e9)
    assert needs.ingress_gbit_per_s == pytest.approx(0.4)
    assert needs.internal_gbit_per_s == pytest.approx((10 * 1e6 + 2 * 10e6) * 8 / 1e9)


def test_how_questions_are_answered_is_worked_by_hand() -> None:
    answers = plan_live(COSTS, LIVE).answers

    assert answers.service_s == pytest.approx(QUESTION_S)
    assert answers.answerers == 2  # 2/s * 0.439 s / 0.5 = 1.76
    assert answers.utilisation == pytest.approx(QUESTION_S)
    assert answers.service_s <= answers.p50_s < answers.p95_s


def test_what_it_costs_is_worked_by_hand() -> None:
    needs = plan_live(COSTS, LIVE)

    assert needs.hourly == pytest.approx(
        {
            "processors": 8 * 2.0,
            "decoding": needs.decode_cores * 0.1,
            "disk": needs.disk_tb * 0.1,
            "memory": needs.ram_gb * 0.01,
            "network": 0.4 / 8 * 3600 * 0.01,
        }
    )
    assert needs.per_video_hour == pytest.approx(sum(needs.hourly.values()) / 100)


def test_memory_binds_where_windows_are_large() -> None:
    needs = plan_live(replace(COSTS, room_streams=2), LIVE)

    assert needs.encoders == 50 and needs.bound_by == "memory"


def test_an_archive_is_worked_by_hand() -> None:
    needs = plan_archive(COSTS, ARCHIVE)
    blocks = 2400 * 360

    assert needs.encoders == 6  # as many blocks a second as a hundred cameras
    assert needs.disk_tb == pytest.approx(blocks / 2 * (0.6e6 + 1e5) / 1e12)
    again = 0.5 * 6 * 9 * (0.3 + 10 * 25 * 2 * 0.004 / 4)  # 27 blocks, each of ten seconds decoded by four cores
    assert needs.answers.reencode_s == pytest.approx(again)
    assert needs.answers.service_s == pytest.approx(QUESTION_S + again)
    assert needs.answers.fetched_bytes == pytest.approx((4 + 3) * 1e6)
    assert needs.one_time["encoders"] == pytest.approx(6 * 2.0 * 24)
    assert needs.per_video_hour == pytest.approx(sum(needs.one_time.values()) / 2400)
    assert needs.per_video_hour_month == pytest.approx(sum(needs.hourly.values()) * 730 / 2400)


def test_encoding_again_ends_where_a_question_gives_up() -> None:
    slow = replace(COSTS, token_s=1.0)

    assert plan_archive(slow, ARCHIVE).answers.reencode_s == 30.0


def test_an_archive_with_all_its_kv_encodes_nothing_again() -> None:
    needs = plan_archive(COSTS, replace(ARCHIVE, summary_only=0.0))

    assert needs.answers.reencode_s == 0.0 and needs.hourly["decoding"] == 0.0


def sizes(needs: Needs) -> list[float]:
    return [
        needs.encoders, needs.decode_cores, needs.disk_tb, needs.written_mb_per_s, needs.ram_gb,
        needs.ingress_gbit_per_s, needs.internal_gbit_per_s, needs.answers.answerers, sum(needs.hourly.values()),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "more",
    [
        replace(LIVE, streams=300),
        replace(LIVE, video=replace(VIDEO, fps=3.0)),
        replace(LIVE, video=replace(VIDEO, keep=0.3)),
        replace(LIVE, video=replace(VIDEO, megapixels=8.0)),
        replace(LIVE, asking=replace(ASKING, per_s=20.0)),
        replace(LIVE, asking=replace(ASKING, top_k=60)),
        replace(LIVE, kv_days=2.0),
        replace(LIVE, summary_days=20.0),
        replace(LIVE, utilisation=0.3),
        replace(LIVE, kv_codec="native"),
    ],
)
def test_more_of_anything_never_takes_less(more: Live) -> None:
    before, after = sizes(plan_live(COSTS, LIVE)), sizes(plan_live(COSTS, more))

    assert all(old <= new + 1e-12 for old, new in zip(before, after, strict=True))
    assert before != after


def test_a_later_deadline_takes_fewer_encoders_and_a_larger_archive_more() -> None:
    encoders = [plan_archive(COSTS, replace(ARCHIVE, deadline_days=days)).encoders for days in (0.5, 1.0, 6.0)]

    assert encoders == [12, 6, 1]
    assert plan_archive(COSTS, replace(ARCHIVE, hours=4800.0)).encoders == 12


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: replace(LIVE, video=replace(VIDEO, keep=0.0)), "--keep"),
        (lambda: replace(LIVE, utilisation=1.0), "--utilisation"),
        (lambda: replace(LIVE, kv_codec="int4"), "--kv-codec: allowed: native"),
        (lambda: replace(LIVE, library_codec="pq"), "--library-codec"),
        (lambda: replace(ARCHIVE, summary_only=1.5), "--summary-only"),
        (lambda: plan_live(COSTS, replace(LIVE, video=replace(VIDEO, codec="vp8"))), "h264"),
    ],
)
def test_what_cannot_be_is_refused_by_name(make, told: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match=told):
        make()


@pytest.fixture(scope="module")
def capacity() -> ModuleType:
    """The runbook's program."""
    spec = importlib.util.spec_from_file_location("capacity_program", ROOT / "deploy" / "capacity.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", MODELS)
def test_a_model_has_the_sizes_of_the_runbook(name: str, capacity: ModuleType) -> None:
    ours = MODELS[name]
    costs = derived(ours, h100({}, mfu=50 / 989))
    computed, room = ours.streams_per_gpu(1.0, 0.2, tflops=50.0, memory_gb=80.0)
    assert costs.room_streams == room
    assert 1 / (0.2 * costs.block_s(0.2, 0.0)) == pytest.approx(computed)
    flat, sq8, rabitq = (size(ours.vector_numbers) for size in capacity.INDEXES.values())
    assert costs.flat_bytes == 32 * flat
    assert costs.library_bytes == {"sq8": 32 * sq8, "rabitq": 32 * rabitq}


def test_every_assumption_of_a_gpu_names_its_source() -> None:
    costs = derived(MODELS["llava-ov-7b"], h100({"h264": 0.004}))

    assert f"x {PUBLISHED_MFU:g}" in costs.sources["token_s"]
    measures = {"frame_s", "token_s", "decode_s", "block_bytes", "library_bytes", "room_streams", "megapixel_s"}
    assert measures | {f"question.{name}" for name in ("base_s", "vector_s", "context_s", "token_s")} <= (
        costs.sources.keys()
    )


def test_the_share_that_is_reached_is_that_of_the_published_speed() -> None:
    costs = derived(MODELS["llava-ov-7b"], h100({}))

    assert costs.block_s(keep=1.0, megapixels=0.0) == pytest.approx(1 / 11.4, rel=0.05)
