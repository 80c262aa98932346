"""The pixel gate: frames in which nothing moved need not be seen by the vision tower at all.

Beyond the paper. A frame is compared with the last one that was let through, never with the last one seen, so slow
drift adds up and passes.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

#: Frames are compared as SIZE x SIZE mean colours, so noise averages out and a mover the size of a cell still shows.
SIZE = 32


def gate_view(image: Tensor) -> Tensor:
    """[height, width, 3] uint8 -> [SIZE, SIZE, 3] float32 mean colours, 0..255."""
    pooled = adaptive_avg_pool2d(image.permute(2, 0, 1).float(), SIZE)
    return pooled.permute(1, 2, 0).contiguous()


def moved(view: Tensor, reference: Tensor) -> float:
    """Largest mean absolute colour difference of any cell, 0..255."""
    return float((view - reference).abs().mean(dim=-1).max()) if view.numel() else 0.0


def is_still(view: Tensor, reference: Tensor | None, threshold: float) -> bool:
    """Whether the frame may be skipped: it differs from the reference by less than `threshold` everywhere."""
    return reference is not None and moved(view, reference) < threshold
