"""A stream of random blocks for the language model, its window full from the start."""

from __future__ import annotations

import numpy as np
import torch

from cacheflow_ray.bench.synthetic import random_kv
from cacheflow_ray.models import Segment, VideoModel
from cacheflow_ray.types import TOKEN_DTYPE
from memory_store.records import Array


class Lane:
    """One stream; every `segment` is its next block.

    Args:
        window_blocks: W, all of them there when the first segment is asked for.
    """

    def __init__(self, model: VideoModel, *, window_blocks: int, seed: int) -> None:
        self._model, self._next = model, window_blocks
        generator = torch.Generator().manual_seed(seed)
        size = model.default_block_size
        self._inputs = torch.randn((size, model.token_width), generator=generator).to(model.device, model.dtype)
        self._window = model.window(model.positions(1.0), num_blocks=window_blocks, block_size=size)
        kv = random_kv(model, generator)
        for block_idx in range(window_blocks):
            self._window.load(block_idx, self._tokens(block_idx), kv)

    def segment(self) -> Segment:
        """The next block, for one `encode`."""
        block_idx = self._next
        self._next += 1
        return Segment(inputs=self._inputs, tokens=self._tokens(block_idx), block_idx=block_idx, window=self._window)

    def _tokens(self, block_idx: int) -> Array:
        size = len(self._inputs)
        tokens = np.zeros(size, TOKEN_DTYPE)
        tokens["pos"] = tokens["frame_idx"] = np.arange(block_idx * size, (block_idx + 1) * size)
        tokens["timestamp_s"] = tokens["frame_idx"]
        return tokens
