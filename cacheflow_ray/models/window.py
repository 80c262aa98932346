"""The rotated keys and the values one stream's next block attends to.

    column   0 .. p | slot 0 | slot 1 | ... | slot W |          block j lives in slot j % (W + 1)
             prefix |  blocks j-W .. j-1 and the block being encoded, in whatever order the slots give

Softmax does not mind the order, so a new block overwrites the one that has just left the window and nothing moves.
Each key is rotated once, at its stream position; the short prefix is rotated anew for every block to stand right before
the window's first token (see `positions`). Where a block stands depends on its number alone, so a window rebuilt from
stored blocks is the same to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from cacheflow_ray.core.rehydrate import rotate
from cacheflow_ray.models.positions import Positions
from cacheflow_ray.models.rotary import Rotary

Tokens = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefix:
    """The model's KV of system prompt and start of the user turn (the attention sink), un-rotated.

    Args:
        kv: [L, 2, H, p, D] in the model's dtype, on its device.
    """

    kv: Tensor

    @property
    def length(self) -> int:
        """p, tokens."""
        return int(self.kv.shape[3])


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """Where the tokens being encoded stand.

    Args:
        start, stop: their columns in the window's buffers.
        total: columns attended to in all, [0, total).
        cos, sin: [T, R/2] float32 of their stream positions.
        mask: [T, total] additive, in the model's dtype: causal among themselves, everything else open,
            columns of a part-filled slot closed.
    """

    start: int
    stop: int
    total: int
    cos: Tensor
    sin: Tensor
    mask: Tensor


class Window:
    """Buffers of one stream; one block (or tail) at a time is opened, encoded layer by layer, and closed.

    Args:
        prefix: shared by all streams of the model.
        rotary, positions: of the model.
        num_blocks: W; block_size: B.
    """

    def __init__(self, prefix: Prefix, rotary: Rotary, positions: Positions, *, num_blocks: int, block_size: int):
        self.prefix, self.num_blocks, self.block_size = prefix, num_blocks, block_size
        self._rotary, self._positions = rotary, positions
        self._first_tokens: dict[int, Tokens] = {}  # block -> its first token, for the blocks held
        # The last layer's attention is never computed, so its window is not kept.
        num_layers, _, heads, _, width = prefix.kv.shape
        self.keys = prefix.kv.new_empty((num_layers - 1, heads, prefix.length, width))
        self.values = prefix.kv[:-1, 1].clone()

    def open(self, block_idx: int, tokens: Tokens) -> Slot:
        """Make room for block `block_idx` (or the tail: fewer than B tokens) and turn the prefix to its window.

        Raises:
            ValueError: a block of the window, [block_idx - W, block_idx), has not been encoded or loaded.
        """
        held = range(max(0, block_idx - self.num_blocks), block_idx)
        missing = [block for block in held if block not in self._first_tokens]
        if missing:
            raise ValueError(f"block {block_idx} needs blocks {missing} in its window")
        start = self._reserve(block_idx)
        wrapped = block_idx > self.num_blocks and start + self.block_size < self.keys.shape[2]
        total = self.keys.shape[2] if wrapped else start + len(tokens)
        first = self._first_tokens[held[0]] if held else tokens[0]
        self._turn_prefix(first)
        cos, sin = self._rotary(self._positions.stream(tokens) + self.prefix.length)
        mask = _mask(len(tokens), start, total, self.block_size, self.keys)
        return Slot(start=start, stop=start + len(tokens), total=total, cos=cos, sin=sin, mask=mask)

    def close(self, block_idx: int, tokens: Tokens) -> None:
        """Keep the block just encoded; the one that leaves the window is forgotten."""
        self._first_tokens[block_idx] = tokens[0].copy()
        self._first_tokens.pop(block_idx - self.num_blocks, None)

    def load(self, block_idx: int, tokens: Tokens, kv: Tensor) -> None:
        """Take a stored block in, as if it had been encoded here.

        Args:
            kv: [L, 2, H, B, D] un-rotated, in the model's dtype, on any device.
        """
        start = self._reserve(block_idx)
        columns = slice(start, start + self.block_size)
        cos, sin = self._rotary(self._positions.stream(tokens) + self.prefix.length)
        kv = kv[:-1].to(self.keys.device)
        self.keys[:, :, columns] = rotate(kv[:, 0], cos, sin)
        self.values[:, :, columns] = kv[:, 1]
        self._first_tokens[block_idx] = tokens[0].copy()

    def _reserve(self, block_idx: int) -> int:
        """First column of the block's slot; the buffers double until they hold W + 1 slots."""
        slot = block_idx % (self.num_blocks + 1)
        start = self.prefix.length + slot * self.block_size
        capacity = self.keys.shape[2]
        if start + self.block_size > capacity:
            slots = min(self.num_blocks + 1, max(slot + 1, 2 * (capacity - self.prefix.length) // self.block_size))
            self.keys, self.values = (
                _grown(buffer, self.prefix.length + slots * self.block_size) for buffer in (self.keys, self.values)
            )
        return start

    def _turn_prefix(self, first: Tokens) -> None:
        length = self.prefix.length
        at = torch.arange(length)[None] + self._positions.shift(first)
        self.keys[:, :, :length] = rotate(self.prefix.kv[:-1, 0], *self._rotary(at))


def _grown(buffer: Tensor, columns: int) -> Tensor:
    # Zeros, not whatever was there: a closed column still meets the softmax, where NaN times nothing is NaN.
    grown = buffer.new_zeros((*buffer.shape[:2], columns, buffer.shape[3]))
    grown[:, :, : buffer.shape[2]] = buffer
    return grown


def _mask(num_tokens: int, start: int, total: int, block_size: int, like: Tensor) -> Tensor:
    mask = like.new_zeros((num_tokens, total))
    own = mask[:, start : start + block_size]
    closed = torch.ones(own.shape, dtype=torch.bool, device=like.device).triu(diagonal=1)
    own.masked_fill_(closed, float("-inf"))
    return mask
