"""Rotating stored keys to the positions of a new context (CacheFlow §3.4, "rehydration").

Keys are stored before rotary embedding. A context gives them contiguous positions and rotates each exactly once: angles
in float64 (float32 angles move logits by 4e-3 at position 15,000), the rotation itself in float32, the result in the
model's dtype. RoPE only sees differences of positions, so where a context starts does not matter.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Elements rotated at a time by each core, measured: the two float32 scratch buffers of one piece (2 x 512 KiB) stay in
#: the second-level cache, and a piece is long enough for what calling its six operations costs.
PIECE_ELEMENTS = 1 << 17

#: The same on an accelerator, where pieces only bound the scratch memory (2 x 128 MiB).
PIECE_ELEMENTS_DEVICE = 1 << 25


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

    A piece is a few tokens of all layers and heads, so that the angles of a piece, which are as many bytes as the keys
    of four heads in bfloat16, are read once and stay in the first-level cache.

    Args:
        x: [..., T, D], any strides.
        cos, sin: [T, R/2] float32.
    """
    num_tokens, half = x.shape[-2], cos.shape[-1]
    rotated = x[..., : 2 * half]
    elements = PIECE_ELEMENTS_DEVICE if x.is_cuda else PIECE_ELEMENTS * torch.get_num_threads()
    step = min(num_tokens, max(1, elements * num_tokens // max(1, rotated.numel())))
    scratch = torch.empty((2, *x.shape[:-2], step, 2 * half), dtype=torch.float32, device=x.device)
    for start in range(0, num_tokens, max(1, step)):
        piece = rotated[..., start : start + step, :]
        out, product = scratch[..., : piece.shape[-2], :]
        c, s = cos[start : start + step], sin[start : start + step]
        out.copy_(piece)
        # (first, second) * cos + (second, first) * (-sin, sin): the sum in either order, and minus as plus of the
        # negative, are the same to the bit.
        torch.mul(out[..., half:], -s, out=product[..., :half])
        torch.mul(out[..., :half], s, out=product[..., half:])
        piece.copy_(out.mul_(torch.cat((c, c), dim=-1)).add_(product))
