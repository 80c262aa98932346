"""Every way of answering on a small stream, with a model of random weights: what it attends to, not what it says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cacheflow_ray.config import AskOptions, StreamSettings
from cacheflow_ray.engine.opened import Backend
from cacheflow_ray.engine.rehydration import Plan, rehydrate
from cacheflow_ray.errors import UsageError
from cacheflow_ray.eval.needle.policies import METHODS, Case, Given
from cacheflow_ray.eval.needle.rekv import layered_context
from cacheflow_ray.eval.needle.rows import Record, make_rows, wilson
from cacheflow_ray.eval.needle.run import NeedlePlan, run_needle
from cacheflow_ray.eval.needle.streams import remember
from cacheflow_ray.models import VideoModel
from cacheflow_ray.models.llava_onevision import llava_onevision
from cacheflow_ray.models.word_llava import Sizes, build_word_llava
from cacheflow_ray.world import make_script, vocabulary
from memory_store import Store

SETTINGS = StreamSettings(tau=0.9, block_size=16, window_blocks=2)
WHOLE = StreamSettings(tau=2.0, block_size=16, window_blocks=2)


@pytest.fixture(scope="module")
def model() -> VideoModel:
    loaded = build_word_llava(vocabulary(), Sizes(layers=3), seed=0)
    return VideoModel("words", loaded, llava_onevision(loaded))


@pytest.fixture(scope="module")
def case(model: VideoModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    with Store.open(tmp_path_factory.mktemp("needle")) as store:
        backend = Backend(model=model, store=store)
        (kept,), (full,) = (
            remember(backend, [make_script(3, 96)], name, settings, per_kind=2)
            for name, settings in (("kept", SETTINGS), ("full", WHOLE))
        )
        yield Case(backend=backend, thinned=kept, whole=full, options=AskOptions(), window_blocks=2)


def given(case: Case, method: str, top_k: int = 2) -> list[Given]:
    answers = [METHODS[method](case, question, top_k) for question in case.thinned.questions]
    found = [answer for answer in answers if answer is not None]
    assert len(found) == len(answers) > 5
    return found


def test_truth_is_where_the_event_is(case: Case) -> None:
    stream = case.thinned
    for question in stream.questions:
        for event in question.events:
            frames = stream.tokens["frame_idx"]
            for block in stream.blocks_of(event):
                own = frames[block * 16 : (block + 1) * 16]
                assert ((own >= event.start) & (own < event.stop)).any()
    assert any(stream.blocks_of(event) for question in stream.questions for event in question.events)


def test_oracle_attends_to_all_that_was_kept_and_full_to_everything(case: Case) -> None:
    stream = case.thinned
    for question, oracle in zip(stream.questions, given(case, "oracle"), strict=True):
        assert oracle.found == tuple(bool(stream.blocks_of(event)) for event in question.events)
    assert {answer.tokens for answer in given(case, "full")} == {len(stream.tokens)}


def test_what_sees_little_sees_little(case: Case) -> None:
    tail = len(case.thinned.opened.state.tail)
    assert {answer.tokens for answer in given(case, "blind")} == {0}
    assert {answer.tokens for answer in given(case, "last-frames")} == {4 * 16}
    assert {answer.tokens for answer in given(case, "sliding-window")} == {2 * 16 + tail}
    assert {answer.tokens for answer in given(case, "uniform")} == {(4 * 16 + tail) // 16 * 16}
    for method in ("ours", "random", "cacheflow-gru", "cacheflow-gru-query"):
        assert {answer.tokens for answer in given(case, method)} == {4 * 16 + tail}, method
    assert {answer.tokens for answer in given(case, "rekv", 5)} == {5 * 16}


def test_rekv_with_all_blocks_is_the_plain_context(case: Case) -> None:
    stream, backend = case.whole, case.backend
    assert stream is not None
    blocks = list(range(7))
    layered = layered_context(backend, stream, [blocks] * backend.model.encoder.num_layers, 8)
    plain = rehydrate(backend, stream.opened, Plan(blocks=tuple(blocks), num_window=0, with_tail=False, room=8)).context
    assert layered.length == plain.length
    assert torch.equal(layered.keys[:, :, : plain.length], plain.keys[:, :, : plain.length])
    assert torch.equal(layered.values[:, :, : plain.length], plain.values[:, :, : plain.length])


def test_layers_of_rekv_choose_for_themselves(case: Case) -> None:
    from cacheflow_ray.eval.needle.rekv import MeanKeys, layered_blocks

    assert case.whole is not None
    means = MeanKeys(case.backend, case.whole)
    chosen = layered_blocks(case.backend, case.whole, case.suffix(case.thinned.questions[0]), 5, means)
    assert [len(blocks) for blocks in chosen] == [5, 5, 5]
    assert all(blocks == sorted(set(blocks)) for blocks in chosen)
    assert chosen[0] != chosen[2]


def test_a_run_gives_a_row_per_method_on_the_same_questions(model: VideoModel, tmp_path: Path) -> None:
    plan = NeedlePlan(
        frames=(48,), methods=("blind", "oracle", "ours"), top_k=(2,), seeds=(5,), per_kind=2,
        settings=SETTINGS, ask=AskOptions(),
    )  # fmt: skip
    told: list[str] = []
    rows = make_rows(run_needle(model, plan, note=told.append, folder=tmp_path))
    assert [row.method for row in rows] == ["blind", "oracle", "ours"]
    assert len({row.n for row in rows}) == 1
    assert rows[0].recall is None and rows[1].recall is not None
    assert rows[2].behind is None and rows[0].behind is not None
    assert rows[2].index_bytes_per_block == 8 * 2 * 2 * 32 * 4  # eight centroids
    assert told and "48 frames" in told[0]
    assert not list(tmp_path.iterdir())


def test_an_unknown_method_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"'magic'.*ours"):
        NeedlePlan(methods=("magic",), settings=SETTINGS, ask=AskOptions())


def record(method: str, number: int, right: bool) -> Record:
    return Record(
        method=method, frames=64, top_k=8, question=(0, number), kind="number", right=right, found=(right,),
        deciles=(number,), tokens=10, kept_tokens=100, total_tokens=1000, drop_rate=0.9,
        index_bytes_per_block=0.0, ms=1.0,
    )  # fmt: skip


def test_rows_count_and_compare() -> None:
    ours = [record("ours", number, right=number < 8) for number in range(10)]
    other = [record("other", number, right=number < 5) for number in range(10)]
    first, second = make_rows([*ours, *other])
    assert first.accuracy == 0.8 and first.recall == 0.8 and first.by_kind == {"number": 0.8}
    assert first.recall_by_decile == (1.0,) * 8 + (0.0,) * 2
    assert first.attended_share == pytest.approx(0.1)
    assert second.behind is not None
    mean, low, high = second.behind
    assert mean == pytest.approx(0.3) and low < mean < high


def test_wilson_interval_of_known_shares() -> None:
    assert wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-3)
    assert wilson(10, 10)[1] == 1.0 and wilson(0, 10)[0] == 0.0
