"""Survivors of successive frames become one token stream, cut into blocks of exactly B tokens.

      tail (T < B)          inputs (N)
    |=======|- - - - - - - - - - - - - - - - - - -|
    |  block 0  |  block 1  |  block 2  | new tail|

A block may span many frames or part of one; packing survivors into full blocks instead of padding frames is worth about
1.5 accuracy points in CacheFlow's ablation. Where the stream is cut depends on nothing but the number of tokens before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cacheflow_ray.types import TOKEN_DTYPE


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Tokens:
    """Token inputs and, row for row, where they came from.

    Args:
        inputs: [T, C], the embeddings the language model receives.
        tokens: [T] of TOKEN_DTYPE.

    Raises:
        ValueError: the two disagree in length, or have another shape or dtype.
    """

    inputs: Tensor
    tokens: npt.NDArray[Any]

    def __post_init__(self) -> None:
        if self.inputs.ndim != 2 or self.tokens.dtype != TOKEN_DTYPE or self.tokens.shape != self.inputs.shape[:1]:
            raise ValueError(
                f"inputs {list(self.inputs.shape)} with tokens {list(self.tokens.shape)} of {self.tokens.dtype} "
                "are not [T, C] with [T] of TOKEN_DTYPE"
            )

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tail(_Tokens):
    """The open block of a stream: fewer than B tokens, not yet encoded. Fields as `_Tokens`."""

    @classmethod
    def empty(cls, width: int, dtype: torch.dtype, device: torch.device | str = "cpu") -> Tail:
        """The tail of a stream that has just begun; `width` is C."""
        return cls(inputs=torch.empty((0, width), dtype=dtype, device=device), tokens=np.empty(0, TOKEN_DTYPE))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PackedBlock(_Tokens):
    """A full block, ready for the language model: inputs [B, C], tokens [B]."""


def pack(tail: Tail, inputs: Tensor, tokens: npt.NDArray[Any], block_size: int) -> tuple[list[PackedBlock], Tail]:
    """Append N tokens to a stream's tail and cut off every block that is full.

    Order and metadata are kept, nothing is lost or repeated, and any chunking of the same stream gives the same blocks
    and tail. What is returned owns its memory: a small tail never keeps a big chunk alive.

    Args:
        tail: what the call before returned, or `Tail.empty`.
        inputs: [N, C], N >= 0, of the tail's dtype and device.
        tokens: [N] of TOKEN_DTYPE.
        block_size: B.

    Returns:
        Blocks of exactly B tokens, oldest first, and the new tail of fewer than B.

    Raises:
        ValueError: inputs and tokens disagree, or do not fit the tail, or the tail is not shorter than a block.
    """
    new = _Tokens(inputs=inputs, tokens=tokens)
    _check_fit(tail, new, block_size)
    blocks = []
    start = -len(tail)  # in columns of `new`; negative while the tail has a share in the piece
    while start + block_size <= len(new):
        blocks.append(PackedBlock(**_piece(tail, new, start, start + block_size)))
        start += block_size
    return blocks, Tail(**_piece(tail, new, start, len(new)))


def _piece(tail: Tail, new: _Tokens, start: int, stop: int) -> dict[str, Any]:
    """Columns start..stop of the stream as fresh memory; only a piece that starts at -T reaches into the tail."""
    head = slice(0, len(tail) if start < 0 else 0)
    body = slice(max(start, 0), stop)
    return {
        "inputs": torch.cat([tail.inputs[head], new.inputs[body]]),
        "tokens": np.concatenate([tail.tokens[head], new.tokens[body]]),
    }


def _check_fit(tail: Tail, new: _Tokens, block_size: int) -> None:
    if len(tail) >= block_size:
        raise ValueError(f"a tail of {len(tail)} tokens is not shorter than a block of {block_size}")
    ours, theirs = tail.inputs, new.inputs
    if ours.shape[1] != theirs.shape[1] or ours.dtype != theirs.dtype or ours.device != theirs.device:
        raise ValueError(
            f"inputs [N, {theirs.shape[1]}] of {theirs.dtype} on {theirs.device} do not continue a tail "
            f"[T, {ours.shape[1]}] of {ours.dtype} on {ours.device}"
        )
