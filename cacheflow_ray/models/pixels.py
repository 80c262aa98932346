"""Frames to pixel tensors, as the families' own video processors compute them, on the model's device.

Resizing is bicubic with antialiasing on uint8, then scaling and normalising in float32: per frame, so that a frame's
pixels never depend on its company.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

Image = npt.NDArray[np.uint8]  # [height, width, 3] RGB

#: What the processors use where their config says nothing (OpenAI CLIP's).
DEFAULT_MEAN, DEFAULT_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, slots=True)
class Normalise:
    """(x / 255 - mean) / std per channel."""

    mean: tuple[float, ...] = DEFAULT_MEAN
    std: tuple[float, ...] = DEFAULT_STD

    @classmethod
    def of(cls, processor: Mapping[str, Any]) -> Normalise:
        """From a Hugging Face preprocessor config."""
        return cls(
            tuple(processor.get("image_mean") or DEFAULT_MEAN),
            tuple(processor.get("image_std") or DEFAULT_STD),
        )


def to_pixels(image: Image, height: int, width: int, normalise: Normalise, device: torch.device) -> Tensor:
    """[h, w, 3] uint8 -> [3, height, width] float32."""
    pixels = torch.from_numpy(np.ascontiguousarray(image)).to(device).permute(2, 0, 1)[None].contiguous()
    if pixels.shape[2:] != (height, width):
        # uint8 in, uint8 out: the rounding in between is part of what the model was trained on.
        resized = F.interpolate(pixels.float(), size=(height, width), mode="bicubic", antialias=True)
        pixels = resized.round_().clamp_(0, 255)
    mean, std = (torch.tensor(values, device=device)[:, None, None] for values in (normalise.mean, normalise.std))
    return (pixels[0].float() / 255 - mean) / std
