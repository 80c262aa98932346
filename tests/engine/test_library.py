"""Many streams searched as one: as every block compared one by one, within what is asked, and never beyond it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch

from cacheflow_ray.config import AskOptions
from cacheflow_ray.core.consensus import merge, vote_ranking
from cacheflow_ray.core.summary import make_summary
from cacheflow_ray.engine import LibraryFound, LibraryScope, StreamMoment, VideoMemory
from cacheflow_ray.engine.batch import StageTimes, commit, encode_frames
from cacheflow_ray.engine.library import search_library
from cacheflow_ray.engine.opened import Backend
from cacheflow_ray.engine.scope import EVERYWHERE
from cacheflow_ray.engine.spec import StreamSpec
from cacheflow_ray.engine.stream import StreamEncoder
from cacheflow_ray.engine.windows import read_blocks
from cacheflow_ray.errors import NothingToAnswer, UsageError
from cacheflow_ray.models import Turn
from memory_store import FingerprintMismatch, Hit, Store, StreamNotFound, StreamRecord, TimeRange
from tests.oracles import encode, moving_frames, settings, toy_model

TEXT = "what moves?"
NAMES = ("cam-1", "cam-2", "door", "acme:cam-1", "zeta:cam-1")
FRAMES = 40


def fill(store: Store) -> Backend:
    """Streams of different pictures; two of them of tenants."""
    backend = Backend(model=toy_model("tiny-llava-onevision"), store=store)
    for number, name in enumerate(NAMES):
        labels = {"site": "north" if number % 2 else "south"}
        make(backend, stream_id=name, tenant=name.rpartition(":")[0], labels=labels)
        encoder, times = StreamEncoder(backend, name, spec_of(backend)), StageTimes()
        encode_frames(backend.model, {encoder: moving_frames(FRAMES, seed=number)}, times)
        commit(store, [encoder], times)
    return backend


def spec_of(backend: Backend) -> StreamSpec:
    return StreamSpec.resolve(settings(), backend.model, "")


def make(backend: Backend, **fields: Any) -> None:
    whole = {"fingerprint": backend.model.fingerprint, "settings": spec_of(backend).as_settings()} | fields
    backend.store.create_stream(StreamRecord(**whole))


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    with Store.open(tmp_path_factory.mktemp("library"), shards=2) as store:
        yield fill(store)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Backend]:
    """Of one test, which may change it."""
    with Store.open(tmp_path) as store:
        yield fill(store)


def streams(moments: tuple[StreamMoment, ...]) -> set[str]:
    return {moment.stream for moment in moments}


def by_hand(backend: Backend, options: AskOptions, names: tuple[str, ...] = NAMES) -> list[tuple[str, int]]:
    """Every block, best first: cosines with vectors made anew of the stored keys."""
    model = backend.model
    suffix = model.prompt.suffix([Turn(question=TEXT)])
    places: list[tuple[str, int]] = []
    vectors = []
    for name in sorted(names):
        count = backend.store.stats(name).num_blocks
        keys = read_blocks(backend, name, range(count))[1][[0, -1], 0].unflatten(2, (count, -1))  # [S, H, N, B, D]
        summary = make_summary(str(backend.store.get_stream(name).settings["summary"]), keys.shape[-1])
        vectors.append(summary.summarise(keys.permute(2, 0, 1, 3, 4)))  # [N, S, V, H, D]
        places += [(name, at) for at in range(count)]
    query = summary.query(model.queries(suffix))
    units, wanted = (torch.nn.functional.normalize(each, dim=-1) for each in (torch.cat(vectors), query))
    cosines = torch.einsum("nsvhd,shd->nsvh", units, wanted)
    by_mean = [ranked(row)[: options.num_candidates] for row in cosines.mean(-1).amax(-1).T]
    if options.ranking == "votes":
        heads = [ranked(row)[: options.num_candidates] for row in cosines.amax(2).flatten(1).T]
        half = len(heads) // 2
        by_mean = [vote_ranking(own, mean) for own, mean in zip((heads[:half], heads[half:]), by_mean, strict=True)]
    first, last = (ranking[: options.num_candidates] for ranking in by_mean)
    return [places[hit.block_idx] for hit in merge(first, last, len(places), options.merge)]


def ranked(scores: torch.Tensor) -> list[Hit]:
    order = torch.sort(scores, descending=True, stable=True).indices.tolist()
    return [Hit(block_idx=at, score=round(float(scores[at]), 6)) for at in order]


@pytest.mark.parametrize("ranking", ["mean", "votes"])
@pytest.mark.parametrize("rule", ["consensus", "rrf", "interleave", "last", "first"])
def test_it_finds_what_comparing_every_block_finds(backend: Backend, ranking: Any, rule: Any) -> None:
    options = AskOptions(top_k=6, merge=rule, ranking=ranking)
    best = by_hand(backend, options)
    moments = search_library(backend, EVERYWHERE, TEXT, options).moments
    found = {(moment.stream, at) for moment in moments for at in moment.evidence.block_idxs}
    assert found == set(best[: len(found)])  # the best blocks, and no other
    assert len(moments) == 6
    assert [min(best.index((own.stream, at)) for at in own.evidence.block_idxs) for own in moments] == sorted(
        min(best.index((own.stream, at)) for at in own.evidence.block_idxs) for own in moments
    )


def test_as_many_blocks_are_taken_as_make_so_many_moments(backend: Backend) -> None:
    for top_k in (1, 3, 10):
        moments = search_library(backend, EVERYWHERE, TEXT, AskOptions(top_k=top_k, candidates=60)).moments
        assert len(moments) == top_k
        for moment in moments:
            first, last = moment.evidence.block_idxs[0], moment.evidence.block_idxs[-1]
            assert moment.evidence.block_idxs == tuple(range(first, last + 1))
            times = backend.store.times(moment.stream)
            assert (moment.evidence.start_s, moment.evidence.end_s) == (times[first, 0], times[last, 1])
        joined = {(own.stream, at) for own in moments for at in own.evidence.block_idxs}
        for own in moments:  # neighbours are one moment
            assert (own.stream, own.evidence.block_idxs[-1] + 1) not in joined


@pytest.mark.parametrize(
    ("scope", "held"),
    [
        (LibraryScope(), set(NAMES)),
        (LibraryScope(streams="cam-?"), {"cam-1", "cam-2"}),
        (LibraryScope(streams="[!c]*"), {"door", "acme:cam-1", "zeta:cam-1"}),
        (LibraryScope(streams="CAM-1"), None),
        (LibraryScope(labels={"site": "north"}), {"cam-2", "acme:cam-1"}),
        (LibraryScope(labels={"site": "north", "floor": "2"}), None),
        (LibraryScope(tenant=""), {"cam-1", "cam-2", "door"}),
        (LibraryScope(tenant="acme"), {"acme:cam-1"}),
        (LibraryScope(tenant="acme", streams="cam-*"), {"acme:cam-1"}),
        (LibraryScope(tenant="acme", streams="*:*"), None),
        (LibraryScope(tenant="acm"), None),
    ],
)
def test_a_scope_holds_its_streams_and_no_others(backend: Backend, scope: LibraryScope, held: set[str] | None) -> None:
    if held is None:
        with pytest.raises(NothingToAnswer, match="there are no streams"):
            search_library(backend, scope, TEXT, AskOptions(top_k=50))
        return
    found = search_library(backend, scope, TEXT, AskOptions(top_k=50, candidates=500))
    assert streams(found.moments) == held
    best = by_hand(backend, AskOptions(top_k=1), tuple(held))
    assert (found.moments[0].stream, best[0][1] in found.moments[0].evidence.block_idxs) == (best[0][0], True)


def test_streams_may_be_named(backend: Backend) -> None:
    named = search_library(backend, ("door", "acme:cam-1"), TEXT, AskOptions(top_k=50, candidates=500))
    assert streams(named.moments) == {"door", "acme:cam-1"}
    with pytest.raises(StreamNotFound, match="'attic'"):
        search_library(backend, ("door", "attic"), TEXT, AskOptions())


def test_a_time_range_is_of_every_stream_s_own_time(backend: Backend) -> None:
    within = TimeRange(start_s=10.0, end_s=14.0)
    found = search_library(backend, EVERYWHERE, TEXT, AskOptions(top_k=50, candidates=500, time_range=within))
    assert streams(found.moments) == set(NAMES)
    for moment in found.moments:
        assert moment.evidence.start_s <= 14.0 and moment.evidence.end_s >= 10.0
        overlapping = backend.store.blocks_in(moment.stream, within)
        assert set(moment.evidence.block_idxs) <= set(overlapping)
    with pytest.raises(NothingToAnswer, match="between 500 s and inf s"):
        search_library(backend, EVERYWHERE, TEXT, AskOptions(time_range=TimeRange(start_s=500)))


def test_what_was_recorded_at_a_time_of_the_clock(own: Backend) -> None:
    """Streams began at 8:00:00, 8:00:05 and, in another zone, 8:00:10; of the others nobody knows."""
    for name, began in (
        ("cam-1", "2026-04-11T08:00:00"),
        ("cam-2", "2026-04-11T08:00:05Z"),
        ("door", "2026-04-11T10:00:10+02:00"),
        ("acme:cam-1", "yesterday"),
    ):
        own.store.relabel(name, {"start": began})
    eight_s = datetime(2026, 4, 11, 8, tzinfo=UTC).timestamp()

    def between(start_s: float, end_s: float, options: AskOptions) -> LibraryFound:
        scope = LibraryScope(recorded=TimeRange(start_s=eight_s + start_s, end_s=eight_s + end_s))
        return search_library(own, scope, TEXT, options)

    every = AskOptions(top_k=50, candidates=500)
    found = between(7.0, 9.0, every)
    assert streams(found.moments) == {"cam-1", "cam-2"}
    for moment in found.moments:
        own_s = TimeRange(start_s=7.0, end_s=9.0) if moment.stream == "cam-1" else TimeRange(start_s=2.0, end_s=4.0)
        assert set(moment.evidence.block_idxs) <= set(own.store.blocks_in(moment.stream, own_s))
    assert found.warnings == (
        "left out 2 streams whose label 'start' does not tell when they began: acme:cam-1, zeta:cam-1",
    )
    assert streams(between(12.0, 13.0, every).moments) == {"cam-1", "cam-2", "door"}
    both = AskOptions(top_k=50, candidates=500, time_range=TimeRange(end_s=3.0))  # of its own time
    assert streams(between(7.0, 9.0, both).moments) == {"cam-2"}
    with pytest.raises(NothingToAnswer, match="of that time \\(left out 2 streams"):
        between(-60.0, -50.0, every)

    memory = VideoMemory(own.store, own.model)
    scope = LibraryScope(streams="cam-*", recorded=TimeRange(start_s=eight_s + 7, end_s=eight_s + 9))
    answer = memory.ask_library(TEXT, where=scope, options=AskOptions(max_new_tokens=2))
    first_s = {"cam-1": 7.0, "cam-2": 2.0}[answer.stream]
    own_time = TimeRange(start_s=first_s, end_s=first_s + 2)
    alone = memory.ask(answer.stream, TEXT, options=AskOptions(max_new_tokens=2, time_range=own_time)).result
    assert answer.result.evidence == alone.evidence


def test_what_is_deleted_is_not_found_and_what_comes_is(own: Backend) -> None:
    every = AskOptions(top_k=50, candidates=500)
    assert streams(search_library(own, EVERYWHERE, TEXT, every).moments) == set(NAMES)
    own.store.delete_stream("cam-1")
    assert streams(search_library(own, EVERYWHERE, TEXT, every).moments) == set(NAMES) - {"cam-1"}
    encode(own, {"cam-1": moving_frames(FRAMES, seed=9)}, settings(), chunk=16)
    found = search_library(own, EVERYWHERE, TEXT, AskOptions(top_k=6))
    best = by_hand(own, AskOptions(top_k=6))
    blocks = {(moment.stream, at) for moment in found.moments for at in moment.evidence.block_idxs}
    assert blocks == set(best[: len(blocks)])


def test_streams_of_other_models_are_left_out_and_told(own: Backend) -> None:
    make(own, stream_id="foreign", fingerprint="another")
    found = search_library(own, EVERYWHERE, TEXT, AskOptions(top_k=4))
    assert found.warnings == ("left out 1 stream written with another model: foreign",)
    assert len(found.moments) == 4
    for where in (("foreign", "door"), LibraryScope(streams="foreign")):
        with pytest.raises(FingerprintMismatch, match="'foreign'"):
            search_library(own, where, TEXT, AskOptions())


def test_streams_summarised_in_other_ways_are_ranked_together(own: Backend) -> None:
    encode(own, {"mean": moving_frames(FRAMES, seed=7)}, settings(summary="mean"), chunk=16)
    options = AskOptions(top_k=40, merge="interleave")
    searched = {
        name: own.store.search(name, vectors(own), limit=500, blocks=range(500)) for name in sorted([*NAMES, "mean"])
    }
    places = [(name, at) for name in searched for at in range(own.store.stats(name).num_blocks)]
    rankings = []
    for layer in range(2):
        hits = [(-hit.score, places.index((name, hit.block_idx))) for name in searched for hit in searched[name][layer]]
        rankings.append([Hit(block_idx=at, score=-score) for score, at in sorted(hits)[:160]])
    best = [places[hit.block_idx] for hit in merge(*rankings, len(places), "interleave")]
    found = search_library(own, EVERYWHERE, TEXT, options).moments
    blocks = {(moment.stream, at) for moment in found for at in moment.evidence.block_idxs}
    assert blocks == set(best[: len(blocks)])
    assert "mean" in streams(found) != {"mean"}


def vectors(backend: Backend) -> Any:
    queries = backend.model.queries(backend.model.prompt.suffix([Turn(question=TEXT)]))
    return make_summary("mean", backend.model.encoder.head_dim).query(queries).numpy()


def test_the_stream_with_the_best_moment_answers(backend: Backend) -> None:
    memory = VideoMemory(backend.store, backend.model)
    options = AskOptions(max_new_tokens=4)
    best = memory.search_library(TEXT, top_k=8).moments[0].stream
    answer = memory.ask_library(TEXT, options=options)
    assert (answer.stream, bool(answer.result.evidence)) == (best, True)
    alone = memory.ask(best, TEXT, options=options).result
    assert (answer.result.text, answer.result.evidence) == (alone.text, alone.evidence)
    assert 0 < answer.result.timings["search"] < answer.result.timings["first_token"] < answer.result.timings["total"]

    follow_up = AskOptions(session_id=answer.result.session_id, max_new_tokens=4)
    assert memory.ask(best, "and then?", options=follow_up).result.session_id == answer.result.session_id
    with pytest.raises(UsageError, match="a session belongs to one stream"):
        memory.ask_library("and then?", options=follow_up)


def test_without_retrieval_the_stream_is_found_all_the_same(backend: Backend) -> None:
    memory = VideoMemory(backend.store, backend.model)
    answer = memory.ask_library(TEXT, where=LibraryScope(streams="door"), options=AskOptions(top_k=0, max_new_tokens=2))
    assert (answer.stream, answer.result.usage.retrieved_blocks) == ("door", 0)


def test_streams_too_short_for_a_block_are_asked_when_they_are_named(own: Backend) -> None:
    encode(own, {name: moving_frames(1, seed=3) for name in ("short-1", "short-2")}, settings(block_size=64), chunk=1)
    memory, options = VideoMemory(own.store, own.model), AskOptions(max_new_tokens=2)
    assert memory.stream("short-1").blocks == 0
    assert memory.ask_library(TEXT, where=("short-1", "short-2"), options=options).stream == "short-1"
    with pytest.raises(NothingToAnswer, match="'short-\\*' holds a whole block"):
        memory.ask_library(TEXT, where=LibraryScope(streams="short-*"), options=options)
