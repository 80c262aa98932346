"""KV that was dropped, had again from the source: as it was, or as near as a warm-up brings it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from cacheflow_ray.engine import VideoMemory
from cacheflow_ray.engine.opened import Backend, open_stream
from cacheflow_ray.engine.reencode import reach_of
from cacheflow_ray.engine.sources import SourceNote
from cacheflow_ray.engine.span_encoder import SpanEncoder
from cacheflow_ray.engine.spans import Look, plan_spans
from cacheflow_ray.media import open_source
from cacheflow_ray.models import VideoModel
from memory_store import Store
from tests.engine.archives import archived, asked, write_source
from tests.oracles import FAMILIES, FPS, distance, encode, settings, stored_kv, toy_model

EXACT = 1e-5
Record = Callable[[str, str, float], None]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(family: str) -> VideoModel:
    return toy_model(family)


@pytest.fixture(scope="module")
def llava() -> VideoModel:
    return toy_model("tiny-llava-onevision")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_source(tmp_path_factory.mktemp("video"))


def nothing_kept(blocks: range) -> tuple[range, frozenset[int]]:
    return blocks, frozenset(blocks)


def encoded_again(
    backend: Backend,
    stream: str,
    groups: Sequence[Sequence[int]],
    warm_up: int,
    *,
    look: Look = nothing_kept,
    source: Path | None = None,
) -> tuple[dict[int, torch.Tensor], set[int]]:
    """Blocks, each group on its own after a warm-up, and those that are said to be as they were."""
    opened = open_stream(backend, stream)
    note = SourceNote.of(backend.store.get_stream(stream).settings)
    note = SourceNote(uri=str(source), identity="") if source is not None else note
    assert note is not None
    encoder, reach = SpanEncoder(backend, opened, note), reach_of(backend, opened, warm_up)
    made: dict[int, torch.Tensor] = {}
    exact: set[int] = set()
    for group in groups:
        (span,) = plan_spans(group, reach, look)
        assert span.wanted == tuple(group)
        made |= {block_idx: kv for block_idx, kv in encoder.encode(span) if block_idx in group}
        exact |= span.exact
    return made, exact


def largest(backend: Backend, stream: str, made: dict[int, torch.Tensor]) -> float:
    size = open_stream(backend, stream).spec.block_size
    kept = stored_kv(backend, stream).split(size, dim=3)
    return max(distance(own, kept[block_idx]) for block_idx, own in made.items())


@pytest.mark.parametrize(
    "changes",
    [{}, {"pixel_gate": 4.0}, {"block_size": 5, "window_blocks": 2}, {"reference": "last_kept", "window_blocks": 0}],
    ids=str,
)
def test_with_all_of_the_stream_before_it_a_block_is_what_it_was(
    model: VideoModel, family: str, video: Path, tmp_path: Path, oracle: Record, changes: dict[str, object]
) -> None:
    """The tokens come out alike, though nothing is dropped anew; the KV with them."""
    with VideoMemory.open(tmp_path / "data", model=model) as memory:
        memory.ingest(video, stream="s", settings=settings(tau=0.9, **changes))
        backend = Backend(model=model, store=memory.store)
        opened = open_stream(backend, "s")
        assert opened.num_blocks > 4
        if "pixel_gate" in changes:
            assert opened.state.counters.units * model.vision.frames_per_unit < 30, "some frames have to be still"
        made, exact = encoded_again(backend, "s", [range(opened.num_blocks)], opened.num_blocks)
        measured = largest(backend, "s", made)
    oracle(family, "7 re-encoded", measured)
    assert exact == set(made)
    assert measured < EXACT


def test_what_reaches_a_block_is_enough_and_less_comes_near(model: VideoModel, video: Path, tmp_path: Path) -> None:
    """Layer l sees l windows back: (L - 1) * W blocks of warm-up give what was there, shorter ones less and less."""
    with VideoMemory.open(tmp_path / "data", model=model) as memory:
        memory.ingest(video, stream="s", settings=settings(tau=2.0, block_size=12, window_blocks=2))
        backend, enough = Backend(model=model, store=memory.store), (model.encoder.num_layers - 1) * 2
        last = open_stream(backend, "s").num_blocks - 1
        assert last - 2 > enough
        errors = {}
        for warm_up in (0, 2, enough - 1, enough):
            made, exact = encoded_again(backend, "s", [[1], [last - 2], [last]], warm_up)
            errors[warm_up] = largest(backend, "s", {last - 2: made[last - 2], last: made[last]})
            assert exact == ({1} if warm_up else set()) | ({last - 2, last} if warm_up == enough else set())
            assert not exact or largest(backend, "s", {idx: made[idx] for idx in exact}) < EXACT
    assert errors[0] > errors[2] > errors[enough - 1] > 10 * EXACT > EXACT > errors[enough]


def test_kept_neighbours_are_read_and_make_a_block_exact(model: VideoModel, video: Path, tmp_path: Path) -> None:
    def look(blocks: range) -> tuple[range, frozenset[int]]:
        return blocks, frozenset(blocks[-1:])

    with VideoMemory.open(tmp_path / "data", model=model) as memory:
        memory.ingest(video, stream="s", settings=settings(tau=0.9))
        backend = Backend(model=model, store=memory.store)
        last = open_stream(backend, "s").num_blocks - 1
        made, exact = encoded_again(backend, "s", [[0], [2], [last]], 0, look=look)
        assert exact == {0, 2, last}
        assert largest(backend, "s", made) < EXACT


def test_frames_that_went_alone_in_mid_stream_are_taken_alone_again(video: Path, tmp_path: Path) -> None:
    """A source that broke off leaves a frame without its partner, which came later and is another unit's."""
    model = toy_model("tiny-qwen3-vl")
    with open_source(video, fps=FPS) as source:
        frames = list(source)
    with Store.open(tmp_path / "data") as store:
        backend = Backend(model=model, store=store)
        encode(backend, {"s": frames[:13]}, settings(tau=0.9), chunk=4)
        encode(backend, {"s": frames[13:]}, settings(tau=0.9), chunk=4)
        opened = open_stream(backend, "s")
        firsts = {
            int(seq) for tokens in store.read_tokens("s", range(opened.num_blocks)) for seq in tokens["frame_idx"]
        }
        assert {12, 13} <= firsts
        blocks = range(opened.num_blocks)
        made, _ = encoded_again(backend, "s", [blocks], opened.num_blocks, source=video)
        assert largest(backend, "s", made) < EXACT


