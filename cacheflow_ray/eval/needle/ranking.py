"""Blocks ranked by any summary of their keys, in memory: how scorers that are not the store's are measured."""

from __future__ import annotations

import torch
from torch import Tensor

from cacheflow_ray.types import Hit


def scores(vectors: Tensor, query: Tensor) -> Tensor:
    """Mean cosine over heads, then the best of a block's vectors.

    Args:
        vectors: [N, S, V, H, D]. query: [S, H, D].

    Returns:
        [S, N] float32.
    """
    units = torch.nn.functional.normalize(vectors.float(), dim=-1)
    wanted = torch.nn.functional.normalize(query.float(), dim=-1)
    return torch.einsum("nsvhd,shd->snvh", units, wanted).mean(-1).amax(-1)


def rankings(by_layer: Tensor, candidates: range, limit: int) -> list[list[Hit]]:
    """The best `limit` of the candidate blocks per layer; equal scores: the lower number first."""
    found = []
    for row in by_layer:
        inside = row[candidates.start : candidates.stop]
        order = torch.sort(inside, descending=True, stable=True).indices[:limit].tolist()
        found.append([Hit(block_idx=candidates.start + at, score=float(inside[at])) for at in order])
    return found
