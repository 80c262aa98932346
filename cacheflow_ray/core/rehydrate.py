"""Rotating stored keys to the positions of a new context (CacheFlow §3.4, "rehydration").

Keys are stored before rotary embedding. A context gives them contiguous positions and rotates each exactly once: angles
in float64 (float32 angles move logits by 4e-3 at position 15,000), the rotation itself in float32, the result in the
model's dtype. RoPE only sees differences of positions, so where a context starts does not matter.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Tokens x heads rotated at a time: the float32 scratch of one piece (4 x 1 MiB at most) stays in the L2 cache.
PIECE_ELEMENTS = 1 << 18


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate queries or keys to their positions.

    Args:
        x: [..., T, D] of any float dtype.
        cos, sin: [T, R/2] float32, R <= D; the first R channels rotate as pairs (i, i + R/2), the others pass.

    Returns:
        [..., T, D] in the dtype of `x`.
    """
    half = cos.shape[-1]
    first, second = x[..., :half].float(), x[..., half : 2 * half].float()
    parts = (first * cos - second * sin, second * cos + first * sin)
    return torch.cat((*(part.to(x.dtype) for part in parts), x[..., 2 * half :]), dim=-1)


def rotate_(x: Tensor, cos: Tensor, sin: Tensor) -> None:
    """As `rotate`, in place and in pieces that fit the cache of a CPU core; equal to it to the bit.

    Args:
        x: [H, T, D], any strides.
        cos, sin: [T, R/2] float32.
    """
    heads, num_tokens, width = x.shape
    step = num_tokens if x.is_cuda else max(1, PIECE_ELEMENTS // (heads * width))
    half = cos.shape[-1]
    scratch = torch.empty((4, heads, min(step, num_tokens), half), dtype=torch.float32, device=x.device)
    for start in range(0, num_tokens, step):
        piece = x[:, start : start + step]
        first, second, out, product = scratch[:, :, : piece.shape[1]]
        angles = slice(start, start + step)
        first.copy_(piece[..., :half])
        second.copy_(piece[..., half : 2 * half])
        for keep, other, sign, into in ((first, second, torch.sub, 0), (second, first, torch.add, half)):
            torch.mul(keep, cos[angles], out=out)
            torch.mul(other, sin[angles], out=product)
            sign(out, product, out=out)
            piece[..., into : into + half].copy_(out)
