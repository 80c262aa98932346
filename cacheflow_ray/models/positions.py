"""Where a token stands: the position rules of the families, behind one seam.

A stream has a position axis of its own that grows for ever (`pos` in TOKEN_DTYPE). A window sees it shifted so that its
first token stands right after the prefix; since RoPE only sees differences, shifting the prefix instead is the same
thing, and window keys are rotated once. A context of retrieved blocks closes the gaps between them.

    stream axis     prefix | 0 1 2 3 4 5 6 7 8 9 ...
    window at 6     (prefix moved to end at 5) 6 7 8 9
    context         prefix | blocks of 1-2 and 6-9, closed up: 0 1 2 3 4 5

A positions tensor is int64 [A, T]: A = 1 axis, or 3 (time, height, width) for M-RoPE.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Tokens = npt.NDArray[Any]  # structured, TOKEN_DTYPE
Grid = tuple[int, int]  # rows, cols of a frame's tokens


class Positions(Protocol):
    """The seam: one family's rule."""

    num_axes: int

    def assign(self, next_pos: int, is_text: npt.NDArray[np.bool_], grid: Grid) -> tuple[npt.NDArray[np.int64], int]:
        """`pos` for one frame's kept tokens (text tokens of the frame flagged), and the stream's next free `pos`."""

    def stream(self, tokens: Tokens) -> Tensor:
        """[A, T] on the stream's axis, counted from the end of the prefix."""

    def shift(self, first: Tokens) -> Tensor:
        """[A, 1]: what to add to the prefix's positions so that a window starting at `first` (a scalar) follows it."""

    def context(self, tokens: Tokens, start: int, grid: Grid) -> tuple[Tensor, int]:
        """[A, T] for retrieved tokens in temporal order, gaps closed, from `start` on; and where text goes on."""


class Sequential:
    """One axis, one step per token (LLaVA-OneVision and every model with plain RoPE)."""

    num_axes = 1

    def assign(self, next_pos: int, is_text: npt.NDArray[np.bool_], grid: Grid) -> tuple[npt.NDArray[np.int64], int]:
        end = next_pos + len(is_text)
        return np.arange(next_pos, end, dtype=np.int64), end

    def stream(self, tokens: Tokens) -> Tensor:
        return torch.from_numpy(tokens["pos"].astype(np.int64))[None]

    def shift(self, first: Tokens) -> Tensor:
        return torch.tensor([[int(first["pos"])]])

    def context(self, tokens: Tokens, start: int, grid: Grid) -> tuple[Tensor, int]:
        end = start + len(tokens)
        return torch.arange(start, end)[None], end


@dataclass(frozen=True, slots=True)
class OneSegment:
    """M-RoPE of Qwen2-VL and Qwen2.5-VL: the video is one segment in which time advances and rows and columns stay.

    Here `pos` counts temporal patches. The time axis steps by `interval` per patch, counted from the stream's
    start and rounded down as the model does.
    Text goes on at start + max(rows, cols), the rule of the pinned library, also where time has run past it.
    """

    interval: float = 1.0
    num_axes = 3

    def assign(self, next_pos: int, is_text: npt.NDArray[np.bool_], grid: Grid) -> tuple[npt.NDArray[np.int64], int]:
        return np.full(len(is_text), next_pos, dtype=np.int64), next_pos + 1

    def stream(self, tokens: Tokens) -> Tensor:
        return self._triple(tokens, self._time(tokens["pos"]))

    def shift(self, first: Tokens) -> Tensor:
        return torch.tensor([[math.floor(int(first["pos"]) * self.interval)], [0], [0]])

    def context(self, tokens: Tokens, start: int, grid: Grid) -> tuple[Tensor, int]:
        if not len(tokens):
            return torch.zeros((3, 0), dtype=torch.int64), start
        # Steps of the stream's own axis, so that rounding falls where it fell when the blocks were encoded.
        pos = tokens["pos"]
        step = np.where(pos[1:] == pos[:-1], 0, self._time(pos[:-1] + 1) - self._time(pos[:-1]))
        return self._triple(tokens, np.concatenate([[0], np.cumsum(step)])) + start, start + max(grid)

    def _time(self, pos: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        time: npt.NDArray[np.float64] = np.floor(pos * self.interval)
        return time

    def _triple(self, tokens: Tokens, time: npt.NDArray[np.float64]) -> Tensor:
        return torch.from_numpy(np.stack([time, tokens["row"], tokens["col"]]).astype(np.int64))


class SegmentPerFrame:
    """M-RoPE of Qwen3-VL: each temporal patch is a segment of its own, with a timestamp as text before it.

    `pos` of a text token is its position; of a patch token, its segment's start, to which row and column are added.
    A segment is max(rows, cols) long.
    """

    num_axes = 3

    def assign(self, next_pos: int, is_text: npt.NDArray[np.bool_], grid: Grid) -> tuple[npt.NDArray[np.int64], int]:
        patches = np.flatnonzero(~is_text)
        step = np.ones(len(is_text), dtype=np.int64)
        step[patches] = 0
        step[patches[-1:]] = max(grid)
        ends = next_pos + np.cumsum(step)
        return np.concatenate([[next_pos], ends[:-1]]), int(ends[-1])

    def stream(self, tokens: Tokens) -> Tensor:
        return self._triple(tokens, tokens["pos"])

    def shift(self, first: Tokens) -> Tensor:
        return torch.full((3, 1), int(first["pos"]))

    def context(self, tokens: Tokens, start: int, grid: Grid) -> tuple[Tensor, int]:
        if not len(tokens):
            return torch.zeros((3, 0), dtype=torch.int64), start
        is_text, pos = tokens["row"] < 0, tokens["pos"]
        # Within a frame the stream's own steps, for a frame may have had another grid than the stream has now.
        same_frame = tokens["frame_idx"][:-1] == tokens["frame_idx"][1:]
        step = np.where(is_text[:-1], 1, np.where(same_frame, np.diff(pos), max(grid)))
        closed = start + np.concatenate([[0], np.cumsum(step)])
        return self._triple(tokens, closed), int(closed[-1]) + (1 if is_text[-1] else max(grid))

    def _triple(self, tokens: Tokens, pos: npt.NDArray[np.int64]) -> Tensor:
        row, col = np.maximum(tokens["row"], 0), np.maximum(tokens["col"], 0)
        return torch.from_numpy(np.stack([pos, pos + row, pos + col]).astype(np.int64))
