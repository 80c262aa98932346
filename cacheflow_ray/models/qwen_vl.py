"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: frames merged in pairs, grids that follow the image, M-RoPE.

A unit is one temporal patch: `temporal_patch_size` frames of one size. Qwen3-VL adds DeepStack inputs (features of
earlier vision layers, added after the first decoder layers) and writes each patch's time as text before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from cacheflow_ray.errors import UnsupportedMedia
from cacheflow_ray.models.family import VISION_BATCH, Loaded, Parts
from cacheflow_ray.models.pixels import Image, Normalise, to_pixels
from cacheflow_ray.models.positions import Grid, OneSegment, Positions, SegmentPerFrame

#: Per-frame pixel budget where the checkpoint's processor names none: about 200 tokens a frame at 28 px per token.
DEFAULT_PIXELS = (128 * 28 * 28, 256 * 28 * 28)

#: Tokens of one frame at most, the reference implementation's limit for videos (qwen-vl-utils): checkpoints name
#: budgets for single images or for whole videos, thousands of tokens if one frame took it all.
MAX_FRAME_TOKENS = 768

FrameText = Callable[[float], tuple[tuple[int, ...], tuple[int, ...]]]


def _no_text(timestamp_s: float) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return (), ()


class QwenVision:
    """Frames in temporal patches of any size the processor's rule gives."""

    def __init__(self, model: Any, processor: Mapping[str, Any], text: FrameText) -> None:
        config = model.config.vision_config
        self._model, self._text = model, text
        self.frames_per_unit = int(config.temporal_patch_size)
        self.num_deepstack = len(getattr(config, "deepstack_visual_indexes", None) or ())
        self._patch, self._merge = int(config.patch_size), int(config.spatial_merge_size)
        size = processor.get("size") or {}
        most = MAX_FRAME_TOKENS * (self._patch * self._merge) ** 2
        self._pixels = (
            min(int(processor.get("min_pixels") or size.get("shortest_edge") or DEFAULT_PIXELS[0]), most),
            min(int(processor.get("max_pixels") or size.get("longest_edge") or DEFAULT_PIXELS[1]), most),
        )
        self._normalise = Normalise.of(processor)

    def grid(self, height: int, width: int) -> Grid:
        factor = self._patch * self._merge
        low, high = self._pixels
        try:
            rows_px, cols_px = smart_resize(height, width, factor=factor, min_pixels=low, max_pixels=high)
        except ValueError as error:  # a strip, 200 times as long as wide
            raise UnsupportedMedia(
                f"frames of {width} x {height} pixels are too narrow for the model: crop or pad the video"
            ) from error
        return rows_px // factor, cols_px // factor

    @torch.no_grad()
    def encode(self, units: Sequence[Sequence[Image]]) -> list[Tensor]:
        features: list[Tensor | None] = [None] * len(units)
        by_grid: dict[Grid, list[int]] = {}
        for place, unit in enumerate(units):
            by_grid.setdefault(self.grid(*unit[0].shape[:2]), []).append(place)
        for grid, places in by_grid.items():
            for start in range(0, len(places), VISION_BATCH):
                batch = places[start : start + VISION_BATCH]
                for place, tokens in zip(batch, self._features([units[p] for p in batch], grid), strict=False):
                    features[place] = tokens
        return [tokens for tokens in features if tokens is not None]

    def frame_text(self, timestamp_s: float) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return self._text(timestamp_s)

    def _features(self, units: Sequence[Sequence[Image]], grid: Grid) -> Tensor:
        """One padded vision call: [VISION_BATCH, P, C * (1 + num_deepstack)]."""
        device, dtype = self._model.device, self._model.dtype
        patches = torch.stack([self._patches(unit, grid, device) for unit in units]).to(dtype)
        padded = patches.new_zeros((VISION_BATCH, *patches.shape[1:]))
        padded[: len(patches)] = patches
        thw = torch.tensor([[1, grid[0] * self._merge, grid[1] * self._merge]] * VISION_BATCH, device=device)
        out = self._model.model.get_video_features(padded.flatten(0, 1), video_grid_thw=thw, return_dict=True)
        levels = [torch.stack(out.pooler_output)]
        if self.num_deepstack:
            levels += [torch.stack(level) for level in out.deepstack_features]
        return torch.cat(levels, dim=-1)

    def _patches(self, unit: Sequence[Image], grid: Grid, device: torch.device) -> Tensor:
        """[grid patches, 3 * frames * patch * patch] in the order the vision tower merges them."""
        patch, merge = self._patch, self._merge
        height, width = grid[0] * patch * merge, grid[1] * patch * merge
        frames = to_pixels(unit, height, width, self._normalise, device)
        tiles = frames.reshape(len(unit), 3, grid[0], merge, patch, grid[1], merge, patch)
        # -> row, col, merge row, merge col, channel, frame, y, x
        return tiles.permute(2, 5, 3, 6, 1, 0, 4, 7).reshape(grid[0] * grid[1] * merge * merge, -1)


def _parts(
    loaded: Loaded, positions: Callable[[float | None], Positions], video_text: str, text: FrameText = _no_text
) -> Parts:
    core = loaded.model.model
    vision = QwenVision(loaded.model, loaded.processor, text)
    keys = ("size", "min_pixels", "max_pixels", "image_mean", "image_std")
    return Parts(
        text_model=core.language_model,
        vision=vision,
        positions=positions,
        video_text=video_text,
        after_video=torch.zeros((0, core.config.text_config.hidden_size), dtype=loaded.dtype, device=loaded.device),
        default_block_size=196,
        preprocessing={key: loaded.processor.get(key) for key in keys},
    )


def qwen2_vl(loaded: Loaded) -> Parts:
    """Take a `Qwen2VLForConditionalGeneration` apart: time advances by 1 per temporal patch."""
    return _parts(loaded, lambda fps: OneSegment(), _video_token(loaded))


def qwen2_5_vl(loaded: Loaded) -> Parts:
    """Take a `Qwen2_5_VLForConditionalGeneration` apart: time advances by tokens_per_second x seconds per patch."""
    config = loaded.model.config.vision_config
    frames, per_second = int(config.temporal_patch_size), float(config.tokens_per_second)
    return _parts(loaded, lambda fps: OneSegment(per_second * frames / (fps or frames)), _video_token(loaded))


def qwen3_vl(loaded: Loaded) -> Parts:
    """Take a `Qwen3VLForConditionalGeneration` apart: each patch a segment with its own timestamp and vision marks."""
    config, tokenizer = loaded.model.config, loaded.tokenizer
    start, end = tokenizer.convert_ids_to_tokens([config.vision_start_token_id, config.vision_end_token_id])

    def text(timestamp_s: float) -> tuple[tuple[int, ...], tuple[int, ...]]:
        before = tokenizer(f"<{timestamp_s:.1f} seconds>{start}", add_special_tokens=False)["input_ids"]
        return tuple(before), (int(config.vision_end_token_id),)

    return _parts(loaded, lambda fps: SegmentPerFrame(), f"{start}{_video_token(loaded)}{end}", text)


def _video_token(loaded: Loaded) -> str:
    token: str = loaded.tokenizer.convert_ids_to_tokens(loaded.model.config.video_token_id)
    return token
