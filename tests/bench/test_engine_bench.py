"""The engine's benchmark at toy dimensions: its names, its sizing, and that what it fills is a real memory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cacheflow_ray.bench import engine
from cacheflow_ray.bench.answers import measure_answers
from cacheflow_ray.bench.bench import Bench
from cacheflow_ray.bench.engine import PARTS, run_engine_bench
from cacheflow_ray.bench.fetching import measure_fetch
from cacheflow_ray.bench.ingesting import measure_encoding, measure_ingest
from cacheflow_ray.bench.measure import count_flops
from cacheflow_ray.bench.questions import measure_questions
from cacheflow_ray.bench.ragged import measure_ragged
from cacheflow_ray.bench.resident import is_supported, measure_resident
from cacheflow_ray.bench.resident_process import anonymous_bytes
from cacheflow_ray.bench.results import TARGETS, Ceiling, Part, Report, Roofline, Target
from cacheflow_ray.bench.sizes import LONG_S, PRESETS, SHORT_S, sizes_of
from cacheflow_ray.bench.synthetic import Memory, fill
from cacheflow_ray.cli.app import run
from cacheflow_ray.config import AskOptions, ModelOptions
from cacheflow_ray.engine import VideoMemory
from cacheflow_ray.errors import UsageError
from cacheflow_ray.models import VideoModel, load_model
from memory_store import Store

OPTIONS = ModelOptions(device="cpu", dtype="bfloat16")


@pytest.fixture(scope="module")
def model() -> VideoModel:
    return load_model("random:tiny-llava-onevision", OPTIONS)


@pytest.fixture
def bench(model: VideoModel, tmp_path: Path) -> Bench:
    sizes = replace(
        sizes_of("tiny", on_accelerator=False),
        ingest_frames=40, encode_frames=16, top_k=8, window_blocks=2, fps=0.2,
        question_repeats=1, ragged_repeats=1, fetch_repeats=1,
    )  # fmt: skip
    return Bench(model=model, sizes=sizes, folder=tmp_path, note=lambda text: None)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("on_accelerator", [False, True])
def test_both_memories_of_a_preset_hold_more_than_a_question_takes(preset: str, on_accelerator: bool) -> None:
    sizes = sizes_of(preset, on_accelerator=on_accelerator)

    assert sizes.num_blocks(SHORT_S) >= sizes.top_k + sizes.window_blocks
    assert sizes.num_blocks(LONG_S) >= 59 * sizes.num_blocks(SHORT_S)


def test_an_ingest_gives_the_share_outside_the_model(bench: Bench) -> None:
    part = measure_ingest(bench)

    assert 0 < part.ratios["non_model_share"] < 1
    assert part.details["frames"] == 40
    assert abs(float(part.details["drop"]) - 0.8) < 0.15  # type: ignore[arg-type]
    assert part.rooflines["non_model_share"].num_flops > 5 * bench.vision_flops()


def test_encoding_drops_more_at_every_step(bench: Bench) -> None:
    rows = measure_encoding(bench).details["rows"]

    assert isinstance(rows, list)
    drops = [row["drop"] for row in rows]
    assert drops[0] == 0 and drops == sorted(drops)
    assert all(row["frames"] == 16 for row in rows)


def test_the_same_question_fetches_as_much_of_ten_hours_as_of_ten_minutes(bench: Bench) -> None:
    part = measure_questions(bench)

    assert part.details["blocks"] == {"10min": 15, "10h": 950}
    assert part.ratios["question_bytes_10h_over_10min"] == 1.0
    assert part.details["context_tokens"] == {"10min": 174, "10h": 174}  # 6 prefix + 10 blocks + half a block's tail
    assert part.ratios["question_wall_10h_over_10min"] > 0
    assert float(part.details["first_token_ms_page_cache"]) > 0  # type: ignore[arg-type]


def test_fetch_and_rotation_are_given_against_a_plain_copy(bench: Bench) -> None:
    part = measure_fetch(bench)

    assert set(part.ratios) == {"fetch_over_memcpy", "fetch_over_memcpy_one_thread", "rotate_over_memcpy"}
    assert part.details["kv_bytes"] == 64 * 4 * 2 * 2 * 16 * 32 * 2


def test_eight_streams_at_once_are_given_against_one_by_one(bench: Bench) -> None:
    part = measure_ragged(bench)

    assert part.ratios["ragged8_over_sequential"] > 0
    assert part.rooflines["ragged8_over_sequential"].num_flops > 0


def test_eight_answers_at_once_are_given_against_one_after_another(bench: Bench) -> None:
    part = measure_answers(bench)

    assert part.ratios["answers8_over_sequential"] > 0
    assert part.rooflines["answers8_over_sequential"].num_bytes > bench.model.step_bytes > 0


@pytest.mark.slow
@pytest.mark.skipif(not is_supported(), reason="needs /proc")
def test_memory_growth_is_measured_in_processes_of_their_own(bench: Bench) -> None:
    part = measure_resident(bench, frames=(8, 80))

    few, many = part.details["few"], part.details["many"]
    assert isinstance(few, dict) and isinstance(many, dict)
    assert (few["frames"], many["frames"]) == (8, 80)
    assert part.ratios["rss_growth_10x"] == many["peak_anon_bytes"] / few["peak_anon_bytes"]
    assert 0.8 < part.ratios["rss_growth_10x"] < 2
    assert 0 < anonymous_bytes() < 1 << 36


def test_parts_leave_no_store_behind(bench: Bench) -> None:
    measure_fetch(bench)

    assert list(bench.folder.iterdir()) == []


def test_too_small_a_disk_is_refused_before_anything_is_written(bench: Bench) -> None:
    with pytest.raises(UsageError, match="--work"):
        bench.need_space(1e18)


def test_a_filled_memory_answers_like_any_other(model: VideoModel, tmp_path: Path) -> None:
    memory = Memory(stream="cam", num_blocks=20, tail_tokens=5, fps=2.0, keep=0.5, window_blocks=3)
    with Store.open(tmp_path) as store:
        fill(store, model, memory)

    with VideoMemory.open(tmp_path, model=model) as opened:
        info = opened.stream("cam")
        result = opened.ask("cam", "What?", options=AskOptions(top_k=4, max_new_tokens=1)).result
        tokens = np.concatenate([view.tokens for view in opened.blocks("cam")])

    assert (info.blocks, info.tail_tokens, info.complete) == (20, 5, True)
    assert abs(info.keep_rate - 0.5) < 0.05
    assert (result.usage.retrieved_blocks, result.usage.window_blocks, result.usage.tail_tokens) == (4, 3, 5)
    assert tokens["pos"].tolist() == list(range(20 * 16))
    assert tokens["timestamp_s"][-1] == 39 / 2.0  # 320 tokens, 8 a frame: the last of 40 frames


def test_operations_of_attention_and_products_are_counted() -> None:
    x = torch.randn((1, 2, 5, 8))

    attention, _ = count_flops(lambda: torch.nn.functional.scaled_dot_product_attention(x, x, x))
    product, returned = count_flops(lambda: x[0, 0] @ x[0, 1].T)

    assert attention == 2 * 2 * (2 * 5 * 5 * 8)
    assert product == 2 * 5 * 5 * 8
    torch.testing.assert_close(returned, x[0, 0] @ x[0, 1].T)


def test_the_roofline_is_the_slower_of_bytes_and_operations() -> None:
    line = Roofline(what="x", num_bytes=10.0, num_flops=40.0, seconds=8.0)

    told = line.as_json(Ceiling(bytes_per_s=10.0, flops_per_s=10.0))

    assert (told["floor_s"], told["of_roofline"]) == (4.0, 0.5)
    assert (told["bytes"], told["flops"]) == (10.0, 40.0)


@pytest.mark.parametrize(
    ("sign", "bound", "value", "met"),
    [
        ("<=", 1.2, 1.2, True),
        ("<=", 1.2, 1.3, False),
        (">=", 0.8, 0.7, False),
        ("=", 1.0, 1.0, True),
        ("=", 1.0, 2.0, False),
    ],
)
def test_targets_tell_met_from_missed(sign: str, bound: float, value: float, met: bool) -> None:
    assert Target(sign=sign, bound=bound).is_met(value) is met


def test_the_report_carries_ratios_targets_and_misses_by_name() -> None:
    part = Part(ratios={"non_model_share": 0.5, "rss_growth_10x": 1.0, "rotate_over_memcpy": 0.2})
    report = Report(
        preset="llava-ov-0.5b", model="m", device="cpu", dtype="bfloat16", machine={}, published=None, seconds=1.0,
        ceiling=Ceiling(bytes_per_s=1.0, flops_per_s=1.0), parts={"ingest": part}, skipped={},
    )  # fmt: skip

    told = report.as_json()

    assert told["ratios"] == {"non_model_share": 0.5, "rss_growth_10x": 1.0, "rotate_over_memcpy": 0.2}
    assert told["targets"] == {"non_model_share": "<= 0.15", "rss_growth_10x": "<= 1.05"}
    assert told["missed"] == ["non_model_share"]
    assert set(TARGETS) >= told["targets"].keys()  # type: ignore[union-attr]


def command(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = run(["bench", "engine", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_command_prints_one_json_object_last(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, err = command(["--device", "cpu", "--only", "ragged", "--work", str(tmp_path), "--json"], capsys)

    told = json.loads(out)
    assert code == 0
    assert list(told["ratios"]) == ["ragged8_over_sequential"]
    assert told["roofline"]["ragged8_over_sequential"]["of_roofline"] > 0
    assert {"cpu", "cores", "torch_threads", "copy_gb_per_s", "matmul_gflop_per_s"} <= told["machine"].keys()
    assert (told["preset"], told["device"], told["dtype"]) == ("tiny", "cpu", "bfloat16")
    assert "8 streams" in err
    assert list(tmp_path.iterdir()) == []


def test_the_command_prints_tables_for_people(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, bench: Bench
) -> None:
    monkeypatch.setattr(engine, "sizes_of", lambda preset, on_accelerator: bench.sizes)

    code, out, _ = command(["--device", "cpu", "--only", "questions", "--only", "encode"], capsys)

    assert code == 0
    assert "question_bytes_10h_over_10min" in out and "frames/s at 0 % drop" in out and "of roofline" in out


def test_unknown_presets_and_parts_are_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"llava-ov-0\.5b"):
        run_engine_bench("huge", options=OPTIONS)
    with pytest.raises(UsageError, match=", ".join(PARTS)):
        run_engine_bench("tiny", options=OPTIONS, only=["speed"])
