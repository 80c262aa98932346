"""What a family of vision-language models has to say for itself: the one seam new families come through."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from cacheflow_ray.models.pixels import Image
from cacheflow_ray.models.positions import Grid, Positions

#: Frames (or temporal patches) per vision call; smaller batches are padded to it. bfloat16 features move by 1e-3 in
#: cosine with the batch size, enough to flip a keep decision, so a frame's features may not depend on its company.
VISION_BATCH = 8


class Vision(Protocol):
    """Vision tower + projector + pooling: images to the token inputs the language model would receive."""

    frames_per_unit: int
    num_deepstack: int

    def grid(self, height: int, width: int) -> Grid:
        """Rows and columns of tokens for an image of that size, pixels."""

    def encode(self, units: Sequence[Sequence[Image]]) -> list[Tensor]:
        """Each unit (`frames_per_unit` images of one size) -> [P, C * (1 + num_deepstack)] in the model's dtype.

        Patches row by row. The first C channels are the embedding DTD compares; the rest are DeepStack inputs.
        """

    def frame_text(self, timestamp_s: float) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Token ids the model wants before and after a unit's patches (Qwen3-VL's timestamps); mostly none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """A loaded model taken apart.

    Args:
        text_model: the decoder (`layers`, `rotary_emb`, `embed_tokens`, `norm`, `config`).
        vision: see `Vision`.
        positions: the position rule for a stream sampled at that many frames per second (None: unknown).
        video_text: how the chat template writes a video.
        after_video: [n, C] inputs that follow the last frame and are no token ids (LLaVA-OneVision's newline).
        default_block_size: B where the user sets none.
        preprocessing: what the pixels depend on, for the fingerprint.
    """

    text_model: Any
    vision: Vision
    positions: Callable[[float | None], Positions]
    video_text: str
    after_video: Tensor
    default_block_size: int
    preprocessing: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What a family is given: the transformers model, its tokenizer and its preprocessor config (may be empty)."""

    model: Any
    tokenizer: Any
    processor: Mapping[str, Any]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self.model.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """What the weights are kept in."""
        dtype: torch.dtype = self.model.dtype
        return dtype


class Family(Protocol):
    """Takes a loaded model apart."""

    def __call__(self, loaded: Loaded) -> Parts: ...
