"""Frames to pixel tensors, as the families' own video processors compute them, on the model's device.

Resizing is bicubic with antialiasing on uint8, then scaling and normalising in float32: per frame, so that a frame's
pixels never depend on its company.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def to_pixels(images: Sequence[Image], height: int, width: int, normalise: Normalise, device: torch.device) -> Tensor:
    """N images [h, w, 3] uint8 of any sizes -> [N, 3, height, width] float32 on `device`."""
    pixels = torch.stack([_resize(image, height, width, device) for image in images])
    mean, std = (torch.tensor(values, device=device)[:, None, None] for values in (normalise.mean, normalise.std))
    return (pixels.float() / 255 - mean) / std


def _resize(image: Image, height: int, width: int, device: torch.device) -> Tensor:
    """[3, height, width] whole numbers 0..255: the rounding is part of what the models were trained on."""
    pixels = torch.from_numpy(np.ascontiguousarray(image)).to(device).permute(2, 0, 1)[None]
    if pixels.shape[2:] == (height, width):
        return pixels[0]
    if device.type == "cpu":  # vectorised for uint8 with channels last in memory, many times faster than in floats
        return F.interpolate(pixels, size=(height, width), mode="bicubic", antialias=True)[0]
    resized = F.interpolate(pixels.float(), size=(height, width), mode="bicubic", antialias=True)
    return resized[0].round_().clamp_(0, 255).to(torch.uint8)
