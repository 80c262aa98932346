"""Made-up streams of tokens, and the unmodified text model run over a cache: the plain reference of all encoding."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import DynamicCache

from cacheflow_ray.engine.tokens import unit_tokens
from cacheflow_ray.media import Frame
from cacheflow_ray.models import VideoModel
from cacheflow_ray.models.positions import Grid, Positions
from cacheflow_ray.types import TOKEN_DTYPE

FPS = 2.0
BLOCK = 11
GRID = (3, 5)

Tokens = npt.NDArray[Any]
_NO_PIXELS = np.zeros((1, 1, 3), dtype=np.uint8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """Token inputs [N, C_in] and their metadata [N], as dropping leaves them."""

    inputs: Tensor
    tokens: Tokens

    def block(self, block_idx: int, size: int = BLOCK) -> tuple[Tensor, Tokens]:
        """The first `size` tokens of block `block_idx`."""
        start = block_idx * BLOCK
        return self.inputs[start : start + size], self.tokens[start : start + size]


def tokens_of_units(positions: Positions, kept: list[list[int]], grid: Grid, num_text: tuple[int, int]) -> Tokens:
    """Metadata of units of which patches `kept` survived."""
    parts, next_pos = [np.empty(0, dtype=TOKEN_DTYPE)], 0
    for seq, patches in enumerate(kept):
        frame = Frame(seq=seq, timestamp_s=seq / FPS, image=_NO_PIXELS)
        tokens, next_pos = unit_tokens(frame, np.array(patches), grid, num_text, positions, next_pos)
        parts.append(tokens)
    return np.concatenate(parts)


def make_stream(model: VideoModel, num_blocks: float, *, seed: int = 0) -> Stream:
    """Random inputs of a stream in which each frame loses some of its patches."""
    rng = np.random.default_rng(seed)
    before, after = model.vision.frame_text(1.5)
    wanted, patches = int(num_blocks * BLOCK), GRID[0] * GRID[1]
    kept = [sorted(rng.choice(patches, rng.integers(1, patches), replace=False)) for _ in range(wanted)]
    tokens = tokens_of_units(model.positions(FPS), kept, GRID, (len(before), len(after)))[:wanted]
    inputs = torch.from_numpy(rng.standard_normal((wanted, model.token_width), dtype=np.float32)) * 0.5
    inputs[torch.from_numpy(tokens["row"] < 0), inputs.shape[1] // (1 + model.vision.num_deepstack) :] = 0
    return Stream(inputs=inputs, tokens=tokens)


class Reference:
    """The unmodified text model, its own rotary embedding and its own way of rotating."""

    def __init__(self, model: VideoModel) -> None:
        self.text_model = model._parts.text_model
        self._hidden = int(self.text_model.config.hidden_size)
        self._apply = sys.modules[type(self.text_model).__module__].apply_rotary_pos_emb

    def rotated(self, keys: Tensor, positions: Tensor) -> Tensor:
        """[L, H, T, D] at [A, T]."""
        ids = positions if len(positions) == 1 else positions[:, None]
        cos, sin = self.text_model.rotary_emb(keys, ids)
        return self._apply(keys, keys, cos, sin)[1]

    def run(self, inputs: Tensor, positions: Tensor, past: Tensor, past_positions: Tensor) -> Tensor:
        """KV [L, 2, H, T, D] of `inputs` as the model caches it, keys rotated; `past` is un-rotated."""
        cache = DynamicCache()
        for layer, (keys, values) in enumerate(zip(self.rotated(past[:, 0], past_positions), past[:, 1], strict=True)):
            cache.update(keys[None], values[None], layer)
        self._forward(inputs, cache, positions)
        new = [torch.cat((layer.keys, layer.values))[:, :, past.shape[3] :] for layer in cache.layers]
        return torch.stack(new)

    @torch.no_grad()
    def _forward(self, inputs: Tensor, cache: DynamicCache, positions: Tensor) -> None:
        extra: dict[str, Any] = {}
        deepstack = inputs[:, self._hidden :]
        if "deepstack_visual_embeds" in inspect.signature(self.text_model.forward).parameters:
            visual = deepstack.abs().amax(1) > 0
            extra = {
                "visual_pos_masks": visual[None],
                "deepstack_visual_embeds": list(deepstack[visual].split(self._hidden, dim=-1)),
            }
        self.text_model(
            inputs_embeds=inputs[None, :, : self._hidden],
            past_key_values=cache,
            position_ids=positions if len(positions) == 1 else positions[:, None],
            use_cache=True,
            **extra,
        )


def blocks_before(block_idx: int, window: int) -> Iterator[int]:
    """The blocks a block attends to beside its own."""
    return iter(range(max(0, block_idx - window), block_idx))
