"""Packing: lossless, and blind to how the stream was chunked."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cacheflow_ray.core.packing import PackedBlock, Tail, pack
from cacheflow_ray.types import TOKEN_DTYPE

WIDTH = 3


def stream_of(length: int) -> tuple[Tensor, npt.NDArray[Any]]:
    """Tokens whose number can be read off the inputs and off every field of the metadata."""
    numbers = np.arange(length)
    tokens = np.zeros(length, TOKEN_DTYPE)
    tokens["frame_idx"], tokens["timestamp_s"], tokens["pos"] = numbers // 5, numbers / 5, numbers * 2
    tokens["row"], tokens["col"] = numbers % 7, numbers % 11
    return torch.arange(length * WIDTH, dtype=torch.float32).reshape(length, WIDTH), tokens


def pack_in(chunks: list[int], block_size: int) -> tuple[list[PackedBlock], Tail]:
    inputs, tokens = stream_of(sum(chunks))
    tail, blocks, start = Tail.empty(WIDTH, torch.float32), [], 0
    for size in chunks:
        new, tail = pack(tail, inputs[start : start + size], tokens[start : start + size], block_size)
        blocks += new
        start += size
    return blocks, tail


@given(st.lists(st.integers(0, 40), max_size=12), st.integers(1, 17))
def test_any_chunking_gives_the_same_blocks_and_loses_nothing(chunks: list[int], block_size: int) -> None:
    inputs, tokens = stream_of(sum(chunks))
    blocks, tail = pack_in(chunks, block_size)
    assert [len(block) for block in blocks] == [block_size] * (len(tokens) // block_size)
    assert len(tail) == len(tokens) % block_size
    pieces = [*blocks, tail]
    assert torch.equal(torch.cat([piece.inputs for piece in pieces]), inputs)
    assert np.array_equal(np.concatenate([piece.tokens for piece in pieces]), tokens)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=6), st.integers(1, 17))
def test_what_is_returned_owns_its_memory(chunks: list[int], block_size: int) -> None:
    blocks, tail = pack_in(chunks, block_size)
    for piece in (*blocks, tail):
        assert piece.inputs.untyped_storage().nbytes() == piece.inputs.nbytes
        assert piece.tokens.base is None


def test_later_changes_of_the_chunk_do_not_reach_the_blocks() -> None:
    inputs, tokens = stream_of(7)
    blocks, tail = pack(Tail.empty(WIDTH, torch.float32), inputs, tokens, 4)
    inputs.zero_()
    tokens["pos"] = -1
    expected_inputs, expected_tokens = stream_of(7)
    assert torch.equal(torch.cat([blocks[0].inputs, tail.inputs]), expected_inputs)
    assert np.array_equal(np.concatenate([blocks[0].tokens, tail.tokens]), expected_tokens)


def test_dtype_is_kept() -> None:
    inputs, tokens = stream_of(5)
    blocks, tail = pack(Tail.empty(WIDTH, torch.bfloat16), inputs.bfloat16(), tokens, 3)
    assert blocks[0].inputs.dtype == tail.inputs.dtype == torch.bfloat16


def test_pieces_that_do_not_fit_are_refused() -> None:
    inputs, tokens = stream_of(5)
    empty = Tail.empty(WIDTH, torch.float32)
    for tail, new, meta, block_size in [
        (empty, inputs, tokens[:4], 4),
        (empty, inputs, tokens["pos"], 4),
        (empty, inputs[:, :2], tokens, 4),
        (empty, inputs.half(), tokens, 4),
        (Tail(inputs=inputs, tokens=tokens), inputs, tokens, 5),
        (empty, inputs, tokens, 0),
    ]:
        with pytest.raises(ValueError):
            pack(tail, new, meta, block_size)