def test_an_archive_answers_as_if_all_had_been_kept(model: VideoModel, video: Path, tmp_path: Path) -> None:
    with VideoMemory.open(tmp_path / "data", model=model) as memory:
        memory.ingest(video, stream="kept", settings=settings(tau=0.9))
        archived(memory, video)
        before = memory.store.stats("s")
        assert before.num_absent == before.num_blocks - 3 == memory.store.stats("kept").num_blocks - 3
        wanted, found = asked(memory, "kept"), asked(memory, warm_up_blocks=before.num_blocks)
        assert (found.text, found.evidence) == (wanted.text, wanted.evidence)
        assert found.usage.context_tokens == wanted.usage.context_tokens
        assert found.usage.fetched_bytes < wanted.usage.fetched_bytes
        report = found.reencoded
        assert wanted.reencoded is None and report is not None
        retrieved = sorted(idx for seen in found.evidence if seen.kind == "retrieved" for idx in seen.block_idxs)
        assert report.source == str(video) and report.exact_idxs == report.block_idxs == tuple(retrieved)
        assert found.warnings == (
            f"re-encoded from '{video}': {len(retrieved)} blocks ({', '.join(map(str, retrieved))}), as they were",
        )
        assert "reencode" in found.timings
        assert memory.store.stats("s") == before, "nothing of it is written"


def test_an_approximation_is_told_and_kept_for_the_next_question(
    llava: VideoModel, video: Path, tmp_path: Path
) -> None:
    source = Path(tmp_path / "moved.mp4")
    source.write_bytes(video.read_bytes())
    with VideoMemory.open(tmp_path / "data", model=llava) as memory:
        archived(memory, source, window_blocks=1)
        first = asked(memory, warm_up_blocks=1)
        assert first.reencoded is not None and len(first.reencoded.exact_idxs) < 4
        assert "an approximation with a warm-up of 1 block" in first.warnings[0]
        source.unlink()
        again = asked(memory, warm_up_blocks=1)
        assert (again.text, again.reencoded, again.warnings) == (first.text, first.reencoded, first.warnings)
        other = asked(memory, warm_up_blocks=0)  # nothing was made that way yet
        assert other.reencoded is None
        assert "is gone" in other.warnings[0] and "4 (aged)" not in other.text


@pytest.mark.parametrize("name", ["bigbuckbunny.mp4", "h265.mp4", "av1.mkv", "nasa.mp4"])
def test_real_clips(llava: VideoModel, tmp_path: Path, name: str) -> None:
    folder = os.environ.get("CACHEFLOW_CLIPS")
    if not folder or not (Path(folder) / name).is_file():
        pytest.skip(f"CACHEFLOW_CLIPS names no folder with {name}")
    with VideoMemory.open(tmp_path / "data", model=llava) as memory:
        memory.ingest(Path(folder) / name, stream="s", settings=settings(fps=None, tau=0.9, block_size=24))
        backend = Backend(model=llava, store=memory.store)
        last = open_stream(backend, "s").num_blocks - 1
        made, exact = encoded_again(backend, "s", [[last // 3], [last]], 9)  # (L - 1) * W
        assert exact == {last // 3, last}
        assert largest(backend, "s", made) < EXACT
