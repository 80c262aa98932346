"""A block under its window, against the unmodified text model over a cache of what the window should hold."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from cacheflow_ray.models import Segment, VideoModel, Window
from tests.models.streams import BLOCK, FPS, GRID, Reference, Stream, blocks_before, make_stream
from tests.oracles import distance

EXACT = 1e-5


def empty_window(model: VideoModel, num_blocks: int) -> Window:
    return model.window(model.positions(FPS), num_blocks=num_blocks, block_size=BLOCK)


def encode(model: VideoModel, stream: Stream, window: Window, block_idx: int, size: int = BLOCK) -> Tensor:
    inputs, tokens = stream.block(block_idx, size)
    return model.encoder.encode([Segment(inputs=inputs, tokens=tokens, block_idx=block_idx, window=window)])[0]


def encode_all(model: VideoModel, stream: Stream, window: Window, num_blocks: int) -> list[Tensor]:
    return [encode(model, stream, window, block_idx) for block_idx in range(num_blocks)]


def rebuilt(model: VideoModel, stream: Stream, kv: list[Tensor], num_blocks: int, block_idx: int) -> Window:
    window = empty_window(model, num_blocks)
    for held in blocks_before(block_idx, num_blocks):
        window.load(held, stream.block(held)[1], kv[held])
    return window


def difference(
    model: VideoModel, stream: Stream, kv: list[Tensor], window_blocks: int, block_idx: int, own: Tensor
) -> float:
    """Of a block's KV from that of the unmodified model on the same inputs and past, positions counted anew from 0."""
    held = list(blocks_before(block_idx, window_blocks))
    inputs, tokens = stream.block(block_idx, own.shape[3])
    past = torch.cat([model.prefix.kv, *(kv[block] for block in held)], dim=3)
    everything = np.concatenate([*(stream.block(block)[1] for block in held), tokens])
    length = model.prefix.length
    positions, _ = model.positions(FPS).context(everything, length, GRID)
    at = torch.cat([torch.arange(length).expand(len(positions), -1), positions], dim=1)
    past_at, own_at = at[:, : past.shape[3]], at[:, past.shape[3] :]
    reference = Reference(model)
    wanted = reference.run(inputs, own_at, past, past_at)
    keys = distance(reference.rotated(own[:, 0], own_at), wanted[:, 0])
    return max(keys, distance(own[:, 1], wanted[:, 1]))


def test_prefix_is_the_models_own_kv_of_the_text_before_the_video(model: VideoModel) -> None:
    ids = torch.arange(model.prefix.length)
    inputs = model.embed(model.prompt.prefix_ids)
    at = ids[None].expand(model.positions(FPS).num_axes, -1)
    reference = Reference(model)
    wanted = reference.run(inputs, at, model.prefix.kv[:, :, :, :0], at[:, :0])
    assert distance(reference.rotated(model.prefix.kv[:, 0], at), wanted[:, 0]) < EXACT
    assert distance(model.prefix.kv[:, 1], wanted[:, 1]) < EXACT


@pytest.mark.parametrize("window_blocks", [2, 0])
def test_every_block_equals_the_unmodified_model_under_its_window(model: VideoModel, window_blocks: int) -> None:
    """Ten blocks over a ring of three slots: every slot is overwritten, the ring wraps more than twice."""
    stream, window = make_stream(model, 10), empty_window(model, window_blocks)
    kv = encode_all(model, stream, window, 10)
    for block_idx in range(10):
        assert difference(model, stream, kv, window_blocks, block_idx, kv[block_idx]) < EXACT


def test_the_reference_notices_a_block_too_many(model: VideoModel) -> None:
    stream = make_stream(model, 8)
    kv = encode_all(model, stream, empty_window(model, 2), 8)
    assert difference(model, stream, kv, 3, 7, kv[7]) > 100 * EXACT
    assert difference(model, stream, kv, 1, 7, kv[7]) > 100 * EXACT


@pytest.mark.parametrize("block_idx", [1, 2, 6, 7, 8])
def test_tail_in_any_slot_equals_the_unmodified_model(model: VideoModel, block_idx: int) -> None:
    """Slots 1, 2, 0, 1, 2 of three: before the ring wraps, and over what a block that has left still lies in."""
    stream, window = make_stream(model, block_idx + 1), empty_window(model, 2)
    kv = encode_all(model, stream, window, block_idx)
    tail = encode(model, stream, window, block_idx, size=BLOCK - 4)
    assert difference(model, stream, kv, 2, block_idx, tail) < EXACT


def test_a_tail_leaves_no_trace_in_the_window(model: VideoModel) -> None:
    stream, window, other = make_stream(model, 9), empty_window(model, 2), empty_window(model, 2)
    for block_idx in range(9):
        encode(model, stream, window, block_idx, size=BLOCK // 2)
        assert torch.equal(encode(model, stream, window, block_idx), encode(model, stream, other, block_idx)), (
            f"block {block_idx} after a tail"
        )


def test_rebuilt_window_is_bit_identical_to_the_running_one(model: VideoModel) -> None:
    stream, window, kv = make_stream(model, 9.5), empty_window(model, 2), []
    for block_idx in range(9):
        again = rebuilt(model, stream, kv, 2, block_idx)
        tails = [encode(model, stream, each, block_idx, size=5) for each in (window, again)]
        assert torch.equal(*tails)
        blocks = [encode(model, stream, each, block_idx) for each in (window, again)]
        assert torch.equal(*blocks)
        kv.append(blocks[0])
    held = [model.prefix.length + BLOCK * (block % 3) for block in (7, 8)]
    columns = [column for start in held for column in range(start, start + BLOCK)]
    assert torch.equal(window.keys[:, :, columns], again.keys[:, :, columns])
    assert torch.equal(window.values[:, :, columns], again.values[:, :, columns])


def test_window_positions_stay_exact_late_in_a_stream(model: VideoModel) -> None:
    """Keys rotated once at a position near a million attend as they do near zero."""
    stream = make_stream(model, 6)
    late = Stream(inputs=stream.inputs, tokens=stream.tokens.copy())
    late.tokens["pos"] += 1_000_000
    early_kv = encode_all(model, stream, empty_window(model, 2), 6)
    late_kv = encode_all(model, late, empty_window(model, 2), 6)
    assert max(distance(a, b) for a, b in zip(late_kv, early_kv, strict=True)) < EXACT


def test_block_without_its_window_is_refused(model: VideoModel) -> None:
    stream, window = make_stream(model, 6), empty_window(model, 2)
    kv = encode_all(model, stream, empty_window(model, 2), 5)
    window.load(3, stream.block(3)[1], kv[3])
    with pytest.raises(ValueError, match=r"block 5 needs blocks \[4\]"):
        encode(model, stream, window, 5)
