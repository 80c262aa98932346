"""What a stream encoder takes, leaves out and remembers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from cacheflow_ray.engine.batch import StageTimes, commit, encode_frames
from cacheflow_ray.engine.opened import Backend, open_stream
from cacheflow_ray.engine.state import EncoderState
from cacheflow_ray.errors import InvalidFeatures
from cacheflow_ray.media import Frame, thumbnail
from cacheflow_ray.models import VideoModel
from memory_store.testing import MemoryStore
from tests.oracles import encode, moving_frames, open_encoder, settings, toy_model


@pytest.fixture(scope="module")
def llava() -> VideoModel:
    return toy_model("tiny-llava-onevision")


@pytest.fixture(scope="module")
def qwen() -> VideoModel:
    return toy_model("tiny-qwen2-vl")


@pytest.fixture
def backend(llava: VideoModel) -> Iterator[Backend]:
    with MemoryStore() as store:
        yield Backend(model=llava, store=store)


def _feed(backend: Backend, stream: str, frames: list[Frame], **chosen: object) -> EncoderState:
    encode(backend, {stream: frames}, settings(**chosen), chunk=4)
    return open_stream(backend, stream).state


def test_repeated_and_late_frames_are_counted_and_left_out(backend: Backend) -> None:
    frames = moving_frames(9)
    late = replace(frames[8], timestamp_s=frames[6].timestamp_s)
    plain = _feed(backend, "plain", frames[:8])
    noisy = _feed(backend, "noisy", [*frames[:4], *frames[1:5], *frames[5:8], late])
    assert (noisy.counters.duplicates, noisy.counters.out_of_order) == (3, 1)
    assert torch.equal(noisy.tail.inputs, plain.tail.inputs)
    for block in range(backend.store.stats("plain").num_blocks):
        left, right = (backend.store.read_tokens(name, [block])[0] for name in ("plain", "noisy"))
        assert np.array_equal(left, right)


def test_a_first_frame_and_a_changed_grid_are_kept_whole(qwen: VideoModel) -> None:
    backend = Backend(model=qwen, store=MemoryStore())
    small, large = moving_frames(4), moving_frames(8, height=112, width=84)[4:]
    state = _feed(backend, "s", [*small, *large], tau=-1.0, block_size=64)
    per_unit = np.unique(state.tail.tokens["frame_idx"], return_counts=True)[1]
    first, second = (int(np.prod(qwen.vision.grid(*frame.image.shape[:2]))) for frame in (small[0], large[0]))
    assert list(per_unit) == [first, 1, second, 1]
    assert state.grid == qwen.vision.grid(112, 84)


def test_frames_are_merged_in_pairs_and_the_last_goes_alone(qwen: VideoModel) -> None:
    backend, frames = Backend(model=qwen, store=MemoryStore()), moving_frames(5)
    encoder = open_encoder(backend, "s", settings(tau=2.0))
    encode_frames(qwen, {encoder: frames}, StageTimes())
    commit(backend.store, [encoder], StageTimes())
    waiting = open_stream(backend, "s").state
    assert [frame.seq for frame in waiting.pending] == [4]
    assert (waiting.next_seq, waiting.counters.units, waiting.counters.frames) == (5, 2, 4)
    assert waiting.frames_per_unit == 2
    encode_frames(qwen, {encoder: ()}, StageTimes(), last=True)
    commit(backend.store, [encoder], StageTimes())
    ended = open_stream(backend, "s").state
    assert (ended.pending, ended.counters.units, ended.counters.frames) == ((), 3, 5)


def test_the_pixel_gate_spares_still_frames_and_lets_drift_through(backend: Backend) -> None:
    still = [replace(moving_frames(1)[0], seq=seq, timestamp_s=float(seq)) for seq in range(20)]
    drifting = [replace(frame, image=frame.image // 2 + np.uint8(3 * frame.seq)) for frame in still]
    gated = _feed(backend, "still", still, pixel_gate=10.0)
    assert (gated.counters.frames, gated.counters.units) == (20, 1)
    assert gated.counters.tokens_seen == 20 * 16
    assert 4 <= _feed(backend, "drifting", drifting, pixel_gate=10.0).counters.units <= 10


def test_a_frame_with_nan_is_refused_and_nothing_before_it_is_lost(backend: Backend, llava: VideoModel) -> None:
    frames, times = moving_frames(6), StageTimes()
    encoder = open_encoder(backend, "s", settings())
    units = encoder.take(frames)
    features = llava.vision.encode([[frame.image for frame in unit.frames] for unit in units])
    features[4][3, 7] = float("nan")
    for unit, seen in zip(units[:4], features, strict=False):
        encoder.absorb(unit, seen)
    with pytest.raises(InvalidFeatures, match=r"frame 4 \(2\.000 s\) of stream 's'"):
        encoder.absorb(units[4], features[4])
    encode_frames(llava, {encoder: ()}, times)
    commit(backend.store, [encoder], times)
    assert open_stream(backend, "s").state.next_seq == 4


def test_a_block_shows_the_frame_that_gave_it_most_tokens(backend: Backend) -> None:
    frames = moving_frames(60)
    _feed(backend, "s", frames)
    blocks = range(backend.store.stats("s").num_blocks)
    for tokens, shown in zip(
        backend.store.read_tokens("s", blocks), backend.store.read_thumbnails("s", blocks), strict=True
    ):
        numbers, counts = np.unique(tokens["frame_idx"], return_counts=True)
        assert shown == thumbnail(frames[int(numbers[counts.argmax()])].image)


def test_the_state_survives_its_bytes(qwen: VideoModel) -> None:
    backend = Backend(model=qwen, store=MemoryStore())
    encoder = open_encoder(backend, "s", settings(pixel_gate=1.0))
    encode_frames(qwen, {encoder: moving_frames(7)}, StageTimes())
    written = EncoderState.from_bytes(encoder.commit().state.payload, qwen.device)
    again = EncoderState.from_bytes(written.to_bytes(), qwen.device)
    assert again.to_bytes() == written.to_bytes()
    assert again.counters == encoder.state.counters
    assert [frame.seq for frame in again.pending] == [6]
    assert again.gate_view is not None and again.reference is not None
    assert torch.equal(again.tail.inputs, encoder.state.tail.inputs)
