"""LLaVA-OneVision: SigLIP tower, two-layer projector, 2x bilinear pooling, Qwen2 decoder with plain RoPE."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cacheflow_ray.models.family import VISION_BATCH, Loaded, Parts
from cacheflow_ray.models.pixels import Image, Normalise, to_pixels
from cacheflow_ray.models.positions import Grid, Sequential


class LlavaVision:
    """Frame by frame: every image becomes a fixed grid, 14 x 14 for the published checkpoints."""

    frames_per_unit = 1
    num_deepstack = 0

    def __init__(self, model: Any, processor: Mapping[str, Any]) -> None:
        self._model = model
        vision = model.config.vision_config
        self._side = int(vision.image_size)
        pooled = math.ceil(self._side // int(vision.patch_size) / 2)
        self._grid = (pooled, pooled)
        self._normalise = Normalise.of(processor)

    def grid(self, height: int, width: int) -> Grid:
        return self._grid

    @torch.no_grad()
    def encode(self, units: Sequence[Sequence[Image]]) -> list[Tensor]:
        device, dtype = self._model.device, self._model.dtype
        features: list[Tensor] = []
        for start in range(0, len(units), VISION_BATCH):
            images = [unit[0] for unit in units[start : start + VISION_BATCH]]
            batch = torch.zeros((VISION_BATCH, 3, self._side, self._side), dtype=dtype, device=device)
            batch[: len(images)] = to_pixels(images, self._side, self._side, self._normalise, device)
            features.extend(self._features(batch)[: len(images)])
        return features

    def _features(self, pixels: Tensor) -> Tensor:
        """[V, 3, side, side] -> [V, P, C]; the library's own call, less the newline it appends to the last frame."""
        out = self._model.model.get_video_features(pixels[None], return_dict=True).pooler_output
        features: Tensor = out[0, :-1].unflatten(0, (len(pixels), self._grid[0] * self._grid[1]))
        return features

    def frame_text(self, timestamp_s: float) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return (), ()


def llava_onevision(loaded: Loaded) -> Parts:
    """Take a `LlavaOnevisionForConditionalGeneration` apart."""
    core = loaded.model.model
    vision = LlavaVision(loaded.model, loaded.processor)
    rows, cols = vision.grid(0, 0)
    return Parts(
        text_model=core.language_model,
        vision=vision,
        positions=lambda fps: Sequential(),
        video_text=loaded.tokenizer.convert_ids_to_tokens(core.config.video_token_id),
        after_video=core.image_newline.detach()[None],
        default_block_size=rows * cols,
        preprocessing={"side": vision._side, **_used(loaded.processor)},
    )


def _used(processor: Mapping[str, Any]) -> dict[str, Any]:
    return {key: processor.get(key) for key in ("image_mean", "image_std")}
