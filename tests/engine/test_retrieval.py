"""Which blocks a question may attend to, which it finds, and how they are told as evidence."""

from __future__ import annotations

import numpy as np
import pytest

from cacheflow_ray.config import AskOptions
from cacheflow_ray.core.summary import make_summary
from cacheflow_ray.engine.opened import Backend, OpenedStream, open_stream
from cacheflow_ray.engine.retrieval import Scope, evidence, retrieve, retrieve_all, scope
from cacheflow_ray.engine.windows import read_blocks
from cacheflow_ray.errors import NothingToAnswer
from cacheflow_ray.models import Turn
from cacheflow_ray.types import TOKEN_DTYPE, Hit, TimeRange
from memory_store.testing import MemoryStore
from tests.oracles import encode, moving_frames, settings, toy_model


@pytest.fixture(scope="module")
def backend() -> Backend:
    backend = Backend(model=toy_model("tiny-llava-onevision"), store=MemoryStore())
    encode(backend, {"s": moving_frames(150)}, settings(), chunk=16)
    return backend


@pytest.fixture(scope="module")
def opened(backend: Backend) -> OpenedStream:
    return open_stream(backend, "s")


def test_the_window_is_never_a_candidate(backend: Backend, opened: OpenedStream) -> None:
    count = opened.num_blocks
    assert scope(backend.store, opened, None, 3) == Scope(
        candidates=range(count - 3), window=range(count - 3, count), with_tail=True
    )
    assert scope(backend.store, opened, None, 1000).candidates == range(0)


def test_a_range_without_the_present_drops_window_and_tail(backend: Backend, opened: OpenedStream) -> None:
    times = backend.store.times("s")
    asked = TimeRange(start_s=20.0, end_s=40.0)
    where = scope(backend.store, opened, asked, 3)
    overlapping = np.flatnonzero((times[:, 1] >= 20.0) & (times[:, 0] <= 40.0))
    assert list(where.candidates) == list(overlapping)
    assert (len(where.window), where.with_tail) == (0, False)


def test_what_another_process_adds_meanwhile_is_not_seen(backend: Backend) -> None:
    """The tail of the moment of opening goes with the blocks of that moment; later ones hold its tokens again."""
    growing = Backend(model=backend.model, store=MemoryStore())
    encode(growing, {"s": moving_frames(60)}, settings(), chunk=16)
    opened = open_stream(growing, "s")
    before = [scope(growing.store, opened, asked, 3) for asked in (None, TimeRange(start_s=10.0, end_s=500.0))]
    encode(growing, {"s": moving_frames(90)}, settings(), chunk=16)
    assert growing.store.stats("s").num_blocks > opened.num_blocks and len(opened.state.tail)
    assert [scope(growing.store, opened, asked, 3) for asked in (None, TimeRange(start_s=10.0, end_s=500.0))] == before
    with pytest.raises(NothingToAnswer):
        scope(growing.store, opened, TimeRange(start_s=40.0), 3)


@pytest.mark.parametrize("asked", [TimeRange(start_s=500.0), TimeRange(end_s=-1.0)])
def test_a_range_without_video_is_refused(backend: Backend, opened: OpenedStream, asked: TimeRange) -> None:
    with pytest.raises(NothingToAnswer, match="holds no video between"):
        scope(backend.store, opened, asked, 3)


@pytest.mark.parametrize("ranking", ["mean", "votes"])
@pytest.mark.parametrize("merge", ["consensus", "rrf", "interleave", "last", "first"])
def test_all_rules_give_k_blocks_of_the_scope(backend: Backend, opened: OpenedStream, ranking: str, merge: str) -> None:
    options = AskOptions.model_validate({"top_k": 5, "ranking": ranking, "merge": merge})
    suffix = backend.model.prompt.suffix([Turn(question="what moves?")])
    hits = retrieve(backend, opened, suffix, range(2, opened.num_blocks - 3), options)
    found = [hit.block_idx for hit in hits]
    assert len(set(found)) == 5
    assert all(2 <= block < opened.num_blocks - 3 for block in found)


def test_the_last_layer_alone_ranks_as_cosines_computed_from_stored_keys(
    backend: Backend, opened: OpenedStream
) -> None:
    suffix = backend.model.prompt.suffix([Turn(question="what moves?")])
    options = AskOptions(top_k=6, merge="last")
    hits = retrieve(backend, opened, suffix, range(opened.num_blocks), options)
    keys = read_blocks(backend, "s", range(opened.num_blocks))[1][-1, 0].unflatten(1, (opened.num_blocks, -1))
    summary = make_summary(opened.spec.summary, keys.shape[-1])
    vectors = summary.summarise(keys.transpose(0, 1)[:, None])[:, 0]  # [N, V, H, D]
    query = summary.query(backend.model.queries(suffix))[1]
    scores = (vectors * query).sum(-1) / vectors.norm(dim=-1) / query.norm(dim=-1)
    wanted = scores.mean(dim=2).amax(dim=1).argsort(descending=True)[:6].tolist()
    assert [hit.block_idx for hit in hits] == wanted


def test_stopping_early_keeps_fewer(backend: Backend, opened: OpenedStream) -> None:
    suffix = backend.model.prompt.suffix([Turn(question="what moves?")])
    every, best = (
        retrieve(backend, opened, suffix, range(opened.num_blocks), AskOptions(top_k=8, stop_ratio=ratio))
        for ratio in (0.0, 1.0)
    )
    assert len(every) == 8
    assert 1 <= len(best) <= 2  # one per layer at most


def test_a_follow_up_finds_the_blocks_of_its_question_and_of_the_one_before(
    backend: Backend, opened: OpenedStream
) -> None:
    own, before = (backend.model.prompt.suffix([Turn(question=text)]) for text in ("where was it", "a grey patch"))
    blocks, options = range(opened.num_blocks), AskOptions(top_k=6)
    alone = [[hit.block_idx for hit in retrieve(backend, opened, one, blocks, options)] for one in (own, before)]
    both = [hit.block_idx for hit in retrieve_all(backend, opened, [own, before], blocks, options)]
    assert both == list(dict.fromkeys(block for pair in zip(*alone, strict=True) for block in pair))[:6]
    only = retrieve_all(backend, opened, [own], blocks, options)
    assert [hit.block_idx for hit in only] == alone[0]


def test_no_blocks_are_retrieved_where_none_are_wanted(backend: Backend, opened: OpenedStream) -> None:
    suffix = backend.model.prompt.suffix([Turn(question="what moves?")])
    assert retrieve(backend, opened, suffix, range(opened.num_blocks), AskOptions(top_k=0)) == []


def test_neighbouring_blocks_are_one_stretch_best_first() -> None:
    tokens = {block: np.zeros(2, TOKEN_DTYPE) for block in range(12)}
    for block in tokens:
        tokens[block]["timestamp_s"] = block, block + 0.5
    hits = [Hit(block_idx=block, score=score) for block, score in ((7, 0.9), (3, 0.8), (6, 0.7), (2, 0.1))]
    first, second, window = evidence(hits, range(10, 12), tokens)
    assert (first.block_idxs, first.start_s, first.end_s, first.score) == ((6, 7), 6.0, 7.5, 0.9)
    assert (second.block_idxs, second.score) == ((2, 3), 0.8)
    assert (window.kind, window.block_idxs, window.score) == ("window", (10, 11), None)
