"""Greedy answers from any context, by the model's own `generate()`; and contexts of a few frames seen alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from cacheflow_ray.media import Frame
from cacheflow_ray.models import Segment, Suffix, VideoModel
from cacheflow_ray.models.context import Context
from cacheflow_ray.types import TOKEN_DTYPE

#: Answers are one word.
MAX_NEW_TOKENS = 4


def answer(model: VideoModel, context: Context, suffix: Suffix, start: int) -> str:
    """The greedy answer from a filled context; `start`: position of the first token after the video."""
    return "".join(model.generate(context, suffix, start, MAX_NEW_TOKENS)).strip()


def room(model: VideoModel, suffix: Suffix) -> int:
    """Columns a context must keep free for the question and its answer."""
    return model.num_after_video + len(suffix.ids) + MAX_NEW_TOKENS


def watched(model: VideoModel, shown: Sequence[Frame]) -> list[torch.Tensor]:
    """KV [L, 2, H, P, D] of a few frames as a little video of their own: whole, each under all before it."""
    features = model.vision.encode([[frame.image] for frame in shown])
    size = len(features[0])
    positions = model.positions(None)
    window = model.window(positions, num_blocks=len(shown), block_size=size)
    kv, next_pos = [], 0
    for number, (frame, inputs) in enumerate(zip(shown, features, strict=True)):
        grid = model.vision.grid(*frame.image.shape[:2])
        tokens = np.zeros(size, TOKEN_DTYPE)
        tokens["frame_idx"] = number
        tokens["row"], tokens["col"] = np.divmod(np.arange(size), grid[1])
        tokens["pos"], next_pos = positions.assign(next_pos, tokens["row"] < 0, grid)
        kv += model.encoder.encode([Segment(inputs=inputs, tokens=tokens, block_idx=number, window=window)])
    return kv


def context_of(model: VideoModel, kv: Sequence[torch.Tensor], suffix: Suffix) -> tuple[Context, int]:
    """A context of such frames (none: the model is blind), and where text goes on."""
    start = model.prefix.length
    total = sum(part.shape[3] for part in kv)
    context = model.context(start + total + room(model, suffix))
    for part in kv:
        at = context.length
        context.append(part, torch.arange(at, at + part.shape[3])[None])
    return context, context.length
